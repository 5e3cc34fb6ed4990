"""What this package refuses, and how: one error base, a few kinds.

Every refusal of ours is a `QwenTTSError`, which is a ValueError too. The commands turn these, and nothing else but
OSError, into one line `error: …` and exit status 2; any other exception is a bug and stays a traceback.

`code` is a stable word for programs (a server passes it on), `param` the name of the argument that is at fault, where
one is. The text is for people: it names the value and the way out.
"""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib


class QwenTTSError(ValueError):
    """The base of all refusals. `code`: a stable word; `param`: the argument at fault, or None."""

    code: str = "invalid_value"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param

    def __str__(self) -> str:  # KeyError's own would put the message in quotes
        return str(self.args[0])


class InvalidValue(QwenTTSError):
    """A value that is out of range, malformed or at odds with another one."""


class WrongType(QwenTTSError, TypeError):
    """A value of a wrong type; also a TypeError."""

    code = "invalid_type"


class UnsupportedValue(QwenTTSError):
    """Something that this model, format or platform cannot do, though others can."""

    code = "unsupported_value"


class TextTooLong(QwenTTSError):
    """A text, or a prompt with the tokens asked for, that does not fit the model's context."""

    code = "text_too_long"


class VoiceNotFound(QwenTTSError, KeyError):
    """No file, library voice or preset has this name; also a KeyError."""

    code = "voice_not_found"


class DirectionNotFound(QwenTTSError, KeyError):
    """No direction has this name; also a KeyError."""

    code = "direction_not_found"


class NameTaken(QwenTTSError):
    """A library has something under this name already."""

    code = "name_taken"


class VoiceError(QwenTTSError):
    """A file or value that is not a voice, or not one that fits; the message says what is wrong with it."""

    code = "invalid_voice"


class AudioError(QwenTTSError):
    """A recording that cannot be used, or a sound format that is not known."""

    code = "invalid_audio"


class PlayError(QwenTTSError):
    """Sound that cannot be played on this machine."""

    code = "no_playback"


class MissingExtra(QwenTTSError):
    """An optional package that is not installed; the message names the extra that brings it."""

    code = "missing_extra"


class ModelNotFound(QwenTTSError):
    """A model that is neither a folder here nor to be had from the hub."""

    code = "model_not_found"


class CheckpointError(QwenTTSError):
    """A model folder that cannot be loaded; the message names the file or tensor."""

    code = "invalid_model"


class ConfigError(CheckpointError):
    """A config.json that does not describe a model this package knows."""


class AdapterError(QwenTTSError):
    """An adapter that cannot be read, or that belongs to another model."""

    code = "invalid_adapter"


class OutputError(QwenTTSError):
    """A place that cannot be written to."""

    code = "invalid_output"


class ClusterError(QwenTTSError):
    """Other machines that cannot be reached, have gone, or do not fit this one."""

    code = "no_cluster"


@contextlib.contextmanager
def naming(what: str, param: str | None = None) -> collections.abc.Iterator[None]:
    """Errors within the block say what they are about, such as `line 3`; param: of them from then on."""
    try:
        yield
    except QwenTTSError as error:
        error.args, error.param = (f"{what}: {error}",), param or error.param
        raise


def install_hint(extra: str) -> str:
    """The command that brings an extra: of the checkout that this is, else of the package."""
    root = pathlib.Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        return f"pip install 'mlx-qwen3tts[{extra}]'"
    where = f"{'.' if root == pathlib.Path.cwd() else root}[{extra}]"
    return f"pip install -e '{where}'"


def shortened(names: list[str], most: int = 10) -> str:
    """The first `most` of a list of names, and an ellipsis where there are more, for a message."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


def listed(names: list[str], most: int) -> str:
    """The first `most` of a list of names, and how many more there are, for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
