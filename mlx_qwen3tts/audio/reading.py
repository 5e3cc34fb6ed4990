"""Recordings read as the official package reads them.

float32, mean of the channels, resampled by soxr HQ (what librosa does by default), nothing else.

Full scale, which becomes ±1, is the type's own: 2**15 of int16, 2**31 of int32, 2**7 of int8, and of uint8 2**7 on
either side of 128. Floats are within ±1 already.
"""

import io
import math
import os
import tempfile
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ..errors import AudioError
from .converting import converted

if TYPE_CHECKING:
    import soundfile

Samples = np.ndarray | mx.array
Recording = str | Path | bytes | tuple[Samples | bytes, int] | Samples  # whatever `read_audio` reads

LONGEST = 60.0  # seconds of a reference
LOUDEST = 16.0  # a peak above this is not sound within ±1: 16-bit integers stored as floats reach 32768
MOST_CHANNELS = 32  # of samples that are [channels, n]
FULL = {"int8": 2**7, "int16": 2**15, "int32": 2**31}  # full scale of the integers that are taken


def read_audio(source: Recording, rate: int, longest: float | None = None) -> np.ndarray:
    """A recording as mono float32 samples at `rate`.

    source: a path of anything soundfile, or a converter that is installed, reads; the bytes of such a file; (samples,
    their rate), where the samples are an array [n], [n, channels] or [channels, n] or bytes of 16-bit little-endian
    mono; or an array already at `rate` (NumPy or MLX). A file of more than `longest` seconds is refused before it is
    read.
    """
    samples, original = _load(source, rate, longest)
    if samples.size == 0:
        raise AudioError(f"{called(source)} is empty")
    if samples.ndim == 2:
        if samples.shape[0] < samples.shape[1] and samples.shape[0] <= MOST_CHANNELS:
            samples = samples.T
        if samples.shape[0] >= samples.shape[1]:
            samples = samples.mean(axis=1, dtype=np.float32)
    if samples.ndim != 1:
        raise AudioError(f"{called(source)} has shape {list(samples.shape)}; expected [samples] or [samples, channels]")
    check_samples(samples, called(source))
    return resample(samples, original, rate)


def check_samples(samples: np.ndarray, name: str) -> None:
    """AudioError for float samples that are not finite or not within ±1; some decoders go a little beyond."""
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} has samples that are NaN or infinite")
    if np.abs(samples).max() > LOUDEST:
        raise AudioError(
            f"{name} has samples up to {np.abs(samples).max():.4g}; expected them within ±1 (16-bit integers as floats "
            "are to be divided by 32768)"
        )


def called(source: object) -> str:
    """What messages call a recording."""
    return f"audio {source}" if isinstance(source, str | Path) else "audio"


def _load(source: Recording, rate: int, longest: float | None) -> tuple[np.ndarray, int]:
    """(samples [n] or [n, channels], their rate) of any kind of source."""
    if isinstance(source, tuple) and len(source) == 2:
        samples, original = source
        if isinstance(original, bool) or not isinstance(original, Integral) or original <= 0:
            raise AudioError(f"sample rate {original!r} is not a positive integer")
        return _as_float(samples), int(original)
    if not isinstance(source, str | Path | bytes | bytearray | memoryview):
        return _as_float(source), rate
    import soundfile

    with open_recording(source) as file:
        if longest is not None and file.frames > longest * file.samplerate:
            raise too_long(called(source), file.frames / file.samplerate)
        try:
            return file.read(dtype="float32"), file.samplerate
        except soundfile.LibsndfileError as error:
            raise unreadable(source, error) from None


def open_recording(source: str | Path | bytes) -> "soundfile.SoundFile":
    """A recording, or the bytes of one, opened as a soundfile.SoundFile, by what it holds and not by its name.

    AudioError where there is nothing to read.
    """
    if isinstance(source, str | Path) and not Path(source).is_file():
        raise AudioError(f"audio {source}: {'not a regular file' if Path(source).exists() else 'no such file'}")
    file = _open(source)
    if file.frames == 0:
        file.close()
        raise AudioError(f"{called(source)} is empty")
    return file


def native(path: str | Path) -> Any:
    """A path as soundfile takes it, whose types know nothing of bytes: a name need not be UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _open(source: str | Path | bytes) -> "soundfile.SoundFile":
    """What libsndfile opens, itself or after a converter."""
    import soundfile

    path = Path(source) if isinstance(source, str | Path) else None
    raw = path is not None and path.suffix.lower() == ".raw"  # soundfile asks for the rate of what has this extension
    try:
        if path is not None and not raw:
            return soundfile.SoundFile(native(path))
        return soundfile.SoundFile(io.BytesIO(path.read_bytes() if path else source))  # pyright: ignore[reportArgumentType]  (bytes, where it has no path)
    except soundfile.LibsndfileError as error:
        problem = error
    if not isinstance(source, str | Path):
        with tempfile.NamedTemporaryFile(prefix="mlx-qwen3tts-") as file:
            file.write(source)
            file.flush()
            return _converted(file.name, "audio", unreadable(source, problem))
    if raw:
        raise AudioError(f"audio {source}: raw samples have no header; convert it to .wav")
    return _converted(source, called(source), unreadable(source, problem))


def _converted(path: str | Path, name: str, problem: AudioError) -> "soundfile.SoundFile":
    """What a converter makes of a file, opened; it needs no name while it is open. Else `problem` is raised."""
    import soundfile

    with converted(path, name) as wav:
        if wav is None:
            raise problem
        try:
            return soundfile.SoundFile(str(wav))
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{name} was converted to what cannot be read: {error.error_string}") from None


def unreadable(source: object, error: "soundfile.LibsndfileError") -> AudioError:
    """The AudioError for what libsndfile says of a recording."""
    return AudioError(f"{called(source)} cannot be read: {error.error_string}")


def _as_float(samples: object) -> np.ndarray:
    """Samples as float32, integers from the full scale of their type to ±1."""
    if isinstance(samples, bytes | bytearray | memoryview):
        data = bytes(samples)
        if len(data) % 2:
            raise AudioError(f"audio has {len(data)} bytes; 16-bit samples have an even number")
        return np.frombuffer(data, "<i2").astype(np.float32) / 2**15
    if isinstance(samples, mx.array) and samples.dtype == mx.bfloat16:  # which NumPy does not know
        samples = samples.astype(mx.float32)
    try:
        array = np.asarray(samples)
    except ValueError:  # rows of different lengths
        raise AudioError("audio must be a path, a tuple (samples, rate) or an array of samples") from None
    kind = array.dtype.name
    if kind == "uint8":
        return (array.astype(np.float32) - 128) / 128
    if kind in FULL:
        if kind == "int32" and 0 < np.abs(array.astype(np.int64)).max(initial=0) <= FULL["int16"]:
            message = "audio has int32 samples of at most 16 bits, of whose full scale of 2**31 that is silence"
            raise AudioError(f"{message}; give 16-bit samples as int16")
        return (array / FULL[kind]).astype(np.float32)
    if array.dtype.kind != "f":
        raise AudioError(
            f"audio samples have dtype {array.dtype}; expected floats within ±1, or int16, int32, int8 or uint8"
        )
    return array.astype(np.float32)


def resample(samples: np.ndarray, original: int, rate: int) -> np.ndarray:
    """soxr HQ, with ceil(n * rate / original) samples, as librosa.resample returns them."""
    if original == rate:
        return samples
    import soxr

    length = math.ceil(samples.size * (rate / original))
    out = soxr.resample(samples, original, rate, quality="HQ")[:length]
    return np.pad(out, (0, length - out.size)).astype(np.float32)


def too_long(name: str, seconds: float) -> AudioError:
    """The AudioError for a recording that lasts too long."""
    return AudioError(f"{name} lasts {seconds:.1f} s; at most {LONGEST:.0f} s are taken, cut it")
