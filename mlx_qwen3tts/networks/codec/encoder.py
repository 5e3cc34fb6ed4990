"""The codec encoder: Mimi, a waveform at 24 kHz to codes at 12.5 frames a second.

Défossez et al., "Moshi: a speech-text foundation model for real-time dialogue" (2024): SEANet convolutions, a causal
transformer at 25 Hz, a ×2 downsampling convolution, split RVQ. Long audio goes through in chunks with the convolutions'
inputs and the attention's keys carried over, so that memory does not grow with the audio but for the keys.
B batch, T positions, C channels.
"""

import mlx.core as mx
import mlx.nn as nn

from ..config import CodecEncoderConfig
from ..conv import CausalConv
from .quantizer import EncoderQuantizer
from .transformer import MimiTransformer


class State(dict[int, mx.array]):
    """The past inputs of every convolution of one recording, by convolution."""

    def through(self, conv: CausalConv, x: mx.array, edge: bool = False) -> mx.array:
        """Run a convolution; at the recording's end x is padded to whole strides, with zeros or the `edge` value."""
        missing = -x.shape[1] % conv.conv.stride
        if missing:
            tail = (x.shape[0], missing, x.shape[2])
            x = mx.concatenate([x, mx.broadcast_to(x[:, -1:], tail) if edge else mx.zeros(tail)], axis=1)
        y, self[id(conv)] = conv.step(x, self.get(id(conv)), edge)
        return y


class ELU(nn.Module):
    def __call__(self, x: mx.array) -> mx.array:
        return nn.elu(x)


class ResidualBlock(nn.Module):
    """ELU, dilated convolution to half the channels, ELU, pointwise convolution back, residual."""

    def __init__(self, config: CodecEncoderConfig, channels: int, dilation: int) -> None:
        super().__init__()
        hidden = channels // config.compress
        self.block = [
            ELU(),
            CausalConv(channels, hidden, config.residual_kernel_size, dilation=dilation),
            ELU(),
            CausalConv(hidden, channels, 1),
        ]

    def step(self, x: mx.array, state: State) -> mx.array:
        y = x
        for layer in self.block:
            y = state.through(layer, y) if isinstance(layer, CausalConv) else layer(y)
        return x + y


class SEANet(nn.Module):
    """Convolutional front end, ×960 downsampling."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        channels = config.num_filters
        self.layers: list[ELU | CausalConv | ResidualBlock] = [
            CausalConv(config.audio_channels, channels, config.kernel_size)
        ]
        for ratio in reversed(config.upsampling_ratios):
            for i in range(config.num_residual_layers):
                self.layers.append(ResidualBlock(config, channels, config.dilation_growth_rate**i))
            self.layers += [ELU(), CausalConv(channels, channels * 2, ratio * 2, stride=ratio)]
            channels *= 2
        self.layers += [ELU(), CausalConv(channels, config.hidden_size, config.last_kernel_size)]

    def step(self, x: mx.array, state: State) -> mx.array:
        for layer in self.layers:
            if isinstance(layer, ResidualBlock):
                x = layer.step(x, state)
            else:
                x = state.through(layer, x) if isinstance(layer, CausalConv) else layer(x)
        return x


class CodecEncoder(nn.Module):
    """Waveform to codes, under the published tensor names."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        self.encoder = SEANet(config)
        self.encoder_transformer = MimiTransformer(config)
        self.downsample = CausalConv(config.hidden_size, config.hidden_size, 4, stride=2, bias=False)
        self.quantizer = EncoderQuantizer(config)

    def latents(self, audio: mx.array, chunk: int) -> mx.array:
        """audio: [B, samples]; chunk: samples a step, a multiple of a frame. Returns [B, frames, E]."""
        state, caches, parts = State(), self.encoder_transformer.make_cache(), []
        for start in range(0, audio.shape[1], chunk):
            features = self.encoder.step(audio[:, start : start + chunk, None], state)
            features = self.encoder_transformer(features, caches)
            parts.append(state.through(self.downsample, features, edge=True))
            mx.eval(parts[-1], *state.values(), *(a for cache in caches for a in cache.state))
        return mx.concatenate(parts, axis=1)

    def __call__(self, audio: mx.array, codebooks: int, chunk: int) -> mx.array:
        """audio: [B, samples] float32. Returns codes [B, ceil(samples / 1920), codebooks]."""
        return self.quantizer(self.latents(audio, chunk), codebooks)
