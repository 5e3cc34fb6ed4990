"""The codec's two small transformers: the decoder's (SwiGLU, RMSNorm, sliding window) and Mimi's (GELU, LayerNorm).

B batch, T positions, E width.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import mlx.nn as nn

from ..cache import Cache, KVCache, SlidingKVCache
from ..config import CodecDecoderConfig, CodecEncoderConfig
from ..linear import Linear
from ..transformer import Attention, Mask, Rope, Rotate, SwiGLU, causal_mask, run_layers


class LayerScale(nn.Module):
    """A learnt factor per channel on a residual branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = mx.ones((width,))

    def __call__(self, x: mx.array) -> mx.array:
        return self.scale * x


class GeluMLP(nn.Module):
    """fc2(gelu(fc1(x))), exact GELU, no biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden, bias=False)
        self.fc2 = Linear(hidden, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc2(nn.gelu(self.fc1(x)))


class CodecLayer(nn.Module):
    """Pre-norm layer with layer scale; norm and MLP are what the two transformers differ in."""

    def __init__(
        self,
        config: CodecDecoderConfig | CodecEncoderConfig,
        norm: Callable[[int], nn.Module],
        mlp: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        width = config.hidden_size
        self.self_attn = Attention(config)
        self.mlp = mlp(width, config.intermediate_size)
        self.input_layernorm, self.post_attention_layernorm = norm(width), norm(width)
        self.self_attn_layer_scale, self.mlp_layer_scale = LayerScale(width), LayerScale(width)

    def __call__(self, x: mx.array, rotate: Rotate, mask: Mask, cache: Cache | None) -> mx.array:
        x = x + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(x), rotate, mask, cache))
        return x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x)))


class MimiTransformer(nn.Module):
    """Mimi's encoder transformer. Its configured window is ignored, as the official attention path ignores it."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()

        def norm(width: int) -> nn.Module:
            return nn.LayerNorm(width, eps=config.norm_eps)

        self.layers = [CodecLayer(config, norm, GeluMLP) for _ in range(config.num_hidden_layers)]
        self.rope = Rope(config.head_dim, config.rope_theta)

    def make_cache(self) -> list[KVCache]:
        return [KVCache() for _ in self.layers]

    def __call__(self, x: mx.array, caches: Sequence[KVCache]) -> mx.array:
        """[B, T, E] to [B, T, E], causal over everything the caches hold."""
        return run_layers(self.layers, x, caches, self.rope)


class DecoderTransformer(nn.Module):
    """The codec decoder's transformer; every frame sees `sliding_window` frames, itself included."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()

        def norm(width: int) -> nn.Module:
            return nn.RMSNorm(width, eps=config.rms_norm_eps)

        self.layers = [CodecLayer(config, norm, SwiGLU) for _ in range(config.num_hidden_layers)]
        self.norm = norm(config.hidden_size)
        self.input_proj = Linear(config.latent_dim, config.hidden_size)
        self.output_proj = Linear(config.hidden_size, config.latent_dim)
        self.rope = Rope(config.head_dim, config.rope_theta)
        self.window = config.sliding_window

    def make_cache(self) -> list[SlidingKVCache]:
        return [SlidingKVCache(self.window) for _ in self.layers]

    def __call__(self, x: mx.array, caches: Sequence[SlidingKVCache]) -> mx.array:
        """[B, T, latent] to [B, T, latent]."""
        length, held = x.shape[1], caches[0].held
        mask = causal_mask(length, length + max(held), self.window, x.dtype)
        if len(held) > 1:  # the younger rows have nothing yet where the older ones have keys
            empty = mx.array([max(held) - own for own in held])[:, None, None, None]
            mask = mx.where(mx.arange(length + max(held)) < empty, float("-inf"), mask)
        return self.output_proj(self.norm(run_layers(self.layers, self.input_proj(x), caches, self.rope, mask)))
