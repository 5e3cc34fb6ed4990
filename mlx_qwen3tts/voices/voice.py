"""A voice: one vector, and for in-context cloning the reference's codes and text.

File formats: `.npy` of shape [D] or [1, D]; `.safetensors` with the key `speaker_embedding`, which also holds reference
codes and metadata; `.json`, a list of numbers.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..audio.writing import FORMATS
from ..errors import VoiceError, WrongType
from ..files.output import whole_file
from ..files.safetensors import read_header, read_metadata
from ..files.tensors import all_finite, read_tensor, write_tensors

SUFFIXES = (".npy", ".safetensors", ".json")
OWN = ("format_version", "dimension", "ref_text")  # metadata that a file has and `Voice.metadata` has not


def differ(what, dimension, other, expected):
    """The VoiceError for two things of different dimensions; `what` and `other` name them."""
    return VoiceError(
        f"{what} has {dimension} dimensions, {other} {expected}; voices do not transfer between model sizes"
    )


@dataclass(eq=False)
class Voice:
    """embedding [D] float32, not normalised; ref_codes [frames, 16] int32 or None, with their ref_text.

    metadata: strings. Those with a meaning: `source_model`, `language`, `consent` (one of rights.CONSENT), `license`
    (an SPDX name where there is one), `attributes` (a JSON object of strings), and for a voice made of others
    `recipe` (a JSON object). name: what messages call it.
    """

    embedding: mx.array
    ref_codes: mx.array | None = None
    ref_text: str | None = None
    metadata: dict = field(default_factory=dict)
    name: str | None = field(default=None, compare=False)

    def __post_init__(self):
        self.embedding = as_vector(self.embedding)
        if (self.ref_codes is None) != (self.ref_text is None):
            raise VoiceError("a voice has reference codes and their text, or neither")
        if self.ref_codes is not None:
            self.ref_codes = as_codes(self.ref_codes)
        if not all(isinstance(value, str) for value in (*self.metadata.values(), self.ref_text or "")):
            raise WrongType("the reference text and the metadata of a voice must be strings")

    @property
    def dimension(self):
        return self.embedding.shape[0]

    @property
    def attributes(self):
        """{name: value} by which a library finds it, such as gender: female; a bare tag has the value ""."""
        return self._object("attributes")

    @property
    def recipe(self):
        """How it was made of others: expression, parents with their weights, directions; {} where it was not."""
        recipe = self._object("recipe")
        parents = recipe.get("parents", [])
        if not isinstance(recipe.get("expression", ""), str) or not all(isinstance(parent, dict) for parent in parents):
            raise VoiceError(f"voice {self.name!r}: its recipe is none of ours")
        return recipe

    def _object(self, key):
        try:
            value = json.loads(self.metadata.get(key, "{}"))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise VoiceError(f"voice {self.name!r}: what it has as {key} is no JSON object")
        return value

    def save(self, path):
        """Write by extension. `.npy` and `.json` hold the vector alone, so a voice with reference codes is refused."""
        path = Path(path)
        check_suffix(path)
        if path.suffix != ".safetensors" and self.ref_codes is not None:
            raise VoiceError(f"{path}: only .safetensors can hold the reference codes of this voice")
        if path.suffix == ".safetensors":
            return self._save_safetensors(path)
        with whole_file(path) as temporary:
            if path.suffix == ".npy":
                np.save(temporary, np.array(self.embedding))
            else:
                temporary.write_text(json.dumps(np.array(self.embedding).tolist()))

    def _save_safetensors(self, path):
        tensors = {"speaker_embedding": self.embedding}
        metadata = {**self.metadata, "dimension": str(self.dimension)}
        if self.ref_codes is not None:
            tensors["ref_codes"] = self.ref_codes
            metadata["ref_text"] = self.ref_text
        write_tensors(path, tensors, metadata)

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
                return cls(np.load(path, allow_pickle=False), name=path.stem)
            if path.suffix == ".json":
                values = np.array(json.loads(path.read_text(encoding="utf-8-sig")))
                # JSON has one kind of number: a list of whole ones is a vector too.
                return cls(values.astype(np.float64) if values.dtype.kind == "i" else values, name=path.stem)
            return cls._load_safetensors(path)
        # json's and NumPy's errors are ValueErrors; the last two are for a file that lies about its size or depth.
        except (ValueError, EOFError, MemoryError, RecursionError) as error:
            raise VoiceError(f"embedding {path}: {_reason(path, error)}") from None

    @classmethod
    def _load_safetensors(cls, path):
        tensors, metadata = read_header(path), read_metadata(path)
        if "speaker_embedding" not in tensors:
            raise VoiceError(f"has no tensor 'speaker_embedding', only {', '.join(sorted(tensors)) or 'none'}")
        codes = mx.array(read_tensor(tensors["ref_codes"])) if "ref_codes" in tensors else None
        text = metadata.get("ref_text")
        metadata = {key: value for key, value in metadata.items() if key not in OWN}
        return cls(read_tensor(tensors["speaker_embedding"]), codes, text, metadata, path.stem)


def _reason(path, error):
    if path.suffix == ".safetensors" or isinstance(error, VoiceError):
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
    value = as_floats(value)
    if value.ndim == 2 and value.shape[0] == 1:
        value = value[0]
    if value.ndim != 1 or value.size == 0:
        raise VoiceError(f"has shape {list(value.shape)}; expected [D] or [1, D]")
    return value


def as_floats(value):
    """Any array of floats as a finite float32 mx.array of its shape."""
    if not isinstance(value, mx.array):
        if isinstance(value, np.lib.npyio.NpzFile):
            raise VoiceError("is an archive of arrays (.npz); save one plain array")
        try:
            value = np.asarray(value)
        except ValueError:  # rows of different lengths
            raise VoiceError("is no array of numbers") from None
        if value.dtype.kind == "O":
            raise VoiceError("is no array of numbers")
        if value.dtype.kind != "f":
            raise VoiceError(f"has dtype {value.dtype}; expected floats")
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite and refused below
            value = mx.array(value.astype(np.float32))
    if not mx.issubdtype(value.dtype, mx.floating):
        raise VoiceError(f"has dtype {str(value.dtype).removeprefix('mlx.core.')}; expected floats")
    value = value.astype(mx.float32)
    if not all_finite(value):
        raise VoiceError("has values that are NaN or infinite")
    return value
