"""The one attention and the decoder layers made of it.

Used by the talker, the code predictor, the codec decoder's transformer and the codec encoder's (Mimi).
B batch, T positions, E width, H query heads, K key/value heads, D head dimension.

Layers are built under their published names, filled, and then fused (`fuse`, called by the loader): only then can
they be called.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from . import cpu, kernels
from .cache import Cache, KVCache
from .config import CodecDecoderConfig, CodecEncoderConfig, TransformerConfig
from .device import form, on_gpu
from .linear import Linear, add_product, packed, stack

Rotate = Callable[[mx.array], mx.array]
Mask = mx.array | str | None
Layer = Callable[[mx.array, Rotate, Mask, Cache | None], mx.array]


class Place(NamedTuple):
    """Where a published projection lies once layers are fused: the outputs `first` to `last` of the layer of this name;
    inputs: its width."""

    layer: str
    first: int
    last: int
    inputs: int


class RMSNorm(nn.RMSNorm):
    """Root mean square norm."""

    def __call__(self, x: mx.array) -> mx.array:
        if not on_gpu():
            return cpu.rms_norm(x, self.weight, self.eps)
        return mx.fast.rms_norm(x, self.weight, self.eps)


class Rope:
    """Rotary position embedding in the half-split form (GPT-NeoX)."""

    def __init__(self, dim: int, base: float) -> None:
        self.dim = dim
        # Angles per position, float32, in the reference's order of operations.
        powers = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
        frequencies = (1.0 / np.float32(base) ** powers).astype(np.float32)  # [D / 2]
        self.periods = mx.array(1.0 / frequencies)
        self.table = cpu.RopeTable(frequencies)

    def __call__(self, length: int, offset: int | Sequence[int], dtype: mx.Dtype) -> Rotate:
        """A function that rotates [B, H, T, D] arrays of a dtype, to be made once a step and used in every layer.

        offset: position of the first of the T; an integer, or a list of B integers, each row's own (negative ones lie
        before the start, in the padding, where it does not matter what comes out).
        """
        if not on_gpu():
            return self.table.rotation(length, offset, dtype)
        first = offset if isinstance(offset, int) else mx.array(list(offset))
        return lambda x: mx.fast.rope(
            x, self.dim, traditional=False, base=None, scale=1.0, offset=first, freqs=self.periods
        )

    def turn(self, rows: int, length: int, offset: int | Sequence[int], dtype: mx.Dtype) -> kernels.Turn:
        """The same for B rows, with what a kernel needs for it."""
        places = [offset] * rows if isinstance(offset, int) else list(offset)
        tables = self.table.up_to(max(places) + length)
        return kernels.Turn(self(length, offset, dtype), *tables, mx.array(places, mx.int32))


def causal_mask(queries: int, keys: int, window: int | None = None, dtype: mx.Dtype = mx.float32) -> mx.array:
    """Additive mask [queries, keys], queries at the end of the keys; each sees `window` positions, itself included."""
    distance = mx.arange(keys - queries, keys)[:, None] - mx.arange(keys)[None]
    allowed = distance >= 0
    if window is not None:
        allowed = allowed & (distance < window)
    return mx.where(allowed, 0.0, float("-inf")).astype(dtype)


class Attention(nn.Module):
    """Grouped-query attention with optional q/k-norm (talker, predictor) and a cache that the caller owns."""

    def __init__(
        self, config: TransformerConfig | CodecDecoderConfig | CodecEncoderConfig, norm_eps: float | None = None
    ) -> None:
        """norm_eps: of the norms of q and k; None where there are none."""
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.scale = self.head_dim**-0.5
        self.width = width = config.hidden_size
        bias = config.attention_bias
        self.q_proj = Linear(width, self.heads * self.head_dim, bias=bias)
        self.k_proj = Linear(width, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = Linear(width, self.kv_heads * self.head_dim, bias=bias)
        self.o_proj = Linear(self.heads * self.head_dim, width, bias=bias)
        self.eps = norm_eps
        if norm_eps is not None:
            self.q_norm = RMSNorm(self.head_dim, eps=norm_eps)
            self.k_norm = RMSNorm(self.head_dim, eps=norm_eps)

    def fuse(self) -> None:
        """One product for q, k and v; one norm and one rotation for q and k."""
        self.qkv_proj = stack([self.q_proj, self.k_proj, self.v_proj])
        del self.q_proj, self.k_proj, self.v_proj
        if self.eps is not None:
            counts = (self.q_norm.weight, self.heads), (self.k_norm.weight, self.kv_heads)
            self.norms = mx.concatenate([mx.broadcast_to(weight, (n, self.head_dim)) for weight, n in counts])
            del self.q_norm, self.k_norm

    @property
    def places(self) -> dict[str, Place]:
        """Where the published projections are, fused."""
        q, k = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": Place("qkv_proj", 0, q, self.width),
            "k_proj": Place("qkv_proj", q, q + k, self.width),
            "v_proj": Place("qkv_proj", q + k, q + 2 * k, self.width),
            "o_proj": Place("o_proj", 0, self.width, q),
        }

    def __call__(
        self,
        x: mx.array,
        rotate: Rotate,
        mask: Mask = None,
        cache: Cache | None = None,
        residual: mx.array | None = None,
    ) -> mx.array:
        """x: [B, T, E]. Returns [B, T, E], added to `residual` where that is given."""
        batch, length, _ = x.shape
        heads, split = self.heads, self.heads + self.kv_heads
        qkv = self.qkv_proj(x).reshape(batch, length, split + self.kv_heads, self.head_dim)
        if isinstance(rotate, kernels.Turn) and isinstance(cache, KVCache) and self.eps is not None:
            q, k, v = rotate.place(qkv, self.norms, self.eps, cache)
        else:
            qk, v = qkv[:, :, :split], qkv[:, :, split:].transpose(0, 2, 1, 3)
            if self.eps is not None:
                qk = mx.fast.rms_norm(qk, None, self.eps) * self.norms
            qk = rotate(qk.transpose(0, 2, 1, 3))  # [B, H + K, T, D]
            q, k = qk[:, :heads], qk[:, heads:]
            if cache is not None:
                k, v = cache.update(k, v)
        attend = mx.fast.scaled_dot_product_attention if on_gpu() else cpu.attention
        out = attend(q, k, v, scale=self.scale, mask=mask)
        out = out.transpose(0, 2, 1, 3).reshape(batch, length, -1)
        return self.o_proj(out) if residual is None else add_product(residual, out, self.o_proj)


@functools.partial(mx.compile, shapeless=True)
def _gated(gate: mx.array, up: mx.array) -> mx.array:
    return gate * mx.sigmoid(gate) * up


class SwiGLU(nn.Module):
    """Gated MLP: down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.width, self.hidden = width, hidden
        self.gate_proj = Linear(width, hidden, bias=False)
        self.up_proj = Linear(width, hidden, bias=False)
        self.down_proj = Linear(hidden, width, bias=False)

    def fuse(self) -> None:
        """One product for gate and up."""
        self.gate_up_proj = stack([self.gate_proj, self.up_proj])
        del self.gate_proj, self.up_proj

    @property
    def places(self) -> dict[str, Place]:
        """Where the published projections are, fused."""
        return {
            "gate_proj": Place("gate_up_proj", 0, self.hidden, self.width),
            "up_proj": Place("gate_up_proj", self.hidden, 2 * self.hidden, self.width),
            "down_proj": Place("down_proj", 0, self.width, self.hidden),
        }

    def __call__(self, x: mx.array, residual: mx.array | None = None) -> mx.array:
        """x: [B, T, E]. Returns [B, T, E], added to `residual` where that is given."""
        parts = mx.split(self.gate_up_proj(x), 2, axis=-1)
        # Other dtypes round between the steps as the reference does.
        plain = parts[0].dtype != mx.float32 or on_gpu()
        hidden = packed(_gated(*parts)) if plain else cpu.gated(*parts)
        return self.down_proj(hidden) if residual is None else add_product(residual, hidden, self.down_proj)


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer of talker and code predictor."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config, config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(self, x: mx.array, rotate: Rotate, mask: Mask = None, cache: Cache | None = None) -> mx.array:
        x = self.self_attn(self.input_layernorm(x), rotate, mask, cache, residual=x)
        return self.mlp(self.post_attention_layernorm(x), residual=x)


def run_layers(
    layers: Sequence[Layer],
    x: mx.array,
    caches: Sequence[Cache] | None,
    rope: Rope,
    mask: Mask = "causal",
    positions: Sequence[int] | None = None,
    recompute: bool = False,
) -> mx.array:
    """Self-attention stack over cached positions; [B, T, E] to [B, T, E]. A single position needs no causal mask.

    caches: None where x is the whole sequence and nothing follows it, as in training. positions: of the first of the T
    in each row, a list of B integers, where they are not those of the cache. recompute: without caches, what a layer
    computes inside is not kept for its gradient but computed again ("gradient checkpointing").
    """
    rows, length, _ = x.shape
    offset = 0 if caches is None else caches[0].offset
    first = offset if positions is None else positions
    in_kernels = kernels.in_use("qk_rope_write") and length <= kernels.FEW
    rotate = rope.turn(rows, length, first, x.dtype) if in_kernels else rope(length, first, x.dtype)
    mask = None if length == 1 and isinstance(mask, str) else mask
    for layer, cache in zip(layers, caches or [None] * len(layers), strict=True):
        x = _recomputed(layer, x, rotate, mask) if recompute else layer(x, rotate, mask, cache)
    return x


def _recomputed(layer: Layer, x: mx.array, rotate: Rotate, mask: Mask) -> mx.array:
    """A layer whose inner activations are computed again for its gradient, that of its trained parameters too."""
    assert isinstance(layer, nn.Module), "a layer is a module"
    module: nn.Module = layer
    chosen = "gpu" if on_gpu() else "cpu"

    def run(parameters: dict[str, Any], x: mx.array) -> mx.array:
        own = module.trainable_parameters()
        module.update(parameters)
        with form(chosen):  # as it was, whenever the gradient is asked for
            out = layer(x, rotate, mask, None)
        module.update(own)
        return out

    return mx.checkpoint(run)(module.trainable_parameters(), x)
