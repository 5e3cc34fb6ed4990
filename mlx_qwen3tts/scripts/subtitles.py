"""Subtitle files: SubRip and WebVTT as lines of text, SubStation Alpha through pysubs2 (the extra `subtitles`).

SubRip and WebVTT are read strictly here, as what is passed over is never spoken. pysubs2 takes a time that it cannot
read for text, drops a minus and the third digit of the hours, and takes a last line that is a number ("1984") for the
number of a cue that follows.
"""

from __future__ import annotations

import codecs
import html
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ..errors import InvalidValue, MissingExtra, OutputError, install_hint, naming
from ..files.output import whole_file
from ..synthesis.text import check_characters, one_newline

KINDS = {".srt": "srt", ".vtt": "vtt", ".ass": "ass", ".ssa": "ass"}
LARGEST = 64 * 2**20  # bytes; two hours of subtitles have 100 KB, fonts within SubStation Alpha some MB
LATEST = 100 * 3600.0  # seconds
LATEST_ASS = 10 * 3600.0  # its hours have one digit
# utf-32 first: its mark begins like that of utf-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
TIME = r"(-?)(?:(\d{1,9}):)?(\d{1,9}):(\d{1,9})(?:[.,](\d{1,9}))?"
TIMES = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?")
MEANT = re.compile(r"\s*[-+]?\d+:[\d:.,; ]*[-–—=]*[>→]|.*\d:\d\d.*-->|.*-->.*\d:\d\d")  # as times, and is not
TAGS = r"(?:i|b|u|s|em|strong|font|span|c|lang|ruby|rt|v)"
TAG = re.compile(rf"</?{TAGS}(?:[\s.][^<>]*)?/?>|<\d[\d:.]*>|\{{\\[^{{}}]*\}}|\{{[a-zA-Z]:[^{{}}]*\}}", re.IGNORECASE)
BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
UNCLOSED = re.compile(rf"</?{TAGS}(?:[\s.][^<>]*)?$|\{{\\[^{{}}]*$", re.IGNORECASE | re.MULTILINE)
VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]+)>|</v>")
NOT_CUES = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s|$)")
ASS_TIME = re.compile(r"\s*-?\d{1,2}:[0-5]\d:[0-5]\d[.,]\d{1,3}\s*")
OVERRIDE = re.compile(r"\{([^{}]*)\}")
DRAWING = re.compile(r"\\p(\d+)")
FIELDS = ("start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text")  # behind the first


class Row(NamedTuple):
    """What is written of a spoken text. start, end: in seconds."""

    start: float
    end: float
    name: str | None
    text: str


@dataclass(frozen=True)
class Entry:
    """A cue as its file has it. start, end: in seconds; said: (who the format names or None, text without markup);
    style: of SubStation Alpha; doubts: what of it is not for speaking."""

    start: float
    end: float
    said: tuple[tuple[str | None, str], ...]
    style: str | None = None
    doubts: tuple[str, ...] = ()


def pysubs2() -> ModuleType:
    """The package; MissingExtra where it is not installed."""
    try:
        import pysubs2 as found
    except ModuleNotFoundError:
        raise MissingExtra(f".ass and .ssa need pysubs2: {install_hint('subtitles')}") from None
    return found


def check_subtitles(path: Path, what: str) -> str:
    """The kind, one of KINDS, that a path's extension names; an error where it is none or cannot be handled here."""
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InvalidValue(f"{what} {path}: extension {path.suffix!r} is not one of {' '.join(KINDS)}", param=what)
    if kind == "ass":
        pysubs2()
    return kind


def read_file(path: Path, encoding: str | None = None) -> str:
    """The text of a subtitle file. encoding: where it is neither UTF-8 nor has a mark of UTF-16 or UTF-32."""
    title = f"subtitles {path}"
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InvalidValue(f"{title} has {size / 2**20:.0f} MB, more than {LARGEST // 2**20}; cut it", param="file")
        data = path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{title}: {error.strerror or error}", param="file") from None
    return decoded(data, title, encoding)


def decoded(data: bytes, title: str, encoding: str | None = None) -> str:
    """Bytes as text, by the name of an encoding, by their mark, or as UTF-8; InvalidValue where they are not that."""
    named = encoding or next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(named)
    except UnicodeError as error:
        where = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        message = f"{title}: not {named}{where}"
        if encoding is None and named == "utf-8":
            message += (
                "; say what it is with --encoding, such as cp1252 (Western), cp1251 (Cyrillic), gb18030 (Chinese)"
            )
        raise InvalidValue(message, param="encoding") from None
    except (LookupError, ValueError):
        message = f"encoding {encoding!r} is not one that Python knows, such as cp1252 or gb18030"
        raise InvalidValue(message, param="encoding") from None
    if "\0" in text and encoding is None:
        guess = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
        raise InvalidValue(f"{title}: not UTF-8 but with null characters; try --encoding {guess}", param="encoding")
    return text


def read_subtitles(text: str, kind: str, title: str) -> list[Entry]:
    """The Entries of a text in the order of the file. kind: of KINDS, where the text does not begin as another does."""
    text = check_characters(text.replace("\ufeff", ""), title, param="file")  # where files were joined there are marks
    text = one_newline(text.replace("\r\n", "\n").replace("\r", "\n"))
    if text.startswith("WEBVTT"):
        kind = "vtt"
    elif re.match(r"\s*\[Script Info\]", text, re.IGNORECASE):
        kind = "ass"
    lines = text.split("\n")
    if kind == "ass":
        return _read_substation(lines, title)
    if kind == "vtt":
        lines = list(_cue_lines(lines))
    return _read_timed(lines, title, numbered=kind == "srt")


def _cue_lines(lines: Sequence[str]) -> Iterator[str]:
    """The lines of WebVTT, those that belong to no cue and the names of cues as empty ones."""
    skipped, begins = False, True
    for number, line in enumerate(lines):
        empty = not line.strip()
        skipped = not (empty or TIMES.fullmatch(line)) and (skipped or (begins and bool(NOT_CUES.match(line))))
        named = begins and "-->" not in line and "-->" in "".join(lines[number + 1 : number + 2])
        yield "" if skipped or named else line
        begins = empty


def _read_timed(lines: Sequence[str], title: str, numbered: bool) -> list[Entry]:
    """Entries of lines with times and the text below each. numbered: whether a number stands above the times."""
    times: list[tuple[int, float, float]] = []
    for number, line in enumerate(lines):
        found = TIMES.fullmatch(line) if "-->" in line else None
        try:
            if found:
                times.append((number, _seconds(found.groups()[:5]), _seconds(found.groups()[5:])))
            elif MEANT.match(line):
                raise InvalidValue("not two times such as 00:00:01,000 --> 00:00:02,500")
        except InvalidValue as error:
            message = f"{title}: line {number + 1}: {line.strip()[:60]!r}: {error}"
            raise InvalidValue(message, param="file") from None
    if not times:
        return []
    ends = [number for number, *_ in times[1:]] + [len(lines)]
    before = [line.strip() for line in lines[: times[0][0]] if line.strip()]
    entries, last = [], int(before.pop()[:18]) if numbered and before and before[-1].isdecimal() else 0
    for place, ((number, start, end), until) in enumerate(zip(times, ends, strict=True), 1):
        body = [line.strip() for line in lines[number + 1 : until]]
        if numbered and until < len(lines):
            last = _take_number(body, last)
        stray = "" if place > 1 else " ".join(before)
        if not numbered:  # a cue ends at an empty line
            whole = body.index("") if "" in body else len(body)
            body, stray = body[:whole], " ".join([stray, *filter(None, body[whole:])]).strip()
        doubts = (f"{stray[:60]!r} has no time and is not spoken",) if stray else ()
        with naming(f"cue {place}", "file"):
            entries.append(Entry(start, end, _unmarked("\n".join(filter(None, body))), None, doubts))
    return entries


def _take_number(body: list[str], last: int) -> int:
    """Take the number of the next cue off the end of a cue's lines, and give it; `last` where there is none.

    With an empty line behind it, a number is one of a cue only if it goes on counting: else it is text.
    """
    while body and not body[-1]:
        body.pop()
        if body and body[-1] and not (body[-1].isdecimal() and int(body[-1][:18]) == last + 1 and last):
            return last
    return int(body.pop()[:18]) if body and body[-1].isdecimal() else last


def _seconds(parts: Sequence[str | None]) -> float:
    """Seconds of (sign, hours, minutes, seconds, fraction)."""
    sign, hours, minutes, seconds, fraction = parts
    if int(minutes or 0) > 59 or int(seconds or 0) > 59:
        raise InvalidValue("minutes and seconds go to 59")
    made = 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0)
    return _checked(round(made + float(f"0.{fraction or 0}"), 3) * (-1 if sign else 1))


def _checked(seconds: float) -> float:
    if seconds < 0:
        raise InvalidValue("a time before the beginning; move all cues back by as much")
    if seconds > LATEST:
        raise InvalidValue(f"a time beyond {LATEST / 3600:.0f} hours")
    return seconds


def _unmarked(text: str) -> tuple[tuple[str | None, str], ...]:
    """(who is named by a <v> or None, text without tags) of a cue's text."""
    if found := UNCLOSED.search(TAG.sub("", text)):
        raise InvalidValue(f"the tag {found[0].strip()[:40]} is not closed")
    name, place, said = None, 0, []
    for match in [*VOICE.finditer(text), None]:
        said.append((name, html.unescape(TAG.sub("", BREAK.sub("\n", text[place : match.start() if match else None])))))
        if match:
            name, place = (match[1] or "").strip() or None, match.end()
    return tuple(part for part in said if part[1].strip()) or ((None, ""),)


def _read_substation(lines: Sequence[str], title: str) -> list[Entry]:
    """Entries of SubStation Alpha. Comments are not shown, and so not spoken."""
    package = pysubs2()
    events, rows = False, ["[Events]"]  # all that pysubs2 gets: it stumbles over styles that are damaged
    for number, line in enumerate(map(str.strip, lines), 1):
        events = line.lower() == "[events]" if line.startswith("[") else events
        kind, _, values = line.partition(":")
        problem = None
        if events and kind == "Format":
            if tuple(value.strip().lower() for value in values.split(","))[1:] != FIELDS:
                problem = f"events have the fields {', '.join(FIELDS)} behind the first, in this order"
        elif kind == "Dialogue" and values.count(",") < len(FIELDS):
            problem = f"{values.strip()[:40]!r} has not all fields of a Dialogue"
        elif kind == "Dialogue":
            wrong = [time for time in values.split(",")[1:3] if not ASS_TIME.fullmatch(time)]
            problem = f"{wrong[0].strip()!r} is not a time such as 0:00:01.50" if wrong else None
            rows.append(line)
        if problem:
            raise InvalidValue(f"{title}: line {number}: {problem}", param="file")
    version = "ssa" if any("marked" in row.partition(",")[0].lower() for row in rows) else "ass"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers and margins
            found = package.SSAFile.from_string("\n".join(rows), format_=version)
    except (ValueError, package.Pysubs2Error) as error:
        raise InvalidValue(f"{title}: {error}", param="file") from None
    entries = []
    for event in found:
        with naming(f"cue {len(entries) + 1}", "file"):
            entries.append(_entry(event))
    return entries


def _entry(event: Any) -> Entry:
    start, end = (_checked(time / 1000) for time in (event.start, event.end))
    text = event.text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
    said, drawn, drawing, place = "", False, False, 0
    for match in [*OVERRIDE.finditer(text), None]:
        part = text[place : match.start() if match else None]
        said, drawn = (said, True) if drawing else (said + part, drawn)
        if match:
            place, scales = match.end(), DRAWING.findall(match[1])
            drawing = int(scales[-1][:9]) > 0 if scales else drawing
    if found := UNCLOSED.search(said):
        raise InvalidValue(f"the tag {found[0].strip()[:40]} is not closed")
    doubts = ("the drawing in it is not spoken",) if drawn else ()
    if event.effect.strip().lower() == "fx":  # what karaoke templates make of a line that stands there too
        said, doubts = "", ("an effect of karaoke is not spoken",)
    return Entry(start, end, ((event.name.strip() or None, said.strip()),), event.style.strip() or None, doubts)


def write_subtitles(path: str | Path, rows: Sequence[Row]) -> None:
    """Write .srt, .vtt, .ass or .ssa, whole or not at all. Names stand as the format has them: in .srt before
    a colon."""
    path = Path(path)
    kind = check_subtitles(path, "subtitles")
    if kind == "ass":
        text = _substation(path, rows)
    elif kind == "vtt":
        parts = (
            f"{_clock(row.start, '.')} --> {_clock(row.end, '.')}\n"
            + (f"<v {html.escape(row.name, False)}>" if row.name else "")
            + f"{html.escape(row.text, False)}\n"
            for row in rows
        )
        text = "WEBVTT\n\n" + "\n".join(parts)
    else:
        parts = (
            f"{number}\n{_clock(row.start, ',')} --> {_clock(row.end, ',')}\n"
            + (f"{row.name}: " if row.name else "")
            + f"{row.text}\n"
            for number, row in enumerate(rows, 1)
        )
        text = "\n".join(parts)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _clock(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"


def _substation(path: Path, rows: Sequence[Row]) -> str:
    package = pysubs2()
    if rows and max(row.end for row in rows) >= LATEST_ASS:
        raise OutputError(f"{path}: {path.suffix} has no times beyond {LATEST_ASS / 3600:.0f} hours; write .srt")
    made = package.SSAFile()
    for row in rows:
        event = package.SSAEvent(start=round(row.start * 1000), end=round(row.end * 1000), name=row.name or "")
        event.plaintext = row.text
        made.append(event)
    return made.to_string(path.suffix[1:].lower())
