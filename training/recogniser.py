"""Stage 6: a small recogniser of the closed vocabulary, the judge of what is understood. It hears espeak-ng alone.

    python -m training.recogniser WORK [--minutes 8]

Two convolutions and two bidirectional GRUs over the speaker encoder's mels, with connectionist temporal
classification (Graves et al. 2006) over words. Writes WORK/recogniser.safetensors (float16), which `hearing.py` runs.
Gate: word error rate on held-out voices and sentences.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .corpus import Corpus
from .ctc import read
from .language import WORDS, errors, words
from .mels import FLOOR, Mels
from .stage import Stage, arguments, parser

WIDTH, BATCH = 128, 32
GATE = 0.02
NUMBER = {word: index + 1 for index, word in enumerate(WORDS)}  # 0 is the blank


class Recogniser(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(128, WIDTH, 5, 2, 2)
        self.second = nn.Conv1d(WIDTH, WIDTH, 5, 2, 2)
        self.recurrent = nn.GRU(WIDTH, WIDTH, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.out = nn.Linear(2 * WIDTH, len(WORDS) + 1)

    def forward(self, mels):
        """Log probabilities [B, T / 4, words + 1] of mels [B, T, 128]."""
        mels = (mels - mels.mean((1, 2), keepdim=True)) / 3
        hidden = F.relu(self.second(F.relu(self.first(mels.transpose(1, 2)))))
        return self.out(self.recurrent(hidden.transpose(1, 2))[0]).log_softmax(-1)


def spoilt(mels, generator):
    """The batch louder or softer, over a noise floor, blurred in time and frequency, rough, with a band and some time
    missing: what any lossy way of passing speech on may do to it. No speech of the miniature or its codec is heard."""
    floor = torch.exp(torch.empty(len(mels), 1, 1).uniform_(-11, -5.5)) * torch.rand_like(mels)
    mels = torch.log(torch.exp(mels + 2 * torch.rand(len(mels), 1, 1) - 1) + floor)
    if generator.random() < 0.6:
        window = generator.choice((1, 3, 5, 7)), generator.choice((1, 3, 5, 9))
        half = window[0] // 2, window[1] // 2
        mels = F.avg_pool2d(mels[:, None], window, 1, half, count_include_pad=False)[:, 0]
    if generator.random() < 0.6:
        mels = mels + generator.uniform(0, 1) * torch.randn_like(mels)
    start = generator.randrange(110)
    mels[:, :, start : start + generator.randrange(18)] = -8
    start = generator.randrange(max(1, mels.shape[1] - 8))
    mels[:, start : start + generator.randrange(8)] = -8
    return mels


def main():
    options = arguments(parser(minutes=8))
    corpus, generator = Corpus(options.work), random.Random(1)
    mels = Mels(corpus, options.work)
    said = [words(text) for _, text, *_ in corpus.utterances]
    train = sorted(corpus.of("train", "between"), key=lambda u: corpus.utterances[u][3])
    model = Recogniser().to(options.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    stage = Stage("recogniser", {"model": model}, optimizer, options, rate=2e-3, flat=0.3, log_every=200)

    @torch.no_grad()
    def validate():
        model.eval()
        wrong = total = 0
        for utterance in corpus.novel("valid"):
            out = model(torch.from_numpy(mels.of(utterance))[None].to(options.device))[0]
            heard = read(out.argmax(-1).tolist(), WORDS)
            wrong += errors(said[utterance], heard)
            total += len(said[utterance])
        model.train()
        return {"valid": wrong / total}

    for _ in stage:
        start = generator.randrange(len(train) - BATCH)
        chosen = train[start : start + BATCH]
        rows = [mels.of(utterance) for utterance in chosen]
        batch = np.full((BATCH, max(map(len, rows)), 128), FLOOR, np.float32)
        for place, row in zip(batch, rows, strict=True):
            place[: len(row)] = row
        out = model(spoilt(torch.from_numpy(batch), generator).to(options.device))
        spans = torch.tensor([min(out.shape[1], (len(row) + 3) // 4) for row in rows])
        wanted = torch.tensor([NUMBER[word] for utterance in chosen for word in said[utterance]])
        lengths = torch.tensor([len(said[utterance]) for utterance in chosen])
        loss = F.ctc_loss(out.transpose(0, 1).cpu(), wanted, spans, lengths, zero_infinity=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        stage.record(validate if stage.step % 1000 == 999 else None, loss=loss)
    rate = validate()["valid"]
    print(f"recogniser: word error rate {rate:.4f} on held-out voices and sentences of espeak-ng")
    if rate > GATE:
        sys.exit("recogniser: it does not hear espeak-ng well; train it longer")
    from safetensors.torch import save_file

    tensors = {name: value.half().contiguous().cpu() for name, value in model.state_dict().items()}
    save_file(tensors, Path(options.work) / "recogniser.safetensors", metadata={"words": json.dumps(WORDS)})


if __name__ == "__main__":
    main()
