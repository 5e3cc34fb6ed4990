"""A model folder in any of its forms: official (fine-tuned ones included), written by `convert`, community MLX.

Opening one checks every tensor's name and shape against the configuration, from the file headers alone; networks are
built and read when asked for.
"""

import functools
from pathlib import Path

import mlx.core as mx

from .files import hub
from .files.audio import read_audio
from .files.weights import (
    DTYPES,
    STORED,
    CheckpointError,
    check,
    expected_shapes,
    find_layout,
    load_module,
    quantize_like,
    read_folder,
    read_json,
)
from .networks.codec import codec as codec_networks
from .networks.codec.codec import CodecNetworks
from .networks.config import CodecConfig, ConfigError, ModelConfig, SpeakerEncoderConfig, from_dict
from .networks.speaker.encoder import SpeakerEncoder
from .networks.talker import Talker


class Part:
    """The tensors of one folder with the networks they belong to, checked."""

    def __init__(self, folder, values, modules):
        """values: its config.json; modules: {prefix: network to fill}."""
        self.folder, self.values, self.modules = folder, values, modules
        self.tensors = read_folder(folder)
        for prefix, module in modules.items():
            quantize_like(module, prefix, self.tensors, values.get("quantization"))
        self.expected = expected_shapes(modules)
        self.layout = find_layout(values, self.tensors, self.expected)
        check(self.tensors, self.expected, self.layout, folder)

    def load(self, prefix, dtype, module=None):
        """Fill the network at `prefix`, or a part of it."""
        return load_module(module or self.modules[prefix], prefix, self.tensors, self.layout, dtype)

    @property
    def bytes(self):
        return sum(tensor.bytes for tensor in self.tensors.values())

    @property
    def dtypes(self):
        return sorted({tensor.dtype for tensor in self.tensors.values()})


def check_dtype(dtype):
    """A dtype's name as users write it, or None, to MLX's dtype."""
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    return DTYPES.get(dtype)


class ModelFolder:
    """A Base, CustomVoice or VoiceDesign checkpoint on disk."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.values = read_json(self.folder / "config.json")
        self.config = ModelConfig.from_dict(self.values, str(self.folder / "config.json"))
        modules = {"talker": Talker(self.config)}
        if self.config.speaker_encoder:
            modules["speaker_encoder"] = SpeakerEncoder(self.config.speaker_encoder)
        self.part = Part(self.folder, self.values, modules)
        self.codec = Codec(self.folder / "speech_tokenizer")
        if self.codec.config.num_codebooks != self.config.talker.num_code_groups:
            raise CheckpointError(
                f"{folder}: the codec has {self.codec.config.num_codebooks} codebooks, "
                f"the talker {self.config.talker.num_code_groups}"
            )

    @property
    def dtype(self):
        """The compute dtype the checkpoint was stored in (norms are never quantised)."""
        return STORED[self.part.tensors["talker.model.norm.weight"].dtype]

    def load_talker(self, dtype=None):
        return self.part.load("talker", dtype or self.dtype)

    def load_speaker_encoder(self):
        if "speaker_encoder" not in self.part.modules:
            raise ValueError(
                f"a {self.config.model_type} model has no speaker encoder; embed recordings with a Base model"
            )
        return self.part.load("speaker_encoder", mx.float32)


def load_encoder_alone(folder):
    """(SpeakerEncoder, its sample rate) from a Base model folder or a standalone encoder's; nothing else is read.

    A standalone encoder has the published encoder's tensors, with or without the `speaker_encoder.` prefix.
    """
    folder = Path(folder)
    values = read_json(folder / "config.json")
    if values.get("model_type") == ModelConfig.MODEL_TYPE:
        config = ModelConfig.from_dict(values, str(folder / "config.json")).speaker_encoder
        if config is None:
            raise ConfigError(f"{folder}: a {values['tts_model_type']} model has no speaker encoder; use a Base model")
    elif "speaker_encoder_config" in values or "enc_dim" in values:
        where = f"{folder / 'config.json'}: speaker_encoder_config"
        config = from_dict(SpeakerEncoderConfig, values.get("speaker_encoder_config", values), where)
    else:
        raise ConfigError(f"{folder / 'config.json'}: model type {values.get('model_type')!r} has no speaker encoder")
    tensors = read_folder(folder)
    tensors = {
        name if name.startswith("speaker_encoder.") else f"speaker_encoder.{name}": tensor
        for name, tensor in tensors.items()
        if not name.startswith("talker.")
    }
    encoder = SpeakerEncoder(config)
    expected = expected_shapes({"speaker_encoder": encoder})
    layout = find_layout(values, tensors, expected)
    check(tensors, expected, layout, folder)
    return load_module(encoder, "speaker_encoder", tensors, layout, mx.float32), config.sample_rate


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
            raise ValueError(f"{what} have shape {list(codes.shape)}; expected [frames, {self.num_codebooks}]")
        if not mx.issubdtype(codes.dtype, mx.integer):
            raise ValueError(f"{what} must be integers")
        low, high, size = codes.min().item(), codes.max().item(), self.config.decoder.codebook_size
        if low < 0 or high >= size:
            raise ValueError(f"{what} lie between {low} and {high}; expected 0 to {size - 1}")
        return codes.astype(mx.int32)
