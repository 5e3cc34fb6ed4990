"""The fused kernels: several operations of a frame in one, for a GPU. Whether they are used is decided here alone.

A model is loaded with the names of the kernels it uses (`proof.choose`), and its loop makes frames within `using`.
Each function here replaces a few operations elsewhere, which ask `in_use` first; its `plain_…` twin says what it
computes, of those operations. B batch, T positions, P positions before them, H query heads, K key/value heads, D head
dimension, V vocabulary.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..errors import UnsupportedValue
from .cache import KVCache
from .kernel_source import FIRST_LINES, HEADERS, KERNELS

NAMES = tuple(KERNELS)
FEW = 8  # positions, up to which a step is made of kernels
CARRIED = 32  # positions of a cache that is written anew instead of written to
TYPES = (mx.float32, mx.float16, mx.bfloat16, mx.int32)  # of inputs
WIDEST = 6144  # logits of a row that fit into the memory of a group of threads

_in_use: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("kernels", default=frozenset())


def in_use(name: str) -> bool:
    """Whether a kernel takes the place of plain operations."""
    return name in _in_use.get()


@contextlib.contextmanager
def using(names: frozenset[str]) -> Iterator[None]:
    """Use these kernels within the block."""
    token = _in_use.set(names)
    try:
        yield
    finally:
        _in_use.reset(token)


def backend() -> str | None:
    """What runs kernels here: "metal", "cuda" or None."""
    if mx.default_device().type != mx.gpu:
        return None
    return "metal" if mx.metal.is_available() else "cuda"


@functools.cache
def compiled(name: str, language: str) -> Callable[..., list[mx.array]]:
    kernel = KERNELS[name]
    make: Any = mx.fast.metal_kernel if language == "metal" else mx.fast.cuda_kernel
    # On CUDA, MLX keeps what it compiles on disk under this name, so other code must not have the same.
    source = FIRST_LINES[language] + kernel.body
    digest = hashlib.sha256((HEADERS[language] + source).encode()).hexdigest()[:12]
    return make(
        name=f"qwen3tts_{name}_{digest}",
        input_names=kernel.inputs,
        output_names=kernel.outputs,
        source=source,
        header=HEADERS[language],
        ensure_row_contiguous=kernel.packed,
    )


def launch(
    name: str,
    inputs: Sequence[mx.array],
    constants: dict[str, Any],
    groups: tuple[int, int],
    outputs: Sequence[tuple[tuple[int, ...], mx.Dtype]],
) -> list[mx.array]:
    """Run a kernel for groups (rows, batches) of threads. constants: of the compiled form; outputs: (shape, dtype)."""
    language, threads = backend(), KERNELS[name].threads
    if language is None:
        raise UnsupportedValue(f"kernel {name} needs Metal or CUDA; load with kernels='plain'", param="kernels")
    return compiled(name, language)(
        inputs=list(inputs),
        template=[*constants.items(), ("THREADS", threads), ("FORM", form(inputs))],
        grid=(threads, *groups),
        threadgroup=(threads, 1, 1),
        output_shapes=[shape for shape, _ in outputs],
        output_dtypes=[dtype for _, dtype in outputs],
    )


def form(inputs: Sequence[mx.array]) -> int:
    """A number for what a kernel's declaration depends on: dtypes of its inputs, and which have fewer than 8 elements.

    MLX keeps a compiled kernel under its name and constants, so what is compiled differently must have another of them.
    """
    number = 0
    for x in inputs:
        number = 16 * number + 2 * TYPES.index(x.dtype) + (x.size < 8)
    return number


@functools.cache
def _number(value: float) -> mx.array:
    made = mx.array([value], mx.float32)
    mx.eval(made)
    return made


def qk_rope_write(
    qkv: mx.array,
    norms: mx.array,
    eps: float,
    cosines: mx.array,
    sines: mx.array,
    places: mx.array,
    carried: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """q and k normalised and rotated, k and v as a cache takes them, behind those it has, where they are given.

    qkv: [B, T, H + 2 K, D]; norms: the weights [H + K, D]; cosines, sines: by position, [positions, D], float32, as in
    `cpu.RopeTable`; places: of the first of the T, int32 [B]; carried: keys and values [2, B, K, P, D].
    Returns (q [B, H, T, D], keys and values [2, B, K, P + T, D]).
    """
    batch, length, heads, dim = qkv.shape
    kv = heads - norms.shape[0]
    past = 0 if carried is None else carried.shape[3]
    q, pair = launch(
        "qk_rope_write",
        [qkv, norms, _number(eps), cosines, sines, places, qkv if carried is None else carried],
        {"T": qkv.dtype, "HEADS": heads - 2 * kv, "KV": kv, "D": dim, "CARRY": carried is not None},
        (length * heads + 2 * kv * past, batch),
        [((batch, heads - 2 * kv, length, dim), qkv.dtype), ((2, batch, kv, past + length, dim), qkv.dtype)],
    )
    return q, pair


def plain_qk_rope_write(
    qkv: mx.array,
    norms: mx.array,
    eps: float,
    cosines: mx.array,
    sines: mx.array,
    places: mx.array,
    carried: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """What `qk_rope_write` computes, of plain operations."""
    split, length = norms.shape[0], qkv.shape[1]
    qk, v = qkv[:, :, :split], qkv[:, :, split:].transpose(0, 2, 1, 3)
    qk = (mx.fast.rms_norm(qk, None, eps) * norms).transpose(0, 2, 1, 3)
    rows = mx.maximum(places[:, None] + mx.arange(length), 0)
    cos, sin = cosines[rows][:, None], sines[rows][:, None]  # [B, 1, T, D]
    x, half = qk.astype(mx.float32), qk.shape[-1] // 2
    qk = (x * cos + mx.concatenate([x[..., half:], x[..., :half]], axis=-1) * sin).astype(qkv.dtype)
    heads = split - v.shape[1]
    pair = mx.stack([qk[:, heads:], v])
    return qk[:, :heads], pair if carried is None else mx.concatenate([carried, pair], axis=3)


@dataclass(frozen=True)
class Turn:
    """The rotation of a step whose q, k and v a kernel places; called, it rotates as the plain form does."""

    plain: Callable[[mx.array], mx.array]
    cosines: mx.array
    sines: mx.array
    places: mx.array

    def __call__(self, x: mx.array) -> mx.array:
        return self.plain(x)

    def place(self, qkv: mx.array, norms: mx.array, eps: float, cache: KVCache) -> tuple[mx.array, mx.array, mx.array]:
        """qkv [B, T, H + 2 K, D] to q [B, H, T, D] and the keys and values of all positions up to these.

        A kernel's outputs are new arrays, so it cannot write to a cache. A small cache (the predictor's, 128 kB) it
        writes anew, whole; for a large one it lays k and v out so that one slice update writes both.
        """
        small = cache.step <= CARRIED
        carried = cache.pair if small else None
        q, pair = qk_rope_write(qkv, norms, eps, self.cosines, self.sines, self.places, carried)
        return (q, *(cache.replace(pair) if small else cache.append(pair)))


def samples(logits: mx.array, top_p: float) -> bool:
    """Whether `sample_row` draws from logits [B, V]: where it is in use and nothing needs a sort of them all."""
    return in_use("sample_row") and top_p >= 1 and logits.shape[-1] <= WIDEST


def sample_row(logits: mx.array, noise: mx.array, temperatures: mx.array, kept: mx.array) -> mx.array:
    """Temperature, top-k with ties, noise and argmax: codes [B], uint32.

    logits, noise: [B, V]; temperatures, kept: float32 and int32, [B] or one for every row, [1]; kept: top-k, 0 for
    all, -1 for the largest without temperature and noise.
    """
    batch, size = logits.shape
    constants = {"V": size, "SAME": temperatures.shape[0] == 1}
    return launch("sample_row", [logits, noise, temperatures, kept], constants, (1, batch), [((batch,), mx.uint32)])[0]


def plain_sample_row(logits: mx.array, noise: mx.array, temperatures: mx.array, kept: mx.array) -> mx.array:
    """What `sample_row` computes, of plain operations."""
    size = logits.shape[-1]
    logits = logits.astype(mx.float32)
    scaled = logits / temperatures[:, None]
    order = mx.sort(scaled, axis=-1)
    first = mx.where((kept > 0) & (kept < size), size - kept, 0)[:, None]
    first = mx.broadcast_to(first, (logits.shape[0], 1))
    least = mx.take_along_axis(order, first, axis=-1)
    drawn = mx.where(scaled < least, float("-inf"), scaled) + noise
    return mx.argmax(mx.where(kept[:, None] < 0, logits, drawn), axis=-1)
