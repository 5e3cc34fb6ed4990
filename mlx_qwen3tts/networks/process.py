"""What MLX needs of the process and the thread that it computes in. What computes calls `enter` first; what only makes
arrays, `check_fork`.

- MLX's threads do not survive a fork: a child would wait for them for ever.
- A thread that ends must give up its streams and compiled functions while Python still runs in it. Otherwise the system
  does so later, MLX then asks for Python's lock, and where Python is shutting down by then the program aborts. For the
  same reason a daemon thread that still computes when the program ends is stopped first.
- On a CPU device MLX compiles with the system's compiler, in the folder for temporary files.
"""

import atexit
import contextlib
import os
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from ..errors import UnsupportedValue

ROOM = 2 << 20  # bytes that must fit into the folder for temporary files: a compiled function has some 50 kB

# Seconds that a program which ends gives its daemon threads to end: those that compute, and others, which may be idle.
PATIENCE, MOMENT = 10.0, 0.1


class Known:
    """What is known of this process. used: something has computed; forked: after that; tried: whether MLX can compile;
    ending: the program is; busy: threads that compute; daemons: daemon threads that have computed."""

    def __init__(self) -> None:
        self.used = self.forked = self.tried = self.ending = False
        self.trying = threading.Lock()
        self.busy: list[threading.Thread] = []
        self.daemons: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


known = Known()
_here = threading.local()  # begun: whether this thread has entered; end: its ThreadEnd


class ThreadEnd:
    """Lives as long as a thread that computes, and cleans up in it at its end."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def __del__(self) -> None:
        if threading.get_ident() == self.thread:  # of threads that still run when Python ends the main one drops it
            mx.clear_streams()


def check_fork() -> None:
    """UnsupportedValue in a process that was forked after this package had used MLX."""
    if known.forked:
        raise UnsupportedValue(
            "this process was forked from one in which MLX had computed, and MLX cannot go on here; start it with "
            'multiprocessing.get_context("spawn"), or load the model after the fork'
        )
    known.used = True


def enter() -> None:
    """See to it that MLX can compute in this thread, and ends well in it. UnsupportedValue as of `check_fork`.

    SystemExit, which ends a thread without a word, in daemon threads of a program that ends.
    """
    check_fork()
    if known.ending and threading.current_thread().daemon:
        raise SystemExit
    if not getattr(_here, "begun", False):
        _begin()


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Around whatever computes for long: a program that ends waits for daemon threads that are in it."""
    thread = threading.current_thread()
    known.busy.append(thread)
    try:
        yield
    finally:
        known.busy.remove(thread)


def _end() -> None:
    known.ending = True
    start, busy = time.monotonic(), set(known.busy)
    for thread in list(known.daemons):
        limit = PATIENCE if thread in busy else MOMENT
        thread.join(max(0, start + limit - time.monotonic()))


def _begin() -> None:
    _here.begun = True
    thread = threading.current_thread()
    if thread is not threading.main_thread():  # for which MLX does it itself
        _here.end = ThreadEnd()
    if thread.daemon:
        known.daemons.add(thread)
    if mx.default_device().type == mx.cpu:
        with known.trying:
            try_compiling()


def try_compiling() -> None:
    """Turn MLX's compiler off, with a warning, where it cannot work; once in a process."""
    if known.tried:
        return
    known.tried = True
    try:
        with tempfile.TemporaryFile(dir=temporary_folder()) as file:
            file.write(bytes(ROOM))
        mx.eval(mx.compile(_nothing_much)(mx.ones(2)))
    except (OSError, RuntimeError) as error:
        mx.disable_compile()
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        warnings.warn(
            f"MLX cannot compile ({temporary_folder()}: {reason}), so speaking is slower; set TMPDIR to a folder that "
            "can be written and has room, and see that g++ is there",
            stacklevel=4,
        )


def _nothing_much(x: mx.array) -> mx.array:
    return mx.exp(x) * x


def temporary_folder() -> Path:
    """Where MLX compiles: what C++ calls the folder for temporary files."""
    named = (os.environ.get(name) for name in ("TMPDIR", "TMP", "TEMP", "TEMPDIR"))
    return Path(next(filter(None, named), "/tmp"))


def _after_fork() -> None:
    known.forked = known.used


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_end)  # after threads that are not daemons have been waited for, before Python shuts down
