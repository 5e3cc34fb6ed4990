"""The recogniser of `recogniser.py` in MLX: what the tests and the evaluation hear, without torch."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from safetensors import safe_open

from mlx_qwen3tts.networks.speaker.mel import log_mel

from .ctc import read
from .language import errors, words


class Hearing:
    """Words heard in a sound: `Hearing(path)(samples)` gives a list of them. samples: float [N] at 24 kHz."""

    def __init__(self, path):
        with safe_open(path, "np") as file:
            self.words = json.loads(file.metadata()["words"])
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
        self.tensors = {name: mx.array(value) for name, value in tensors.items()}
        self.layers = [[self._gru(tensors, layer, side) for side in ("", "_reverse")] for layer in range(2)]

    @staticmethod
    def _gru(tensors, layer, side):
        parts = (f"recurrent.{kind}_l{layer}{side}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        into, over, bias, bias_over = (tensors[part] for part in parts)
        width = over.shape[1]
        gru = nn.GRU(into.shape[1], width)
        # torch adds a bias to the hidden part too; only the candidate's stands inside the reset gate's product
        gru.Wx, gru.Wh, gru.bhn = mx.array(into), mx.array(over), mx.array(bias_over[2 * width :])
        gru.b = mx.array(bias + np.r_[bias_over[: 2 * width], np.zeros(width, np.float32)])
        return gru

    def __call__(self, samples):
        mels = log_mel(mx.array(np.clip(np.asarray(samples, np.float32), -1, 1)))
        mels = (mels - mels.mean()) / 3
        hidden = mels[None]
        for name in ("first", "second"):
            weight = self.tensors[f"{name}.weight"].transpose(0, 2, 1)
            hidden = nn.relu(mx.conv1d(hidden, weight, stride=2, padding=2) + self.tensors[f"{name}.bias"])
        for forward, backward in self.layers:
            hidden = mx.concatenate([forward(hidden), backward(hidden[:, ::-1])[:, ::-1]], -1)
        best = mx.argmax(hidden[0] @ self.tensors["out.weight"].T + self.tensors["out.bias"], -1).tolist()
        return read(best, self.words)

    def error_rate(self, texts, sounds):
        """Word errors in sounds, each a text spoken, over the words of the texts."""
        meant = [words(text) for text in texts]
        wrong = sum(errors(said, self(sound)) for said, sound in zip(meant, sounds, strict=True))
        return wrong / sum(map(len, meant))
