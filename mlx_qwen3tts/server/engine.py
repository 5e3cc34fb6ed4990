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
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import mlx.core as mx
import numpy as np

from ..errors import QwenTTSError
from ..synthesis.decoding import SCHEDULE, Decoding, Utterance
from ..synthesis.frame import bucket
from ..synthesis.planning import Notes
from ..synthesis.request import Request, Sampling, following_seeds
from ..synthesis.speech import note_ending, wired_limit
from .jobs import Busy, Ended, EngineFault, Event, Failed, Job, Over, Sound, Stopping, Turn

if TYPE_CHECKING:
    from ..synthesis.tts import Qwen3TTS
    from ..voices.voice import Voice

T = TypeVar("T")

log = logging.getLogger(__name__)

CLOSE = (1, 2, 4)  # frames of each chunk where the listener is followed closely
WHOLE = (16,)  # frames of every chunk where nobody listens yet: fewer calls of the decoder, none of them long
BACKLOG = 60  # seconds of sound that may wait for a slow reader before the next piece of a long text is spoken
PATIENCE = 0.02  # seconds of each turn for functions, while speech is under way
YIELD = 0.01  # seconds that a first sound has to get on its way
WARM_TEXT = "Hello."


class Engine:
    """Speaks Jobs with one model. A context manager: starts the worker, and stops it.

    counts: totals since the start, by name, for whoever watches; written in the worker alone.
    """

    def __init__(
        self,
        tts: Qwen3TTS,
        max_batch: int = 8,
        max_queue: int = 16,
        told: Callable[[], object] | None = None,
        warm: Callable[[], object] | None = None,
    ) -> None:
        """max_batch: speeches at once; max_queue: how many more may wait; told: called once it can speak; warm: called
        before that, for what else is to be compiled."""
        self.tts, self.max_batch, self.max_queue = tts, max_batch, max_queue
        self.counts: collections.Counter[str] = collections.Counter()
        self.ready, self.told, self.warm = threading.Event(), told, warm  # ready: everything is compiled
        self.fault: Exception | None = None  # what ended the worker, where nobody stopped it
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._queue: collections.deque[Job] = collections.deque()
        self._running: dict[Utterance, Job] = {}
        self._places = threading.Lock()  # of `load` and `_closed`, and of what may still come into the inbox
        self.load = 0  # jobs handed in and not over: they are spoken, or wait
        self._silent = 0  # those among them that wait for text
        self._closed = False  # nobody looks into the inbox any more
        self._job_seconds = 5.0  # how long a job has a row, a running mean, to tell when to try again
        self._deadline: float | None = None  # once it is being stopped
        self.thread = threading.Thread(target=self._run, name="mlx_qwen3tts engine")
        self.decoding = self._new_decoding()

    def _new_decoding(self) -> Decoding:
        generation = self.tts.generation([], [], self.tts.sampling)
        generation.sets_aside, generation.most = True, self.max_batch
        return Decoding(generation, self.tts.codec.decoder)

    # For other threads

    def __enter__(self) -> Engine:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        return self.thread.is_alive() and not self._closed

    def check_room(self) -> None:
        """Busy where a speech would be refused now."""
        if not self.ready.is_set() or self._deadline is not None or not self.alive:
            raise Stopping("the server is starting or stopping; try again in a moment", 2)
        # Who waits for text holds up nobody, but a row that stands aside takes memory: as many again may.
        places = self.max_batch + self.max_queue
        if self.load - self._silent >= places or self.load >= 2 * places:
            # A row is free every _job_seconds / max_batch.
            wait = math.ceil(self._job_seconds * (1 + self.load - self.max_batch) / self.max_batch)
            message = f"{self.load} speeches are spoken or waiting, which is all there is room for"
            raise Busy(message, min(600, max(1, wait)))

    def submit(
        self,
        requests: Sequence[Request],
        deliver: Callable[[Event], object],
        stream: bool = True,
        seed: int | None = None,
        lead: float | None = None,
        turns: Sequence[Turn] = (),
    ) -> Job:
        """Have Requests, the pieces of one speech, spoken one after another. Busy where there is no place.

        stream: whether somebody listens while it is spoken; seed: of the first piece, drawn where None; the next ones
        have the numbers that follow; lead: seconds of sound that may wait for the listener, None for any number; turns:
        of its voice.
        """
        seed = secrets.randbits(32) if seed is None else seed
        pieces = (_seeded(request, (seed + number) % 2**32) for number, request in enumerate(requests))
        samples = None if lead is None else round(lead * self.tts.sample_rate)
        schedule = WHOLE if not stream else SCHEDULE if lead is None else CLOSE
        job = Job(collections.deque(pieces), deliver, schedule, seed, stream, samples, turns)
        with self._places:
            self.check_room()
            self.load += 1
            self._inbox.put(lambda: self._queue.append(job))  # under the lock: nothing comes after the end
        return job

    def cancel(self, job: Job) -> None:
        """Nobody wants a job any more: its row is free within two frames, and nothing more is delivered."""
        self._inbox.put(lambda: self._drop(job))

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run a function that needs the model or MLX between two frames; its Future, with whatever it raised."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 (it goes to who asked, who is in another thread)
                future.set_exception(error)

        with self._places:
            if self.alive:
                self._inbox.put(run)
            else:
                future.set_exception(Stopping("the server is stopping; try again in a moment", 2))
        return future

    def steer(self, job: Job, voice: Voice, seconds: float) -> Future[int]:
        """Move the voice of a running speech to another one within so many seconds, from its next frame on; the Future
        of that frame's number. UnsupportedValue where its voice cannot move; Over where nothing more is spoken."""

        def steered() -> int:
            if job.over:
                raise Over("the speech is over", param="voice")
            return job.steer(voice, seconds, self.tts)

        return self.call(steered)

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
        if self.thread.ident is not None:  # it was started
            self.thread.join()

    # The worker

    def _run(self) -> None:
        with wired_limit():
            try:
                self.warm_up()
                if self.warm and self._deadline is None:
                    self.warm()
                if self._deadline is None:
                    self.ready.set()
                    if self.told:
                        self.told()
                while self._deadline is None or (self.load and time.perf_counter() < self._deadline):
                    self._turn()
            except Exception as error:
                log.exception("the worker that owns the model ends with a fault")
                self.fault = error
            finally:
                self.end()

    def warm_up(self) -> None:
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
        self.take(wait=not self._running and all(self._behind(job) for job in self._queue))
        self._admit()
        if not self._running:
            self._silent = 0
            return
        try:
            pieces = self.decoding.step()
            sounds = [(piece.utterance, np.array(piece.audio), len(piece.codes)) for piece in pieces or []]
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
            self._silent = len(self._running)
            self.take(wait=True)
            return
        self.counts["steps"] += 1
        self.counts["rows"] += len(self._running)
        new = [self._running[one] for one, _, _ in sounds if one in self._running and not self._running[one].given]
        for utterance, samples, frames in sounds:
            self._hear(utterance, samples, frames)
        for job in new:
            # Let whoever sends a first sound have Python's lock: building the next frame's graph holds it for long.
            if job.heard is not None:  # it tells
                job.taken.wait(YIELD)
        for utterance, job in list(self._running.items()):
            if utterance.finish_reason and not utterance.held:
                del self._running[utterance]
                self._next_piece(utterance, job)
        self._silent = min(len(self._running), len(self.decoding.generation.aside))

    def take(self, wait: bool) -> None:
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
        """Give rows to those who wait, in their order; who has not heard enough of what there is yet waits on."""
        for job in [job for job in self._queue if not self._behind(job)]:
            if self.decoding.generation.talking >= self.max_batch:
                break
            self._queue.remove(job)
            if not job.over:
                self._begin(job)

    def _begin(self, job: Job) -> None:
        """Give a job's next piece a row."""
        try:
            request = job.requests.popleft()
            plan = self.tts.planner.plan(request, job.schedule, Notes(quiet=True), capped=True)
            job.begin(plan, request, self.tts)
        except Exception as error:
            if not isinstance(error, QwenTTSError):
                log.exception("a request could not be planned")
                error = EngineFault("the server failed while preparing the speech; its log says why")
            self._finish(job, Failed(error))
            return
        job.begun = job.begun or time.perf_counter()
        plan.utterance.listened = job.listened
        self.decoding.add(plan.utterance)
        self._running[plan.utterance] = job

    def _hear(self, utterance: Utterance, samples: np.ndarray, frames: int) -> None:
        job = self._running.get(utterance)
        if job is None:  # cancelled meanwhile
            return
        if job.first_sound is None:
            job.seed = job.plan.seed if job.plan else job.seed
            job.first_sound = time.perf_counter() - job.asked
            self.counts["first_sounds"] += 1
            self.counts["first_sound_milliseconds"] += round(1000 * job.first_sound)
        job.frames += frames
        job.given += len(samples)
        self.counts["frames"] += frames
        self._deliver(job, Sound(samples, frames))

    def _deliver(self, job: Job, event: Event) -> None:
        """Tell who listens. Who cannot be told has left, and nobody else is to suffer from it."""
        try:
            job.deliver(event)
        except Exception:
            log.exception("a listener failed; its speech is dropped")
            self._drop(job)

    def _next_piece(self, utterance: Utterance, job: Job) -> None:
        """What follows a piece that has been spoken: the next one, or the end."""
        assert job.plan is not None, "it was spoken"
        note_ending(job.plan, "the speech")
        job.warnings.update(dict.fromkeys(job.plan.notes))
        job.plan = None
        if utterance.attempts:
            self.counts["retries"] += len(utterance.attempts.made) - 1
            self.counts["guard_failures"] += utterance.attempts.failed is not None
            failed, before = utterance.attempts.failed, job.guard or "passed"
            job.guard = failed if failed and before == "passed" else before
        # Where somebody listens, what the guard has cut is the end: they have heard it go wrong.
        goes_on = utterance.finish_reason == "stop" or (utterance.finish_reason == "guard" and not job.listened)
        if not job.requests or not goes_on:
            self._finish(job, self._ended(job, str(utterance.finish_reason)))
        elif self._queue or self._behind(job):
            self._queue.append(job)
        else:
            self._begin(job)

    def _behind(self, job: Job) -> bool:
        """Whether enough of a speech waits for its listener."""
        return job.unheard > BACKLOG * self.tts.sample_rate

    def caught_up(self, job: Job, heard: int) -> None:
        """Note how many samples the listener of a job has taken; called in its thread."""
        behind, job.heard = self._behind(job) or job.paused(), heard
        if heard:
            job.taken.set()
        if behind and not (self._behind(job) or job.paused()):
            self.wake()

    def _ended(self, job: Job, reason: str) -> Ended:
        seconds = time.perf_counter() - job.asked
        return Ended(reason, job.tokens, job.frames, seconds, tuple(job.warnings), job.guard)

    def _finish(self, job: Job, event: Ended | Failed) -> None:
        """A job is over; its place is free."""
        if job.over:
            return
        job.over = True
        with self._places:
            self.load -= 1
        if job.begun is not None:
            self._job_seconds += 0.2 * (time.perf_counter() - job.begun - self._job_seconds)
        self.counts[event.finish_reason if isinstance(event, Ended) else "failed"] += 1
        self._deliver(job, event)

    def _drop(self, job: Job) -> None:
        """Take out a job that nobody wants."""
        if job.over:
            return
        job.over, job.deliver = True, _ignore
        with self._places:
            self.load -= 1
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

    def end(self) -> None:
        """Cut what is spoken, refuse what waits, answer every function that was handed in."""
        with self._places:
            self._closed = True
        try:
            for piece in self.decoding.decode(list(self._running)):
                self._hear(piece.utterance, np.array(piece.audio), len(piece.codes))
        except Exception:
            log.exception("the last sound of %d speeches is lost", len(self._running))
        event = Stopping("the server is stopping; try again in a moment", 2)
        for job in list(self._running.values()):
            lost = Failed(EngineFault("the server failed while speaking; its log says why"))
            self._finish(job, lost if self.fault else self._ended(job, "interrupted"))
        self._running.clear()
        for _ in itertools.repeat(None):
            try:
                self._inbox.get_nowait()()
            except queue.Empty:
                break
        for job in list(self._queue):
            self._finish(job, Failed(event))
        self._queue.clear()
        mx.synchronize()
        mx.clear_streams()  # this thread's own: where they outlive it, MLX may abort at the process's end


def _seeded(request: Request, seed: int) -> Request:
    """A Request with a seed that the server has chosen; a guarded one has those of its retries."""
    return replace(request, seed=seed, guard=following_seeds(seed) if request.guard else False)


def _nothing() -> None:
    """Wakes the worker."""


def _ignore(event: Event) -> None:
    """Delivers to nobody."""
