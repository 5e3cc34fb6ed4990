"""Linear layers as they are best run, made at load from layers as they are published.

Projections of the same input become one product, and on a CPU device float32 weights are laid out for its BLAS. Nothing
here changes what is computed.
"""

import ctypes
import functools

import mlx.core as mx
import mlx.nn as nn

from .device import on_gpu


@functools.cache
def multiplies_in_place():
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


class Linear(nn.Linear):
    """MLX's linear layer, with weights laid out for the device once they are loaded (`lay_out`)."""

    BLOCK = 1_000_000  # multiplications of a product that OpenBLAS takes for small
    block = None  # outputs a block

    def lay_out(self):
        """On a CPU device a single row by float32 weights is multiplied faster in one of two forms.

        Where the BLAS takes small products as they lie, in blocks of outputs that are small enough (two to three times
        as fast). Else with the inputs lying together, [in, out] in memory (a fifth faster).
        """
        if on_gpu() or self.weight.dtype != mx.float32:
            return
        outputs, inputs = self.weight.shape
        if not multiplies_in_place():
            # In strips, as MLX copies a transposed matrix very slowly.
            strips = [mx.contiguous(self.weight[i : i + 16].T) for i in range(0, outputs, 16)]
            self.weight = mx.concatenate(strips, axis=1).T
            return
        size = next(size for size in range(outputs, 0, -1) if outputs % size == 0 and size * inputs <= self.BLOCK)
        if 64 <= size < outputs:
            self.block = size

    def takes_blocks(self, x):
        """Whether x is multiplied in blocks: where they were laid out, a single row."""
        return self.block is not None and x.size == x.shape[-1]

    def __call__(self, x):
        if not self.takes_blocks(x):
            return super().__call__(x)
        parts = self.weight.reshape(-1, self.block, x.shape[-1]).swapaxes(1, 2)  # [blocks, in, out / blocks]
        y = (x.reshape(1, 1, -1) @ parts).reshape(*x.shape[:-1], -1)
        return y + self.bias if "bias" in self else y


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


def add_product(residual, x, layer):
    """residual + layer(x), in one kernel where the layer is a plain product."""
    if isinstance(layer, Linear) and "bias" not in layer and not layer.takes_blocks(x):
        return mx.addmm(residual, x, layer.weight.T)
    return residual + layer(x)
