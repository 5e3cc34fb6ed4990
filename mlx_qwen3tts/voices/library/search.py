"""Searching a library: exact, the k best of all its voices in one product; large packs by their index."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import mlx.core as mx
import numpy as np

from ...audio.formats import FORMATS
from ...checks import whole
from ...errors import InvalidValue, UnsupportedValue
from ..algebra import VoiceLike, as_vectors, units
from ..directions.direction import Direction
from ..lookup import Lookup, Offset
from ..space import VoiceSpace
from ..voice import SUFFIXES, differ
from .indexing import PackIndex, open_index
from .memory import check_room, room
from .names import composed
from .packs import Pack
from .snapshot import Snapshot, check_where, has
from .words import ranking, sides, unknown, words_in

if TYPE_CHECKING:
    from .library import Library

Recording: TypeAlias = tuple[np.ndarray | mx.array, int]  # samples and their rate
Query: TypeAlias = VoiceLike | str | Path | Recording
Embed: TypeAlias = Callable[[Any], mx.array]  # from a path or Recording to a vector, such as Qwen3TTS.embed
Found: TypeAlias = list[tuple[str, float]]  # names and scores

SAMPLE = 20_000  # voices that a space is fitted to, and that words are weighed by: all of a library without packs


@dataclass
class Asked:
    """What a query means: a vector [D] to be like, or a score [n] of vectors [n, D]."""

    dimension: int
    like: mx.array | None = None
    score: Callable[[mx.array], mx.array] | None = None


class Searcher:
    """The voices of a Snapshot, laid out for comparing.

    space: function from a dimension to the VoiceSpace to compare in, or None for raw.
    """

    def __init__(self, snapshot: Snapshot, space: Callable[[int], VoiceSpace | None]) -> None:
        self.snapshot, self.space = snapshot, space
        self._compared: dict[int, tuple[list[str], mx.array | None, VoiceSpace | None]] = {}
        self._units: dict[str, list[mx.array]] = {}
        self._indices: dict[str, PackIndex] = {}

    def comparable(self, dimension: int) -> tuple[list[str], mx.array | None, VoiceSpace | None]:
        """(names, unit vectors [N, D], VoiceSpace or None) of the voices of a dimension that have files of their own;
        no names and None where there are none."""
        if dimension not in self._compared:
            space, matrix = self.space(dimension), self.snapshot.matrices.get(dimension)
            rows = None if matrix is None else units(matrix if space is None else space.comparable(matrix))
            mx.eval(rows)
            names = sorted(name for name, entry in self.snapshot.entries.items() if entry["dimension"] == dimension)
            self._compared[dimension] = names, rows, space
        return self._compared[dimension]

    def among(self, dimension: int) -> tuple[list[str], mx.array | None, VoiceSpace | None]:
        """`comparable`, or VoiceError where the library has no voices of this dimension."""
        if dimension not in self.snapshot.dimensions:
            one, other = self.snapshot.first()
            raise differ("the query", dimension, f"{one!r} in the library", other)
        return self.comparable(dimension)

    def like(self, vector: mx.array) -> tuple[list[str], mx.array | None]:
        """(names, similarities [N]) to a vector [D] of the voices that have files of their own."""
        names, rows, space = self.among(vector.shape[0])
        return names, None if rows is None else _cosines(_unit(vector, space), rows)

    def along(self, step: mx.array, direction: Direction | None) -> Callable[[mx.array], mx.array]:
        """Function from vectors [n, D] to scores [n] along an offset [D], in radii; where it is one Direction, from the
        centre of that."""
        _, _, space = self.among(step.shape[0])
        if direction is not None:
            return lambda X: direction.score(X) * mx.sign(step @ direction.vector)
        mean, radius = (space.mean, space.radius) if space else (self.snapshot.sample(step.shape[0], SAMPLE).mean(0), 1)
        return lambda X: (X - mean) @ (step / mx.linalg.norm(step)) / radius

    # Packs

    def in_pack(self, pack: Pack, asked: Asked, k: int, lowest: bool) -> Generator[None, None, Found]:
        """Steps of some milliseconds that give the k best of a pack at their end. Those along a direction are found by
        reading it all; those like a voice in memory or, where the library's voices do not fit there, by its index.
        InvalidValue where there is no such index."""
        if asked.like is None:
            assert asked.score is not None
            scores = yield from _each(map(mx.array, pack.blocks()), asked.score)
            return _best(pack.called, mx.concatenate(scores), k, lowest)
        _, _, space = self.among(asked.dimension)
        one = _unit(asked.like, space)
        if pack.name in self._units or check_room(self.snapshot, asked.dimension):
            if pack.name not in self._units:
                self._units[pack.name] = yield from _each(map(mx.array, pack.blocks()), lambda X: _units(X, space))
            scores = yield from _each(self._units[pack.name], lambda rows: _cosines(one, rows))
            return _best(pack.called, mx.concatenate(scores), k, lowest)
        if pack.name not in self._indices:
            self._indices[pack.name] = open_index(pack, space, room())
        near = self._indices[pack.name].near(np.array(-one if lowest else one), k)
        scores = _cosines(one, _units(mx.array(pack.rows(near)), space))
        return _best(lambda i: pack.called(near[i]), scores, k, lowest)


def _each(
    blocks: Iterable[mx.array], function: Callable[[mx.array], mx.array]
) -> Generator[None, None, list[mx.array]]:
    """A step for each block; at their end what the function makes of them, evaluated."""
    made = []
    for block in blocks:
        made.append(function(block))
        mx.eval(made[-1])
        yield
    return made


def finished(steps: Generator[None, None, Found]) -> Found:
    """What steps give at their end."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def _units(matrix: mx.array, space: VoiceSpace | None) -> mx.array:
    return units(matrix if space is None else space.comparable(matrix))


def _unit(vector: mx.array, space: VoiceSpace | None) -> mx.array:
    return units(space.comparable(vector) if space else vector)


def _cosines(one: mx.array, rows: mx.array) -> mx.array:
    """[N] of a unit vector [D] with rows [N, D]."""
    # As a row times a matrix: the other way round MLX's own BLAS takes six times as long.
    return mx.clip((one[None] @ rows.T)[0], -1, 1)


def _best(called: Callable[[int], str], scores: mx.array, k: int, lowest: bool) -> Found:
    """(name, score) of the k best of scores [N]; called: function from a place to a name."""
    best = top(-scores if lowest else scores, k)
    chosen, values = np.array(best).tolist(), np.array(scores[best]).tolist()
    return [(called(i), score) for i, score in zip(chosen, values, strict=True)]


def search(
    library: Library,
    searcher: Searcher,
    query: Query,
    k: int,
    where: Mapping[str, str | None] | None,
    lowest: bool,
    embed: Embed | None,
) -> Found:
    """What Library.search does."""
    k = whole(k, "k", least=1)
    if where is not None:
        check_where(where)
    snapshot = searcher.snapshot
    if not snapshot.entries and not snapshot.packs:
        raise InvalidValue(f"library {library.folder} has no voices")
    itself = composed(query) if isinstance(query, str) else None
    itself = itself if itself in snapshot else None
    asked = _asked(library, searcher, query, itself, embed)
    found = _in_files(searcher, asked, k, where, lowest, itself)
    for pack in snapshot.packs.values():
        if pack.dimension == asked.dimension and (not where or pack.has(where)):
            found += finished(searcher.in_pack(pack, asked, k + 1, lowest))
    found = [(name, score) for name, score in found if name != itself]
    if not found:
        raise InvalidValue(f"library {library.folder} has no {'such' if where else 'other'} voice to compare with")
    return sorted(found, key=lambda one: one[1] if lowest else -one[1])[:k]


def _in_files(
    searcher: Searcher, asked: Asked, k: int, where: Mapping[str, str | None] | None, lowest: bool, itself: str | None
) -> Found:
    """The best of the voices that have files of their own, itself perhaps among them."""
    entries = searcher.snapshot.entries
    if asked.like is not None:
        names, scores = searcher.like(asked.like)
    else:
        names, _, _ = searcher.among(asked.dimension)
        matrix = searcher.snapshot.matrices.get(asked.dimension)
        assert asked.score is not None
        scores = None if matrix is None else asked.score(matrix)
    rows: Sequence[int] = range(len(names))  # nothing is looked at voice by voice
    if where:
        rows = [i for i, name in enumerate(names) if name != itself and has(entries[name], where)]
    if scores is None or not rows:
        return []
    if len(rows) < len(names):
        scores = scores[mx.array(list(rows))]
    return _best(lambda i: names[rows[i]], scores, k + 1, lowest)


def _asked(library: Library, searcher: Searcher, query: Query, itself: str | None, embed: Embed | None) -> Asked:
    sound = isinstance(query, tuple) or (isinstance(query, str | Path) and Path(query).suffix.lower() in FORMATS)
    if sound and embed is None:
        raise UnsupportedValue("a recording is searched for by its sound, which needs a Base model", param="query")
    if sound and embed is not None:
        vector = as_vectors(embed(query), "query")
    elif isinstance(query, str) and not itself and (asked := _by_words(library, searcher, query)):
        return asked
    elif isinstance(query, str | Path):
        found = searcher.snapshot.vector(itself) if itself else Lookup(library).find(query)
        if isinstance(found, Offset):
            return Asked(found.step.shape[0], score=searcher.along(found.step, found.direction))
        vector = as_vectors(found, "query")
    else:
        vector = as_vectors(query, "query")  # pyright: ignore[reportArgumentType] a tuple is a Recording, see above
    if vector.ndim != 1:
        raise InvalidValue(f"query has shape {list(vector.shape)}; expected one voice [D]", param="query")
    searcher.among(vector.shape[0])
    return Asked(vector.shape[0], like=vector)


def _by_words(library: Library, searcher: Searcher, query: str) -> Asked | None:
    """What words mean that stand for sides of directions, or None where the query is something else: a file, or a
    single name that is not such a word."""
    words, lookup = words_in(query), Lookup(library)
    if not words or lookup.named(query) is not None:
        return None
    known = sides(library)
    if any(word not in known for word in words):
        one = len(words) == 1 and (not known or Path(query).suffix in SUFFIXES)
        if one or any(lookup.named(word.strip()) is not None for word in query.split(",")):
            return None
        raise unknown(words, known, library)
    dimension = known[words[0]].direction.dimension
    searcher.among(dimension)
    return Asked(dimension, score=ranking(words, known, searcher.snapshot.sample(dimension, SAMPLE)))


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
