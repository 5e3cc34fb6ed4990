"""What counts as a text to speak, and where its sentences end."""

from __future__ import annotations

import itertools
import re
import unicodedata

from ..errors import InvalidValue, WrongType

# Categories refused in a text. Python has surrogates for bytes of a command line that are not UTF-8.
UNSPEAKABLE = {"Cc": "control character", "Cs": "undecodable byte or surrogate"}
# After the marks that end a sentence, with what closes around them; the scripts without spaces need none.
END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？])[”’」』）]*\s*|\n\s*\n")
# What ends a line beside \n and \r: vertical tab, form feed (which ends a page of pdftotext's), next line.
LINE_ENDS = "\v\f\x85"
TAKEN = frozenset("\t\n\r" + LINE_ENDS)  # control characters that a text may have
LINE_END = re.compile(rf"\r\n|[\n\r{LINE_ENDS}]")
AS_NEWLINES = str.maketrans(dict.fromkeys(LINE_ENDS, "\n"))
# Characters that are not whitespace, nor of the category Cf (format), and yet show nothing: those with the Unicode
# property Default_Ignorable_Code_Point, and the braille pattern without dots.
BLANKS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)


def check_text(text: object, what: str = "text", param: str = "text") -> str:
    """The text itself; an error where there is nothing in it to speak or it holds what is not text."""
    if not isinstance(text, str):
        raise WrongType(f"{what} must be a string, not {type(text).__name__}", param=param)
    if says_nothing(text):
        raise InvalidValue(f"{what} is empty", param=param)
    return check_characters(text, what, param=param)


def says_nothing(text: str) -> bool:
    """Whether a text has nothing in it that could be spoken or shown, such as a zero-width space alone."""
    return all(char.isspace() or unicodedata.category(char) == "Cf" or BLANKS.match(char) for char in text)


def one_newline(text: str) -> str:
    """The text with its rarer ends of lines as \\n, place for place."""
    return text.translate(AS_NEWLINES)


def lines_of(text: str) -> list[str]:
    """The lines of a text that have something to say, without their ends."""
    return [line for line in LINE_END.split(text) if not says_nothing(line)]


def check_characters(text: str, what: str = "text", start: int = 0, param: str = "text") -> str:
    """The text itself; an error where it holds what is not text. `start` is its place in a longer one."""
    for place, char in enumerate(text, start):
        kind = UNSPEAKABLE.get(unicodedata.category(char))
        if kind and char not in TAKEN:
            raise InvalidValue(f"{what} has the {kind} U+{ord(char):04X} at position {place}; remove it", param=param)
    return text


def split_sentences(text: str) -> list[str]:
    """A text's sentences, their marks included; at least one."""
    text = one_newline(text)
    starts = [0, *(match.end() for match in END.finditer(text)), len(text)]
    parts = [text[start:end].strip() for start, end in itertools.pairwise(starts)]
    return [part for part in parts if any(c.isalnum() for c in part)] or [text]
