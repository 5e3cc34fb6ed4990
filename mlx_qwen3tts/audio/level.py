"""How loud speech is, in LUFS (ITU-R BS.1770), and the gain that brings it to a level."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BLOCK = 0.4  # seconds that are measured at once
HIGHEST = 0.98  # of a peak
BOOK_LEVEL = -19.0  # LUFS of mono speech, which listeners hear as -16 of stereo


@functools.cache
def _meter(rate: int) -> Any:
    import pyloudnorm

    return pyloudnorm.Meter(rate, block_size=BLOCK)


def loudness(samples: np.ndarray, rate: int) -> float | None:
    """The integrated loudness of a sound [n]; None of silence. A sound shorter than a block is measured repeated."""
    if not samples.size:
        return None
    least = math.ceil(BLOCK * rate) + 1
    if samples.size < least:
        samples = np.tile(samples, -(-least // samples.size))
    if not samples.any():
        return None
    found = float(_meter(rate).integrated_loudness(samples.astype(np.float64)))
    return found if math.isfinite(found) else None


def together(measured: Sequence[tuple[float, float]]) -> float | None:
    """The loudness of several sounds in a row, from (loudness, seconds) of each; None of none."""
    whole = sum(seconds for _, seconds in measured)
    if not whole:
        return None
    return 10 * math.log10(sum(seconds * 10 ** (loud / 10) for loud, seconds in measured) / whole)


def gain(measured: float | None, wanted: float | None) -> float:
    """The factor from one loudness to another; 1 where either is not known."""
    return 1.0 if measured is None or wanted is None else 10 ** ((wanted - measured) / 20)
