"""What the engine is handed, and what it tells: jobs, their events, and why some are refused."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import QwenTTSError
from ..synthesis.planning import Plan
from ..synthesis.request import Request


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
    begun: float | None = None  # when it had a row first
    plan: Plan | None = None
    tokens: int = 0
    frames: int = 0
    first_sound: float | None = None  # seconds after it was asked for
    warnings: dict[str, None] = field(default_factory=dict)  # in order, each once
    over: bool = False
    given: int = 0  # samples delivered so far
    heard: int | None = None  # samples that the listener has taken, written by it; None where it does not tell

    @property
    def unheard(self) -> int:
        """Samples that wait for a listener who reads slowly."""
        return 0 if self.heard is None else self.given - self.heard
