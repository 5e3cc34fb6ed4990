"""The talker: a decoder that emits codebook 0 of every frame from text and codec embeddings.

B batch, T positions, E talker width, V codec vocabulary (codes and control tokens).
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import mlx.nn as nn

from .cache import KVCache
from .code_predictor import CodePredictor
from .config import ModelConfig, TalkerConfig
from .linear import Linear, table
from .transformer import DecoderLayer, Mask, RMSNorm, Rope, run_layers


class TextProjection(nn.Module):
    """Two-layer MLP (SiLU, biases) from the text embedding's width to the talker's."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.linear_fc1 = Linear(config.text_hidden_size, config.text_hidden_size)
        self.linear_fc2 = Linear(config.text_hidden_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        return self.linear_fc2(nn.silu(self.linear_fc1(x)))


class TalkerModel(nn.Module):
    """Embedding tables, decoder layers and final norm."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.codec_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.text_embedding = nn.Embedding(config.text_vocab_size, config.text_hidden_size)
        self.layers = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        # M-RoPE's three position rows are equal in speech, so it is plain RoPE (proved by parity).
        self.rope = Rope(config.head_dim, config.rope_theta)

    def __call__(
        self,
        x: mx.array,
        caches: Sequence[KVCache] | None,
        mask: Mask = "causal",
        positions: Sequence[int] | None = None,
        recompute: bool = False,
    ) -> mx.array:
        return self.norm(run_layers(self.layers, x, caches, self.rope, mask, positions, recompute))


class Talker(nn.Module):
    """Talker, text projection, codec head and code predictor, under the published tensor names.

    Fused, the embedding tables of all codebooks are one, `codes`, the talker's own rows first.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = TalkerModel(config.talker)
        self.text_projection = TextProjection(config.talker)
        self.codec_head = Linear(config.talker.hidden_size, config.talker.vocab_size, bias=False)
        self.code_predictor = CodePredictor(config.predictor, config.talker.hidden_size)
        # Where each codebook's rows start in the one table.
        sizes = [config.talker.vocab_size] + [config.predictor.vocab_size] * (config.talker.num_code_groups - 1)
        self.starts = tuple(sum(sizes[:i]) for i in range(len(sizes)))
        self._first_rows = mx.array(self.starts, mx.uint32)

    def fuse(self) -> None:
        """One table for the embeddings of all codebooks."""
        tables = [self.model.codec_embedding, *self.code_predictor.model.codec_embedding]
        # The norms are never quantised, and the scales of some quantised tables do not tell what dtype they were.
        self.codes = mx.concatenate([table(layer, self.model.norm.weight.dtype) for layer in tables])
        del self.model.codec_embedding, self.code_predictor.model.codec_embedding

    @property
    def dtype(self) -> mx.Dtype:
        """The compute dtype, that of the codec embedding."""
        return self.codes.dtype

    def make_cache(self) -> list[KVCache]:
        return [KVCache() for _ in self.model.layers]

    def embed_text(self, ids: mx.array) -> mx.array:
        """Text token ids [T] to talker inputs [T, E]."""
        # MLX makes bfloat16 of an embedding in mxfp4, mxfp8 or nvfp4, whose numbers all fit into it.
        return self.text_projection(self.model.text_embedding(ids).astype(self.dtype))

    def embed_codec(self, ids: mx.array) -> mx.array:
        """Codes of codebook 0 or control tokens [...] to talker inputs [..., E]."""
        return self.codes[ids]

    def embed_frames(self, codes: mx.array) -> mx.array:
        """Frames [T, codebooks] to talker inputs [T, E]: the sum of the embeddings of all codebooks, in one gather."""
        return self.codes[codes.astype(mx.uint32) + self._first_rows].sum(axis=1)

    def predict(self, hidden: mx.array, first: mx.array, sample: Callable[[int, mx.array], mx.array]) -> mx.array:
        """One frame by the code predictor: hidden [B, 1, E] and code 0 [B] to codes [B, codebooks].

        sample: function (step, logits [B, codebook size]) -> codes [B] of codebook step + 1.
        """
        rest = self.code_predictor(hidden, self.embed_codec(first[:, None]), self._tables(), sample)
        return mx.stack([first, *rest], axis=1)

    def _tables(self) -> list[mx.array]:
        """The embedding tables [codebook size, E] of codebooks 1 and up."""
        return [self.codes[start:end] for start, end in zip(self.starts[1:], (*self.starts[2:], None), strict=True)]

    def foresee(self, embeddings: mx.array, places: mx.array, recompute: bool = False) -> tuple[mx.array, mx.array]:
        """Foresee codebook 0 where what came before is given, as in training.

        embeddings: [B, T, E] inputs of whole utterances, padded behind; places: [N] of the B * T positions; recompute:
        as for `run_layers`. Returns (logits [N, V], hidden states after the final norm [N, E]) of these positions.
        """
        hidden = self.model(embeddings, None, recompute=recompute)
        hidden = hidden.reshape(-1, hidden.shape[-1])[places]
        return self.codec_head(hidden), hidden

    def foresee_rest(self, hidden: mx.array, codes: mx.array, recompute: bool = False) -> mx.array:
        """Foresee codebooks 1 and up: hidden states [N, E] from before the frames and codes [N, codebooks] of the
        frames to logits [N, codebooks - 1, codebook size]."""
        first, rest = self.embed_codec(codes[:, 0]), codes[:, 1:]
        return self.code_predictor.foresee(hidden, first, rest, self._tables(), recompute)

    def revise(self, embeddings: mx.array, caches: Sequence[KVCache], start: int) -> None:
        """Recompute the cached keys and values from a position on for other inputs [1, t, E], the rest as it is."""
        ends = [cache.offset for cache in caches]
        for cache in caches:
            cache.offset = start
        self.model(embeddings, caches)
        for cache, end in zip(caches, ends, strict=True):
            cache.offset = end
        # Apart from what follows, or the next step's keys would be written while these are still being read: a copy.
        mx.async_eval(*(array for cache in caches for array in cache.state))

    def __call__(
        self,
        embeddings: mx.array,
        caches: Sequence[KVCache],
        mask: Mask = "causal",
        positions: Sequence[int] | None = None,
    ) -> tuple[mx.array, mx.array]:
        """[B, T, E] inputs to (logits [B, V] of the last position, its hidden state after the final norm [B, 1, E])."""
        hidden = self.model(embeddings, caches, mask, positions)[:, -1:]
        return self.codec_head(hidden)[:, 0], hidden
