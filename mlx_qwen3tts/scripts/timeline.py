"""A script on a timeline: pieces to be spoken, in order, each with its Request and the pause in front of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..errors import naming
from ..files.json_text import json_text
from ..synthesis.pieces import LETTERS, USUAL, pieces, weight
from ..synthesis.request import Request, Sampling, following_seeds
from .cast import Cast, Part
from .script import Line, Script

LIMIT = LETTERS[USUAL]  # letters of a piece, some 40 s: what is spoken anew after a kill or a change
# Seconds of silence behind a piece within a paragraph, by its last mark.
MARKS = {
    **dict.fromkeys(".!?。！？", 0.35),
    **dict.fromkeys(";:；：–—", 0.25),
    **dict.fromkeys(",，、", 0.15),
    "…": 0.5,
}
NO_MARK, PARAGRAPH, AFTER_HEADING, HEADING, SCENE = 0.1, 0.6, 1.0, 1.6, 1.6
CLOSING = "\"'”’»›)]」』）"
LETTERS_PER_SECOND = 15.0  # read aloud


@dataclass(frozen=True)
class Piece:
    """What is spoken at once. line: the Line's number; pause: seconds of silence in front; chapter: the title of one
    that begins with it; key: a word for what is said, by which takes are counted; take: how often it was spoken before.
    """

    line: int
    name: str | None
    part: Part
    text: str
    pause: float
    chapter: str | None
    key: str
    seed: int
    take: int

    def request(self, cast: Cast, language: str, sampling: Sampling, guard: bool = False) -> Request:
        """In the full layout: the streaming one speaks ever faster in long texts. guard: with the seeds that follow."""
        part = self.part
        return Request(
            self.text,
            cast.voice(part.voice),
            language=part.language or language,
            instruct=part.instruct,
            text_mode="full",
            seed=self.seed,
            sampling=sampling,
            rate=part.rate,
            guard=following_seeds(self.seed) if guard else False,
        )

    @property
    def seconds(self) -> float:
        """How long it should take."""
        return weight(self.text, self.part.language) / LETTERS_PER_SECOND / self.part.rate


def lay_out(
    script: Script,
    cast: Cast,
    seed: int = 0,
    takes: Mapping[str, int] | None = None,
    language: str = "auto",
    written: Callable[[str, str], str] | None = None,
) -> list[Piece]:
    """The Pieces of a script. takes: {key: take} of those that were varied; written: from a text and its language to
    the text that is spoken, such as `in_words`.

    A piece's seed depends on the script's seed and on what is said, not on its place: what is put in front of it leaves
    it as it is.
    """
    made: list[Piece] = []
    counted: Counter[tuple[str | None, str]] = Counter()
    before: Line | None = None
    for line in script.lines:
        for number, span in enumerate(line.spans):
            part = cast.part(line, span)
            own = part.language or language
            said = span.text if written is None else _written(written, span.text, own, line)
            for place, text in enumerate(pieces(said, LIMIT, own)):
                first = number == place == 0
                counted[line.name, text] += 1
                key = _digest(line.name, text, counted[line.name, text])
                take = (takes or {}).get(key, 0)
                pause = span.pause if place == 0 and span.pause is not None else None
                if pause is None:
                    pause = _between(before, line) if first else behind(made[-1].text)
                chapter = line.text if line.chapter and first else None
                drawn = int(_digest(seed, key, take)[:8], 16)
                made.append(Piece(line.number, line.name, part, text, pause, chapter, key, drawn, take))
        before = line
    return made


def _written(written: Callable[[str, str], str], text: str, language: str, line: Line) -> str:
    with naming(f"{line.unit} {line.number}"):
        return written(text, language)


def behind(text: str) -> float:
    """Seconds of silence behind a text within a paragraph."""
    return MARKS.get(text.rstrip().rstrip(CLOSING)[-1:], NO_MARK)


def _between(before: Line | None, line: Line) -> float:
    """Seconds of silence between two lines."""
    if before is None:
        return 0.0
    if before.number == line.number:  # two speak in one cue
        return behind(before.text)
    if line.heading:
        return HEADING
    if line.scene:
        return SCENE
    return AFTER_HEADING if before.heading else PARAGRAPH


def _digest(*what: object) -> str:
    return hashlib.sha256(json_text(what).encode()).hexdigest()[:16]


def seconds_of(made: Iterable[Piece]) -> float:
    """How long pieces and their pauses should take."""
    return sum(piece.seconds + piece.pause for piece in made)
