"""Split residual vector quantisation: codebook 0 (semantic) and the rest (acoustic) have projections of their own.

The published files keep each codebook as sums and usage counts, embedding = sum / max(usage, 1e-5), under one set of
names in the decoder and another in the encoder. Tensors that only training or the other direction needs are declared
too, so that every published key has its place.
B batch, T frames, N codebook size, D codebook dimension, E width.
"""

import functools

import mlx.core as mx
import mlx.nn as nn

from ..config import CodecDecoderConfig, CodecEncoderConfig
from ..conv import Conv1d

MIN_USAGE = 1e-5


class DecoderCodebook(nn.Module):
    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.cluster_usage = mx.ones((size,))
        self.embedding_sum = mx.zeros((size, dim))

    def __call__(self, codes: mx.array) -> mx.array:
        """Codes [B, T] to [B, T, D]."""
        return self.embedding_sum[codes] / mx.maximum(self.cluster_usage[codes], MIN_USAGE)[..., None]


class DecoderLayer(nn.Module):
    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.book = DecoderCodebook(size, dim)  # `_codebook` in the files


class DecoderLayers(nn.Module):
    def __init__(self, count: int, size: int, dim: int) -> None:
        super().__init__()
        self.layers = [DecoderLayer(size, dim) for _ in range(count)]


class DecoderHalf(nn.Module):
    """One half of the decoder's split: sums codebook vectors and projects them to the decoder's width."""

    def __init__(self, count: int, size: int, dim: int, width: int) -> None:
        super().__init__()
        self.vq = DecoderLayers(count, size, dim)
        self.input_proj = Conv1d(width, dim, 1, bias=False)  # only training uses it
        self.output_proj = Conv1d(dim, width, 1, bias=False)

    def __call__(self, codes: mx.array) -> mx.array:
        """Codes [B, T, codebooks] to [B, T, E]."""
        vectors = (layer.book(codes[..., i]) for i, layer in enumerate(self.vq.layers))
        return self.output_proj(functools.reduce(mx.add, vectors))


class DecoderQuantizer(nn.Module):
    """Codes to latents."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        dim, width = config.codebook_dim // 2, config.codebook_dim
        self.rvq_first = DecoderHalf(1, config.codebook_size, dim, width)
        self.rvq_rest = DecoderHalf(config.num_quantizers - 1, config.codebook_size, dim, width)

    def __call__(self, codes: mx.array) -> mx.array:
        """Codes [B, T, codebooks] to [B, T, E]."""
        return self.rvq_first(codes[..., :1]) + self.rvq_rest(codes[..., 1:])


class EncoderCodebook(nn.Module):
    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.cluster_usage = mx.ones((size,))
        self.embed_sum = mx.zeros((size, dim))
        self.initialized = mx.ones((1,))  # only training uses it

    def vectors(self) -> mx.array:
        return self.embed_sum / mx.maximum(self.cluster_usage, MIN_USAGE)[:, None]  # [N, D]


class EncoderLayer(nn.Module):
    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.codebook = EncoderCodebook(size, dim)


class EncoderHalf(nn.Module):
    """One half of the encoder's split: nearest codebook vectors of what the ones before have left over."""

    def __init__(self, count: int, config: CodecEncoderConfig) -> None:
        super().__init__()
        dim, width = config.vector_quantization_hidden_dimension, config.hidden_size
        self.layers = [EncoderLayer(config.codebook_size, config.codebook_dim) for _ in range(count)]
        if dim != width:
            self.input_proj = Conv1d(width, dim, 1, bias=False)
            self.output_proj = Conv1d(dim, width, 1, bias=False)  # only decoding would use it

    def __call__(self, latents: mx.array, count: int) -> mx.array:
        """Latents [B, T, E] to codes [B, T, count] of the first `count` codebooks."""
        residual = self.input_proj(latents) if "input_proj" in self else latents
        codes = []
        for layer in self.layers[:count]:
            vectors = layer.codebook.vectors()
            # argmin |r - v|² without |r|², which is the same for every v
            nearest = mx.argmax(residual @ vectors.T - 0.5 * mx.square(vectors).sum(axis=-1), axis=-1)
            residual = residual - vectors[nearest]
            codes.append(nearest)
        return mx.stack(codes, axis=-1)


class EncoderQuantizer(nn.Module):
    """Latents to codes; both halves start from the same latents."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        semantic = config.num_semantic_quantizers
        self.semantic_residual_vector_quantizer = EncoderHalf(semantic, config)
        self.acoustic_residual_vector_quantizer = EncoderHalf(config.num_quantizers - semantic, config)

    def __call__(self, latents: mx.array, codebooks: int) -> mx.array:
        """Latents [B, T, E] to codes [B, T, codebooks]."""
        semantic = self.semantic_residual_vector_quantizer
        first = semantic(latents, len(semantic.layers))
        rest = self.acoustic_residual_vector_quantizer(latents, codebooks - len(semantic.layers))
        return mx.concatenate([first, rest], axis=-1)
