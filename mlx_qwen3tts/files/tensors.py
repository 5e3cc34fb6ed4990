"""Small safetensors files of ours: a voice, a voice space, a direction, an autoencoder."""

import json
import math
import struct
from collections.abc import Collection, Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..checks import path as as_path
from ..errors import InvalidValue, OutputError, QwenTTSError
from .json_text import json_text
from .output import whole_file
from .safetensors import Tensor, read_header, read_metadata

FORMAT_VERSION = "1"
# What MLX does not read (float64) NumPy does, and bfloat16 is the upper half of a float32.
STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I32": "<i4"}


def write_tensors(path: str | Path, tensors: Mapping[str, mx.array | np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write {name: array} with {name: string}; the file appears whole or not at all."""
    from safetensors.numpy import save

    if as_path(path, "path").suffix != ".safetensors":
        raise OutputError(f"{path}: the extension must be .safetensors")
    arrays = {name: np.array(array) for name, array in tensors.items()}
    with whole_file(path) as temporary:
        # save_file has an error of its own for a full disk
        temporary.write_bytes(_in_order(save(arrays, {**metadata, "format_version": FORMAT_VERSION})))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata sorted. The library writes them in any order; the same voice must be the
    same bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json_text(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def read_tensor(tensor: Tensor) -> np.ndarray:
    """A tensor that `read_header` names, as a NumPy array; bfloat16 as float32. InvalidValue for any other dtype than
    floats or I32, and for bytes that are not those of the shape."""
    if tensor.dtype not in STORED:
        raise InvalidValue(f"tensor {tensor.name} has dtype {tensor.dtype}; expected floats, or I32 for codes")
    kind, count = np.dtype(STORED[tensor.dtype]), math.prod(tensor.shape)
    if tensor.bytes != count * kind.itemsize:
        raise InvalidValue(f"tensor {tensor.name} has {tensor.bytes} bytes, not those of its shape")
    values = np.fromfile(tensor.path, kind, count, offset=tensor.start)
    if values.size != count:  # another file has taken its place since its header was read
        raise InvalidValue(f"tensor {tensor.name} is truncated")
    values = values.reshape(tensor.shape)
    return (values.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == "BF16" else values


def read_all(path: str | Path, what: str) -> tuple[dict[str, mx.array], dict[str, str]]:
    """({name: float32 mx.array}, metadata) of a whole file; InvalidValue where it is not one or holds NaN.

    what: what it should be, which a message names.
    """
    path = as_path(path, "path")
    try:
        if not path.is_file():
            raise InvalidValue("not a regular file" if path.exists() else "no such file")
        header, metadata = read_header(path), read_metadata(path)
        arrays = {name: mx.array(read_tensor(tensor)).astype(mx.float32) for name, tensor in header.items()}
    except QwenTTSError as error:
        raise InvalidValue(f"{what} {path}: {error}") from None
    except OSError as error:
        raise InvalidValue(f"{what} {path}: cannot be read: {error.strerror or error}") from None
    for name, array in arrays.items():
        if not all_finite(array):
            raise InvalidValue(f"{what} {path}: tensor {name} has values that are NaN or infinite")
    return arrays, metadata


def read_tensors(
    path: str | Path, what: str, shapes: Mapping[str, str], optional: Collection[str] = ()
) -> tuple[dict[str, mx.array], dict[str, str]]:
    """`read_all` of a file of known content, something other than a voice.

    shapes: {name: its axes as a string of letters, such as "KD"}, where one letter is one length throughout; optional:
    names that may be missing. InvalidValue for whatever is not such a file.
    """
    arrays, metadata = read_all(path, what)
    missing = [name for name in shapes if name not in arrays and name not in optional]
    if missing:
        raise InvalidValue(f"{what} {path}: has no tensor {missing[0]!r}, only {', '.join(sorted(arrays)) or 'none'}")
    lengths: dict[str, int] = {}
    for name, axes in shapes.items():
        shape = arrays[name].shape if name in arrays else ()
        if name in arrays and not (
            len(shape) == len(axes)
            and all(lengths.setdefault(axis, size) == size for axis, size in zip(axes, shape, strict=True))
        ):
            raise InvalidValue(f"{what} {path}: tensor {name} has shape {list(shape)}, which does not fit")
    return arrays, metadata


def all_finite(array: mx.array) -> bool:
    """Whether nothing in an array is NaN or infinite."""
    if array.size == 0:  # whose sum MLX 0.32 may add up for ever on a CPU
        return True
    # A sum that is finite proves it four times faster; one that is not may have overflowed.
    return bool(mx.isfinite(array.sum()).item() or mx.isfinite(array).all().item())
