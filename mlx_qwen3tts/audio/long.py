"""Sound of any length written to a file block by block, such that memory does not grow with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import AudioError, MissingExtra, OutputError, install_hint
from ..files.output import whole_file
from .encoding import libav
from .formats import FORMATS
from .tags import Tags, id3, libav_metadata, put_strings
from .writing import PIECE, wav_head, wav_samples

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
    path: str | Path,
    blocks: Iterable[np.ndarray],
    rate: int,
    length: int,
    chapters: Sequence[Chapter] = (),
    tags: Tags | None = None,
    sign: Callable[[Path, str], object] | None = None,
) -> None:
    """Write mono float32 blocks [n], of any size and `length` samples together, whole or not at all.

    chapters: kept in .m4b alone. sign: called with the file, before it has its name, and its format.
    """
    suffix = check_long(path)
    if suffix == ".wav" and 2 * length > LARGEST_WAV:
        raise OutputError(f"output {path}: {length / rate / 3600:.1f} h are more than a WAV can be; write .flac")
    with whole_file(path) as temporary:
        if suffix == BOOK:
            _write_book(temporary, _even(blocks), rate, length, chapters, tags)
        elif suffix == ".wav":
            _write_wav(temporary, blocks, rate, length, tags)
        else:
            _write_sndfile(temporary, _even(blocks), rate, FORMATS[suffix], tags)
        if sign is not None:
            sign(temporary, suffix[1:])


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
    """A file whose errors libsndfile cannot swallow: the first is kept, and what follows it is dropped. What stands in
    it already stays in front."""

    def __init__(self, file: Any) -> None:
        self.file, self.error, self.start = file, None, file.tell()
        self.read = file.read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset + self.start * (whence == os.SEEK_SET), whence) - self.start

    def tell(self) -> int:
        return self.file.tell() - self.start

    def write(self, data: bytes) -> int:
        if self.error is None:
            left = memoryview(data)
            try:
                while left:  # a disk that fills takes a part first
                    left = left[self.file.write(left) :]
            except OSError as error:
                self.error = error
        return len(data)

    def check(self) -> None:
        if self.error is not None:
            raise self.error


def _write_wav(path: Path, blocks: Iterable[np.ndarray], rate: int, length: int, tags: Tags | None) -> None:
    with path.open("wb", buffering=0) as file:
        sink = FileSink(file)
        sink.write(wav_head(rate, 2 * length, tags))
        for block in blocks:
            sink.write(wav_samples(block, rate))
            sink.check()
        sink.check()


def _write_sndfile(path: Path, blocks: Iterable[np.ndarray], rate: int, form: str, tags: Tags | None) -> None:
    import soundfile

    with path.open("w+b", buffering=0) as raw:
        if form == "MP3":
            raw.write(id3(tags))
        sink: Any = FileSink(raw)
        with soundfile.SoundFile(sink, "w", rate, 1, format=form) as file:
            if form != "MP3":
                put_strings(file, tags)
            for block in blocks:
                file.write(block)
                sink.check()
        sink.check()


def _write_book(
    path: Path,
    blocks: Iterable[np.ndarray],
    rate: int,
    length: int,
    chapters: Sequence[Chapter],
    tags: Tags | None,
) -> None:
    av = libav()
    assert av is not None, "check_long has asked for it"
    with av.open(str(path), "w", format="ipod") as file:
        file.metadata.update(libav_metadata(tags, "encoding_tool"))
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
