"""Voices as vectors: algebra, directions, spaces, libraries, diarization. Importing this is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..errors import VoiceError
    from .__main__ import build_parser, main
    from .algebra import blend, lerp, move, offset, slerp
    from .directions.direction import Direction
    from .expression import parse
    from .library.library import Library
    from .space import VoiceSpace, similarity
    from .sparse.autoencoder import SparseAutoencoder
    from .voice import Voice

FOLDER = "voices"  # the library's, where commands and Qwen3TTS look unless told otherwise

_HOMES = {
    "Direction": ".directions.direction",
    "Library": ".library.library",
    "SparseAutoencoder": ".sparse.autoencoder",
    "Voice": ".voice",
    "VoiceError": "..errors",
    "VoiceSpace": ".space",
    "blend": ".algebra",
    "build_parser": ".__main__",
    "lerp": ".algebra",
    "main": ".__main__",
    "move": ".algebra",
    "offset": ".algebra",
    "parse": ".expression",
    "similarity": ".space",
    "slerp": ".algebra",
}
__all__ = [
    "Direction",
    "Library",
    "SparseAutoencoder",
    "Voice",
    "VoiceError",
    "VoiceSpace",
    "blend",
    "build_parser",
    "lerp",
    "main",
    "move",
    "offset",
    "parse",
    "similarity",
    "slerp",
]


if not TYPE_CHECKING:  # a checker knows the names from above, and finds misspelt ones

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
