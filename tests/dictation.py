"""A stand-in for the talker's draws: what a row says is dictated by its seed. Everything around it is real.

GOOD is ordinary speech for TEXT; FAULTS has one way to go wrong for each check of the guard, two for some. Silence is a
code of the model's own.
"""

import contextlib
from unittest import mock

import mlx.core as mx
import numpy as np

from mlx_qwen3tts.synthesis import watch

TEXT = "Hello, the weather is fine today."
GOOD = [5 + 7 * i % 40 for i in range(18)]
FLOOR = 50
QUIET = -1  # stands for the model's code of silence
FAULTS = {
    "never ends": ("too_long", [5 + i * i % 41 for i in range(300)]),
    "silence at the start": ("silence_at_start", [QUIET] * 20 + GOOD),
    "nothing but silence": ("silence_at_start", [QUIET] * 300),
    "silence inside": ("silence_inside", [*GOOD, *[QUIET] * 12, 9, *[QUIET] * 13, *GOOD]),
    "one sound for ever": ("repeats", GOOD[:9] + [50] * 300),
    "the same frames again and again": ("repeats", (GOOD[:9] * 40)[:300]),
    "too short": ("too_short", GOOD[:2]),
    "too fast": ("too_short", [QUIET, *GOOD[:6], *[QUIET] * 20]),
    "nothing": ("too_short", []),
}


class Dictation:
    """A model's Steps whose rows say `codes` {seed: codes 0}, GOOD for other seeds, and end. begun: seeds, in order."""

    def __init__(self, tts, codes):
        silent = sorted(tts.planner.silent)[0]
        self.steps, self.end, self.begun = tts.steps, tts.config.talker.codec_eos_token_id, []
        assert not tts.planner.silent & set(range(5, 51)), "the codes of speech are not silence"
        self.codes = {seed: [silent if code == QUIET else code for code in said] for seed, said in codes.items()}

    def __getattr__(self, name):
        return getattr(self.steps, name)

    def code(self, seed, frame):
        if frame == 0:
            self.begun.append(seed)
        said = self.codes.get(seed, GOOD)
        return said[frame] if frame < len(said) else self.end

    def of(self, configs):
        step, settings = self.steps.of(configs)
        return Dictated(step, self), settings


class Dictated:
    """A FrameStep of a Dictation."""

    def __init__(self, step, dictation):
        self.step, self.dictation = step, dictation

    def codes(self, seeds, frames):
        return mx.array([self.dictation.code(*row) for row in zip(seeds, frames, strict=True)], mx.uint32)

    def __call__(self, logits, hidden, seen, seeds, frames, *more):
        first, codes, embedding, seen = self.step(logits, hidden, seen, seeds, frames, *more)
        first = self.codes(seeds, frames)
        return first, mx.concatenate([first[:, None].astype(codes.dtype), codes[:, 1:]], axis=1), embedding, seen

    def first(self, logits, seen, seeds, frames, *more):
        return self.codes(seeds, frames)


@contextlib.contextmanager
def dictated(tts, codes):
    """Within the block a model says what is dictated, and texts may take FLOOR frames. Yields the Dictation."""
    dictation = Dictation(tts, codes)
    short = {"FLOOR": FLOOR, "PER_TOKEN": 1, "REPEATED": 24}
    with mock.patch.object(tts, "steps", dictation), mock.patch.multiple(watch, **short):
        yield dictation


def first_codes(speech):
    return np.array(speech.codes)[:, 0].tolist()
