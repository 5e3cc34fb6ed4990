"""The headers of safetensors files: names, shapes and places of their tensors, checked before anything is read."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

LONGEST = 16 << 20  # bytes of a header; those of the published checkpoints have a hundred thousand
LARGEST_LENGTH = 1 << 40  # of one axis; what lies above fits neither a file nor, beside a zero, NumPy's integers
MOST_AXES = 32


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: file, name in it, dtype as the header spells it, shape, byte range in the file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        return self.stop - self.start


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """(the JSON object at the head of a safetensors file, where in the file the tensors start, the file's size).

    `__metadata__` is always there, an object of strings. All names and strings can be written as UTF-8.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if start == b"version ":  # https://git-lfs.github.com/spec/v1
            raise CheckpointError(f"{path} is only a pointer to the file; fetch the file itself with `git lfs pull`")
        if length + 8 > size:
            raise CheckpointError(f"{path} is truncated or not a safetensors file")
        if length > LONGEST:
            raise CheckpointError(f"{path} is not a safetensors file: its header would be {length} bytes long")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):  # not JSON, not UTF-8, or an integer of thousands of digits
            header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is not a safetensors file: its header is not a JSON object")
    metadata = header.setdefault("__metadata__", {})
    if metadata is None:  # which MLX writes where there are none
        header["__metadata__"] = metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path} is not a safetensors file: its metadata are not strings")
    try:
        "".join([*header, *metadata, *metadata.values()]).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell and no file or terminal can show
        raise CheckpointError(f"{path} is not a safetensors file: its strings are not Unicode text") from None
    return header, 8 + length, size


def read_metadata(path: Path) -> dict[str, str]:
    """The strings under `__metadata__` of a safetensors file."""
    return _read_header(path)[0]["__metadata__"]


def read_header(path: Path) -> dict[str, Tensor]:
    """Names and places of the tensors of one safetensors file; a truncated or foreign file is an error."""
    header, base, size = _read_header(path)
    del header["__metadata__"]
    tensors = {}
    for name, entry in header.items():
        try:
            dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            sound = isinstance(dtype, str) and len(shape) <= MOST_AXES
            sound &= all(type(n) is int and 0 <= n < LARGEST_LENGTH for n in (*shape, first, last - first))
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise CheckpointError(f"{path} is not a safetensors file: its header does not describe tensor {name}")
        tensors[name] = Tensor(path, name, dtype, shape, base + first, base + last)
    needed = max((tensor.stop for tensor in tensors.values()), default=base)
    if needed > size:
        raise CheckpointError(f"{path} is truncated: {size} bytes of {needed}")
    return tensors
