"""Stage 4: the speaker encoder (ECAPA-TDNN), taught what the voices were made of.

    python -m training.speaker WORK [--minutes 8]

The embedding has to give pitch, vocal tract, tilt and pace by one linear layer, and to be the same for any two crops
of a speaker: so it is linear in what a voice is, and a blend of embeddings is the embedding of a voice in between.
Writes WORK/speaker.pt, then WORK/embeddings.npy (three crops of every utterance). Gate: the attributes of held-out
voices, as spoken and through the codec.
"""

import random
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .checkpoint import SPEAKER
from .corpus import Corpus
from .echoes import Echoes
from .mels import FLOOR, Mels
from .official import Qwen3TTSSpeakerEncoder, Qwen3TTSSpeakerEncoderConfig
from .stage import Stage, arguments, parser

WIDTH = SPEAKER["enc_dim"]
SPEAKERS = 24  # a batch, two crops each
ATTRIBUTES = ("pitch", "formants", "tilt", "pace")
ECHOED = 0.5  # how often an utterance is heard through the codec, as all is that the model says
CROPS = 3  # embeddings kept of every utterance
GATE = 0.9  # explained variance of pitch and formants in held-out voices


class Speaker(nn.Module):
    """The official encoder over normalised mels: it has no normalisation of its own. `folded` takes the mean and
    deviation into its first convolution."""

    def __init__(self):
        super().__init__()
        self.encoder = Qwen3TTSSpeakerEncoder(Qwen3TTSSpeakerEncoderConfig(**SPEAKER))
        self.readout = nn.Linear(WIDTH, 4)
        self.register_buffer("mean", torch.zeros(128))
        self.register_buffer("deviation", torch.ones(128))
        with torch.no_grad():
            for value in self.encoder.parameters():
                if value.ndim == 3:
                    value.normal_(0, (2 / (value.shape[1] * value.shape[2])) ** 0.5)
                else:
                    value.zero_()
            for block in self.encoder.blocks[1:]:
                block.tdnn2.conv.weight.mul_(0.5)
            self.encoder.fc.weight.mul_(0.5)

    def forward(self, mels):
        return self.encoder((mels - self.mean) / self.deviation)

    def folded(self):
        """The encoder's tensors, to be fed with plain mels."""
        tensors = {name: value.detach().clone() for name, value in self.encoder.state_dict().items()}
        name = "blocks.0.conv.weight"
        weight = tensors[name]
        tensors[name] = weight / self.deviation[None, :, None]
        tensors["blocks.0.conv.bias"] -= (weight * (self.mean / self.deviation)[None, :, None]).sum((1, 2))
        return tensors


def crop(mel, length, generator):
    """[length, 128]: anywhere in an utterance, repeated where it is shorter, at another level."""
    if len(mel) < length:
        mel = np.tile(mel, (-(-length // len(mel)), 1))
    start = generator.randrange(len(mel) - length + 1)
    return np.maximum(mel[start : start + length] + generator.uniform(-1.5, 0.8), FLOOR)


def main():
    options = arguments(parser(minutes=8))
    corpus, generator = Corpus(options.work), random.Random(1)
    mels = Mels(corpus, options.work)
    features = torch.from_numpy(corpus.features)
    by_speaker = corpus.by_speaker(range(len(corpus.utterances)))
    echoes = Echoes(corpus, options.work)
    splits = [s["split"] for s in corpus.speakers]
    train = [i for i, split in enumerate(splits) if split in ("train", "between")]
    valid = [i for i, split in enumerate(splits) if split == "valid"]
    model = Speaker()
    some = np.concatenate([mels.of(by_speaker[speaker][0]) for speaker in train[::5]])
    model.mean.copy_(torch.from_numpy(some.mean(0)))
    model.deviation.copy_(torch.from_numpy(some.std(0)))
    model.to(options.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    stage = Stage("speaker", {"model": model}, optimizer, options, rate=2e-3, flat=0.1, log_every=100)

    def heard(speaker, echo):
        """A spectrogram of an utterance of a speaker, as spoken or as the codec gives it back."""
        of, utterances = (echoes, echoes.of_speaker) if echo else (mels, by_speaker)
        return of.of(generator.choice(utterances[speaker]))

    def embed(spectrograms, length, draw):
        batch = np.stack([crop(spectrogram, length, draw) for spectrogram in spectrograms])
        return model(torch.from_numpy(batch).to(options.device))

    @torch.no_grad()
    def validate():
        row = {}
        for kind, of in (("", mels), ("echo_", echoes)):
            spectrograms = [of.of(by_speaker[speaker][1]) for speaker in valid]
            found = model.readout(embed(spectrograms, 144, random.Random(2))).cpu()
            explained = 1 - ((found - features[valid]) ** 2).mean(0) / features[valid].var(0)
            row |= {kind + name: value for name, value in zip(ATTRIBUTES, explained, strict=True)}
        return row

    for _ in stage:
        length = generator.choice((80, 112, 144, 192))
        speakers = generator.sample(train, SPEAKERS)
        vectors = embed([heard(speaker, generator.random() < ECHOED) for speaker in speakers * 2], length, generator)
        wanted = features[speakers * 2].to(options.device)
        error = F.mse_loss(model.readout(vectors), wanted)
        one, other = vectors.chunk(2)
        # Of two crops of one voice: how far apart, over how far apart the voices are.
        apart = (one - other).pow(2).mean() / (2 * vectors.var(0).mean() + 1e-6)
        (error + 0.3 * apart).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        stage.record(validate, error=error, apart=apart)
    result = validate()
    print({name: round(float(value), 3) for name, value in result.items()})
    if min(result[name] for name in ("pitch", "formants", "echo_pitch", "echo_formants")) < GATE:
        sys.exit("speaker: the embedding does not tell voices apart; train it longer")
    finish(model, mels, corpus, by_speaker, train, options)


def evened(vectors):
    """A symmetric matrix that evens out the variances of vectors [N, D] and brings their sum to D.

    One attribute comes to fill the vector: 96 % of the variance lay along the vocal tract, and likeness was likeness of
    formants. As many principal components as there are attributes get a variance of what they had to the
    power of 0.4; what lies beyond is noise and goes along with the last of them.
    """
    variances, axes = torch.linalg.eigh(torch.cov(vectors.double().T))
    gains = variances[-len(ATTRIBUTES) :] ** -0.3
    gains = torch.cat([gains[:1].expand(len(variances) - len(gains)), gains])
    total = (gains**2 * variances.clamp(min=0)).sum()
    return ((axes * gains) @ axes.T * (len(variances) / total) ** 0.5).float()


@torch.no_grad()
def finish(model, mels, corpus, by_speaker, train, options):
    """Centre the embedding and even it out; embed crops of the whole corpus."""
    generator = random.Random(3)

    def embed(utterances, length):
        batch = np.stack([crop(mels.of(utterance), length, generator) for utterance in utterances])
        return model(torch.from_numpy(batch).to(options.device)).cpu()

    found = torch.cat([embed([by_speaker[s][0] for s in train[k : k + 60]], 144) for k in range(0, len(train), 60)])
    mean, matrix = found.mean(0).to(options.device), evened(found).to(options.device)
    layer = model.encoder.fc
    layer.weight.copy_((matrix @ layer.weight[..., 0])[..., None])
    layer.bias.copy_(matrix @ (layer.bias - mean))
    model.readout.bias.add_(model.readout.weight @ mean)
    model.readout.weight.copy_(torch.linalg.solve(matrix, model.readout.weight, left=False))
    state = {"tensors": {k: v.cpu() for k, v in model.cpu().folded().items()}, "readout": model.readout.state_dict()}
    torch.save(state, Path(options.work) / "speaker_encoder.pt")
    model.to(options.device)
    vectors = np.zeros((len(corpus.utterances), CROPS, WIDTH), np.float32)
    for take in range(CROPS):
        for start in range(0, len(vectors), 48):
            utterances = range(start, min(start + 48, len(vectors)))
            vectors[start : start + 48, take] = embed(utterances, generator.choice((112, 144, 192))).numpy()
    np.save(Path(options.work) / "embeddings.npy", vectors)


if __name__ == "__main__":
    main()
