"""The codec as users have it: recordings to codes and codes to sound."""

import functools
from pathlib import Path

import mlx.core as mx

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
        folder = Path(folder)
        values = read_json(folder / "config.json")
        self.config = CodecConfig.from_dict(values, str(folder / "config.json"))
        self.networks = CodecNetworks(self.config)
        self.part = Part(folder, values, {"": self.networks})
        self.sample_rate = self.config.sample_rate
        self.samples_per_frame = self.config.samples_per_frame
        self.num_codebooks = self.config.num_codebooks

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "Codec":
        """model: a folder or hub id of the codec alone or of a model that has it."""
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
        """A path, (samples, rate) or samples at 24 kHz to codes [ceil(samples / 1920), 16] int32."""
        samples = mx.array(read_audio(audio, self.sample_rate))
        codes = codec_networks.encode(self.encoder, samples, self.num_codebooks, self.samples_per_frame)
        mx.eval(codes)
        return codes

    def decode(self, codes: Samples) -> mx.array:
        """Codes [frames, 16] to samples [frames * 1920] float32 at 24 kHz, within ±1."""
        samples = codec_networks.decode(self.decoder, self.check_codes(codes))
        mx.eval(samples)
        return samples

    def check_codes(self, codes: Samples, what: str = "codes") -> mx.array:
        """Codes as an int32 mx.array [frames, codebooks], or InvalidValue saying what is wrong with them."""
        codes = mx.array(codes)
        if codes.ndim != 2 or codes.shape[1] != self.num_codebooks or codes.shape[0] == 0:
            raise InvalidValue(
                f"{what} have shape {list(codes.shape)}; expected [frames, {self.num_codebooks}]", param="codes"
            )
        if not mx.issubdtype(codes.dtype, mx.integer):
            raise WrongType(f"{what} must be integers, not {codes.dtype}", param="codes")
        low, high, size = int(codes.min()), int(codes.max()), self.config.decoder.codebook_size
        if low < 0 or high >= size:
            raise InvalidValue(f"{what} lie between {low} and {high}; expected 0 to {size - 1}", param="codes")
        return codes.astype(mx.int32)
