"""A model's presets: named rows of the talker's codec embedding.

One row is read from disk, without loading a talker; the config says which, the file headers say where it lies.
"""

import math

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError, UnsupportedValue, VoiceNotFound, WrongType
from ..files.safetensors import Tensor
from ..networks.config import ModelConfig
from .folder import ModelFolder
from .quantization import quantization_of
from .weights import STORED

TABLE = "talker.model.codec_embedding"


def preset_names(config: ModelConfig) -> list[str]:
    """The names of a model's presets as its configuration spells them; [] where it has none."""
    return list(config.talker.spk_id)


def find_preset(config: ModelConfig, name: str) -> str | None:
    """The preset that a user means, or None. Case does not matter: fine-tunes may have capitals in their names."""
    return next((preset for preset in preset_names(config) if preset.lower() == name.lower()), None)


def read_preset(folder: ModelFolder, name: str, dtype: mx.Dtype | None = None) -> tuple[mx.array, str, str | None]:
    """(the preset's vector [D] float32, evaluated; its name as the model spells it; the dialect it speaks, or None).

    dtype: what the talker computes in where that is not the dtype of the checkpoint; the vector has its precision.
    """
    if not isinstance(name, str):
        raise WrongType(f"a preset's name must be a string, not {name!r}", param="voice")
    config, known = folder.config, preset_names(folder.config)
    if not known:
        raise UnsupportedValue(f"voice {name!r}: a {config.model_type} model has no presets", param="voice")
    preset = find_preset(config, name)
    if preset is None:
        raise VoiceNotFound(f"voice {name!r} is not one of {', '.join(known)}", param="voice")
    dialect = config.talker.spk_is_dialect.get(preset)  # false where it speaks none
    vector = _embedding(folder, config.talker.spk_id[preset], dtype or folder.dtype).astype(mx.float32)
    if not mx.isfinite(vector).all().item():
        raise CheckpointError(f"{folder.folder}: the preset {preset} has values that are NaN or infinite")
    return vector, preset, dialect if isinstance(dialect, str) and dialect else None


def _embedding(folder: ModelFolder, row: int, dtype: mx.Dtype) -> mx.array:
    """A row [D] of the codec embedding in a dtype, as the loaded talker has it."""
    tensors = folder.part.tensors
    weight = _row(tensors[f"{TABLE}.weight"], row)
    how = quantization_of(TABLE, tensors, folder.values.get("quantization"))
    if how is None:
        return weight.astype(dtype)[0]
    scales = _row(tensors[f"{TABLE}.scales"], row)
    if how["mode"] != "affine":
        return mx.dequantize(weight, scales, **how, dtype=dtype)[0]
    biases = _row(tensors[f"{TABLE}.biases"], row)
    return mx.dequantize(weight, scales.astype(dtype), biases.astype(dtype), **how)[0]


def _row(tensor: Tensor, row: int) -> mx.array:
    """One row [1, …] of a tensor on disk, in the dtype it is stored in."""
    dtype, shape = STORED[tensor.dtype], tensor.shape[1:]
    size = math.prod(shape) * dtype.size
    data = np.fromfile(tensor.path, np.uint8, size, offset=tensor.start + row * size)
    return mx.array(data).view(dtype).reshape(1, *shape)
