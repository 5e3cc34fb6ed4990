"""Names of voices: what a file in a library can be called."""

import unicodedata
from pathlib import Path
from typing import TypeVar

from ...errors import InvalidValue, WrongType

SPACE = "space.safetensors"  # the file of the library's voice space, whose name no voice can have

Key = TypeVar("Key")


def composed(name: Key) -> Key:
    """A name as the index has it: composed characters (NFC), as macOS may hand on decomposed ones. Anything else than a
    string stays what it is."""
    return unicodedata.normalize("NFC", name) if isinstance(name, str) else name


def check_name(name: str) -> str:
    """A name that a file can have, composed, or an error."""
    if not isinstance(name, str):
        raise WrongType(f"a voice's name must be a string, not {name!r}", param="name")
    name = composed(name)
    if name == Path(SPACE).stem:
        raise InvalidValue(f"voice name {name!r} is taken by the library's voice space", param="name")
    if not name or not name.isprintable() or name != name.strip() or name.startswith(".") or set(name) & set('/\\"@'):
        raise InvalidValue(
            f'voice name {name!r}: it may not be empty, start with . or have / \\ " @ or spaces around it', param="name"
        )
    if len(name.encode()) > 200:
        raise InvalidValue(f"voice name {name[:20]!r}… is longer than 200 bytes", param="name")
    return name
