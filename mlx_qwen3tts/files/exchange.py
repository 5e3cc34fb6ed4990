"""One folder in the place of another, such that a kill at any moment leaves the old or the new one there.

Linux and macOS can exchange two names in one step. Where the file system cannot, there is a moment in which nothing has
the name; the old folder then waits beside it under a name that `restore` knows.
"""

import ctypes
import os
import shutil
import sys
from pathlib import Path

AT_FDCWD = -100  # Linux: paths are relative to the working folder
RENAME_EXCHANGE = 2  # Linux, renameat2(2)
RENAME_SWAP = 2  # macOS, renamex_np(2)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False, and nothing done, where the system cannot."""
    libc, paths = ctypes.CDLL(None, use_errno=True), (os.fsencode(one), os.fsencode(other))
    try:
        if sys.platform == "darwin":
            return libc.renamex_np(*paths, RENAME_SWAP) == 0
        return libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0
    except AttributeError:  # a C library without it
        return False


def replaced(path: Path) -> Path:
    """Where a folder waits that gives way to another one."""
    return path.with_name(f".{path.name}-replaced")


def restore(path: Path) -> None:
    """Finish what a run that was killed between two renames began: the old folder is put back where nothing has its
    name, and removed where the new one has it."""
    old = replaced(path)
    if not old.is_dir():
        return
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(old, path)
