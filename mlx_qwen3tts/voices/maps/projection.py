"""Maps of voices: vectors in two dimensions, their first two principal components or two scores.

N: voices; D: dimension of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ...errors import InvalidValue, WrongType

THIN = 1e-6  # share of the first component's variance below which the second is rounding


@dataclass(frozen=True)
class Projection:
    """points [N, 2] float32; labels of the two axes; shares of the variance that they carry, None for scores."""

    points: mx.array
    labels: tuple[str, str]
    shares: tuple[float, float] | None = None

    @property
    def equal(self) -> bool:
        """Whether both axes have one unit, so that distances on the map mean something."""
        return self.shares is not None


def project(X: mx.array, axes: dict[str, mx.array] | None = None) -> Projection:
    """Two numbers for each row of X [N, D]: its first two principal components, or two scores.

    axes: {name: scores [N]} of exactly two axes, such as {"@gender": ..., "@pitch": ...}. Components are signed so
    that their largest loading is positive. Raises InvalidValue for NaN and wrong shapes.
    """
    if not isinstance(X, mx.array):
        raise WrongType(f"voices to map must be an mx.array [N, D], not {type(X).__name__}", param="X")
    if X.ndim != 2 or X.size == 0 or not mx.issubdtype(X.dtype, mx.floating):
        raise InvalidValue(
            f"voices to map have shape {list(X.shape)} and dtype {X.dtype}; expected floats [N, D]", param="X"
        )
    finite = np.array(mx.isfinite(X).all(axis=1))
    if not finite.all():
        raise InvalidValue(f"voice {finite.argmin()} of the map has values that are NaN or infinite", param="X")
    if axes is not None:
        return _scored(X.shape[0], axes)
    points, shares = principal(np.array(X.astype(mx.float32)))
    one, two = (f"component {i + 1} ({100 * share:.0f} % of the variance)" for i, share in enumerate(shares))
    return Projection(mx.array(points), (one, two), shares)


def _scored(count: int, axes: dict[str, mx.array]) -> Projection:
    if not isinstance(axes, dict):
        raise WrongType(
            f"the axes of a map are a dict of two names with scores, not {type(axes).__name__}", param="axes"
        )
    if len(axes) != 2:
        raise InvalidValue(f"a map has two axes, not {len(axes)}", param="axes")
    columns = []
    for name, scores in axes.items():
        scores = mx.array(scores).astype(mx.float32)
        if scores.shape != (count,):
            raise InvalidValue(
                f"axis {name!r} has scores of shape {list(scores.shape)} for {count} voices", param="axes"
            )
        if not mx.isfinite(scores).all().item():
            raise InvalidValue(f"axis {name!r} has scores that are NaN or infinite", param="axes")
        columns.append(scores)
    points = mx.stack(columns, axis=1)
    mx.eval(points)
    one, two = axes
    return Projection(points, (one, two))


def principal(X: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Points [N, 2] and shares of the variance of X [N, D] float32.

    A component thinner than a thousandth of the first, which is less than a pixel and drowns in rounding, is zero.
    """
    X = X - X[:1]  # equal rows become exact zeros
    X -= X.mean(axis=0, dtype=np.float64).astype(np.float32)
    unit = np.abs(X).max()
    points, squares = np.zeros((len(X), 2), np.float32), np.zeros(2)
    if unit == 0:
        return points, (0.0, 0.0)
    X /= unit  # so that no square overflows or vanishes
    loadings, sizes = _largest(X)
    loadings *= np.sign(loadings[np.arange(len(loadings)), np.abs(loadings).argmax(axis=1)])[:, None]
    thick = np.square(sizes) > THIN * sizes[0] ** 2
    loadings, sizes = loadings[thick], sizes[thick]
    points[:, : len(sizes)] = X @ loadings.T * unit
    squares[: len(sizes)] = np.square(sizes)
    one, two = np.minimum(squares / np.einsum("nd,nd->n", X, X).sum(dtype=np.float64), 1).tolist()
    return points, (one, two)


def _largest(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two largest singular values of X [N, D], fewer where it has fewer, and their loadings [2, D]."""
    if min(X.shape) < 3:  # too few for svds
        _, sizes, loadings = np.linalg.svd(X, full_matrices=False)
        return loadings[:2], sizes[:2]
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(0).standard_normal(min(X.shape), np.float32)
    # scipy has no types: what pyright knows of this argument is its default
    wanted: Any = "vh"
    _, sizes, loadings = svds(X, k=2, v0=start, return_singular_vectors=wanted)
    return loadings[::-1], sizes[::-1].astype(np.float64)
