"""Searching a library: exact, the k best of all its voices in one product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import mlx.core as mx
import numpy as np

from ...audio.writing import FORMATS
from ...checks import whole
from ...errors import InvalidValue, UnsupportedValue
from ..algebra import VoiceLike, as_vectors, units
from ..directions.direction import Direction
from ..lookup import Lookup, Offset
from ..space import VoiceSpace
from ..voice import SUFFIXES, differ
from .names import composed
from .snapshot import Snapshot, check_where, has
from .words import sides, together, unknown, words_in

if TYPE_CHECKING:
    from .library import Library

Recording: TypeAlias = tuple[np.ndarray | mx.array, int]  # samples and their rate
Query: TypeAlias = VoiceLike | str | Path | Recording
Embed: TypeAlias = Callable[[Any], mx.array]  # from a path or Recording to a vector, such as Qwen3TTS.embed


class Searcher:
    """The voices of a Snapshot, laid out for comparing.

    space: function from a dimension to the VoiceSpace to compare in, or None for raw.
    """

    def __init__(self, snapshot: Snapshot, space: Callable[[int], VoiceSpace | None]) -> None:
        self.snapshot, self.space = snapshot, space
        self._compared: dict[int, tuple[list[str], mx.array, VoiceSpace | None]] = {}

    def comparable(self, dimension: int) -> tuple[list[str], mx.array, VoiceSpace | None]:
        """(names, unit vectors [N, D], VoiceSpace or None) of the voices of a dimension."""
        if dimension not in self._compared:
            space, matrix = self.space(dimension), self.snapshot.matrices[dimension]
            matrix = matrix if space is None else space.comparable(matrix)
            rows = units(matrix)
            mx.eval(rows)
            names = sorted(name for name, entry in self.snapshot.entries.items() if entry["dimension"] == dimension)
            self._compared[dimension] = names, rows, space
        return self._compared[dimension]

    def like(self, vector: mx.array) -> tuple[list[str], mx.array]:
        """(names, similarities [N]) to a vector [D]."""
        names, rows, space = self.among(vector.shape[0])
        one = units(space.comparable(vector) if space else vector)
        # As a row times a matrix: the other way round MLX's own BLAS takes six times as long.
        return names, mx.clip((one[None] @ rows.T)[0], -1, 1)

    def along(self, step: mx.array, direction: Direction | None) -> tuple[list[str], mx.array]:
        """(names, scores [N]) along an offset [D], in radii; where it is one Direction, from the centre of that."""
        names, _, space = self.among(step.shape[0])
        matrix = self.snapshot.matrices[step.shape[0]]
        if direction is not None:
            return names, direction.score(matrix) * mx.sign(step @ direction.vector)
        mean, radius = (matrix.mean(axis=0), 1.0) if space is None else (space.mean, space.radius)
        return names, (matrix - mean) @ (step / mx.linalg.norm(step)) / radius

    def among(self, dimension: int) -> tuple[list[str], mx.array, VoiceSpace | None]:
        """`comparable`, or VoiceError where the library has no voices of this dimension."""
        if dimension not in self.snapshot.matrices:
            one = min(self.snapshot.entries)
            raise differ("the query", dimension, f"{one!r} in the library", self.snapshot.entries[one]["dimension"])
        return self.comparable(dimension)


def search(
    library: Library,
    searcher: Searcher,
    query: Query,
    k: int,
    where: Mapping[str, str | None] | None,
    lowest: bool,
    embed: Embed | None,
) -> list[tuple[str, float]]:
    """What Library.search does."""
    k = whole(k, "k", least=1)
    if where is not None:
        check_where(where)
    entries = searcher.snapshot.entries
    if not entries:
        raise InvalidValue(f"library {library.folder} has no voices")
    itself = composed(query) if isinstance(query, str) else None
    itself = itself if itself in entries else None
    names, scores = _scores(library, searcher, query, itself, embed)
    rows: list[int] | range = range(len(names))  # nothing is looked at voice by voice
    if where:
        rows = [i for i, name in enumerate(names) if name != itself and has(entries[name], where)]
    if not rows or (itself and len(names) == 1):
        raise InvalidValue(f"library {library.folder} has no {'such' if where else 'other'} voice to compare with")
    if len(rows) < len(names):
        scores = scores[mx.array(list(rows))]
    best = top(-scores if lowest else scores, k + 1)  # itself may be among them
    chosen, values = np.array(best).tolist(), np.array(scores[best]).tolist()
    found = [(names[rows[i]], score) for i, score in zip(chosen, values, strict=True)]
    return [(name, score) for name, score in found if name != itself][:k]


def _scores(
    library: Library, searcher: Searcher, query: Query, itself: str | None, embed: Embed | None
) -> tuple[list[str], mx.array]:
    sound = isinstance(query, tuple) or (isinstance(query, str | Path) and Path(query).suffix.lower() in FORMATS)
    if sound and embed is None:
        raise UnsupportedValue("a recording is searched for by its sound, which needs a Base model", param="query")
    if sound and embed is not None:
        vector = as_vectors(embed(query), "query")
    elif isinstance(query, str) and not itself and (scores := _by_words(library, searcher, query)):
        return scores
    elif isinstance(query, str | Path):
        found = searcher.snapshot.vector(itself) if itself else Lookup(library).find(query)
        if isinstance(found, Offset):
            return searcher.along(found.step, found.direction)
        vector = as_vectors(found, "query")
    else:
        vector = as_vectors(query, "query")  # pyright: ignore[reportArgumentType] a tuple is a Recording, see above
    if vector.ndim != 1:
        raise InvalidValue(f"query has shape {list(vector.shape)}; expected one voice [D]", param="query")
    return searcher.like(vector)


def _by_words(library: Library, searcher: Searcher, query: str) -> tuple[list[str], mx.array] | None:
    """(names, scores [N]) by words that stand for sides of directions, or None where the query is something else: a
    file, or a single name that is not such a word."""
    words, lookup = words_in(query), Lookup(library)
    if not words or lookup.named(query) is not None:
        return None
    known = sides(library)
    if any(word not in known for word in words):
        one = len(words) == 1 and (not known or Path(query).suffix in SUFFIXES)
        if one or any(lookup.named(word.strip()) is not None for word in query.split(",")):
            return None
        raise unknown(words, known, library)
    names, _, _ = searcher.among(known[words[0]].direction.dimension)
    return names, together(words, known, searcher.snapshot.matrices[known[words[0]].direction.dimension])


def top(scores: mx.array, k: int) -> mx.array:
    """Indices of the k largest of scores [N], largest first; of equals, the first."""
    count = scores.shape[0]
    if k >= count:
        kept = np.arange(count)
    else:
        edge = scores[mx.argpartition(-scores, k - 1)[k - 1]]
        kept = np.flatnonzero(np.array(scores >= edge))
    order = np.argsort(-np.array(scores)[kept], kind="stable")[:k]
    return mx.array(kept[order])
