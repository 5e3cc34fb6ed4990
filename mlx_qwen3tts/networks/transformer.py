"""The one attention and the decoder layers made of it.

Used by the talker, the code predictor, the codec decoder's transformer and the codec encoder's (Mimi).
B batch, T positions, E width, H query heads, K key/value heads, D head dimension.
"""

import functools

import mlx.core as mx
import mlx.nn as nn
import numpy as np


@functools.lru_cache
def _frequencies(dim, base):
    """RoPE's angles per position, float32 [dim / 2], in the reference's order of operations."""
    return (1.0 / np.float32(base) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))).astype(np.float32)


class Rope:
    """Rotary position embedding in the half-split form (GPT-NeoX), for positions offset … offset + T - 1.

    On a GPU `mx.fast.rope` is one kernel. On a CPU device it falls apart into many small operations (86 µs a call),
    so there the cosines and sines come from a table and are shared by all layers of a step.
    """

    def __init__(self, dim, base):
        self.dim, self.base = dim, base

    def __call__(self, length, offset):
        """A function that rotates [B, H, T, D] arrays, to be made once a step and used in every layer."""
        frequencies = _frequencies(self.dim, self.base)
        if mx.default_device().type == mx.gpu:
            periods = mx.array(1.0 / frequencies)
            return lambda x: mx.fast.rope(
                x, self.dim, traditional=False, base=None, scale=1.0, offset=offset, freqs=periods
            )
        angles = np.arange(offset, offset + length, dtype=np.float32)[:, None] * frequencies  # [T, D / 2]
        cos, sin = mx.array(np.cos(angles)), mx.array(np.sin(angles))

        def rotate(x):
            c, s = cos.astype(x.dtype), sin.astype(x.dtype)
            low, high = mx.split(x, 2, axis=-1)
            return mx.concatenate([low * c - high * s, high * c + low * s], axis=-1)

        return rotate


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
        width, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(width, self.heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.head_dim, width, bias=bias)
        self.qk_norm = qk_norm
        if qk_norm:
            self.q_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps)
            self.k_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def __call__(self, x, rotate, mask=None, cache=None):
        batch, length, _ = x.shape
        q = self.q_proj(x).reshape(batch, length, self.heads, self.head_dim)
        k = self.k_proj(x).reshape(batch, length, self.kv_heads, self.head_dim)
        v = self.v_proj(x).reshape(batch, length, self.kv_heads, self.head_dim)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (part.transpose(0, 2, 1, 3) for part in (q, k, v))  # [B, H, T, D]
        q, k = rotate(q), rotate(k)
        if cache is not None:
            k, v = cache.update(k, v)
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.head_dim**-0.5, mask=mask)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(batch, length, -1))


class SwiGLU(nn.Module):
    """Gated MLP: down(silu(gate(x)) * up(x))."""

    def __init__(self, width, hidden):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def __call__(self, x):
        return self.down_proj(nn.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer of talker and code predictor."""

    def __init__(self, config):
        super().__init__()
        self.self_attn = Attention(config, qk_norm=True)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(self, x, rotate, mask=None, cache=None):
        x = x + self.self_attn(self.input_layernorm(x), rotate, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


def run_layers(layers, x, caches, rope, mask="causal"):
    """Self-attention stack over cached positions; [B, T, E] to [B, T, E]. A single position needs no causal mask."""
    length = x.shape[1]
    rotate = rope(length, caches[0].offset)
    mask = None if length == 1 and mask == "causal" else mask
    for layer, cache in zip(layers, caches, strict=True):
        x = layer(x, rotate, mask, cache)
    return x
