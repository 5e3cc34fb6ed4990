"""Stage 2: the codec's encoder and codebooks, against spectra and pitch read linearly off the quantised vectors.

    python -m training.encoder WORK [--minutes 30] [--start CODEC]

No sound is made here, so a step is cheap and the gradient direct. Where the corpus knows its phones (phones.npy), a
small network reads these off the quantised vectors too. With --start it goes on from the codec of that folder. Writes
WORK/encoder.pt; then WORK/codes.npy with the codes of the whole corpus. Gate: each codebook in use, and the spectra of
held-out voices read off well.
"""

import random
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import codec
from .corpus import Corpus
from .stage import Stage, arguments, parser

BATCH, FRAMES = 16, 16
NATURAL = 0.3  # share of what is heard as espeak-ng says it; the rest has its pitch locked to the frames, see lock.py
CONTINUOUS = 600  # steps of a plain autoencoder first: codebooks that learn from the start collapse
PHONES, PHONE_WIDTH, NO_PHONE = 0.1, 192, -100  # weight of their loss; width of the network that reads them
# On held-out voices: mean absolute error of log spectra, share of frames whose pitch is right.
GATE, GATE_PITCH = 0.5, 0.9


class Quantised(nn.Module):
    """Codec, quantiser and read-outs, as one thing to keep."""

    def __init__(self, start=None, phones=0):
        """start: the folder of a codec to go on from; phones: how many kinds are told."""
        super().__init__()
        self.codec = codec.load(start) if start else codec.build(codec.config())
        self.quantiser = codec.Quantiser()
        self.readout = nn.Conv1d(2 * codec.SIZE, 1120, 1)
        if start:
            self.quantiser.take(self.codec)
        else:
            for name, value in self.codec.named_parameters():
                if ".quantizer" in name and "proj" in name:
                    nn.init.normal_(value, std=value.shape[1] ** -0.5)
        self.phones = (
            nn.Sequential(  # of both halves of a frame, off it and its neighbours
                nn.Conv1d(2 * codec.SIZE, PHONE_WIDTH, 3, padding=1), nn.GELU(), nn.Conv1d(PHONE_WIDTH, 2 * phones, 1)
            )
            if phones
            else nn.Identity()
        )

    def trained(self):
        parts = ("encoder.", "decoder.quantizer")
        of_codec = [v for n, v in self.codec.named_parameters() if n.startswith(parts) and "codebook" not in n]
        return [*of_codec, *self.readout.parameters(), *self.phones.parameters()]

    def told_phones(self, quantised):
        """Logits [B, phones, N, 2] of quantised vectors [B, 2 SIZE, N]."""
        return self.phones(quantised).unflatten(1, (-1, 2)).transpose(2, 3)

    @torch.no_grad()
    def fit(self, heard, told):
        """The linear read-out by least squares, for a codec that has learnt already; sounds [B, T]."""
        into, out = [], []
        for one, other in zip(heard.split(BATCH), told.split(BATCH), strict=True):
            quantised, *_ = self.quantiser(self.codec, codec.encode(self.codec, one))
            into.append(quantised.transpose(1, 2).flatten(0, 1))
            out.append(codec.targets(other).transpose(1, 2).flatten(0, 1))
        matrix, offset, _ = codec.least_squares(torch.cat(into), torch.cat(out))
        self.readout.weight.copy_(matrix.T[..., None])
        self.readout.bias.copy_(offset)


def crops(corpora, utterances, generator, natural=NATURAL, frames=FRAMES, batch=BATCH):
    """What is heard and what its codes should tell, float32 [batch, samples] each; the periods, int64 [batch, frames];
    and the phones, int64 [batch, frames, 2], NO_PHONE where none is known.

    corpora: with natural and with locked pitch; what is heard is natural in a share of cases, what is told never. From
    the first sample in 4 of 10 cases, as utterances are encoded, else from any frame.
    """
    length = frames * codec.SAMPLES_PER_FRAME
    heard, told = (np.zeros((batch, length), np.float32) for _ in range(2))
    periods = np.zeros((batch, frames), np.int64)
    phones = np.full((batch, frames, 2), NO_PHONE)
    for one, other, pitch, phone in zip(heard, told, periods, phones, strict=True):
        utterance = generator.choice(utterances)
        sounds = [corpus.samples(utterance) for corpus in corpora]
        frames_there = len(sounds[0]) // codec.SAMPLES_PER_FRAME
        start = 0 if generator.random() < 0.4 else generator.randrange(max(1, frames_there - 4))
        gain, is_natural = 10 ** (generator.uniform(-3, 1) / 20), generator.random() < natural
        natural_part, locked_part = (s[start * codec.SAMPLES_PER_FRAME :][:length] * gain for s in sounds)
        one[: len(locked_part)] = natural_part if is_natural else locked_part
        other[: len(locked_part)] = locked_part
        part = corpora[1].pitch(utterance)[start : start + frames]
        pitch[: len(part)] = part
        if corpora[1].phones is not None:
            phone[: len(part)] = corpora[1].phones_of(utterance)[start : start + frames]
    return tuple(map(torch.from_numpy, (heard, told, periods, phones)))


def main():
    options = parser(minutes=30)
    options.add_argument("--start", help="folder of a codec to go on from")
    options = arguments(options)
    corpora, generator = [Corpus(options.work, locked) for locked in (False, True)], random.Random(1)
    train, valid = (corpora[1].of(*splits) for splits in (("train", "between"), ("valid",)))
    kinds = 0 if corpora[1].phones is None else int(corpora[1].phones.max()) + 1
    model = Quantised(options.start, kinds).to(options.device).train()
    continuous = 0 if options.start else CONTINUOUS  # steps
    optimizer = torch.optim.AdamW(model.trained(), lr=1e-3, betas=(0.8, 0.99), weight_decay=0.0)
    stage = Stage("encoder", {"model": model}, optimizer, options, rate=1.5e-3, log_every=200)
    held = [x.to(options.device) for x in crops(corpora, valid, random.Random(2), 0.0, batch=48)]
    if options.start and not stage.step:
        model.eval().fit(*(x.to(options.device) for x in crops(corpora, train, random.Random(3), 0.0, batch=240)[:2]))
        model.train()

    def validate():
        model.eval()
        with torch.no_grad():
            latents = codec.encode(model.codec, held[0])
            quantised, _, _, logits = model.quantiser(model.codec, latents, continuous=stage.step < continuous)
            error = (model.readout(quantised) - codec.targets(held[1])).abs()
            right = {}
            if kinds:
                phones, known = model.told_phones(quantised).argmax(1), held[3] != NO_PHONE
                right["valid_phones"] = (phones == held[3])[known].float().mean()
        model.train()
        return right | {
            "valid": error.mean(),
            "valid_pitch": (logits.argmax(1) == held[2]).float().mean(),
            "valid_short": error[:, :640].mean(),
            "valid_long": error[:, 640:864].mean(),
            "valid_tone": error[:, 864:].mean(),
            "used": min(int((book.usage > 0.05).sum()) for book in model.quantiser.books),
        }

    for step in stage:
        heard, told, periods, phones = (x.to(options.device) for x in crops(corpora, train, generator))
        latents = codec.encode(model.codec, heard)
        if continuous and step == continuous:
            with torch.no_grad():
                many = [crops(corpora, train, generator)[0].to(options.device) for _ in range(12)]
                many = [codec.encode(model.codec, sounds) for sounds in many]
            model.quantiser.start(model.codec, torch.cat(many))
            optimizer.state.clear()
        quantised, _, commitment, logits = model.quantiser(model.codec, latents, periods, continuous=step < continuous)
        loss = (model.readout(quantised) - codec.targets(told)).abs().mean()
        pitch = nn.functional.cross_entropy(logits, periods)
        more = {}
        if kinds:
            more["phones"] = nn.functional.cross_entropy(model.told_phones(quantised), phones, ignore_index=NO_PHONE)
        (loss + 0.1 * pitch + 0.07 * commitment + PHONES * sum(more.values())).backward()
        norm = nn.utils.clip_grad_norm_(model.trained(), 2.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        stage.record(validate, loss=loss, pitch=pitch, commitment=commitment, norm=norm, **more)
    model.eval()
    result = validate()
    print({name: round(float(value), 3) for name, value in result.items()})
    if result["valid"] > GATE or result["valid_pitch"] < GATE_PITCH or result["used"] < codec.CODES * 0.9:
        sys.exit("encoder: the codes do not tell enough; train it longer")
    encode_corpus(model, corpora[1], options)


@torch.inference_mode()
def encode_corpus(model, corpus, options):
    """WORK/codes.npy: uint16 [frames of all utterances, CODEBOOKS]."""
    starts, frames = corpus.starts, np.diff(corpus.starts)
    codes = np.zeros((starts[-1], codec.CODEBOOKS), np.uint16)
    order = np.argsort(frames)
    for first in range(0, len(order), 24):  # causal, so silence on the right changes nothing
        rows = order[first : first + 24]
        batch = np.zeros((len(rows), frames[rows[-1]] * codec.SAMPLES_PER_FRAME), np.float32)
        for row, utterance in zip(batch, rows, strict=True):
            sound = corpus.samples(utterance)
            row[: len(sound)] = sound
        _, found, *_ = model.quantiser(
            model.codec, codec.encode(model.codec, torch.from_numpy(batch).to(options.device))
        )
        for row, utterance in zip(found.cpu().numpy(), rows, strict=True):
            codes[starts[utterance] : starts[utterance + 1]] = row[: frames[utterance]]
            codes[starts[utterance] : starts[utterance + 1], 0] = corpus.pitch(utterance)  # which is known
    np.save(Path(options.work) / "codes.npy", codes)


if __name__ == "__main__":
    main()
