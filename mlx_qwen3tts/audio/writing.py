"""Speech written as sound files, whole or not at all, and as the bytes of a stream."""

import io
import struct
from pathlib import Path

import numpy as np

from ..errors import AudioError
from ..files.output import whole_file

PIECE = 24000  # samples given to libsndfile at once

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".mp3": "MP3", ".ogg": "OGG"}


def output_format(path):
    """soundfile's name for a path's extension."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise AudioError(f"output {path}: extension {suffix!r} is not one of {' '.join(FORMATS)}")
    return FORMATS[suffix]


def write_audio(path, samples, rate):
    """Write mono samples by the path's extension; the file appears whole or not at all."""
    data = audio_bytes(samples, rate, output_format(path))
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def audio_bytes(samples, rate, kind="WAV"):
    """The bytes of an audio file; kind: a value of FORMATS, or RAW for the samples alone. WAV and RAW have 16 bits."""
    import soundfile

    # To memory, as libsndfile has no clear error for a full disk. In pieces, as its Ogg encoder keeps what it is given
    # at once on the stack and crashes on some two minutes.
    samples, buffer = np.asarray(samples), io.BytesIO()
    subtype = "PCM_16" if kind == "RAW" else None  # of the others it is the default or has no bits
    with soundfile.SoundFile(buffer, "w", rate, 1, subtype, format=kind) as file:
        for start in range(0, samples.size, PIECE):
            file.write(samples[start : start + PIECE])
    return _with_fixed_serial(buffer.getvalue()) if kind == "OGG" else buffer.getvalue()


def wav_head(rate):
    """The head of a mono 16-bit WAV whose length nobody knows yet, as programs that read from a pipe take it."""
    unknown = 0xFFFFFFFF
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + form + struct.pack("<4sI", b"data", unknown)


def wav_samples(samples, rate):
    """Samples within ±1 as the 16-bit integers of a WAV."""
    return audio_bytes(samples, rate, "RAW")


def _ogg_table():
    """The CRC of each byte, polynomial 0x04c11db7, highest bit first (RFC 3533)."""
    table = []
    for value in range(256):
        remainder = value << 24
        for _ in range(8):
            remainder = (remainder << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if remainder >> 31 else 0)
        table.append(remainder)
    return table


def _with_fixed_serial(data):
    """An Ogg stream with serial number 0. libsndfile draws one at random; the same speech must be the same bytes."""
    data, table, start = bytearray(data), _ogg_table(), 0
    while start < len(data):
        segments = data[start + 26]
        stop = start + 27 + segments + sum(data[start + 27 : start + 27 + segments])
        data[start + 14 : start + 18] = data[start + 22 : start + 26] = bytes(4)  # serial; the CRC counts itself as 0
        crc = 0
        for byte in data[start:stop]:
            crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
        data[start + 22 : start + 26] = crc.to_bytes(4, "little")
        start = stop
    return bytes(data)
