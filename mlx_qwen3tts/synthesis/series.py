"""Several texts through one running batch: when one has ended the next one joins."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence

import mlx.core as mx

from ..networks.process import computing
from .decoding import Decoding, Utterance
from .planning import Plan
from .speech import Interrupted, Made, Speech, make_stats, note_ending, wired_limit


class Series:
    """Plans with their numbers, at most `size` spoken at once; a further one is taken when one has ended.

    Iterate to get (number, Made) of each once it has ended. With the next one it is let go of, so memory stays flat.
    """

    def __init__(
        self,
        decoding: Decoding,
        plans: Iterable[tuple[int, Plan]],
        sample_rate: int,
        size: int,
        stepped: Callable[[], object] | None = None,
    ) -> None:
        """stepped: called after every step that made frames."""
        self.decoding, self.plans, self.sample_rate, self.size = decoding, plans, sample_rate, size
        self.stepped = stepped
        self.running: dict[Utterance, tuple[int, Made]] = {}  # those that speak, or have ended and are being handed out

    def __iter__(self) -> Generator[tuple[int, Made], None, None]:
        waiting = iter(self.plans)
        with computing(), wired_limit():
            while True:
                while len(self.running) < self.size and (following := next(waiting, None)) is not None:
                    number, plan = following
                    self.running[plan.utterance] = number, Made(plan, self.sample_rate)
                    self.decoding.add(plan.utterance)
                before = self._frames()
                pieces = self.decoding.step()
                if pieces is None:
                    return
                for piece in pieces:
                    self.running[piece.utterance][1].add(piece)
                if self.stepped and self._frames() > before:  # the last step may bring ends alone
                    self.stepped()
                for one in [one for one in self.running if one.finish_reason and not one.held]:
                    number, made = self.running[one]
                    note_ending(made.plan, f"text {number + 1}")
                    yield number, made
                    del self.running[one]

    def _frames(self) -> int:
        """How many frames those that speak have made."""
        return sum(one.frames for one in self.running)

    def cut(self) -> list[Made]:
        """What was made of those that have not been handed out to the end, decoded; for after Ctrl-C."""
        for piece in self.decoding.decode(list(self.running)):
            self.running[piece.utterance][1].add(piece)
        return [made for _, made in self.running.values()]


def _spoken(made: Made, start: float) -> Speech:
    """What was made as Speech; start: of time.perf_counter, when the whole series began."""
    frames = made.plan.utterance.frames
    return made.speech(make_stats(made.seconds, frames, start, seed=made.plan.seed))


def speak_each(
    decoding: Decoding,
    plans: Iterable[tuple[int, Plan]],
    sample_rate: int,
    size: int,
    done: Callable[[int, Speech], object],
) -> None:
    """Speak Plans with their numbers and keep none. done: called with each one's number and Speech, in the order in
    which they end."""
    mx.reset_peak_memory()
    start = time.perf_counter()
    with contextlib.closing(iter(Series(decoding, plans, sample_rate, size))) as ended:
        for number, made in ended:
            done(number, _spoken(made, start))


def speak_batch(
    decoding: Decoding,
    plans: Sequence[tuple[int, Plan]],
    sample_rate: int,
    size: int,
    progress: Callable[[int], object] | None = None,
    done: Callable[[int, Speech], object] | None = None,
) -> list[Speech]:
    """Speak Plans with their numbers; their Speeches, in their order.

    progress: called with the number of steps made so far; done: with each one's number and Speech once it has ended.
    Raises Interrupted on Ctrl-C with what has been spoken so far.
    """
    mx.reset_peak_memory()
    start, steps = time.perf_counter(), 0
    results: dict[Utterance, Speech] = {}

    def stepped() -> None:
        nonlocal steps
        steps += 1
        if progress:
            progress(steps)

    series = Series(decoding, plans, sample_rate, size, stepped)
    try:
        with contextlib.closing(iter(series)) as ended:
            for number, made in ended:
                speech = results[made.plan.utterance] = _spoken(made, start)
                if done:
                    done(number, speech)
    except KeyboardInterrupt:
        for made in series.cut():
            if made.audio and made.plan.utterance not in results:
                results[made.plan.utterance] = _spoken(made, start)
        if not results:
            raise
        _share(results.values(), start)
        spoken = [(number, results[plan.utterance]) for number, plan in plans if plan.utterance in results]
        raise Interrupted([speech for _, speech in spoken], [number for number, _ in spoken]) from None
    _share(results.values(), start)
    return [results[plan.utterance] for _, plan in plans]


def _share(speeches: Iterable[Speech], start: float) -> None:
    """Give every speech the elapsed time and the rates of all of them together."""
    speeches = list(speeches)
    seconds, frames = (sum(speech.stats[name] for speech in speeches) for name in ("seconds", "frames"))
    whole = make_stats(seconds, int(frames), start)
    for speech in speeches:
        speech.stats |= {name: whole[name] for name in ("elapsed", "rtf", "frames_per_second", "peak_memory")}
