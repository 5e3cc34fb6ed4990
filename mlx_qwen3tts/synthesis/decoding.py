"""Frames to sound while they are made: chunks of samples on a growing schedule."""

import mlx.core as mx

from ..errors import InvalidValue, WrongType

# Frames of each chunk, the last number for all that follow: sound at once, then ever fewer interruptions.
SCHEDULE = (1, 2, 4, 8, 12)


def check_schedule(schedule):
    """A schedule as a tuple of positive integers, or an error that says what is wrong with it."""
    if not isinstance(schedule, tuple | list) or not all(type(size) is int for size in schedule):
        raise WrongType(f"chunks must be a list of integers (frames), not {schedule!r}")
    if not schedule or min(schedule) < 1:
        raise InvalidValue(f"chunks {list(schedule)} must be one or more frames each")
    return tuple(schedule)


class Decoding:
    """Iterate over a Generation of one prompt to get pieces of it: (audio [samples] within ±1, codes [frames, 16]).

    The pieces are under way when they come, not waited for. Every schedule gives the same sound, as the decoder streams
    exactly.
    """

    def __init__(self, generation, decoder, schedule, context=None, progress=None):
        """schedule: frames of each piece, the last number for all that follow. context: codes [frames, 16] of a
        reference, which the sound continues and which is not heard. progress: called with the number of frames made."""
        self.generation, self.decoder, self.schedule, self.context = generation, decoder, schedule, context
        self.progress = progress
        self.state, self.held, self.frames = decoder.make_state(), [], 0

    def __iter__(self):
        if self.context is not None:
            self.decoder.skip(self.context[None], self.state)
        sizes = iter(self.schedule)
        size = next(sizes)
        for frame in self.generation:
            self.held.append(frame.codes)
            self.frames += 1
            if self.progress:
                self.progress(self.frames)
            # Frames that wait for text would wait with it: they are heard first.
            if len(self.held) >= size or frame.waits:
                yield self.rest()
                size = next(sizes, size)
        if self.held:
            yield self.rest()

    def rest(self):
        """The frames that are held back, decoded."""
        codes, state = mx.concatenate(self.held).astype(mx.int32), self.state.copy()
        audio = mx.clip(self.decoder.step(codes[None], state)[0], -1, 1)
        mx.async_eval(audio, codes, *state.arrays)
        self.held, self.state = [], state  # not before: Ctrl-C may come at any time, and then this is done again
        return audio, codes
