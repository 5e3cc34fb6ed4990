"""A job of the engine as the event loop sees it, and its sound on the way to the client."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..audio.encoding import Encoder, check_rate, encoded, encoder
from ..audio.stretch import Stretch
from ..provenance.seal import SIGNED, Seal
from .engine import Engine
from .jobs import Ended, Event, Failed, Sound, Turn

if TYPE_CHECKING:
    from ..provenance.origin import Origin
    from ..synthesis.request import Request

T = TypeVar("T")
TURN = 0.02  # seconds of work at a time


class Listener:
    """A job that is handed in, and its events. Iterate to get its samples [n] as they come; `ended` says afterwards how
    it went."""

    def __init__(
        self,
        engine: Engine,
        requests: Sequence[Request],
        stream: bool,
        seed: int | None,
        lead: float | None = None,
        turns: Sequence[Turn] = (),
    ) -> None:
        """lead: seconds by which the sound may be ahead of its listener, which takes a consumer that keeps the time
        (see `paced`); the rest as of Engine.submit."""
        self.engine = engine
        self._loop, self._events = asyncio.get_running_loop(), asyncio.Queue[Event]()
        self.ended: Ended | None = None
        # Half of the lead is sent, half of it is made.
        self.job = engine.submit(requests, self.deliver, stream, seed, lead and lead / 2, turns)
        engine.caught_up(self.job, 0)

    def deliver(self, event: Event) -> None:
        """Called in the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed once the server has gone while a speech was cut
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[np.ndarray]:
        """Raises what the speech failed with."""
        heard = 0
        while True:
            event = await self._events.get()
            if isinstance(event, Sound):
                yield event.samples  # it comes back once that has been sent
                heard += len(event.samples)
                self.engine.caught_up(self.job, heard)
            elif isinstance(event, Failed):
                raise event.error
            else:
                self.ended = event
                return


@asynccontextmanager
async def speaking(
    engine: Engine,
    requests: Sequence[Request],
    stream: bool,
    seed: int | None,
    lead: float | None = None,
    turns: Sequence[Turn] = (),
) -> AsyncIterator[Listener]:
    """Have Requests spoken; where the block is left before the end, nobody listens any more and the row is freed."""
    listener = Listener(engine, requests, stream, seed, lead, turns)
    try:
        yield listener
    finally:
        engine.cancel(listener.job)  # nothing happens where it is over


async def paced(sounds: AsyncIterator[np.ndarray], rate: float, lead: float) -> AsyncIterator[np.ndarray]:
    """Samples [n] at a rate as they come, but no more than `lead` seconds before somebody hears them who begins with
    the first one."""
    loop, given, start = asyncio.get_running_loop(), 0, None
    async for samples in sounds:
        yield samples
        given += len(samples)
        start = loop.time() if start is None else start
        await asyncio.sleep(max(0.0, start + given / rate - lead - loop.time()))


async def called(engine: Engine, function: Callable[[], T]) -> T:
    """What a function gives that runs in the engine's thread."""
    return await asyncio.wrap_future(engine.call(function))


async def in_turns(engine: Engine, steps: Generator[None, None, T]) -> T:
    """What steps give at their end. They run in the engine's thread, a few at a time: whoever is spoken for meanwhile
    hears no pause."""
    given: list[T] = []

    def some() -> None:
        until = time.perf_counter() + TURN
        try:
            next(steps)
            while time.perf_counter() < until:
                next(steps)
        except StopIteration as stop:
            given.append(stop.value)

    try:
        while not given:
            await called(engine, some)
    finally:
        await called(engine, steps.close)
    return given[0]


class Flow:
    """Samples at the model's rate to the bytes of what was asked for: stretched, resampled, encoded.

    The server's requests have the rate 1: OpenAI's `speed` goes from 0.25 to 4, and is nothing to the engine.
    """

    def __init__(
        self,
        kind: str,
        source_rate: int,
        rate: int | None = None,
        speed: float = 1.0,
        seal: Seal | None = None,
    ) -> None:
        """kind: of CONTENT_TYPES; rate: in Hz, None for the model's; speed: 1 leaves the speech as it is; seal: what is
        put on it. UnsupportedValue where the format has no such rate."""
        self.kind, self.rate, self.seal = kind, rate or source_rate, Seal() if seal is None else seal
        check_rate(kind, self.rate)
        self._steps: list[Callable[[np.ndarray, bool], np.ndarray]] = []
        if speed != 1.0:
            self._steps.append(Stretch(source_rate, speed).step)
        if self.seal.mark is not None:
            self._steps.append(self.seal.marking(source_rate))
        if self.rate != source_rate:
            import soxr

            resampler = soxr.ResampleStream(source_rate, self.rate, 1, dtype="float32", quality="HQ")
            self._steps.append(lambda samples, last: resampler.resample_chunk(samples, last=last))
        self._encoder: Encoder | None = None

    def open(self, origin: Origin | None) -> None:
        """Say where the sound comes from, before its first bytes; else it has no tags."""
        self._encoder = encoder(self.kind, self.rate, self.seal.tags(origin))

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            self.open(None)
        assert self._encoder is not None, "it was made just now"
        return self._encoder

    def samples(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """What the samples become before they are encoded."""
        for step in self._steps:
            samples = step(samples, last)
        return np.clip(samples, -1, 1) if self._steps else samples

    def add(self, samples: np.ndarray) -> bytes:
        made = self.samples(samples)
        return self.encoder.add(made) if made.size else b""

    def finish(self) -> bytes:
        made = self.samples(np.zeros(0, np.float32), last=True) if self._steps else np.zeros(0, np.float32)
        return (self.encoder.add(made) if made.size else b"") + self.encoder.finish()

    def whole(self, samples: np.ndarray, origin: Origin | None = None) -> bytes:
        """A whole speech, its head complete; signed where somebody signs and the format can have that."""
        data = encoded(self.kind, self.samples(samples, last=True), self.rate, self.seal.tags(origin))
        sign = self.seal.signing(origin) if self.kind in SIGNED else None
        return data if sign is None else sign(data, self.kind)
