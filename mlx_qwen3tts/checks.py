"""Checks of single values that users give: of the right type, within range, one of several words.

Each returns the value as a plain Python one, or raises WrongType or InvalidValue with `param` set to its name.
"""

import math
import os
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .errors import InvalidValue, WrongType


def whole(value: object, name: str, least: int | None = None, most: int | None = None) -> int:
    """An integer from `least` to `most`; a bool is not one."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise WrongType(f"{name} must be an integer, not {value!r}", param=name)
    _check_range(value, name, least, most)
    return int(value)


def number(
    value: object, name: str, least: float | None = None, most: float | None = None, above: float | None = None
) -> float:
    """A finite number from `least` to `most`, or above `above`; arrays of one element count as numbers."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # of MLX or NumPy
        value = value.item()  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise WrongType(f"{name} must be a number, not {value!r}", param=name)
    _check_range(value, name, least, most)
    try:
        plain = float(value)
    except OverflowError:  # an integer or a fraction, of any size
        plain = math.inf
    if not math.isfinite(plain):
        raise InvalidValue(f"{name} {value} is not finite", param=name)
    if above is not None and plain <= above:
        raise InvalidValue(f"{name} {value} is not above {above:g}", param=name)
    return plain


def _check_range(value: Any, name: str, least: float | None, most: float | None) -> None:
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    if not (low <= value <= high) and (least is not None or most is not None):  # NaN is in no range
        wanted = f"{least} or more" if most is None else f"between {least} and {most}"
        raise InvalidValue(f"{name} {value} is not {wanted}", param=name)


def flag(value: object, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise WrongType(f"{name} must be true or false, not {value!r}", param=name)
    return value


def word(value: object, name: str, choices: Sequence[str]) -> str:
    """One of several words."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidValue(f"{name} {value!r} is not one of {', '.join(choices)}", param=name)
    return value


def path(value: object, name: str) -> Path:
    """A path, from a string or a path object, that the system can look for."""
    if not isinstance(value, str | os.PathLike):
        raise WrongType(f"{name} must be a path, not {value!r}", param=name)
    found = os.fspath(value)
    if not isinstance(found, str):
        raise WrongType(f"{name} must be a path of characters, not {found!r}", param=name)
    if "\0" in found:
        raise InvalidValue(f"{name} {found!r} has a null character, which no name can have", param=name)
    return Path(found)


def length(values: Collection[object], count: int, name: str, of: str) -> None:
    """Refuse a list that has not one entry for each of `count` things."""
    if len(values) != count:
        raise InvalidValue(f"{name} has {len(values)} entries for {count} {of}", param=name)
