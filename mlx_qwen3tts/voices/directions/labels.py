"""Voices and their labels from a CSV file: a row a voice, a column a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx

from ...audio.measures import read_csv
from ...errors import InvalidValue, VoiceNotFound
from ..algebra import as_vectors
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

    A row's voice is the library's of its `name`, else the voice file that its `file` is, or that lies beside it or
    beside the CSV file with that name. Returns (Labelled, names of the rows left out);
    VoiceNotFound where a row has no voice.
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
    values = {column: _typed([row[column].strip() for row in kept]) for column in columns}
    X = as_vectors(voices, "labelled voices")
    mx.eval(X)  # so that any thread can use them
    return Labelled(X, [_name(row) for row in kept], values), left


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
    if library is not None and name in library:
        return library[name]
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
