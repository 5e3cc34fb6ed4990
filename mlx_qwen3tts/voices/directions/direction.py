"""Directions in voice space: what leads from one label to another, learnt from a handful of labelled voices.

N voices, D dimension. A strength is counted in radii of the voice space, a voice's usual distance to the mean.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ... import checks
from ...errors import InvalidValue, WrongType
from ...files.json_text import json_text
from ...files.tensors import read_tensors, write_tensors
from ..algebra import as_numbers, as_vectors, move
from ..space import VoiceSpace
from ..voice import Voice, differ
from .fit import Labels, solve
from .report import Report, assess

KIND = "direction"
WORDS = ("method", "positive", "negative")


@dataclass(frozen=True, eq=False, repr=False)
class Direction:
    """vector [D] of unit length; centre [D], where the score is zero; mean [D] and radius of its voice space.

    method: one of METHODS; positive and negative: the labels on either side; report: Report of how far to trust it.
    """

    vector: mx.array
    centre: mx.array
    mean: mx.array
    radius: float
    method: str
    positive: str
    negative: str
    report: Report

    def __post_init__(self) -> None:
        mx.eval(self.vector, self.centre, self.mean)  # so that any thread can use them

    def __repr__(self) -> str:
        report, said = self.report, ""
        if report.correlation is not None:
            said = f", correlation {report.correlation:.2f}"
        elif report.right is not None:
            said = f", {report.right} of {report.scored} right"
        return f"Direction(from {self.negative} to {self.positive}, {self.dimension} dimensions{said})"

    @classmethod
    def fit(
        cls,
        X: mx.array | np.ndarray | Sequence[Voice],
        y: Sequence[Any] | np.ndarray | mx.array,
        space: VoiceSpace | None = None,
        method: str = "mean",
        top_k: int | None = None,
        groups: Sequence[Any] | np.ndarray | mx.array | None = None,
        *,
        positive: Any = None,
        names: Sequence[Any] | None = None,
    ) -> Direction:
        """Learn a direction from voices X [N, D] (or a list of Voices) and a label each.

        y: two different labels, or numbers for "correlation" and "ridge"; the larger label (the later one in the
        alphabet) is the positive side, or `positive`, against all the others. space: VoiceSpace whose centred,
        nuisance-free vectors are used (default: one fitted to X). groups: a label a voice, such as its speaker; the
        report leaves out a group at a time. names: of the voices, for the report.

        method: "mean", the difference of the labels' means (Marks & Tegmark 2023, "mass mean"); "correlation", every
        dimension weighted by its correlation with the label; "ridge", ridge regression, its strength chosen by
        leave-one-out error (Allen 1974, PRESS); "pca", the first principal component of the differences between the
        labels, within groups where there are any (Zou et al. 2023, "Representation Engineering"). top_k: keep only the
        k dimensions that correlate most with the label.
        """
        if names is None and isinstance(X, list | tuple):
            names = [getattr(voice, "name", None) or str(i) for i, voice in enumerate(X)]
        X = as_vectors(X, "voices", "X")
        if X.ndim != 2:
            raise InvalidValue(f"a direction is fitted to voices [N, D], not to shape {list(X.shape)}", param="X")
        labels = Labels.of(y, X.shape[0], positive, groups, names)
        space = VoiceSpace.fit(X) if space is None else space
        centred = space.centred(X)
        vector, centre = solve(centred, labels, method, top_k)
        report = assess(centred, labels, method, top_k, space.radius)
        centre = centre + space.mean
        return cls(vector, centre, space.mean, space.radius, method, labels.positive, labels.negative, report)

    @property
    def dimension(self) -> int:
        return self.vector.shape[0]

    def _check(self, x: Voice | mx.array | np.ndarray | Sequence[Any]) -> mx.array:
        return self.check(as_vectors(x, "voice", "x"))

    @property
    def step(self) -> mx.array:
        """One radius along it: the offset [D] of strength 1."""
        return self.vector * self.radius

    def score(self, x: Voice | mx.array | np.ndarray | Sequence[Any]) -> mx.array:
        """How far x [D] or [N, D] lies on the positive side, in radii; a scalar or [N]. Below 0: the negative side."""
        return (self._check(x) - self.centre) @ self.vector / self.radius

    def apply(
        self,
        x: Voice | mx.array | np.ndarray | Sequence[Any],
        strength: float | mx.array | np.ndarray,
        keep: str = "none",
    ) -> mx.array:
        """x [D] or [N, D] moved by `strength` radii, a number or [N]. keep: "none", "norm" or "radius"."""
        numbers = as_numbers(strength, "strength")
        return move(self._check(x), self.step, numbers, self if keep == "radius" else None, keep)

    def check(self, vectors: mx.array) -> mx.array:
        """With `mean`, what `move` asks of a space: VoiceError where vectors [..., D] are of another dimension."""
        if vectors.shape[-1] != self.dimension:
            raise differ("the voice", vectors.shape[-1], "the direction", self.dimension, "x")
        return vectors

    def cosine(self, other: Direction) -> float:
        """Cosine to another direction: how far the two mean the same."""
        if not isinstance(other, Direction):
            raise WrongType(f"a direction is compared with another, not with {other!r}", param="other")
        if other.dimension != self.dimension:
            raise differ("the other direction", other.dimension, "this one", self.dimension, "other")
        return float(self.vector @ other.vector)

    def orthogonal_to(self, other: Direction) -> Direction:
        """This direction without its part along another: moving along it leaves the other's score as it is.

        Its report tells what this direction was learnt from and has no figures: those that this one was measured to
        have are of another vector, and the voices to measure the new one on are not here.
        """
        rest = self.vector - self.cosine(other) * other.vector
        length = float(mx.linalg.norm(rest))
        if length < 1e-3:
            raise InvalidValue(
                "the two directions are the same, so nothing of one remains without the other", param="other"
            )
        return replace(self, vector=rest / length, report=self.report.without_figures(length))

    def save(self, path: Path | str) -> None:
        """Write a .safetensors file."""
        words = {name: getattr(self, name) for name in WORDS}
        report = json_text(asdict(self.report), null=True)
        metadata = {"kind": KIND, "radius": repr(self.radius), "report": report, **words}
        write_tensors(path, {"direction": self.vector, "centre": self.centre, "mean": self.mean}, metadata)

    @classmethod
    def load(cls, path: Path | str) -> Direction:
        """Read what `save` wrote; InvalidValue for anything else."""
        arrays, metadata = read_tensors(path, "direction", {"direction": "D", "centre": "D", "mean": "D"})
        try:
            words = {name: metadata[name] for name in WORDS}
            report = Report(**json.loads(metadata["report"]))
            str(report)
            radius = checks.number(float(metadata["radius"]), "radius", above=0)
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidValue(f"direction {path}: its metadata are not those of a direction ({error})") from None
        return cls(arrays["direction"], arrays["centre"], arrays["mean"], radius, **words, report=report)
