"""Layers as they are best run, made at load from layers as they are published.

Projections of the same input become one product; on a CPU device float32 weights are laid out so that BLAS reads them
as they lie. Nothing here changes what is computed.
"""

import mlx.core as mx
import mlx.nn as nn

from .device import on_gpu


class Rows(nn.Module):
    """Several layers of one input, their outputs one after the other; for layers that cannot be one product."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def __call__(self, x):
        return mx.concatenate([layer(x) for layer in self.layers], axis=-1)


def _kind(layer):
    return type(layer), tuple(layer), *(getattr(layer, name, None) for name in ("bits", "group_size", "mode"))


def stack(layers):
    """One layer with the outputs of several linear layers, plain or quantised, one after the other.

    Layers that are quantised alike become one product (the first of them is changed); others stay their own.
    """
    merged = []
    for layer in layers:
        if merged and _kind(merged[-1][0]) == _kind(layer):
            merged[-1].append(layer)
        else:
            merged.append([layer])
    for first, *others in merged:
        for name in tuple(first):
            first[name] = mx.concatenate([first[name], *(other[name] for other in others)]) if others else first[name]
    return merged[0][0] if len(merged) == 1 else Rows([first for first, *_ in merged])


def table(layer):
    """The rows of an embedding as a plain array [N, E]."""
    if isinstance(layer, nn.QuantizedEmbedding):
        return mx.dequantize(
            layer.weight, layer.scales, layer.get("biases"), layer.group_size, layer.bits, mode=layer.mode
        )
    return layer.weight


def lay_out(layer):
    """Lay out a linear layer's weights for the device.

    A CPU's BLAS multiplies a row by float32 weights a fifth faster when the inputs lie together ([in, out] in memory).
    """
    if type(layer) is nn.Linear and layer.weight.dtype == mx.float32 and not on_gpu():
        layer.weight = mx.contiguous(layer.weight.T).T


def add_product(residual, x, layer):
    """residual + layer(x), in one kernel where the layer is a plain product."""
    if type(layer) is nn.Linear and "bias" not in layer:
        return mx.addmm(residual, x, layer.weight.T)
    return residual + layer(x)
