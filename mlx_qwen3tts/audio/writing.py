"""Speech written as sound files, whole or not at all, and as the bytes of a stream."""

import io
import struct
from pathlib import Path

import numpy as np

from ..errors import AudioError
from ..files.output import whole_file
from .reading import Samples

PIECE = 24000  # samples given to libsndfile at once

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".mp3": "MP3", ".ogg": "OGG"}


def output_format(path: str | Path) -> str:
    """soundfile's name for a path's extension."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise AudioError(f"output {path}: extension {suffix!r} is not one of {' '.join(FORMATS)}")
    return FORMATS[suffix]


def write_audio(path: str | Path, samples: Samples, rate: int) -> None:
    """Write mono samples by the path's extension; the file appears whole or not at all."""
    data = audio_bytes(samples, rate, output_format(path))
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def audio_bytes(samples: Samples, rate: int, kind: str = "WAV") -> bytes:
    """The bytes of an audio file; kind: a value of FORMATS, or RAW for the samples alone. WAV and RAW have 16 bits.

    The same samples give the same bytes, but for OGG, whose streams have a random serial number.
    """
    import soundfile

    # To memory, as libsndfile has no clear error for a full disk. In pieces, as its Ogg encoder keeps what it is given
    # at once on the stack and crashes on some two minutes.
    array, buffer = np.asarray(samples), io.BytesIO()
    subtype = "PCM_16" if kind == "RAW" else None  # of the others it is the default or has no bits
    with soundfile.SoundFile(buffer, "w", rate, 1, subtype, format=kind) as file:
        for start in range(0, array.size, PIECE):
            file.write(array[start : start + PIECE])
    return buffer.getvalue()


def wav_head(rate: int) -> bytes:
    """The head of a mono 16-bit WAV whose length nobody knows yet, as programs that read from a pipe take it."""
    unknown = 0xFFFFFFFF
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + form + struct.pack("<4sI", b"data", unknown)


def wav_samples(samples: Samples, rate: int) -> bytes:
    """Samples within ±1 as the 16-bit integers of a WAV."""
    return audio_bytes(samples, rate, "RAW")
