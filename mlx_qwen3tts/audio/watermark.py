"""An inaudible mark in sound that its key finds again: a pattern of small level changes.

The key gives a sign to each cell of a grid, bands between EDGES by slots of SLOT seconds, which repeats every
SLOTS slots. The sound becomes louder in a cell of sign +1 and softer in one of sign -1. Silence stays silence.

The detector knows the key and not the sound. It takes the level of each cell relative to the cells around it, adds up
the repetitions, and correlates with the signs at every offset and every speed within FASTEST. Divided by the root of
the sum of its squared summands, the correlation of any sound with random signs exceeds x at most 3.18 times as often as
a Gaussian variable does: Bentkus & Dzindzalieta, "A tight Gaussian bound for weighted sums of Rademacher random
variables" (2015). Times the number of correlations tried this is `Found.p_false`.

The mark survives ordinary handling. Who wants to remove it can, and who knows the key can put it anywhere. The idea is
that of patchwork and spread-spectrum marks: Bender et al., "Techniques for data hiding" (1996); Cox et al., "Secure
spread spectrum watermarking for multimedia" (1997).
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .. import checks
from ..errors import AudioError, InvalidValue, WrongType
from .reading import check_samples, read_audio

DEFAULT_KEY = "mlx_qwen3tts"  # made with this tool; a key of one's own: made by me
THRESHOLD = 1e-4  # a mark counts as present up to this `p_false`
LEAST = 2.0  # seconds that are needed to look for a mark

# The pattern.
EDGES = np.concatenate([300 + 125.0 * np.arange(25), 3425 + 187.5 * np.arange(19)])  # Hz; telephones keep 25 bands
BANDS = len(EDGES) - 1
SLOT, SLOTS = 0.032, 40  # seconds; it repeats every 1.28 s

# The marker.
WINDOW, HOP = 0.032, 0.008  # seconds
GENTLEST, STRONGEST = 0.35, 1.5  # dB that a cell is changed
BELOW = 11.0  # dB that what is added stays below what the sound masks
STEADY, SLOWNESS, PAST = 2.5, 0.8, 4  # dB a WINDOW: below, sound is tone-like; how this is smoothed; hops to a WINDOW
QUIET = 1e-12  # power that is silence

# The detector.
RATE = 16000  # Hz
FRAME, STEP, POINTS = 512, 128, 1024  # samples: a window, from one to the next, of the transform
FASTEST, COARSEST, DRIFT = 0.025, 0.005, 0.024  # speeds either way, at most so far apart, or DRIFT by the seconds
FINE = 4  # places to a slot at which a pattern may begin
BLOCK, OVERLAP = 16.0, 4.0  # seconds that are looked at together
SEGMENT = 2.0  # seconds that are folded together
SPANS = (2, 8)  # segments; marks are looked for in all runs of so many, and in the whole block
RANK = 10  # of 100 or more frames, the quietest whose level counts as a band's lowest; half of it as its highest
AROUND, BESIDE, SPREAD = 25, 3, 51  # frames before and after, bands below and above, frames of the spread
FLOOR, DEAF = 1e-5, 1e-7  # power beside the loudest of a band, and of all, below which nothing is seen
TAIL = 1 / 0.3146  # 1 / (4 P(Z >= sqrt(2))), the constant of the bound
TINY = 1e-12  # of nothing


@dataclass(frozen=True)
class Found:
    """What `detect` says of one key.

    score: the best correlation, in standard deviations; p_false: at most so often a sound without this key's mark gives
    such a score; present: whether that is THRESHOLD or less; seconds: of sound that were looked at.
    """

    key: str
    score: float
    p_false: float
    present: bool
    seconds: float


def pattern(key: str) -> np.ndarray:
    """A key's signs ±1 [SLOTS, BANDS] float64: bits of SHA-256 of the key's own hash and a counter.

    The key is any text that is not empty, in Unicode's composed form, so that it does not depend on the keyboard.
    """
    if not isinstance(key, str):
        raise WrongType(f"key must be a text, not {key!r}", param="key")
    if not key:
        raise InvalidValue("key is empty; give any text", param="key")
    seed = hashlib.sha256(unicodedata.normalize("NFC", key).encode("utf-8", "surrogatepass")).digest()
    count = -(-SLOTS * BANDS // 256)
    digests = (hashlib.sha256(seed + number.to_bytes(4, "big")).digest() for number in range(count))
    bits = np.unpackbits(np.frombuffer(b"".join(digests), np.uint8))[: SLOTS * BANDS]
    return 1.0 - 2.0 * bits.reshape(SLOTS, BANDS)


def mark(samples: np.ndarray, key: str, rate: int = 24000) -> np.ndarray:
    """A whole sound [n] within ±1 with the mark of a key, as a Marker gives it in pieces."""
    marker = Marker(key, rate)
    return np.concatenate([marker(samples), marker.finish()])


class Marker:
    """Puts the mark of a key on one sound while it comes. Less than WINDOW seconds are held back.

    Each window of the sound is transformed, and what the changed levels differ from it by is added. How much a cell is
    changed follows from what the sound around masks: Johnston, "Transform coding of audio signals using perceptual
    noise criteria" (1988), where a band counts as a tone as far as its level is steady. Windows are transformed one
    at a time, so that the samples do not depend on the pieces in which they come.
    """

    def __init__(self, key: str, rate: int = 24000) -> None:
        """rate: of the samples, in Hz."""
        self._signs, self.rate = pattern(key), checks.whole(rate, "rate", 8000, 384000)
        self._hop = round(HOP * rate)
        self._size = size = self._hop * round(WINDOW / HOP)
        window = np.sin(np.pi * (np.arange(size) + 0.5) / size)
        self._window, self._back = window, window / (np.square(window).sum() / self._hop)
        bands = _bands(np.fft.rfftfreq(size, 1 / rate))
        used = np.flatnonzero(bands.any(1))
        self._used, self._bands = slice(int(used[0]), int(used[-1]) + 1), bands[used[0] : used[-1] + 1]
        self._spread, self._tone = _hearing()
        self._levels = [np.full(BANDS, 10 * np.log10(QUIET))] * PAST  # dB of the last windows
        self._unsteady = np.full(BANDS, STEADY)  # dB a WINDOW
        self._frame = 0  # windows done
        self._input = np.zeros(size - self._hop)  # from the next window on
        self._added = np.zeros(size)  # what the windows so far add, from the next one's beginning on
        self._taken = self._given = 0  # samples
        self._finished = False

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The marked samples [m] float32 within ±1 that are certain with further ones [n] within ±1."""
        if self._finished:
            raise InvalidValue("this Marker has finished; each sound takes one of its own", param="samples")
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype.kind != "f":
            raise WrongType(
                f"samples are {samples.dtype} of shape {list(samples.shape)}; expected floats [n]", param="samples"
            )
        if samples.size:
            check_samples(samples, "audio")
        self._taken += samples.size
        return self._through(samples)

    def finish(self) -> np.ndarray:
        """The remaining samples; as many come out as were put in. The Marker takes no more."""
        self._finished = True
        return self._through(np.zeros(self._size))[: self._taken - self._given]

    def _through(self, samples: np.ndarray) -> np.ndarray:
        size, hop = self._size, self._hop
        self._input = np.concatenate([self._input, samples])
        count = max(0, (self._input.size - size) // hop + 1)
        made = np.empty(count * hop)
        for number in range(count):
            frame = self._input[number * hop : number * hop + size]
            self._added += self._change(frame)
            made[number * hop : (number + 1) * hop] = frame[:hop] + self._added[:hop]
            self._added[:-hop] = self._added[hop:]
            self._added[-hop:] = 0
        self._input = self._input[count * hop :]
        # The first windows begin before the sound does.
        made = made[max(0, size - hop - (self._frame - count) * hop) :]
        self._given += made.size
        return made.clip(-1, 1).astype(np.float32)

    def _change(self, frame: np.ndarray) -> np.ndarray:
        """What one window [size] of the sound gets added."""
        middle = (self._frame * self._hop + self._hop - self._size / 2) / self.rate
        signs = self._signs[int(middle // SLOT) % SLOTS]
        self._frame += 1
        spectrum = np.fft.rfft(frame * self._window)
        changes = 10 ** (signs * self._strength(spectrum[self._used]) / 20) - 1
        added = np.zeros_like(spectrum)
        added[self._used] = spectrum[self._used] * (self._bands @ changes)
        return np.fft.irfft(added, self._size) * self._back

    def _strength(self, spectrum: np.ndarray) -> np.ndarray:
        """How many dB [BANDS] each band may be changed by."""
        power = np.square(np.abs(spectrum)) @ self._bands + QUIET
        level = 10 * np.log10(power)
        change = np.minimum(np.abs(level - self._levels.pop(0)), 2 * STEADY)
        self._levels.append(level)
        self._unsteady = SLOWNESS * self._unsteady + (1 - SLOWNESS) * change
        tone = 1 - np.minimum(self._unsteady / STEADY, 1)
        masked = 10 * np.log10(power @ self._spread) - level - (tone * self._tone + (1 - tone) * 5.5)
        return np.clip(20 * np.log10(1 + 10 ** ((masked - BELOW) / 20)), GENTLEST, STRONGEST)


def _hearing() -> tuple[np.ndarray, np.ndarray]:
    """How the power of a band spreads to each other one [BANDS, BANDS]; dB by which a tone is above what it masks."""
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    bark = 13 * np.arctan(0.00076 * middle) + 3.5 * np.arctan(np.square(middle / 7500))
    away = bark[None] - bark[:, None] + 0.474
    spread = 10 ** ((15.81 + 7.5 * away - 17.5 * np.sqrt(1 + np.square(away))) / 10)
    return spread / spread.sum(0), 14.5 + bark


def detect(samples: np.ndarray, rate: int, keys: Sequence[str]) -> list[Found]:
    """What is found of each key's mark in a sound: samples [n] or [n, channels] at any rate, mixed down to mono.

    AudioError for what is not a sound or lasts less than LEAST seconds. An hour takes a minute or so.
    """
    if isinstance(keys, str):
        raise WrongType(f"keys must be a list of texts, not {keys!r}", param="keys")
    patterns = [pattern(key) for key in keys]
    sound = read_audio((samples, rate), RATE)
    seconds = sound.size / RATE
    if seconds < LEAST:
        raise AudioError(f"audio lasts {seconds:.2f} s; a mark needs at least {LEAST:g} s to be found", param="samples")
    if not patterns:
        return []
    turned = np.concatenate([_turned(signs) for signs in patterns])
    best, tried = np.full(len(patterns), -np.inf), 0
    for power in _blocks(sound):
        cells = np.concatenate([folded(power, speed) for speed in speeds(len(power) * STEP / RATE)])
        scores = cells @ turned.T  # [places, keys * SLOTS]
        best = np.maximum(best, scores.reshape(-1, len(patterns), SLOTS).max(axis=(0, 2)))
        tried += len(cells) * SLOTS
    return [
        Found(key, float(score), p_false, p_false <= THRESHOLD, seconds)
        for key, score in zip(keys, best, strict=True)
        for p_false in [false_alarm(float(score), tried)]
    ]


def false_alarm(score: float, tried: int) -> float:
    """At most so probably the best of `tried` correlations of a sound with random signs reaches a score."""
    from scipy.special import ndtr

    return float(min(1.0, tried * TAIL * ndtr(-score)))


def speeds(seconds: float) -> np.ndarray:
    """The speeds at which a sound of some seconds is looked at, 1 among them."""
    count = int(np.ceil(FASTEST / min(COARSEST, DRIFT / seconds)))
    return 1 + FASTEST * np.arange(-count, count + 1) / count


def _bands(frequencies: np.ndarray) -> np.ndarray:
    """[frequencies, BANDS]: 1 where one is in a band."""
    return ((frequencies[:, None] >= EDGES[:-1]) & (frequencies[:, None] < EDGES[1:])).astype(np.float64)


def _turned(signs: np.ndarray) -> np.ndarray:
    """A pattern that begins at each of its slots: [SLOTS, SLOTS * BANDS]."""
    return np.stack([np.roll(signs, first, axis=0).reshape(-1) for first in range(SLOTS)])


def _blocks(sound: np.ndarray) -> Iterator[np.ndarray]:
    """The power [frames, 1 + POINTS // 2 + 1] of BLOCK seconds at a time of a sound at RATE, summed up from 0 Hz on."""
    size, overlap = round(BLOCK * RATE), round(OVERLAP * RATE)
    window = np.hanning(FRAME + 1)[:-1].astype(np.float32)
    for start in range(0, max(1, sound.size - overlap), size - overlap):
        padded = np.pad(sound[start : start + size], FRAME // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::STEP]
        power = np.square(np.abs(np.fft.rfft(frames * window, POINTS)))
        yield np.pad(power.cumsum(1, dtype=np.float64), ((0, 0), (1, 0)))


def folded(power: np.ndarray, speed: float) -> np.ndarray:
    """The cells of a sound at a speed, [places, SLOTS * BANDS], each row of length 1 or all zero.

    power: of one block, as `_blocks` sums it up. A place is a run of segments and a fraction of a slot at which the
    grid begins; repetitions are added up. What a cell holds is the level within it against the levels around.
    """
    from scipy import sparse

    relative = _relative(power, speed)
    time = np.arange(len(relative)) * (STEP / RATE * speed)
    segment = (time / SEGMENT).astype(int)
    count, around = segment[-1] + 1, SLOTS * FINE
    place = segment * around + (time / (SLOT / FINE)).astype(int) % around
    adding = sparse.csr_array((np.ones(place.size), (place, np.arange(place.size))), (count * around, place.size))
    parts = np.asarray(adding @ relative).reshape(count, around, BANDS)
    sums = np.concatenate([np.zeros_like(parts[:1]), parts.cumsum(0)])
    spans = {min(count, span) for span in (*SPANS, count)}
    runs = [(first, first + span) for span in sorted(spans) for first in range(0, count - span + 1, max(1, span // 2))]
    levels = np.stack([sums[last] - sums[first] for first, last in runs])
    around_again = np.concatenate([levels, levels[:, : FINE - 1]], axis=1)
    slots = sum((around_again[:, shift : shift + around] for shift in range(1, FINE)), levels)
    cells = slots.reshape(len(runs), SLOTS, FINE, BANDS).swapaxes(1, 2).reshape(-1, SLOTS * BANDS)
    return cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), TINY)


def _relative(power: np.ndarray, speed: float) -> np.ndarray:
    """The level in each band [frames, BANDS] against those before, after, below and above, in units of their spread.

    What is near the quietest that a band has counts for less.
    """
    from scipy.ndimage import uniform_filter1d

    places = np.ceil(EDGES * speed * POINTS / RATE).astype(int)
    energy = (np.diff(power[:, places]) / np.diff(places)).astype(np.float32) + np.float32(TINY)
    low, high = np.sort(energy[:: max(1, len(energy) // 100)], axis=0)[[RANK, -RANK // 2]]
    least = np.maximum(FLOOR * high, DEAF * high.max())
    level = np.log(energy + least)
    level -= uniform_filter1d(level, AROUND, axis=0)
    level -= uniform_filter1d(level, BESIDE, axis=1, mode="nearest")
    spread = uniform_filter1d(np.square(level), SPREAD, axis=0)
    return level / np.sqrt(spread + 0.01 * spread.mean() + TINY) * (energy / (energy + np.maximum(low, least)))
