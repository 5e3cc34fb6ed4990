"""What speaking gives: Speech, whole, or a SpeechStream of Chunks."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import mlx.core as mx
import numpy as np

from ..audio.stretch import Stretch, stretched, stretched_length
from ..audio.writing import wav_samples, write_audio
from ..networks.process import computing
from ..provenance.origin import Origin
from ..provenance.seal import Seal
from .decoding import Piece
from .morph import FRAMES_PER_TOKEN
from .watch import Attempt, expected_too_long

if TYPE_CHECKING:
    from .decoding import Decoding
    from .planning import Plan


@dataclass(eq=False, repr=False)
class Speech:
    """audio [samples] float32 within ±1; codes [frames, codebooks] int32; finish_reason: "stop", "length" (cut at
    max_tokens), "guard" (cut by the guard) or "interrupted".

    stats: seconds of audio, frames, elapsed seconds, rtf, frames_per_second, peak_memory (bytes), seed; where chunks
    were waited for, also first_audio and largest_gap (seconds). In a batch elapsed, rtf and frames_per_second are those
    of the whole batch. warnings: what was said about this speech, such as that it was cut or what it does not know.
    attempts: of a guarded speech, in order; failed: what the guard found wrong with the one that was kept, a key of
    `watch.CHECKS`, None where nothing is. origin: what its file's tags say of it.
    """

    audio: mx.array
    sample_rate: int
    codes: mx.array
    finish_reason: str
    stats: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    failed: str | None = None
    origin: Origin | None = None

    def __repr__(self) -> str:
        seconds = self.audio.shape[0] / self.sample_rate
        return f"Speech({seconds:.2f} s, {len(self.codes)} frames, {self.finish_reason})"

    def save(self, file: str | Path | BinaryIO, format: str | None = None, seal: Seal | None = None) -> None:
        """Write a sound file: to a path, where it appears whole or not at all, or to a binary file object.

        format: "wav", "flac", "mp3" or "ogg"; by default that of the path's extension, and of a file object "wav". Its
        tags say that it is synthetic speech, and what `origin` does; seal: what is put on it besides.
        """
        seal = Seal() if seal is None else seal
        samples, tags = seal.marked(np.array(self.audio), self.sample_rate), seal.tags(self.origin)
        write_audio(file, samples, self.sample_rate, format, tags, seal.signing(self.origin))

    def pcm16(self) -> bytes:
        """The samples as 16-bit little-endian integers, mono, as players and sockets take them; no header."""
        return wav_samples(np.array(self.audio), self.sample_rate)


@dataclass(eq=False, repr=False)
class Chunk:
    """A piece of a speech, decoded: audio [samples] float32 within ±1; sample_rate; codes [frames, codebooks] int32.

    At a rate other than 1 the sound lags 30 ms behind its codes, and a last chunk without codes brings the rest.
    """

    audio: mx.array
    sample_rate: int
    codes: mx.array

    def pcm16(self) -> bytes:
        """The samples as 16-bit little-endian integers, mono; no header."""
        return wav_samples(np.array(self.audio), self.sample_rate)

    def __repr__(self) -> str:
        return f"Chunk({self.audio.shape[0] / self.sample_rate:.2f} s, {len(self.codes)} frames)"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while speaking; `speeches` is what was made so far, `numbers` of which of several texts each is."""

    def __init__(self, speeches: Sequence[Speech], numbers: Sequence[int] = (0,)) -> None:
        super().__init__("interrupted")
        self.speeches, self.numbers = list(speeches), list(numbers)

    @property
    def speech(self) -> Speech:
        return self.speeches[0]


class Wired:
    """How many speak, in whichever threads, with the limit raised, and what it was before the first of them."""

    def __init__(self) -> None:
        self.lock, self.speaking, self.before = threading.Lock(), 0, 0


_wired = Wired()


@contextlib.contextmanager
def wired_limit() -> Iterator[None]:
    """Keep the weights in a Mac's memory while anyone speaks, as mlx-lm does; elsewhere there is nothing to do."""
    if not mx.metal.is_available():
        yield
        return
    limit = int(mx.device_info()["max_recommended_working_set_size"])
    held = mx.get_active_memory()
    if held > 0.9 * limit:
        warnings.warn(
            f"the model takes {held / 1e9:.1f} GB, close to the {limit / 1e9:.1f} GB that this Mac keeps in memory; "
            "it may be slow, quantise it",
            stacklevel=3,
        )
    with _wired.lock:
        if not _wired.speaking:
            _wired.before = mx.set_wired_limit(limit)
        _wired.speaking += 1
    try:
        yield
    finally:
        mx.synchronize()
        with _wired.lock:
            _wired.speaking -= 1
            if not _wired.speaking:
                mx.set_wired_limit(_wired.before)


def make_stats(seconds: float, frames: int, start: float, **more: float) -> dict[str, Any]:
    """The statistics of a speech that was begun at `start` (of time.perf_counter) and is done now."""
    elapsed = time.perf_counter() - start
    return {
        "seconds": seconds,
        "frames": frames,
        "elapsed": elapsed,
        "rtf": elapsed / seconds if seconds else None,
        "frames_per_second": frames / elapsed,
        "peak_memory": mx.get_peak_memory(),
        **more,
    }


def note_ending(plan: Plan, called: str) -> None:
    """Say so where a speech was cut or failed the guard; called: what the warning calls it."""
    config, attempts = plan.config, plan.utterance.attempts
    if attempts and plan.failed:
        plan.notes.warn(f"{called} failed the guard ({attempts.summary}); what is kept has seed {plan.seed}")
    elif plan.utterance.finish_reason == "length":
        if expected_too_long(plan.text.tokens, config.max_tokens):
            needed = round(FRAMES_PER_TOKEN * plan.text.tokens)
            way_out = f"raise max_tokens or split the text, which should take some {needed}"
        else:
            way_out = "raise max_tokens or try another seed" if config.do_sample else "raise max_tokens"
        plan.notes.warn(f"{called} did not end within {config.max_tokens} tokens and was cut; {way_out}")


def ending(plan: Plan) -> Piece:
    """A Piece without sound and codes, which says that there are no more."""
    return Piece(plan.utterance, mx.zeros((0,)), mx.zeros((0, plan.codebooks), mx.int32))


class Made:
    """What was made of one Plan so far, to be joined to a Speech."""

    def __init__(self, plan: Plan, sample_rate: int) -> None:
        self.plan, self.sample_rate = plan, sample_rate
        self.audio: list[mx.array] = []
        self.codes: list[mx.array] = []

    def add(self, piece: Piece) -> None:
        self.audio.append(piece.audio)
        self.codes.append(piece.codes)

    @property
    def seconds(self) -> float:
        return stretched_length(sum(audio.shape[0] for audio in self.audio), self.plan.rate) / self.sample_rate

    def speech(self, stats: dict[str, Any]) -> Speech:
        """All of it at its rate, evaluated, so that any thread may use it."""
        nothing = ending(self.plan)  # where it was closed at once
        audio, codes = mx.concatenate(self.audio or [nothing.audio]), mx.concatenate(self.codes or [nothing.codes])
        if self.plan.rate != 1:
            audio = mx.array(stretched(np.array(audio), self.sample_rate, self.plan.rate))
        mx.eval(audio, codes)
        plan, reason = self.plan, self.plan.utterance.finish_reason or "interrupted"
        told = tuple(plan.notes), plan.attempts, plan.failed, plan.origin
        return Speech(audio, self.sample_rate, codes, reason, stats, *told)


class SpeechStream:
    """Iterate to get Chunks, each as soon as it is decoded. `close()`, or losing it, ends the work and frees it.

    Once it is over: `finish_reason` ("interrupted" where it was closed), and `stats`, `warnings`, `attempts` and
    `failed` as of Speech. A guarded stream begins with the first frame that is not silence: up to there it may be
    spoken again; what goes wrong later ends it.
    """

    def __init__(
        self,
        decoding: Decoding,
        plan: Plan,
        sample_rate: int,
        start: float,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """decoding: of the plan's utterance; start: when it was asked for, of time.perf_counter; progress: called with
        the number of frames made so far."""
        self._decoding: Decoding | None = decoding
        self._plan, self._rate, self._start, self._progress = plan, sample_rate, start, progress
        self._stretch = None if plan.rate == 1 else Stretch(sample_rate, plan.rate)
        self._times: list[float] = []
        self._samples = self._frames = 0
        self.finish_reason: str | None = None
        self.stats: dict[str, Any] = {}
        self._pieces, self._begun = self._run(), False
        self._closed, self._turn = threading.Event(), threading.Lock()
        self._taker: int | None = None  # the thread that has the turn

    def __iter__(self) -> SpeechStream:
        return self

    def __next__(self) -> Chunk:
        self._begun = self._plan.utterance.listened = True
        with self._taking():
            return self._chunk(next(self._pieces))

    def __enter__(self) -> SpeechStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _taking(self) -> Iterator[None]:
        """The turn to take chunks, which one thread at a time has. RuntimeError for the one that has it already."""
        if self._taker == threading.get_ident():
            raise RuntimeError(
                "this stream is in the middle of a chunk: take the next one after its callback or its text has returned"
            )
        with self._turn, computing():
            self._taker = threading.get_ident()
            try:
                yield
            finally:
                self._taker = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was said about this speech so far."""
        return tuple(self._plan.notes)

    @property
    def origin(self) -> Origin:
        """What tags say of this speech; its seed is certain from the first chunk on."""
        return self._plan.origin

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Those of a guarded speech that are over."""
        return self._plan.attempts

    @property
    def failed(self) -> str | None:
        """What the guard found wrong, a key of `watch.CHECKS`."""
        return self._plan.failed

    def close(self) -> None:
        """Stop speaking and let go of everything. Chunks that were handed out stay as they are.

        Another thread may call this while one waits for a chunk: that one then gets what was made so far as the last
        chunk, and `speech` returns what there is.
        """
        self._begun = True
        self._closed.set()
        if self._turn.acquire(blocking=False):  # nobody is in the middle of a chunk
            try:
                self._pieces.close()
                if self.finish_reason is None:  # it had not begun
                    self._finish()
                self._plan.utterance.state, self._plan.utterance.held = None, []
            finally:
                self._turn.release()

    def speech(self, heard: Callable[[Chunk], object] | None = None) -> Speech:
        """All of it as Speech. heard: called with each Chunk as soon as it is decoded; without it nothing is waited for
        on the way. Raises Interrupted on Ctrl-C, RuntimeError where some of it has been taken already."""
        if self._begun:
            raise RuntimeError("the stream was begun already; ask for another one")
        self._begun, made = True, Made(self._plan, self._rate)
        self._plan.utterance.listened = heard is not None

        def take(piece: Piece) -> None:
            made.add(piece)
            if heard:
                heard(self._chunk(piece))

        decoding = self._decoding
        assert decoding is not None, "it has not begun"
        try:
            with self._taking(), contextlib.closing(self._pieces):  # which ends it where `heard` raises
                for piece in self._pieces:
                    take(piece)
            return made.speech(self._measure())
        except KeyboardInterrupt:
            for piece in decoding.decode([self._plan.utterance]):
                take(piece)
            if not made.audio:
                raise
            for piece in self._rest():
                take(piece)
            self._samples = sum(audio.shape[0] for audio in made.audio)
            self.stats = self._measure()
            raise Interrupted([made.speech(self.stats)]) from None

    def _run(self) -> Generator[Piece, None, None]:
        utterance, decoding = self._plan.utterance, self._decoding
        assert decoding is not None, "it runs once"
        decoding.add(utterance)
        try:
            with wired_limit():
                while not self._closed.is_set() and (pieces := decoding.step()) is not None:
                    decoding.ready = pieces  # meanwhile: Ctrl-C may come in `progress`
                    if self._progress and utterance.frames > self._frames:
                        self._progress(utterance.frames)
                    self._frames, decoding.ready = utterance.frames, []
                    for piece in pieces:
                        self._samples += piece.audio.shape[0]
                        yield piece
                if self._closed.is_set() and utterance.finish_reason is None:
                    for piece in decoding.decode([utterance]):
                        self._samples += piece.audio.shape[0]
                        yield piece
            note_ending(self._plan, "the speech")
            if self._samples:
                yield from self._rest()
        finally:
            self._finish()

    def _rest(self) -> list[Piece]:
        """What is to come once everything is decoded: an ending, where sound is held back until then."""
        return [ending(self._plan)] if self._stretch else []

    def _chunk(self, piece: Piece) -> Chunk:
        """What is heard of a piece at the speech's rate, evaluated."""
        audio = piece.audio
        if self._stretch:
            audio = mx.array(self._stretch.step(np.array(audio), last=not len(piece.codes)))
        mx.eval(audio, piece.codes)
        self._note_time()
        return Chunk(audio, self._rate, piece.codes)

    def _finish(self) -> None:
        self.finish_reason = self._plan.utterance.finish_reason or "interrupted"
        self.stats, self._decoding = self._measure(), None

    def _note_time(self) -> None:
        self._times.append(time.perf_counter() - self._start)

    def _measure(self) -> dict[str, Any]:
        stretch, frames = self._stretch, self._plan.utterance.frames
        whole = stretched_length(self._samples, self._plan.rate)
        samples = stretch.made if stretch and self._times else whole  # of what was heard, where somebody listened
        stats = make_stats(samples / self._rate, frames, self._start, seed=self._plan.seed)
        if self._times:
            gaps = [later - earlier for earlier, later in itertools.pairwise(self._times)]
            stats |= {"first_audio": self._times[0], "largest_gap": max(gaps, default=0.0)}
        return stats
