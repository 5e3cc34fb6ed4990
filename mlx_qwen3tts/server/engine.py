"""The one worker that owns the model: requests join and leave one running batch at frame boundaries.

MLX work happens in its thread and nowhere else. Others hand in Jobs, and functions that need the model, and are told
what comes of them; what they are told is NumPy, bytes and plain values, so no other thread ever touches an array of
MLX.

    submit → queue → row of the batch → Sound … → Ended
                ↑           │
                └── the next piece of a long text, where others wait

A long text is spoken piece by piece, and after each piece its row goes to whoever waits: a book does not keep a short
sentence waiting for longer than a piece takes. A text that is still being written holds up nobody (see Generation).
"""

from __future__ import annotations

import collections
import itertools
import logging
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import mlx.core as mx
import numpy as np

from ..errors import QwenTTSError
from ..synthesis.decoding import SCHEDULE, Decoding, Utterance
from ..synthesis.frame import bucket
from ..synthesis.planning import Notes, Plan
from ..synthesis.request import Request, Sampling
from ..synthesis.speech import note_cut, wired_limit

if TYPE_CHECKING:
    from ..synthesis.tts import Qwen3TTS

T = TypeVar("T")

log = logging.getLogger(__name__)

WHOLE = (16,)  # frames of every chunk where nobody listens yet: fewer calls of the decoder, none of them long
PATIENCE = 0.02  # seconds of each turn for functions, while speech is under way
WARM_TEXT = "Hello."


class Busy(QwenTTSError):
    """There is no place in the queue, or the server is stopping. retry_after: seconds until it makes sense to try."""

    code = "queue_full"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Stopping(Busy):
    """The server is being stopped, or has not started yet."""

    code = "busy"


class EngineFault(RuntimeError):
    """A fault of ours ended a speech; its traceback is in the log."""


@dataclass(frozen=True, eq=False)
class Sound:
    """samples [n] float32 within ±1, which follow those before; frames: of codes that they are."""

    samples: np.ndarray
    frames: int


@dataclass(frozen=True)
class Ended:
    """The end of a speech. finish_reason: "stop", "length" (cut at max_tokens) or "interrupted" (the server stopped).

    tokens: positions of the prompts; frames: spoken; elapsed: seconds since it was handed in; warnings: what was said
    about it.
    """

    finish_reason: str
    tokens: int
    frames: int
    elapsed: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """The end of a speech that could not be spoken, or not to its end."""

    error: Exception


Event = Sound | Ended | Failed


@dataclass(eq=False)
class Job:
    """A speech that was asked for, and how far it is. `deliver` is called in the engine's thread with each Event; it
    must neither wait nor raise."""

    requests: collections.deque[Request]
    deliver: Callable[[Event], object]
    schedule: Sequence[int]
    seed: int
    asked: float = field(default_factory=time.perf_counter)
    plan: Plan | None = None
    tokens: int = 0
    frames: int = 0
    first_sound: float | None = None  # seconds after it was asked for
    warnings: dict[str, None] = field(default_factory=dict)  # in order, each once
    over: bool = False


class Engine:
    """Speaks Jobs with one model. A context manager: starts the worker, and stops it.

    counts: totals since the start, by name, for whoever watches; written in the worker alone.
    """

    def __init__(
        self, tts: Qwen3TTS, max_batch: int = 8, max_queue: int = 16, told: Callable[[], object] | None = None
    ) -> None:
        """max_batch: speeches at once; max_queue: how many more may wait; told: called once it can speak."""
        self.tts, self.max_batch, self.max_queue = tts, max_batch, max_queue
        self.counts: collections.Counter[str] = collections.Counter()
        self.ready, self.told = threading.Event(), told  # everything is compiled
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._queue: collections.deque[Job] = collections.deque()
        self._running: dict[Utterance, Job] = {}
        self._places = threading.Lock()  # of `_load`
        self._load = 0  # jobs handed in and not over
        self._job_seconds = 5.0  # how long a job takes, a running mean, to tell when to try again
        self._deadline: float | None = None  # once it is being stopped
        self._thread = threading.Thread(target=self._run, name="mlx_qwen3tts engine")
        self.decoding = self._new_decoding()

    def _new_decoding(self) -> Decoding:
        generation = self.tts.generation([], [], self.tts.sampling)
        generation.sets_aside, generation.most = True, self.max_batch
        return Decoding(generation, self.tts.codec.decoder)

    # For other threads

    def __enter__(self) -> Engine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def load(self) -> int:
        """How many speeches are being spoken or wait."""
        return self._load

    @property
    def queued(self) -> int:
        """How many speeches wait for a row."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """How many speeches have a row."""
        return len(self._running)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(
        self,
        requests: Sequence[Request],
        deliver: Callable[[Event], object],
        stream: bool = True,
        seed: int | None = None,
    ) -> Job:
        """Have Requests, the pieces of one speech, spoken one after another. Busy where there is no place.

        stream: whether somebody listens while it is spoken; seed: of the first piece, drawn where None; the next ones
        have the numbers that follow.
        """
        seed = secrets.randbits(32) if seed is None else seed
        job = Job(collections.deque(requests), deliver, SCHEDULE if stream else WHOLE, seed)
        job.requests = collections.deque(
            replace(request, seed=(seed + number) % 2**32) for number, request in enumerate(requests)
        )
        with self._places:
            if not self.ready.is_set() or self._deadline is not None or not self.alive:
                raise Stopping("the server is starting or stopping; try again in a moment", 2)
            if self._load >= self.max_batch + self.max_queue:
                wait = math.ceil(self._job_seconds * (1 + self._load - self.max_batch) / self.max_batch)
                message = f"{self._load} speeches are spoken or waiting, which is all there is room for"
                raise Busy(message, min(600, max(1, wait)))
            self._load += 1
        self._inbox.put(lambda: self._queue.append(job))
        return job

    def cancel(self, job: Job) -> None:
        """Nobody wants a job any more: its row is free within two frames, and nothing more is delivered."""
        self._inbox.put(lambda: self._drop(job))

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run a function that needs the model or MLX between two frames; its Future, with whatever it raised."""
        future: Future[T] = Future()
        if not self.alive:
            future.set_exception(Stopping("the server is stopping; try again in a moment", 2))
            return future

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 (it goes to who asked, who is in another thread)
                future.set_exception(error)

        self._inbox.put(run)
        return future

    def wake(self) -> None:
        """Something that a row waits for has come: call this after writing to a Feed, or give it to the Feed."""
        self._inbox.put(_nothing)

    def stop(self, seconds: float = 5.0) -> None:
        """Take nothing more, speak on for so many seconds at most, cut what is not done then, and end the worker.
        Returns at once."""
        deadline = time.perf_counter() + seconds
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self.wake()

    def close(self, seconds: float = 5.0) -> None:
        """`stop`, and wait for it."""
        self.stop(seconds)
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    # The worker

    def _run(self) -> None:
        with wired_limit():
            try:
                self._warm_up()
                self.ready.set()
                if self.told:
                    self.told()
                while self._deadline is None or (self._load and time.perf_counter() < self._deadline):
                    self._turn()
            finally:
                self._end()

    def _warm_up(self) -> None:
        """Compile what a request would otherwise wait for: the steps of every batch size, with equal and with mixed
        sampling, and the decoder."""
        size, mixed = 1, self.tts.sampling.sampled(Sampling(temperature=0.8))
        prompt = self.tts.prompt(WARM_TEXT, None)
        while True:
            for second in [self.tts.sampling, mixed] if size > 1 else [self.tts.sampling]:
                decoding = self._new_decoding()
                for row in range(size):
                    config = replace(second if row else self.tts.sampling, max_tokens=5)
                    decoding.generation.insert(prompt, row, config)
                while (frame := decoding.generation.step()) is not None:
                    mx.eval(frame.codes)
            if size >= bucket(self.max_batch) or self._deadline is not None:
                break
            size *= 2
        codes = mx.zeros((1, 1, self.tts.codec.num_codebooks), mx.int32)
        mx.eval(self.tts.codec.decoder.step(codes, self.tts.codec.decoder.make_state()))

    def _turn(self) -> None:
        """Do what came in, let waiting jobs join, and make a frame of every row."""
        self._take(wait=not (self._running or self._queue))
        self._admit()
        if not self._running:
            return
        try:
            pieces = self.decoding.step()
        except Exception:
            log.exception("the batch failed; its speeches are lost, the next ones begin anew")
            self._lose(EngineFault("the server failed while speaking; its log says why"))
            return
        for number, error in self.decoding.generation.failed.items():
            utterance = self.decoding.spoken.pop(number, None)
            if utterance is not None and utterance in self._running:
                self._finish(self._running.pop(utterance), Failed(error))
        self.decoding.generation.failed.clear()
        if pieces is None:  # all wait for text
            self._take(wait=True)
            return
        self.counts["steps"] += 1
        self.counts["rows"] += len(self._running)
        for piece in pieces:
            self._hear(piece.utterance, np.array(piece.audio), len(piece.codes))
        for utterance, job in list(self._running.items()):
            if utterance.finish_reason and not utterance.held:
                del self._running[utterance]
                self._next_piece(utterance, job)

    def _take(self, wait: bool) -> None:
        """Do what came in; wait: for something to come, or for the end of the time to stop. Functions that need the
        model have a little time each turn while others speak, the rest of them waits for the next."""
        limit = None if self._deadline is None else max(0.0, self._deadline - time.perf_counter())
        try:
            self._inbox.get(timeout=limit)() if wait else self._inbox.get_nowait()()
            start = time.perf_counter()
            while time.perf_counter() < start + PATIENCE:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _admit(self) -> None:
        while self._queue and self.decoding.generation.talking < self.max_batch:
            job = self._queue.popleft()
            if not job.over:
                self._begin(job)

    def _begin(self, job: Job) -> None:
        """Give a job's next piece a row."""
        try:
            plan = self.tts.planner.plan(job.requests.popleft(), job.schedule, Notes(quiet=True))
        except Exception as error:
            if not isinstance(error, QwenTTSError):
                log.exception("a request could not be planned")
                error = EngineFault("the server failed while preparing the speech; its log says why")
            self._finish(job, Failed(error))
            return
        job.plan, job.tokens = plan, job.tokens + plan.positions
        self.decoding.add(plan.utterance)
        self._running[plan.utterance] = job

    def _hear(self, utterance: Utterance, samples: np.ndarray, frames: int) -> None:
        job = self._running.get(utterance)
        if job is None:  # cancelled meanwhile
            return
        if job.first_sound is None:
            job.first_sound = time.perf_counter() - job.asked
            self.counts["first_sounds"] += 1
            self.counts["first_sound_milliseconds"] += round(1000 * job.first_sound)
        job.frames += frames
        self.counts["frames"] += frames
        job.deliver(Sound(samples, frames))

    def _next_piece(self, utterance: Utterance, job: Job) -> None:
        """What follows a piece that has been spoken: the next one, or the end."""
        assert job.plan is not None, "it was spoken"
        note_cut(job.plan, "the speech")
        job.warnings.update(dict.fromkeys(job.plan.notes))
        job.plan = None
        if not job.requests or utterance.finish_reason != "stop":
            self._finish(job, self._ended(job, str(utterance.finish_reason)))
        elif self._queue:
            self._queue.append(job)
        else:
            self._begin(job)

    def _ended(self, job: Job, reason: str) -> Ended:
        return Ended(reason, job.tokens, job.frames, time.perf_counter() - job.asked, tuple(job.warnings))

    def _finish(self, job: Job, event: Ended | Failed) -> None:
        """A job is over; its place is free."""
        if job.over:
            return
        job.over = True
        with self._places:
            self._load -= 1
        seconds = time.perf_counter() - job.asked
        self._job_seconds += 0.2 * (seconds - self._job_seconds)
        self.counts[event.finish_reason if isinstance(event, Ended) else "failed"] += 1
        job.deliver(event)

    def _drop(self, job: Job) -> None:
        """Take out a job that nobody wants."""
        if job.over:
            return
        job.over, job.deliver = True, _ignore
        with self._places:
            self._load -= 1
        self.counts["cancelled"] += 1
        if job in self._queue:
            self._queue.remove(job)
        for utterance in [one for one, other in self._running.items() if other is job]:
            del self._running[utterance]
            self.decoding.remove(utterance)

    def _lose(self, error: Exception) -> None:
        """Every running speech failed; what is computed on is made anew."""
        jobs = list(self._running.values())
        self._running.clear()
        self.decoding = self._new_decoding()
        for job in jobs:
            self._finish(job, Failed(error))

    def _end(self) -> None:
        """Cut what is spoken, refuse what waits, answer every function that was handed in."""
        with self._places:
            self._deadline = self._deadline or 0.0
        for piece in self.decoding.decode(list(self._running)):
            self._hear(piece.utterance, np.array(piece.audio), len(piece.codes))
        for job in list(self._running.values()):
            self._finish(job, self._ended(job, "interrupted"))
        self._running.clear()
        for _ in itertools.repeat(None):
            try:
                self._inbox.get_nowait()()
            except queue.Empty:
                break
        for job in list(self._queue):
            self._finish(job, Failed(Stopping("the server is stopping; try again in a moment", 2)))
        self._queue.clear()
        mx.synchronize()


def _nothing() -> None:
    """Wakes the worker."""


def _ignore(event: Event) -> None:
    """Delivers to nobody."""
