"""Scripts of many voices: read, cast, laid out and spoken, with nothing lost on the way."""

from .cast import Cast, Part, read_cast
from .render import Rendered, Timeline
from .script import Line, Script, Span

__all__ = ["Cast", "Line", "Part", "Rendered", "Script", "Span", "Timeline", "read_cast"]
