"""Text as it comes from files and pipes: UTF-8, piece by piece where it is still being written."""

import codecs
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InvalidValue

SUBTITLES = (".srt", ".vtt", ".ass", ".ssa")
# How subtitles begin: WebVTT, SubStation Alpha, or SubRip's number and times.
TIMED = re.compile(r"\s*(?:WEBVTT\b|\[Script Info\]|(?:\d+\s*\n)?\s*[\d:]+[,.]\d+ *--> *[\d:]+[,.]\d+)")
ENDS = "\n\r\v\f\x85"  # of lines


def read_text(path: str) -> str:
    """What a text file holds, without the ends of lines at its end; InvalidValue where it is not UTF-8 or subtitles."""
    name = f"text file {path}"
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidValue(f"{name}: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")  # Windows editors put a byte order mark in front
    except UnicodeDecodeError as error:
        raise InvalidValue(f"{name} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    check_plain(text, name, path)
    return text.rstrip(ENDS)


def read_stdin() -> Iterator[str]:
    """Pieces of text as they come through stdin; ends of lines are held until it is certain that they are not the last
    thing in it."""
    decoder, position, data, held, begun = codecs.getincrementaldecoder("utf-8-sig")(), 0, b"-", "", False
    while data:
        stdin: Any = sys.stdin and sys.stdin.buffer  # its type lacks read1; None where it is closed
        data = stdin.read1(65536) if stdin else b""
        pending = len(decoder.getstate()[0])
        try:
            text = held + decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            place = position - pending + error.start
            raise InvalidValue(f"stdin is not UTF-8 (byte {place}); write UTF-8 to it") from None
        if not begun:
            check_plain(text, "stdin")
        piece = text.rstrip(ENDS)
        held, begun = text[len(piece) :], begun or bool(piece)
        yield piece
        position += len(data)


def check_plain(text: str, name: str, path: str | None = None) -> None:
    """InvalidValue where a text is subtitles, by the name of its file or by how it begins."""
    if TIMED.match(text) or (path and Path(path).suffix.lower() in SUBTITLES):
        made = ""
        if path:
            plain = Path(path).with_suffix(".txt")
            made = f": grep -vE '^[0-9[:space:]]*$|-->' {shlex.quote(path)} > {shlex.quote(str(plain))}"
        raise InvalidValue(
            f"{name}: subtitles are not plain text; take out their numbers and times first, and speak what is left as "
            f"one text, or with --batch-size a line at a time{made}"
        )
