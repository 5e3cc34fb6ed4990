"""Recordings with their transcripts, in the forms that people have them in.

- a folder with `train.jsonl`, and where there are any `valid.jsonl` and `test.jsonl`, as for mlx-lm;
- a `.jsonl` file, as for the official fine-tuning: an object a line, with or without `audio_codes`;
- `metadata.csv` as LJSpeech has it (`id|text|normalised text`, recordings in `wavs/`), or a CSV file with a header;
- a folder with recordings and, beside each, its transcript as `.txt` (of one line or several).

Nothing is listened to here. A path in a file is sought from the file's folder, then from where the command runs.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.formats import RECORDINGS
from ..errors import InvalidValue, listed, naming

AUDIO = ("audio", "audio_path", "audio_filepath", "file_name", "wav")  # keys of a recording's path
TEXT = ("text", "transcript", "transcription", "sentence")
SPEAKER, LANGUAGE, CODES = "speaker", "language", "audio_codes"
SPLITS = ("train", "valid", "test")
HELD_OUT, FEW = 0.1, 4  # of the clips; of few clips more, up to FEW, as one or two say little


@dataclass(frozen=True)
class Clip:
    """A recording and what is said in it. where: the file and line that say so; codes: of the codec, [frames][books],
    where they were made before."""

    audio: Path
    text: str
    where: str
    codes: np.ndarray | None = None
    speaker: str | None = None
    language: str | None = None

    @property
    def name(self) -> str:
        return self.audio.name


@dataclass(frozen=True)
class Data:
    """Clips to learn from, to hold out for choosing the best step, and to speak at the end (none: those held out)."""

    train: list[Clip]
    valid: list[Clip]
    test: list[Clip]

    @property
    def clips(self) -> list[Clip]:
        return [*self.train, *self.valid, *self.test]

    def without(self, dropped: set[str]) -> Data:
        """The same without the clips whose `where` is among these."""
        return Data(
            *([clip for clip in part if clip.where not in dropped] for part in (self.train, self.valid, self.test))
        )


def read_data(path: str | Path) -> Data:
    """The Data at a path of any form; InvalidValue, with the file and line, for what is none."""
    path = Path(path)
    if path.is_dir():
        if (path / "train.jsonl").is_file():
            splits = {name: path / f"{name}.jsonl" for name in SPLITS}
            found = Data(*(list(_jsonl(file)) if file.is_file() else [] for file in splits.values()))
        elif (path / "metadata.csv").is_file():
            found = Data(list(_table(path / "metadata.csv")), [], [])
        else:
            found = Data(list(_pairs(path)), [], [])
    elif not path.is_file():
        raise _refused(f"{path}: no such file or folder")
    elif path.suffix == ".jsonl":
        found = Data(list(_jsonl(path)), [], [])
    elif path.suffix in (".csv", ".txt", ".tsv"):
        found = Data(list(_table(path)), [], [])
    else:
        raise _refused(f"{path}: not a folder, .jsonl or metadata.csv")
    _check_once(found)
    return found


def held_out(data: Data, seed: int) -> Data:
    """The same with a tenth of the clips to learn from held out, or of a few clips a third, where none are."""
    if data.valid:
        return data
    count = len(data.train)
    if count < 2:
        raise _refused(f"{count} clip{'s' * (count != 1)}; two are needed, one to learn from and one to hold out")
    order = random.Random(seed).sample(range(count), count)
    kept = set(order[: max(round(HELD_OUT * count), min(FEW, count // 3), 1)])
    parts = [[clip for i, clip in enumerate(data.train) if (i in kept) == held] for held in (False, True)]
    return replace(data, train=parts[0], valid=parts[1])


def held_out_each(data: Data, seed: int) -> Data:
    """`held_out` for every speaker by itself."""
    names = list(dict.fromkeys(clip.speaker for clip in data.train))
    if data.valid or len(names) < 2:
        return held_out(data, seed)
    parts = []
    for name in names:
        with naming(f"speaker {name or '(without a name)'}"):
            parts.append(held_out(replace(data, train=[clip for clip in data.train if clip.speaker == name]), seed))
    train, valid = ([clip for part in parts for clip in getattr(part, split)] for split in ("train", "valid"))
    return replace(data, train=train, valid=valid)


def _refused(message: str) -> InvalidValue:
    return InvalidValue(f"data {message}", param="data")


def _check_once(data: Data) -> None:
    """A recording that is learnt from must not be among those that judge."""
    train = {clip.audio.resolve() for clip in data.train}
    for clip in (*data.valid, *data.test):
        if clip.audio.resolve() in train:
            raise _refused(f"{clip.where}: {clip.name} is among the clips to learn from as well")
    if not data.train:
        raise _refused("has no clips")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _refused(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise _refused(f"{path}: cannot be read: {error.strerror}") from None


def _jsonl(path: Path) -> Iterator[Clip]:
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise _refused(f"{path} line {number}: not JSON") from None
        if not isinstance(row, dict):
            raise _refused(f"{path} line {number}: not a JSON object")
        yield _clip(row, path.parent, f"{path} line {number}")


def _clip(row: Mapping[str, Any], folder: Path, where: str) -> Clip:
    """The Clip of a row with names."""
    found = [next((row[key] for key in keys if row.get(key)), None) for keys in (AUDIO, TEXT)]
    for value, keys, what in zip(found, (AUDIO, TEXT), ("recording", "text"), strict=True):
        if value is None:
            raise _refused(
                f"{where}: has no {what}; its keys are {listed(list(row), 8)}, one of {', '.join(keys)} is due"
            )
        if not isinstance(value, str):
            raise _refused(f"{where}: the {what} is {str(value)[:40]!r}, not a string")
    audio, text = map(str, found)
    for key in (SPEAKER, LANGUAGE):
        if row.get(key) is not None and not isinstance(row[key], str):
            raise _refused(f"{where}: {key} is {row[key]!r}, not a string")
    codes = None
    if row.get(CODES) is not None:
        try:
            codes = np.array(row[CODES])
        except ValueError:  # of different lengths
            codes = np.zeros(0)
        if codes.ndim != 2 or codes.dtype.kind not in "iu":
            raise _refused(f"{where}: {CODES} are not rows of integers, one a frame")
    return Clip(_place(audio, folder, where), text, where, codes, row.get(SPEAKER), row.get(LANGUAGE))


def _place(name: str, folder: Path, where: str, also: tuple[Path, ...] = ()) -> Path:
    """Where a recording lies that a file names."""
    tried = [folder / name, *also, Path(name)]
    there = next((path for path in tried if path.is_file()), None)
    if there is None:
        raise _refused(f"{where}: no recording {tried[0]}")
    return there


def _table(path: Path) -> Iterator[Clip]:
    """LJSpeech's rows, `id|text|normalised text`, or a table with a header, whose separator is a comma, bar or tab."""
    text = _read(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max("|\t,", key=first.count)
    quoting = csv.QUOTE_NONE if separator == "|" else csv.QUOTE_MINIMAL
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting))
    rows = [(number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row)]
    names = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if set(names) & set(AUDIO) and set(names) & set(TEXT):
        for number, row in rows[1:]:
            yield _clip(
                {name: cell.strip() for name, cell in zip(names, row, strict=False)},
                path.parent,
                f"{path} row {number}",
            )
        return
    for number, row in rows:
        where = f"{path} row {number}"
        if len(row) < 2 or separator != "|":
            raise _refused(f"{where}: expected id|text, or a first row that names the columns {AUDIO[0]} and {TEXT[0]}")
        name, said = row[0].strip(), (row[2] if len(row) > 2 and row[2].strip() else row[1]).strip()
        wavs = tuple(path.parent / base / f"{name}{end}" for base in ("wavs", ".") for end in ("", ".wav", ".flac"))
        yield Clip(_place(name, path.parent, where, wavs), said, where)


def _pairs(folder: Path) -> Iterator[Clip]:
    """Recordings with a .txt of the same name beside them."""
    sounds = sorted(path for path in folder.iterdir() if path.suffix.lower() in RECORDINGS)
    if not sounds:
        raise _refused(f"{folder}: has no train.jsonl, no metadata.csv and no recordings")
    without = [path.name for path in sounds if not path.with_suffix(".txt").is_file()]
    if without:
        raise _refused(f"{folder}: no transcript (.txt) beside {listed(without, 5)}")
    for path in sounds:
        said = " ".join(_read(path.with_suffix(".txt")).split())
        yield Clip(path, said, str(path))


def check_texts(data: Data, check: Callable[[str], object]) -> dict[str, str]:
    """{where: what is wrong} of the clips whose texts `check` refuses."""
    wrong = {}
    for clip in data.clips:
        try:
            check(clip.text)
        except InvalidValue as error:
            wrong[clip.where] = str(error)
    return wrong
