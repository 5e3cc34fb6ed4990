"""The index of a folder of voice files: what they hold, read anew only where a file has changed."""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np

from ...errors import OutputError, VoiceError, VoiceNotFound
from ...files.json_text import json_text
from ...files.tensors import read_all, write_tensors
from ..metadata import plain
from ..voice import SUFFIXES, Voice
from .names import SPACE, composed

INDEX = ".index.safetensors"
SETTLED = 2.0  # seconds after which another change gives a folder another time of change

# What is known of a voice: stamp [file name, time of change, size], dimension, norm, in_context, metadata (strings),
# attributes, recipe, and row, its place in the matrix of its dimension.
Entry: TypeAlias = dict[str, Any]
Stamp: TypeAlias = list[Any]


class Index:
    """entries: {name: Entry}; matrices: {dimension: [N, D]}, evaluated.

    The folder's files are the truth. What was read of them is kept in `.index.safetensors`.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.entries: dict[str, Entry] = {}
        self.matrices: dict[int, mx.array] = {}
        self._seen: int | None = None

    def refresh(self) -> bool:
        """Read what has changed since, and say whether anything has. Does nothing while the folder has not changed, so
        a file written to in place from elsewhere is found by the next Index."""
        try:
            changed = self.folder.stat().st_mtime_ns
        except FileNotFoundError:
            had, self.entries, self.matrices, self._seen = bool(self.entries), {}, {}, None
            return had
        if changed == self._seen:
            return False
        read = self._read()
        # A change within the clock's grain of this one would not show.
        self._seen = changed if time.time() - changed / 1e9 > SETTLED else None
        return read

    def _read(self) -> bool:
        stamps = self._stamps()
        if self.entries and {name: entry["stamp"] for name, entry in self.entries.items()} == stamps:
            return False
        known, rows, stored = self._known()
        entries: dict[str, Entry] = {}
        vectors: dict[str, np.ndarray] = {}
        for name, stamp in stamps.items():
            if name in known and known[name]["stamp"] == stamp:
                entries[name], vectors[name] = known[name], rows[name]
                continue
            try:
                voice = Voice.load(self.folder / stamp[0])
                entries[name], vectors[name] = {"stamp": stamp, **_entry(voice)}, np.array(voice.embedding)
            except (VoiceError, VoiceNotFound) as error:
                if (self.folder / stamp[0]).exists():  # else it was removed since the folder was listed
                    self._warn(f"passed over: {error}")
        same = entries.keys() == known.keys() and all(entries[name] is known[name] for name in entries)
        if same and not stored:
            return False
        self.entries, self.matrices = _arranged(entries, vectors)
        if not same:
            self._write()
        return True

    def _stamps(self) -> dict[str, Stamp]:
        """{name: [file name, time of change, size]} of the folder's voice files."""
        stamps: dict[str, Stamp] = {}
        for file in sorted(os.scandir(self.folder), key=lambda file: (not file.name.endswith(SUFFIXES[1]), file.name)):
            stem, suffix = os.path.splitext(file.name)
            if suffix not in SUFFIXES or file.name.startswith(".") or file.name == SPACE:
                continue
            try:
                state = file.stat()
            except FileNotFoundError:  # removed since the folder was listed
                continue
            name = composed(stem)
            if name in stamps:
                self._warn(f"{file.name} is passed over, as {stamps[name][0]} has the same name")
                continue
            stamps[name] = [file.name, state.st_mtime_ns, state.st_size]
        return stamps

    def _warn(self, message: str) -> None:
        warnings.warn(f"library {self.folder}: {message}", stacklevel=6)

    def _known(self) -> tuple[dict[str, Entry], dict[str, np.ndarray], bool]:
        """({name: entry}, {name: vector}, whether they come from the stored index) of what has been read before."""
        if self.entries:
            return self.entries, self._rows(self.entries, self.matrices), False
        if not (self.folder / INDEX).is_file():
            return {}, {}, False
        try:
            arrays, metadata = read_all(self.folder / INDEX, "index")
            entries = json.loads(metadata["entries"])
            return entries, self._rows(entries, {int(name): array for name, array in arrays.items()}), True
        except (ValueError, LookupError, TypeError, AttributeError) as error:  # whatever it holds, it can be made again
            self._warn(f"its index cannot be read and is made anew ({error})")
            return {}, {}, False

    @staticmethod
    def _rows(entries: dict[str, Entry], matrices: dict[int, mx.array]) -> dict[str, np.ndarray]:
        arrays = {dimension: np.array(matrix) for dimension, matrix in matrices.items()}
        return {name: arrays[entry["dimension"]][entry["row"]] for name, entry in entries.items()}

    def _write(self) -> None:
        tensors = {str(dimension): matrix for dimension, matrix in self.matrices.items()}
        try:
            write_tensors(self.folder / INDEX, tensors, {"entries": json_text(self.entries, ensure_ascii=False)})
        except OutputError as error:  # a read-only folder works too, read anew every time
            self._warn(f"its index cannot be saved: {error}")


def _entry(voice: Voice) -> Entry:
    metadata = {key: value for key, value in voice.metadata.items() if key not in ("attributes", "recipe")}
    return {
        "dimension": voice.dimension,
        "norm": round(voice.norm, 4),
        "in_context": voice.ref_codes is not None,
        "metadata": metadata,
        "attributes": plain(voice.attributes),
        "recipe": plain(voice.recipe),
    }


def _arranged(
    entries: dict[str, Entry], vectors: dict[str, np.ndarray]
) -> tuple[dict[str, Entry], dict[int, mx.array]]:
    """Entries with their rows, and {dimension: matrix [N, D]}, in the order of the names."""
    groups: dict[int, list[np.ndarray]] = {}
    for name in sorted(entries):
        group = groups.setdefault(entries[name]["dimension"], [])
        entries[name]["row"] = len(group)
        group.append(vectors[name])
    matrices = {dimension: mx.array(np.stack(rows)) for dimension, rows in groups.items()}
    mx.eval(matrices)
    return entries, matrices
