"""Searching a library: exact, the k best of all its voices in one product."""

from pathlib import Path

import mlx.core as mx
import numpy as np

from ...audio.writing import FORMATS
from ...errors import InvalidValue, WrongType
from ..algebra import as_vectors, units
from ..lookup import Lookup, Offset
from ..voice import differ
from .names import composed


class Searcher:
    """The voices of an Index, laid out for comparing; made anew when a file changes.

    space: function from a dimension to the VoiceSpace to compare in, or None for raw.
    """

    def __init__(self, index, space):
        self.index, self.space, self._compared = index, space, {}

    def comparable(self, dimension):
        """(names, unit vectors [N, D], VoiceSpace or None) of the voices of a dimension."""
        if dimension not in self._compared:
            space, matrix = self.space(dimension), self.index.matrices[dimension]
            matrix = matrix if space is None else space.comparable(matrix)
            rows = units(matrix)
            mx.eval(rows)
            names = sorted(name for name, entry in self.index.entries.items() if entry["dimension"] == dimension)
            self._compared[dimension] = names, rows, space
        return self._compared[dimension]

    def like(self, vector):
        """(names, similarities [N]) to a vector [D]."""
        names, rows, space = self._of(vector.shape[0])
        one = units(space.comparable(vector) if space else vector)
        # As a row times a matrix: the other way round MLX's own BLAS takes six times as long.
        return names, mx.clip((one[None] @ rows.T)[0], -1, 1)

    def along(self, step, direction):
        """(names, scores [N]) along an offset [D], in radii; where it is one Direction, from that one's centre."""
        names, _, space = self._of(step.shape[0])
        matrix = self.index.matrices[step.shape[0]]
        if direction is not None:
            return names, direction.score(matrix) * mx.sign(step @ direction.vector)
        mean, radius = (matrix.mean(axis=0), 1.0) if space is None else (space.mean, space.radius)
        return names, (matrix - mean) @ (step / mx.linalg.norm(step)) / radius

    def _of(self, dimension):
        if dimension not in self.index.matrices:
            one = min(self.index.entries)
            raise differ("the query", dimension, f"{one!r} in the library", self.index.entries[one]["dimension"])
        return self.comparable(dimension)


def search(library, searcher, query, k, where, lowest, embed):
    """What Library.search does."""
    if isinstance(k, bool) or not isinstance(k, int):
        raise WrongType(f"k must be an integer, not {k!r}")
    if where is not None and not isinstance(where, dict):
        raise WrongType(f"where must be a dict of attributes, not {where!r}")
    if k < 1:
        raise InvalidValue(f"k {k} is not 1 or more")
    entries = searcher.index.entries
    if not entries:
        raise InvalidValue(f"library {library.folder} has no voices")
    itself = composed(query) if isinstance(query, str) else None
    itself = itself if itself in entries else None
    names, scores = _scores(library, searcher, query, itself, embed)
    if where:
        rows = [i for i, name in enumerate(names) if name != itself and has(entries[name], where)]
    else:  # nothing is looked at voice by voice
        rows = range(len(names))
    if not rows or (itself and len(names) == 1):
        raise InvalidValue(f"library {library.folder} has no {'such' if where else 'other'} voice to compare with")
    if len(rows) < len(names):
        scores = scores[mx.array(rows)]
    best = top(-scores if lowest else scores, k + 1)  # itself may be among them
    found = [(names[rows[i]], score) for i, score in zip(best.tolist(), scores[best].tolist(), strict=True)]
    return [(name, score) for name, score in found if name != itself][:k]


def _scores(library, searcher, query, itself, embed):
    if isinstance(query, tuple) or (isinstance(query, str | Path) and Path(query).suffix.lower() in FORMATS):
        if embed is None:
            raise InvalidValue("a recording is searched for by its sound, which needs a Base model")
        query = embed(query)
    elif isinstance(query, str | Path):
        query = library[itself] if itself else Lookup(library).find(query)
        if isinstance(query, Offset):
            return searcher.along(query.step, query.direction)
    vector = as_vectors(query, "query")
    if vector.ndim != 1:
        raise InvalidValue(f"query has shape {list(vector.shape)}; expected one voice [D]")
    return searcher.like(vector)


def has(entry, where):
    """Whether an index's entry has all of {attribute: value}, or where the value is None, the attribute."""
    known = {**entry["metadata"], **entry["attributes"]}
    return all(key in known and (value is None or known[key] == value) for key, value in where.items())


def top(scores, k):
    """Indices of the k largest of scores [N], largest first; of equals, the first."""
    count = scores.shape[0]
    if k >= count:
        kept = np.arange(count)
    else:
        edge = scores[mx.argpartition(-scores, k - 1)[k - 1]]
        kept = np.flatnonzero(np.array(scores >= edge))
    order = np.argsort(-np.array(scores)[kept], kind="stable")[:k]
    return mx.array(kept[order])
