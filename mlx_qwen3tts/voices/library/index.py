"""The index of a folder of voice files: what they hold, read anew only where a file has changed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import mlx.core as mx
import numpy as np

from ...errors import InvalidValue, OutputError, QwenTTSError, VoiceNotFound
from ...files.json_text import json_text
from ...files.tensors import read_all, write_tensors
from ...files.together import unfinished
from ..metadata import plain
from ..voice import SUFFIXES, Voice
from .lock import LOCK, locked
from .names import ALIASES, LARGEST, SPACE, composed, shown
from .snapshot import Entry, Snapshot

INDEX = ".index.safetensors"
FORM = "2"  # of what the index holds
SETTLED = 2.0  # seconds after which another change gives a file or folder another time of change
TRIES = 5  # how often a folder that changes while it is listed is listed again

KEYS = {
    "file": str,
    "digest": str,
    "dimension": int,
    "norm": float,
    "in_context": bool,
    "metadata": dict,
    "attributes": dict,
    "recipe": dict,
    "row": int,
}

Stamp: TypeAlias = tuple[str, int, int, int, int]  # file name, time of change, size, inode, time of the inode's change
# Entries and vectors by name, and whether they come from the stored index.
Known: TypeAlias = tuple[Mapping[str, Entry], dict[str, np.ndarray], bool]


class Index:
    """snapshot: the Snapshot of the last `refresh`.

    The folder's files are the truth. What was read of them is kept in `.index.safetensors`, with a digest of each file,
    in folders that the writers of this package have written to; nowhere else does reading leave anything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.snapshot = Snapshot(folder)
        self._seen: int | None = None  # the folder's time of change
        self._stamps: dict[str, Stamp] = {}  # of the files that were read and have settled since, by name
        self._passed: dict[str, Stamp] = {}  # of the files that were passed over, by file name
        self._said: set[str] = set()
        self._alone = threading.RLock()

    def refresh(self) -> bool:
        """Read what has changed since, and say whether anything has. Does nothing while the folder has not changed, so
        a file written to in place from elsewhere is found by the next Index."""
        with self._alone:
            for _ in range(TRIES):
                try:
                    changed = self.folder.stat().st_mtime_ns
                    if changed == self._seen:
                        return False
                    self._finish()
                    stamps = self._list()
                    steady = self.folder.stat().st_mtime_ns == changed and not unfinished(self.folder)
                except FileNotFoundError:
                    had, self.snapshot, self._seen = bool(self.snapshot.entries), Snapshot(self.folder), None
                    return had
                except OSError as error:
                    raise InvalidValue(f"library {self.folder} cannot be read: {error.strerror}") from None
                if steady:
                    break
            # A change within the clock's grain of this one would not show.
            self._seen = changed if steady and time.time() - changed / 1e9 > SETTLED else None
            return self._read(stamps)

    def _finish(self) -> None:
        """Wait for an import that is moving its files, or finish what a killed one left, so that its voices are seen
        together."""
        if unfinished(self.folder):
            try:
                with locked(self.folder):
                    pass
            except OutputError as error:
                self._warn(f"an import is not finished ({error})")

    def _list(self) -> dict[str, Stamp]:
        """{name: Stamp} of the folder's voice files."""
        stamps: dict[str, Stamp] = {}
        with os.scandir(self.folder) as listing:
            files = sorted(listing, key=lambda file: (not file.name.endswith(SUFFIXES[1]), file.name))
        for file in files:
            stem, suffix = os.path.splitext(file.name)
            if suffix not in SUFFIXES or file.name.startswith(".") or file.name in (SPACE, ALIASES):
                continue
            try:
                state, wrong = file.stat(), None
            except FileNotFoundError:
                if not file.is_symlink():  # removed since the folder was listed
                    continue
                state, wrong = None, "it is a link to nothing"
            except OSError as error:
                state, wrong = None, f"it cannot be read: {error.strerror}"
            if state and not stat.S_ISREG(state.st_mode):
                wrong = "it is not a regular file"
            elif state and state.st_size > LARGEST:
                wrong = f"its {state.st_size} bytes are too many for a voice"
            elif shown(file.name) != file.name:
                wrong = "its name is not text"
            name = composed(stem)
            if wrong is None and name in stamps:
                wrong = f"{stamps[name][0]} has the same name"
            if wrong is not None or state is None:
                self._warn(f"skipped {shown(file.name)}: {wrong}")
                continue
            stamps[name] = (file.name, state.st_mtime_ns, state.st_size, state.st_ino, state.st_ctime_ns)
        return stamps

    def _read(self, stamps: Mapping[str, Stamp]) -> bool:
        # A file that had not settled is no stamp yet, but one that went is an entry still.
        if stamps and stamps == self._stamps and stamps.keys() == self.snapshot.entries.keys():
            return False
        known, rows, stored = self._known()
        entries: dict[str, Entry] = {}
        vectors: dict[str, np.ndarray] = {}
        settled: dict[str, Stamp] = {}
        for name, stamp in stamps.items():
            # A change within the clock's grain of the reading, or by a clock that was set back, would not show.
            fast = time.time() - stamp[4] / 1e9 > SETTLED
            if self._stamps.get(name) == stamp and name in known:
                entries[name], vectors[name] = known[name], rows[name]
            elif self._passed.get(stamp[0]) == stamp:
                continue
            elif not self._take(name, stamp, known, rows, entries, vectors):
                if fast:
                    self._passed[stamp[0]] = stamp
                continue
            if fast:
                settled[name] = stamp
        self._stamps = settled
        same = entries.keys() == known.keys() and all(entries[name] is known[name] for name in entries)
        if same and not stored:
            return False
        self.snapshot = _arranged(self.folder, entries, vectors)
        if not same:
            self._write()
        return True

    def _take(
        self,
        name: str,
        stamp: Stamp,
        known: Mapping[str, Entry],
        rows: Mapping[str, np.ndarray],
        entries: dict[str, Entry],
        vectors: dict[str, np.ndarray],
    ) -> bool:
        """Enter what a file holds, from what is known where its bytes are the same; whether there is a voice in it."""
        path = self.folder / stamp[0]
        try:
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
            if name in known and known[name]["digest"] == digest and known[name]["file"] == stamp[0]:
                entries[name], vectors[name] = known[name], rows[name]
                return True
            voice = Voice.load(path)
            entries[name] = {"file": stamp[0], "digest": digest, **_entry(voice)}
            vectors[name] = np.array(voice.embedding)
        except (FileNotFoundError, VoiceNotFound):  # removed since the folder was listed
            return False
        except OSError as error:
            self._warn(f"skipped {stamp[0]}: it cannot be read: {error.strerror}")
            return False
        except QwenTTSError as error:
            self._warn(f"skipped {error}")
            return False
        return True

    def _warn(self, message: str) -> None:
        """Say something of a file, once."""
        if message not in self._said:
            self._said.add(message)
            warnings.warn(f"library {self.folder}: {message}", stacklevel=6)

    def _known(self) -> Known:
        """What has been read before: by this object, else what is stored."""
        if self.snapshot.entries:
            return self.snapshot.entries, _rows(self.snapshot.entries, self.snapshot.matrices), False
        if not (self.folder / INDEX).is_file():
            return {}, {}, False
        try:
            return *_load(self.folder / INDEX), True
        except QwenTTSError as error:
            self._warn(f"its index cannot be read and is rebuilt ({error})")
            return {}, {}, False

    def _write(self) -> None:
        """Keep what was read, in a folder that this package writes to."""
        if not (self.folder / LOCK).exists() or not os.access(self.folder, os.W_OK):
            return
        tensors = {str(dimension): np.array(matrix) for dimension, matrix in self.snapshot.matrices.items()}
        entries = json_text(dict(self.snapshot.entries), ensure_ascii=False)
        metadata = {"entries": entries, "form": FORM, "checksum": checksum(entries, tensors)}
        try:
            write_tensors(self.folder / INDEX, tensors, metadata)
        except OutputError as error:  # a full disk
            self._warn(f"its index cannot be saved: {error}")


def _load(path: Path) -> tuple[dict[str, Entry], dict[str, np.ndarray]]:
    """({name: Entry}, {name: vector}) of a stored index, none for one of an earlier form; InvalidValue where it is not
    what was written."""
    arrays, metadata = read_all(path, "index")
    if "entries" in metadata and "form" not in metadata:
        return {}, {}
    tensors = {name: np.array(array) for name, array in arrays.items()}
    text = metadata.get("entries", "")
    if metadata.get("form") != FORM or metadata.get("checksum") != checksum(text, tensors):
        raise InvalidValue(f"index {path}: it does not match its checksum")
    try:
        entries = json.loads(text)
        sound = all(isinstance(entry[key], kind) for entry in entries.values() for key, kind in KEYS.items())
        matrices = {int(name): mx.array(matrix) for name, matrix in tensors.items()}
        rows = _rows(entries, matrices) if sound else {}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        sound, entries, rows = False, {}, {}
    if not sound:
        raise InvalidValue(f"index {path}: its entries are not those of an index")
    return entries, rows


def checksum(entries: str, tensors: Mapping[str, np.ndarray]) -> str:
    """A digest of all that an index holds."""
    digest = hashlib.blake2b(entries.encode(), digest_size=16)
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _rows(entries: Mapping[str, Entry], matrices: Mapping[int, mx.array]) -> dict[str, np.ndarray]:
    arrays = {dimension: np.array(matrix) for dimension, matrix in matrices.items()}
    return {name: arrays[entry["dimension"]][entry["row"]] for name, entry in entries.items()}


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


def _arranged(folder: Path, entries: Mapping[str, Entry], vectors: Mapping[str, np.ndarray]) -> Snapshot:
    """A Snapshot of entries with their rows, and of {dimension: matrix [N, D]}, in the order of the names."""
    groups: dict[int, list[np.ndarray]] = {}
    arranged: dict[str, Entry] = {}
    for name in sorted(entries):
        group = groups.setdefault(entries[name]["dimension"], [])
        arranged[name] = {**entries[name], "row": len(group)}
        group.append(vectors[name])
    matrices = {dimension: mx.array(np.stack(rows)) for dimension, rows in groups.items()}
    mx.eval(matrices)
    return Snapshot(folder, arranged, matrices)
