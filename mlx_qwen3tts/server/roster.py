"""The voices of a server as rows of numbers: which are alike, and which score highest. Runs in the engine's thread."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..errors import InvalidValue
from ..voices.library.library import Library
from ..voices.library.names import SPACE
from ..voices.library.search import SAMPLE, Asked, Found, Searcher, finished, top
from ..voices.library.snapshot import Entry, Snapshot, has
from ..voices.lookup import Offset
from ..voices.space import FEWEST, VoiceSpace
from ..voices.voice import Voice


class Roster:
    """The voices of the model's dimension: the library's, and those that came with the model, each under one name.
    Those of the library's packs are searched too, and have no scores and no place on a map."""

    def __init__(
        self, library: Library, brought: Library | None, presets: Sequence[str], preset: Callable[[str], Voice | None],
        dimension: int,
    ) -> None:  # fmt: skip
        self.library, self.brought, self.presets, self.preset = library, brought, presets, preset
        self.dimension = dimension
        self._searcher: Searcher | None = None
        self._of: tuple[object, ...] = ()  # what it was made of

    def searcher(self) -> Searcher:
        """The voices of this moment, laid out for comparing; the same one until a voice comes or goes."""
        own, brought = self.library.snapshot(), None if self.brought is None else self.brought.snapshot()
        of = own, brought, _stamp(self.library.folder / SPACE)
        if self._searcher is None or of != self._of:
            self._searcher, self._of = self._arranged(own, brought), of
        return self._searcher

    def _arranged(self, own: Snapshot, brought: Snapshot | None) -> Searcher:
        entries: dict[str, Entry] = {}
        rows: dict[str, np.ndarray] = {}
        for name in self.presets:
            voice = self.preset(name)
            if voice is not None and voice.dimension == self.dimension:
                entries[name], rows[name] = {"metadata": {}, "attributes": {}}, np.array(voice.embedding)
        for snapshot in (brought, own):  # a voice of the library takes the place of one that came with the model
            if snapshot is None or self.dimension not in snapshot.matrices:
                continue
            matrix = np.array(snapshot.matrices[self.dimension])
            for name, entry in snapshot.entries.items():
                if entry["dimension"] == self.dimension:
                    entries[name], rows[name] = entry, matrix[entry["row"]]
        names = sorted(entries)
        arranged = {name: {**entries[name], "dimension": self.dimension, "row": i} for i, name in enumerate(names)}
        matrices = {self.dimension: mx.array(np.stack([rows[name] for name in names]))} if names else {}
        mx.eval(matrices)
        packs = {name: pack for name, pack in own.packs.items() if pack.dimension == self.dimension}
        snapshot = Snapshot(self.library.folder, arranged, matrices, packs)
        return Searcher(snapshot, partial(self._space, snapshot))

    def _space(self, snapshot: Snapshot, dimension: int) -> VoiceSpace | None:
        """The library's own space where it keeps one, else that of all voices here, if they are enough."""
        if (self.library.folder / SPACE).is_file():
            return self.library.space(dimension)
        matrix = snapshot.sample(dimension, SAMPLE)
        if matrix.shape[0] < FEWEST:
            return None
        try:
            return VoiceSpace.fit(matrix)
        except InvalidValue:  # they are all the same
            return None

    def scores(self, query: Voice | Offset) -> tuple[list[str], mx.array]:
        """(names, scores [N]) of all voices: how much they are like a voice, or how far they are along an offset."""
        searcher = self.searcher()
        if not searcher.snapshot.entries:
            raise InvalidValue("there is no voice to compare with", param="voice")
        if not isinstance(query, Voice):
            names, _, _ = searcher.among(query.step.shape[0])
            return names, searcher.along(query.step, query.direction)(searcher.snapshot.matrices[self.dimension])
        names, scores = searcher.like(query.embedding)
        assert scores is not None, "every voice here has a row"
        return names, scores

    def nearest(
        self, query: Voice | Offset, k: int, where: Mapping[str, str | None] | None, lowest: bool = False
    ) -> Found:
        """What `searching` gives."""
        return finished(self.searching(query, k, where, lowest))

    def searching(
        self,
        query: Voice | Offset,
        k: int,
        where: Mapping[str, str | None] | None,
        lowest: bool = False,
        packs: bool = True,
    ) -> Generator[None, None, Found]:
        """Steps of some milliseconds that give (name, score) of the k best at their end, best first; lowest: from the
        other end; where: as of `Library.search`; packs: whether the voices of packs are searched too."""
        searcher = self.searcher()
        held = searcher.snapshot.packs.values() if packs else ()
        chosen = [pack for pack in held if not where or pack.has(where)]
        found = [] if chosen and not searcher.snapshot.entries else self._in_files(query, k, where, lowest)
        if isinstance(query, Voice):
            asked = Asked(query.dimension, like=query.embedding)
        else:
            asked = Asked(query.step.shape[0], score=searcher.along(query.step, query.direction))
        for pack in chosen:
            found += yield from searcher.in_pack(pack, asked, k, lowest)
        return sorted(found, key=lambda one: one[1] if lowest else -one[1])[:k]

    def _in_files(self, query: Voice | Offset, k: int, where: Mapping[str, str | None] | None, lowest: bool) -> Found:
        """The best of the voices that have files of their own."""
        names, scores = self.scores(query)
        entries = self.searcher().snapshot.entries
        rows = [i for i, name in enumerate(names) if where is None or has(entries[name], where)]
        if not rows:
            return []
        scores = scores[mx.array(rows)]
        best = np.array(top(-scores if lowest else scores, k)).tolist()
        values = np.array(scores).tolist()
        return [(names[rows[i]], values[i]) for i in best]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:  # there is none
        return None
    return state.st_mtime_ns, state.st_size
