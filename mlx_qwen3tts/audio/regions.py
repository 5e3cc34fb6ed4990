"""Where somebody speaks in a recording of any length: read in blocks, found by level, cut into windows.

Nothing here holds the recording: an hour passes through some ten seconds of it at a time.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .reading import Recording, check_samples, open_recording, read_audio, unreadable

if TYPE_CHECKING:
    import soundfile

RATE = 24000  # Hz
FRAME = RATE // 100  # samples of one level, 10 ms
BLOCK = 10  # seconds read at once
NEARBY = 10  # seconds before and after, within which the noise floor is sought
CONTRAST = 6  # dB between the noise floor and the loudest speech, below which nothing is called speech
DEEPEST = 40  # dB below the loudest speech, where speech ends in any case
PAUSE = 0.3  # seconds; shorter pauses are bridged, as in NIST's Rich Transcription
SHORTEST = 0.2  # seconds; shorter sounds are dropped


def blocks(source: Recording) -> Iterator[np.ndarray]:
    """A recording's samples at 24 kHz, one block [n] float32 after another; source as for `read_audio`.

    AudioError for whatever cannot be used, in part only when the block in question is reached.
    """
    if isinstance(source, str | Path):
        with open_recording(source) as file:
            yield from _resampled(_checked(source, file), file.samplerate)
    else:
        samples = read_audio(source, RATE)
        for start in range(0, samples.size, BLOCK * RATE):
            yield samples[start : start + BLOCK * RATE]


def _checked(path: str | Path, file: "soundfile.SoundFile") -> Iterator[np.ndarray]:
    """The mean of the channels, block after block."""
    import soundfile

    try:
        for block in file.blocks(BLOCK * file.samplerate, dtype="float32", always_2d=True):
            check_samples(block, f"audio {path}")
            yield block.mean(axis=1, dtype=np.float32)
    except soundfile.LibsndfileError as error:
        raise unreadable(path, error) from None


def _resampled(pieces: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """soxr HQ, as `read_audio` resamples, one piece after another."""
    if rate == RATE:
        yield from pieces
        return
    import soxr

    stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        yield stream.resample_chunk(piece)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def levels(pieces: Iterable[np.ndarray]) -> tuple[np.ndarray, float]:
    """(level of every 10 ms in dB [frames] float32, seconds in all) of a recording's blocks.

    The level is the deviation from the frame's own mean, so that a constant is silent.
    """
    found, rest, count = [np.zeros(0, np.float32)], np.zeros(0, np.float32), 0
    for piece in pieces:
        count += piece.size
        rest = np.concatenate([rest, piece])
        whole = rest.size // FRAME * FRAME
        found.append(10 * np.log10(rest[:whole].reshape(-1, FRAME).var(axis=1) + 1e-10))
        rest = rest[whole:]
    return np.concatenate(found), count / RATE


def speech_regions(level: np.ndarray) -> list[tuple[int, int]]:
    """Where level [frames] dB is speech: [(first, end)] in frames.

    The lowest smoothed level within some seconds is the noise floor (the idea of Martin's minimum statistics, 2001).
    Speech begins where the level rises a third of the way from there to the loudest speech, 3 to 12 dB, and ends where
    it falls 3 dB below that.
    """
    from scipy import ndimage

    if level.size == 0:
        return []
    loudest = ndimage.median_filter(level, 25, mode="nearest").max()  # of what lasts: a slamming door does not
    smooth = ndimage.uniform_filter1d(level, 20, mode="nearest")
    floor = ndimage.minimum_filter1d(smooth, 2 * NEARBY * 100 + 1, mode="nearest")
    if loudest - floor.min() < CONTRAST:
        return []
    begin = np.maximum(floor + np.clip((loudest - floor) / 3, 3, 12), loudest - DEEPEST)
    level = ndimage.median_filter(level, 5, mode="nearest")  # which keeps edges where they are
    runs = np.empty(level.shape, np.int32)  # the number of the run that each frame belongs to, 0 where to none
    ndimage.label(level > begin - 3, output=runs)
    speaking = np.isin(runs, np.unique(runs[level > begin])) & (runs > 0)
    edges = np.flatnonzero(np.diff(speaking.astype(np.int8), prepend=0, append=0)).reshape(-1, 2).tolist()
    regions: list[tuple[int, int]] = []
    for first, end in edges:
        if regions and first - regions[-1][1] < PAUSE * 100:
            regions[-1] = (regions[-1][0], end)
        else:
            regions.append((first, end))
    return [(first, end) for first, end in regions if end - first >= SHORTEST * 100]


def windows(regions: Iterable[tuple[int, int]], length: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of `length` samples every `hop` over each region (first, end), the last one at its end; one alone over
    what is shorter. Returns (region of each [N], their (first, end) [N, 2])."""
    found = []
    for region, (first, end) in enumerate(regions):
        starts = list(range(first, max(first, end - length) + 1, hop))
        if starts[-1] + length < end:
            starts.append(end - length)
        found += [(region, start, min(start + length, end)) for start in starts]
    table = np.array(found, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1:]


def cut(pieces: Iterable[np.ndarray], spans: Iterable[Sequence[int]], length: int) -> Iterator[np.ndarray]:
    """The samples [length] of each span (first, end), sorted by `first`, from a recording's blocks.

    What is shorter than `length` is repeated until it fills it: no foreign sound comes in, and for a network that
    pools statistics over time little changes (recordings are so filled up in training speaker networks, too).
    """
    buffer, at, pieces = np.zeros(0, np.float32), 0, iter(pieces)
    for first, end in spans:
        while at + buffer.size < end:
            past = min(max(0, first - at), buffer.size)
            buffer, at = np.concatenate([buffer[past:], next(pieces)]), at + past
        yield np.resize(buffer[first - at : end - at], length)
