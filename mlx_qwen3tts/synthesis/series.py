"""Any number of texts through one running batch, each let go of once it is spoken: memory stays flat."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import mlx.core as mx

from ..networks.process import computing
from .decoding import Decoding, Utterance
from .planning import Plan
from .speech import Made, Speech, make_stats, note_cut, wired_limit


def speak_series(
    decoding: Decoding,
    plans: Iterable[tuple[int, Plan]],
    sample_rate: int,
    size: int,
    done: Callable[[int, Speech], object],
) -> None:
    """Speak Plans with their numbers, at most `size` at once; a further one is taken when one has ended. done: called
    with each one's number and Speech, in the order in which they end."""
    mx.reset_peak_memory()
    start, waiting = time.perf_counter(), iter(plans)
    running: dict[Utterance, tuple[int, Made]] = {}
    with computing(), wired_limit():
        while True:
            while len(running) < size and (following := next(waiting, None)) is not None:
                number, plan = following
                running[plan.utterance] = number, Made(plan, sample_rate)
                decoding.add(plan.utterance)
            pieces = decoding.step()
            if pieces is None:
                return
            for piece in pieces:
                running[piece.utterance][1].add(piece)
            for one in [one for one in running if one.finish_reason and not one.held]:
                number, made = running.pop(one)
                note_cut(made.plan, f"text {number + 1}")
                done(number, made.speech(make_stats(made.seconds, one.frames, start, seed=made.plan.seed)))
