"""Recordings read as the official package reads them.

float32, mean of the channels, resampled by soxr HQ (what librosa does by default), nothing else.
"""

import math
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from ..errors import AudioError

if TYPE_CHECKING:
    import soundfile

Samples = np.ndarray | mx.array
Recording = str | Path | tuple[Samples, int] | Samples  # whatever `read_audio` reads

LONGEST = 60.0  # seconds of a reference
LOUDEST = 1e6  # a peak above this is not sound: 16-bit integers stored as floats reach 32768


def read_audio(source: Recording, rate: int, longest: float | None = None) -> np.ndarray:
    """A recording as mono float32 samples at `rate`.

    source: a path of anything soundfile reads, (samples [n] or [n, channels], its rate), or samples [n] already at
    `rate` (NumPy or MLX array). A file of more than `longest` seconds is refused before it is read.
    """
    samples, original = _load(source, rate, longest)
    if samples.size == 0:
        raise AudioError(f"{called(source)} is empty")
    if samples.ndim == 2 and samples.shape[0] >= samples.shape[1]:
        samples = samples.mean(axis=1, dtype=np.float32)
    if samples.ndim != 1:
        raise AudioError(f"{called(source)} has shape {list(samples.shape)}; expected [samples] or [samples, channels]")
    if not np.isfinite(samples).all():
        raise AudioError(f"{called(source)} has samples that are NaN or infinite")
    if np.abs(samples).max() > LOUDEST:
        raise AudioError(f"{called(source)} has samples up to {np.abs(samples).max():.1e}; expected them within ±1")
    return resample(samples, original, rate)


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
    if not isinstance(source, str | Path):
        return _as_float(source), rate
    import soundfile

    with open_recording(source) as file:
        if longest is not None and file.frames > longest * file.samplerate:
            raise too_long(called(source), file.frames / file.samplerate)
        try:
            return file.read(dtype="float32"), file.samplerate
        except soundfile.LibsndfileError as error:
            raise unreadable(source, error) from None


def open_recording(path: str | Path) -> "soundfile.SoundFile":
    """A recording opened as a soundfile.SoundFile; AudioError where there is nothing to read."""
    import soundfile

    if not Path(path).is_file():
        raise AudioError(f"audio {path}: {'not a regular file' if Path(path).exists() else 'no such file'}")
    if Path(path).suffix.lower() == ".raw":  # soundfile asks for its rate, which nothing says
        raise AudioError(f"audio {path}: raw samples have no header; convert it to .wav")
    try:
        file = soundfile.SoundFile(str(path))
    except soundfile.LibsndfileError as error:
        raise unreadable(path, error) from None
    if file.frames == 0:
        file.close()
        raise AudioError(f"audio {path} is empty")
    return file


def unreadable(path: str | Path, error: "soundfile.LibsndfileError") -> AudioError:
    """The AudioError for what libsndfile says of a file."""
    return AudioError(f"audio {path} cannot be read: {error.error_string}")


def _as_float(samples: object) -> np.ndarray:
    """Samples as float32."""
    if isinstance(samples, mx.array) and samples.dtype == mx.bfloat16:  # which NumPy does not know
        samples = samples.astype(mx.float32)
    try:
        array = np.asarray(samples)
    except ValueError:  # rows of different lengths
        raise AudioError("audio must be a path, a tuple (samples, rate) or an array of samples") from None
    if array.dtype == np.int16:
        return array.astype(np.float32) / 32768
    if array.dtype.kind != "f":
        raise AudioError(f"audio samples have dtype {array.dtype}; expected floats within ±1 or int16")
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
