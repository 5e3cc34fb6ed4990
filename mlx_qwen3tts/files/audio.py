"""Audio in and out: recordings read as the official package reads them, checked, prepared; speech written whole.

Reading: float32, mean of the channels, resampled by soxr HQ (what librosa does by default), nothing else.
"""

import io
import math
import struct
import warnings
from numbers import Integral
from pathlib import Path

import mlx.core as mx
import numpy as np

from .output import whole_file

SHORTEST, LONGEST, ENOUGH = 0.5, 60.0, 3.0  # seconds of a reference: refused below, refused above, advised
SILENT = 1e-3  # a peak below this (-60 dBFS) is silence
LOUDEST = 1e6  # a peak above this is no sound: 16-bit integers stored as floats reach 32768
PIECE = 24000  # samples given to libsndfile at once
FORMATS = {".wav": "WAV", ".flac": "FLAC", ".mp3": "MP3", ".ogg": "OGG"}


class AudioError(ValueError):
    """A recording that cannot be used, or an output format that is not known."""


def read_audio(source, rate, longest=None):
    """A recording as mono float32 samples at `rate`.

    source: a path of anything soundfile reads, (samples [n] or [n, channels], its rate), or samples [n] already at
    `rate` (NumPy or MLX array). A file of more than `longest` seconds is refused before it is read.
    """
    samples, original = _load(source, rate, longest)
    if samples.size == 0:
        raise AudioError(f"{_name(source)} is empty")
    if samples.ndim == 2 and samples.shape[0] >= samples.shape[1]:
        samples = samples.mean(axis=1, dtype=np.float32)
    if samples.ndim != 1:
        raise AudioError(f"{_name(source)} has shape {list(samples.shape)}; expected [samples] or [samples, channels]")
    if not np.isfinite(samples).all():
        raise AudioError(f"{_name(source)} has samples that are NaN or infinite")
    if np.abs(samples).max() > LOUDEST:
        raise AudioError(f"{_name(source)} has samples up to {np.abs(samples).max():.1e}; expected them within ±1")
    return resample(samples, original, rate)


def _name(source):
    return f"audio {source}" if isinstance(source, str | Path) else "audio"


def _load(source, rate, longest):
    if isinstance(source, tuple) and len(source) == 2:
        samples, original = source
        if isinstance(original, bool) or not isinstance(original, Integral) or original <= 0:
            raise AudioError(f"sample rate {original!r} is not a positive integer")
        return _as_float(samples), int(original)
    if not isinstance(source, str | Path):
        return _as_float(source), rate
    import soundfile

    if not Path(source).is_file():
        raise AudioError(f"audio {source}: {'no regular file' if Path(source).exists() else 'no such file'}")
    if Path(source).suffix.lower() == ".raw":  # soundfile asks for its rate, which nothing says
        raise AudioError(f"audio {source}: raw samples have no header; convert it to .wav")
    try:
        with soundfile.SoundFile(str(source)) as file:
            if longest is not None and file.frames > longest * file.samplerate:
                raise too_long(_name(source), file.frames / file.samplerate)
            return file.read(dtype="float32"), file.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"audio {source} cannot be read: {error.error_string}") from None


def _as_float(samples):
    if isinstance(samples, mx.array) and samples.dtype == mx.bfloat16:  # which NumPy does not know
        samples = samples.astype(mx.float32)
    try:
        samples = np.asarray(samples)
    except ValueError:  # rows of different lengths
        raise AudioError("audio must be a path, a tuple (samples, rate) or an array of samples") from None
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 32768
    if samples.dtype.kind != "f":
        raise AudioError(f"audio samples have dtype {samples.dtype}; expected floats within ±1 or int16")
    return samples.astype(np.float32)


def resample(samples, original, rate):
    """soxr HQ, with ceil(n * rate / original) samples, as librosa.resample returns them."""
    if original == rate:
        return samples
    import soxr

    length = math.ceil(samples.size * (rate / original))
    out = soxr.resample(samples, original, rate, quality="HQ")[:length]
    return np.pad(out, (0, length - out.size)).astype(np.float32)


def read_reference(source, rate, prepared=False):
    """A recording that is to serve as a voice: read, checked, and where asked for `prepared`."""
    samples, name = read_audio(source, rate, LONGEST), _name(source)
    check_reference(samples, rate, name)
    if prepared:
        samples = prepare(samples, rate)
        if samples.size / rate < SHORTEST:
            raise AudioError(f"{name} lasts {samples.size / rate:.2f} s without its silence; {SHORTEST} s are needed")
    for advice in quality(samples, rate):
        warnings.warn(f"{name}: {advice}", stacklevel=3)
    return samples


def check_reference(samples, rate, name="audio"):
    """AudioError where a recording cannot serve as a voice."""
    seconds = samples.size / rate
    if seconds < SHORTEST:
        raise AudioError(f"{name} lasts {seconds:.2f} s; at least {SHORTEST} s are needed")
    if seconds > LONGEST:
        raise too_long(name, seconds)
    if np.ptp(samples) / 2 < SILENT:  # a constant is no sound either
        raise AudioError(f"{name} is silent")


def too_long(name, seconds):
    return AudioError(f"{name} lasts {seconds:.1f} s; at most {LONGEST:.0f} s are taken, cut it")


def quality(samples, rate):
    """What hurts a reference, as sentences; empty where nothing does."""
    advice = []
    seconds = samples.size / rate
    if seconds < ENOUGH:
        advice.append(f"{seconds:.1f} s is short; {ENOUGH:.0f} s or more give a better voice")
    clipped = np.mean(np.abs(samples) >= 0.999)
    if clipped > 0.001:
        advice.append(f"{clipped:.1%} of the samples are clipped")
    speaking = _speaking(samples, rate)
    level = 10 * math.log10(np.mean(np.square(samples[np.repeat(speaking, _hop(rate))[: samples.size]])) + 1e-12)
    if level < -40:
        advice.append(f"its level is low ({level:.0f} dBFS)")
    silences = np.diff(np.flatnonzero(np.concatenate([[True], speaking, [True]]))) - 1
    longest = silences.max() * _hop(rate) / rate
    if longest > 1:
        advice.append(f"it has {longest:.1f} s of silence in one piece (--prepare trims the ends)")
    return advice


def _hop(rate):
    return rate // 50  # 20 ms


def _speaking(samples, rate):
    """For every 20 ms, whether its level is within 40 dB of the loudest."""
    hop = _hop(rate)
    padded = np.pad(samples, (0, -samples.size % hop))
    level = np.sqrt(np.mean(np.square(padded.reshape(-1, hop)), axis=1))
    return level >= level.max() / 100


def prepare(samples, rate):
    """Trim silence at both ends, 0.1 s of it kept, and bring the level to -20 dBFS with peaks below 0.95."""
    hop, speaking = _hop(rate), np.flatnonzero(_speaking(samples, rate))
    margin = rate // 10
    samples = samples[max(0, speaking[0] * hop - margin) : (speaking[-1] + 1) * hop + margin]
    gain = 0.1 / max(np.sqrt(np.mean(np.square(samples))), 1e-9)
    return (samples * min(gain, 0.95 / np.abs(samples).max())).astype(np.float32)


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
