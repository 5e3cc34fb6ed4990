"""A model folder in any of its forms: official (fine-tuned ones included), written by `convert`, community MLX.

Opening one checks every tensor's name and shape against the configuration, from the file headers alone; networks are
built and read when asked for.
"""

from pathlib import Path

import mlx.core as mx

from ..errors import CheckpointError, InvalidValue
from ..networks.config import ModelConfig
from ..networks.speaker.encoder import SpeakerEncoder
from ..networks.talker import Talker
from .codec import Codec
from .part import Part
from .weights import STORED, read_json


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
            raise InvalidValue(
                f"a {self.config.model_type} model has no speaker encoder; embed recordings with a Base model"
            )
        return self.part.load("speaker_encoder", mx.float32)
