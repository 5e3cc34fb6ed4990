"""The codec decoder: codes to a waveform at 24 kHz, 1920 samples a frame.

Split RVQ, causal convolution, transformer with a sliding window, two ×2 ConvNeXt upsamplings, then ×8 ×5 ×4 ×3
SnakeBeta blocks. Every part is causal, so it streams exactly: `step(codes, state)` gives for any cutting of the codes
the samples that one call gives for all of them.
B batch, T positions, C channels.
"""

import copy
import math
from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from .. import cpu
from ..cache import SlidingKVCache
from ..config import CodecDecoderConfig
from ..conv import CausalConv, CausalConvTranspose
from ..device import on_gpu
from ..linear import Linear
from .quantizer import DecoderQuantizer
from .transformer import DecoderTransformer


class State:
    """What one stream remembers between two steps; owned by the stream, so that many can share one decoder."""

    def __init__(self, caches: Sequence[SlidingKVCache], columns: dict[int, mx.array] | None = None) -> None:
        self.caches = caches
        self.columns = columns or {}

    def copy(self) -> "State":
        """A state that goes on from here by itself; the arrays are shared until then."""
        return State([copy.copy(cache) for cache in self.caches], dict(self.columns))

    def through(self, conv: CausalConv | CausalConvTranspose, x: mx.array) -> mx.array:
        """Run a streaming convolution, taking and keeping its inputs of the past."""
        y, self.columns[id(conv)] = conv.step(x, self.columns.get(id(conv)))
        return y

    @classmethod
    def stack(cls, states: Sequence["State"]) -> "State":
        """One state of several streams, to step them together; of streams of one row each."""
        if len(states) == 1:
            return states[0].copy()
        columns = {}
        for key in dict.fromkeys(key for state in states for key in state.columns):
            like = next(state.columns[key] for state in states if key in state.columns)
            columns[key] = mx.concatenate([state.columns.get(key, mx.zeros_like(like)) for state in states])
        caches = zip(*(state.caches for state in states), strict=True)
        return cls([SlidingKVCache.stack(own) for own in caches], columns)

    def rows(self, count: int) -> list["State"]:
        """The states of its `count` streams, each by itself."""
        if count == 1:
            return [self]
        caches = zip(*(cache.rows(count) for cache in self.caches), strict=True)
        return [
            State(list(own), {key: mx.contiguous(x[i : i + 1]) for key, x in self.columns.items()})
            for i, own in enumerate(caches)
        ]

    @property
    def arrays(self) -> list[mx.array]:
        """Every array held, for `mx.eval` and for counting bytes."""
        return [*self.columns.values(), *(array for cache in self.caches for array in cache.state)]


@mx.compile  # one kernel
def _snake(x: mx.array, frequency: mx.array, magnitude: mx.array) -> mx.array:
    return x + mx.square(mx.sin(x * frequency)) * magnitude


class SnakeBeta(nn.Module):
    """x + sin²(x e^alpha) / e^beta, per channel (Ziyin et al., 2020, with a magnitude of its own)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = mx.zeros((channels,))
        self.beta = mx.zeros((channels,))

    def fuse(self) -> None:
        """What does not depend on the input, once."""
        self.frequency, self.magnitude = mx.exp(self.alpha), 1 / (mx.exp(self.beta) + 1e-9)
        del self.alpha, self.beta

    def __call__(self, x: mx.array) -> mx.array:
        if not on_gpu():
            return cpu.snake(x, self.frequency, self.magnitude)
        return _snake(x, self.frequency, self.magnitude)


class ConvNeXt(nn.Module):
    """Depthwise convolution, norm, two pointwise layers, scaled residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = CausalConv(channels, channels, 7, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = Linear(channels, 4 * channels)
        self.pwconv2 = Linear(4 * channels, channels)
        self.gamma = mx.ones((channels,))

    def step(self, x: mx.array, state: State) -> mx.array:
        y = self.norm(state.through(self.dwconv, x))
        return x + self.gamma * self.pwconv2(nn.gelu(self.pwconv1(y)))


class ResidualUnit(nn.Module):
    """SnakeBeta, dilated convolution, SnakeBeta, pointwise convolution, residual."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.act1 = SnakeBeta(channels)
        self.conv1 = CausalConv(channels, channels, 7, dilation=dilation)
        self.act2 = SnakeBeta(channels)
        self.conv2 = CausalConv(channels, channels, 1)

    def step(self, x: mx.array, state: State) -> mx.array:
        y = state.through(self.conv1, self.act1(x))
        return x + state.through(self.conv2, self.act2(y))


class UpsampleBlock(nn.Module):
    """SnakeBeta, transposed convolution of kernel 2 × stride, three residual units."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.block = [
            SnakeBeta(inputs),
            CausalConvTranspose(inputs, outputs, 2 * stride, stride),
            *(ResidualUnit(outputs, dilation) for dilation in (1, 3, 9)),
        ]

    def step(self, x: mx.array, state: State) -> mx.array:
        snake, transposed, *units = self.block
        x = state.through(transposed, snake(x))
        for unit in units:
            x = unit.step(x, state)
        return x


class CodecDecoder(nn.Module):
    """Codes to waveform, under the published tensor names."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.quantizer = DecoderQuantizer(config)
        self.pre_conv = CausalConv(config.codebook_dim, config.latent_dim, 3)
        self.pre_transformer = DecoderTransformer(config)
        self.upsample = [
            [CausalConvTranspose(config.latent_dim, config.latent_dim, factor, factor), ConvNeXt(config.latent_dim)]
            for factor in config.upsampling_ratios
        ]
        widths = [config.decoder_dim // 2**i for i in range(len(config.upsample_rates) + 1)]
        self.decoder = [
            CausalConv(config.latent_dim, widths[0], 7),
            *(
                UpsampleBlock(inputs, outputs, stride)
                for inputs, outputs, stride in zip(widths[:-1], widths[1:], config.upsample_rates, strict=True)
            ),
            SnakeBeta(widths[-1]),
            CausalConv(widths[-1], 1, 7),
        ]
        self.reach = self._reach(config)

    def _reach(self, config: CodecDecoderConfig) -> int:
        """Frames that the convolutions behind the transformer look back over."""
        positions, reach = 1, 0  # positions a frame
        for factor, (_, block) in zip(config.upsampling_ratios, self.upsample, strict=True):
            positions *= factor
            reach += (block.dwconv.conv.span - 1) / positions
        first, *blocks, _, last = self.decoder
        reach += (first.conv.span - 1) / positions
        for stride, upsampling in zip(config.upsample_rates, blocks, strict=True):
            _, transposed, *units = upsampling.block
            reach += (transposed.conv.taps - 1) / positions
            positions *= stride
            reach += sum(unit.conv1.conv.span + unit.conv2.conv.span - 2 for unit in units) / positions
        return math.ceil(reach + (last.conv.span - 1) / positions)

    def make_state(self) -> State:
        return State(self.pre_transformer.make_cache())

    def step(self, codes: mx.array, state: State) -> mx.array:
        """codes: [B, T, codebooks] integers. Returns [B, T * samples a frame] float32, not clipped."""
        return self._sound(self._latents(codes, state), state)

    def skip(self, codes: mx.array, state: State, chunk: int = 250) -> None:
        """Bring a fresh state to where `step(codes, state)` would, without making the sound.

        Only the transformer looks back far; of the convolutions, which are most of the work, it is enough to run the
        last frames that they can reach.
        """
        latents = []
        for start in range(0, codes.shape[1], chunk):
            latents = [*latents, self._latents(codes[:, start : start + chunk], state)]
            latents = [mx.contiguous(mx.concatenate(latents, axis=1)[:, -self.reach :])]
            mx.eval(latents, state.arrays)
        self._sound(latents[0], state)

    def _latents(self, codes: mx.array, state: State) -> mx.array:
        x = state.through(self.pre_conv, self.quantizer(codes))
        return self.pre_transformer(x, state.caches)

    def _sound(self, x: mx.array, state: State) -> mx.array:
        for transposed, block in self.upsample:
            x = block.step(state.through(transposed, x), state)
        first, *blocks, snake, last = self.decoder
        x = state.through(first, x)
        for block in blocks:
            x = block.step(x, state)
        return state.through(last, snake(x))[..., 0]
