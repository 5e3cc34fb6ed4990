"""A model folder in any of its forms: official (fine-tuned ones included), written by `convert`, community MLX.

Opening one checks every tensor's name and shape against the configuration, from the file headers alone; networks are
built and read when asked for.
"""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

from ..errors import CheckpointError, UnsupportedValue
from ..networks.config import ModelConfig
from ..networks.speaker.encoder import SpeakerEncoder
from ..networks.talker import Talker
from .codec import Codec
from .part import Part
from .weights import STORED, read_json


class ModelFolder:
    """A Base, CustomVoice or VoiceDesign checkpoint on disk.

    config: a ModelConfig; values: the config.json that it was read from; part: the tensors; codec: a Codec. The
    networks `talker` and `speaker_encoder` (None where the model has none) are without weights until they are loaded.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.values = read_json(self.folder / "config.json")
        self.config = ModelConfig.from_dict(self.values, str(self.folder / "config.json"))
        encoder = self.config.speaker_encoder
        self.talker = Talker(self.config)
        self.speaker_encoder = SpeakerEncoder(encoder) if encoder else None
        modules: dict[str, nn.Module] = {"talker": self.talker}
        if self.speaker_encoder:
            modules["speaker_encoder"] = self.speaker_encoder
        self.part = Part(self.folder, self.values, modules)
        self.codec = Codec(self.folder / "speech_tokenizer")
        if self.codec.config.num_codebooks != self.config.talker.num_code_groups:
            raise CheckpointError(
                f"{folder}: the codec has {self.codec.config.num_codebooks} codebooks, "
                f"the talker {self.config.talker.num_code_groups}"
            )

    @property
    def dtype(self) -> mx.Dtype:
        """The compute dtype the checkpoint was stored in (norms are never quantised)."""
        return STORED[self.part.tensors["talker.model.norm.weight"].dtype]

    def load_talker(self, dtype: mx.Dtype | None = None) -> Talker:
        """The talker with its weights in a dtype, by default that of the checkpoint."""
        return self.part.load("talker", dtype or self.dtype, self.talker)

    def load_speaker_encoder(self) -> SpeakerEncoder:
        """The speaker encoder with its weights; UnsupportedValue where the model has none."""
        if self.speaker_encoder is None:
            raise UnsupportedValue(
                f"a {self.config.model_type} model has no speaker encoder; embed recordings with a Base model"
            )
        return self.part.load("speaker_encoder", mx.float32, self.speaker_encoder)
