"""Directions in voice space: what leads from one label to another, learnt from a handful of labelled voices.

N voices, D dimension. A strength is counted in radii of the voice space, a voice's usual distance to the mean.
"""

import json
from dataclasses import asdict, dataclass, replace

import mlx.core as mx

from ...errors import InvalidValue, WrongType
from ...files.tensors import read_tensors, write_tensors
from ..algebra import as_numbers, as_vectors, check_number, move
from ..space import VoiceSpace
from ..voice import differ
from .fit import Labels, solve
from .report import Report, assess

KIND = "direction"
BEFORE = "these are the figures of the direction before its part along another was taken out"


@dataclass
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

    @classmethod
    def fit(cls, X, y, space=None, method="mean", top_k=None, groups=None, *, positive=None, names=None):
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
        X = as_vectors(X, "voices")
        if X.ndim != 2:
            raise InvalidValue(f"a direction is fitted to voices [N, D], not to shape {list(X.shape)}")
        labels = Labels.of(y, X.shape[0], positive, groups, names)
        space = VoiceSpace.fit(X) if space is None else space
        centred = space.centred(X)
        vector, centre = solve(centred, labels, method, top_k)
        report = assess(centred, labels, method, top_k, space.radius)
        own = {"method": method, "positive": labels.positive, "negative": labels.negative, "report": report}
        return cls(vector, centre + space.mean, space.mean, space.radius, **own)

    @property
    def dimension(self):
        return self.vector.shape[0]

    def _check(self, x):
        return self.check(as_vectors(x, "voice"))

    @property
    def step(self):
        """One radius along it: the offset [D] of strength 1."""
        return self.vector * self.radius

    def score(self, x):
        """How far x [D] or [N, D] lies on the positive side, in radii; a scalar or [N]. Below 0: the negative side."""
        return (self._check(x) - self.centre) @ self.vector / self.radius

    def apply(self, x, strength, keep="none"):
        """x [D] or [N, D] moved by `strength` radii, a number or [N]. keep: "none", "norm" or "radius"."""
        numbers = as_numbers(strength, "strength")
        return move(self._check(x), self.step, numbers, self if keep == "radius" else None, keep)

    def check(self, vectors):
        """With `mean`, what `move` asks of a space: ValueError where vectors [..., D] are of another dimension."""
        if vectors.shape[-1] != self.dimension:
            raise differ("the voice", vectors.shape[-1], "the direction", self.dimension)
        return vectors

    def cosine(self, other):
        """Cosine to another direction: how far the two mean the same."""
        if not isinstance(other, Direction):
            raise WrongType(f"a direction is compared with another, not with {other!r}")
        if other.dimension != self.dimension:
            raise differ("the other direction", other.dimension, "this one", self.dimension)
        return (self.vector @ other.vector).item()

    def orthogonal_to(self, other):
        """This direction without its part along another: moving along it leaves the other's score as it is.

        Its report is the one of this direction and says so: what is left has not been tried on its own.
        """
        rest = self.vector - self.cosine(other) * other.vector
        length = mx.linalg.norm(rest).item()
        if length < 1e-3:
            raise InvalidValue("the two directions are the same: nothing is left of one without the other")
        told = replace(self.report, warnings=[*self.report.warnings, BEFORE])
        return replace(self, vector=rest / length, report=told)

    def save(self, path):
        """Write a .safetensors file."""
        words = {name: getattr(self, name) for name in ("method", "positive", "negative")}
        metadata = {"kind": KIND, "radius": repr(self.radius), "report": json.dumps(asdict(self.report)), **words}
        write_tensors(path, {"direction": self.vector, "centre": self.centre, "mean": self.mean}, metadata)

    @classmethod
    def load(cls, path):
        """Read what `save` wrote; ValueError for anything else."""
        arrays, metadata = read_tensors(path, "direction", {"direction": "D", "centre": "D", "mean": "D"})
        try:
            words = {name: metadata[name] for name in ("method", "positive", "negative")}
            report = Report(**json.loads(metadata["report"]))
            str(report)
            radius = check_number(float(metadata["radius"]), "radius")
            if radius <= 0:
                raise InvalidValue(f"radius {radius} is not above 0")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InvalidValue(f"direction {path}: its metadata are not those of a direction ({error})") from None
        return cls(arrays["direction"], arrays["centre"], arrays["mean"], radius, **words, report=report)
