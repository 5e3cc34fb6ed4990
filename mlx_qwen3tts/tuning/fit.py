"""The training loop: steps of Adam with warm-up and cosine, held-out losses now and then, the best parameters kept.

It knows neither files nor voices: a loss is a function of parameters (any tree of arrays), of the clips of a step and
of a seed for what is drawn in it. A vector is fitted with it, and adapters can be.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from ..checks import number, whole

Parameters = Any  # a tree of arrays: dicts and lists of them
# (parameters, numbers of the clips, seed) to (what is minimised, what is reported of it by name)
Objective = Callable[[Parameters, Sequence[int], int], tuple[mx.array, dict[str, mx.array]]]

WARMUP = 3  # steps
LAST = 0.02  # of the learning rate, where the cosine ends
COUNTERS = ("step", "learning_rate")  # of the optimizer's state, which follow from the step


@dataclass(frozen=True)
class Settings:
    """How to train: steps, the highest learning rate, clips a step, how often to hold out, the seed of all that is
    drawn."""

    iters: int
    learning_rate: float
    batch_size: int
    steps_per_eval: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        whole(self.iters, "iters", 1)
        number(self.learning_rate, "learning_rate", above=0)
        whole(self.batch_size, "batch_size", 1)
        whole(self.steps_per_eval, "steps_per_eval", 1)

    def rate(self, step: int) -> float:
        """The learning rate of a step: up in a line, then down along a cosine."""
        if step < WARMUP:
            return self.learning_rate * (step + 1) / WARMUP
        done = (step - WARMUP) / max(1, self.iters - WARMUP)
        return self.learning_rate * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass
class Row:
    """What is known of a step: the figures of its loss, the learning rate, and where it was evaluated `valid`, the loss
    of the clips held out before the step."""

    step: int
    rate: float
    figures: dict[str, float] = field(default_factory=dict)
    valid: float | None = None


class Fit:
    """Parameters that are being fitted. Iterate to make the steps; each gives its Row.

    step: how many were made; best, best_valid, best_step: the parameters with the least held-out loss so far, and when
    (step 0: none but those that it began with); rows: of all steps; burst: the step whose loss was not finite, where
    training has stopped, or None. Those it began with never count as the best of later ones: of a few clips the
    held-out loss says little, and whether anything is better is for its user to find out.
    """

    def __init__(
        self,
        parameters: Parameters,
        objective: Objective,
        evaluate: Callable[[Parameters], float],
        clips: int,
        settings: Settings,
    ) -> None:
        """evaluate: the held-out loss of parameters; clips: how many there are to learn from."""
        self.parameters, self.evaluate, self.clips, self.settings = parameters, evaluate, clips, settings
        self._gradient = mx.value_and_grad(objective)
        self.optimizer = optim.Adam(settings.learning_rate, bias_correction=True)
        self.optimizer.init(parameters)
        self.step, self.rows, self.burst = 0, list[Row](), None
        self.best, self.best_valid, self.best_step = parameters, math.inf, 0

    @property
    def done(self) -> bool:
        return self.burst is not None or self.step >= self.settings.iters

    def chosen(self, step: int) -> list[int]:
        """The clips of a step: each once in turn, in an order of its own in every turn."""
        size = min(self.settings.batch_size, self.clips)
        first = step * size
        order: list[int] = []
        while len(order) < size:
            turn, place = divmod(first + len(order), self.clips)
            drawn = random.Random(f"{self.settings.seed}/{turn}").sample(range(self.clips), self.clips)
            order += drawn[place : place + size - len(order)]
        return order

    def __iter__(self) -> Iterator[Row]:
        while not self.done:
            row = Row(self.step, self.settings.rate(self.step))
            if self.step % self.settings.steps_per_eval == 0:
                row.valid = self._hold_out()
            seed = (self.settings.seed * 1_000_003 + self.step) % 2**32
            (loss, figures), gradients = self._gradient(self.parameters, self.chosen(self.step), seed)
            self.optimizer.learning_rate = row.rate
            changed = self.optimizer.apply_gradients(gradients, self.parameters)
            mx.eval(loss, figures, changed, self.optimizer.state)
            row.figures = {name: float(value) for name, value in {"loss": loss, **figures}.items()}
            if not math.isfinite(row.figures["loss"]) or not _finite(changed):
                self.burst = self.step
                row.figures = {}
                self.rows.append(row)
                yield row
                return
            self.parameters = changed
            self.step += 1
            self.rows.append(row)
            yield row
        if self.burst is None and (not self.rows or self.rows[-1].step < self.settings.iters):
            last = Row(self.step, 0.0, valid=self._hold_out())
            self.rows.append(last)
            yield last

    def _hold_out(self) -> float:
        """The held-out loss of the parameters as they are, kept where it is the least."""
        loss = self.evaluate(self.parameters)
        if self.step > 0 and loss < self.best_valid:  # which NaN is not
            self.best, self.best_valid, self.best_step = self.parameters, loss, self.step
        return loss

    # To go on in another process

    @property
    def state(self) -> tuple[dict[str, mx.array], dict[str, Any]]:
        """(arrays by name, what JSON holds) of all that the next step depends on."""
        moments = {name: value for name, value in self.optimizer.state.items() if name not in COUNTERS}
        trees = {"parameters": self.parameters, "best": self.best, "moments": moments}
        arrays: dict[str, mx.array] = dict(tree_flatten(trees))  # pyright: ignore[reportAssignmentType]
        rows = [[row.step, row.rate, row.figures, row.valid] for row in self.rows]
        best = None if math.isinf(self.best_valid) else self.best_valid
        return arrays, {"step": self.step, "best_valid": best, "best_step": self.best_step, "rows": rows}

    def restore(self, arrays: dict[str, mx.array], values: dict[str, Any]) -> None:
        """Go on from a `state`; ValueError or KeyError for one of other parameters."""
        trees: Any = tree_unflatten(list(arrays.items()))
        shapes = tree_map(lambda array: array.shape, self.parameters)
        for name in ("parameters", "best"):
            if tree_map(lambda array: array.shape, trees[name]) != shapes:
                raise ValueError(f"{name} have other shapes")
        self.parameters, self.best = trees["parameters"], trees["best"]
        self.step, self.best_step = int(values["step"]), int(values["best_step"])
        self.optimizer.state.update(trees["moments"], step=mx.array(self.step, mx.uint64))
        self.best_valid = math.inf if values["best_valid"] is None else float(values["best_valid"])
        self.rows = [Row(int(step), rate, figures, valid) for step, rate, figures, valid in values["rows"]]
        mx.eval(self.parameters, self.best, self.optimizer.state)


def _finite(parameters: Parameters) -> bool:
    arrays: list[tuple[str, mx.array]] = tree_flatten(parameters)  # pyright: ignore[reportAssignmentType]
    return all(bool(mx.isfinite(array).all().item()) for _, array in arrays)
