"""Files that appear whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write to; it takes the name when the block ends well and vanishes otherwise.

    Raises OutputError where the folder does not exist or cannot be written, or the disk is full.
    """
    path = Path(path)
    _check_place(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    os.close(handle)
    try:
        yield Path(name)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes files private
        os.replace(name, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def check_writable(path: str | Path) -> None:
    """Raise OutputError unless a file can be made at `path`; called before any long work starts."""
    path = Path(path)
    _check_place(path)
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # os.access does not know of every reason
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


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
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: permission denied")
