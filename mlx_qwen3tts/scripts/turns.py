"""Turns of a conversation in JSON as lines: `[{"speaker": "Anna", "text": "Hello."}, …]`."""

from __future__ import annotations

import json
from typing import Any

from .. import checks
from ..errors import InvalidValue, naming
from ..synthesis.request import RATES
from ..synthesis.text import check_text
from .script import Line, Span
from .tags import LONGEST

KEYS = ("speaker", "text", "voice", "instruct", "rate", "pause", "heading")


def read_turns(text: str, title: str) -> tuple[list[Line], list[tuple[int, str]]]:
    """(lines, doubts) of a list of objects, or of an object with such a list as "turns". Brackets are text."""
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{title} is not JSON: {error}") from None
    if isinstance(turns, dict):
        turns = turns.get("turns")
    if not isinstance(turns, list):
        raise InvalidValue(f'{title} is not a list of turns, nor an object with such a list as "turns"')
    lines = []
    for number, turn in enumerate(turns, 1):
        with naming(f"line {number}"):
            lines.append(_line(number, turn))
    return lines, []


def _line(number: int, turn: Any) -> Line:
    if not isinstance(turn, dict):
        raise InvalidValue(f'a turn is an object with "speaker" and "text", not {str(turn)[:40]!r}')
    if unknown := [key for key in turn if key not in KEYS]:
        raise InvalidValue(f"a turn has no {unknown[0]!r}; it has {', '.join(KEYS)}")
    text = check_text(turn.get("text"), "text")
    words = {key: turn.get(key) for key in ("speaker", "voice", "instruct")}
    for key, value in words.items():
        if value is not None:
            check_text(value, key, key)
    rate, pause = turn.get("rate"), turn.get("pause")
    span = Span(
        " ".join(text.split()),
        words["voice"],
        words["instruct"],
        None if rate is None else checks.number(rate, "rate", *RATES),
        None if pause is None else checks.number(pause, "pause", 0, LONGEST),
    )
    return Line(number, words["speaker"], (span,), int(checks.flag(turn.get("heading", False), "heading")))
