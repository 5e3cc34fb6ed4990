"""Who speaks when. Importing this is cheap; MLX is loaded when a name is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backgrounds import background
    from .clusters import THRESHOLD
    from .recording import diarize, limits
    from .result import Diarization, Turn
    from .windows import embedder

__all__ = ["THRESHOLD", "Diarization", "Turn", "background", "diarize", "embedder", "limits"]

_HOMES = {
    "THRESHOLD": ".clusters",
    "Diarization": ".result",
    "Turn": ".result",
    "background": ".backgrounds",
    "diarize": ".recording",
    "embedder": ".windows",
    "limits": ".recording",
}


if not TYPE_CHECKING:  # a checker knows the names from above, and finds misspelt ones

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
