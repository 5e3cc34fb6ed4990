"""The settings that hold where no option says otherwise: the environment's, else those of the configuration file.

The file is `~/.config/mlx_qwen3tts.toml`; `$XDG_CONFIG_HOME` moves the folder, `QWEN3TTS_CONFIG` names another file. It
may be missing, and every setting may be. `QWEN3TTS_MODEL` and so on stand above it.

    model = "Qwen/Qwen3-TTS-12Hz-0.6B-Base"
    library = "~/voices"
    voice = "anna"
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import flag, word
from ..errors import InvalidValue, WrongType

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

FILE = "QWEN3TTS_CONFIG"
FORMATS = ("wav", "mp3", "flac")  # those that both a file and the server's answer can have
LARGEST = 1 << 20  # bytes


@dataclass(frozen=True)
class Setting:
    """What is in force, and whence: "default", an environment variable, or the file."""

    value: Any
    source: str


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise WrongType(f"{name} must be a string, not {value!r}", param=name)
    if not value.strip():
        raise InvalidValue(f"{name} is empty; leave it out instead", param=name)
    return value


def _place(value: object, name: str) -> str:
    return os.path.expanduser(_text(value, name))


def _format(value: object, name: str) -> str:
    return word(value, name, FORMATS)


def _flag(value: object, name: str) -> bool:
    if isinstance(value, str):  # of the environment
        known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        value = known.get(value.lower(), value)
    return flag(value, name)


def _mark(value: object, name: str) -> str | bool | None:
    """The key of a mark, True for the usual one, None for no mark."""
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    chosen = words.get(value.lower(), value) if isinstance(value, str) else value
    if isinstance(chosen, bool):
        return chosen or None
    if not isinstance(chosen, str):
        raise WrongType(f"{name} must be true, false or a key, not {value!r}", param=name)
    if any(char.isspace() for char in _text(chosen, name)):
        raise InvalidValue(f"{name} {chosen!r} has spaces, which a key has not", param=name)
    return chosen


@dataclass(frozen=True)
class Known:
    """check: of a value, from the file or the environment; default: None where it depends on the command; help: what
    it says."""

    check: Callable[[object, str], Any]
    default: Any
    help: str


KNOWN = {
    "model": Known(_place, "mlx_model", "what --model is"),
    "library": Known(_place, "voices", "what --library is"),
    "voice": Known(_text, None, "who speaks where no voice is named, with that model"),
    "format": Known(_format, None, "of sound: wav, mp3 or flac"),
    "mark": Known(_mark, None, "what --mark is: a key, or true for the usual one"),
    "server": Known(_text, "http://127.0.0.1:8880", "where `say` looks for a running server"),
}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"QWEN3TTS_{name.upper()}"


def path() -> Path:
    """The configuration file, which may be missing unless QWEN3TTS_CONFIG names it."""
    if given := os.environ.get(FILE):
        return Path(given).expanduser()
    return folder().with_name("mlx_qwen3tts.toml")


def folder() -> Path:
    """Where else is kept what belongs to the configuration; it may be missing."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "mlx_qwen3tts"


def settings() -> dict[str, Setting]:
    """Every setting that is in force. InvalidValue where the file is broken, and for
    values, WrongType for some."""
    found = {name: Setting(known.default, "default") for name, known in KNOWN.items()}
    where = path()
    for name, value in _read(where).items():
        try:
            found[name] = Setting(KNOWN[name].check(value, name), str(where))
        except (WrongType, InvalidValue) as error:
            raise type(error)(f"{where}: {error}", param=name) from None
    for name, known in KNOWN.items():
        if given := os.environ.get(variable(name)):
            found[name] = Setting(known.check(given, variable(name)), variable(name))
    return found


def _read(file: Path) -> dict[str, Any]:
    """The values of the file, their names checked."""
    try:
        if file.stat().st_size > LARGEST:
            raise InvalidValue(f"{file} has more than {LARGEST} bytes, too many for a configuration")
        values = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        if os.environ.get(FILE):
            raise InvalidValue(f"no file {file}, which {FILE} names") from None
        return {}
    except OSError as error:
        raise InvalidValue(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InvalidValue(f"{file} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidValue(f"{file} is not TOML: {error}") from None
    for name in values:
        if name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, n=1)
            way_out = f"did you mean {near[0]}?" if near else f"settings are {', '.join(KNOWN)}"
            raise InvalidValue(f"{file}: no setting {name!r}; {way_out}", param=name)
    return values
