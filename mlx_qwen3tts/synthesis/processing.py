"""Functions of the user's that change logits before anything is drawn from them, as mlx-lm's `logits_processors`.

They are Python and may look at values, so the frames of a batch that has any are not compiled; all others are.
B rows, V codec vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mlx.core as mx

from ..errors import InvalidValue, WrongType
from .request import PROCESSORS
from .sampling import GenerationConfig

if TYPE_CHECKING:
    from .request import LogitsProcessor


class Processing:
    """One frame's functions: of every row its own, called with its own codes."""

    def __init__(self, configs: Sequence[GenerationConfig], spoken: Sequence[mx.array]) -> None:
        """configs: of each row; spoken: each row's codes 0 so far, [frames]."""
        self.configs, self.spoken = configs, spoken

    def first(self, logits: mx.array) -> mx.array:
        """Codebook 0's logits [B, V], processed; rows beyond those that there are stay as they are."""
        functions = [config.logits_processors for config in self.configs]
        return _processed(logits, functions, self.spoken, PROCESSORS[0])

    def rest(self, logits: mx.array, codes: Sequence[mx.array]) -> mx.array:
        """The predictor's logits [B, codebook], processed; codes: [B] of each of the frame's codebooks so far."""
        functions = [config.subtalker_logits_processors for config in self.configs]
        if not any(functions):
            return logits
        return _processed(logits, functions, list(mx.stack(list(codes), axis=1)), PROCESSORS[1])


def _processed(
    logits: mx.array, functions: Sequence[Sequence[LogitsProcessor]], tokens: Sequence[mx.array], name: str
) -> mx.array:
    rows = list(mx.split(logits.astype(mx.float32), logits.shape[0]))
    for place, own in enumerate(functions):
        for function in own:
            row = function(tokens[place], rows[place])
            if not isinstance(row, mx.array):
                raise WrongType(
                    f"{name}: {function!r} gave {type(row).__name__}, not an mx.array of logits", param=name
                )
            if row.shape != rows[place].shape:
                shapes = f"{list(row.shape)}, not {list(rows[place].shape)}"
                raise InvalidValue(f"{name}: {function!r} gave logits of shape {shapes}", param=name)
            rows[place] = row.astype(mx.float32)
    return mx.concatenate(rows)
