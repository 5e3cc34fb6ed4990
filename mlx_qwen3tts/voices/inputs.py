"""Which files a voice, as a command is given it, may be read from. So no command's output is written over one."""

from __future__ import annotations

from pathlib import Path

from ..errors import QwenTTSError
from . import FOLDER
from .expression import Name, Sum, parse
from .voice import SUFFIXES


def files_of(text: str | None, library: str | Path | None = None) -> list[Path]:
    """Where the voices and directions of a name or expression would lie, whether or not they are there."""
    if text is None:
        return []
    try:
        names = [Name(text), *_names(parse(text))]
    except QwenTTSError:  # a file's name, or something that will be refused
        names = [Name(text)]
    folder, files = Path(FOLDER if library is None else library), []
    for name in names:
        kept = folder / "directions" if name.direction else folder
        files += [Path(name.name), *(kept / f"{name.name}{suffix}" for suffix in SUFFIXES)]
    return files


def _names(expression: Name | Sum) -> list[Name]:
    """The leaves of an expression."""
    if isinstance(expression, Name):
        return [expression]
    return [name for _, what in expression.terms for name in _names(what)]
