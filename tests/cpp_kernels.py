"""The fused kernels' bodies compiled with g++ behind a small shim, and run thread by thread in a loop."""

import ctypes
import functools
import hashlib
import subprocess
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts.networks.kernel_source import KERNELS

# A group is one thread here: every EACH is a plain loop over what all threads would share, and nobody waits. GROUP says
# in which order the threads of an EACH run: nothing may depend on it.
SHIM = """
#include <cmath>
#include <cstdint>
#include <cstring>
using float16_t = _Float16;
struct bfloat16_t {
  uint16_t bits;
  bfloat16_t() = default;
  explicit bfloat16_t(float x) {
    uint32_t wide;
    std::memcpy(&wide, &x, 4);
    bits = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
  }
  explicit operator float() const {
    const uint32_t wide = uint32_t(bits) << 16;
    float x;
    std::memcpy(&x, &wide, 4);
    return x;
  }
};
inline uint32_t as_bits(float x) { uint32_t y; std::memcpy(&y, &x, 4); return y; }
inline float as_float(uint32_t x) { float y; std::memcpy(&y, &x, 4); return y; }
#define SHARED(type, name, size) type name[size]
#define SYNC
#define RSQRT(x) (1.0f / std::sqrt(x))
#define AS_BITS(x) as_bits(x)
#define AS_FLOAT(x) as_float(x)
#ifdef BACKWARDS
#define EACH(i, n) for (unsigned i = (n); i-- > 0;)
#else
#define EACH(i, n) for (unsigned i = 0; i < (n); ++i)
#endif
"""
TYPES = {mx.float32: "float", mx.float16: "float16_t", mx.bfloat16: "bfloat16_t", mx.int32: "int32_t"}
TYPES |= {mx.uint32: "uint32_t"}


def words(array):
    """An array's memory, packed, as NumPy knows it; bfloat16 as its bits."""
    array = mx.contiguous(array)
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)


@functools.cache
def folder():
    return tempfile.TemporaryDirectory(prefix="qwen3tts-kernels-")


@functools.cache
def compiled(name, types, constants, backwards):
    """A kernel as a C function of pointers to its arrays, their shapes and strides, and the numbers of groups."""
    kernel = KERNELS[name]
    arguments = [
        f"const {TYPES[dtype]}* {array}, const int* {array}_shape, const int64_t* {array}_strides"
        for array, dtype in zip(kernel.inputs, types[0], strict=True)
    ]
    arguments += [f"{TYPES[dtype]}* {array}" for array, dtype in zip(kernel.outputs, types[1], strict=True)]
    lines = [
        f"using {key} = {TYPES[value]};" if isinstance(value, mx.Dtype) else f"constexpr int {key} = {int(value)};"
        for key, value in constants
    ]
    code = f"""{"#define BACKWARDS" if backwards else ""}
{SHIM}
extern "C" void run({", ".join(arguments)}, unsigned rows, unsigned batches) {{
  {" ".join(lines)}
  for (unsigned batch = 0; batch < batches; ++batch) for (unsigned row = 0; row < rows; ++row) {{
    {kernel.body}
  }}
}}
"""
    path = Path(folder().name) / hashlib.sha256(code.encode()).hexdigest()[:16]
    path.with_suffix(".cpp").write_text(code)
    flags = ["-std=c++14", "-O1", "-Wall", "-Wno-unused", "-Wno-sign-compare", "-Werror", "-shared", "-fPIC"]
    command = ["g++", *flags, str(path.with_suffix(".cpp")), "-o", str(path.with_suffix(".so"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(path.with_suffix(".so"))).run


def launch(name, inputs, constants, groups, outputs, backwards=False):
    """Takes the place of `kernels.launch`, at once instead of later."""
    kernel = KERNELS[name]
    types = tuple(x.dtype for x in inputs), tuple(dtype for _, dtype in outputs)
    function = compiled(name, types, (*constants.items(), ("THREADS", kernel.threads)), backwards)
    arrays, arguments = [], []
    for x in inputs:
        array = words(x)
        shape = np.array(array.shape, np.int32)
        strides = np.array(array.strides, np.int64) // array.itemsize
        arrays += [array, shape, strides]
    made = [
        np.full(shape, 77, np.uint16 if dtype == mx.bfloat16 else words(mx.zeros(0, dtype)).dtype)
        for shape, dtype in outputs
    ]
    arguments = [array.ctypes.data_as(ctypes.c_void_p) for array in (*arrays, *made)]
    function(*arguments, *(ctypes.c_uint(group) for group in groups))
    return [
        mx.array(array).view(dtype) if dtype == mx.bfloat16 else mx.array(array)
        for array, (_, dtype) in zip(made, outputs, strict=True)
    ]
