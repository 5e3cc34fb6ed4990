"""A voice: one vector, and for in-context cloning the reference's codes and text.

File formats: `.npy` of shape [D] or [1, D]; `.safetensors` with the key `speaker_embedding`, which also holds reference
codes and metadata; `.json`, a list of numbers.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..files.audio import FORMATS
from ..files.output import whole_file
from ..files.weights import CheckpointError, read_header, read_metadata

FORMAT_VERSION = "1"
SUFFIXES = (".npy", ".safetensors", ".json")
# What MLX does not read (float64) NumPy does, and bfloat16 is the upper half of a float32.
STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I32": "<i4"}


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
        if self.ref_codes is not None:
            self.ref_codes = as_codes(self.ref_codes)
        if not all(isinstance(value, str) for value in (*self.metadata.values(), self.ref_text or "")):
            raise TypeError("the reference text and the metadata of a voice must be strings")

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
        from safetensors.numpy import save

        tensors = {"speaker_embedding": np.array(self.embedding)}
        metadata = {**self.metadata, "format_version": FORMAT_VERSION, "dimension": str(self.dimension)}
        if self.ref_codes is not None:
            tensors["ref_codes"] = np.array(self.ref_codes)
            metadata["ref_text"] = self.ref_text
        path.write_bytes(save(tensors, metadata))  # save_file has an error of its own for a full disk

    @classmethod
    def load(cls, path):
        """Read any of the formats; VoiceError for whatever is no voice."""
        path = Path(path)
        if path.suffix.lower() in FORMATS:
            raise VoiceError(f"embedding {path}: a recording; clone it with --ref-audio, or make its vector with embed")
        check_suffix(path)
        if not path.is_file():
            raise VoiceError(f"embedding {path}: {'no regular file' if path.exists() else 'no such file'}")
        try:
            if path.suffix == ".npy":
                return cls(np.load(path, allow_pickle=False))
            if path.suffix == ".json":
                values = np.array(json.loads(path.read_text(encoding="utf-8-sig")))
                # JSON has one kind of number: a list of whole ones is a vector too.
                return cls(values.astype(np.float64) if values.dtype.kind == "i" else values)
            return cls._load_safetensors(path)
        # json's and NumPy's errors are ValueErrors; the last two are for a file that lies about its size or depth.
        except (ValueError, EOFError, MemoryError, RecursionError) as error:
            raise VoiceError(f"embedding {path}: {_reason(path, error)}") from None

    @classmethod
    def _load_safetensors(cls, path):
        tensors, metadata = read_header(path), read_metadata(path)
        if "speaker_embedding" not in tensors:
            raise VoiceError(f"has no tensor 'speaker_embedding', only {', '.join(sorted(tensors)) or 'none'}")
        codes = mx.array(_read(tensors["ref_codes"])) if "ref_codes" in tensors else None
        text = metadata.pop("ref_text", None)
        for key in ("format_version", "dimension"):
            metadata.pop(key, None)
        return cls(_read(tensors["speaker_embedding"]), codes, text, metadata)


def _read(tensor):
    """A tensor of a voice file as an array."""
    if tensor.dtype not in STORED:
        raise VoiceError(f"tensor {tensor.name} has dtype {tensor.dtype}; expected floats, or I32 for codes")
    kind, count = np.dtype(STORED[tensor.dtype]), math.prod(tensor.shape)
    if tensor.bytes != count * kind.itemsize:
        raise VoiceError(f"tensor {tensor.name} has {tensor.bytes} bytes, not those of its shape")
    values = np.fromfile(tensor.path, kind, count, offset=tensor.start).reshape(tensor.shape)
    return (values.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == "BF16" else values


def _reason(path, error):
    if isinstance(error, VoiceError | CheckpointError):
        return str(error)
    if path.suffix == ".npy":
        if "allow_pickle" in str(error):  # NumPy's guess for every file that it does not know
            return "is no NumPy array file or holds pickled objects, which are refused; save a plain array"
        return "is no NumPy array file"
    return f"is no JSON list of numbers ({error})"


def check_suffix(path):
    """VoiceError unless the extension is one a voice can have."""
    if Path(path).suffix not in SUFFIXES:
        raise VoiceError(f"embedding {path}: extension {Path(path).suffix!r} is not one of {' '.join(SUFFIXES)}")


def as_codes(value):
    """Integers of shape [frames, codebooks] as an int32 mx.array; their range is the codec's to check."""
    codes = mx.array(value)
    if codes.ndim != 2 or not mx.issubdtype(codes.dtype, mx.integer):
        raise VoiceError(f"reference codes have shape {list(codes.shape)}; expected integers [frames, codebooks]")
    return codes.astype(mx.int32)


def as_vector(value):
    """Any float array of shape [D] or [1, D] as a finite float32 mx.array [D]."""
    if not isinstance(value, mx.array):
        if isinstance(value, np.lib.npyio.NpzFile):
            raise VoiceError("is an archive of arrays (.npz); save one plain array")
        value = np.asarray(value)
        if value.dtype.kind == "O":
            raise VoiceError("is no array of numbers")
        if value.dtype.kind != "f":
            raise VoiceError(f"has dtype {value.dtype}; expected floats")
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite and refused below
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
