"""Fitting a voice's vector to recordings through the frozen talker: an ordinary voice afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..checks import number, whole, word
from ..errors import UnsupportedValue
from ..networks.process import enter
from ..synthesis.request import LAYOUTS
from ..synthesis.tts import Qwen3TTS
from .fit import Fit, Settings
from .judge import MOST, Figures, Judge, against
from .lessons import Form, Lessons, vector_objective
from .takes import Take, Takes

ITERS = 50
BATCH = 8  # clips a step
ANCHOR = 0.25
STEP = 0.1  # of the vector's norm, over the root of its dimensions: the highest learning rate
SAMPLE = 256  # frames a step that the code predictor is asked about
EVALUATED = 25  # batches of the clips held out, as many as mlx-lm takes
LISTEN = 3  # rounds
OLD, NEW, HEARD = "x-vector", "fitted", "listened"


@dataclass(frozen=True)
class Options:
    """What can be chosen. learning_rate: None for one that fits the vector's norm; anchor: how much it costs to leave
    the x-vector; val_batches: of the clips held out, -1 for all; listen: rounds in which the fitted vector is moved by
    what its speech lacks of the recordings; the rest as in `Settings` and `Form`."""

    iters: int = ITERS
    learning_rate: float | None = None
    batch_size: int = BATCH
    anchor: float = ANCHOR
    steps_per_eval: int = 10
    val_batches: int = EVALUATED
    seed: int = 0
    layout: str = "streaming"
    language: str = "auto"
    sample: int = SAMPLE
    grad_checkpoint: bool = False
    listen: int = LISTEN

    def __post_init__(self) -> None:
        number(self.anchor, "anchor", 0)
        whole(self.seed, "seed", 0, 2**32 - 1)
        whole(self.val_batches, "val_batches", -1)
        whole(self.sample, "predictor_frames", 0)
        whole(self.listen, "listen", 0)
        word(self.layout, "text_mode", LAYOUTS)
        self.settings(1.0)

    def settings(self, fitting: float) -> Settings:
        """fitting: the learning rate that is taken where none is chosen."""
        rate = fitting if self.learning_rate is None else self.learning_rate
        return Settings(self.iters, rate, self.batch_size, self.steps_per_eval, self.seed)

    @property
    def form(self) -> Form:
        return Form(self.layout, self.language, self.sample, self.grad_checkpoint)


@dataclass(frozen=True)
class Verdict:
    """figures: of the x-vector and of the candidates by name; reasons: what speaks against each candidate; kept: the
    name of the one that is kept, and its vector [D]."""

    figures: dict[str, Figures]
    reasons: dict[str, list[str]]
    kept: str
    vector: mx.array


def check_model(tts: Qwen3TTS) -> None:
    """UnsupportedValue for a model whose voices are not vectors, or that cannot listen."""
    if tts.model_type == "voice_design":
        raise UnsupportedValue("a voice_design model has no voice to fit; use a Base model", param="model")
    if tts.config.speaker_encoder is None:
        message = f"a {tts.model_type} model without a speaker encoder has no x-vector to begin with; use a Base model"
        raise UnsupportedValue(message, param="model")


class VectorFit:
    """A vector that is being fitted to Takes. `fit` makes the steps; `verdict` then says whether it is better."""

    def __init__(self, tts: Qwen3TTS, takes: Takes, options: Options) -> None:
        check_model(tts)
        enter()
        self.tts, self.takes, self.options = tts, takes, options
        self.start = mx.stack([take.vector for take in takes.all]).mean(axis=0)
        mx.eval(self.start)
        self.lessons = Lessons(tts, takes.train, options.form)
        most = len(takes.valid) if options.val_batches < 0 else max(1, options.val_batches * options.batch_size)
        self.held_out = Lessons(tts, takes.valid[:most], options.form)
        fitting = STEP * float(mx.linalg.norm(self.start)) / math.sqrt(self.start.size)
        objective = vector_objective(self.lessons, self.start, options.anchor)
        self.fit = Fit(
            {"vector": self.start},
            objective,
            lambda parameters: self.held_out.loss(parameters["vector"]),
            len(takes.train),
            options.settings(fitting),
        )

    @property
    def best(self) -> mx.array:
        """The vector [D] with the least held-out loss so far."""
        return self.fit.best["vector"]

    def losses(self) -> list[tuple[Take, float]]:
        """Every take with its loss under the x-vector."""
        lessons = Lessons(self.tts, self.takes.all, self.options.form)
        return list(zip(self.takes.all, lessons.measured(self.start), strict=True))

    def listened(self, progress: Callable[[int], object] | None = None) -> mx.array:
        """The x-vector or the fitted vector [D], whichever speaks more like the recordings, moved by what its speech
        lacks of them.

        The vector of a few sentences scatters, so one round says little: the result is the mean of the vector that it
        began with and of those that the rounds ask for (Robbins and Monro, "A Stochastic Approximation Method", 1951,
        with the gains 1/2, 1/3, ...). Of many clips each round speaks others.
        """
        takes, form, seed = self.takes.train, self.options.form, self.options.seed
        begun = [self.start, self.best] if self.fit.best_step > 0 else [self.start]
        judge, vector = Judge(self.tts, takes, self.takes.all, form, seed), self.start
        for turn in range(1, self.options.listen + 1):
            first = (turn - 1) * MOST % len(takes) if len(takes) > MOST else 0
            judge.say([*takes[first:], *takes[:first]])
            if turn == 1:
                lacks = [judge.lacking(one, turn, progress) for one in begun]
                nearest = min(range(len(begun)), key=lambda i: float(mx.linalg.norm(lacks[i])))
                vector, lacking = begun[nearest], lacks[nearest]
            else:
                lacking = judge.lacking(vector, turn, progress)
            vector = vector + lacking / (turn + 1)
        return vector

    def verdict(self, progress: Callable[[int], object] | None = None) -> Verdict:
        """Speak the held-out sentences with the x-vector and the candidates, compare, and choose.

        The candidates are the fitted vector and, where `listen` is above 0, the `listened` one. progress: as for
        `Qwen3TTS.generate_batch`.
        """
        first = next((row.valid for row in self.fit.rows if row.step == 0 and row.valid is not None), math.nan)
        vectors, losses = {OLD: self.start}, {OLD: first}
        if self.fit.best_step > 0:
            vectors[NEW], losses[NEW] = self.best, self.fit.best_valid
        if self.options.listen:
            vectors[HEARD] = self.listened(progress)
            losses[HEARD] = self.held_out.loss(vectors[HEARD])
        judge = Judge(self.tts, self.takes.spoken, self.takes.all, self.options.form, self.options.seed)
        found = judge.compare(vectors, losses, progress)
        reasons = {name: against(found[name], found[OLD]) for name in vectors if name != OLD}
        better = [name for name, said in reasons.items() if not said]
        kept = min(better, key=lambda name: found[name].distance, default=OLD)
        return Verdict(found, reasons, kept, vectors[kept])

    def recipe(self, kept: str) -> dict[str, Any]:
        """How the vector that is kept was made, for its file. kept: OLD, NEW or HEARD."""
        takes, options = self.takes.all, self.options
        made: dict[str, Any] = {"tuned": kept, "clips": len(takes)}
        made["seconds"] = round(sum(take.seconds for take in takes), 1)
        if kept != OLD:
            rate = self.fit.settings.learning_rate
            made |= {"step": self.fit.best_step, "iters": options.iters, "learning_rate": round(rate, 6)}
            made |= {"anchor": options.anchor, "text_mode": options.layout, "seed": options.seed}
        return made | ({"listen": options.listen} if kept == HEARD else {})
