"""What the engine is handed, and what it tells: jobs, their events, and why some are refused."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import InvalidValue, QwenTTSError, UnsupportedValue
from ..synthesis.planning import Notes, Plan
from ..synthesis.request import Request
from ..synthesis.steering import Course, Steering
from ..voices.voice import Voice

if TYPE_CHECKING:
    from ..synthesis.tts import Qwen3TTS


class Busy(QwenTTSError):
    """There is no place in the queue, or the server is stopping. retry_after: seconds until it makes sense to try."""

    code = "queue_full"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Stopping(Busy):
    """The server is being stopped, or has not started yet."""

    code = "busy"


class Over(QwenTTSError):
    """The speech is over, or there was none."""

    code = "not_found"


class EngineFault(RuntimeError):
    """A fault of ours ended a speech; its traceback is in the log."""


@dataclass(frozen=True, eq=False)
class Sound:
    """samples [n] float32 within ±1, which follow those before; frames: of codes that they are."""

    samples: np.ndarray
    frames: int


@dataclass(frozen=True)
class Ended:
    """The end of a speech. finish_reason: "stop", "length" (cut at max_tokens), "guard" (cut by the guard) or
    "interrupted" (the server stopped).

    tokens: positions of the prompts; frames: spoken; elapsed: seconds since it was handed in; warnings: what was said
    about it; guard: "passed" or what was wrong, None where nobody guarded it.
    """

    finish_reason: str
    tokens: int
    frames: int
    elapsed: float
    warnings: tuple[str, ...]
    guard: str | None = None


@dataclass(frozen=True)
class Failed:
    """The end of a speech that could not be spoken, or not to its end."""

    error: Exception


Event = Sound | Ended | Failed


class Turn(NamedTuple):
    """From a frame of a speech on its voice moves to another one, within so many seconds."""

    frame: int
    voice: Voice
    seconds: float


@dataclass(eq=False)
class Job:
    """A speech that was asked for, and how far it is. `deliver` is called in the engine's thread with each Event; it
    must neither wait nor raise.

    seed: the first piece is spoken with it, which a retry changes. listened: whether somebody listens while it is
    spoken. lead: samples that may wait for the listener, beyond which the speech pauses; None: it is spoken as fast as
    can be. turns: known from the start.
    """

    requests: collections.deque[Request]
    deliver: Callable[[Event], object]
    schedule: Sequence[int]
    seed: int
    listened: bool = False
    lead: int | None = None
    turns: Sequence[Turn] = ()
    asked: float = field(default_factory=time.perf_counter)
    begun: float | None = None  # when it had a row first
    plan: Plan | None = None
    tokens: int = 0
    frames: int = 0
    first_sound: float | None = None  # seconds after it was asked for
    warnings: dict[str, None] = field(default_factory=dict)  # in order, each once
    guard: str | None = None  # "passed" or what was wrong first; None where nobody guards it
    over: bool = False
    taken: threading.Event = field(default_factory=threading.Event)  # whether the first sound is on its way
    given: int = 0  # samples delivered so far
    heard: int | None = None  # samples that the listener has taken, written by it; None where it does not tell
    course: Course | None = None  # of its voice; None before it begins, and where the voice cannot move
    fixed: str = ""  # why it cannot

    @property
    def unheard(self) -> int:
        """Samples that wait for a listener who reads slowly."""
        return 0 if self.heard is None else self.given - self.heard

    def paused(self) -> bool:
        """Whether enough is made for now."""
        return self.lead is not None and self.unheard > self.lead

    def begin(self, plan: Plan, request: Request, tts: Qwen3TTS) -> None:
        """Take up the plan of the next piece. Its voice goes on from where the one of the piece before is."""
        self.plan, self.tokens = plan, self.tokens + plan.positions
        plan.utterance.paused = self.paused
        part, voice = plan.utterance.part, plan.voice
        if voice is None:
            self.fixed = "a voice_design model has no speaker slot, so there is nothing to steer"
        elif voice.ref_codes is not None:
            self.fixed = "a voice that is steered must be a vector: reference codes keep their speaker"
        elif request.morph is not None:
            self.fixed = "this speech changes its voice by itself (morph_to)"
        elif self.course is None:
            self.course = Course(voice.embedding)
            for turn in self.turns:
                self.steer(turn.voice, turn.seconds, tts, turn.frame)
        if self.course is None:
            if self.turns:
                raise UnsupportedValue(self.fixed, param="steering")
            return
        steering = Steering(tts.talker, part.prompt, self.course, self.frames)
        plan.utterance.part = part._replace(prompt=steering.prompt, morph=steering)

    def steer(self, voice: Voice, seconds: float, tts: Qwen3TTS, frame: int | None = None) -> int:
        """Move the voice to another one within so many seconds, from a frame of the speech on (None: the next one).
        Returns that frame. Called in the engine's thread."""
        if self.course is None:
            if self.fixed:
                raise UnsupportedValue(self.fixed, param="voice")
            raise InvalidValue("the speech has not begun; steer it once its first sound has come", param="voice")
        notes = Notes(quiet=True)
        target = tts.planner.resolve(voice, notes, "none")
        assert target is not None, "the speech has a voice, so the model takes one"
        self.warnings.update(dict.fromkeys(notes))
        frame = self.next_frame if frame is None else frame
        self.course.steer(
            frame, target.embedding, max(1, round(seconds * tts.sample_rate / tts.codec.samples_per_frame))
        )
        return frame

    @property
    def next_frame(self) -> int:
        """The first frame that has not been put under way, counted from the beginning of the speech."""
        steering = None if self.plan is None else self.plan.utterance.part.morph
        return steering.before + steering.frame if isinstance(steering, Steering) else self.frames
