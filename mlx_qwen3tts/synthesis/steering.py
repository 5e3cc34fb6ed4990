"""A voice that is steered while it speaks: nobody knows beforehand where it is to go.

What a Morph is given as a function, a Course is told leg by leg. D dimension of a vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import mlx.core as mx

from .morph import Morph

if TYPE_CHECKING:
    from ..networks.cache import KVCache
    from ..networks.talker import Talker
    from .prompt import Prompt


class Leg(NamedTuple):
    """From `origin` [D] straight to `target` [D]: the first step at a frame, there `frames` - 1 frames later."""

    frame: int
    origin: mx.array
    target: mx.array
    frames: int


class Course:
    """A voice's way over the frames of a speech. It stands at `start` [D] and can be told to move at any frame."""

    def __init__(self, start: mx.array) -> None:
        self.start = start
        self.legs: list[Leg] = []

    def steer(self, frame: int, target: mx.array, frames: int) -> None:
        """From a frame on move to `target` [D] within so many frames (1: at once). What was to begin there or later is
        forgotten."""
        self.legs = [leg for leg in self.legs if leg.frame < frame]
        origin = self.at(frame - 1)
        mx.eval(origin)  # or every leg would be computed again in all that follow
        self.legs.append(Leg(frame, origin, target, frames))

    def at(self, frame: int) -> mx.array:
        """The vector [D] of a frame. Where the voice stands still it is the very same array each time."""
        leg = next((leg for leg in reversed(self.legs) if leg.frame <= frame), None)
        if leg is None:
            return self.start
        done = frame - leg.frame + 1
        # Not (1 - t) · origin + t · target, which rounds: a leg to where the voice is would change it.
        return leg.target if done >= leg.frames else leg.origin + (done / leg.frames) * (leg.target - leg.origin)


class Steering(Morph):
    """A prompt whose voice follows a Course. The cache is written anew only where the voice has moved.

    before: frames of the speech that were spoken with earlier prompts; frame: of this prompt, that comes next as far as
    is known, at least 1, as the first frame is made from the prompt itself.
    """

    def __init__(self, talker: Talker, prompt: Prompt, course: Course, before: int = 0) -> None:
        self.course, self.before, self.frame = course, before, 1
        super().__init__(talker, prompt, lambda frame: course.at(before + frame))
        self._written = course.at(before)

    def due(self, frame: int) -> bool:
        self.frame = frame + 1
        return self.voice_at(frame) is not self._written

    def revise(self, caches: list[KVCache], frame: int) -> None:
        super().revise(caches, frame)
        self._written = self.voice_at(frame)
