"""Labels from sound: pitch, speaking rate, level and brightness of recordings, and the CSV file that keeps them.

They are what a direction can be fitted to without listening. librosa (the extra `voices`) does the signal processing.
"""

import csv
import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from ..errors import InvalidValue, MissingExtra, OutputError, install_hint
from ..files.output import check_writable, whole_file
from .reading import Recording, resample
from .reference import read_reference

# The measures in the order of their columns, and how a cell shows each.
MEASURES = {
    "f0_median": ".1f",  # Hz
    "f0_range": ".2f",  # semitones between the 5th and the 95th percentile
    "voiced": ".3f",  # share of the speaking frames that are voiced
    "speaking_rate": ".2f",  # syllable nuclei a second of speech
    "energy": ".1f",  # dBFS of the speaking frames
    "brightness": ".0f",  # spectral centroid of the speaking frames in Hz
    "seconds": ".2f",
}
KEYS = ("file", "name")

# F0 is searched where voices have it. At 12 kHz pYIN takes half the time that it takes at 24 and finds the same.
LOWEST, HIGHEST = 60.0, 600.0
PITCH_RATE, PITCH_FRAME, PITCH_HOP = 12000, 1024, 240
# A frame in which pYIN finds no period at all has the probability 0.01. Its search for a smooth path calls some of
# them voiced all the same: right beside others, at the lower bound in noise.
PERIODIC = 0.02
FEWEST_PERIODIC = 10  # frames of 20 ms; noise has none or one or two

# Nuclei as de Jong & Wempe find them: Praat's intensity with a floor of 50 Hz, which is a window of 64 ms.
LEVEL_WINDOW, LEVEL_HOP = 0.064, 0.01  # seconds
SPEAKING = 25.0  # dB below the loudest frames
DIP = 2.0  # dB between two nuclei
PAUSE = 0.3  # seconds; a shorter silence belongs to the speech


def measure(source: Recording, rate: int = 24000) -> dict[str, float | None]:
    """A recording's measures, {name: float} in the order of MEASURES.

    source: a path, (samples, their rate), or samples [n] at `rate`; 0.5 to 60 s. It is measured at `rate`: brightness
    depends on it and on what the recording's own rate left. Without a voice (a whisper, noise) f0_median, f0_range and
    speaking_rate are None, with a warning. Raises AudioError for what is not a recording, MissingExtra without librosa.

    F0: Mauch & Dixon, "pYIN" (2014). Speaking rate: de Jong & Wempe, "Praat script to detect syllable nuclei" (2009),
    which counts too few where syllables run into each other.
    """
    librosa = _librosa()
    samples = read_reference(source, rate)
    step = round(rate * LEVEL_HOP)
    power = _power(samples, round(rate * LEVEL_WINDOW), step)
    level = 10 * np.log10(power + 1e-12)
    floor = np.percentile(level, 99) - SPEAKING
    speaking = level > floor
    centroid = librosa.feature.spectral_centroid(y=samples, sr=rate, n_fft=1024, hop_length=step)[0]
    f0, voiced = _pitch(librosa, resample(samples, rate, PITCH_RATE))
    # Level frames are centred on multiples of `step`, those of the pitch on multiples of 20 ms.
    nearest = np.round(np.arange(level.size) * step / rate * PITCH_RATE / PITCH_HOP).astype(int)
    f0, voiced = (values[np.minimum(nearest, values.size - 1)] for values in (f0, voiced))
    f0, voiced = f0[speaking & np.isfinite(f0)], voiced & speaking
    values: dict[str, float | None] = dict.fromkeys(MEASURES)
    values |= {"voiced": float(voiced.sum() / speaking.sum()), "seconds": samples.size / rate}
    values |= {"energy": float(10 * np.log10(power[speaking].mean())), "brightness": float(centroid[speaking].mean())}
    if f0.size == 0:
        name = f"audio {source}" if isinstance(source, str | Path) else "audio"
        warnings.warn(f"{name} has no voice that could be measured: F0 and speaking rate stay empty", stacklevel=2)
        return values | {"voiced": 0.0}
    low, median, high = np.percentile(f0, (5, 50, 95))
    spoken = _speech_frames(speaking, round(PAUSE * rate / step)) * step / rate
    nuclei = _nuclei(level, floor, voiced)
    return values | {
        "f0_median": float(median),
        "f0_range": float(12 * np.log2(high / low)),
        "speaking_rate": float(nuclei / spoken),
    }


def f0_track(samples: np.ndarray, rate: int = 24000) -> np.ndarray:
    """F0 in Hz every 20 ms of samples [n], by pYIN; NaN where there is no sure voice. MissingExtra without librosa."""
    return _pitch(_librosa(), resample(np.asarray(samples, np.float32), rate, PITCH_RATE))[0]


def _librosa() -> ModuleType:
    try:
        import librosa
    except ModuleNotFoundError:
        raise MissingExtra(f"measuring recordings needs librosa: {install_hint('voices')}") from None
    return librosa


def _power(samples: np.ndarray, window: int, step: int) -> np.ndarray:
    """Mean square under a Hann window around every `step`-th sample: [1 + n // step]."""
    weights = np.hanning(window + 2)[1:-1].astype(np.float32)
    padded = np.pad(np.square(samples), (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: samples.size + 1 : step]
    return frames @ (weights / weights.sum())


def _pitch(librosa: ModuleType, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F0 in Hz where it is sure, else NaN, and whether a frame is voiced, every 20 ms. samples: at PITCH_RATE."""
    f0, voiced, probability = librosa.pyin(
        samples,
        fmin=LOWEST,
        fmax=HIGHEST,
        sr=PITCH_RATE,
        frame_length=PITCH_FRAME,
        hop_length=PITCH_HOP,
        fill_na=None,
    )
    sure = voiced & (probability > PERIODIC)
    if sure.sum() < FEWEST_PERIODIC:
        sure, voiced = np.zeros_like(sure), np.zeros_like(voiced)
    return np.where(sure, f0, np.nan), voiced


def _speech_frames(speaking: np.ndarray, pause: int) -> int:
    """How many frames are speech: all but the silences at the ends and those of `pause` frames or more."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], speaking, [True]]).astype(int)))
    silent = 0
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start >= pause or start == 0 or stop == speaking.size:
            silent += stop - start
    return int(speaking.size - silent)


def _nuclei(level: np.ndarray, floor: float, voiced: np.ndarray) -> int:
    """How many peaks of the level [dB] are syllables: above the floor, DIP above the dips beside them, and voiced."""
    from scipy.signal import find_peaks

    peaks, _ = find_peaks(level, height=floor, prominence=DIP)
    return int(voiced[peaks].sum())


def row(path: str | Path, values: Mapping[str, float | None]) -> dict[str, str]:
    """A recording's row for `write_csv`: its file, its name (the file's without folder and ending), its measures."""
    path = Path(path)
    cells = {name: "" if values[name] is None else format(values[name], form) for name, form in MEASURES.items()}
    return {"file": str(path), "name": path.stem, **cells}


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file of labels, as {column: text}, in its order. InvalidValue for what is not such a file.

    Separated by commas, in UTF-8 with or without a byte order mark; it has a column `file` or `name`.
    """
    return _read(path)[1]


def check_csv(path: str | Path) -> None:
    """Raise unless `write_csv` can write or extend a file at `path`; called before the measuring."""
    if Path(path).suffix.lower() != ".csv":
        raise OutputError(f"labels {path}: the extension must be .csv")
    check_writable(path)
    if Path(path).exists():
        read_csv(path)


def write_csv(path: str | Path, rows: Iterable[Mapping[str, str | float]]) -> None:
    """Write rows of labels, or bring those of a file that exists up to date: nothing that it has is lost.

    rows: {column: text or number} with `file` and `name`. A row of the file is the same recording's where `file`
    agrees, or where it has none, `name`; its name and its other columns stay. New columns and rows come last.
    """
    check_csv(path)
    columns, kept, encoding = _read(path) if Path(path).exists() else ([], [], "utf-8")
    added = [{name: str(cell) for name, cell in new.items()} for new in rows]
    columns = list(dict.fromkeys([*columns, *KEYS, *(name for new in added for name in new)]))
    for new in added:
        same = [old for old in kept if _same(old, new)]
        if len(same) > 1:
            raise InvalidValue(f"labels {path}: {len(same)} rows match {new['file']}; fill in their 'file'")
        if same:
            own = {key: same[0][key] for key in KEYS if same[0].get(key)}
            same[0].update({**new, **own})
        else:
            kept.append(new)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    try:
        data = text.getvalue().encode(encoding)
    except UnicodeEncodeError as error:
        name = next(cell for new in added for cell in new.values() if error.object[error.start] in cell)
        raise InvalidValue(f"labels {path}: {name!r} is not UTF-8; rename the file") from None
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def _same(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    """Whether two rows are the same recording's."""
    if old.get("file"):
        return Path(old["file"]) == Path(new["file"])
    return old.get("name") == new["name"]


def _read(path: str | Path) -> tuple[list[str], list[dict[str, str]], str]:
    """(columns, rows, encoding) of a CSV file."""
    path = Path(path)
    if not path.is_file():
        raise InvalidValue(f"labels {path}: {'not a regular file' if path.exists() else 'no such file'}")
    data = path.read_bytes()
    encoding = "utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8"
    try:
        lines = [line for line in csv.reader(io.StringIO(data.decode(encoding), newline=""), strict=True) if line]
    except UnicodeDecodeError:
        raise InvalidValue(f"labels {path}: not UTF-8 text; save it as CSV UTF-8") from None
    except csv.Error as error:
        raise InvalidValue(f"labels {path}: not a CSV file ({error})") from None
    columns = [name.strip() for name in lines[0]] if lines else []
    if not set(KEYS) & set(columns):
        found = f"its columns are {', '.join(map(repr, columns))}" if columns else "it is empty"
        raise InvalidValue(f"labels {path}: needs a column 'file' or 'name', separated by commas; {found}")
    for name in columns:
        if not name or columns.count(name) > 1:
            raise InvalidValue(f"labels {path}: the column name {name!r} is empty or occurs twice")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise InvalidValue(f"labels {path}: row {number} has {len(line)} cells, the first {len(columns)}")
    return columns, [dict(zip(columns, line, strict=True)) for line in lines[1:]], encoding
