"""Files that appear whole or not at all, and keep the mode, the link and the kind that they had.

What is written lies beside its destination under a name of its own (`claim`) until it is whole. A process that is
killed leaves that behind, and the next one that writes there removes it: whoever writes holds a lock, which the system
releases when the process dies.
"""

import contextlib
import fcntl
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LONGEST = 40  # characters of a destination's name in the name of what is beside it


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write to; it takes the name when the block ends well and vanishes otherwise.

    A file that is there keeps its mode, owner and, where it may, group; a new one gets what the umask leaves. Through a
    symbolic link the file that it points to is written. A pipe or device stays one: what was written is copied into it.
    Raises OutputError where the folder does not exist or cannot be written, or the disk is full.
    """
    path = Path(path)
    _check_place(path)
    try:
        target = Path(os.path.realpath(path))
        before = target.stat() if target.exists() else None
        if before is not None and not stat.S_ISREG(before.st_mode):
            with tempfile.TemporaryDirectory() as folder:
                name = Path(folder) / path.name
                name.touch()
                yield name
                with name.open("rb") as source, target.open("wb", buffering=0) as sink:
                    shutil.copyfileobj(source, sink)
            return
        with claim(target, target.suffix) as name:
            if before is not None:
                os.chmod(name, before.st_mode & 0o777 | stat.S_IWUSR)  # before there is anything to read in it
            yield name
            if before is not None:
                _keep_owner(name, before)
            os.replace(name, target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _keep_owner(name: Path, before: os.stat_result) -> None:
    """Give a file the owner, group and mode of the one that it replaces."""
    mode, now = stat.S_IMODE(before.st_mode), name.stat()
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.chown(name, before.st_uid, before.st_gid)
        except PermissionError:  # only root gives files away; the bits for a group must not go to another group
            mode &= 0o707
    os.chmod(name, mode)


@contextlib.contextmanager
def claim(target: Path, suffix: str = "", folder: bool = False) -> Iterator[Path]:
    """A new file, or folder, beside `target` that is this process's alone, and that is gone when the block ends.

    suffix: that of `target` which its name must end in too. The system applies the umask to it. Its name is the first
    of `.NAME-partial-0`, `.NAME-partial-1`, … that no living process holds; what a dead one left there is removed.
    """
    make: Callable[[Path], object] = os.mkdir if folder else _make_file
    start = f".{target.name.removesuffix(suffix)[:LONGEST]}-partial-"
    for number in itertools.count():
        name = target.with_name(f"{start}{number}{suffix}")
        remove_abandoned(name)
        try:
            make(name)
        except FileExistsError:  # of a process that lives
            continue
        lock = os.open(name, os.O_RDONLY)
        try:
            if not _lock(lock, name):  # taken for abandoned before it was locked
                continue
            try:
                yield name
            finally:
                if _is(lock, name):  # else it has its final name, and this one may be somebody else's
                    _remove(name)
            remove_abandoned(target.with_name(f"{start}{number + 1}{suffix}"))
            return
        finally:
            os.close(lock)


def _make_file(name: Path) -> None:
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def _lock(descriptor: int, name: Path) -> bool:
    """Lock what was made, and say whether it is still there under its name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network disks have no locks: there nobody takes it away either
        return True
    return _is(descriptor, name)


def _is(descriptor: int, name: Path) -> bool:
    """Whether an open file is the one that has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name))
    except FileNotFoundError:
        return False


def remove_abandoned(name: Path) -> bool:
    """Remove what a killed process left at `name`; False where something stays, as a living one may hold it."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is(descriptor, name):  # else somebody was faster
            _remove(name)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return not name.exists()


def _remove(name: Path) -> None:
    if name.is_dir():
        shutil.rmtree(name, ignore_errors=True)
    else:
        name.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Raise OutputError unless a file can be made at `path`; called before any long work starts."""
    path = Path(path)
    _check_place(path)
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():  # a pipe or device
            return
        with claim(target, target.suffix):  # os.access does not know of every reason
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def check_not_read(path: str | Path, *inputs: str | Path | None) -> None:
    """Raise OutputError where `path` is one of the files that are read, under whatever name; None is passed over."""
    for given in inputs:
        try:
            same = given is not None and os.path.samefile(path, given)
        except (OSError, ValueError):  # one of them is not there, or not a file's name at all
            continue
        if same:
            raise OutputError(f"output {path} is the input {given} as well, which it would replace; name another file")


def check_folder(path: str | Path, what: str) -> None:
    """Raise OutputError unless files can be made in a folder at `path`, which may not exist yet."""
    if not str(path):
        raise OutputError(f"{what} is empty")
    path = Path(path)
    if path.suffix.lower() in (".wav", ".flac", ".mp3", ".ogg", ".npy") and not path.is_dir():
        raise OutputError(f"{what} {path} is the name of a file; in a batch it is a folder")
    if path.exists() and not path.is_dir():
        raise OutputError(f"{what} {path} is not a folder")
    check_writable(path / "x" if path.is_dir() else path)


def check_npy(path: str | Path, what: str) -> None:
    """`check_writable` for an array, which has the one extension; `what` names the path in the message."""
    if Path(path).suffix != ".npy":
        raise OutputError(f"{what} {path}: the extension must be .npy")
    check_writable(path)


def write_npy(path: str | Path, array: "ArrayLike") -> None:
    """Write an array; the file appears whole or not at all."""
    import numpy as np

    with whole_file(path) as temporary:
        np.save(temporary, np.array(array))


def _check_place(path: Path) -> None:
    if "\0" in str(path):
        raise OutputError(f"output {str(path)!r} has a null character, which no name can have")
    if path.is_dir():
        raise OutputError(f"output {path} is a folder")
    if not path.parent.is_dir():
        raise OutputError(f"output folder {path.parent} does not exist")
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if target.is_symlink():
            raise OutputError(f"output {path} is a link that leads back to itself")
        if not target.parent.is_dir():
            raise OutputError(f"output {path} is a link into a folder that does not exist")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: permission denied")
