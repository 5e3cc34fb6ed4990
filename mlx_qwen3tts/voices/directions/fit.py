"""From labelled voices to a direction: difference of means, correlated dimensions, ridge, PCA of differences.

N voices, D dimension, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import mlx.core as mx
import numpy as np

from ... import checks
from ...errors import InvalidValue, listed
from ..space import check_labels, indices

METHODS = ("mean", "correlation", "ridge", "pca")
RIDGES = tuple(10.0**power for power in range(-3, 4))  # strengths to choose from, in mean squared lengths of a voice
LARGEST = float(np.finfo(np.float32).max)  # of a label; an integer may have any number of digits


@dataclass(frozen=True, eq=False)
class Labels:
    """y [N] float32, ±1 for two labels or numbers; positive and negative: what the sides are called.

    groups: [N] of any label, or None; names: [N] strings for reports.
    """

    y: np.ndarray
    numeric: bool
    positive: str
    negative: str
    groups: list[Any] | None
    names: list[str]

    @classmethod
    def of(
        cls,
        y: Sequence[Any] | np.ndarray | mx.array,
        count: int,
        positive: Any = None,
        groups: Sequence[Any] | np.ndarray | mx.array | None = None,
        names: Sequence[Any] | None = None,
    ) -> Labels:
        """Labels as users give them; InvalidValue where they are not two labels or numbers."""
        values = check_labels(y, count, "labels")
        groups = None if groups is None else check_labels(groups, count, "groups")
        names = (
            [str(i) for i in range(count)] if names is None else [str(n) for n in check_labels(names, count, "names")]
        )
        numbers = all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
        if numbers and not all(-LARGEST <= value <= LARGEST for value in values):  # which NaN is not
            raise InvalidValue("the labels have values that are NaN or infinite", param="y")
        kinds = sorted(set(values), key=None if numbers else str)
        if len(kinds) < 2:
            same = f"all voices have the same label {kinds[0]!r}; two are needed"
            raise InvalidValue(same if kinds else "there are no labels", param="y")
        if positive is None and numbers and len(kinds) > 2:
            return cls(np.array(values, np.float32), True, "more", "less", groups, names)
        if positive is None and len(kinds) > 2:
            said = f"there are {len(kinds)} labels, {_listed(kinds)}; say which one is the positive side"
            raise InvalidValue(said, param="positive")
        if positive is not None and positive not in kinds:
            raise InvalidValue(f"no voice has the label {positive!r}, only {_listed(kinds)}", param="positive")
        chosen = kinds[-1] if positive is None else positive
        others = [str(kind) for kind in kinds if kind != chosen]
        negative = others[0] if len(others) == 1 else f"not {chosen}"
        y = np.array([1.0 if value == chosen else -1.0 for value in values], np.float32)
        return cls(y, False, str(chosen), negative, groups, names)

    def take(self, rows: Sequence[int]) -> Labels:
        """The labels of some voices."""
        groups = None if self.groups is None else [self.groups[i] for i in rows]
        return replace(self, y=self.y[list(rows)], groups=groups, names=[self.names[i] for i in rows])

    @property
    def usable(self) -> bool:
        """Whether the labels differ, so that a direction can be learnt from them."""
        return len(set(self.y.tolist())) > 1


def _listed(kinds: list[Any]) -> str:
    return listed([str(kind) for kind in kinds], 8)


def solve(X: mx.array, labels: Labels, method: str, top_k: int | None = None) -> tuple[mx.array, mx.array]:
    """(unit vector [D], centre [D] where the score is zero) for centred voices X [N, D]."""
    checks.word(method, "method", METHODS)
    if labels.numeric and method in ("mean", "pca"):
        said = f"method {method!r} needs two labels; for numbers take 'ridge' or 'correlation'"
        raise InvalidValue(said, param="method")
    if top_k is not None:
        checks.whole(top_k, "top_k", 1, X.shape[1])
    y = mx.array(labels.y)
    if labels.numeric:
        centre = X.mean(axis=0)
        vector = correlations(X, y) if method == "correlation" else ridge(X, y)
    else:
        high, low = (X[mx.array(np.flatnonzero(labels.y == side))].mean(axis=0) for side in (1, -1))
        centre = (high + low) / 2
        vector = _between(X, y, labels, method, high - low)
    if top_k is not None:
        strength = mx.abs(correlations(X, y))
        vector = mx.where(strength >= mx.sort(strength)[-top_k], vector, 0.0)
    length = float(mx.linalg.norm(vector))
    if not 1e-6 * float(mx.linalg.norm(X, axis=1).mean()) <= length < math.inf:
        raise InvalidValue("the voices of the two sides do not differ: there is no direction between them")
    return vector / length, centre


def _between(X: mx.array, y: mx.array, labels: Labels, method: str, apart: mx.array) -> mx.array:
    """What leads [D] from one of two labels to the other; apart: the difference of their means."""
    if method == "mean":
        return apart
    if method == "correlation":
        return correlations(X, y)
    if method == "ridge":
        return ridge(X, y)
    vector = first_component(differences(X, labels))
    return vector * mx.sign(vector @ apart)


def correlations(X: mx.array, y: mx.array) -> mx.array:
    """Pearson's correlation of every dimension of X [N, D] with y [N]: [D], 0 where a dimension does not vary."""
    X, y = X - X.mean(axis=0), y - y.mean()
    scale = mx.linalg.norm(X, axis=0) * mx.linalg.norm(y)
    return mx.where(scale > 0, (y @ X) / mx.maximum(scale, mx.array(1e-20)), 0.0)


def principal(X: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """(coordinates [N, R], axes [D, R], squared lengths [R]), X = coordinates · axesᵀ, by the smaller Gram matrix."""
    rows = X.shape[0] <= X.shape[1]
    squares, vectors = mx.linalg.eigh(X @ X.T if rows else X.T @ X, stream=mx.cpu)
    kept = int((squares > 1e-6 * squares[-1]).sum())
    if kept == 0:
        raise InvalidValue("the voices do not differ: there is no direction between them")
    squares, vectors = squares[-kept:], vectors[:, -kept:]
    if not rows:
        return X @ vectors, vectors, squares
    lengths = mx.sqrt(squares)
    return vectors * lengths, X.T @ (vectors / lengths), squares


def ridge(X: mx.array, y: mx.array) -> mx.array:
    """Coefficients [D] of ridge regression of y on X with an intercept, its strength chosen by leave-one-out error."""
    X, y = X - X.mean(axis=0), y - y.mean()
    coordinates, axes, squares = principal(X)
    count = X.shape[0]
    least, best = math.inf, mx.zeros(X.shape[1])
    for strength in RIDGES:
        shrunk = 1 / (squares + strength * squares.sum() / count)
        fitted = coordinates @ (shrunk * (y @ coordinates))
        leverage = 1 / count + mx.square(coordinates) @ shrunk  # the intercept has 1 / count of its own
        error = float(mx.square((y - fitted) / mx.maximum(1 - leverage, mx.array(1e-3))).mean())
        if error < least:
            least, best = error, axes @ (shrunk * (y @ coordinates))
    return best


def differences(X: mx.array, labels: Labels) -> mx.array:
    """Rows [M, D]: every voice less the other label's mean, within its group where that has both labels."""
    everyone = indices(labels.groups) if labels.groups is not None else {}
    rows = []
    for members in everyone.values():
        rows += _differences(X, labels.y, np.array(members).tolist())
    return mx.stack(rows or _differences(X, labels.y, range(X.shape[0])))


def _differences(X: mx.array, y: np.ndarray, rows: Iterable[int]) -> list[mx.array]:
    rows = list(rows)
    high, low = ([i for i in rows if y[i] == side] for side in (1, -1))
    if not high or not low:
        return []
    means = X[mx.array(high)].mean(axis=0), X[mx.array(low)].mean(axis=0)
    return [*(X[mx.array(high)] - means[1]), *(means[0] - X[mx.array(low)])]


def first_component(rows: mx.array) -> mx.array:
    """The unit vector [D] with the largest sum of squared products with rows [M, D]."""
    return principal(rows)[1][:, -1]
