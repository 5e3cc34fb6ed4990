"""Qwen3-TTS in pure MLX: speech from text in a voice that is a vector.

Importing this is cheap; MLX is loaded when a name is first used.
"""

__version__ = "0.1.0"
__all__ = ["Codec", "Direction", "Library", "Qwen3TTS", "Voice", "VoiceSpace"]

_HOMES = {
    "Codec": ".checkpoint.codec",
    "Direction": ".voices.directions.direction",
    "Library": ".voices.library.library",
    "Qwen3TTS": ".synthesis.tts",
    "Voice": ".voices.voice",
    "VoiceSpace": ".voices.space",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__():
    return sorted([*globals(), *__all__])
