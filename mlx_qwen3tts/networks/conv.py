"""Convolutions over time, channels last.

Weights are stored [out, kernel, in] (one layout for both kinds). B batch, T positions, C channels.
"""

import functools

import mlx.core as mx
import mlx.nn as nn

from . import cpu
from .device import on_gpu


def conv1d(
    x: mx.array, weight: mx.array, bias: mx.array | None = None, stride: int = 1, dilation: int = 1, groups: int = 1
) -> mx.array:
    """Convolution without padding: [B, T, C] and [out, kernel, C / groups] to [B, (T - span) / stride + 1, out]."""
    if not on_gpu():
        return cpu.conv1d(x, weight, bias, stride, dilation, groups)
    y = mx.conv1d(x, weight, stride=stride, dilation=dilation, groups=groups)
    return y if bias is None else y + bias


class Conv1d(nn.Module):
    """Weights of a convolution; `span` is the number of positions its kernel covers."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        scale = max(1, inputs // groups * kernel) ** -0.5
        self.weight = mx.random.uniform(-scale, scale, (outputs, kernel, inputs // groups))
        if bias:
            self.bias = mx.zeros((outputs,))
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.span = (kernel - 1) * dilation + 1

    def __call__(self, x: mx.array) -> mx.array:
        return conv1d(x, self.weight, self.get("bias"), self.stride, self.dilation, self.groups)


class ConvTranspose1d(nn.Module):
    """Weights of a transposed convolution whose kernel is a multiple of its stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        scale = max(1, inputs * kernel) ** -0.5
        self.weight = mx.random.uniform(-scale, scale, (outputs, kernel, inputs))
        self.bias = mx.zeros((outputs,))
        self.stride, self.taps = stride, kernel // stride

    def __call__(self, x: mx.array) -> mx.array:
        """[B, T, C] to [B, (T - taps + 1) * stride, out]: the outputs all of whose inputs are in x."""
        batch, length, _ = x.shape
        outputs = self.weight.shape[0]
        # One product gives what every input adds to each of the taps; the bias is added once, after they meet.
        parts = (x @ self.weight.reshape(-1, self.weight.shape[2]).T).reshape(
            batch, length, outputs, self.taps, self.stride
        )
        steps = length - self.taps + 1
        met = (parts[:, self.taps - 1 - i : self.taps - 1 - i + steps, :, i] for i in range(self.taps))
        y = functools.reduce(mx.add, met)
        return y.transpose(0, 1, 3, 2).reshape(batch, steps * self.stride, outputs) + self.bias


class CausalConv(nn.Module):
    """Causal convolution that streams: `step(x, state)` gives for any cutting of x what one call gives for it all."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv = Conv1d(inputs, outputs, kernel, stride, dilation, groups, bias)

    def step(self, x: mx.array, state: mx.array | None, edge: bool = False) -> tuple[mx.array, mx.array]:
        """x: [B, T, C], T a multiple of the stride. state: None at first. Returns (y [B, T / stride, out], state).

        Before the start there are zeros, or with `edge` the first input repeated.
        """
        keep = self.conv.span - self.conv.stride
        if state is None:
            shape = (x.shape[0], keep, x.shape[2])
            state = mx.broadcast_to(x[:, :1], shape) if edge else mx.zeros(shape, x.dtype)
        x = mx.concatenate([state, x], axis=1)
        # A contiguous copy: a view would hold on to the whole chunk it was cut from.
        return self.conv(x), mx.contiguous(x[:, x.shape[1] - keep :])


class CausalConvTranspose(nn.Module):
    """Causal transposed convolution that streams, keeping one input column where the kernel is twice the stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = ConvTranspose1d(inputs, outputs, kernel, stride)

    def step(self, x: mx.array, state: mx.array | None) -> tuple[mx.array, mx.array]:
        """x: [B, T, C]. state: None at first. Returns (y [B, T * stride, out], state)."""
        keep = self.conv.taps - 1
        if state is None:
            state = mx.zeros((x.shape[0], keep, x.shape[2]), x.dtype)
        x = mx.concatenate([state, x], axis=1)
        return self.conv(x), mx.contiguous(x[:, x.shape[1] - keep :])
