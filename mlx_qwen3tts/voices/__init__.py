"""Voices as vectors: algebra, directions, spaces, libraries, diarization. Importing this is cheap."""

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
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__():
    return sorted([*globals(), *__all__])
