"""Speech written as sound files, whole or not at all, and as the bytes of a stream."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import WrongType
from ..files.output import whole_file
from .formats import named_format, output_format
from .reading import Samples
from .tags import Tags, id3, put_strings, riff

PIECE = 24000  # samples given to libsndfile at once


def write_audio(
    file: str | Path | BinaryIO,
    samples: Samples,
    rate: int,
    form: str | None = None,
    tags: Tags | None = None,
    sign: Callable[[bytes, str], bytes] | None = None,
) -> None:
    """Write mono samples to a path, whole or not at all, or to a binary file object.

    form: an extension of FORMATS without its dot; by default the path's, and "wav" of a file object. sign: from the
    bytes of the file and its format in lower case to the bytes that are written.
    """
    if not isinstance(file, str | Path) and (not hasattr(file, "write") or isinstance(file, io.TextIOBase)):
        raise WrongType(f"file must be a path or a binary file object, not {file!r}", param="file")
    if form is None and isinstance(file, str | Path):
        kind = output_format(file)
    else:
        kind = named_format("wav" if form is None else form)
    data = audio_bytes(samples, rate, kind, tags)
    if sign is not None:
        data = sign(data, kind.lower())
    if isinstance(file, str | Path):
        with whole_file(file) as temporary:
            temporary.write_bytes(data)
    else:
        file.write(data)


def audio_bytes(samples: Samples, rate: int, kind: str = "WAV", tags: Tags | None = None) -> bytes:
    """The bytes of an audio file; kind: a value of FORMATS, or RAW for the samples alone. WAV and RAW have 16 bits.

    The same samples give the same bytes, but for OGG, whose streams have a random serial number.
    """
    import soundfile

    if kind == "WAV":
        data = audio_bytes(samples, rate, "RAW")
        return wav_head(rate, len(data), tags) + data

    # To memory, as libsndfile has no clear error for a full disk. In pieces, as its Ogg encoder keeps what it is given
    # at once on the stack and crashes on some two minutes.
    array, buffer = np.asarray(samples), io.BytesIO()
    subtype = "PCM_16" if kind == "RAW" else None  # of the others it is the default or has no bits
    with soundfile.SoundFile(buffer, "w", rate, 1, subtype, format=kind) as file:
        if kind in ("FLAC", "OGG"):
            put_strings(file, tags)
        for start in range(0, array.size, PIECE):
            file.write(array[start : start + PIECE])
    return (id3(tags) if kind == "MP3" else b"") + buffer.getvalue()


def wav_head(rate: int, size: int | None = None, tags: Tags | None = None) -> bytes:
    """The head of a mono 16-bit WAV of `size` bytes of samples, or of one whose length nobody knows yet, as programs
    that read from a pipe take it."""
    unknown = 0xFFFFFFFF
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16) + riff(tags)
    whole, size = (unknown, unknown) if size is None else (min(12 + len(form) + size, unknown), min(size, unknown))
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def wav_samples(samples: Samples, rate: int) -> bytes:
    """Samples within ±1 as the 16-bit integers of a WAV."""
    return audio_bytes(samples, rate, "RAW")
