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

# A group is one thread here: every EACH is a plain loop over what all threads would share, and nobody waits. In which
# order the threads of an EACH run must not matter, so they can run backwards too.
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
"""
LOOPS = {
    False: "#define EACH(i, n) for (unsigned i = 0; i < (n); ++i)",
    True: "#define EACH(i, n) for (unsigned i = (n); i-- > 0;)",
}
FLAGS = ["-std=c++14", "-O1", "-Wall", "-Wno-unused", "-Wno-sign-compare", "-Werror", "-shared", "-fPIC"]
TYPES = {
    mx.float32: "float",
    mx.float16: "float16_t",
    mx.bfloat16: "bfloat16_t",
    mx.int32: "int32_t",
    mx.uint32: "uint32_t",
}
GUARD = 64  # numbers behind an output that must stay as they are


@functools.cache
def folder():
    return tempfile.TemporaryDirectory(prefix="qwen3tts-kernels-")


@functools.cache
def compiled(name, inputs, outputs, constants, backwards):
    """A kernel as a C function of pointers to its arrays, with shapes and strides of inputs, and its groups' numbers.

    inputs, outputs: dtypes; constants: (name, value) each.
    """
    kernel, parameters, names = KERNELS[name], [], []
    for array, dtype in zip(kernel.inputs, inputs, strict=True):
        parameters += [f"const {TYPES[dtype]}* {array}", f"const int* {array}_shape", f"const int64_t* {array}_strides"]
    for array, dtype in zip(kernel.outputs, outputs, strict=True):
        parameters.append(f"{TYPES[dtype]}* {array}")
    for key, value in constants:
        is_type = isinstance(value, mx.Dtype)
        names.append(f"using {key} = {TYPES[value]};" if is_type else f"constexpr int {key} = {int(value)};")
    code = f"""{SHIM}{LOOPS[backwards]}
extern "C" void run({", ".join(parameters)}, unsigned rows, unsigned batches) {{
  {" ".join(names)}
  for (unsigned batch = 0; batch < batches; ++batch) for (unsigned row = 0; row < rows; ++row) {{
    {kernel.body}
  }}
}}
"""
    path = Path(folder().name) / hashlib.sha256(code.encode()).hexdigest()[:16]
    path.with_suffix(".cpp").write_text(code)
    command = ["g++", *FLAGS, str(path.with_suffix(".cpp")), "-o", str(path.with_suffix(".so"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(path.with_suffix(".so"))).run


def words(array, packed=True):
    """An array as NumPy knows it, bfloat16 as its bits: a packed copy, or else as it lies in memory."""
    if array.dtype == mx.bfloat16:
        return np.array(mx.contiguous(array).view(mx.uint16))
    return np.array(array, order="C") if packed else np.asarray(memoryview(array))


def launch(name, inputs, constants, groups, outputs, backwards=False):
    """Takes the place of `kernels.launch`; runs at once, so nothing around it can be compiled."""
    kernel, dtypes = KERNELS[name], tuple(dtype for _, dtype in outputs)
    constants = (*constants.items(), ("THREADS", kernel.threads))
    function = compiled(name, tuple(x.dtype for x in inputs), dtypes, constants, backwards)
    arrays = []
    for array in [words(x, kernel.packed) for x in inputs]:
        strides = [stride // array.itemsize for stride in array.strides]
        arrays += [array, np.array(array.shape, np.int32), np.array(strides, np.int64)]
    made = []
    for shape, dtype in outputs:
        kind = words(mx.zeros(0, dtype)).dtype
        made.append(np.full(int(np.prod(shape)) + GUARD, 77, kind))
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (*arrays, *made)]
    function(*pointers, *map(ctypes.c_uint, groups))
    results = []
    for array, (shape, dtype) in zip(made, outputs, strict=True):
        assert (array[-GUARD:] == 77).all(), f"{name} writes behind its output"
        result = mx.array(array[:-GUARD].reshape(shape))
        results.append(result.view(dtype) if dtype == mx.bfloat16 else result)
    return results
