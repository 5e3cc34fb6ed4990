"""JSON that every program reads: without the NaN and Infinity that Python's json writes by default."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InvalidValue


def json_text(
    value: Any,
    *,
    null: bool = False,
    indent: int | None = None,
    ensure_ascii: bool = True,
    separators: tuple[str, str] | None = None,
) -> str:
    """json.dumps of a value; InvalidValue, which names the place, for NaN and infinities and for integers that are too
    long for Python to print.

    null: NaN and infinities become null instead, in reports whose figures may be undefined.
    """

    def dumped(what: Any) -> str:
        text = json.dumps(what, allow_nan=False, indent=indent, ensure_ascii=ensure_ascii, separators=separators)
        # Halves of characters, as names of files have them that are not UTF-8, stay escaped, or nothing could write it.
        return text if ensure_ascii else text.encode(errors="backslashreplace").decode()

    try:
        return dumped(value)
    except ValueError as error:
        place = next(_not_finite(value), None)
        if place is None:
            raise InvalidValue(f"cannot be written as JSON: {error}") from None
        if null:
            return dumped(_with_null(value))
        raise InvalidValue(f"{place} is not a finite number, and JSON has no other") from None


def _not_finite(value: Any, place: str = "it") -> Iterator[str]:
    """The places of floats that are NaN or infinite, such as parents[0].weight."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _not_finite(part, str(key) if place == "it" else f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _not_finite(part, f"{place}[{i}]")


def _with_null(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _with_null(part) for key, part in value.items()}
    return [_with_null(part) for part in value] if isinstance(value, list | tuple) else value
