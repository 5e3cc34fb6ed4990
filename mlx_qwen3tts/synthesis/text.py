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


def check_text(text: object, what: str = "text", param: str = "text") -> str:
    """The text itself; an error where there is nothing in it to speak or it holds what is not text."""
    if not isinstance(text, str):
        raise WrongType(f"{what} must be a string, not {type(text).__name__}", param=param)
    if not text.strip():
        raise InvalidValue(f"{what} is empty", param=param)
    return check_characters(text, what, param=param)


def check_characters(text: str, what: str = "text", start: int = 0, param: str = "text") -> str:
    """The text itself; an error where it holds what is not text. `start` is its place in a longer one."""
    for place, char in enumerate(text, start):
        kind = UNSPEAKABLE.get(unicodedata.category(char))
        if kind and char not in "\t\n\r":
            raise InvalidValue(f"{what} has the {kind} U+{ord(char):04X} at position {place}; remove it", param=param)
    return text


def split_sentences(text: str) -> list[str]:
    """A text's sentences, their marks included; at least one."""
    starts = [0, *(match.end() for match in END.finditer(text)), len(text)]
    parts = [text[start:end].strip() for start, end in itertools.pairwise(starts)]
    return [part for part in parts if any(c.isalnum() for c in part)] or [text]
