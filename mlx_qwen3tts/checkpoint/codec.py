"""The codec as users have it: recordings to codes and codes to sound."""

import functools
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..audio.reading import Recording, Samples, read_audio
from ..errors import InvalidValue, WrongType
from ..networks.codec import codec as codec_networks
from ..networks.codec.codec import CodecNetworks
from ..networks.codec.decoder import CodecDecoder
from ..networks.codec.encoder import CodecEncoder
from ..networks.config import CodecConfig
from . import hub
from .part import Part
from .weights import read_json


class Codec:
    """The 12 Hz codec: recordings to codes and back. Each direction is read from disk when first used.

    `sample_rate` Hz, `samples_per_frame`, `num_codebooks` describe it.
    """

    def __init__(self, folder: str | Path) -> None:
        """folder: of the codec itself."""
        folder = hub.local(folder)
        values = read_json(folder / "config.json")
        self.config = CodecConfig.from_dict(values, str(folder / "config.json"))
        self.networks = CodecNetworks(self.config)
        self.part = Part(folder, values, {"": self.networks})
        self.sample_rate = self.config.sample_rate
        self.samples_per_frame = self.config.samples_per_frame
        self.num_codebooks = self.config.num_codebooks

    @classmethod
    def from_pretrained(cls, model: str | Path = "mlx_model") -> "Codec":
        """model: a folder, a hub id or `miniature`: the codec alone or a model that has it, of which nothing else is
        read."""
        inside = hub.resolve(model, hub.CODEC_INSIDE) / "speech_tokenizer"
        return cls(inside if inside.is_dir() else hub.resolve(model, hub.ALONE))

    @functools.cached_property
    def decoder(self) -> CodecDecoder:
        """The loaded network, codes to sound."""
        return self.part.load("decoder", mx.float32, self.networks.decoder)

    @functools.cached_property
    def encoder(self) -> CodecEncoder:
        """The loaded network, sound to codes."""
        return self.part.load("encoder", mx.float32, self.networks.encoder)

    def encode(self, audio: Recording) -> mx.array:
        """A recording's codes [ceil(samples / samples_per_frame), num_codebooks] int32, evaluated.

        audio: a path, (samples, rate) or samples at `sample_rate`. AudioError for what is not a recording.
        """
        samples = mx.array(read_audio(audio, self.sample_rate))
        codes = codec_networks.encode(self.encoder, samples, self.num_codebooks, self.samples_per_frame)
        mx.eval(codes)
        return codes

    def decode(self, codes: Samples) -> mx.array:
        """Codes [frames, num_codebooks] to samples [frames * samples_per_frame] float32 within ±1, evaluated.

        WrongType or InvalidValue, with what is wrong, for what this codec cannot have made.
        """
        samples = codec_networks.decode(self.decoder, self.check_codes(codes))
        mx.eval(samples)
        return samples

    def check_codes(self, codes: Samples, what: str = "codes") -> mx.array:
        """Codes as an int32 mx.array [frames, num_codebooks]; WrongType or InvalidValue for what is wrong."""
        if not isinstance(codes, mx.array):
            codes = _as_array(codes, what)
        if codes.ndim != 2 or codes.shape[1] != self.num_codebooks or codes.shape[0] == 0:
            raise InvalidValue(
                f"{what} have shape {list(codes.shape)}; expected [frames, {self.num_codebooks}]", param="codes"
            )
        if not mx.issubdtype(codes.dtype, mx.integer):
            raise WrongType(f"{what} must be integers, not {codes.dtype}", param="codes")
        low, high, size = int(codes.min()), int(codes.max()), self.config.decoder.codebook_size
        if low < 0 or high >= size:
            raise InvalidValue(f"{what} range from {low} to {high}; expected 0 to {size - 1}", param="codes")
        return codes.astype(mx.int32)


def _as_array(codes: object, what: str) -> mx.array:
    """Integers in any form that NumPy takes. MLX takes some other things for numbers, and fails on the rest."""
    try:
        array = np.asarray(codes)
    except ValueError:
        raise InvalidValue(f"{what} have rows of different lengths", param="codes") from None
    if array.dtype.kind not in "iu":
        raise WrongType(f"{what} must be integers, not {array.dtype}", param="codes")
    return mx.array(array)
