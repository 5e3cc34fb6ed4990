"""Stages 2 and 3: the codec's decoder.

    python -m training.decoder WORK --from spectra [--minutes 30]
    python -m training.decoder WORK --from codes [--minutes 60] [--start CODEC] [--ear JUDGE]

From spectra it runs beside the encoder's training, when there are no codes yet: a linear layer of 64 takes the place of
the quantised vectors. Then a least-squares fit from quantised vectors to that layer's outputs is folded into the first
convolution, and training goes on from codes. With --start it goes on from the decoder of that folder instead, and the
fit is to the vectors that its own codec would make. Writes WORK/decoder.pt. Gate: the spectral loss on held-out voices.
"""

import random
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import codec, snake
from .corpus import Corpus
from .stage import Stage, arguments, parser

BATCH, FRAMES = 6, 8
NOISE = 0.15  # on normalised spectra, as codes will not tell them exactly
LOW_FIRST = 2000  # steps
GATE = 1.3


class Vocoder(nn.Module):
    """The decoder with a linear layer over spectra before it."""

    def __init__(self, start=None):
        """start: the folder of a codec whose decoder this is."""
        super().__init__()
        self.codec = codec.load(start) if start else codec.build(codec.config())
        self.spectra = nn.Conv1d(1120 + codec.PERIODS, 2 * codec.SIZE, 1)
        self.low = nn.Conv1d(codec.config()["decoder_config"]["decoder_dim"] // 4, 1, 5, padding=2)
        self.register_buffer("mean", torch.zeros(1120, 1))
        self.register_buffer("deviation", torch.ones(1120, 1))
        if not start:
            initialise(self.codec.decoder)
        with torch.no_grad():  # half of what it says at first is the pitch
            self.spectra.weight[:, :1120].normal_(0, (2 * 1120) ** -0.5)
            self.spectra.weight[:, 1120:].normal_(0, 2**-0.5)

    def bottleneck(self, sound, periods, noise=0.0):
        """[B, 2 SIZE, N]; sound [B, 1920 N], periods [B, N]."""
        told = (codec.targets(sound) - self.mean) / self.deviation
        told = told + noise * torch.randn_like(told)
        pitch = nn.functional.one_hot(periods, codec.PERIODS).transpose(1, 2).float()
        return self.spectra(torch.cat([told, pitch], 1))

    def low_loss(self, hidden, sound):
        """Squared error over power of the low band, read off the hidden states that `codec.decode_low` gives."""
        made, meant = self.low(hidden).squeeze(1), codec.low_band(sound)
        return (made - meant).pow(2).mean() / (meant.pow(2).mean() + 1e-6)


@torch.no_grad()
def initialise(decoder):
    """Weights that keep the size of what passes. As the official classes come, each upsampling makes it a third, and
    the decoder starts out linear and silent."""
    for name, module in decoder.named_modules():
        if name.startswith("quantizer"):
            continue
        if isinstance(module, nn.ConvTranspose1d):
            taps = module.kernel_size[0] // module.stride[0]
            module.weight.normal_(0, (module.in_channels * taps) ** -0.5)
            module.bias.zero_()
        elif isinstance(module, nn.Conv1d):
            fan = module.in_channels // module.groups * module.kernel_size[0]
            module.weight.normal_(0, fan**-0.5 * (0.5 if ".conv2" in name else 1))
            module.bias.zero_()
    for name, value in decoder.named_parameters():
        if name.endswith("gamma"):
            value.fill_(0.3)
    last = [module for module in decoder.decoder.modules() if isinstance(module, nn.Conv1d)][-1]
    last.weight.mul_(0.05)


class Utterances:
    """Crops of whole frames with their codes, where there are any."""

    def __init__(self, work, *splits):
        self.corpus = Corpus(work, locked=True)
        self.utterances = self.corpus.of(*splits)
        codes = Path(work) / "codes.npy"
        self.codes = np.load(codes) if codes.is_file() else None

    def draw(self, generator, batch=BATCH, frames=FRAMES):
        """Sounds float32 [batch, 1920 frames], periods int64 [batch, frames], codes int64 [batch, CODEBOOKS, frames],
        all zero where they are not known yet."""
        sounds, periods, codes = [], [], []
        while len(sounds) < batch:
            utterance = generator.choice(self.utterances)
            sound = self.corpus.samples(utterance)
            spare = len(sound) // codec.SAMPLES_PER_FRAME - frames
            if spare < 0:
                continue
            start = generator.randrange(spare + 1) if generator.random() < 0.8 else 0
            sounds.append(sound[start * codec.SAMPLES_PER_FRAME :][: frames * codec.SAMPLES_PER_FRAME])
            first = self.corpus.starts[utterance] + start
            periods.append(self.corpus.pitch(utterance)[start : start + frames])
            blank = np.zeros((frames, codec.CODEBOOKS))
            codes.append((blank if self.codes is None else self.codes[first : first + frames]).astype(np.int64).T)
        return tuple(torch.from_numpy(np.stack(rows)) for rows in (sounds, periods, codes))


def prepare(model, utterances):
    """Mean and deviation of the spectra."""
    sounds, *_ = utterances.draw(random.Random(3), batch=200)
    found = torch.cat([codec.targets(part) for part in sounds.split(20)])
    model.mean.copy_(found.mean((0, 2))[:, None])
    model.deviation.copy_(found.std((0, 2))[:, None])


@torch.no_grad()
def take_over(model, work, utterances, before):
    """Put encoder and codebooks of WORK/encoder.pt in, and fold a fit to what `pre_conv` has read before into it.

    before: what that was, [B, 2 SIZE, N] of sounds [B, 1920 N] and periods [B, N].
    """
    trained = torch.load(Path(work) / "encoder.pt", weights_only=False)["keep"]["model"]
    taken = {
        k.removeprefix("codec."): v
        for k, v in trained.items()
        if k.startswith(("codec.encoder.", "codec.decoder.quant"))
    }
    model.codec.load_state_dict(taken, strict=False)
    quantiser = codec.Quantiser()
    quantiser.load_state_dict(
        {k.removeprefix("quantiser."): v for k, v in trained.items() if k.startswith("quantiser.")}
    )
    quantiser.export(model.codec)
    drawn = utterances.draw(random.Random(4), batch=1200)
    into, out = [], []
    for sound, periods, code in zip(*(rows.split(40) for rows in drawn), strict=True):
        into.append(model.codec.decoder.quantizer.decode(code).transpose(1, 2).flatten(0, 1))
        out.append(before(sound, periods).transpose(1, 2).flatten(0, 1))
    out = torch.cat(out)
    matrix, offset, rest = codec.least_squares(torch.cat(into), out)
    explained = 1 - rest.var(0).sum() / out.var(0).sum()
    print(f"decoder: the codes explain {explained:.3f} of what it was trained on")
    convolution = model.codec.decoder.pre_conv.conv
    convolution.bias += torch.einsum("oik,i->o", convolution.weight, offset)
    convolution.weight.copy_(torch.einsum("oik,ji->ojk", convolution.weight, matrix))


def own_vectors(start):
    """What the decoder of a folder reads, for `take_over`: its own codec's vectors, with the pitch that is known."""
    of_start = codec.load(start).eval()

    def before(sound, periods):
        codes = torch.stack(of_start.encode(sound, torch.ones_like(sound, dtype=int)).audio_codes)
        codes[..., 0] = periods
        return of_start.decoder.quantizer.decode(codes.transpose(1, 2))

    return before


def main():
    options_parser = parser(minutes=60)
    options_parser.add_argument("--from", dest="source", choices=("spectra", "codes"), required=True)
    options_parser.add_argument("--start", help="folder of a codec to go on from; then there is no stage from spectra")
    options_parser.add_argument("--ear", help="recogniser of training.open.ear, whose distance is part of the loss")
    options = arguments(options_parser)
    if options.start and options.source != "codes":
        options_parser.error("--start goes on from codes")
    if options.device == "cpu":
        snake.use()
    train, valid = Utterances(options.work, "train", "between"), Utterances(options.work, "valid")
    model = Vocoder(options.start)
    from_codes = options.source == "codes"
    name = "decoder" if from_codes else "vocoder"
    path = Path(options.work)
    if not (path / f"{name}.pt").is_file():
        if options.start:
            take_over(model, path, train, own_vectors(options.start))
        elif from_codes:
            model.load_state_dict(torch.load(path / "vocoder.pt", weights_only=False)["keep"]["model"])
            take_over(model, path, train, model.bottleneck)
        else:
            prepare(model, train)
    model.to(options.device).train()
    trained = [v for n, v in model.codec.decoder.named_parameters() if not n.startswith("quantizer")]
    trained += model.low.parameters()
    if not from_codes:
        trained += model.spectra.parameters()
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.8, 0.99), weight_decay=0.0)
    stage = Stage(
        name, {"model": model}, optimizer, options, rate=1.5e-3, flat=0.35 if from_codes else 1.0, log_every=250
    )
    held = [rows.to(options.device) for rows in valid.draw(random.Random(5), batch=32)]

    def told(sound, periods, codes, noise=0.0):
        if from_codes:
            return model.codec.decoder.quantizer.decode(codes)
        return model.bottleneck(sound, periods, noise)

    @torch.no_grad()
    def validate():
        hidden = codec.decode_low(model.codec, told(*held))
        out = codec.decode_rest(model.codec, hidden)
        return {"valid": codec.spectral_loss(out, held[0])} | (
            {} if options.start else {"valid_low": model.low_loss(hidden, held[0])}
        )

    if options.ear:
        from .open.ear import WEIGHT, Ear

        ear = Ear(options.ear).to(options.device)
    generator = random.Random(6)
    for step in stage:
        drawn = [rows.to(options.device) for rows in train.draw(generator)]
        # At first the low band alone, at its own rate: how pitch becomes periods is learnt there in minutes, and hardly
        # ever from the whole sound. A decoder that goes on knows it.
        early = not from_codes and step < LOW_FIRST
        hidden = codec.decode_low(model.codec, told(*drawn, NOISE))
        loss = 0.0 if options.start else model.low_loss(hidden, drawn[0])
        more = {}
        if not early:
            made = codec.decode_rest(model.codec, hidden)
            loss = codec.spectral_loss(made, drawn[0]) + 0.5 * loss
            if options.ear:
                more["ear"] = ear(made, drawn[0])
                loss = loss + WEIGHT * more["ear"]
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, 2.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        stage.record(validate, loss=loss, norm=norm, **more)
    result = float(validate()["valid"])
    print(f"{name}: {stage.step} steps, loss on held-out voices {result:.3f}")
    if from_codes and result > GATE:
        sys.exit("decoder: what it makes is too far from what was said; train it longer")


if __name__ == "__main__":
    main()
