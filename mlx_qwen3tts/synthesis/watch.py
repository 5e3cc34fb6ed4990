"""A guard against speech that has gone wrong, by the codes 0 of its frames, which the host reads anyway.

Each attempt at a text has a Watch, which ends it where it cannot come to anything good. One that has failed is spoken
again with another seed, as long as seeds are left and nobody has heard anything of it; then the best of them is kept
and marked. benchmarks/guard.py measures false alarms and true ones; where the limits come from stands beside them.
Frames are of 80 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..checkpoint.codec import Codec
from .morph import FRAMES_PER_TOKEN
from .pieces import weight

if TYPE_CHECKING:
    import mlx.core as mx

    from .prompt import Text

# What can be found, the lesser evil first, in the words of messages.
CHECKS = {
    "silence_at_start": "it begins with a long silence",
    "silence_inside": "it goes on after a long silence",
    "too_short": "it is too short for its text",
    "repeats": "it repeats the same sound",
    "too_long": "it is too long for its text",
}
START, PAUSE = 13, 25  # frames of silence before speech, and between speech and speech: 1 s and 2 s
SOUND = 2  # frames in a row that are speech; one may be a click in the silence
BEHIND = 3  # frames of silence that stay where speech is cut at one
FLOOR, PER_TOKEN = 192, 12  # frames that any text may take, and that each token of it may
LETTERS = 3.0  # that a frame can speak at most: 37 a second, where 15 are usual and 30 are the fastest Japanese
PERIOD, REPEATED = 16, 48  # frames: of the longest loop that is looked for, and for how long it must repeat itself
LONG = 0.75  # of max_tokens; a text that should take more was cut for its length, not for a bad draw
SILENCE = 2.0  # seconds that are encoded


def silent_codes(codec: Codec) -> frozenset[int]:
    """The codes 0 of digital silence. The encoder is let go of again where it was not loaded."""
    listening = codec if "encoder" in vars(codec) else Codec(codec.part.folder)
    codes = np.array(listening.encode(np.zeros(round(SILENCE * codec.sample_rate), np.float32)))
    return frozenset(codes[:, 0].tolist())


def expected_too_long(tokens: int, max_tokens: int) -> bool:
    """Whether a text of so many tokens should take more frames than there may be."""
    return round(FRAMES_PER_TOKEN * tokens) > LONG * max_tokens


class Letters:
    """How many letters a text has, as far as it has come."""

    def __init__(self, text: str = "") -> None:
        self.count = 0
        self.add(text)

    def add(self, text: str) -> None:
        self.count += weight("".join(filter(str.isalnum, text)))

    def counted(self, pieces: Iterable[str]) -> Iterator[str]:
        """The same pieces of a text that is still being written."""
        for piece in pieces:
            if isinstance(piece, str):  # anything else is refused where it is read
                self.add(piece)
            yield piece


class Watch:
    """What is known of an attempt. failed: a key of CHECKS, None as long as nothing is wrong; begun: whether there was
    anything but silence; kept: how many of its frames are worth hearing."""

    def __init__(self, text: Text, letters: Letters, silent: frozenset[int], last: bool = False) -> None:
        """text, letters: of what is spoken, which may still grow; silent: of `silent_codes`; last: whether no other
        attempt follows: then a late start is not its end."""
        self.text, self.letters, self.silent, self.last = text, letters, silent, last
        self.frames, self.kept, self.begun = 0, 0, False
        self.failed: str | None = None
        self._first = self._spoken = 0  # frames before speech begins, and to its end so far
        self._sounding = 0  # frames in a row that are not silence
        self._codes: list[int] = []  # the last ones
        self._equal = [0] * (PERIOD + 1)  # frames in a row that equal the one so many before

    @property
    def limit(self) -> int:
        """Frames that the text may take."""
        return max(FLOOR, PER_TOKEN * self.text.tokens)

    def see(self, code: int) -> bool:
        """Take in the code 0 of the next frame. Returns whether the attempt is to end before that frame."""
        if self.frames >= self.limit:
            return self._fail("too_long", self.frames)
        if self._loops(code):
            return self._fail("repeats", self.frames + 1 - REPEATED)
        self.frames += 1
        if code in self.silent:
            self._sounding = 0
            late = not self._spoken and self.frames >= START
            return late and self._fail("silence_at_start", 0) and not self.last
        self.begun = True
        self._sounding += 1
        if self._sounding >= SOUND:
            pause = self.frames - self._sounding - self._spoken
            if not self._spoken:
                self._first = self.frames - self._sounding
            elif pause >= PAUSE:
                return self._fail("silence_inside", self._spoken + BEHIND)
            self._spoken = self.frames
        return False

    def end(self, reason: str, max_tokens: int) -> None:
        """Take in how the attempt ended."""
        if reason == "guard":
            return
        self.kept = self.frames
        if reason == "length" and not expected_too_long(self.text.tokens, max_tokens):
            self.failed = "too_long"
        elif reason == "stop" and LETTERS * (self._spoken - self._first) < self.letters.count:
            self.failed = "too_short"

    def _fail(self, check: str, kept: int) -> bool:
        self.failed, self.kept = check, max(0, kept)
        return True

    def _loops(self, code: int) -> bool:
        """Whether the last frames repeat themselves exactly; silence may."""
        codes, equal = self._codes, self._equal
        for period in range(1, min(PERIOD, len(codes)) + 1):
            equal[period] = equal[period] + 1 if codes[-period] == code else 0
        codes.append(code)
        del codes[:-PERIOD]
        return max(equal) >= REPEATED and not self.silent.issuperset(codes)


@dataclass(frozen=True)
class Attempt:
    """seed: it was spoken with; frames: of it that are worth hearing; failed: a key of CHECKS, None where it passed;
    reason: how it ended, "stop", "length" or "guard"."""

    seed: int
    frames: int
    failed: str | None
    reason: str


class Attempts:
    """The attempts at one utterance. made: those that are over; chosen: the one that is heard, once that is known."""

    def __init__(self, watch: Callable[[bool], Watch], seeds: Sequence[int]) -> None:
        """watch: function from whether it is the last to the Watch of an attempt; seeds: of those after the first."""
        self._watch, self._seeds = watch, list(seeds)
        self.made: list[Attempt] = []
        self.chosen: Attempt | None = None
        self._codes: list[list[mx.array]] = []

    def watch(self) -> Watch:
        """The Watch of the next attempt."""
        return self._watch(not self._seeds)

    def note(self, attempt: Attempt, codes: list[mx.array], heard: bool) -> int | None:
        """Note an attempt that is over, with the codes of its frames that are not decoded. heard: whether some are.
        Returns the seed of the next attempt if there is to be one."""
        self.made.append(attempt)
        self._codes.append(codes)
        if attempt.failed is None or heard or not self._seeds:
            return None
        return self._seeds.pop(0)

    def choose(self, heard: bool) -> tuple[Attempt, list[mx.array]]:
        """Choose the best attempt, the last one where some of that is heard, with the codes that were noted; those of
        the others are let go of."""
        severity = {None: -1, **{check: place for place, check in enumerate(CHECKS)}}
        rank = [(not one.frames, severity[one.failed]) for one in self.made]
        best = len(rank) - 1 if heard else min(range(len(rank)), key=rank.__getitem__)
        codes, self._codes = self._codes[best], []
        self.chosen = self.made[best]
        return self.chosen, codes

    @property
    def failed(self) -> str | None:
        """What is wrong with the attempt that is heard."""
        return self.chosen and self.chosen.failed

    @property
    def summary(self) -> str:
        """What went wrong, for a message."""
        return ", ".join(f"seed {one.seed}: {CHECKS[one.failed]}" for one in self.made if one.failed)
