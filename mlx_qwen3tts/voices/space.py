"""The space that voices live in: their shared mean, how far they lie from it, and what to ignore in comparing them."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import mlx.core as mx
import numpy as np

from ..errors import InvalidValue, WrongType
from ..files.json_text import json_text
from ..files.tensors import read_tensors, write_tensors
from .algebra import VoicesLike, as_vectors, units
from .voice import differ

FEWEST = 10  # with n voices the mean is off by radius / √n: by a third of what is to be measured at ten
KIND = "voice_space"

Labels: TypeAlias = Sequence[Hashable] | np.ndarray | mx.array  # one of each voice
Label = TypeVar("Label", bound=Hashable)


def cosine(a: mx.array, b: mx.array) -> mx.array:
    """Cosines of a [..., D] with b [..., D]: the axes of a, then those of b."""
    one, two = units(a), units(b)
    return mx.clip(one @ (two.T if two.ndim > 1 else two), -1, 1)


@dataclass(eq=False)
class VoiceSpace:
    """mean [D]; radius, the mean distance to it; spread, the standard deviation of those distances; count of voices.

    nuisance: orthonormal rows [K, D] that `similarity` ignores, or None; source: what it was fitted to. Its arrays are
    evaluated, so any thread can use them.
    """

    mean: mx.array
    radius: float
    spread: float
    count: int
    nuisance: mx.array | None = None
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mx.eval(self.mean, self.nuisance)

    @classmethod
    def fit(
        cls, X: VoicesLike, nuisance: Labels | None = None, groups: Labels | None = None, source: str = ""
    ) -> VoiceSpace:
        """Fit a space to voices X [N, D] (or a list of Voices), N ≥ 2.

        nuisance: a label a row, such as its emotion. The subspace that the labels' means span is ignored when voices
        are compared (Solomonoff et al., "Advances in channel compensation for SVM speaker recognition", 2005: nuisance
        attribute projection). groups: a label a row, such as its speaker, whose mean is taken off first, so that labels
        which some speakers lack do not take their identity along. source: a word on where the voices come from.
        """
        X = as_vectors(X, "voices", "X")
        if X.ndim != 2 or X.shape[0] < 2:
            raise InvalidValue(
                f"a voice space is fitted to two voices or more, not to shape {list(X.shape)}", param="X"
            )
        count = X.shape[0]
        mean = X.mean(axis=0)
        distances = mx.linalg.norm(X - mean, axis=1)
        radius = float(distances.mean())
        if radius <= 1e-6 * float(mx.linalg.norm(mean)):
            raise InvalidValue("all voices are the same: there is no space to fit", param="X")
        grouped = None if groups is None else check_labels(groups, count, "groups")
        basis, counts = None, None
        if nuisance is not None:
            labels = check_labels(nuisance, count, "nuisance")
            basis = nuisance_basis(X, labels, grouped)
            counts = dict(Counter(map(str, labels)))
        told = {"voices": count, "from": source, "nuisance": counts, "groups": grouped and len(set(grouped))}
        origin = {key: value for key, value in told.items() if value}
        return cls(mean, radius, float(mx.std(distances)), count, basis, origin)

    @property
    def dimension(self) -> int:
        return self.mean.shape[0]

    @property
    def enough(self) -> bool:
        """Whether it was fitted to enough voices to centre on their mean."""
        return self.count >= FEWEST

    def check(self, vectors: mx.array, param: str | None = None) -> mx.array:
        """The vectors [..., D]; VoiceError, with `param` as the argument at fault, for another dimension."""
        if vectors.shape[-1] != self.dimension:
            raise differ("the voice", vectors.shape[-1], "the voice space", self.dimension, param)
        return vectors

    def centred(self, x: VoicesLike) -> mx.array:
        """x [D] or [N, D] less the mean and, where there is one, the nuisance subspace."""
        x = self.check(as_vectors(x, "voice", "x"), "x") - self.mean
        return x if self.nuisance is None else x - (x @ self.nuisance.T) @ self.nuisance

    def comparable(self, x: VoicesLike) -> mx.array:
        """x as `similarity` compares it: centred; raw, with a warning, where the voices were too few to fit a mean."""
        if self.enough:
            return self.centred(x)
        warn_raw(f"the voice space was fitted to {self.count} voices, {FEWEST} are needed")
        return self.check(as_vectors(x, "voice", "x"), "x")

    def similarity(self, a: VoicesLike, b: VoicesLike) -> mx.array:
        """Cosine of centred, nuisance-free vectors: a [D] or [N, D], b [D] or [M, D] to a scalar, [N], [M] or [N, M].

        Raw, with a warning, where the space was fitted to fewer than FEWEST voices.
        """
        a, b = as_vectors(a, "first voice", "a"), as_vectors(b, "second voice", "b")
        return cosine(self.comparable(a), self.check(b) if not self.enough else self.centred(b))

    def save(self, path: Path | str) -> None:
        """Write a .safetensors file."""
        tensors = {"mean": self.mean}
        if self.nuisance is not None:
            tensors["nuisance"] = self.nuisance
        numbers = {"radius": repr(self.radius), "spread": repr(self.spread), "count": str(self.count)}
        write_tensors(path, tensors, {"kind": KIND, "source": json_text(self.source), **numbers})

    @classmethod
    def load(cls, path: Path | str) -> VoiceSpace:
        """Read what `save` wrote; InvalidValue for anything else."""
        arrays, metadata = read_tensors(path, "voice space", {"mean": "D", "nuisance": "KD"}, optional=("nuisance",))
        try:
            numbers = float(metadata["radius"]), float(metadata["spread"]), int(metadata["count"])
            source = json.loads(metadata["source"])
            if not 0 < numbers[0] < math.inf:
                raise InvalidValue(f"radius {numbers[0]} is not above 0")
        # A missing string, one that is not a number or not JSON, or JSON without end.
        except (KeyError, ValueError, RecursionError) as error:
            raise InvalidValue(f"voice space {path}: its metadata are not those of a voice space ({error})") from None
        return cls(arrays["mean"], *numbers, arrays.get("nuisance"), source)


def warn_raw(reason: str, among: float | None = None) -> None:
    """Say that similarities are raw cosines, and why. among: the mean cosine of the voices compared with, if known."""
    usual = "which lie close to 1 for any two voices of a published model (0.94 on average)"
    if among is not None:
        usual = f"which average {among:.2f} among these voices, so compare the scores with that"
    warnings.warn(f"{reason}: similarities are raw cosines, {usual}", stacklevel=4)


def mean_cosine(X: mx.array) -> float | None:
    """The mean raw cosine of two different voices of X [N, D], or None for a single one."""
    count = X.shape[0]
    if count < 2:
        return None
    total = float(mx.square(units(X).sum(axis=0)).sum())  # over all pairs, each voice with itself too
    return (total - count) / (count * (count - 1))


def similarity(a: VoicesLike, b: VoicesLike, space: VoiceSpace | None = None) -> mx.array:
    """`space.similarity`, or without a space the raw cosine, with a warning."""
    if space is not None:
        return space.similarity(a, b)
    warn_raw("no voice space is given")
    return cosine(as_vectors(a, "first voice", "a"), as_vectors(b, "second voice", "b"))


def check_labels(labels: Labels, count: int, name: str) -> list[Any]:
    """The labels as a list of `count`, or an error."""
    if isinstance(labels, str) or not hasattr(labels, "__len__"):
        raise WrongType(f"{name} must be a list with one label for each voice, not {labels!r}", param=name)
    if len(labels) != count:
        raise InvalidValue(f"{name} has {len(labels)} labels for {count} voices", param=name)
    listed = list(labels) if isinstance(labels, Sequence) else list(np.array(labels).tolist())
    for label in listed:
        if not isinstance(label, Hashable):
            raise WrongType(f"{name}: {label!r} is not a label", param=name)
    return listed


def indices(labels: Sequence[Label]) -> dict[Label, mx.array]:
    """{label: mx.array of the rows that have it}, sorted by label."""
    rows: dict[Label, list[int]] = {}
    for i, label in enumerate(labels):
        rows.setdefault(label, []).append(i)
    return {label: mx.array(rows[label]) for label in sorted(rows, key=str)}


def nuisance_basis(X: mx.array, labels: Sequence[Hashable], groups: Sequence[Hashable] | None = None) -> mx.array:
    """Orthonormal rows [K, D] of the span of the labels' means about their mean, K one less than there are labels."""
    if groups is not None:
        means = {group: X[rows].mean(axis=0) for group, rows in indices(groups).items()}
        X = X - mx.stack([means[group] for group in groups])
    means = mx.stack([X[rows].mean(axis=0) for rows in indices(labels).values()])
    if means.shape[0] < 2:
        raise InvalidValue(
            f"nuisance has only one label, {labels[0]!r}, so there is nothing to ignore", param="nuisance"
        )
    _, sizes, rows = mx.linalg.svd(means - means.mean(axis=0), stream=mx.cpu)
    kept = int((sizes > 1e-5 * sizes[0]).sum())
    if float(sizes[0]) == 0:
        raise InvalidValue(
            "the voices of all nuisance labels have the same mean, so there is nothing to ignore",
            param="nuisance",
        )
    return rows[:kept]
