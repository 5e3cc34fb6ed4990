"""Frames to sound while they are made: utterances of any number, their chunks on growing schedules.

The decoder streams exactly, so every schedule and every company gives the same sound. B utterances.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import mlx.core as mx

from ..errors import InvalidValue, WrongType
from ..networks.codec.decoder import CodecDecoder, State
from .loop import Frame, Generation
from .morph import Morph
from .prompt import Prompt
from .sampling import GenerationConfig

# Frames of each chunk, the last number for all that follow: sound at once, then ever fewer interruptions.
SCHEDULE = (1, 2, 4, 8, 12)
MOST = 32  # frames of all utterances together in one call of the decoder: memory grows with them


def check_schedule(schedule: object) -> tuple[int, ...]:
    """A schedule as a tuple of positive integers, or an error that says what is wrong with it."""
    if not isinstance(schedule, tuple | list) or not all(type(size) is int for size in schedule):
        raise WrongType(f"chunks must be a list of integers (frames), not {schedule!r}", param="chunks")
    if not schedule or min(schedule) < 1:
        raise InvalidValue(f"chunks {list(schedule)} must be one or more frames each", param="chunks")
    return tuple(schedule)


class Part(NamedTuple):
    """A stretch of an utterance that has a prompt of its own: all of it, or a sentence."""

    prompt: Prompt
    seed: int
    config: GenerationConfig
    morph: Morph | None = None


@dataclass(eq=False)
class Utterance:
    """One text that is spoken: what is to be said, and while it is said, how far it is.

    following: function from the frames spoken so far to the Part that comes next, or to how it ends where none does.
    schedule: frames of each chunk, the last number for all that follow. context: codes [frames, codebooks] of a
    reference, which the sound continues and which is not heard. paused: as of `Generation.insert`.

    frames: spoken so far; finish_reason: "stop" or "length" once it is over.
    """

    part: Part
    following: Callable[[int], Part | str] | None = None
    schedule: Sequence[int] = SCHEDULE
    context: mx.array | None = None
    paused: Callable[[], bool] | None = None
    frames: int = 0
    finish_reason: str | None = None
    state: State | None = None
    held: list[mx.array] = field(default_factory=list)  # codes [1, codebooks] of frames that are not decoded yet
    chunks: int = 0  # decoded so far

    @property
    def due(self) -> bool:
        """Whether it has frames enough for its next chunk, or for its last."""
        size = self.schedule[min(self.chunks, len(self.schedule) - 1)]
        return len(self.held) >= size or (bool(self.held) and self.finish_reason is not None)


class Piece(NamedTuple):
    """A decoded stretch of an utterance: audio [samples] within ±1, codes [frames, codebooks] int32."""

    utterance: Utterance
    audio: mx.array
    codes: mx.array


class Decoding:
    """Utterances that are spoken together: their rows in one Generation, their sound each through its own state.

    The pieces are under way when they come, not waited for.
    """

    def __init__(self, generation: Generation, decoder: CodecDecoder) -> None:
        self.generation, self.decoder = generation, decoder
        self.spoken: dict[int, Utterance] = {}  # by the number of their row
        self.ready: list[Piece] = []  # decoded and not handed out: Ctrl-C may come between two calls of the decoder

    def add(self, utterance: Utterance) -> None:
        """Speak an utterance too, from the next frame on."""
        self.spoken[self.generation.insert(*utterance.part, paused=utterance.paused)] = utterance

    def remove(self, utterance: Utterance) -> None:
        """Stop speaking an utterance; what it holds can still be had by `decode`."""
        for row, other in list(self.spoken.items()):
            if other is utterance:
                self.generation.remove(row)
                del self.spoken[row]

    def step(self) -> list[Piece] | None:
        """Make a frame of every utterance and decode what is due; None where none is left."""
        frame = self.generation.step()
        if frame is None:
            return None
        touched = self._take(frame)
        # Frames that wait for text would wait with it: they are heard first.
        waiting = {id(self.spoken[row]) for row in frame.waits if row in self.spoken}
        return self.decode([one for one in touched if one.due or (one.held and id(one) in waiting)])

    def _take(self, frame: Frame) -> list[Utterance]:
        """Give every utterance its codes and its end; those that got something."""
        touched = {}
        for place, row in enumerate(frame.rows):
            if row in self.spoken:
                one = touched[row] = self.spoken[row]
                one.held.append(frame.codes[place : place + 1] if len(frame.rows) > 1 else frame.codes)
                one.frames += 1
        for row, reason in frame.ended.items():
            if row not in self.spoken:
                continue
            one = touched[row] = self.spoken.pop(row)
            following = one.following(one.frames) if one.following and reason == "stop" else reason
            if isinstance(following, str):
                one.finish_reason = following
            else:
                one.part = following
                self.add(one)
        return list(touched.values())

    def decode(self, utterances: Sequence[Utterance]) -> list[Piece]:
        """Decode what utterances hold, as many as can be in one call of the decoder."""
        holding = sorted((one for one in utterances if one.held), key=_held)
        for count, group in itertools.groupby(holding, key=_held):
            alike, size = list(group), max(1, MOST // count)
            for start in range(0, len(alike), size):
                self._decode(alike[start : start + size])
        pieces, self.ready = self.ready, []
        return pieces

    def _decode(self, utterances: list[Utterance]) -> None:
        """Decode utterances that hold equally many frames, in one call."""
        codes = [mx.concatenate(one.held).astype(mx.int32) for one in utterances]
        state = State.stack([self._state(one) for one in utterances])
        together = codes[0][None] if len(codes) == 1 else mx.stack(codes)
        audio = mx.clip(self.decoder.step(together, state), -1, 1)
        states, sounds = state.rows(len(utterances)), [audio[i] for i in range(len(utterances))]
        mx.async_eval(*sounds, *codes, *(array for own in states for array in own.arrays))
        for one, own, sound, said in zip(utterances, states, sounds, codes, strict=True):
            # Not before: Ctrl-C may come at any time, and then this is done again.
            one.held, one.state, one.chunks = [], own, one.chunks + 1
            self.ready.append(Piece(one, sound, said))

    def _state(self, one: Utterance) -> State:
        if one.state is None:
            state = self.decoder.make_state()
            if one.context is not None:
                self.decoder.skip(one.context[None], state)
            one.state = state
        return one.state


def _held(one: Utterance) -> int:
    return len(one.held)
