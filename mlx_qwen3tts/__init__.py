"""Qwen3-TTS in pure MLX: speech from text in a voice that is a vector.

Importing this is cheap; MLX is loaded when a name is first used.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "Codec",
    "Direction",
    "Library",
    "Qwen3TTS",
    "QwenTTSError",
    "Request",
    "Sampling",
    "Seal",
    "SpeakerEncoder",
    "Speech",
    "Voice",
    "VoiceSpace",
    "design_voice",
]

if TYPE_CHECKING:
    from .checkpoint.codec import Codec
    from .checkpoint.speaker import SpeakerEncoder
    from .errors import QwenTTSError
    from .provenance.seal import Seal
    from .synthesis.design import design_voice
    from .synthesis.request import Request, Sampling
    from .synthesis.speech import Speech
    from .synthesis.tts import Qwen3TTS
    from .voices.directions.direction import Direction
    from .voices.library.library import Library
    from .voices.space import VoiceSpace
    from .voices.voice import Voice

_HOMES = {
    "Codec": ".checkpoint.codec",
    "Direction": ".voices.directions.direction",
    "Library": ".voices.library.library",
    "Qwen3TTS": ".synthesis.tts",
    "QwenTTSError": ".errors",
    "Request": ".synthesis.request",
    "Sampling": ".synthesis.request",
    "Seal": ".provenance.seal",
    "SpeakerEncoder": ".checkpoint.speaker",
    "Speech": ".synthesis.speech",
    "Voice": ".voices.voice",
    "VoiceSpace": ".voices.space",
    "design_voice": ".synthesis.design",
}


if not TYPE_CHECKING:  # a checker knows the names from above, and finds misspelt ones

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
