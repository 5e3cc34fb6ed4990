"""A fit that keeps what speaks best. The loss alone must not choose: it falls on while words break."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import mlx.core as mx

from .fit import Fit, Objective, Parameters, Settings
from .judge import Figures, against


class SpokenFit(Fit):
    """A Fit whose parameters are spoken with wherever the held-out loss is measured.

    heard: {step: the Figures of its speech}, step 0 of what it began with. The best are those with the nearest speech
    among those against which nothing speaks in comparison with step 0; training ends early where none of `patience`
    evaluations in a row gave better ones.
    """

    def __init__(
        self,
        parameters: Parameters,
        objective: Objective,
        evaluate: Callable[[Parameters], float],
        clips: int,
        settings: Settings,
        listen: Callable[[Parameters, float], Figures],
        patience: int,
    ) -> None:
        """listen: speak with parameters, whose held-out loss is given; the rest as for Fit."""
        super().__init__(parameters, objective, evaluate, clips, settings)
        self.listen, self.patience = listen, patience
        self.heard = dict[int, Figures]()

    @property
    def done(self) -> bool:
        return super().done or self.stalled

    @property
    def stalled(self) -> bool:
        """Whether the last evaluations gave nothing better."""
        return sum(step > self.best_step for step in self.heard) >= self.patience

    def against(self, step: int) -> list[str]:
        """What speaks against the speech of a step in comparison with that of step 0."""
        return against(self.heard[step], self.heard[0])

    def _hold_out(self) -> float:
        loss = self.evaluate(self.parameters)
        figures = self.listen(self.parameters, loss)
        self.heard[self.step] = figures
        if self.step > 0 and not self.against(self.step) and figures.distance < self.heard[self.best_step].distance:
            self.best, self.best_valid, self.best_step = self.parameters, loss, self.step
        return loss

    @property
    def state(self) -> tuple[dict[str, mx.array], dict[str, Any]]:
        arrays, values = super().state
        return arrays, {**values, "heard": [[step, asdict(figures)] for step, figures in self.heard.items()]}

    def restore(self, arrays: dict[str, mx.array], values: dict[str, Any]) -> None:
        heard = {int(step): Figures(**figures) for step, figures in values["heard"]}
        super().restore(arrays, values)
        self.heard = heard


def together(figures: Sequence[Figures]) -> Figures:
    """The Figures of several speakers as one: distances, cosines and norms on average, of pitch and length the one that
    is furthest off, the least clarity."""

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    clear = [one.clarity for one in figures if one.clarity is not None]
    pitches = [one.pitch for one in figures if one.pitch is not None]
    return replace(
        figures[0],
        norm=mean([one.norm for one in figures]),
        distance=mean([one.distance for one in figures]),
        cosine=mean([one.cosine for one in figures]),
        pitch=max(pitches, key=abs) if pitches else None,
        length=max((one.length for one in figures), key=abs),
        ended=sum(one.ended for one in figures),
        of=sum(one.of for one in figures),
        clarity=min(clear, default=None),
    )
