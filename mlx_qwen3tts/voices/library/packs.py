"""Packs: voices by the hundred thousand in two files, where a folder with a file for each would be too slow.

`packs/NAME/` in a library has `vectors.npy`, floats [N, D], `names.txt`, a line for each row, and `about.json`, strings
that hold for all of them. The voices are called `NAME/LINE`. Whoever has such files may put them there. Vectors are
read where they are needed, so a pack may be larger than the memory.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoint.writer import whole_folder
from ...errors import InvalidValue, NameTaken, OutputError, QwenTTSError, VoiceError, VoiceNotFound
from ...files.json_text import json_text
from ...files.npy import map_npy
from ...files.text import read_text
from ..voice import Voice
from .names import check_name, composed

PACKS = "packs"
VECTORS, NAMES, ABOUT = "vectors.npy", "names.txt", "about.json"
BLOCK = 1 << 14  # rows that are read at once: 64 MB at 1024 dimensions
DTYPES = ("float32", "float16")


class Pack:
    """name; folder; about: strings that hold for all its voices, as a voice's file has them; count, dimension."""

    def __init__(self, folder: Path) -> None:
        """InvalidValue where the folder's files are not those of a pack."""
        self.folder, self.name = folder, composed(folder.name)
        try:
            self.stamp = stamp(folder)
            self._array = self._vectors()
            about = folder / ABOUT
            self.about: Mapping[str, str] = json.loads(read_text(str(about))) if about.exists() else {}
        except (OSError, ValueError, RecursionError) as error:
            reason = f"{Path(error.filename).name}: {error.strerror}" if isinstance(error, OSError) else error
            raise InvalidValue(f"pack {folder}: {reason}") from None
        self.count, self.dimension = self._array.shape
        try:
            self.attributes = dict(self._voice(np.zeros(self.dimension, np.float32), None).attributes)
        except QwenTTSError as error:
            raise InvalidValue(f"pack {folder}: {ABOUT}: {error}") from None

    def _vectors(self) -> np.ndarray:
        return check_matrix(map_npy(self.folder / VECTORS), VECTORS)

    @functools.cached_property
    def names(self) -> list[str]:
        """The voices' names without the pack's, in the order of the rows."""
        names = read_text(str(self.folder / NAMES)).splitlines()
        if len(names) != self.count:
            raise InvalidValue(f"pack {self.folder}: {len(names)} names for {self.count} vectors")
        return names

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {composed(name): row for row, name in enumerate(self.names)}

    def row(self, name: str) -> int | None:
        """The row of a voice by its whole name, NAME/LINE, or None."""
        pack, _, own = name.partition("/")
        return self._rows.get(own) if composed(pack) == self.name else None

    def called(self, row: int) -> str:
        """The whole name of a row."""
        return f"{self.name}/{self.names[row]}"

    def rows(self, rows: Iterable[int]) -> np.ndarray:
        """[n, D] float32 of these rows."""
        return np.asarray(self._array[np.fromiter(rows, np.int64)], np.float32)

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """All rows, in order, as arrays [n, D] float32 of at most `size` rows."""
        for start in range(0, self.count, size):
            yield np.asarray(self._array[start : start + size], np.float32)

    def sample(self, count: int) -> np.ndarray:
        """At most `count` rows, evenly spaced."""
        return self.rows(np.unique(np.linspace(0, self.count - 1, min(count, self.count)).astype(np.int64)))

    def voice(self, name: str) -> Voice:
        """The Voice of a whole name; VoiceNotFound where there is none."""
        row = self.row(name)
        if row is None:
            raise VoiceNotFound(f"voice {name!r} is not in pack {self.folder}", param="name")
        return self._voice(self.rows([row])[0], name)

    def _voice(self, vector: np.ndarray, name: str | None) -> Voice:
        return Voice(vector, metadata=self.about, name=name)

    def has(self, where: Mapping[str, str | None]) -> bool:
        """Whether all its voices have all of {attribute: value}; a value of None asks for the attribute alone."""
        known = {**self.about, **self.attributes}
        return all(key in known and (value is None or known[key] == value) for key, value in where.items())


def stamp(folder: Path) -> tuple[int, ...]:
    """What changes with a pack's files: sizes, times and inodes; empty where they are not there."""
    try:
        states = [os.stat(folder / name) for name in (VECTORS, NAMES)]
    except OSError:
        return ()
    return tuple(value for one in states for value in (one.st_size, one.st_mtime_ns, one.st_ino))


def check_matrix(array: np.ndarray, what: str) -> np.ndarray:
    """An array that can be the vectors of a pack; VoiceError for any other."""
    if array.ndim != 2 or not array.size or array.dtype.name not in DTYPES:
        shape = list(array.shape)
        raise VoiceError(f"{what} has shape {shape} of {array.dtype}; expected float32 or float16 [voices, dimensions]")
    return array


def find_packs(library: Path, known: Mapping[str, Pack], warn: Callable[[str], object]) -> dict[str, Pack]:
    """{name: Pack} of a library, sorted; those that are `known` and have not changed are the same. warn: called with
    what is wrong with a folder that is not a pack."""
    try:
        folders = sorted(one for one in (library / PACKS).iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:  # there are none
        return {}
    found: dict[str, Pack] = {}
    for folder in folders:
        name = composed(folder.name)
        try:
            old = known.get(name)
            found[name] = old if old is not None and old.stamp == stamp(folder) else Pack(folder)
        except InvalidValue as error:
            warn(f"skipped {error}")
    return found


def write_pack(
    library: Path,
    name: str,
    vectors: Path,
    names: Path | None,
    about: Mapping[str, str],
    overwrite: bool,
    advance: Callable[[int], object],
) -> str:
    """Copy vectors [N, D] and their names, a line each, into a library as a pack. Returns its name.

    names: None numbers them. advance: called with numbers of rows that are written. VoiceError for vectors that are not
    finite, InvalidValue for names that cannot be, or that are there twice; then nothing is written. The caller holds
    the library's lock.
    """
    name, folder = check_name(name), library / PACKS / check_name(name)
    if folder.exists() and not overwrite:
        raise NameTaken(f"library {library} has a pack {name!r} already; --overwrite replaces it", param="name")
    try:
        array = check_matrix(map_npy(vectors), str(vectors))
    except OSError as error:
        raise VoiceError(f"{vectors} cannot be read: {error.strerror}") from None
    except InvalidValue as error:
        raise VoiceError(f"{vectors} {error}" if str(vectors) not in str(error) else str(error)) from None
    count = array.shape[0]
    lines = _checked_names(names, count)
    try:
        (library / PACKS).mkdir(exist_ok=True)
        with whole_folder(folder, overwrite) as temporary:
            made = np.lib.format.open_memmap(temporary / VECTORS, "w+", array.dtype, array.shape)
            for start in range(0, count, BLOCK):
                block = array[start : start + BLOCK]
                if not np.isfinite(block).all():
                    row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
                    raise VoiceError(f"{vectors}: row {row} has values that are NaN or infinite")
                made[start : start + BLOCK] = block
                advance(len(block))
            made.flush()
            (temporary / NAMES).write_text("\n".join(lines) + "\n", encoding="utf-8")
            (temporary / ABOUT).write_text(json_text(dict(about), ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from None
    return name


def _checked_names(file: Path | None, count: int) -> list[str]:
    if file is None:
        return [f"{row:0{len(str(count - 1))}d}" for row in range(count)]
    lines = read_text(str(file)).splitlines()
    if len(lines) != count:
        raise InvalidValue(f"{file} has {len(lines)} names for {count} vectors", param="names")
    known: set[str] = set()
    for number, line in enumerate(lines, 1):
        try:
            own = check_name(line)
        except QwenTTSError as error:
            raise InvalidValue(f"{file}: line {number}: {error}", param="names") from None
        if own in known:
            raise InvalidValue(f"{file}: line {number}: {own!r} is there twice", param="names")
        known.add(own)
    return [composed(line) for line in lines]


def strings_of(attributes: Mapping[str, Any], described: Callable[[Voice, Mapping[str, Any]], Voice]) -> dict[str, str]:
    """A voice's strings with these attributes, checked as of any voice."""
    return dict(described(Voice(np.ones(1, np.float32)), attributes).metadata)
