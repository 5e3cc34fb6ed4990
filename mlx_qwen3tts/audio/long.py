"""Sound of any length written to a file block by block, such that memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import AudioError, MissingExtra, OutputError, install_hint
from ..files.output import whole_file
from .encoding import libav
from .writing import FORMATS, PIECE

BOOK = ".m4b"
SUFFIXES = (*FORMATS, BOOK)
LARGEST_WAV = 2**32 - 64  # bytes that its head can count
BIT_RATE = 64_000  # of AAC in a book, mono


class Chapter(NamedTuple):
    """title; start: in samples."""

    title: str
    start: int


def check_long(path: str | Path) -> str:
    """The extension of a path, if it is of SUFFIXES and can be written here."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise AudioError(f"output {path}: extension {suffix!r} is not one of {' '.join(SUFFIXES)}")
    if suffix == BOOK and not libav():
        raise MissingExtra(f"{BOOK} needs av: {install_hint('av')}")
    return suffix


def write_long(
    path: str | Path, blocks: Iterable[np.ndarray], rate: int, length: int, chapters: Sequence[Chapter] = ()
) -> None:
    """Write mono float32 blocks [n], of any size and `length` samples together, whole or not at all.

    chapters: kept in .m4b alone.
    """
    suffix = check_long(path)
    if suffix == ".wav" and 2 * length > LARGEST_WAV:
        raise OutputError(f"output {path}: {length / rate / 3600:.1f} h are more than a WAV can be; write .flac")
    with whole_file(path) as temporary:
        if suffix == BOOK:
            _write_book(temporary, _even(blocks), rate, length, chapters)
        else:
            _write_sndfile(temporary, _even(blocks), rate, FORMATS[suffix])


def _even(blocks: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """The same sound in blocks that do not depend on how it was cut: encoders may."""
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while held.size >= PIECE:
            yield held[:PIECE]
            held = held[PIECE:]
    if held.size:
        yield held


class FileSink:
    """A file whose errors libsndfile cannot swallow: the first is kept, and what follows it is dropped."""

    def __init__(self, file: Any) -> None:
        self.file, self.error = file, None
        self.seek, self.tell, self.read = file.seek, file.tell, file.read

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def check(self) -> None:
        if self.error is not None:
            raise self.error


def _write_sndfile(path: Path, blocks: Iterable[np.ndarray], rate: int, form: str) -> None:
    import soundfile

    with path.open("w+b", buffering=0) as raw:
        sink: Any = FileSink(raw)
        with soundfile.SoundFile(sink, "w", rate, 1, format=form) as file:
            for block in blocks:
                file.write(block)
                sink.check()
        sink.check()


def _write_book(path: Path, blocks: Iterable[np.ndarray], rate: int, length: int, chapters: Sequence[Chapter]) -> None:
    av = libav()
    assert av is not None, "check_long has asked for it"
    with av.open(str(path), "w", format="ipod") as file:
        stream = file.add_stream("aac", rate, {"b": str(BIT_RATE)}, layout="mono")
        ends = [chapter.start for chapter in chapters[1:]] + [length]
        file.set_chapters(
            [
                {
                    "id": number,
                    "start": chapter.start,
                    "end": end,
                    "time_base": Fraction(1, rate),
                    "metadata": {"title": chapter.title},
                }
                for number, (chapter, end) in enumerate(zip(chapters, ends, strict=True) if chapters else [], 1)
            ]
        )
        for block in blocks:
            frame = av.AudioFrame.from_ndarray(np.asarray(block, np.float32)[None], "fltp", "mono")
            frame.sample_rate = rate
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
