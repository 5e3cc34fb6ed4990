"""The speaker encoder: ECAPA-TDNN, a log-mel spectrogram to one vector.

Desplanques et al., "ECAPA-TDNN: Emphasized Channel Attention, Propagation and Aggregation in TDNN Based Speaker
Verification" (2020), without batch norm. B batch, T frames, C channels; channels last.
"""

import mlx.core as mx
import mlx.nn as nn

from ...errors import AudioError
from ..config import SpeakerEncoderConfig
from ..conv import Conv1d
from ..process import enter
from .mel import FFT, HOP, log_mel


def _reflect(x: mx.array, pad: int) -> mx.array:
    """Mirror `pad` frames at both ends of [B, T, C] without repeating the edge."""
    if pad == 0:
        return x
    return mx.concatenate([x[:, 1 : pad + 1][:, ::-1], x, x[:, -pad - 1 : -1][:, ::-1]], axis=1)


class TDNN(nn.Module):
    """Time-delay layer: "same" convolution with reflect padding, then ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = Conv1d(inputs, outputs, kernel, dilation=dilation)

    def __call__(self, x: mx.array) -> mx.array:
        return nn.relu(self.conv(_reflect(x, self.conv.span // 2)))


class Res2Net(nn.Module):
    """Channel groups in a chain, each convolved together with the output of the one before."""

    def __init__(self, channels: int, scale: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.blocks = [TDNN(channels // scale, channels // scale, kernel, dilation) for _ in range(scale - 1)]

    def __call__(self, x: mx.array) -> mx.array:
        first, second, *rest = mx.split(x, len(self.blocks) + 1, axis=-1)
        outputs = [first, self.blocks[0](second)]
        for block, part in zip(self.blocks[1:], rest, strict=True):
            outputs.append(block(part + outputs[-1]))
        return mx.concatenate(outputs, axis=-1)


class SqueezeExcitation(nn.Module):
    """Gates every channel by a function of all channels' means over time."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv1 = Conv1d(channels, squeezed, 1)
        self.conv2 = Conv1d(squeezed, channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        return x * mx.sigmoid(self.conv2(nn.relu(self.conv1(x.mean(axis=1, keepdims=True)))))


class SERes2Block(nn.Module):
    """TDNN, Res2Net, TDNN, squeeze-excitation, residual."""

    def __init__(self, inputs: int, channels: int, scale: int, squeezed: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.tdnn1 = TDNN(inputs, channels)
        self.res2net_block = Res2Net(channels, scale, kernel, dilation)
        self.tdnn2 = TDNN(channels, channels)
        self.se_block = SqueezeExcitation(channels, squeezed)

    def __call__(self, x: mx.array) -> mx.array:
        return self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x)))) + x


def _statistics(x: mx.array, weights: mx.array | float) -> list[mx.array]:
    """Weighted mean and standard deviation over time, [B, 1, C] each."""
    mean = (weights * x).sum(axis=1, keepdims=True)
    variance = (weights * mx.square(x - mean)).sum(axis=1, keepdims=True)
    return [mean, mx.sqrt(mx.maximum(variance, 1e-12))]


class AttentiveStatistics(nn.Module):
    """Mean and deviation over time, weighted by an attention that sees the global mean and deviation."""

    def __init__(self, channels: int, attention: int) -> None:
        super().__init__()
        self.tdnn = TDNN(channels * 3, attention)
        self.conv = Conv1d(attention, channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        mean, deviation = _statistics(x, 1 / x.shape[1])
        context = mx.concatenate([x, mx.broadcast_to(mean, x.shape), mx.broadcast_to(deviation, x.shape)], axis=-1)
        weights = mx.softmax(self.conv(mx.tanh(self.tdnn(context))), axis=1)
        return mx.concatenate(_statistics(x, weights), axis=-1)  # [B, 1, 2C]


class SpeakerEncoder(nn.Module):
    """Recording to x-vector, under the published tensor names."""

    def __init__(self, config: SpeakerEncoderConfig) -> None:
        super().__init__()
        channels, kernels, dilations = config.enc_channels, config.enc_kernel_sizes, config.enc_dilations
        self.blocks: list[TDNN | SERes2Block] = [TDNN(config.mel_dim, channels[0], kernels[0], dilations[0])]
        for i in range(1, len(channels) - 1):
            self.blocks.append(
                SERes2Block(
                    channels[i - 1],
                    channels[i],
                    config.enc_res2net_scale,
                    config.enc_se_channels,
                    kernels[i],
                    dilations[i],
                )
            )
        self.mfa = TDNN(channels[-1], channels[-1], kernels[-1], dilations[-1])
        self.asp = AttentiveStatistics(channels[-1], config.enc_attention_channels)
        self.fc = Conv1d(channels[-1] * 2, config.enc_dim, 1)
        self.bands, self.dimension = config.mel_dim, config.enc_dim

    def __call__(self, mel: mx.array) -> mx.array:
        """Log-mel frames [B, T, bands] to vectors [B, D], not normalised."""
        enter()
        x, outputs = mel, []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return self.fc(self.asp(self.mfa(mx.concatenate(outputs[1:], axis=-1))))[:, 0]

    @property
    def shortest(self) -> tuple[int, int]:
        """(frames, samples) of the shortest recording: reflection needs more frames than the widest pad."""
        frames = 1 + max(part.conv.span // 2 for _, part in self.named_modules() if isinstance(part, TDNN))
        return frames, max(frames * HOP, (FFT - HOP) // 2 + 1)

    def embed(self, audio: mx.array) -> mx.array:
        """audio: [samples] float32 at 24 kHz, at least `shortest`. Returns the speaker's vector [D] float32."""
        if audio.shape[0] < self.shortest[1]:
            raise AudioError(f"audio of {audio.shape[0]} samples is too short; at least {self.shortest[1]} are needed")
        return self(log_mel(audio, self.bands)[None])[0]
