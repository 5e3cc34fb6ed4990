"""A script: who says what, line by line, whatever kind of file it was written in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .. import checks
from ..errors import InvalidValue

KINDS = {".txt": "text", ".text": "text", ".md": "markdown", ".markdown": "markdown", ".json": "json", ".epub": "epub"}
CHAPTERS = 2  # the lowest level of heading that begins a chapter


@dataclass(frozen=True)
class Span:
    """A stretch of a line that is spoken in one way. None is left to the cast.

    voice: a name or a blend expression; pause: seconds of silence in front of it, None for the usual one.
    """

    text: str
    voice: str | None = None
    instruct: str | None = None
    rate: float | None = None
    pause: float | None = None


@dataclass(frozen=True)
class Line:
    """A paragraph. number: its line in a text file, its turn in JSON, its paragraph in a book, from 1.

    name: who speaks, None for the narrator; heading: its level, 0 where it is not one; scene: whether a break of the
    scene precedes it.
    """

    number: int
    name: str | None
    spans: tuple[Span, ...]
    heading: int = 0
    scene: bool = False
    unit: ClassVar[str] = "line"  # what messages call it

    @property
    def text(self) -> str:
        return " ".join(span.text for span in self.spans)

    @property
    def chapter(self) -> bool:
        """Whether a chapter begins with it."""
        return 0 < self.heading <= CHAPTERS


@dataclass(frozen=True)
class Script:
    """Lines in the order in which they are spoken. doubts: (line's number, what looks wrong) of what was read."""

    lines: tuple[Line, ...]
    doubts: tuple[tuple[int, str], ...] = ()

    @classmethod
    def parse(cls, file: str | Path, names: Collection[str] = ()) -> Script:
        """Read a .txt, .md, .json or .epub file. names: those of the cast, which need not look like names.

        InvalidValue where the file cannot be read or a line is malformed; the message names the line.
        """
        path = checks.path(file, "file")
        kind = KINDS.get(path.suffix.lower())
        if kind is None:
            raise InvalidValue(
                f"script {path}: extension {path.suffix!r} is not one of {' '.join(KINDS)}", param="file"
            )
        if kind == "epub":
            from .epub import read_epub

            return cls._whole(str(path), read_epub(path, names))
        from ..files.text import read_text

        return cls.parse_text(read_text(str(path)), kind, names, str(path))

    @classmethod
    def parse_text(
        cls, text: str, kind: str = "text", names: Collection[str] = (), title: str = "the script"
    ) -> Script:
        """The same from a string. kind: "text", "markdown" or "json"; title: what messages call it."""
        from . import plain, turns

        checks.word(kind, "kind", ("text", "markdown", "json"))
        if kind == "json":
            return cls._whole(title, turns.read_turns(text, title))
        return cls._whole(title, plain.read_plain(text, names, markdown=kind == "markdown"))

    @classmethod
    def _whole(cls, title: str, read: tuple[list[Line], list[tuple[int, str]]]) -> Script:
        if not read[0]:
            raise InvalidValue(f"{title} has nothing to speak", param="file")
        return cls(tuple(read[0]), tuple(read[1]))
