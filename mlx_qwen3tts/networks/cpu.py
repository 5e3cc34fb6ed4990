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

FEW = 16  # input channels, too few for a product of their own
BLOCK = 1_000_000  # multiplications of a product that OpenBLAS takes for small


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
        self.cos = self.sin = mx.zeros((0, 2 * len(frequencies)))  # [positions, D]

    def rotation(self, length: int, offset: int | Sequence[int], dtype: mx.Dtype) -> Callable[[mx.array], mx.array]:
        """A function that rotates [B, H, T, D] arrays; the arguments are those of `transformer.Rope`."""
        self._reach(length + (offset if isinstance(offset, int) else max(offset)))
        if isinstance(offset, int):
            cos, sin = self.cos[offset : offset + length], self.sin[offset : offset + length]
        else:
            places = mx.array(np.maximum(np.array(offset)[:, None] + np.arange(length), 0))
            cos, sin = self.cos[places][:, None], self.sin[places][:, None]  # [B, 1, T, D]
        cos, sin = cos.astype(dtype), sin.astype(dtype)
        half = len(self.frequencies)
        return lambda x: x * cos + mx.concatenate([x[..., half:], x[..., :half]], axis=-1) * sin

    def up_to(self, positions: int) -> tuple[mx.array, mx.array]:
        """Cosines and sines [N, D] float32 of at least so many positions; the sines' first half has their sign."""
        self._reach(positions)
        return self.cos, self.sin

    def _reach(self, positions: int) -> None:
        if self.cos.shape[0] < max(1, positions):
            angles = np.arange(max(1024, 2 * positions), dtype=np.float32)[:, None] * self.frequencies
            cos, sin = np.cos(angles), np.sin(angles)
            self.cos = mx.array(np.concatenate([cos, cos], axis=1))
            self.sin = mx.array(np.concatenate([-sin, sin], axis=1))


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


def lay_out(weight: mx.array) -> tuple[mx.array, int | None]:
    """(a linear layer's weights [out, in] as a single row is multiplied by them fastest, outputs a block or None).

    Only float32 goes through the BLAS. Where it takes small products as they lie, the product is made in blocks of
    outputs that are small enough (two to three times as fast). Else the inputs lie together, [in, out] in memory (a
    fifth faster).
    """
    if weight.dtype != mx.float32:
        return weight, None
    outputs, inputs = weight.shape
    if not multiplies_in_place():
        # In strips, as MLX copies a transposed matrix very slowly.
        strips = [mx.contiguous(weight[i : i + 16].T) for i in range(0, outputs, 16)]
        return mx.concatenate(strips, axis=1).T, None
    size = next(size for size in range(outputs, 0, -1) if outputs % size == 0 and size * inputs <= BLOCK)
    return weight, size if 64 <= size < outputs else None


def is_row(x: mx.array) -> bool:
    """Whether x [..., E] is a single row."""
    return x.size == x.shape[-1]


def multiply_in_blocks(x: mx.array, weight: mx.array, block: int, bias: mx.array | None) -> mx.array:
    """A single row [..., in] times weights [out, in], `block` outputs at a time: [..., out]."""
    parts = weight.reshape(-1, block, x.shape[-1]).swapaxes(1, 2)  # [out / block, in, block]
    y = (x.reshape(1, 1, -1) @ parts).reshape(*x.shape[:-1], -1)
    return y if bias is None else y + bias
