"""What a server was started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidValue
from ..voices import FOLDER

if TYPE_CHECKING:
    from ..provenance.seal import Seal


@dataclass(frozen=True)
class Settings:
    """library: the folder of voices; voice: who speaks where a request names nobody; api_key: what clients must send;
    hosts, origins: further names of this server, and pages that may use it; strict: refuse what is not understood
    instead of naming it in x-ignored; guard: where a request does not say; voices_as_strings: list voices by name
    alone; seal: what is put on all that is spoken; media_root: a folder whose files requests may name; url_hosts: hosts
    whose sound may be fetched; speech: the folder in which MCP's tool `speak` keeps what it made.
    """

    library: Path = Path(FOLDER)
    voice: str | None = None
    api_key: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_batch: int = 8
    max_queue: int = 16
    max_characters: int = 100_000
    default_format: str = "mp3"
    strict: bool = False
    guard: bool = False
    voices_as_strings: bool = False
    seal: Seal | None = None
    media_root: Path | None = None
    speech: Path = Path("~/mlx_qwen3tts/speech")
    url_hosts: tuple[str, ...] = ()


def check_speech(folder: Path, param: str) -> None:
    """InvalidValue for what cannot be Settings.speech. param: the option that names it."""
    option = f"--{param.replace('_', '-')} {folder}"
    try:
        place = folder.expanduser().absolute()
    except RuntimeError:
        raise InvalidValue(f"{option}: there is no such user", param=param) from None
    try:
        str(place).encode()
    except UnicodeEncodeError:
        message = f"{str(place)!r} is not UTF-8, as the answers are that name it; choose another folder"
        raise InvalidValue(message, param=param) from None
    if place.exists() and not place.is_dir():
        raise InvalidValue(f"{option} is not a folder", param=param)
