"""Several files of a folder that change together: all of them or none, whatever fails and whenever the process ends.

The new files are written to a hidden folder beside their places. A journal then names them, and they are moved, which
takes no room on the disk. Without a journal nothing has happened yet, and the hidden folder is litter; with one,
`recover` finishes what was begun.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import OutputError
from .json_text import json_text
from .output import whole_file

PREFIX = ".together-"
JOURNAL = "journal.json"
OLD = "old"


class Together:
    """Files that are to come into `folder` together: write each to `place(name)`, then `commit`."""

    def __init__(self, folder: Path, hidden: Path) -> None:
        self.folder, self.hidden = folder, hidden
        self.names: list[str] = []

    def place(self, name: str) -> Path:
        """Where to write the file that shall be called `name`, a path within the folder."""
        place = self.hidden / name
        place.parent.mkdir(exist_ok=True)
        self.names.append(name)
        return place

    def commit(self, removed: Iterable[str] = ()) -> None:
        """Move all files to their places, over those that have the names, and delete `removed`. OutputError where one
        cannot be moved; then everything is as it was."""
        removed = [name for name in removed if name not in self.names]
        with whole_file(self.hidden / JOURNAL) as temporary:
            temporary.write_text(json_text({"names": self.names, "removed": removed}))
        moved: list[tuple[Path, Path]] = []
        try:
            for name in [*self.names, *removed]:
                place = self.folder / name
                if place.exists():
                    _move(place, self.hidden / OLD / name, moved)
            for name in self.names:
                _move(self.hidden / name, self.folder / name, moved)
        except OSError as error:
            for source, target in reversed(moved):
                os.replace(target, source)
            raise OutputError(f"cannot write {self.folder}: {error.strerror or error}") from error
        finally:
            (self.hidden / JOURNAL).unlink()


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
    moved.append((source, target))


@contextlib.contextmanager
def together(folder: Path) -> Iterator[Together]:
    """A Together for a folder, which is made if need be and taken away again where nothing came of it."""
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        hidden, handle = _hide(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield Together(folder, hidden)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        os.close(handle)
        if made:
            with contextlib.suppress(OSError):  # it has something in it
                folder.rmdir()


def _hide(folder: Path) -> tuple[Path, int]:
    """A new hidden folder, and its descriptor, locked for as long as this process lives."""
    while True:
        hidden = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        hidden.chmod(0o755)
        handle = _alone(hidden)
        if handle is not None and hidden.exists():  # else another process took it for litter before it was locked
            return hidden, handle
        if handle is not None:
            os.close(handle)


def _alone(hidden: Path) -> int | None:
    """The locked descriptor of a hidden folder, or None where the process that made it lives, or it is gone."""
    try:
        handle = os.open(hidden, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def unfinished(folder: Path) -> bool:
    """Whether files are being moved, or were when a process was killed."""
    return any(folder.glob(f"{PREFIX}*/{JOURNAL}"))


def recover(folder: Path) -> None:
    """Finish what killed processes left between their first move and their last, and remove what they left before it.

    The caller keeps everybody else from moving files meanwhile.
    """
    for hidden in folder.glob(f"{PREFIX}*"):
        handle = _alone(hidden)
        if handle is None:
            continue
        try:
            if (hidden / JOURNAL).is_file():
                journal = json.loads((hidden / JOURNAL).read_text())
                for name in journal["names"]:
                    if (hidden / name).exists():
                        (folder / name).parent.mkdir(exist_ok=True)
                        os.replace(hidden / name, folder / name)
                for name in journal["removed"]:
                    (folder / name).unlink(missing_ok=True)
                (hidden / JOURNAL).unlink()
            shutil.rmtree(hidden, ignore_errors=True)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
        finally:
            os.close(handle)
