"""The talker: a decoder that emits codebook 0 of every frame from text and codec embeddings.

B batch, T positions, E talker width, V codec vocabulary (codes and control tokens).
"""

import mlx.nn as nn

from .cache import KVCache
from .code_predictor import CodePredictor
from .transformer import DecoderLayer, Rope, run_layers


class TextProjection(nn.Module):
    """Two-layer MLP (SiLU, biases) from the text embedding's width to the talker's."""

    def __init__(self, config):
        super().__init__()
        self.linear_fc1 = nn.Linear(config.text_hidden_size, config.text_hidden_size)
        self.linear_fc2 = nn.Linear(config.text_hidden_size, config.hidden_size)

    def __call__(self, x):
        return self.linear_fc2(nn.silu(self.linear_fc1(x)))


class TalkerModel(nn.Module):
    """Embedding tables, decoder layers and final norm."""

    def __init__(self, config):
        super().__init__()
        self.codec_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.text_embedding = nn.Embedding(config.text_vocab_size, config.text_hidden_size)
        self.layers = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        # M-RoPE's three position rows are equal in speech, so it is plain RoPE (proved by parity).
        self.rope = Rope(config.head_dim, config.rope_theta)

    def __call__(self, x, caches):
        return self.norm(run_layers(self.layers, x, caches, self.rope))


class Talker(nn.Module):
    """Talker, text projection, codec head and code predictor, under the published tensor names."""

    def __init__(self, config):
        """config: a ModelConfig."""
        super().__init__()
        self.model = TalkerModel(config.talker)
        self.text_projection = TextProjection(config.talker)
        self.codec_head = nn.Linear(config.talker.hidden_size, config.talker.vocab_size, bias=False)
        self.code_predictor = CodePredictor(config.predictor, config.talker.hidden_size)

    @property
    def dtype(self):
        """The compute dtype, that of the codec embedding (which is never quantised)."""
        return self.model.codec_embedding.weight.dtype

    def make_cache(self):
        return [KVCache() for _ in self.model.layers]

    def embed_text(self, ids):
        """Text token ids [T] to talker inputs [T, E]."""
        return self.text_projection(self.model.text_embedding(ids))

    def embed_codec(self, ids):
        """Codes of codebook 0 or control tokens [T] to talker inputs [T, E]."""
        return self.model.codec_embedding(ids)

    def embed_frames(self, codes):
        """Frames [T, codebooks] to talker inputs [T, E]: the sum of the embeddings of all codebooks."""
        total = self.embed_codec(codes[:, 0])
        for table, column in zip(self.code_predictor.model.codec_embedding, codes.T[1:], strict=True):
            total = total + table(column)
        return total

    def __call__(self, embeddings, caches):
        """[B, T, E] inputs to (logits [B, V] of the last position, its hidden state after the final norm [B, 1, E])."""
        hidden = self.model(embeddings, caches)[:, -1:]
        return self.codec_head(hidden)[:, 0], hidden
