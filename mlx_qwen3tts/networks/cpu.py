"""The forms of computation that are chosen for a CPU device: equal in value to the plain ones, and faster there.

Everything here replaces one call elsewhere in the networks, which asks `device.on_gpu` first. What it is worth is said
beside each. B batch, T positions, C channels, E width, H heads, D head dimension.
"""

import ctypes
import functools
import math
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

LOG2_E = 1 / math.log(2)
FEW = 16  # input channels, too few for a product of their own
BLOCK = 1_000_000  # multiplications of a product that OpenBLAS takes for small
ROWS, LEAST = 16, 16  # for products in blocks: the most rows, the fewest outputs a block
QUERIES = 64  # positions that attention looks from at once
PAIRS = 1024  # of a query and a key, below which MLX's attention is as fast
SHAPES = 256  # shapes for which a compiled function is kept


def conv1d(x: mx.array, weight: mx.array, bias: mx.array | None, stride: int, dilation: int, groups: int) -> mx.array:
    """A convolution as matrix products of strided views, about a hundred times faster than `mx.conv1d`.

    [B, T, C] and [out, kernel, C / groups] to [B, (T - span) / stride + 1, out].
    """
    _, length, channels = x.shape
    out, kernel, _ = weight.shape
    steps = (length - (kernel - 1) * dilation - 1) // stride + 1
    taps = [x[:, start : start + (steps - 1) * stride + 1 : stride] for start in range(0, kernel * dilation, dilation)]
    if groups != 1:
        if groups != channels or out != channels or stride != 1:
            raise ValueError(f"grouped convolution with {groups} groups on {channels} channels is not supported")
        y = functools.reduce(mx.add, (tap * weight[:, i, 0] for i, tap in enumerate(taps)))
    elif channels < FEW and kernel > 1:
        y = mx.concatenate(taps, axis=-1) @ weight.reshape(out, -1).T
    else:
        # A product for each tap, added to those before: nothing is copied, as it would be to make one product of all.
        first, *rest = [(tap, weight[:, i].T) for i, tap in enumerate(taps)]
        y = first[0] @ first[1] if bias is None else mx.addmm(bias, *first)
        for tap, product in rest:
            y = mx.addmm(y, tap, product)
        return y
    return y if bias is None else y + bias


def sine_squared(x: mx.array) -> mx.array:
    """sin²(x), float32, within 5e-7 for the arguments that occur (|x| below some thousands).

    MLX's sine costs 17 ns an element on a CPU device, a hundred additions; this polynomial is eight times faster.
    """
    # The period is pi: fold into ±pi/2, pi in two parts so that nothing is lost, then the Taylor series of sin(r) / r.
    # Adding 1.5 * 2^23 rounds to an integer, as float32 has no finer steps there; it compiles to two additions.
    periods = (x * (1 / math.pi) + 12582912.0) - 12582912.0
    r = (x - periods * 3.140625) - periods * (math.pi - 3.140625)
    square = r * r
    series = -1 / 39916800
    for factorial in (362880, -5040, 120, -6, 1):
        series = series * square + 1 / factorial
    return square * (series * series)


@mx.compile  # with shapes: without them (`shapeless`) it is eight times slower
def snake(x: mx.array, frequency: mx.array, magnitude: mx.array) -> mx.array:
    """x + sin²(x * frequency) * magnitude, one kernel."""
    return x + sine_squared(x * frequency) * magnitude


def compiled(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """`mx.compile` for inputs of many shapes: MLX keeps what it traced for every shape it has met, 30 KB each, and
    looks through all of them at each call; here the shapes met last are kept."""

    @functools.lru_cache(SHAPES)
    def traced(*_: tuple[tuple[int, ...], mx.Dtype]) -> Callable[..., mx.array]:
        return mx.compile(lambda *inputs: function(*inputs))  # of its own, so that it is forgotten by itself

    @functools.wraps(function)
    def call(*inputs: mx.array) -> mx.array:
        return traced(*((x.shape, x.dtype) for x in inputs))(*inputs)

    return call


def exp2(x: mx.array) -> mx.array:
    """2^x, float32, within 1.3e-7 of itself for -126 <= x < 127.

    MLX's exponential costs 12 ns an element on a CPU device, some twenty-five additions, and so does its softmax.
    """
    # Adding 1.5 * 2^23 rounds to an integer, which the low bits then hold: shifted by 23 it is a power's exponent.
    shifted = x + 12582912.0
    r = x - (shifted - 12582912.0)
    # 2^r within ±1/2, least squares of the relative error; few steps deep, as MLX fuses no more than eleven.
    square = r * r
    high = (1.5337577e-04 * square + (1.3399860e-03 * r + 9.6185198e-03)) * square
    power = (high + (5.5503290e-02 * r + 2.4022646e-01)) * square + (6.9314718e-01 * r + 1.0)
    return (power.view(mx.int32) + mx.left_shift(shifted.view(mx.int32), 23)).view(mx.float32)


@compiled
def gated(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up, float32, a sixth of the time that MLX's sigmoid takes."""
    return gate * up / (1 + exp2(mx.minimum(gate * -LOG2_E, 126.0)))


@compiled
def _softmax_weights(scores: mx.array, top: mx.array) -> mx.array:
    return exp2(mx.maximum(scores - top, -126.0))  # what is masked weighs 1e-38


def attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: mx.array | str | None) -> mx.array:
    """`mx.fast.scaled_dot_product_attention` with `exp2`, some queries at a time: where the mask is causal, keys that
    come after all of them are left out."""
    batch, heads, length, dim = q.shape
    kv_heads, keys, dtype = k.shape[1], k.shape[2], q.dtype
    if length == 1 or length * keys < PAIRS:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    group = heads // kv_heads
    q = q.astype(mx.float32) * (scale * LOG2_E)
    k, v = k.astype(mx.float32).swapaxes(2, 3), v.astype(mx.float32)
    if isinstance(mask, mx.array):
        added = mx.where(mask, 0.0, float("-inf")) if mask.dtype == mx.bool_ else mask.astype(mx.float32) * LOG2_E
        mask = mx.broadcast_to(added, (*added.shape[:-2], length, keys))
        mask = mask[:, :, None] if mask.ndim == 4 else mask  # the axis of a group's heads
    out = []
    for first in range(0, length, QUERIES):
        count = min(QUERIES, length - first)
        seen = keys - length + first + count if isinstance(mask, str) else keys
        rows = q[:, :, first : first + count].reshape(batch, kv_heads, group * count, dim)
        scores = (rows @ k[..., :seen]).reshape(batch, kv_heads, group, count, seen)
        if isinstance(mask, str):
            scores = scores + mx.pad(mx.triu(mx.full((count, count), float("-inf")), 1), [(0, 0), (seen - count, 0)])
        elif mask is not None:
            scores = scores + mask[..., first : first + count, :]
        weights = _softmax_weights(scores, scores.max(axis=-1, keepdims=True))
        found = (weights.reshape(batch, kv_heads, -1, seen) @ v[:, :, :seen]).reshape(
            batch, kv_heads, group, count, dim
        )
        out.append((found / weights.sum(axis=-1, keepdims=True)).reshape(batch, heads, count, dim))
    return mx.concatenate(out, axis=2).astype(dtype)


@mx.compile
def _fused_norm(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    return mx.fast.rms_norm(x, weight, eps)


def rms_norm(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    """`mx.fast.rms_norm` falls apart into seven operations; compiled they are one again."""
    # A function is compiled for every shape, so only what comes in every step is: a single row.
    return _fused_norm(x, weight, eps) if is_row(x) else mx.fast.rms_norm(x, weight, eps)


class RopeTable:
    """Cosines and sines for rotary embeddings, read once a step for all layers: `mx.fast.rope` costs 86 µs a call.

    The table grows as positions are asked for.
    """

    def __init__(self, frequencies: np.ndarray) -> None:
        """frequencies: [D / 2] float32, radians a position."""
        self.frequencies = frequencies
        nothing = mx.zeros((0, 2 * len(frequencies)))
        self.table = nothing, nothing  # cosines and sines [positions, D]

    def rotation(self, length: int, offset: int | Sequence[int], dtype: mx.Dtype) -> Callable[[mx.array], mx.array]:
        """A function that rotates [B, H, T, D] arrays; the arguments are those of `transformer.Rope`."""
        cosines, sines = self._reach(length + (offset if isinstance(offset, int) else max(offset)))
        if isinstance(offset, int):
            cos, sin = cosines[offset : offset + length], sines[offset : offset + length]
        else:
            places = mx.array(np.maximum(np.array(offset)[:, None] + np.arange(length), 0))
            cos, sin = cosines[places][:, None], sines[places][:, None]  # [B, 1, T, D]
        cos, sin = cos.astype(dtype), sin.astype(dtype)
        half = len(self.frequencies)
        return lambda x: x * cos + mx.concatenate([x[..., half:], x[..., :half]], axis=-1) * sin

    def up_to(self, positions: int) -> tuple[mx.array, mx.array]:
        """Cosines and sines [N, D] float32 of at least so many positions; the sines' first half has their sign."""
        return self._reach(positions)

    def _reach(self, positions: int) -> tuple[mx.array, mx.array]:
        """The table, which has these positions; both parts at once, as several threads may ask."""
        table = self.table
        if table[0].shape[0] < max(1, positions):
            angles = np.arange(max(1024, 2 * positions), dtype=np.float32)[:, None] * self.frequencies
            cos, sin = np.cos(angles), np.sin(angles)
            both = np.concatenate([cos, cos], axis=1), np.concatenate([-sin, sin], axis=1)
            table = self.table = mx.array(both[0]), mx.array(both[1])
        return table


@functools.cache
def multiplies_in_place() -> bool:
    """Whether the BLAS multiplies small matrices as they lie: OpenBLAS for AVX-512 does.

    For other products, and for all of them on other processors, it first copies the weights into an order of its own,
    which for a single row takes longer than the product.
    """
    try:
        core = ctypes.CDLL(None).openblas_get_corename
    except AttributeError:  # another BLAS
        return False
    core.restype = ctypes.c_char_p
    return core() in (b"SkylakeX", b"Cooperlake", b"SapphireRapids")


def lay_out(weight: mx.array) -> tuple[mx.array, bool]:
    """(a linear layer's weights [out, in] as single rows are multiplied by them fastest, whether that is in blocks).

    Only float32 goes through the BLAS. Where it takes small products as they lie, the product of a few rows is made in
    blocks of outputs that are small enough (one row two to three times as fast, 16 rows 1.3 to 1.6 times). Else the
    inputs lie together, [in, out] in memory (a fifth faster, and many rows no slower).
    """
    if weight.dtype != mx.float32:
        return weight, False
    if multiplies_in_place():
        return weight, True
    # In strips, as MLX copies a transposed matrix very slowly.
    strips = [mx.contiguous(weight[i : i + 16].T) for i in range(0, len(weight), 16)]
    return mx.concatenate(strips, axis=1).T, False


def rows(x: mx.array) -> int:
    """How many rows x [..., E] has."""
    return x.size // x.shape[-1]


def is_row(x: mx.array) -> bool:
    """Whether x [..., E] is a single row."""
    return x.size == x.shape[-1]


def block(outputs: int, inputs: int, rows: int) -> int | None:
    """How many outputs a product of so many rows has in a block; None where it is better made whole."""
    size = _divisor(outputs, BLOCK // (inputs * rows)) if rows <= ROWS else 0
    return size if LEAST <= size < outputs else None


@functools.cache
def _divisor(number: int, most: int) -> int:
    """The largest divisor up to `most`, 0 if none is."""
    return next((size for size in range(min(number, most), 0, -1) if number % size == 0), 0)


def multiply_in_blocks(x: mx.array, weight: mx.array, block: int, bias: mx.array | None) -> mx.array:
    """A few rows [..., in] times weights [out, in], `block` outputs at a time: [..., out]."""
    parts = weight.reshape(-1, block, x.shape[-1]).swapaxes(1, 2)  # [out / block, in, block]
    y = x.reshape(1, -1, x.shape[-1]) @ parts  # [out / block, rows, block]
    y = y.swapaxes(0, 1).reshape(*x.shape[:-1], -1)
    return y if bias is None else y + bias
