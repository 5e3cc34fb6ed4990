"""Scripts of many voices: read, cast, laid out and spoken, with nothing lost on the way."""

from .cast import Cast, Part, read_cast
from .cues import Cue, Cues
from .dubbing import Dubbed, Dubbing, Placed
from .render import Rendered, Timeline
from .script import Line, Script, Span
from .subtitles import Row, write_subtitles

__all__ = [
    "Cast",
    "Cue",
    "Cues",
    "Dubbed",
    "Dubbing",
    "Line",
    "Part",
    "Placed",
    "Rendered",
    "Row",
    "Script",
    "Span",
    "Timeline",
    "read_cast",
    "write_subtitles",
]
