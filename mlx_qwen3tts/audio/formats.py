"""The formats of files and of streams. Imports little: help texts name them, and `say` checks one before it asks."""

from pathlib import Path

from ..errors import AudioError

# extension: soundfile's name
FORMATS = {".wav": "WAV", ".flac": "FLAC", ".mp3": "MP3", ".ogg": "OGG"}
# of a recording, what a converter reads included
RECORDINGS = (*FORMATS, ".m4a", ".mp4", ".aac", ".webm", ".wma", ".aif", ".aiff", ".caf", ".opus")

# format: content type. opus is Ogg Opus, pcm is signed 16-bit little-endian, aac is ADTS.
CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def output_format(path: str | Path) -> str:
    """soundfile's name for a path's extension."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise AudioError(f"output {path}: extension {suffix!r} is not one of {' '.join(FORMATS)}")
    return FORMATS[suffix]


def named_format(form: str) -> str:
    """soundfile's name for a format as users write it: "wav"."""
    if f".{form}" not in FORMATS:
        known = ", ".join(suffix[1:] for suffix in FORMATS)
        raise AudioError(f"format {form!r} is not one of {known}", param="format")
    return FORMATS[f".{form}"]
