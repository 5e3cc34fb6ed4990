"""NumPy's `.npy` files, read strictly: one plain array, whose header is checked before anything is allocated.

Layout: numpy.lib.format, versions 1 to 3. `np.load` takes archives and pickles for arrays too, and a damaged header
makes it raise whatever its tokenizer does.
"""

import ast
import math
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InvalidValue

MAGIC = b"\x93NUMPY"
LONGEST = 10_000  # bytes of a header, which is NumPy's own limit
DTYPE = re.compile(r"[<>|=]?[?biufcSUmMVO]\d{0,6}(\[\w{1,8}\])?")

ARCHIVE = "is an archive of arrays (.npz); save one plain array"
DAMAGED = "is not a NumPy array file"
FOREIGN = f"{DAMAGED} or holds pickled objects, which are refused; save a plain array"


def read_npy(path: Path) -> np.ndarray:
    """The array of a file; InvalidValue where it is not one, an OSError where the file cannot be read."""
    with path.open("rb") as file:
        dtype, shape, columns_first = _layout(file, path.stat().st_size)
        count = math.prod(shape)
        array = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    if array.size != count:  # cut while it was read
        raise InvalidValue(DAMAGED)
    return array.reshape(shape, order="F" if columns_first else "C")


def map_npy(path: Path) -> np.ndarray:
    """The array of a file, read-only, of which nothing is read before it is used. Errors are those of `read_npy`."""
    with path.open("rb") as file:
        dtype, shape, columns_first = _layout(file, path.stat().st_size)
        if not math.prod(shape):
            return np.zeros(shape, dtype)
        return np.memmap(file, dtype, "r", file.tell(), shape, "F" if columns_first else "C")


def _layout(file: BinaryIO, size: int) -> tuple[np.dtype, tuple[int, ...], bool]:
    """(dtype, shape, whether the first index varies fastest) of an open file, which then is at its values; size: of
    the file."""
    start = file.read(8)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        raise InvalidValue(ARCHIVE)
    if start[:6] != MAGIC:
        raise InvalidValue(FOREIGN if start else DAMAGED)
    width = {1: 2, 2: 4, 3: 4}.get(start[6] if len(start) == 8 else 0)
    if width is None:
        raise InvalidValue(DAMAGED)
    (length,) = struct.unpack("<H" if width == 2 else "<I", file.read(width).ljust(width, b"\xff"))
    if length > LONGEST:
        raise InvalidValue(DAMAGED)
    header = _header(file.read(length).decode("latin-1" if start[6] < 3 else "utf-8", "replace"))
    if math.prod(header[1]) * header[0].itemsize > size - file.tell():
        raise InvalidValue(DAMAGED)
    return header


def _header(text: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    """(dtype, shape, whether the first index varies fastest) of a header's text."""
    try:
        header: Any = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # all that it raises for what it refuses
        header = None
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise InvalidValue(DAMAGED)
    kind, shape, columns_first = header["descr"], header["shape"], header["fortran_order"]
    if isinstance(kind, list):
        raise InvalidValue("holds records of several fields; save a plain array")
    # Lengths above what a file can hold do not fit NumPy's integers either, beside one that is zero.
    sound = isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
    if not isinstance(kind, str) or not DTYPE.fullmatch(kind) or not sound or not isinstance(columns_first, bool):
        raise InvalidValue(DAMAGED)
    try:
        dtype = np.dtype(kind)
    except (TypeError, ValueError):
        raise InvalidValue(DAMAGED) from None
    if dtype.hasobject:
        raise InvalidValue(FOREIGN)
    if dtype.itemsize == 0 or math.prod(max(n, 1) for n in shape) >= 1 << 60:
        raise InvalidValue(DAMAGED)
    return dtype, shape, columns_first
