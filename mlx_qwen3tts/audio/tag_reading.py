"""Tags of sound files read again, whoever wrote them: wav, mp3, aac, flac, ogg, opus, m4a.

What is damaged or foreign is passed over: a file without tags that can be read has none.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import AudioError
from .tags import ID3_HEAD, id3_size

LARGEST = 32 << 20  # bytes of a tag that are read
NAMES = {
    # RIFF, ID3 and MP4 to the names that Vorbis comments have
    **{"ICMT": "comment", "ISFT": "software", "ICOP": "copyright", "INAM": "title", "IART": "artist"},
    **{"COMM": "comment", "TSSE": "software", "TCOP": "copyright", "TIT2": "title", "TPE1": "artist"},
    "description": "comment",  # as FFmpeg calls it in Vorbis comments
    **{"\xa9cmt": "comment", "\xa9too": "software", "cprt": "copyright", "\xa9nam": "title", "\xa9ART": "artist"},
}
ENCODINGS = ("latin-1", "utf-16", "utf-16-be", "utf-8")  # of a frame of ID3, by its first byte
BOXES = (
    (b"moov", 0),
    (b"udta", 0),
    (b"meta", 4),
    (b"ilst", 0),
)  # on the way to MP4's tags; bytes before what is inside


def read_tags(path: str | Path) -> dict[str, str]:
    """{name: text} of a sound file's tags, by the names of Vorbis comments in lower case; {} where it has none.

    AudioError for what cannot be read at all.
    """
    try:
        with open(path, "rb") as file:
            found = dict(_tags(file, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise AudioError(f"audio {path}: cannot be read: {error.strerror or error}") from None
    return {name: value for name, value in found.items() if value}


def _tags(file: BinaryIO, size: int) -> Iterator[tuple[str, str]]:
    head = file.read(12)
    file.seek(0)
    with contextlib.suppress(struct.error):  # it ends in the middle of a number
        if before := id3_size(head):  # of mp3 and aac, and where C2PA puts a signature in front of flac
            yield from _id3(file.read(min(before, LARGEST)))
            file.seek(before)
            head = file.read(12)
            file.seek(before)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            yield from _riff(file, size)
        elif head[:4] == b"fLaC":
            yield from _flac(file)
        elif head[:4] == b"OggS":
            yield from _ogg(file)
        elif head[4:8] == b"ftyp":
            yield from _mp4(file, size)


def _named(name: str, value: bytes | str) -> tuple[str, str]:
    text = value if isinstance(value, str) else value.decode("utf-8", "replace")
    return NAMES.get(name, name).lower(), text.strip("\0")


def _riff(file: BinaryIO, size: int) -> Iterator[tuple[str, str]]:
    place = 12
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"LIST" and length <= LARGEST and file.read(4) == b"INFO":
            inside, at = file.read(length - 4), 0
            while at + 8 <= len(inside):
                field, long = struct.unpack_from("<4sI", inside, at)
                yield _named(field.decode("latin-1"), inside[at + 8 : at + 8 + long])
                at += 8 + long + long % 2
        place += 8 + length + length % 2


def _id3(data: bytes) -> Iterator[tuple[str, str]]:
    """The frames of text of an ID3v2.3 or 2.4 tag."""
    version, at = data[3:4], ID3_HEAD
    if version not in (b"\3", b"\4"):
        return
    if data[5] & 0x40:  # an extended head, which counts itself in 2.4
        at += _size(data[at : at + 4], version) + (4 if version == b"\3" else 0)
    while at + 10 < len(data) and data[at]:
        name, length = data[at : at + 4].decode("latin-1"), _size(data[at + 4 : at + 8], version)
        frame, at = data[at + 10 : at + 10 + length], at + 10 + length
        if not frame or frame[0] >= len(ENCODINGS) or (name[0] != "T" and name != "COMM"):
            continue
        encoding, text = ENCODINGS[frame[0]], frame[1:]
        if name == "COMM":
            text = text[3:]  # a language
        if name in ("COMM", "TXXX"):
            what, text = _split(text, encoding)
            name = what or name
        yield _named(name, text.decode(encoding, "replace"))


def _split(text: bytes, encoding: str) -> tuple[str, bytes]:
    """A frame's description and what stands behind it."""
    zero = b"\0\0" if encoding.startswith("utf-16") else b"\0"
    end = next((at for at in range(0, len(text), len(zero)) if text[at : at + len(zero)] == zero), len(text))
    return text[:end].decode(encoding, "replace"), text[end + len(zero) :]


def _size(four: bytes, version: bytes) -> int:
    """The length of a frame: 28 bits in ID3v2.4, else 32."""
    shifts = (21, 14, 7, 0) if version == b"\4" else (24, 16, 8, 0)
    return sum(byte << shift for byte, shift in zip(four, shifts, strict=False))


def _flac(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(4, os.SEEK_CUR)
    last = False
    while not last:
        head = struct.unpack(">I", file.read(4))[0]
        last, kind, length = bool(head >> 31), head >> 24 & 0x7F, head & 0xFFFFFF
        if kind == 4:
            yield from _vorbis(file.read(length))
        else:
            file.seek(length, os.SEEK_CUR)


def _ogg(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The second packet of the first stream, which has the comments."""
    packets, open_packet = [], b""
    while len(packets) < 2 and len(open_packet) < LARGEST:
        head = file.read(27)
        if len(head) < 27 or head[:4] != b"OggS":
            return
        sizes = file.read(head[26])
        for size in sizes:
            open_packet += file.read(size)
            if size < 255:
                packets.append(open_packet)
                open_packet = b""
    for first in (b"OpusTags", b"\3vorbis"):
        if packets[1:] and packets[1].startswith(first):
            yield from _vorbis(packets[1][len(first) :])


def _vorbis(data: bytes) -> Iterator[tuple[str, str]]:
    at = 4 + struct.unpack_from("<I", data)[0]  # behind the vendor's name
    count = struct.unpack_from("<I", data, at)[0]
    at += 4
    for _ in range(count):
        size = struct.unpack_from("<I", data, at)[0]
        name, equals, value = data[at + 4 : at + 4 + size].partition(b"=")
        at += 4 + size
        if equals:
            yield _named(name.decode("latin-1").lower(), value)


def _mp4(file: BinaryIO, size: int) -> Iterator[tuple[str, str]]:
    start, end = 0, size
    for name, skipped in BOXES:
        found = next(((a, b) for kind, a, b in _boxes(file, start, end) if kind == name), None)
        if found is None:
            return
        start, end = found[0] + skipped, found[1]
    for kind, first, last in _boxes(file, start, end):
        for inner, begin, over in _boxes(file, first, last):
            if inner == b"data" and over - begin > 8:
                file.seek(begin)
                data = file.read(min(over - begin, LARGEST))
                if data[:4] == b"\0\0\0\1":  # UTF-8
                    yield _named(kind.decode("latin-1"), data[8:])


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte of what is inside, its end) of the boxes in a stretch of an MP4."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        inside = start + 8
        if size == 1:  # a long one
            size, inside = struct.unpack(">Q", file.read(8))[0], start + 16
        over = end if size == 0 else start + size
        if over <= start + 7 or over > end:
            return
        yield kind, inside, over
        start = over
