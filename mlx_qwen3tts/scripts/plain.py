"""Plain text and Markdown as lines: paragraphs, `NAME: what is said`, `# Heading`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from ..errors import naming
from ..synthesis.text import check_characters, one_newline
from .script import Line
from .tags import read_tags

HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*")
SPEAKER = re.compile(r"([^\[\]:：\\]{1,40}?)\s*(?::(?=\s|$)|：)\s*(.*)")
MOST = 4  # words of a name, and characters where a script has no capitals
QUOTES = "\"'“‘«「『"
# Markdown that is not spoken, and what is left of the rest.
DROPPED = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|<!--.*?(?:-->|\Z)|</?[a-zA-Z][^<>\n]*>", re.DOTALL)
MARKS = (
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*|__(?=\S)(.+?)(?<=\S)__"), r"\1\2"),
    (re.compile(r"\*(?=\S)(.+?)(?<=\S)\*|(?<!\w)_(?=\S)(.+?)(?<=\S)_(?!\w)"), r"\1\2"),
    (re.compile(r"`([^`\n]+)`"), r"\1"),
)
LIST = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+")
QUOTED = re.compile(r"\s*(?:>\s?)+")


@dataclass
class Paragraph:
    """What is read of a paragraph so far."""

    number: int
    name: str | None
    text: str
    heading: int = 0


def read_plain(
    text: str, names: Collection[str] = (), markdown: bool = False
) -> tuple[list[Line], list[tuple[int, str]]]:
    """(lines, doubts) of a text. names: those of the cast."""
    text = one_newline(check_characters(text, "script").replace("\r\n", "\n").replace("\r", "\n"))
    if markdown:
        text = DROPPED.sub(lambda match: "\n" * match[0].count("\n"), text)
        for pattern, kept in MARKS:
            text = pattern.sub(kept, text)
    doubts: list[tuple[int, str]] = []
    return as_lines(_paragraphs(text, {name.casefold() for name in names}, markdown, doubts), doubts), doubts


def as_lines(paragraphs: Iterator[Paragraph], doubts: list[tuple[int, str]]) -> list[Line]:
    """Lines of paragraphs. One without words is a break of the scene, or with pauses a pause."""
    lines: list[Line] = []
    scene, pause = False, None
    for one in paragraphs:
        with naming(f"line {one.number}"):
            tagged = read_tags(one.text)
        if tagged.spans:
            first, *rest = tagged.spans
            if pause is not None:
                first = replace(first, pause=pause + (first.pause or 0))
            lines.append(Line(one.number, one.name, (first, *rest), one.heading, scene))
            scene, pause = False, tagged.pause
        elif tagged.pause is not None:
            pause = (pause or 0) + tagged.pause
        else:
            scene = True
            if one.name is not None:
                doubts.append((one.number, f"{one.name} says nothing"))
    if pause:
        doubts.append((lines[-1].number if lines else 1, "the pause at the end has nothing behind it and is left out"))
    return lines


def _paragraphs(text: str, known: set[str], markdown: bool, doubts: list[tuple[int, str]]) -> Iterator[Paragraph]:
    now: Paragraph | None = None
    quoted = False
    for number, raw in enumerate(text.split("\n"), 1):
        before, quoted = quoted, markdown and bool(QUOTED.match(raw))
        line = QUOTED.sub("", raw, count=1) if quoted else raw
        item = LIST.match(line) if markdown else None
        line = line[item.end() :].strip() if item and line.strip("*-_ \t") else line.strip()
        heading = HEADING.fullmatch(line)
        speaker = None if heading or not line else _speaker(line, known, number, doubts)
        if now is not None and (not line or heading or speaker or item or (quoted and not before)):
            yield now
            now = None
        if heading:
            yield Paragraph(number, None, heading[2], len(heading[1]))
        elif speaker:
            now = Paragraph(number, *speaker)
        elif line and now is None:
            now = Paragraph(number, None, line)
        elif line and now is not None:
            now.text = joined(now.text, line)
    if now is not None:
        yield now


def joined(text: str, line: str) -> str:
    """A paragraph with its next line; scripts without spaces between words get none."""
    tight = text[-1:] and all(unicodedata.east_asian_width(char) in "WF" for char in (text[-1], line[0]))
    return text + line if tight else f"{text} {line}"


def _speaker(line: str, known: set[str], number: int, doubts: list[tuple[int, str]]) -> tuple[str, str] | None:
    """(name, what is said) of a line that begins with a name of the cast or what looks like a name."""
    found = SPEAKER.fullmatch(line)
    if not found:
        return None
    name, rest = found[1].strip(), found[2]
    if name.casefold() in known or looks_like_name(name, rest):
        return name, rest
    if len(name.split()) <= MOST and any(map(str.isalpha, name)):
        doubts.append((number, f"{name!r} before a colon is spoken: it does not look like a name"))
    return None


def looks_like_name(name: str, rest: str = "") -> bool:
    """Whether words before a colon look like a name: few, each with a capital; numbers may follow the first."""
    words = name.split()
    if not words or len(words) > MOST or not words[0][0].isalpha():
        return False
    if all(char.lower() == char.upper() for char in name):  # a script without capitals
        return len(name) <= MOST and rest[:1] not in QUOTES
    return all(word[0].isdigit() or (word[0].isalpha() and not word[0].islower()) for word in words)
