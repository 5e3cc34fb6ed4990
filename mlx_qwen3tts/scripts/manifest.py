"""What of a script has been spoken: the manifest beside the output, and the folder of the pieces' sound.

OUTPUT.manifest.json is written after every piece, by rename, so that a process can be killed at any moment; a piece
counts once it is in the manifest. OUTPUT.pieces/ holds their sound, named by hash, and stays: a script that is changed
is spoken again only where it was changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..audio.level import loudness
from ..audio.reference import SILENT, trimmed
from ..audio.tags import Tags
from ..audio.writing import write_audio
from ..errors import InvalidValue, OutputError
from ..files.json_text import json_text
from ..files.output import whole_file

if TYPE_CHECKING:
    from ..synthesis.watch import Attempt

VERSION = 1
# Of an entry, beside "checks": {"finish_reason", "silent", "loudness", "peak", "bytes"}, with the guard "failed" and
# "attempts". samples: of the file; loudness: LUFS or null; failed: a key of CHECKS, or null; attempts: the "seed" and
# "failed" of each.
FIELDS = {"line": int, "text": str, "seed": int, "take": int, "hash": str, "file": str, "samples": int, "checks": dict}


class Manifest:
    """pieces: {hash: entry} of those that are spoken. takes: {key: take} of what was varied; again: the selection of
    lines that is being varied, None where that has ended."""

    def __init__(self, output: Path, model: str, sample_rate: int) -> None:
        """Reads what an earlier run has left. InvalidValue where that is not a manifest."""
        self.file = output.with_name(f"{output.name}.manifest.json")
        self.folder = output.with_name(f"{output.name}.pieces")
        self.model, self.sample_rate = model, sample_rate
        self.pieces: dict[str, dict[str, Any]] = {}
        self.takes: dict[str, int] = {}
        self.again: str | None = None
        self._order: dict[str, None] = {}
        self._written: dict[str, str] = {}  # entries as JSON
        self._read()

    def _read(self) -> None:
        values: Any = None
        try:
            values = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (ValueError, RecursionError):
            pass  # None is not a manifest
        except OSError as error:
            raise InvalidValue(f"manifest {self.file}: cannot be read: {error.strerror or error}") from None
        try:
            if values["version"] != VERSION:
                raise InvalidValue(f"manifest {self.file} is of version {values['version']}, not {VERSION}")
            self.takes, self.again = {str(key): int(take) for key, take in values["takes"].items()}, values["again"]
            for entry in values["pieces"]:
                if not all(isinstance(entry[name], kind) for name, kind in FIELDS.items()):
                    raise TypeError(entry)
                self.pieces[entry["hash"]] = entry
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InvalidValue):
                raise
            message = f"manifest {self.file} is damaged; remove it to speak everything anew"
            raise InvalidValue(message) from None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from rendering the same output. OutputError where one does."""
        made = not self.folder.exists()
        try:
            self.folder.mkdir(exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror or error}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(f"another process is rendering to {self.folder}; wait for it") from None
            yield
        finally:
            os.close(descriptor)
            if made:
                with contextlib.suppress(OSError):  # it has something in it
                    self.folder.rmdir()

    def place(self, word: str) -> Path:
        """Where a piece's sound lies."""
        return self.folder / f"{word}.flac"

    def arrange(self, entries: Sequence[dict[str, Any]]) -> None:
        """Put what is known of pieces into the order of a script. entries: line, name, text and the like, with hash."""
        self._order = {entry["hash"]: None for entry in entries}
        for entry in entries:
            if entry["hash"] in self.pieces:
                self._keep({**self.pieces[entry["hash"]], **entry})
        for word, entry in self.pieces.items():
            if word not in self._order:  # of a script as it was: another change may need it again
                self._keep(entry)

    def has(self, word: str) -> bool:
        """Whether a piece is spoken and its sound is there."""
        entry = self.pieces.get(word)
        try:
            return entry is not None and self.place(word).stat().st_size == entry["checks"]["bytes"]
        except (OSError, KeyError):
            return False

    def add(
        self,
        entry: dict[str, Any],
        samples: np.ndarray,
        finish_reason: str,
        guarded: Mapping[str, Any] | None = None,
        tags: Tags | None = None,
    ) -> None:
        """Write a piece's sound [n], without the silence around it, and then the manifest. guarded: `guard_checks`;
        tags: of the sound's file."""
        rate, place = self.sample_rate, self.place(entry["hash"])
        silent = not samples.size or np.abs(samples).max() < SILENT
        if not silent:
            samples = trimmed(samples, rate)
        write_audio(place, samples, rate, tags=tags)
        loud, peak = loudness(samples, rate), float(np.abs(samples).max(initial=0))
        checks = {"finish_reason": finish_reason, "silent": bool(silent), "loudness": loud, "peak": peak}
        checks |= {"bytes": place.stat().st_size, **(guarded or {})}
        sound = {"file": f"{self.folder.name}/{place.name}", "samples": samples.size}
        self._keep({**entry, **sound, "seconds": round(samples.size / rate, 3), "checks": checks})
        self.save()

    def _keep(self, entry: dict[str, Any]) -> None:
        self.pieces[entry["hash"]] = entry
        self._written[entry["hash"]] = json_text(entry, ensure_ascii=False)

    def save(self) -> None:
        """Write the manifest; it appears whole."""
        words = [word for word in self._order if word in self.pieces]
        words += [word for word in self.pieces if word not in self._order]
        head = {"version": VERSION, "model": self.model, "sample_rate": self.sample_rate}
        text = json_text({**head, "takes": self.takes, "again": self.again}, ensure_ascii=False)
        rows = ",\n".join(self._written[word] for word in words)
        with whole_file(self.file) as temporary:
            temporary.write_text(f'{text[:-1]}, "pieces": [\n{rows}\n]}}\n', encoding="utf-8")

    def forget(self) -> None:
        """Everything is spoken: what was spoken for the script as it was before is removed."""
        self.pieces = {word: self.pieces[word] for word in self._order}
        self.again = None
        self.save()
        for place in self.folder.glob("*.flac"):
            if place.stem not in self.pieces and not place.name.startswith("."):
                place.unlink(missing_ok=True)


def guard_checks(attempts: Sequence[Attempt], failed: str | None) -> dict[str, Any]:
    """What the guard adds to a piece's checks, as of Speech; nothing where it was off."""
    if not attempts:
        return {}
    return {"failed": failed, "attempts": [{"seed": one.seed, "failed": one.failed} for one in attempts]}
