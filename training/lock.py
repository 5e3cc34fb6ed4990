"""Speech whose pitch is locked to the codec's frames, so that a frame's waveform follows from its codes alone.

A decoder that is told the pitch 12.5 times a second cannot know where in a period a frame begins: that is the sum of
all periods before. Taught by natural pitch it can only guess, and its speech has no period that could be measured. So
every voiced frame gets a pitch that is a multiple of the frame rate, the one that keeps the running mean of the pitch
where it was: then every frame begins with a period. Periods are moved by overlap and add (Moulines and Charpentier
1990, TD-PSOLA), which leaves formants, timing and what is unvoiced as they were.

    python -m training.lock WORK

writes WORK/corpus/locked.npy beside sound.npy, from which the codec learns, and periods.npy, uint8 [frames of all
utterances], 0 where there is no voice. Gate: the pitch is on the grid, and still there.
"""

import multiprocessing
import sys
from pathlib import Path

import numpy as np

from . import acoustics
from .corpus import Corpus
from .espeak import RATE
from .espeak import SAMPLES_PER_FRAME as FRAME

STEP = 120  # samples between two looks at the pitch
WINDOW = 1024
UNVOICED = 120  # samples between marks where there is no pitch
MARGIN = 2048  # samples on either side, for the halves of grains that reach beyond the sound


def pitch(sound, lowest, highest):
    """F0 in Hz and whether there is one, every STEP samples, by normalised autocorrelation between two bounds in Hz."""
    padded = np.pad(sound.astype(np.float32), (WINDOW // 2, WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: len(sound) : STEP]
    spectrum = np.fft.rfft(frames - frames.mean(1, keepdims=True), 2 * WINDOW)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:, : WINDOW // 2]
    squares = np.cumsum(frames**2, 1)
    total = squares[:, -1:]
    lags = np.arange(WINDOW // 2)
    head, tail = squares[:, WINDOW - 1 - lags], total - np.pad(squares, ((0, 0), (1, 0)))[:, lags]
    normal = correlation / np.sqrt(np.maximum(head * tail, 1e-9))
    first, last = int(RATE / highest), min(int(np.ceil(RATE / lowest)), WINDOW // 2 - 2)
    best = first + normal[:, first : last + 1].argmax(1)
    rows = np.arange(len(best))
    left, peak, right = normal[rows, best - 1], normal[rows, best], normal[rows, best + 1]
    bend = left - 2 * peak + right
    offset = np.where(bend < -1e-6, 0.5 * (left - right) / np.where(bend < -1e-6, bend, 1), 0).clip(-0.5, 0.5)
    loud = total[:, 0] / WINDOW > 1e-5
    voiced = (peak > 0.6) & loud
    # a single frame is no stretch of speech
    voiced = np.convolve(voiced, np.ones(5), "same") >= 3
    return RATE / (best + offset), voiced


def phase(sound, f0, voiced):
    """Phase of the fundamental in periods at every sample; where unvoiced it runs on at the last pitch."""
    time = np.arange(len(sound))
    known = np.flatnonzero(voiced)
    smooth = np.interp(np.arange(len(f0)), known, f0[known])
    smooth = np.convolve(np.pad(smooth, 2, "edge"), np.ones(5) / 5, "valid")
    rough = np.cumsum(np.interp(time, np.arange(len(f0)) * STEP, smooth)) / RATE
    # what the fundamental itself says: its slow distance to the rough phase
    slow = sound * np.exp(-2j * np.pi * rough)
    width = int(1.5 * RATE / np.median(f0[known]))
    kernel = np.hanning(2 * width + 1)
    size = 1 << int(np.ceil(np.log2(len(sound) + len(kernel))))
    slow = np.fft.ifft(np.fft.fft(slow, size) * np.fft.fft(kernel, size))[width : width + len(sound)]
    return rough + np.unwrap(np.angle(slow)) / (2 * np.pi)


def targets(f0, voiced, frames):
    """Periods in each frame: whole numbers whose running mean is that of the pitch. 0 where a frame has no voice."""
    periods, owed = np.zeros(frames, int), 0.0
    for frame in range(frames):
        own = slice(frame * FRAME // STEP, (frame + 1) * FRAME // STEP)
        if voiced[own].sum() < 2:
            owed = 0.0
            continue
        wanted = f0[own][voiced[own]].mean() * FRAME / RATE + owed
        periods[frame] = round(wanted)
        owed = wanted - periods[frame]
    return periods


def locked(sound, lowest, highest):
    """The same speech [frames * FRAME] float32 with its pitch, known to lie between two bounds in Hz, locked to frames,
    and the periods in each frame, int [frames]."""
    f0, voiced = pitch(sound, lowest, highest)
    if voiced.sum() < 5:
        return sound, np.zeros(len(sound) // FRAME, int)
    cycles = phase(sound, f0, voiced)
    is_voiced = np.repeat(voiced, STEP)[: len(sound)]
    periods = targets(f0, voiced, len(sound) // FRAME)
    out, weight = (np.zeros(len(sound) + 2 * MARGIN, np.float32) for _ in range(2))
    source = np.pad(sound, MARGIN)
    samples = np.arange(len(sound), dtype=float)  # as np.interp wants it: it would convert it at every call
    for frame, count in enumerate(periods):
        count = count or FRAME // UNVOICED
        for number in range(count):
            place = taken = round((frame + number / count) * FRAME)
            half = round(FRAME / count)
            if periods[frame] and is_voiced[place]:
                nearest = round(float(np.interp(np.round(cycles[place]), cycles, samples)))
                if abs(nearest - place) <= half:
                    taken = nearest
            grain = np.hanning(2 * half + 1).astype(np.float32)
            there = slice(MARGIN + place - half, MARGIN + place + half + 1)
            out[there] += grain * source[MARGIN + taken - half : MARGIN + taken + half + 1]
            weight[there] += grain
    return (out / np.maximum(weight, 0.1))[MARGIN : MARGIN + len(sound)], periods


_corpus = None


def _start(work):
    global _corpus
    _corpus = Corpus(work)


def _lock(utterance):
    f0 = _corpus.speakers[_corpus.utterances[utterance][0]]["f0"]
    sound, periods = locked(_corpus.samples(utterance), 0.9 * f0, 1.4 * f0)
    return (sound.clip(-1, 1) * 32767).astype(np.int16), periods


def main():
    work = sys.argv[1]
    _start(work)
    path = Path(work) / "corpus" / "locked.npy"
    partial = path.with_suffix(".partial")
    out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.int16, shape=_corpus.sound.shape)
    counts = []
    with multiprocessing.Pool(initializer=_start, initargs=(work,)) as pool:
        for utterance, (sound, periods) in enumerate(pool.imap(_lock, range(len(_corpus.utterances)), chunksize=64)):
            _, _, start, length = _corpus.utterances[utterance]
            out[start : start + length] = sound
            counts.append(periods.astype(np.uint8))
    out.flush()
    np.save(path.with_name("periods.npy"), np.concatenate(counts))
    off, moved = [], []
    for utterance in _corpus.of("valid")[::8]:
        before, after = (acoustics.f0_track(s) for s in (_corpus.samples(utterance), _lock(utterance)[0] / 32767))
        grid = after[np.isfinite(after)] * FRAME / RATE
        off.append(np.median(np.abs(grid - np.round(grid))))
        moved.append(abs(np.log2(np.nanmean(after) / np.nanmean(before))) * 12)
    print(f"off the grid by {np.mean(off):.3f} periods a frame, mean pitch moved by {np.mean(moved):.2f} semitones")
    if np.mean(off) > 0.1 or np.mean(moved) > 0.5:
        sys.exit("lock: the pitch is not where it should be")
    partial.replace(path)


if __name__ == "__main__":
    main()
