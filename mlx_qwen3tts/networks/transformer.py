"""The one attention and the decoder layers made of it.

Used by the talker, the code predictor, the codec decoder's transformer and the codec encoder's (Mimi).
B batch, T positions, E width, H query heads, K key/value heads, D head dimension.

Layers are built under their published names, filled, and then fused (`fuse`, called by the loader): only then can
they be called.
"""

import functools

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .device import on_gpu
from .linear import Linear, add_product, stack


@mx.compile
def _fused_norm(x, weight, eps):
    return mx.fast.rms_norm(x, weight, eps)


class RMSNorm(nn.RMSNorm):
    """Root mean square norm. `mx.fast.rms_norm` is one kernel on a GPU; on a CPU device it falls apart into seven."""

    def __call__(self, x):
        # A function is compiled for every shape, so only what comes in every step is.
        norm = _fused_norm if x.size == x.shape[-1] and not on_gpu() else mx.fast.rms_norm
        return norm(x, self.weight, self.eps)


class Rope:
    """Rotary position embedding in the half-split form (GPT-NeoX).

    On a GPU `mx.fast.rope` is one kernel. On a CPU device it falls apart into many small operations (86 µs a call),
    so there the cosines and sines come from a table, read once a step for all layers.
    """

    def __init__(self, dim, base):
        self.dim = dim
        # Angles per position, float32, in the reference's order of operations.
        powers = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
        self.frequencies = (1.0 / np.float32(base) ** powers).astype(np.float32)  # [D / 2]
        self.periods = mx.array(1.0 / self.frequencies)
        self.cos = self.sin = None  # [positions, D], as many as were needed so far

    def __call__(self, length, offset, dtype):
        """A function that rotates [B, H, T, D] arrays of a dtype, to be made once a step and used in every layer.

        offset: position of the first of the T; an integer, or a list of B integers, each row's own (negative ones lie
        before the start, in the padding, where it does not matter what comes out).
        """
        if on_gpu():
            offset = offset if isinstance(offset, int) else mx.array(offset)
            return lambda x: mx.fast.rope(
                x, self.dim, traditional=False, base=None, scale=1.0, offset=offset, freqs=self.periods
            )
        self._reach(length + (offset if isinstance(offset, int) else max(offset)))
        if isinstance(offset, int):
            cos, sin = self.cos[offset : offset + length], self.sin[offset : offset + length]
        else:
            places = mx.array(np.maximum(np.array(offset)[:, None] + np.arange(length), 0))
            cos, sin = self.cos[places][:, None], self.sin[places][:, None]  # [B, 1, T, D]
        cos, sin = cos.astype(dtype), sin.astype(dtype)
        half = self.dim // 2
        return lambda x: x * cos + mx.concatenate([x[..., half:], x[..., :half]], axis=-1) * sin

    def _reach(self, positions):
        if self.cos is None or self.cos.shape[0] < positions:
            angles = np.arange(max(1024, 2 * positions), dtype=np.float32)[:, None] * self.frequencies
            cos, sin = np.cos(angles), np.sin(angles)
            self.cos = mx.array(np.concatenate([cos, cos], axis=1))
            self.sin = mx.array(np.concatenate([-sin, sin], axis=1))


def causal_mask(queries, keys, window=None, dtype=mx.float32):
    """Additive mask [queries, keys], queries at the end of the keys; each sees `window` positions, itself included."""
    distance = mx.arange(keys - queries, keys)[:, None] - mx.arange(keys)[None]
    allowed = distance >= 0
    if window is not None:
        allowed = allowed & (distance < window)
    return mx.where(allowed, 0.0, float("-inf")).astype(dtype)


class Attention(nn.Module):
    """Grouped-query attention with optional q/k-norm (talker, predictor) and a cache that the caller owns."""

    def __init__(self, config, qk_norm):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.scale = self.head_dim**-0.5
        width, bias = config.hidden_size, config.attention_bias
        self.q_proj = Linear(width, self.heads * self.head_dim, bias=bias)
        self.k_proj = Linear(width, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = Linear(width, self.kv_heads * self.head_dim, bias=bias)
        self.o_proj = Linear(self.heads * self.head_dim, width, bias=bias)
        self.qk_norm = qk_norm
        if qk_norm:
            self.eps = config.rms_norm_eps
            self.q_norm = RMSNorm(self.head_dim, eps=self.eps)
            self.k_norm = RMSNorm(self.head_dim, eps=self.eps)

    def fuse(self):
        """One product for q, k and v; one norm and one rotation for q and k."""
        self.qkv_proj = stack([self.q_proj, self.k_proj, self.v_proj])
        del self.q_proj, self.k_proj, self.v_proj
        if self.qk_norm:
            counts = (self.q_norm.weight, self.heads), (self.k_norm.weight, self.kv_heads)
            self.norms = mx.concatenate([mx.broadcast_to(weight, (n, self.head_dim)) for weight, n in counts])
            del self.q_norm, self.k_norm

    def __call__(self, x, rotate, mask=None, cache=None, residual=None):
        """x: [B, T, E]. Returns [B, T, E], added to `residual` where that is given."""
        batch, length, _ = x.shape
        heads, split = self.heads, self.heads + self.kv_heads
        qkv = self.qkv_proj(x).reshape(batch, length, split + self.kv_heads, self.head_dim)
        qk, v = qkv[:, :, :split], qkv[:, :, split:].transpose(0, 2, 1, 3)
        if self.qk_norm:
            qk = mx.fast.rms_norm(qk, None, self.eps) * self.norms
        qk = rotate(qk.transpose(0, 2, 1, 3))  # [B, H + K, T, D]
        q, k = qk[:, :heads], qk[:, heads:]
        if cache is not None:
            k, v = cache.update(k, v)
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.scale, mask=mask)
        out = out.transpose(0, 2, 1, 3).reshape(batch, length, -1)
        return self.o_proj(out) if residual is None else add_product(residual, out, self.o_proj)


@functools.partial(mx.compile, shapeless=True)
def _gated(gate, up):
    return gate * mx.sigmoid(gate) * up


class SwiGLU(nn.Module):
    """Gated MLP: down(silu(gate(x)) * up(x))."""

    def __init__(self, width, hidden):
        super().__init__()
        self.gate_proj = Linear(width, hidden, bias=False)
        self.up_proj = Linear(width, hidden, bias=False)
        self.down_proj = Linear(hidden, width, bias=False)

    def fuse(self):
        """One product for gate and up."""
        self.gate_up_proj = stack([self.gate_proj, self.up_proj])
        del self.gate_proj, self.up_proj

    def __call__(self, x, residual=None):
        """x: [B, T, E]. Returns [B, T, E], added to `residual` where that is given."""
        hidden = _gated(*mx.split(self.gate_up_proj(x), 2, axis=-1))
        return self.down_proj(hidden) if residual is None else add_product(residual, hidden, self.down_proj)


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer of talker and code predictor."""

    def __init__(self, config):
        super().__init__()
        self.self_attn = Attention(config, qk_norm=True)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(self, x, rotate, mask=None, cache=None):
        x = self.self_attn(self.input_layernorm(x), rotate, mask, cache, residual=x)
        return self.mlp(self.post_attention_layernorm(x), residual=x)


def run_layers(layers, x, caches, rope, mask="causal", positions=None):
    """Self-attention stack over cached positions; [B, T, E] to [B, T, E]. A single position needs no causal mask.

    positions: of the first of the T in each row, a list of B integers, where they are not those of the cache.
    """
    length = x.shape[1]
    rotate = rope(length, caches[0].offset if positions is None else positions, x.dtype)
    mask = None if length == 1 and isinstance(mask, str) else mask
    for layer, cache in zip(layers, caches, strict=True):
        x = layer(x, rotate, mask, cache)
    return x
