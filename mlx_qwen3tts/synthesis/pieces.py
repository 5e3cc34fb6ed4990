"""A long text cut into pieces at the ends of sentences, each to be spoken by itself."""

from __future__ import annotations

import re
import unicodedata

from .languages import language_code

# Some 80 seconds of speech. Bare vectors drift after minutes in one piece, and a piece is what a reader waits for.
LIMIT = 1200  # letters of English; of other languages as many as take the same time

# Letters, spaces and marks included, that are read aloud in 40 s: benchmarks/README.md, by benchmarks.letters.
LETTERS = {
    "en": 600,
    "de": 600,
    "fr": 600,
    "es": 550,
    "it": 560,
    "pt": 500,
    "ru": 530,
    "zh": 160,
    "ja": 270,
    "ko": 230,
}
USUAL = "en"  # of a language that is not among them and is written with letters

# Where sentencex sees an end and there is none: behind "3." of "3. Oktober" and behind a Japanese quotation.
GOES_ON = re.compile(r"\b\d{1,2}\.\s*$|[」』]$")


def written_in(text: str, language: str | None = None) -> str:
    """Which language of LETTERS tells how long a text is: its own, by name or by code, else one of its script."""
    code = language_code(language)
    if code in LETTERS:
        return code
    counts: dict[str, int] = dict.fromkeys(("han", "kana", "ko", "ru", "other"), 0)
    for char in text:
        if char.isalpha():
            counts[_script(char)] += 1
    wide = counts["han"] + counts["kana"]
    # A Japanese text has kana in every phrase, a Chinese one none but in a name.
    found = {"ja" if 10 * counts["kana"] > wide else "zh": wide, "ko": counts["ko"], "ru": counts["ru"]}
    most = max(found, key=lambda name: found[name])
    return most if 2 * found[most] > sum(counts.values()) else USUAL


def _script(char: str) -> str:
    if char < "\u0400":
        return "other"
    name = unicodedata.name(char, "")
    starts = {"CJK": "han", "HIRAGANA": "kana", "KATAKANA": "kana", "HANGUL": "ko", "CYRILLIC": "ru"}
    return next((script for start, script in starts.items() if name.startswith(start)), "other")


def weight(text: str, language: str | None = None) -> float:
    """How long a text is, in letters of English that take as long to read aloud; 15 of them a second."""
    return len(text) * LETTERS[USUAL] / LETTERS[written_in(text, language)]


def pieces(text: str, limit: int = LIMIT, language: str | None = None) -> list[str]:
    """The text as it is where it weighs no more than `limit`, else whole sentences together up to it.

    A sentence that is longer by itself is cut between words, and where there are none between characters. language: of
    the text, by name or by code, whose abbreviations end no sentence; None is that of its script.
    """
    code = written_in(text, language)
    most = _most(limit, code)
    if len(text) <= most:
        return [text]
    made: list[str] = []
    now = ""
    for sentence in sentences(text, language_code(language) or code):
        if len((now + sentence).strip()) <= most:
            now += sentence
            continue
        *whole, now = [now, *_parts(sentence, most)]
        made += whole
    return [piece.strip() for piece in [*made, now] if any(char.isalnum() for char in piece)] or [text]


def sentences(text: str, language: str | None = None) -> list[str]:
    """A text's sentences with the space behind them; together they are the text."""
    from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue]  (compiled, without types)

    made: list[str] = []
    for sentence in segment(language_code(language) or USUAL, text):
        if made and (not sentence.strip() or GOES_ON.search(made[-1])):
            made[-1] += sentence
        else:
            made.append(sentence)
    return made


def overfull(sentence: str, limit: int = LIMIT) -> tuple[list[str], str]:
    """(parts of a sentence that still comes, each of a piece's length; what is held of it until more comes). Together
    they are what there is of it; it is cut as `pieces` cuts, and held where it is not longer than two of them."""
    parts, most = [], _most(limit, written_in(sentence))
    while len(sentence) > 2 * most:
        cut = _cut(sentence, most, " \n")
        parts.append(sentence[:cut])
        sentence = sentence[cut:]
    return parts, sentence


def _most(limit: int, code: str) -> int:
    """Characters of a language that weigh `limit`."""
    return max(1, limit * LETTERS[code] // LETTERS[USUAL])


def _cut(sentence: str, most: int, marks: str) -> int:
    """Where to cut a sentence so that at most so many characters come first: before the last mark, if there is one."""
    place = max(sentence.rfind(mark, 1, most + 1) for mark in marks)
    return place if place > 0 else most


def _parts(sentence: str, most: int) -> list[str]:
    """A sentence in parts of at most so many characters, cut at the last space before it where there is one."""
    parts: list[str] = []
    while len(sentence) > most:
        cut = _cut(sentence, most, " ")
        parts.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [part for part in [*parts, sentence] if part]
