"""A voice that changes while it speaks.

The speaker vector fills one position of the prompt. Its keys and values, and those of what follows it in the prompt
(two more positions in the streaming layout), are recomputed from their cached prefix with the new vector and written
into the cache. Frames that are already spoken keep the old voice in theirs. Where that is too weak, each sentence can
have a prompt of its own. D dimension of a vector, E talker width (the same).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import mlx.core as mx

from ..errors import InvalidValue, VoiceError
from ..networks.cache import KVCache
from ..networks.talker import Talker
from ..voices.algebra import as_vectors
from ..voices.fit import check_refused
from ..voices.voice import Voice
from .prompt import Prompt

if TYPE_CHECKING:
    from typing import TypeAlias

    from .request import Vector

    VoiceAt: TypeAlias = Callable[[int], mx.array]

FRAMES_PER_TOKEN = 3.5  # of speech, to tell how long a text will take; measured are three to four


class Morph:
    """The voice of a prompt as a function of time, written into the caches before each frame.

    prompt: with the voice of the first frame; span: the positions (first, end) of the prompt that are written anew.
    """

    def __init__(self, talker: Talker, prompt: Prompt, voice_at: VoiceAt) -> None:
        """prompt: one with a speaker; voice_at: function from a frame's number to a vector [E]."""
        if prompt.speaker_position is None:
            raise InvalidValue("a voice_design model has no speaker slot, so there is nothing to change", param="morph")
        self.talker, self.voice_at = talker, voice_at
        self.prompt = replace(prompt, embeddings=prompt.spoken_by(voice_at(0)))
        mx.eval(self.prompt.embeddings)  # it may be spoken in another thread than this one
        self.span = prompt.speaker_position, prompt.embeddings.shape[0]

    def due(self, frame: int) -> bool:
        """Whether the caches do not hold the voice of a frame yet."""
        return True

    def revise(self, caches: list[KVCache], frame: int) -> None:
        """Put the voice of a frame into the caches of this prompt alone."""
        start, _ = self.span
        self.talker.revise(self.prompt.spoken_by(self.voice_at(frame))[None, start:], caches, start)


def path(start: mx.array, end: mx.array, frames: float) -> VoiceAt:
    """A function from a frame's number to a vector on the straight way from `start` to `end` [E], there at `frames`."""

    def at(frame: int) -> mx.array:
        t = min(1.0, frame / frames)
        return (1 - t) * start + t * end

    return at


def timed(morph: Callable[[float], Voice | Vector], seconds_a_frame: float, dimension: int) -> VoiceAt:
    """A function from a frame's number to what a user's function of the seconds gives, checked.
    InvalidValue for a Voice that has refused."""

    def at(frame: int) -> mx.array:
        given = morph(frame * seconds_a_frame)
        if isinstance(given, Voice):
            check_refused(given)
        try:
            vector = as_vectors(given, "morph: the vector")
        except VoiceError as error:
            error.param = "morph"
            raise
        if vector.ndim != 1 or vector.shape[0] != dimension:
            shape = list(vector.shape)
            message = f"morph: the vector has shape {shape}, this model takes [{dimension}]"
            raise InvalidValue(message, param="morph")
        return vector

    return at
