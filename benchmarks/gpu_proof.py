"""Is this a working MLX? Every operation that the package asks for, on the default device against the CPU.

    python -m benchmarks.gpu_proof [--records FILE] [--part quick|slow]

Imports MLX and NumPy alone. Each operation is computed twice from the same inputs and the difference is given relative
to the largest value. The first call compiles the kernel where it is not in the library, so its time is shown: some
seconds for a few, and up to half a minute for a quantised product of many rows, which are the part `slow`. MLX keeps
what it compiled on disk. An operation that is not there is reported, and the others go on. Exit status 1 where one is
missing or wrong.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import mlx.core as mx
import numpy as np

TOLERANCE = {"float32": 2e-3, "bfloat16": 2e-2}  # TF32 keeps ten bits of each factor, bfloat16 seven
SLOW = ("8 bit, 24 rows", "4 bit, 24 rows")
SHOWN = ("CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "MLX_ENABLE_TF32", "MLX_USE_CUDA_GRAPHS")


def normal(*shape: int, seed: int = 0, dtype: mx.Dtype = mx.float32) -> mx.array:
    """The same random numbers on every device."""
    values = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    return mx.array(values).astype(dtype)


def operations(dtype: mx.Dtype, expected: bool = False) -> dict[str, Callable[[], mx.array]]:
    """What the package asks of MLX, in the shapes of a frame at 0.6B.

    expected: as the CPU computes what to expect, which differs in two things. It does not compile, as that would need
    g++, and it multiplies quantised weights in float32, whatever the dtype: MLX's CPU kernel adds up products of
    bfloat16 in bfloat16 and is 6 % off in these shapes, so that those of a CPU device are reported as wrong.
    """
    x, many = normal(1, 1, 1024, dtype=dtype), normal(1, 24, 1024, seed=1, dtype=dtype)
    weight = normal(3072, 1024, seed=2, dtype=dtype) / 32
    gain = normal(1024, seed=3, dtype=dtype)
    head = {"q": normal(1, 16, 1, 128, seed=4, dtype=dtype), "kv": normal(1, 8, 100, 128, seed=5, dtype=dtype)}
    prompt = {"q": normal(1, 16, 24, 128, seed=6, dtype=dtype), "kv": normal(1, 8, 24, 128, seed=7, dtype=dtype)}
    codec = normal(1, 16, 100, 64, seed=8, dtype=dtype)
    near = mx.abs(mx.arange(100)[:, None] - mx.arange(100)[None]) < 72
    window = mx.where(near, 0.0, float("-inf")).astype(dtype)
    periods = mx.array(1e6 ** (np.arange(0, 128, 2, dtype=np.float32) / 128))
    sound, kernel = normal(1, 200, 32, seed=9, dtype=dtype), normal(48, 7, 32, seed=10, dtype=dtype) / 15
    depthwise = normal(32, 7, 1, seed=11, dtype=dtype)
    logits = normal(4, 3072, seed=12)  # float32 as in the package; equal ones would have no order
    packed = {bits: mx.quantize(weight, 64, bits, stream=mx.cpu) for bits in (8, 4)}
    compiling = (lambda function: function) if expected else mx.compile
    attention = mx.fast.scaled_dot_product_attention

    def written():
        cache = mx.zeros((1, 8, 256, 128), dtype)
        cache[..., 100:101, :] = head["kv"][..., :1, :]
        return cache

    def quantised(rows, bits):
        weights, *scaling = packed[bits]
        if expected:
            rows, *scaling = (array.astype(mx.float32) for array in (rows, *scaling))
        return lambda: mx.quantized_matmul(rows, weights, *scaling, transpose=True, group_size=64, bits=bits)

    def rope(offset):
        return lambda: mx.fast.rope(
            head["q"], 128, traditional=False, base=None, scale=1.0, offset=offset, freqs=periods
        )

    gated = compiling(lambda gate, up: gate * mx.sigmoid(gate) * up)
    snake = compiling(lambda y: y + mx.square(mx.sin(y * 1.3)) / 1.3)
    return {
        "matmul, one row": lambda: x @ weight.T,
        "matmul, 24 rows": lambda: many @ weight.T,
        "addmm": lambda: mx.addmm(normal(1, 1, 3072, seed=13, dtype=dtype), x, weight.T),
        "8 bit, one row": quantised(x, 8),
        "8 bit, 24 rows": quantised(many, 8),
        "4 bit, one row": quantised(x, 4),
        "4 bit, 24 rows": quantised(many, 4),
        "rms_norm": lambda: mx.fast.rms_norm(x, gain, 1e-6),
        "rms_norm, no weight": lambda: mx.fast.rms_norm(head["q"], None, 1e-6),
        "rope at 100": rope(100),
        "rope by row": rope(mx.array([7])),
        "sdpa, one position": lambda: attention(head["q"], head["kv"], head["kv"], scale=128**-0.5, mask=None),
        "sdpa, causal": lambda: attention(prompt["q"], prompt["kv"], prompt["kv"], scale=128**-0.5, mask="causal"),
        "sdpa, window of 72": lambda: attention(codec, codec, codec, scale=0.125, mask=window),
        "slice update": written,
        "gather": lambda: weight[mx.array([[5, 9, 11]])].sum(axis=1),
        "conv1d": lambda: mx.conv1d(sound, kernel),
        "conv1d, dilated": lambda: mx.conv1d(sound, kernel, dilation=9),
        "conv1d, stride 2": lambda: mx.conv1d(sound, kernel, stride=2),
        "conv1d, depthwise": lambda: mx.conv1d(sound, depthwise, groups=32),
        "compiled gate": lambda: gated(x, x),
        "compiled snake": lambda: snake(sound),
        "partition": lambda: mx.partition(logits, 3072 - 50, axis=-1)[:, 3072 - 50 : 3072 - 49],
        "argmax": lambda: mx.argmax(logits, axis=-1),
        "argsort": lambda: mx.take_along_axis(logits, mx.argsort(logits, axis=-1), axis=-1),
        "cumsum": lambda: mx.cumsum(mx.softmax(logits, axis=-1, precise=True), axis=-1),
        "gumbel by key": lambda: mx.vmap(lambda key: mx.random.gumbel((2048,), key=key))(
            mx.array([[1, 0], [2, 0]], mx.uint32)
        ),
        "rfft": lambda: mx.abs(mx.fft.rfft(sound.astype(mx.float32), axis=1)),
        "pad, stack, where": lambda: mx.where(
            logits > 0, mx.pad(logits, ((0, 0), (1, 0)))[:, :-1], mx.stack([logits] * 2)[1]
        ),
    }


def computed(device: mx.Device | mx.DeviceType, work: Callable[[], mx.array]) -> tuple[np.ndarray, float]:
    """(a result, the seconds it took) on a device."""
    start = time.perf_counter()
    with mx.stream(device):
        out = work()
        mx.async_eval(out)
        mx.eval(out)
    return np.array(out.astype(mx.float32)), time.perf_counter() - start


def prove(work: Callable[[], mx.array], reference: Callable[[], mx.array], tolerance: float) -> dict[str, object]:
    """An operation on the default device and the same on the CPU: relative difference, first and second time."""
    try:
        expected, _ = computed(mx.cpu, reference)
        found, first = computed(mx.default_device(), work)
        _, second = computed(mx.default_device(), work)
    except (RuntimeError, ValueError) as error:  # what MLX raises for what a backend lacks
        return {"proved": False, "error": str(error)}
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    return {"proved": difference <= tolerance, "difference": difference, "first": first, "second": second}


def precision() -> dict[str, object]:
    """The relative error of a float32 product on the device, and whether it is TF32's."""
    a, b = (np.random.RandomState(seed).standard_normal((512, 512)).astype(np.float32) for seed in (1, 2))
    found, _ = computed(mx.default_device(), lambda: mx.array(a) @ mx.array(b))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    return {"relative_error": error, "tf32": error > 3e-5, "MLX_ENABLE_TF32": os.environ.get("MLX_ENABLE_TF32")}


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, object]:
    """The device, the versions and the environment that decide what is measured."""
    about = {
        "device": str(mx.default_device()),
        "info": {name: value for name, value in mx.device_info().items() if isinstance(value, int | str)},
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "environment": {name: os.environ[name] for name in SHOWN if name in os.environ},
        "versions": {
            name: version(name) for name in ("mlx", "mlx-cuda-13", "torch", "nvidia-cublas", "nvidia-cudnn-cu13")
        },
    }
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        about["card"] = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, metavar="FILE", help="append the figures here, a line of JSON each")
    parser.add_argument("--part", choices=("quick", "slow"), help="what compiles quickly or slowly (default: both)")
    options = parser.parse_args()
    wrong = []

    def record(**values):
        if options.records:
            with open(options.records, "a", encoding="utf-8") as file:
                file.write(json.dumps({"section": "proof", **values}) + "\n")

    if options.part != "slow":
        about = machine()
        print(json.dumps(about, indent=1))
        record(machine=about)
        found = precision()
        print(f"float32 product: relative error {found['relative_error']:.1e}, TF32: {found['tf32']}")
        record(precision=found)
    print(f"\n{'':22} {'dtype':9} {'difference':>10} {'first ms':>9} {'again ms':>9}")
    for dtype in (mx.float32, mx.bfloat16):
        name = str(dtype).removeprefix("mlx.core.")
        expected = operations(dtype, expected=True)
        for operation, work in operations(dtype).items():
            if options.part and (operation in SLOW) != (options.part == "slow"):
                continue
            proved = prove(work, expected[operation], TOLERANCE[name])
            record(operation=operation, dtype=name, **proved)
            if "error" in proved:
                print(f"{operation:22} {name:9} {proved['error']}")
            else:
                times = f"{1000 * proved['first']:9.2f} {1000 * proved['second']:9.2f}"
                wrongly = "" if proved["proved"] else " WRONG"
                print(f"{operation:22} {name:9} {proved['difference']:10.1e} {times}{wrongly}")
            if not proved["proved"]:
                wrong.append(f"{operation} ({name})")
    print(f"\nwrong or missing: {', '.join(wrong)}" if wrong else "\nevery operation is proved")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
