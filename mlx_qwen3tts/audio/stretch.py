"""Faster or slower speech at the same pitch, in pieces of any size, which give the same samples as the whole.

WSOLA: Verhelst & Roelands, "An overlap-add technique based on waveform similarity (WSOLA) for high quality time-scale
modification of speech" (1993). Windows of the input are laid over each other at a fixed distance. Each is taken near
the place that its time asks for, where it continues the one before it best, so that periods of the voice meet periods.
"""

from __future__ import annotations

import math

import numpy as np

from .. import checks

SLOWEST, FASTEST = 0.25, 4.0
HOP = 0.01  # seconds between two windows, each of which is twice as long
REACH = 0.0085  # seconds to either side that are searched: together a period of the lowest voices
DETOUR = 0.2  # of the correlation, lost at the end of the reach: where all places are alike the nearest is taken
TINY = 1e-30  # silence is like everything


def stretched_length(samples: int, speed: float) -> int:
    """How many samples `samples` of them become."""
    return round(samples / speed)


def stretched(samples: np.ndarray, rate: int, speed: float) -> np.ndarray:
    """A whole sound [n] float32 at a rate in Hz as round(n / speed) samples, which last that much shorter or longer."""
    return Stretch(rate, speed).step(samples, last=True)


class Stretch:
    """Samples at another speed, while they come. Some 30 ms are held back until their continuation is there.

    made: samples given out so far.
    """

    def __init__(self, rate: int, speed: float) -> None:
        """rate: in Hz; speed: SLOWEST to FASTEST, above 1 is faster and 1 leaves the samples as they are."""
        self.speed, self.made = checks.number(speed, "speed", SLOWEST, FASTEST), 0
        self._hop, self._reach = round(HOP * rate), round(REACH * rate)
        self._rise = np.sin(np.pi * (np.arange(self._hop) + 0.5) / (2 * self._hop)).astype(np.float32) ** 2
        self._input = np.zeros(0, np.float32)  # from `_start` on
        self._start = self._taken = 0  # samples of the input: let go of, come so far
        self._windows, self._next = 0, 0  # laid so far; where the input goes on behind the last one's first half

    def step(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """The samples [m] that are certain with further ones [n]; `last`: there are no more, the rest comes too."""
        self._input = np.concatenate([self._input, np.asarray(samples, np.float32)])
        self._taken += len(samples)
        parts = [self._input[:0]]
        while (part := self._lay()) is not None:
            parts.append(part)
        if last:
            behind = np.zeros(2 * self._hop + self._reach, np.float32)
            rest = stretched_length(self._taken, self.speed) - self.made
            while sum(part.size for part in parts) < rest:
                if (part := self._lay()) is None:
                    self._input = np.concatenate([self._input, behind])
                else:
                    parts.append(part)
            parts = [np.concatenate(parts)[:rest]]
        made = np.concatenate(parts)
        self.made += made.size
        return made

    def _lay(self) -> np.ndarray | None:
        """Half a window of output [hop], once the input that decides on it is there."""
        hop, number = self._hop, self._windows
        wanted, until = round(number * hop * self.speed), math.ceil((number + 1) * hop * self.speed)
        # Nor is more given out than there would be if the sound ended here.
        if max(wanted + self._reach + 2 * hop, self._next + 2 * hop, until) > self._start + self._input.size:
            return None
        chosen = self._search(wanted) if number else 0
        now = self._input[chosen - self._start :][:hop]
        before = self._input[self._next - self._start :][:hop]
        self._windows, self._next = number + 1, chosen + hop
        keep = max(0, min(self._next, round((number + 1) * hop * self.speed) - self._reach))
        self._input, self._start = self._input[keep - self._start :], keep
        return before + self._rise * (now - before)

    def _search(self, wanted: int) -> int:
        """Where within reach of `wanted` the input is most like the continuation of what was laid last."""
        length = 2 * self._hop
        first = max(self._start, wanted - self._reach)
        like = self._input[self._next - self._start :][:length]
        among = self._input[first - self._start : wanted + self._reach + length - self._start]
        squares = np.cumsum(np.square(among, dtype=np.float64))
        energy = np.concatenate([squares[length - 1 : length], squares[length:] - squares[:-length]])
        norm = np.sqrt(np.maximum(energy * np.square(like, dtype=np.float64).sum(), TINY))
        away = np.abs(np.arange(first, first + energy.size) - wanted) / self._reach
        return first + int((np.correlate(among, like, "valid") / norm - DETOUR * away).argmax())
