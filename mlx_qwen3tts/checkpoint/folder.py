"""A model folder in any of its forms: official (fine-tuned ones included), written by `convert`, community MLX.

Opening one checks every tensor's name and shape against the configuration, from the file headers alone; networks are
built and read when asked for.
"""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import CheckpointError, UnsupportedValue
from ..files.safetensors import Tensor
from ..networks.config import ModelConfig, read_speaker_encoder
from ..networks.speaker.encoder import SpeakerEncoder
from ..networks.talker import Talker
from .codec import Codec
from .hub import local
from .part import Part
from .weights import FLOATS, read_folder, read_json

ENCODER = "speaker_encoder."  # what the names of its tensors begin with
CACHED = "models--"  # what the hub's client begins a model's folder with
BASE, CARD = re.compile(r"^base_model: *(\S+)$", re.M), 4096  # in the first characters of a model card


def read_config(folder: Path, values: Mapping[str, Any]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """(the configuration of a model folder, its tensors); values: its config.json.

    An official fine-tune is a custom_voice model. Some keep the speaker encoder of the Base model they began with; such
    a model has it, and its tensors must be whole.
    """
    where = str(folder / "config.json")
    config, tensors = ModelConfig.from_dict(values, where), read_folder(folder)
    if config.model_type == "custom_voice" and any(name.startswith(ENCODER) for name in tensors):
        config = replace(config, speaker_encoder=read_speaker_encoder(values, config.talker, where))
    return config, tensors


class ModelFolder:
    """A Base, CustomVoice or VoiceDesign checkpoint on disk.

    config: a ModelConfig; values: the config.json that it was read from; part: the tensors; codec: a Codec. The
    networks `talker` and `speaker_encoder` (None where the model has none) are without weights until they are loaded.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = local(folder)
        self.values = read_json(self.folder / "config.json")
        self.config, tensors = read_config(self.folder, self.values)
        encoder = self.config.speaker_encoder
        self.talker = Talker(self.config)
        self.speaker_encoder = SpeakerEncoder(encoder) if encoder else None
        modules: dict[str, nn.Module] = {"talker": self.talker}
        if self.speaker_encoder:
            modules["speaker_encoder"] = self.speaker_encoder
        self.part = Part(self.folder, self.values, modules, tensors)
        self.codec = Codec(self.folder / "speech_tokenizer")
        if self.codec.config.num_codebooks != self.config.talker.num_code_groups:
            raise CheckpointError(
                f"{folder}: the codec has {self.codec.config.num_codebooks} codebooks, "
                f"the talker {self.config.talker.num_code_groups}"
            )

    @functools.cached_property
    def title(self) -> str:
        """What the model is called where somebody else reads it: the folder's name, or the hub id of one that the hub's
        client keeps, and behind it in brackets the model that its card names as its base."""
        place = Path(os.path.abspath(self.folder))
        cache = place.parent.parent.name
        if cache.startswith(CACHED):  # models--OWNER--NAME/snapshots/REVISION
            return cache.removeprefix(CACHED).replace("--", "/", 1)
        try:
            with open(self.folder / "README.md", encoding="utf-8", errors="replace") as card:
                found = BASE.search(card.read(CARD))
        except OSError:  # it has no card
            found = None
        return f"{place.name} ({found[1]})" if found else place.name

    @property
    def dtype(self) -> mx.Dtype:
        """The compute dtype the checkpoint was stored in (norms are never quantised)."""
        return FLOATS[self.part.tensors["talker.model.norm.weight"].dtype]

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
