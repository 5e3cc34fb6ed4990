"""The code predictor: 15 steps a frame, each with its own embedding table and head, give codebooks 1 to 15.

B batch, E talker width, P predictor width, V codebook size.
"""

import mlx.core as mx
import mlx.nn as nn

from .cache import KVCache
from .transformer import DecoderLayer, Rope, run_layers


class CodePredictorModel(nn.Module):
    """Embedding tables (of the talker's width), decoder layers and final norm."""

    def __init__(self, config, talker_width):
        super().__init__()
        self.codec_embedding = [
            nn.Embedding(config.vocab_size, talker_width) for _ in range(config.num_code_groups - 1)
        ]
        self.layers = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rope = Rope(config.head_dim, config.rope_theta)

    def __call__(self, x, caches):
        return self.norm(run_layers(self.layers, x, caches, self.rope))


class CodePredictor(nn.Module):
    """Predicts the remaining codebooks of a frame from the talker's hidden state and code 0."""

    def __init__(self, config, talker_width):
        super().__init__()
        self.model = CodePredictorModel(config, talker_width)
        self.lm_head = [
            nn.Linear(config.hidden_size, config.vocab_size, bias=False) for _ in range(config.num_code_groups - 1)
        ]
        # Only where the widths differ (1.7B); the published checkpoints have no tensor for an identity.
        if config.hidden_size != talker_width:
            self.small_to_mtp_projection = nn.Linear(talker_width, config.hidden_size)

    def _project(self, x):
        return self.small_to_mtp_projection(x) if "small_to_mtp_projection" in self else x

    def __call__(self, hidden, first_embedding, sample):
        """Run the steps of one frame.

        hidden: [B, 1, E], the talker's last hidden state; first_embedding: [B, 1, E], that of code 0.
        sample: function (step, logits [B, V]) -> codes [B].
        Returns (codes [B, 15], the sum of their embeddings [B, 1, E]).
        """
        caches = [KVCache(step=len(self.lm_head) + 1) for _ in self.model.layers]
        x = mx.concatenate([hidden, first_embedding], axis=1)
        codes, total = [], 0
        for step, (head, table) in enumerate(zip(self.lm_head, self.model.codec_embedding, strict=True)):
            state = self.model(self._project(x), caches)[:, -1]
            code = sample(step, head(state))
            x = table(code)[:, None]
            codes.append(code)
            total = total + x
        return mx.stack(codes, axis=1), total
