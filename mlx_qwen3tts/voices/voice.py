"""A voice: one vector, and for in-context cloning the reference's codes and text.

File formats: `.npy` of shape [D] or [1, D]; `.safetensors` with the key `speaker_embedding`, which also holds reference
codes and metadata; `.json`, a list of numbers.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..files.output import whole_file
from ..files.weights import CheckpointError, read_header

FORMAT_VERSION = "1"
SUFFIXES = (".npy", ".safetensors", ".json")


class VoiceError(ValueError):
    """A file or value that is no voice; the message says what is wrong with it."""


@dataclass
class Voice:
    """embedding [D] float32, not normalised; ref_codes [frames, 16] int32 or None, with their ref_text.

    metadata: strings, such as `source_model` and `language`.
    """

    embedding: mx.array
    ref_codes: mx.array | None = None
    ref_text: str | None = None
    metadata: dict = field(default_factory=dict)

    def __post_init__(self):
        self.embedding = as_vector(self.embedding)
        if (self.ref_codes is None) != (self.ref_text is None):
            raise VoiceError("a voice has reference codes and their text, or neither")

    @property
    def dimension(self):
        return self.embedding.shape[0]

    def save(self, path):
        """Write by extension. `.npy` and `.json` hold the vector alone, so a voice with reference codes is refused."""
        path = Path(path)
        check_suffix(path)
        if path.suffix != ".safetensors" and self.ref_codes is not None:
            raise VoiceError(f"{path}: only .safetensors can hold the reference codes of this voice")
        with whole_file(path) as temporary:
            if path.suffix == ".npy":
                np.save(temporary, np.array(self.embedding))
            elif path.suffix == ".json":
                temporary.write_text(json.dumps(np.array(self.embedding).tolist()))
            else:
                self._save_safetensors(temporary)

    def _save_safetensors(self, path):
        from safetensors.numpy import save_file

        tensors = {"speaker_embedding": np.array(self.embedding)}
        metadata = {**self.metadata, "format_version": FORMAT_VERSION, "dimension": str(self.dimension)}
        if self.ref_codes is not None:
            tensors["ref_codes"] = np.array(self.ref_codes.astype(mx.int32))
            metadata["ref_text"] = self.ref_text
        save_file(tensors, str(path), metadata=metadata)

    @classmethod
    def load(cls, path):
        """Read any of the formats; VoiceError for whatever is no voice."""
        path = Path(path)
        check_suffix(path)
        if not path.is_file():
            raise VoiceError(f"embedding {path}: no such file")
        try:
            if path.suffix == ".npy":
                return cls(np.load(path, allow_pickle=False))
            if path.suffix == ".json":
                return cls(np.array(json.loads(path.read_text())))
            return cls._load_safetensors(path)
        except (ValueError, EOFError) as error:  # json's and NumPy's errors are ValueErrors too
            raise VoiceError(f"embedding {path}: {_reason(path, error)}") from None

    @classmethod
    def _load_safetensors(cls, path):
        names = read_header(path)
        if "speaker_embedding" not in names:
            raise VoiceError(f"has no tensor 'speaker_embedding', only {', '.join(sorted(names)) or 'none'}")
        tensors, metadata = mx.load(str(path), return_metadata=True)
        text = metadata.pop("ref_text", None)
        for key in ("format_version", "dimension"):
            metadata.pop(key, None)
        return cls(tensors["speaker_embedding"], tensors.get("ref_codes"), text, metadata)


def _reason(path, error):
    if isinstance(error, VoiceError | CheckpointError):
        return str(error)
    if path.suffix == ".npy":
        if "allow_pickle" in str(error):
            return "holds pickled objects, which are refused; save a plain array"
        return "is no NumPy array file"
    return f"is no JSON list of numbers ({error})"


def check_suffix(path):
    """VoiceError unless the extension is one a voice can have."""
    if Path(path).suffix not in SUFFIXES:
        raise VoiceError(f"embedding {path}: extension {Path(path).suffix!r} is not one of {' '.join(SUFFIXES)}")


def as_vector(value):
    """Any float array of shape [D] or [1, D] as a finite float32 mx.array [D]."""
    if not isinstance(value, mx.array):
        value = np.asarray(value)
        if value.dtype.kind == "O":
            raise VoiceError("is no array of numbers")
        if value.dtype.kind != "f":
            raise VoiceError(f"has dtype {value.dtype}; expected floats")
        value = mx.array(value.astype(np.float32))
    if not mx.issubdtype(value.dtype, mx.floating):
        raise VoiceError(f"has dtype {str(value.dtype).removeprefix('mlx.core.')}; expected floats")
    if value.ndim == 2 and value.shape[0] == 1:
        value = value[0]
    if value.ndim != 1 or value.size == 0:
        raise VoiceError(f"has shape {list(value.shape)}; expected [D] or [1, D]")
    value = value.astype(mx.float32)
    if not mx.isfinite(value).all().item():
        raise VoiceError("has values that are NaN or infinite")
    return value
