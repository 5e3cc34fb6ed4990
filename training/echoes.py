"""What the codec makes of the corpus, as the speaker encoder's spectrograms.

    python -m training.echoes WORK

Speech that the model makes is the codec's, and the speaker encoder should know a voice in it: without these it takes
the codec's sound for another tilt and pace. Writes WORK/echoes.npy like mels.npy, of EACH utterances of every speaker.
"""

import itertools
from pathlib import Path

import numpy as np
import torch

from . import codec, snake
from .corpus import Corpus
from .decoder import Vocoder
from .mels import HOP, mel, store
from .stage import arguments, parser

EACH = 4


def chosen(corpus):
    """The utterances that have an echo, in the order of the file."""
    of = corpus.by_speaker(range(len(corpus.utterances)))
    return [utterance for utterances in of.values() for utterance in utterances[:EACH]]


class Echoes:
    """The spectrograms as the speaker encoder's training reads them; `of_speaker`: {speaker: its utterances here}."""

    def __init__(self, corpus, work):
        self.frames = np.load(Path(work) / "echoes.npy", mmap_mode="r")
        utterances = chosen(corpus)
        starts = np.concatenate([[0], np.cumsum([_frames(corpus, utterance) for utterance in utterances])])
        if starts[-1] != len(self.frames):
            raise ValueError(f"{work}/echoes.npy is of another corpus")
        self.places = dict(zip(utterances, itertools.pairwise(starts), strict=True))
        self.of_speaker = corpus.by_speaker(utterances)

    def of(self, utterance):
        start, end = self.places[utterance]
        return self.frames[start:end].astype(np.float32)


def _frames(corpus, utterance):
    return corpus.utterances[utterance][3] // HOP


@torch.no_grad()
def main():
    options = arguments(parser(minutes=0))
    if options.device == "cpu":
        snake.use()
    work = Path(options.work)
    corpus = Corpus(work)
    codes = np.load(work / "codes.npy").astype(np.int64)
    model = Vocoder()
    model.load_state_dict(torch.load(work / "decoder.pt", weights_only=False)["keep"]["model"])
    decoder = model.codec.to(options.device).eval()
    utterances = chosen(corpus)

    def echo(utterance):
        said = torch.from_numpy(codes[corpus.starts[utterance] : corpus.starts[utterance + 1]].T)[None]
        hidden = codec.decode_low(decoder, decoder.decoder.quantizer.decode(said.to(options.device)))
        return mel(codec.decode_rest(decoder, hidden)[0].clamp(-1, 1).cpu())

    total = sum(_frames(corpus, utterance) for utterance in utterances)
    store(work / "echoes.npy", total, (echo(utterance) for utterance in utterances))


if __name__ == "__main__":
    main()
