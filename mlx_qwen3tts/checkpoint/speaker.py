"""The speaker encoder alone, from recordings to vectors."""

from pathlib import Path

import mlx.core as mx

from ..audio.reading import Recording
from ..audio.reference import read_reference
from ..errors import ConfigError, UnsupportedValue
from ..networks.config import ModelConfig, SpeakerEncoderConfig, from_dict
from ..networks.speaker import encoder as network
from . import hub
from .folder import ENCODER, read_config
from .weights import check, expected_shapes, find_layout, load_module, read_folder, read_json


class SpeakerEncoder:
    """Recordings to voice vectors, without a talker or a codec. Make one with `from_pretrained`.

    network: the loaded networks.speaker.encoder.SpeakerEncoder; sample_rate: Hz that it listens at; source: the
    model's name, for a voice's metadata.
    """

    def __init__(self, folder: str | Path) -> None:
        """folder: of a model with a speaker encoder or of an encoder alone; nothing else of it is read."""
        folder = hub.local(folder)
        self.source = folder.name
        self.network, self.sample_rate = load_encoder_alone(folder)

    @classmethod
    def from_pretrained(cls, model: str | Path = "mlx_model") -> "SpeakerEncoder":
        """model: a folder, a hub id or `miniature`: a Base model, a fine-tune that kept its encoder, or one alone."""
        return cls(hub.resolve(model, hub.ALONE))

    def encode(self, audio: Recording, prepare: bool = False) -> mx.array:
        """The speaker's vector [D] float32 of a recording of 0.5 to 60 s.

        audio: a path, (samples, rate) or samples at `sample_rate`; prepare: trim silence and level it first.
        """
        vector = self.network.embed(mx.array(read_reference(audio, self.sample_rate, prepare)))
        mx.eval(vector)
        return vector


def load_encoder_alone(folder: Path) -> tuple[network.SpeakerEncoder, int]:
    """(SpeakerEncoder network, its sample rate) from the folder of a model that has one, or of the encoder alone.

    A standalone encoder has the published encoder's tensors, with or without the `speaker_encoder.` prefix.
    """
    values, where = read_json(folder / "config.json"), folder / "config.json"
    if values.get("model_type") == ModelConfig.MODEL_TYPE:
        model, tensors = read_config(folder, values)
        config = model.speaker_encoder
        if config is None:
            raise UnsupportedValue(
                f"{folder}: a {model.model_type} model has no speaker encoder; use a Base model", param="model"
            )
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("talker.")}
    elif "speaker_encoder_config" in values or "enc_dim" in values:
        block = values.get("speaker_encoder_config", values)
        config = from_dict(SpeakerEncoderConfig, block, f"{where}: speaker_encoder_config")
        tensors = {f"{ENCODER}{name.removeprefix(ENCODER)}": tensor for name, tensor in read_folder(folder).items()}
    else:
        raise ConfigError(f"{where}: model type {values.get('model_type')!r} has no speaker encoder")
    encoder = network.SpeakerEncoder(config)
    expected = expected_shapes({"speaker_encoder": encoder})
    layout = find_layout(values, tensors, expected)
    check(tensors, expected, layout, folder)
    return load_module(encoder, "speaker_encoder", tensors, layout, mx.float32), config.sample_rate
