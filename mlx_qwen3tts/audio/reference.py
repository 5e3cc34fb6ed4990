"""A recording that is to serve as a voice: checked, advised on, and where asked for trimmed and levelled."""

import math
import warnings
from collections.abc import Callable

import numpy as np

from ..errors import AudioError
from .reading import LONGEST, Recording, called, read_audio, too_long

SHORTEST, ENOUGH = 0.5, 3.0  # seconds of a reference: refused below (and above LONGEST), advised

MARGIN = 0.1  # seconds of silence that stay where it is trimmed
MOST_SILENCE = 10.0  # seconds that may be put behind a reference
SILENT = 1e-3  # a peak below this (-60 dBFS) is silence


def read_reference(
    source: Recording,
    rate: int,
    prepared: bool = False,
    warn: Callable[[str], object] = warnings.warn,
    tail: float = MARGIN,
) -> np.ndarray:
    """A recording that is to serve as a voice: read, checked, and where asked for `prepared`, with up to `tail` seconds
    of the silence behind it; warn: called with what hurts it."""
    samples, name = read_audio(source, rate, LONGEST), called(source)
    check_reference(samples, rate, name)
    if prepared:
        samples = prepare(samples, rate, tail)
        if samples.size / rate < SHORTEST:
            raise AudioError(f"{name} lasts {samples.size / rate:.2f} s without its silence; {SHORTEST} s are needed")
    for advice in quality(samples, rate):
        warn(f"{name}: {advice}")
    return samples


def check_reference(samples: np.ndarray, rate: int, name: str = "audio") -> None:
    """AudioError where a recording cannot serve as a voice."""
    seconds = samples.size / rate
    if seconds < SHORTEST:
        raise AudioError(f"{name} lasts {seconds:.2f} s; at least {SHORTEST} s are needed")
    if seconds > LONGEST:
        raise too_long(name, seconds)
    if np.ptp(samples) / 2 < SILENT:  # a constant is not sound either
        raise AudioError(f"{name} is silent")


def quality(samples: np.ndarray, rate: int) -> list[str]:
    """What hurts a reference, as sentences; empty where nothing does."""
    advice = []
    seconds = samples.size / rate
    if seconds < ENOUGH:
        advice.append(f"{seconds:.1f} s is short; {ENOUGH:.0f} s or more give a better voice")
    clipped = np.mean(np.abs(samples) >= 0.999)
    if clipped > 0.001:
        advice.append(f"{clipped:.1%} of the samples are clipped")
    speaking = _speaking(samples, rate)
    level = 10 * math.log10(np.mean(np.square(samples[np.repeat(speaking, _hop(rate))[: samples.size]])) + 1e-12)
    if level < -40:
        advice.append(f"its level is low ({level:.0f} dBFS)")
    silences = np.diff(np.flatnonzero(np.concatenate([[True], speaking, [True]]))) - 1
    longest = silences.max() * _hop(rate) / rate
    if longest > 1:
        advice.append(f"it has {longest:.1f} s of silence in one piece (--prepare trims the ends)")
    return advice


def _hop(rate: int) -> int:
    return rate // 50  # 20 ms


def _speaking(samples: np.ndarray, rate: int) -> np.ndarray:
    """For every 20 ms, whether its level is within 40 dB of the loudest."""
    hop = _hop(rate)
    padded = np.pad(samples, (0, -samples.size % hop))
    level = np.sqrt(np.mean(np.square(padded.reshape(-1, hop)), axis=1))
    return level >= level.max() / 100


def speech_seconds(samples: np.ndarray, rate: int) -> float:
    """For how long somebody speaks in a recording, pauses of words left out."""
    return float(_speaking(samples, rate).sum()) * _hop(rate) / rate


def silence_behind(samples: np.ndarray, rate: int, seconds: float) -> np.ndarray:
    """A recording with silence behind it."""
    return np.pad(samples, (0, round(seconds * rate)))


def prepare(samples: np.ndarray, rate: int, tail: float = MARGIN) -> np.ndarray:
    """Trim silence at both ends, 0.1 s of it kept in front and `tail` seconds or at least as much behind, and bring the
    level to -20 dBFS with peaks below 0.95."""
    samples = trimmed(samples, rate, tail)
    gain = 0.1 / max(np.sqrt(np.mean(np.square(samples))), 1e-9)
    return (samples * min(gain, 0.95 / np.abs(samples).max())).astype(np.float32)


def trimmed(samples: np.ndarray, rate: int, tail: float = MARGIN) -> np.ndarray:
    """A recording [n] without the silence at both ends: 0.1 s of it stay in front, `tail` seconds or at least as much
    behind."""
    first, end = sounding(samples, rate)
    front, behind = round(MARGIN * rate), round(max(MARGIN, tail) * rate)
    return samples[max(0, first - front) : end + behind]


def sounding(samples: np.ndarray, rate: int) -> tuple[int, int]:
    """(first, end) of a recording [n] without the silence at both ends, in samples, to 20 ms."""
    hop, speaking = _hop(rate), np.flatnonzero(_speaking(samples, rate))
    return int(speaking[0]) * hop, min((int(speaking[-1]) + 1) * hop, samples.size)
