"""The speaker encoder's log mel spectrograms of the whole corpus, once for all stages that read them.

    python -m training.mels WORK

writes WORK/mels.npy, float16 [frames of all utterances, 128], 93.75 frames a second.
"""

from pathlib import Path

import numpy as np
import torch

from .corpus import Corpus
from .official import mel_spectrogram
from .stage import arguments, parser

BINS, HOP = 128, 256
FLOOR = -11.5129  # of a silent frame: the official spectrogram is clipped at 1e-5


def mel(sound):
    """float32 [T, 128] of float32 samples at 24 kHz."""
    return mel_spectrogram(torch.as_tensor(sound)[None], 1024, BINS, 24000, HOP, 1024, 0, 12000)[0].T


class Mels:
    """The spectrograms as the other stages read them."""

    def __init__(self, corpus, work):
        self.frames = np.load(Path(work) / "mels.npy", mmap_mode="r")
        self.starts = np.concatenate([[0], np.cumsum([length // HOP for *_, length in corpus.utterances])])

    def of(self, utterance):
        return self.frames[self.starts[utterance] : self.starts[utterance + 1]].astype(np.float32)


def store(path, total, spectrograms):
    """Write spectrograms, an iterable of [T, BINS], `total` frames in all, one after the other; whole or not at all."""
    partial = path.with_suffix(".partial")
    out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=(total, BINS))
    start = 0
    for found in spectrograms:
        out[start : start + len(found)] = found.half().numpy()
        start += len(found)
    if start != total:
        raise AssertionError(f"{start} frames where {total} were expected")
    out.flush()
    partial.replace(path)


def main():
    options = arguments(parser(minutes=0))
    corpus = Corpus(options.work)
    total = sum(length // HOP for *_, length in corpus.utterances)
    spectrograms = (mel(corpus.samples(utterance)) for utterance in range(len(corpus.utterances)))
    store(Path(options.work) / "mels.npy", total, spectrograms)


if __name__ == "__main__":
    main()
