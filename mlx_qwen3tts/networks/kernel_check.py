"""Fused kernels beside their plain forms, on made-up arrays of every kind that a frame has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from . import kernels
from .cpu import RopeTable

DTYPES = (mx.bfloat16, mx.float16, mx.float32)
Case = tuple[str, tuple[Any, ...]]  # what it is, the arguments


def check(name: str, dtypes: Sequence[mx.Dtype] = DTYPES) -> str | None:
    """What is wrong with a kernel on this device: it does not compile, or where it first differs. None: nothing.

    dtypes: of the models it is to serve. On CUDA each dtype takes some seconds, once, as the kernels are compiled.
    """
    fused, plain = getattr(kernels, name), getattr(kernels, f"plain_{name}")
    for what, arguments in CASES[name](dtypes):
        try:
            ours = fused(*arguments)
            mx.eval(ours)
        except RuntimeError as error:  # MLX's, for what does not compile or run
            return f"{what}: {str(error).strip().splitlines()[0]}"
        wanted = plain(*arguments)
        pairs = [(ours, wanted)] if isinstance(ours, mx.array) else zip(ours, wanted, strict=True)
        for place, (x, y) in enumerate(pairs):
            if x.shape != y.shape or x.dtype != y.dtype:
                return f"{what}, output {place}: {x.dtype} {x.shape} instead of {y.dtype} {y.shape}"
            if x.dtype == mx.uint32:
                if x.tolist() != y.tolist():
                    return f"{what}: codes {x.tolist()} instead of {y.tolist()}"
                continue
            far = apart(x, y)
            if not far <= 1:  # NaN is not
                return f"{what}, output {place}: {far:.3g} times as far from the plain form as rounding explains"
    return None


def apart(x: mx.array, y: mx.array) -> float:
    """How far vectors x and y [..., D] are apart, in units of what rounding explains."""
    # Roundings at the size of a vector's largest number: those of norm, weights and rotation may each go the other way.
    bound = 4 * mx.finfo(x.dtype).eps
    x, y = x.astype(mx.float32), y.astype(mx.float32)
    worst: Any = mx.max(mx.abs(x - y).max(axis=-1) / (bound * mx.abs(y).max(axis=-1))).item()
    return worst


def steps(dtypes: Sequence[mx.Dtype]) -> Iterator[Case]:
    """For qk_rope_write: decoding with and without carried positions, the predictor's first step, rows in padding."""
    for dtype in dtypes:
        for batch, length, past in ((1, 1, 7), (1, 2, 0), (3, 1, 5), (9, 1, 0)):
            dim, heads, kv, keys = 128, 16, 8, mx.random.split(mx.random.key(batch), 3)
            powers = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
            cosines, sines = RopeTable(1 / np.float32(1e6) ** powers).up_to(128)
            qkv = mx.random.normal((batch, length, heads + 2 * kv, dim), dtype, key=keys[0])
            norms = (1 + 0.1 * mx.random.normal((heads + kv, dim), key=keys[1])).astype(dtype)
            carried = mx.random.normal((2, batch, kv, past, dim), dtype, key=keys[2]) if past else None
            places = 11 * mx.arange(batch, dtype=mx.int32) - 1
            what = f"{name_of(dtype)}, {batch} times {length} positions after {past}"
            yield what, (qkv, norms, 1e-6, cosines, sines, places, carried)


def rows(dtypes: Sequence[mx.Dtype]) -> Iterator[Case]:
    """For sample_row: one row and several, settings of their own and shared, logits with ties."""
    for dtype in dtypes:
        for batch, size, kept in ((1, 2048, [50]), (1, 3072, [0]), (3, 2048, [1, -1, 2047]), (9, 2048, [8])):
            keys = mx.random.split(mx.random.key(size + batch), 2)
            logits = (8 * mx.random.normal((batch, size), key=keys[0])).astype(dtype)
            if len(kept) == 1:
                logits = mx.round(logits)  # many ties with the k-th
            noise = mx.random.gumbel((batch, size), key=keys[1])
            temperatures = mx.array([0.9, 1.0, 0.3][: len(kept)])
            what = f"{name_of(dtype)}, {batch} rows of {size}, top-k {kept}"
            yield what, (logits, noise, temperatures, mx.array(kept, mx.int32))


def name_of(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")


CASES = {"qk_rope_write": steps, "sample_row": rows}
