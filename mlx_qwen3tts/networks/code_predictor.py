"""The code predictor: a step for each codebook but the first, with its own embedding table and head.

B batch, E talker width, P predictor width, V codebook size.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import mlx.nn as nn

from .cache import KVCache
from .config import TransformerConfig
from .linear import Linear, packed
from .transformer import DecoderLayer, RMSNorm, Rope, run_layers


class CodePredictorModel(nn.Module):
    """Embedding tables (of the talker's width), decoder layers and final norm."""

    def __init__(self, config: TransformerConfig, talker_width: int) -> None:
        super().__init__()
        self.codec_embedding = [
            nn.Embedding(config.vocab_size, talker_width) for _ in range(config.num_code_groups - 1)
        ]
        self.layers = [DecoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rope = Rope(config.head_dim, config.rope_theta)

    def __call__(self, x: mx.array, caches: Sequence[KVCache] | None, recompute: bool = False) -> mx.array:
        return self.norm(run_layers(self.layers, x, caches, self.rope, recompute=recompute))


class CodePredictor(nn.Module):
    """Predicts the remaining codebooks of a frame from the talker's hidden state and code 0."""

    def __init__(self, config: TransformerConfig, talker_width: int) -> None:
        super().__init__()
        self.model = CodePredictorModel(config, talker_width)
        self.lm_head = [
            Linear(config.hidden_size, config.vocab_size, bias=False) for _ in range(config.num_code_groups - 1)
        ]
        # Only where the widths differ (1.7B); the published checkpoints have no tensor for an identity.
        if config.hidden_size != talker_width:
            self.small_to_mtp_projection = Linear(talker_width, config.hidden_size)

    def project(self, x: mx.array) -> mx.array:
        """[..., E] to [..., P], where the widths differ."""
        return self.small_to_mtp_projection(x) if "small_to_mtp_projection" in self else x

    def __call__(
        self,
        hidden: mx.array,
        first: mx.array,
        tables: Sequence[mx.array],
        sample: Callable[[int, mx.array], mx.array],
    ) -> list[mx.array]:
        """Run the steps of one frame. Everything has a fixed shape, the cache's too, so that it compiles as a whole.

        hidden: [B, 1, E], the talker's last hidden state; first: [B, 1, E], the embedding of code 0; tables: the
        embedding tables [V, E] of codebooks 1 and up; sample: function (step, logits [B, V]) -> codes [B].
        Returns the codes [B] of these codebooks, a list.
        """
        caches = [KVCache(step=len(self.lm_head) + 1) for _ in self.model.layers]
        x, codes = mx.concatenate([hidden, first], axis=1), list[mx.array]()
        for step, head in enumerate(self.lm_head):
            state = packed(self.model(self.project(x), caches)[:, -1])
            codes.append(sample(step, head(state)))
            x = tables[step][codes[-1][:, None]]  # the last table's row is left to whoever sums up the frame
        return codes

    def foresee(
        self,
        hidden: mx.array,
        first: mx.array,
        codes: mx.array,
        tables: Sequence[mx.array],
        recompute: bool = False,
    ) -> mx.array:
        """Run all steps of N frames at once where their codes are given, as in training.

        hidden: [N, E], the talker's hidden state before each frame; first: [N, E], the embedding of code 0; codes:
        [N, codebooks - 1] of the others; tables: as for `__call__`;
        recompute: as for `run_layers`. Returns logits [N, codebooks - 1, V].
        """
        given = [table[codes[:, step]] for step, table in enumerate(tables[:-1])]
        x = self.project(mx.stack([hidden, first, *given], axis=1))
        states = self.model(x, None, recompute)  # [N, codebooks, P]
        return mx.stack([head(states[:, step + 1]) for step, head in enumerate(self.lm_head)], axis=1)
