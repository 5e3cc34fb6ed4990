"""What the decoder is told of how speech sounds: the hidden states of a recogniser of phones, as a distance.

    python -m training.open ear WORK

trains a second judge, of another seed, on other voices that say other texts, and writes WORK/ear/judge.safetensors. The
stage `decoder` asks it how far what it makes is from what was said; the judge itself never takes part in a training.
A distance of spectra weighs every band alike, and a burst that tells b from d is a few of them for a few milliseconds.
After the feature losses of Johnson et al. 2016 (Perceptual Losses for Real-Time Style Transfer).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from ..codec import hann
from . import judge
from .listener import FILTERS, FLOOR, HOP, WINDOW

SEED, STEPS = 1, 530  # with so many the judge has met its gate
WEIGHT = 1.5  # where both gradients are of one size


class Ear(nn.Module):
    """`Ear(path)(made, meant)` is the mean distance of hidden states over their size; sounds [B, samples]."""

    def __init__(self, path):
        super().__init__()
        self.judge = judge.Judge()
        self.judge.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
        self.register_buffer("filters", torch.from_numpy(FILTERS))
        self.requires_grad_(False)

    def states(self, sound):
        window = hann(WINDOW, str(sound.device))
        spectrum = torch.stft(sound, WINDOW, HOP, WINDOW, window, pad_mode="constant", return_complex=True)
        power = spectrum.real**2 + spectrum.imag**2
        mels = torch.log(self.filters @ torch.sqrt(power + FLOOR**2) + FLOOR)
        hidden = (mels - mels.mean((1, 2), keepdim=True)) / 2
        hidden = F.relu(self.judge.first(hidden)).transpose(1, 2)
        for block in self.judge.blocks:
            hidden = block(hidden)
            yield hidden

    def forward(self, made, meant):
        with torch.no_grad():
            wanted = list(self.states(meant))
        found = self.states(made)
        parts = [(a - b).abs().mean() / b.abs().mean() for a, b in zip(found, wanted, strict=True)]
        return torch.stack(parts).mean()


def add_options(options):
    judge.add_options(options)
    options.set_defaults(seed=SEED, steps=STEPS)


def main(options):
    options.work = Path(options.work) / "ear"
    options.work.mkdir(parents=True, exist_ok=True)
    judge.main(options)
