"""When the host waits for the device: every way from MLX to the host, watched."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import mlx.core as mx
import numpy as np

ENQUEUE = "enqueue"
# Each of them waits for what it reads.
READS = ("item", "tolist", "__array__", "__bool__", "__float__", "__int__", "__index__", "__dlpack__", "__buffer__")


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """The list that fills, within the block, with what happens in order: ENQUEUE for `mx.async_eval`, the name of
    whatever waits for anything else."""
    events: list[str] = []

    def noting(original, event, only=None):
        def noted(*arguments, **options):
            if only is None or isinstance(arguments[0], only):
                events.append(event)
            return original(*arguments, **options)

        return noted

    with contextlib.ExitStack() as stack:

        def watch(place, name, event, only=None):
            stack.enter_context(mock.patch.object(place, name, noting(getattr(place, name), event, only)))

        watch(mx, "async_eval", ENQUEUE)
        for name in ("eval", "synchronize"):
            watch(mx, name, name)
        for name in READS:
            if hasattr(mx.array, name):
                watch(mx.array, name, name)
        for name in ("array", "asarray"):  # which take an MLX array's memory without asking a method
            watch(np, name, name, mx.array)
        yield events
