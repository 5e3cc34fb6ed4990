"""Encoder and decoder of the codec together, offline: what `codec.encode` and `codec.decode` run."""

import mlx.core as mx
import mlx.nn as nn

from ..config import CodecConfig
from ..process import enter
from .decoder import CodecDecoder
from .encoder import CodecEncoder

DECODE_CHUNK = 16  # frames (1.3 s) a step: enough to fill the device, little enough that memory stays small
ENCODE_CHUNK = 125


class CodecNetworks(nn.Module):
    """Both directions under the published tensor names."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.decoder = CodecDecoder(config.decoder)
        self.encoder = CodecEncoder(config.encoder)


def decode(
    decoder: CodecDecoder, codes: mx.array, context: mx.array | None = None, chunk: int = DECODE_CHUNK
) -> mx.array:
    """Codes [frames, codebooks] to samples [frames * samples a frame] float32 within ±1, `chunk` frames at a time.

    context: codes [frames, codebooks] of what the sound continues, not heard. Memory does not grow but by the samples.
    """
    enter()
    state, parts = decoder.make_state(), []
    if context is not None:
        decoder.skip(context[None], state)
    for start in range(0, codes.shape[0], chunk):
        part = decoder.step(codes[None, start : start + chunk], state)
        mx.eval(part, state.arrays)
        parts.append(part[0])
    return mx.clip(mx.concatenate(parts), -1, 1)


def encode(encoder: CodecEncoder, audio: mx.array, codebooks: int, samples_per_frame: int) -> mx.array:
    """Samples [n] float32 at the codec's rate to codes [ceil(n / samples a frame), codebooks] int32."""
    enter()
    return encoder(audio[None], codebooks, ENCODE_CHUNK * samples_per_frame)[0].astype(mx.int32)
