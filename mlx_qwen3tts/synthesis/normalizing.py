"""Numbers, dates and units as words (by wetext, an extra): models may read digits in another language."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

from ..errors import MissingExtra, UnsupportedValue, install_hint
from .languages import NAMES, language_code
from .pieces import written_in

EXTRA = "wetext"
SPOKEN = ("en", "zh", "ja")  # what wetext has rules for


def check_normalizing() -> None:
    """MissingExtra where the extra is not installed."""
    if importlib.util.find_spec("wetext") is None:
        raise MissingExtra(f"--normalize needs wetext: {install_hint(EXTRA)}", param="normalize")


def in_words(text: str, language: str | None = None) -> str:
    """A text whose numbers, dates and units are written as words. language: by name or by code; else by its script.

    A text without digits stays as it is. MissingExtra without the extra; UnsupportedValue for digits in a language that
    has no rules.
    """
    check_normalizing()
    if not any(char.isdigit() for char in text):
        return text
    code = language_code(language) or written_in(text)
    if code not in SPOKEN:
        known = ", ".join(NAMES[one].title() for one in SPOKEN)
        message = f"there are no rules for numbers in {NAMES[code].title()}; they are for {known}: write them as words"
        raise UnsupportedValue(message, param="normalize")
    return rules(code).normalize(text)


@functools.cache
def rules(code: str) -> Any:
    from wetext import Normalizer

    return Normalizer(lang=code, operator="tn")
