"""A long text cut into pieces at the ends of sentences, each to be spoken by itself."""

from __future__ import annotations

import unicodedata

from .text import split_sentences

# Some 80 seconds of speech. Bare vectors drift after minutes in one piece, and a piece is what a reader waits for.
LIMIT = 1200  # letters; characters of scripts that write a syllable with one count for three


def weight(text: str) -> int:
    """The length of a text in letters."""
    return sum(3 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def pieces(text: str, limit: int = LIMIT) -> list[str]:
    """The text as it is where it weighs no more than `limit`, else whole sentences together up to it.

    A sentence that is longer by itself is cut between words, and where there are none between characters.
    """
    if weight(text) <= limit:
        return [text]
    made: list[str] = []
    for sentence in split_sentences(text):
        for part in _parts(sentence, limit):
            if made and weight(made[-1]) + 1 + weight(part) <= limit:
                made[-1] = f"{made[-1]} {part}"
            else:
                made.append(part)
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
