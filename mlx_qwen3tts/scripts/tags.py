"""Tags within a line: `[voice: anna*0.7 + ben*0.3] [pause: 1.5s] [rate: 1.2] [instruct: softly]`.

A tag holds to the end of its line. `\\[` is a bracket that is not one. Brackets around anything but a word and a colon
are text.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field

from .. import checks
from ..errors import InvalidValue
from ..synthesis.request import RATES
from .script import Span

TAGS = ("voice", "pause", "rate", "instruct")
TOKEN = re.compile(r"\\[\[\]\\:]|\[[^\[\]]*\]?|[^\[\\]+|\\")
TAG = re.compile(r"\[\s*(\w+)\s*:\s*(.*?)\s*(\]?)", re.DOTALL)
PAUSE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|)")
LONGEST = 600.0  # seconds of a pause


@dataclass
class Tagged:
    """What a line's text is made of: spans, and the pause behind the last one."""

    spans: list[Span] = field(default_factory=list)
    pause: float | None = None


def read_tags(text: str) -> Tagged:
    """The spans of a line's text. InvalidValue for a tag that is unclosed, unknown or has a value it cannot have."""
    made, said = Tagged(), ""
    now: dict[str, str | float | None] = {}

    def close() -> None:
        nonlocal said
        if any(char.isalnum() for char in said):
            made.spans.append(Span(" ".join(said.split()), pause=made.pause, **now))  # pyright: ignore[reportArgumentType]
            made.pause, said = None, ""

    for token in TOKEN.findall(text):
        tag = TAG.fullmatch(token) if token[0] == "[" else None
        if tag is None or not _is_tag(tag[1]):
            if tag and tag[3] and " " not in token[: token.index(":")].strip():
                raise InvalidValue(_unknown(token, tag[1]))
            said += token[1:] if token[0] == "\\" and len(token) == 2 else token
            continue
        name, value, closed = tag[1].lower(), tag[2], tag[3]
        if not closed:
            raise InvalidValue(f"the tag {_short(token)} is not closed: it needs a ]")
        if not value:
            raise InvalidValue(f"the tag {token} has no value")
        close()
        if name == "pause":
            made.pause = (made.pause or 0) + _pause(value)
        else:
            now[name] = _rate(value) if name == "rate" else value
    close()
    if now and not made.spans:
        raise InvalidValue("a tag holds to the end of its line, and there is nothing to speak behind it")
    return made


def _is_tag(name: str) -> bool:
    return name.lower() in TAGS


def _unknown(token: str, name: str) -> str:
    near = difflib.get_close_matches(name.lower(), TAGS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"tags are {', '.join(TAGS)}"
    return f"no tag {_short(token)}: {hint} A bracket that is text is written \\["


def _short(token: str) -> str:
    return token if len(token) <= 40 else f"{token[:40]}…"


def _pause(value: str) -> float:
    found = PAUSE.fullmatch(value.lower())
    if not found:
        raise InvalidValue(f"pause {value!r} is not a time such as 1.5s or 500ms")
    return checks.number(float(found[1]) / (1000 if found[2] == "ms" else 1), "pause", 0, LONGEST)


def _rate(value: str) -> float:
    try:
        return checks.number(float(value), "rate", *RATES)
    except ValueError as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue(f"rate {value!r} is not a number") from None
