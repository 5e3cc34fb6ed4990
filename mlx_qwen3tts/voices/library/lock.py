"""The lock of a library: whoever writes holds it, so several processes may write at once without losing anything."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from ...errors import OutputError
from ...files.together import recover

LOCK = ".lock"
NOTICE = 1.0  # seconds of waiting after which it says so
LIMIT = 30.0  # seconds after which it gives up; a writer takes milliseconds, so whoever takes this long hangs
PAUSE = 0.01


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone among all processes that write to a library, which is made if need be. What a killed one left unfinished is
    finished first. OutputError where it cannot be written, or another process keeps the lock for LIMIT seconds."""
    try:
        folder.mkdir(exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OutputError(f"cannot write library {folder}: {error.strerror}") from None
    try:
        _acquire(lock, folder)
        recover(folder)
        yield
    finally:
        os.close(lock)  # which gives the lock back


def _acquire(lock: int, folder: Path) -> None:
    start, told = time.monotonic(), False
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - start
        except OSError as error:  # a network's file system may have no locks
            raise OutputError(f"library {folder} cannot be locked: {error.strerror}") from None
        if waited > LIMIT:
            raise OutputError(
                f"library {folder} has been locked by another process for {LIMIT:.0f} s; try again when that has ended"
            )
        if waited > NOTICE and not told:
            warnings.warn(f"library {folder}: waiting for another process that is writing to it", stacklevel=4)
            told = True
        time.sleep(PAUSE)
