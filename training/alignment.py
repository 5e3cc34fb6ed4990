"""Which word of its text an utterance says in each frame, by the recogniser.

    python -m training.alignment WORK

The best path through the words of the text (connectionist temporal classification, Graves et al. 2006) says when each
is heard; between two of them the word changes halfway. The talker is taught with it where it is in the text. Writes
WORK/alignment.npy, int8 [frames of the codes]: the number of the word, from 0.
"""

from pathlib import Path

import numpy as np
import torch

from .corpus import Corpus
from .ctc import of_frames, place_words
from .espeak import SAMPLES_PER_FRAME
from .language import words
from .mels import HOP, Mels
from .recogniser import NUMBER, Recogniser
from .stage import arguments, parser

STEP = 4 * HOP  # samples between two outputs of the recogniser


@torch.no_grad()
def main():
    options = arguments(parser(minutes=0))
    work = Path(options.work)
    corpus = Corpus(work)
    mels = Mels(corpus, work)
    model = Recogniser().eval()
    model.load_state_dict(torch.load(work / "recogniser.pt", weights_only=False)["keep"]["model"])
    model.to(options.device)
    out = np.zeros(corpus.starts[-1], np.int8)
    for utterance, (_, text, *_) in enumerate(corpus.utterances):
        scores = model(torch.from_numpy(mels.of(utterance))[None].to(options.device))[0].cpu().numpy()
        heard = place_words(scores, [NUMBER[word] for word in words(text)])
        start, end = corpus.starts[utterance], corpus.starts[utterance + 1]
        out[start:end] = of_frames((heard + 0.5) * STEP / SAMPLES_PER_FRAME, end - start)
    np.save(work / "alignment.npy", out)
    print(f"alignment: {np.mean(np.diff(out.astype(int)) > 0):.3f} words a frame")


if __name__ == "__main__":
    main()
