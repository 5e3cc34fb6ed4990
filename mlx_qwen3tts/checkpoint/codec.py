"""The codec as users have it: recordings to codes and codes to sound."""

import functools
from pathlib import Path

import mlx.core as mx

from ..audio.reading import read_audio
from ..errors import InvalidValue
from ..networks.codec import codec as codec_networks
from ..networks.codec.codec import CodecNetworks
from ..networks.config import CodecConfig
from . import hub
from .part import Part
from .weights import read_json


class Codec:
    """The 12 Hz codec: recordings to codes and back. Each direction is read from disk when first used.

    `sample_rate` Hz, `samples_per_frame`, `num_codebooks` describe it.
    """

    def __init__(self, folder):
        folder = Path(folder)
        values = read_json(folder / "config.json")
        self.config = CodecConfig.from_dict(values, str(folder / "config.json"))
        self.part = Part(folder, values, {"": CodecNetworks(self.config)})
        self.sample_rate = self.config.sample_rate
        self.samples_per_frame = self.config.samples_per_frame
        self.num_codebooks = self.config.num_codebooks

    @classmethod
    def from_pretrained(cls, model):
        """model: a folder or hub id of the codec alone or of a model that has it."""
        inside = hub.resolve(model, hub.CODEC_INSIDE) / "speech_tokenizer"
        return cls(inside if inside.is_dir() else hub.resolve(model, hub.ALONE))

    @functools.cached_property
    def decoder(self):
        return self.part.load("decoder", mx.float32, self.part.modules[""].decoder)

    @functools.cached_property
    def encoder(self):
        return self.part.load("encoder", mx.float32, self.part.modules[""].encoder)

    def encode(self, audio):
        """A path, (samples, rate) or samples at 24 kHz to codes [ceil(samples / 1920), 16] int32."""
        samples = mx.array(read_audio(audio, self.sample_rate))
        return codec_networks.encode(self.encoder, samples, self.num_codebooks, self.samples_per_frame)

    def decode(self, codes):
        """Codes [frames, 16] to samples [frames * 1920] float32 at 24 kHz, within ±1."""
        return codec_networks.decode(self.decoder, self.check_codes(codes))

    def check_codes(self, codes, what="codes"):
        """Codes as an int32 mx.array [frames, codebooks], or ValueError saying what is wrong with them."""
        codes = mx.array(codes)
        if codes.ndim != 2 or codes.shape[1] != self.num_codebooks or codes.shape[0] == 0:
            raise InvalidValue(f"{what} have shape {list(codes.shape)}; expected [frames, {self.num_codebooks}]")
        if not mx.issubdtype(codes.dtype, mx.integer):
            raise InvalidValue(f"{what} must be integers")
        low, high, size = codes.min().item(), codes.max().item(), self.config.decoder.codebook_size
        if low < 0 or high >= size:
            raise InvalidValue(f"{what} lie between {low} and {high}; expected 0 to {size - 1}")
        return codes.astype(mx.int32)
