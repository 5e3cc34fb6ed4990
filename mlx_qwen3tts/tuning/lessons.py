"""Takes as what the loss is of: prompts in the layout that will be spoken, batches, held-out losses."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..synthesis.tts import Qwen3TTS
from ..voices.voice import Voice
from .fit import Objective, Parameters
from .loss import REST, Batch, Example, batch, example, losses
from .takes import Take

KEPT = 256  # Examples that are kept; others are made again when they are needed
TOGETHER = 8  # clips of a batch that is only measured


@dataclass(frozen=True)
class Form:
    """How clips are learnt from: the layout and language that will be spoken; sample: frames a step that the code
    predictor is asked about, 0 for all; recompute: as for `losses`."""

    layout: str
    language: str
    sample: int = 0
    recompute: bool = False


class Lessons:
    """Takes, ready to be learnt from."""

    def __init__(self, tts: Qwen3TTS, takes: Sequence[Take], form: Form) -> None:
        self.tts, self.takes, self.form = tts, takes, form
        self.end = tts.config.talker.codec_eos_token_id
        self.example = functools.lru_cache(KEPT)(self._example)

    def __len__(self) -> int:
        return len(self.takes)

    def _example(self, number: int) -> Example:
        take = self.takes[number]
        nobody = Voice(mx.zeros(self.tts.embedding_dim))
        language = take.clip.language or self.form.language
        prompt = self.tts.prompt(take.clip.text, nobody, language, None, self.form.layout, take.codes.shape[0])
        return example(self.tts.talker, prompt, take.codes)

    def batch(self, numbers: Sequence[int]) -> Batch:
        return batch([self.example(number) for number in numbers], self.end)

    def measured(self, vector: mx.array) -> list[float]:
        """The loss of every take, spoken by a voice [D]."""
        found = []
        for number in range(len(self)):
            first, rest = losses(self.tts.talker, self.batch([number]), vector)
            found.append(first + REST * rest)
            mx.eval(found[-1])
        return [float(loss) for loss in found]

    def loss(self, vector: mx.array) -> float:
        """The mean loss of all takes, every frame weighing the same."""
        total = weight = 0.0
        for start in range(0, len(self), TOGETHER):
            given = self.batch(range(start, min(start + TOGETHER, len(self))))
            first, rest = losses(self.tts.talker, given, vector)
            total += float(first + REST * rest) * given.frames.size
            weight += given.frames.size
        return total / weight


def foreseen(tts: Qwen3TTS, text: str, language: str | None, codes: mx.array, vector: mx.array, form: Form) -> float:
    """The loss of codes [F, codebooks] as the speech of a text by a voice [D]; language: None for the form's."""
    nobody = Voice(mx.zeros(tts.embedding_dim))
    prompt = tts.prompt(text, nobody, language or form.language, None, form.layout, codes.shape[0])
    given = batch([example(tts.talker, prompt, codes)], tts.config.talker.codec_eos_token_id)
    first, rest = losses(tts.talker, given, vector)
    return float(first + REST * rest)


def vector_objective(lessons: Lessons, start: mx.array, anchor: float) -> Objective:
    """The loss of {"vector": v [D]} over some of the lessons, and anchor * mean((v - start)²) / mean(start²).

    Without the anchor the vector's norm doubles while the loss falls, and speech gets worse.
    """
    scale = mx.mean(mx.square(start))

    def objective(parameters: Parameters, numbers: Sequence[int], seed: int) -> tuple[mx.array, dict[str, mx.array]]:
        given, vector = lessons.batch(numbers), parameters["vector"]
        drawn = sampled(given.frames.size, lessons.form.sample, seed)
        first, rest = losses(lessons.tts.talker, given, vector, drawn, lessons.form.recompute)
        away = mx.mean(mx.square(vector - start)) / scale
        return first + REST * rest + anchor * away, {"first": first, "rest": rest, "away": away}

    return objective


def sampled(frames: int, most: int, seed: int) -> mx.array | None:
    """Which of the frames [most] the code predictor is asked about; None for all."""
    if not most or frames <= most:
        return None
    return mx.array(np.sort(np.random.RandomState(seed).permutation(frames)[:most]))
