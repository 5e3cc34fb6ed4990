"""Voices and their labels: from a CSV file, a row a voice and a column a label, or from a library's tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx

from ...audio.measures import read_csv
from ...errors import InvalidValue, VoiceNotFound
from ..algebra import VoicesLike, as_vectors
from ..metadata import RECORDING
from ..voice import SUFFIXES, Voice

if TYPE_CHECKING:
    from ..library.library import Library


@dataclass(frozen=True, eq=False)
class Labelled:
    """X [N, D], names [N], and columns {name: list of N}: numbers where all cells are, else strings."""

    X: mx.array
    names: list[str]
    columns: dict[str, list[int] | list[float] | list[str]]


def read_labelled(
    path: Path | str, columns: Sequence[str], library: Library | None = None
) -> tuple[Labelled, list[str]]:
    """The voices that a CSV file names, with those of its columns; rows with an empty cell in one are left out.

    A row's voice is the library's of its `name`, else the library's that was made from the recording `file` or is
    called as it is, else the voice file that its `file` is, or that lies beside it or beside the CSV file with that
    name. Returns (Labelled, names of the rows left out); VoiceNotFound where a row has no voice.
    """
    rows = read_csv(path)
    for column in columns:
        if rows and column not in rows[0]:
            raise InvalidValue(f"labels {path}: no column {column!r}; there are {', '.join(rows[0])}")
    kept = [row for row in rows if all(row[column].strip() for column in columns)]
    left = [_name(row) for row in rows if row not in kept]
    if len(kept) < 2:
        raise InvalidValue(f"labels {path}: {len(kept)} rows have {' and '.join(columns) or 'a voice'}; two are needed")
    voices = [_voice(row, Path(path), library) for row in kept]
    return _labelled(voices, [_name(row) for row in kept], columns, kept), left


def read_tagged(library: Library, columns: Sequence[str]) -> tuple[Labelled, list[str]]:
    """The voices of a library with those of their attributes (language and the like among them); voices that lack one
    are left out. Returns (Labelled, names of the voices left out)."""
    snapshot = library.snapshot()
    known = {name: {**entry["metadata"], **entry["attributes"]} for name, entry in snapshot.entries.items()}
    there = sorted({key for attributes in known.values() for key in attributes})
    for column in columns:
        if column not in there:
            listed = ", ".join(there) or "none"
            raise InvalidValue(f"library {library.folder}: no voice has a tag {column!r}; there are {listed}")
    rows = {name: row for name, row in known.items() if all(row.get(column, "").strip() for column in columns)}
    left = [name for name in known if name not in rows]
    if len(rows) < 2:
        raise InvalidValue(f"library {library.folder}: {len(rows)} voices have {' and '.join(columns)}; two are needed")
    return _labelled(snapshot.vectors(rows), list(rows), columns, list(rows.values())), left


def _labelled(
    voices: VoicesLike, names: list[str], columns: Sequence[str], rows: Sequence[Mapping[str, str]]
) -> Labelled:
    X = as_vectors(voices, "labelled voices")
    mx.eval(X)  # so that any thread can use them
    return Labelled(X, names, {column: _typed([row[column].strip() for row in rows]) for column in columns})


def _name(row: dict[str, str]) -> str:
    return row.get("name") or Path(row.get("file", "")).stem


def _typed(cells: list[str]) -> list[int] | list[float] | list[str]:
    for kind in (int, float):
        try:
            return [kind(cell) for cell in cells]
        except ValueError:
            continue
    return cells


def _voice(row: dict[str, str], path: Path, library: Library | None) -> Voice:
    name = _name(row)
    if library is not None and (found := _in_library(row, name, path, library)) is not None:
        return library[found]
    if not name:
        raise InvalidValue(f"labels {path}: a row has neither a name nor a file")
    places = [path.parent / name]
    for file in (path.parent / row["file"], Path(row["file"])) if row.get("file") else ():
        places += [file, file.with_suffix("")]
    for place in places:
        for candidate in (place, *(place.with_name(place.name + suffix) for suffix in SUFFIXES)):
            if candidate.suffix in SUFFIXES and candidate.is_file():
                return Voice.load(candidate)
    where = f"in library {library.folder} or " if library is not None else ""
    raise VoiceNotFound(f"labels {path}: there is no voice {name!r} {where}beside the file; embed its recording first")


def _in_library(row: dict[str, str], name: str, path: Path, library: Library) -> str | None:
    """The name of a row's voice in the library, or None."""
    if name in library:
        return name
    file = Path(row.get("file", "")).name
    made = [
        voice
        for voice, entry in library.snapshot().entries.items()
        if (recording := entry["metadata"].get(RECORDING))
        and (recording == file or (not file and _stem(recording) == name))
    ]
    if len(made) > 1:
        raise InvalidValue(f"labels {path}: {', '.join(made)} were made from recordings called {file or name}")
    if made:
        return made[0]
    return _stem(file) if file and _stem(file) in library else None


def _stem(file: str) -> str:
    return Path(file).stem
