"""Tags: what a sound file says of itself, in front of its sound so that a stream has them too.

    wav              RIFF: a LIST chunk INFO before the samples, with ICMT, ISFT and ICOP
    mp3, aac         ID3v2.4 in front of the first frame: COMM, TSSE, TXXX:LICENSE
    flac, ogg, opus  Vorbis comments: COMMENT (or DESCRIPTION, as FFmpeg calls it), SOFTWARE, LICENSE
    m4b              MP4: ©cmt, ©too, cprt

Players show the comment whatever the format, so all that there is to say is in it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

ID3_HEAD = 10  # bytes
STREAMED = 1700  # bytes of the comment of a WAV that is streamed: some clients look for its samples in the first 2048


@dataclass(frozen=True)
class Tags:
    """comment: of one or more lines; software: what made the file; license: None where none is known."""

    comment: str
    software: str
    license: str | None = None

    def within(self, most: int) -> Tags:
        """The same in a comment of at most so many bytes: its longest lines are left out, the first excepted."""
        first, *rest = self.comment.split("\n")
        while rest and len("\n".join([first, *rest]).encode()) > most:
            rest.remove(max(rest, key=len))
        return replace(self, comment="\n".join([first, *rest]))


def riff(tags: Tags | None) -> bytes:
    """The chunk LIST INFO of a WAV; nothing without tags."""
    if tags is None:
        return b""
    fields = {b"ICMT": tags.comment, b"ISFT": tags.software, b"ICOP": tags.license}
    parts = [_chunk(name, value.encode() + b"\0") for name, value in fields.items() if value is not None]
    return _chunk(b"LIST", b"INFO" + b"".join(parts))


def _chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of RIFF: its length is without the byte that makes it even."""
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def id3(tags: Tags | None) -> bytes:
    """An ID3v2.4 tag in UTF-8; nothing without tags."""
    if tags is None:
        return b""
    frames = _frame(b"COMM", b"eng\0" + tags.comment.encode()) + _frame(b"TSSE", tags.software.encode())
    if tags.license is not None:
        frames += _frame(b"TXXX", b"LICENSE\0" + tags.license.encode())
    return b"ID3\4\0\0" + _syncsafe(len(frames)) + frames


def _frame(name: bytes, data: bytes) -> bytes:
    utf8 = b"\3"
    return name + _syncsafe(len(data) + 1) + b"\0\0" + utf8 + data


def _syncsafe(size: int) -> bytes:
    """28 bits in four bytes below 128, in which no decoder sees the beginning of a frame of sound."""
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def id3_size(head: bytes) -> int:
    """How many bytes an ID3v2 tag takes that a file begins with; 0 where there is none. head: at least ID3_HEAD."""
    if head[:3] != b"ID3" or len(head) < ID3_HEAD or max(head[6:ID3_HEAD]) > 0x7F:
        return 0
    footer = ID3_HEAD if head[5] & 0x10 else 0
    size = 0
    for byte in head[6:ID3_HEAD]:
        size = size << 7 | byte
    return ID3_HEAD + size + footer


def put_strings(file: Any, tags: Tags | None) -> None:
    """Give tags to a soundfile.SoundFile of flac or ogg that nothing has been written to yet."""
    if tags is not None:
        file.comment, file.software = tags.comment, tags.software
        if tags.license is not None:
            file.license = tags.license


def libav_metadata(tags: Tags | None, software: str = "software") -> dict[str, str]:
    """The metadata of a container of PyAV. software: what the container calls that field."""
    if tags is None:
        return {}
    more = {} if tags.license is None else {"license": tags.license, "copyright": tags.license}
    return {"comment": tags.comment, software: tags.software, **more}
