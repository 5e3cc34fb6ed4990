"""The judge: which phones a sound has. Its spectrogram, its network in NumPy, and the error rates.

The network is convolutions alone: two that bring 94 spectra a second down to 47 steps, then residual blocks of a
convolution over time within each channel and a product over the channels. `judge.py` trains it.
"""

import json

import numpy as np
from safetensors import safe_open
from scipy.fft import rfft

from ..ctc import read
from ..language import errors
from .inventory import PAUSE

RATE, WINDOW, HOP, BINS = 24000, 1024, 256, 80
LOWEST, HIGHEST = 60.0, 11000.0  # Hz
FLOOR = 1e-5
STRIDE = 2  # spectra a step
TAPS, DILATIONS = 7, (1, 1, 2, 2, 4, 4)  # of the blocks


def _filters():
    """[BINS, WINDOW / 2 + 1] triangles over the mel scale of O'Shaughnessy (1987), each of area 1."""
    top = 2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)
    edges = 700 * (10 ** (np.linspace(*top, BINS + 2) / 2595) - 1)
    axis = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    rising = (axis - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - axis) / np.diff(edges)[1:, None]
    area = 2 / (edges[2:] - edges[:-2])[:, None]
    return (np.maximum(0, np.minimum(rising, falling)) * area).astype(np.float32)


FILTERS = _filters()
HANN = np.hanning(WINDOW + 1)[:-1].astype(np.float32)


def log_mel(sound):
    """Log mel spectra [T, BINS] float32 of samples [N] at 24 kHz, a column every HOP, the first centred at 0."""
    padded = np.pad(np.asarray(sound, np.float32), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    return np.log(np.abs(rfft(frames * HANN)) @ FILTERS.T + FLOOR)


def steps(spectra):
    """Steps that the judge makes of so many spectra."""
    return -(-spectra // STRIDE)


class Listener:
    """`Listener(path)(samples)` gives a list of phones. samples: float [N] at 24 kHz."""

    def __init__(self, path):
        with safe_open(path, "np") as file:
            self.phones = json.loads(file.metadata()["phones"])
            self.tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118

    def _convolve(self, x, name, stride=1):
        """x [T, C] with the weight [D, C, K] of a name."""
        weight = self.tensors[f"{name}.weight"]
        taps = weight.shape[-1]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((taps // 2,) * 2, (0, 0))), taps, 0)[::stride]
        return windows.reshape(len(windows), -1) @ weight.reshape(len(weight), -1).T + self.tensors[f"{name}.bias"]

    def scores(self, sound):
        """Logits [steps, phones + 1], 0 the blank."""
        x = log_mel(sound)
        x = (x - x.mean()) / 2
        x = np.maximum(self._convolve(x, "first", STRIDE), 0)
        for number, dilation in enumerate(DILATIONS):
            x = x + self._block(x, f"blocks.{number}", dilation)
        return x @ self.tensors["out.weight"].T + self.tensors["out.bias"]

    def _block(self, x, name, dilation):
        weight = self.tensors[f"{name}.time.weight"][:, 0]  # [C, TAPS]
        reach = dilation * (TAPS // 2)
        padded = np.pad(x, ((reach, reach), (0, 0)))
        y = sum(padded[k * dilation : k * dilation + len(x)] * weight[:, k] for k in range(TAPS))
        y = y + self.tensors[f"{name}.time.bias"]
        y = y * (1 / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6)) * self.tensors[f"{name}.norm.weight"]
        y = np.maximum(y @ self.tensors[f"{name}.up.weight"].T + self.tensors[f"{name}.up.bias"], 0)
        return y @ self.tensors[f"{name}.down.weight"].T + self.tensors[f"{name}.down.bias"]

    def __call__(self, sound):
        return read(self.scores(sound).argmax(-1).tolist(), self.phones)

    def error_rate(self, meant, sounds):
        """Phone errors in sounds over the phones meant, lists of names without pauses."""
        meant = [[phone for phone in row if phone != PAUSE] for row in meant]
        wrong = sum(errors(row, self(sound)) for row, sound in zip(meant, sounds, strict=True))
        return wrong / sum(map(len, meant))
