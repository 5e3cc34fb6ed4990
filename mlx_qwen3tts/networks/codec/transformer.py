"""The codec's two small transformers: the decoder's (SwiGLU, RMSNorm, sliding window) and Mimi's (GELU, LayerNorm).

B batch, T positions, E width.
"""

import mlx.core as mx
import mlx.nn as nn

from ..cache import KVCache, SlidingKVCache
from ..linear import Linear
from ..transformer import Attention, Rope, SwiGLU, causal_mask, run_layers


class LayerScale(nn.Module):
    """A learnt factor per channel on a residual branch."""

    def __init__(self, width):
        super().__init__()
        self.scale = mx.ones((width,))

    def __call__(self, x):
        return self.scale * x


class GeluMLP(nn.Module):
    """fc2(gelu(fc1(x))), exact GELU, no biases."""

    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = Linear(width, hidden, bias=False)
        self.fc2 = Linear(hidden, width, bias=False)

    def __call__(self, x):
        return self.fc2(nn.gelu(self.fc1(x)))


class CodecLayer(nn.Module):
    """Pre-norm layer with layer scale; norm and MLP are what the two transformers differ in."""

    def __init__(self, config, norm, mlp):
        super().__init__()
        width = config.hidden_size
        self.self_attn = Attention(config, qk_norm=False)
        self.mlp = mlp(width, config.intermediate_size)
        self.input_layernorm, self.post_attention_layernorm = norm(width), norm(width)
        self.self_attn_layer_scale, self.mlp_layer_scale = LayerScale(width), LayerScale(width)

    def __call__(self, x, rotate, mask, cache):
        x = x + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(x), rotate, mask, cache))
        return x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x)))


class MimiTransformer(nn.Module):
    """Mimi's encoder transformer. Its configured window is ignored, as the official attention path ignores it."""

    def __init__(self, config):
        super().__init__()

        def norm(width):
            return nn.LayerNorm(width, eps=config.norm_eps)

        self.layers = [CodecLayer(config, norm, GeluMLP) for _ in range(config.num_hidden_layers)]
        self.rope = Rope(config.head_dim, config.rope_theta)

    def make_cache(self):
        return [KVCache() for _ in self.layers]

    def __call__(self, x, caches):
        """[B, T, E] to [B, T, E], causal over everything the caches hold."""
        return run_layers(self.layers, x, caches, self.rope)


class DecoderTransformer(nn.Module):
    """The codec decoder's transformer; every frame sees `sliding_window` frames, itself included."""

    def __init__(self, config):
        super().__init__()

        def norm(width):
            return nn.RMSNorm(width, eps=config.rms_norm_eps)

        self.layers = [CodecLayer(config, norm, SwiGLU) for _ in range(config.num_hidden_layers)]
        self.norm = norm(config.hidden_size)
        self.input_proj = Linear(config.latent_dim, config.hidden_size)
        self.output_proj = Linear(config.hidden_size, config.latent_dim)
        self.rope = Rope(config.head_dim, config.rope_theta)
        self.window = config.sliding_window

    def make_cache(self):
        return [SlidingKVCache(self.window) for _ in self.layers]

    def __call__(self, x, caches):
        """[B, T, latent] to [B, T, latent]."""
        length, offset = x.shape[1], caches[0].offset
        held = min(offset if isinstance(offset, int) else max(offset), self.window - 1)
        mask = causal_mask(length, length + held, self.window, x.dtype)
        if not isinstance(offset, int):  # the younger rows have nothing yet where the older ones have keys
            empty = mx.array([held - min(age, self.window - 1) for age in offset])
            mask = mx.where(mx.arange(length + held) < empty[:, None, None, None], float("-inf"), mask)
        return self.output_proj(self.norm(run_layers(self.layers, self.input_proj(x), caches, self.rope, mask)))
