"""Linear layers as they are best run, made at load from layers as they are published.

Projections of the same input become one product. Nothing here changes what is computed.
"""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from . import cpu
from .device import on_gpu

Projection = nn.Linear | nn.QuantizedLinear


class Linear(nn.Linear):
    """MLX's linear layer, with weights laid out for the device once they are loaded (`lay_out`)."""

    blocks = False  # whether a few rows are multiplied in blocks of outputs

    def lay_out(self) -> None:
        """Lay the weights out for a CPU device's BLAS, where that is what runs."""
        if not on_gpu():
            self.weight, self.blocks = cpu.lay_out(self.weight)

    def block(self, x: mx.array) -> int | None:
        """How many outputs at a time x [..., in] is multiplied by; None for all of them."""
        outputs, inputs = self.weight.shape
        return cpu.block(outputs, inputs, cpu.rows(x)) if self.blocks else None

    def __call__(self, x: mx.array) -> mx.array:
        # Most layers have none: a call for each would add a fifth to a frame's Python.
        if self.blocks and (block := self.block(x)) is not None:
            return cpu.multiply_in_blocks(x, self.weight, block, self.get("bias"))
        return super().__call__(x)


class Rows(nn.Module):
    """Several layers of one input, their outputs one after the other; for layers that cannot be one product."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = list(layers)

    def __call__(self, x: mx.array) -> mx.array:
        return mx.concatenate([layer(x) for layer in self.layers], axis=-1)


class Adapted(nn.Module):
    """A linear layer and what an adapter of low rank adds to it: base(x) + (x down) up.

    down [in, R], up [R, out]: of all the projections that the layer was made of and that are adapted, side by side. R
    is the sum of their ranks; up has their scale in it, and zeros in the outputs of all others.
    """

    def __init__(self, base: nn.Module, down: mx.array, up: mx.array) -> None:
        super().__init__()
        self.base, self.down, self.up = base, down, up

    def add(self, y: mx.array, x: mx.array) -> mx.array:
        """y [..., out] + (x down) up."""
        low = x.astype(self.down.dtype) @ self.down
        if y.dtype == low.dtype:
            return mx.addmm(y, low, self.up)
        return y + (low @ self.up).astype(y.dtype)  # in training, where the adapter is of more precision

    def __call__(self, x: mx.array) -> mx.array:
        return self.add(self.base(x), x)


def _kind(layer: nn.Module) -> tuple[object, ...]:
    return type(layer), tuple(layer), *(getattr(layer, name, None) for name in ("bits", "group_size", "mode"))


def stack(layers: Sequence[Projection]) -> Projection | Rows:
    """One layer with the outputs of several linear layers, plain or quantised, one after the other.

    Layers that are quantised alike become one product (the first of them is changed); others stay their own.
    """
    merged: list[list[Projection]] = []
    for layer in layers:
        if merged and _kind(merged[-1][0]) == _kind(layer):
            merged[-1].append(layer)
        else:
            merged.append([layer])
    for first, *others in merged:
        for name in tuple(first):
            first[name] = mx.concatenate([first[name], *(other[name] for other in others)]) if others else first[name]
    return merged[0][0] if len(merged) == 1 else Rows([first for first, *_ in merged])


def table(layer: nn.Embedding | nn.QuantizedEmbedding, dtype: mx.Dtype | None = None) -> mx.array:
    """The rows of an embedding as a plain array [N, E]; dtype: what its numbers become where they are quantised."""
    if isinstance(layer, nn.QuantizedEmbedding):
        how = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
        return mx.dequantize(layer.weight, layer.scales, layer.get("biases"), **how, dtype=dtype)
    return layer.weight


def packed(x: mx.array) -> mx.array:
    """x with the strides of its shape, which costs nothing where it is contiguous.

    An axis of one keeps the stride of what it was cut from. A GPU's products take that for a gap and copy x first.
    """
    return x.reshape(-1).reshape(x.shape)


def add_product(residual: mx.array, x: mx.array, layer: nn.Module) -> mx.array:
    """residual + layer(x), in one kernel where the layer is a plain product."""
    if isinstance(layer, Adapted):
        return layer.add(add_product(residual, x, layer.base), x)
    if isinstance(layer, Linear) and "bias" not in layer and not (layer.blocks and layer.block(x)):
        return mx.addmm(residual, x, layer.weight.T)
    return residual + layer(x)
