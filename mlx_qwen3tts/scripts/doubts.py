"""What in a script is probably not meant as it will be spoken, line by line. Nothing here is refused."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator

from ..synthesis.languages import NAMES, language_code
from ..synthesis.pieces import sentences, weight
from .cast import Cast
from .script import Line, Script
from .timeline import LIMIT, Piece

BRACKETED = re.compile(r"\[[^\[\]]{1,60}\]|\{[^{}]{1,60}\}|<[^<>]{1,60}>|\*[^*\s][^*]{0,58}\*")
DIGITS = re.compile(r"\d(?:[\d.,:/%-]*\d)?%?")
ADDRESS = re.compile(r"https?://\S+|www\.\S+|\S+@\S+\.\w+")
# By the first word of a character's Unicode name: which languages are written with it; None: most.
WRITTEN = {
    "LATIN": None,
    "FULLWIDTH": None,
    "MODIFIER": None,
    "MASCULINE": None,
    "FEMININE": None,
    "MICRO": None,
    "CYRILLIC": ("russian", "ukrainian"),
    "CJK": ("chinese", "japanese"),
    "HIRAGANA": ("japanese",),
    "KATAKANA": ("japanese",),
    "HANGUL": ("korean",),
    "ARABIC": ("arabic",),
    "DEVANAGARI": ("hindi",),
    "THAI": ("thai",),
}
# Languages of the published checkpoints.
PUBLISHED = (
    "chinese",
    "english",
    "french",
    "german",
    "italian",
    "japanese",
    "korean",
    "portuguese",
    "russian",
    "spanish",
)
SHOWN = 3  # examples of one kind in a line's doubt


def doubtful(
    script: Script,
    cast: Cast,
    pieces: Iterable[Piece],
    language: str = "auto",
    languages: Collection[str] = PUBLISHED,
    unknown: Callable[[str], list[str]] | None = None,
    normalized: bool = False,
) -> list[tuple[int, str]]:
    """(line's number, what looks wrong), in the order of the lines, each once.

    pieces: what is to be spoken; languages: names of those that the model speaks; unknown: function from a text to the
    words in it that the model was not taught, None for a model without a closed vocabulary; normalized: whether numbers
    become words first.
    """
    found = dict.fromkeys(script.doubts)
    known = {name.lower() for name in languages}
    for line in script.lines:
        for doubt in (*_of_line(line, cast, normalized), *_of_sentences(line, cast, language)):
            found[line.number, doubt] = None
    for piece in pieces:
        for doubt in _of_piece(piece, piece.part.language or language, known, unknown):
            found[piece.line, doubt] = None
    return sorted(found, key=lambda one: one[0])


def _of_line(line: Line, cast: Cast, normalized: bool) -> Iterator[str]:
    text = line.text
    if marks := BRACKETED.findall(text):
        yield f"{_shown(marks)} is read out: it is not a tag"
    if addresses := ADDRESS.findall(text):
        yield f"{_shown(addresses)} is an address, which is not read well"
    digits = DIGITS.findall(ADDRESS.sub(" ", text))
    if digits and not normalized:
        yield f"{_shown(digits)}: digits may be read in another language; --normalize writes them as words"
    if symbols := [char for char in text if unicodedata.category(char) in ("So", "Co", "Cn")]:
        yield f"{_shown(symbols)} has no sound"
    if line.name is not None and line.name.casefold() not in cast.parts:
        near = difflib.get_close_matches(line.name.casefold(), cast.parts, n=1, cutoff=0.75)
        if near:
            yield f"{line.name!r} is not {near[0]!r} of the cast, but the voice of that name"


def _of_sentences(line: Line, cast: Cast, language: str) -> Iterator[str]:
    for span in line.spans:
        own = cast.part(line, span).language or language
        for sentence in sentences(span.text, own) if weight(span.text, own) > LIMIT else ():
            if weight(sentence, own) > LIMIT:
                yield f"a sentence of {len(sentence.strip())} characters is cut between words"


def _of_piece(
    piece: Piece, language: str, known: set[str], unknown: Callable[[str], list[str]] | None
) -> Iterator[str]:
    if unknown is not None and (words := _words(unknown(BRACKETED.sub(" ", piece.text)))):
        yield f"{_shown(words)}: the model was not taught {'this word' if len(words) == 1 else 'these words'}"
    strange: dict[str, str] = {}
    for char in filter(str.isalpha, piece.text):
        writing = re.split("[ -]", unicodedata.name(char, "UNKNOWN"), maxsplit=1)[0]
        speaking = WRITTEN.get(writing, ())
        if speaking is not None and not known & set(speaking):
            strange.setdefault(writing, char)
    for writing, char in strange.items():
        yield f"{char!r} is written in {writing.title()}, and the model speaks no such language"
    code = language_code(language)
    if code and NAMES[code] not in known:
        yield f"the model does not speak {NAMES[code].title()}"


def _words(found: Iterable[str]) -> list[str]:
    """Those with letters, without the marks around them."""
    return [word.strip(".,;:!?…()“”„\"'") for word in found if any(map(str.isalpha, word))]


def _shown(found: Iterable[str]) -> str:
    """The first few of what was found, each once."""
    once = list(dict.fromkeys(found))
    return ", ".join(repr(one) for one in once[:SHOWN]) + (" …" if len(once) > SHOWN else "")
