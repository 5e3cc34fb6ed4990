"""What happens between two talker steps, as one compiled function: sampling, the predictor's steps, the next input.

A compiled function is made anew for every batch size, so batches are filled up to a few sizes (buckets) and the
surplus rows thrown away: rows that join and leave then meet functions that exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from ..networks.config import ModelConfig
from ..networks.device import on_gpu
from ..networks.talker import Talker
from .processing import Processing
from .sampling import GenerationConfig, MixedSampler, Sampler, noise_keys, unseen

KEPT = 8  # compiled steps of different settings


def bucket(rows: int) -> int:
    """The batch size that `rows` rows are filled up to: 1, 2, 4, 8, …"""
    return 1 << (rows - 1).bit_length()


class FrameStep:
    """Make frames from the talker's output. Compiled once for a bucket; the weights must not change afterwards.

    B batch, E talker width, V codec vocabulary.
    """

    def __init__(self, talker: Talker, sampler: Sampler) -> None:
        self.talker, self.sampler = talker, sampler
        self.noise = mx.compile(sampler.noise)
        self.make = mx.compile(self.trace)

    def trace(
        self,
        logits: mx.array,
        hidden: mx.array,
        seen: mx.array,
        mask: mx.array,
        first_noise: mx.array | None,
        rest_noise: mx.array | None,
        settings: Any,
        processing: Processing | None = None,
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """What `make` is compiled from; with `processing` it runs as it stands."""
        sampler = self.sampler
        if processing:
            logits = processing.first(logits)
        first, seen = sampler.first(logits, seen, mask, first_noise, settings)
        rest = None if rest_noise is None else mx.unstack(rest_noise)  # an index would be a kernel each
        drawn = [first]

        def draw(step: int, row: mx.array) -> mx.array:
            if processing:
                row = processing.rest(row, drawn)
            drawn.append(sampler.rest(row, None if rest is None else rest[step], settings))
            return drawn[-1]

        codes = self.talker.predict(hidden, first, draw)
        return first, codes, self.talker.embed_frames(codes).reshape(hidden.shape), seen

    def __call__(
        self,
        logits: mx.array,
        hidden: mx.array,
        seen: mx.array,
        seeds: Sequence[int],
        frames: Sequence[int],
        settings: Any = None,
        processing: Processing | None = None,
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """A frame from the talker's logits [B, V] and hidden state [B, 1, E].

        seen: the history [B, V]; seeds, frames: of every row, the number of its frame; settings: of a MixedSampler's
        bucket; processing: the rows' functions, which keep it from being compiled. Returns (code 0 [B], codes [B,
        codebooks], their summed embeddings [B, 1, E], the new history).
        """
        rows = len(seeds)
        more = bucket(rows) - rows
        if more:
            logits, hidden, seen = (mx.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1)) for x in (logits, hidden, seen))
            seeds, frames = [*seeds, *[0] * more], [*frames, *[2] * more]
        noise = self.noise(noise_keys(seeds, frames))
        inputs = logits, hidden, seen, self.sampler.mask(frames), *noise, settings
        made = self.trace(*inputs, processing) if processing else self.make(*inputs)
        return tuple(x[:rows] for x in made) if more else made  # pyright: ignore[reportReturnType]  (four stay four)

    def first(
        self,
        logits: mx.array,
        seen: mx.array,
        seeds: Sequence[int],
        frames: Sequence[int],
        settings: Any = None,
        processing: Processing | None = None,
    ) -> mx.array:
        """Code 0 [B] of a frame that is not made."""
        if processing:
            logits = processing.first(logits)
        noise = self.noise(noise_keys(seeds, frames))[0]
        if settings is not None:
            settings = tree_map(lambda values: values[: len(seeds)], settings)
        return self.sampler.first(logits, seen, self.sampler.mask(frames), noise, settings)[0]


class Steps:
    """The compiled steps of a model, kept by what they depend on."""

    def __init__(self, talker: Talker, config: ModelConfig, kernels: frozenset[str] = frozenset()) -> None:
        """kernels: the names of the fused kernels that frames are made with."""
        self.talker, self.config, self.kernels = talker, config, kernels
        self._made: dict[Any, FrameStep] = {}

    def unseen(self, rows: int) -> mx.array:
        """The history [rows, V] of utterances that have not begun."""
        return unseen(rows, self.config.talker.vocab_size)

    def of(self, configs: Sequence[GenerationConfig]) -> tuple[FrameStep, Any]:
        """(the FrameStep for rows with these settings, what it is to be given as `settings`)."""
        # No code depends on max_tokens, and users' functions are not part of what is compiled.
        alike = [
            replace(config, max_tokens=2, logits_processors=(), subtalker_logits_processors=()) for config in configs
        ]
        if all(config == alike[0] for config in alike):
            sampler = None
            key: Any = alike[0], on_gpu(), self.kernels
        else:
            sampler = MixedSampler(alike, self.config.talker, self.config.predictor)
            key = sampler.form, on_gpu(), self.kernels
        step = self._made.pop(key, None)
        if step is None:
            own = sampler or Sampler(alike[0], self.config.talker, self.config.predictor)
            step = FrameStep(self.talker, own)
        self._made[key] = step  # at the end, so that the first is the one that has not been used for longest
        while len(self._made) > KEPT:
            self._made.pop(next(iter(self._made)), None)
        return step, sampler and sampler.settings(bucket(len(configs)))
