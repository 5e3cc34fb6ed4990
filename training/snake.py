"""The codec decoder's activation, faster on a CPU: half of a training step goes into the official one's many passes."""

import ctypes
import subprocess
import tempfile
from pathlib import Path

import torch

from .official import SnakeBeta


class Snake(torch.autograd.Function):
    """x + ib sin²(a x), x [B, C, T], a and ib [C]."""

    @staticmethod
    def forward(context, x, a, ib):
        x, a, ib = x.contiguous(), a.contiguous(), ib.contiguous()
        y = torch.empty_like(x)
        context.save_for_backward(x, a, ib)
        Snake.library.forward(*map(_pointer, (x, a, ib, y)), *_sizes(x))
        return y

    @staticmethod
    def backward(context, gradient):
        x, a, ib = context.saved_tensors
        gradient, of_x = gradient.contiguous(), torch.empty_like(x)
        of_a, of_ib = (torch.empty(x.shape[:2]) for _ in range(2))
        Snake.library.backward(*map(_pointer, (x, gradient, a, ib, of_x, of_a, of_ib)), *_sizes(x))
        return of_x, of_a.sum(0), of_ib.sum(0)


def _pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def _sizes(x):
    batch, channels, length = x.shape
    return ctypes.c_long(batch * channels), ctypes.c_long(channels), ctypes.c_long(length)


def use():
    """Compile the kernels and put them in place of the official activation's forward, for training on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "snake.so"
        flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, str(Path(__file__).with_suffix(".c")), "-o", str(library), "-lm"], check=True)
        Snake.library = ctypes.CDLL(str(library))

    def forward(self, x):
        return Snake.apply(x, self.alpha.exp(), 1.0 / (self.beta.exp() + self.no_div_by_zero))

    SnakeBeta.forward = forward
