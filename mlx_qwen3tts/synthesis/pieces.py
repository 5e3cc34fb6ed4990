"""A long text cut into pieces at the ends of sentences, each to be spoken by itself."""

from __future__ import annotations

import re
import unicodedata

from .languages import language_code

# Some 80 seconds of speech. Bare vectors drift after minutes in one piece, and a piece is what a reader waits for.
LIMIT = 1200  # letters; characters of scripts that write a syllable with one count for three

# Where sentencex sees an end and there is none: behind "3." of "3. Oktober" and behind a Japanese quotation.
GOES_ON = re.compile(r"\b\d{1,2}\.\s*$|[」』]$")


def weight(text: str) -> int:
    """The length of a text in letters."""
    return sum(3 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def pieces(text: str, limit: int = LIMIT, language: str | None = None) -> list[str]:
    """The text as it is where it weighs no more than `limit`, else whole sentences together up to it.

    A sentence that is longer by itself is cut between words, and where there are none between characters. language: of
    the text, by name or by code, whose abbreviations end no sentence; None is English.
    """
    if weight(text) <= limit:
        return [text]
    made: list[str] = []
    now = ""
    for sentence in sentences(text, language):
        if weight((now + sentence).strip()) <= limit:
            now += sentence
            continue
        *whole, now = [now, *_parts(sentence, limit)]
        made += whole
    return [piece.strip() for piece in [*made, now] if any(char.isalnum() for char in piece)] or [text]


def sentences(text: str, language: str | None = None) -> list[str]:
    """A text's sentences with the space behind them; together they are the text."""
    from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue]  (compiled, without types)

    made: list[str] = []
    for sentence in segment(language_code(language) or "en", text):
        if made and (not sentence.strip() or GOES_ON.search(made[-1])):
            made[-1] += sentence
        else:
            made.append(sentence)
    return made


def _parts(sentence: str, limit: int) -> list[str]:
    """A sentence in parts of at most `limit`, cut at the last space before it where there is one."""
    parts: list[str] = []
    while weight(sentence) > limit:
        end, total = 0, 0
        while total + weight(sentence[end]) <= limit:
            total += weight(sentence[end])
            end += 1
        end = max(end, 1)
        space = sentence.rfind(" ", 1, end + 1)
        cut = space if space > 0 else end
        parts.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [part for part in [*parts, sentence] if part]
