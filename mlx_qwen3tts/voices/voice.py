"""A voice: one vector, and for in-context cloning the reference's codes and text.

File formats: `.npy` of shape [D] or [1, D]; `.safetensors` with the key `speaker_embedding`, which also holds reference
codes and metadata; `.json`, a list of numbers. What other programs save is read too: a `.safetensors` file of a single
vector under any key, and a JSON object with the vector as `speaker_embedding` or `embedding`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as dataclass_replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import mlx.core as mx
import numpy as np
from numpy.typing import ArrayLike

from .. import checks
from ..audio.formats import RECORDINGS
from ..errors import InvalidValue, QwenTTSError, VoiceError, VoiceNotFound, WrongType, shortened
from ..files.json_text import json_text
from ..files.npy import read_npy
from ..files.output import whole_file
from ..files.safetensors import read_header, read_metadata
from ..files.tensors import all_finite, read_tensor, write_tensors
from ..networks.process import check_fork
from . import metadata as strings

SUFFIXES = (".npy", ".safetensors", ".json")
KEY = "speaker_embedding"
KEYS = (KEY, "embedding")  # of a JSON object
PICKLES = (".pt", ".pth")
# For what the official demo saves, a dict, and for a bare tensor.
UNPICKLE = (
    'import numpy, torch; x = torch.load({old}, map_location="cpu", weights_only=True); '
    'x = x["items"][0]["ref_spk_embedding"] if isinstance(x, dict) else x; numpy.save({new}, x.float().numpy())'
)

Vector: TypeAlias = mx.array | ArrayLike  # of [D], or where it says so rows of them [N, D]


def differ(what: str, dimension: int, other: str, expected: int, param: str | None = None) -> VoiceError:
    """The VoiceError for two things of different dimensions; `what` and `other` name them, `param` is the argument."""
    return VoiceError(
        f"{what} has {dimension} dimensions, {other} {expected}; voices do not transfer between model sizes",
        param=param,
    )


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Voice:
    """embedding [D] float32, not normalised; ref_codes [frames, codebooks] int32 or None, with their ref_text.

    source_model: the model whose encoder or preset it comes from; language: what it speaks; consent: one of
    rights.CONSENT; license: an SPDX name where there is one. attributes: {name: value} by which a library finds it,
    such as gender: female; a bare tag has the value "". recipe: how it was made of others (expression, parents with
    their weights, directions), empty where it was not. other: whatever other strings its file has. name: what messages
    call it. notes: what was said of the recording it was made from; no file keeps them.

    Made with `metadata`, a file's strings, or with these one by one. It does not change: `replace` makes another one.
    Two voices are equal where all but their names and notes is. They have no hash, since MLX cannot forbid writing into
    an array; lookup.fingerprint tells vectors apart. The arrays are evaluated, so any thread can use them.
    """

    embedding: mx.array
    ref_codes: mx.array | None
    ref_text: str | None
    source_model: str | None
    language: str | None
    consent: str | None
    license: str | None
    attributes: Mapping[str, str]
    recipe: Mapping[str, Any]
    other: Mapping[str, str]
    name: str | None
    notes: tuple[str, ...]

    __hash__: ClassVar[None]

    def __init__(
        self,
        embedding: Vector,
        ref_codes: Vector | None = None,
        ref_text: str | None = None,
        metadata: Mapping[str, str] | None = None,
        name: str | None = None,
        *,
        source_model: str | None = None,
        language: str | None = None,
        consent: str | None = None,
        license: str | None = None,
        attributes: Mapping[str, str] | None = None,
        recipe: Mapping[str, Any] | None = None,
        other: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        check_fork()
        told: dict[str, Any] = {
            "source_model": source_model,
            "language": language,
            "consent": consent,
            "license": license,
            "attributes": attributes,
            "recipe": recipe,
            "other": other,
        }
        if metadata is not None:
            if any(value is not None for value in told.values()):
                raise InvalidValue(
                    "a voice takes metadata as a whole or one by one, not both; voice.replace(metadata=…) changes all",
                    param="metadata",
                )
            told = strings.taken_apart(metadata)
        if (ref_codes is None) != (ref_text is None):
            raise VoiceError(
                "a voice has reference codes and their text, or neither",
                param="ref_codes" if ref_codes is None else "ref_text",
            )
        strings.check_strings({"ref_text": ref_text, "name": name, **{key: told[key] for key in strings.STRINGS}})
        told["attributes"] = strings.check_attributes(told["attributes"])
        told["recipe"] = strings.check_recipe(told["recipe"])
        told["other"] = strings.check_other(told["other"])
        if isinstance(notes, str) or not isinstance(notes, Sequence) or not all(isinstance(n, str) for n in notes):
            raise WrongType(f"the notes of a voice must be a list of strings, not {notes!r}", param="notes")
        arrays = {"embedding": as_vector(embedding), "ref_codes": None if ref_codes is None else as_codes(ref_codes)}
        for key, value in {**arrays, "ref_text": ref_text, "name": name, "notes": tuple(notes), **told}.items():
            object.__setattr__(self, key, value)

    @property
    def dimension(self) -> int:
        return self.embedding.shape[0]

    @property
    def norm(self) -> float:
        """The length of the vector."""
        return float(mx.linalg.norm(self.embedding))

    @property
    def metadata(self) -> Mapping[str, str]:
        """All strings of its file, sorted: those with a field of their own, `attributes` and `recipe` as JSON, and the
        other ones. Read-only."""
        return strings.put_together(vars(self))

    def replace(self, **changes: Any) -> Voice:
        """A copy with other values: of any field, or of all strings at once with `metadata`.

        voice.replace(embedding=vector), voice.replace(attributes={**voice.attributes, "gender": "female"}).
        dataclasses.replace does the same for fields.
        """
        if "metadata" in changes:
            kept = ("embedding", "ref_codes", "ref_text", "name", "notes")
            return Voice(**{**{key: getattr(self, key) for key in kept}, **changes})
        return dataclass_replace(self, **changes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Voice):
            return NotImplemented
        ours, theirs = vars(self), vars(other)
        arrays = ("embedding", "ref_codes")
        return all(_equal(ours[key], theirs[key]) for key in arrays) and all(
            ours[key] == theirs[key] for key in ours if key not in (*arrays, "name", "notes")
        )

    def __repr__(self) -> str:
        called = [repr(self.name)] if self.name else []
        context = [] if self.ref_codes is None else [f"in context: {self.ref_codes.shape[0]} frames"]
        return f"Voice({', '.join([*called, f'{self.dimension} dimensions, norm {self.norm:.1f}', *context])})"

    def save(self, path: Path | str) -> None:
        """Write by extension. `.npy` and `.json` hold the vector alone, so a voice with reference codes is refused."""
        path = checks.path(path, "path")
        check_suffix(path)
        if path.suffix != ".safetensors" and self.ref_codes is not None:
            raise VoiceError(f"{path}: only .safetensors can hold the reference codes of this voice", param="path")
        if path.suffix == ".safetensors":
            return self._save_safetensors(path)
        with whole_file(path) as temporary:
            if path.suffix == ".npy":
                np.save(temporary, np.array(self.embedding))
            else:
                temporary.write_text(json_text(np.array(self.embedding).tolist()))

    def _save_safetensors(self, path: Path) -> None:
        tensors = {KEY: self.embedding}
        metadata = {**self.metadata, "dimension": str(self.dimension)}
        if self.ref_codes is not None and self.ref_text is not None:
            tensors["ref_codes"] = self.ref_codes
            metadata["ref_text"] = self.ref_text
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: Path | str) -> Voice:
        """Read any of the formats; VoiceNotFound where there is no such file, VoiceError where it is not a voice."""
        path = checks.path(path, "path")
        check_kind(path)
        check_suffix(path, "voice")
        check_file(path)
        try:
            if path.suffix == ".safetensors":
                return cls._load_safetensors(path)
            return cls(read_npy(path) if path.suffix == ".npy" else _read_json(path), name=path.stem)
        except FileNotFoundError:  # removed since it was looked for
            raise VoiceNotFound(f"embedding {path}: no such file", param="voice") from None
        except QwenTTSError as error:
            raise VoiceError(f"embedding {path}: {error}", param="voice") from None
        except OSError as error:
            raise VoiceError(f"embedding {path}: cannot be read: {error.strerror or error}", param="voice") from None

    @classmethod
    def _load_safetensors(cls, path: Path) -> Voice:
        tensors, metadata = read_header(path), read_metadata(path)
        key = KEY if KEY in tensors or len(tensors) != 1 else next(iter(tensors))
        if key not in tensors:
            raise VoiceError(f"has no tensor {KEY!r}, only {shortened(sorted(tensors)) or 'none'}")
        if key != KEY and "kind" in metadata:  # a voice space, whose one tensor is the mean of voices
            raise VoiceError(f"is a {metadata['kind'].replace('_', ' ')}, not a voice")
        codes = read_tensor(tensors["ref_codes"]) if "ref_codes" in tensors else None
        text = metadata.get("ref_text")
        metadata = {key: value for key, value in metadata.items() if key not in strings.FORMAT}
        return cls(read_tensor(tensors[key]), codes, text, metadata, path.stem)


def _equal(one: mx.array | None, other: mx.array | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(np.array(one), np.array(other))


def _read_json(path: Path) -> np.ndarray:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict):
            key = next((key for key in KEYS if key in content), None)
            if key is None:
                raise VoiceError(
                    f"has neither {KEYS[0]!r} nor {KEYS[1]!r}, only {shortened(list(content)) or 'nothing'}"
                )
            content = content[key]
        values = np.array(content)
    except VoiceError:
        raise
    # Not JSON, not UTF-8, ragged, too large a number, nested without end.
    except (ValueError, OverflowError, RecursionError) as error:
        raise VoiceError(f"is not a JSON list of numbers ({error})") from None
    # JSON has one kind of number: a list of whole ones is a vector too.
    return values.astype(np.float64) if values.dtype.kind in "iu" else values


def check_suffix(path: Path | str, param: str = "path") -> None:
    """VoiceError unless the extension is one a voice can have."""
    if Path(path).suffix not in SUFFIXES:
        raise VoiceError(
            f"embedding {path}: extension {Path(path).suffix!r} is not one of {' '.join(SUFFIXES)}", param=param
        )


def check_kind(path: Path | str) -> None:
    """VoiceError, with the way out, for the extension of a recording or a pickle."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in RECORDINGS:
        message = f"embedding {path}: a recording; clone it with --ref-audio, or make its vector with embed"
        raise VoiceError(message, param="voice")
    if suffix in PICKLES:
        program = UNPICKLE.format(old=json_text(str(path)), new=json_text(str(path.with_suffix(".npy"))))
        message = f"embedding {path}: a pickle, which could run any program; where PyTorch is, convert it with"
        raise VoiceError(f"{message} python -c {shlex.quote(program)}", param="voice")


def check_file(path: Path | str) -> None:
    """VoiceNotFound where there is nothing, VoiceError where there is something else than a file."""
    try:
        there, regular = Path(path).exists(), Path(path).is_file()
    # Too long for a name, in a folder that may not be searched, or with a null character.
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise VoiceError(f"embedding {path!s:.200}: {said}", param="voice") from None
    if not there:
        raise VoiceNotFound(f"embedding {path}: no such file", param="voice")
    if not regular:
        raise VoiceError(f"embedding {path}: not a regular file", param="voice")


def as_codes(value: Vector) -> mx.array:
    """Integers of shape [frames, codebooks] as an evaluated int32 mx.array; their range is the codec's to check."""
    codes = value if isinstance(value, mx.array) else _as_numpy(value, "ref_codes")
    whole = mx.issubdtype(codes.dtype, mx.integer) if isinstance(codes, mx.array) else codes.dtype.kind in "iu"
    if codes.ndim != 2 or not whole:
        raise VoiceError(
            f"reference codes have shape {list(codes.shape)}; expected integers [frames, codebooks]", param="ref_codes"
        )
    codes = mx.array(codes).astype(mx.int32)
    mx.eval(codes)
    return codes


def as_vector(value: Vector) -> mx.array:
    """Any float array of shape [D] or [1, D] as a finite, evaluated float32 mx.array [D]."""
    vector = as_floats(value, "embedding")
    if vector.ndim == 2 and vector.shape[0] == 1:
        vector = vector[0]
    if vector.ndim != 1 or vector.size == 0:
        raise VoiceError(f"has shape {list(vector.shape)}; expected [D] or [1, D]", param="embedding")
    mx.eval(vector)
    return vector


def as_floats(value: object, param: str | None = None) -> mx.array:
    """Any array of floats as a finite float32 mx.array of its shape; VoiceError with `param` for anything else."""
    if not isinstance(value, mx.array):
        array = _as_numpy(value, param)
        if array.dtype.kind != "f":
            raise VoiceError(f"has dtype {array.dtype}; expected floats", param=param)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite and refused below
            value = mx.array(array.astype(np.float32))
    if not mx.issubdtype(value.dtype, mx.floating):
        name = str(value.dtype).removeprefix("mlx.core.")
        raise VoiceError(f"has dtype {name}; expected floats", param=param)
    value = value.astype(mx.float32)
    if not all_finite(value):
        raise VoiceError("has values that are NaN or infinite", param=param)
    return value


def _as_numpy(value: Any, param: str | None) -> np.ndarray:
    if isinstance(value, np.lib.npyio.NpzFile):
        raise VoiceError("is an archive of arrays (.npz); save one plain array", param=param)
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        raise VoiceError("is not an array of numbers", param=param) from None
    if array.dtype.kind == "O":
        raise VoiceError("is not an array of numbers", param=param)
    return array
