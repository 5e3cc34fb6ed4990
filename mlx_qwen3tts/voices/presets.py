"""A model's preset as a Voice."""

import mlx.core as mx

from ..checkpoint.folder import ModelFolder
from ..checkpoint.presets import read_preset
from .voice import Voice


def preset_voice(folder: ModelFolder, name: str, dtype: mx.Dtype | None = None) -> Voice:
    """The Voice of a preset, without loading a talker. Names are matched without regard to case.

    dtype: what the talker computes in, where that is not the dtype of the checkpoint. VoiceNotFound for a name that is
    not one of the model's presets, UnsupportedValue where it has none.
    """
    vector, preset, dialect = read_preset(folder, name, dtype)
    other = {"preset": preset, "dialect": dialect} if dialect else {"preset": preset}
    return Voice(vector, source_model=folder.folder.name, other=other)
