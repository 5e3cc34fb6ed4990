"""Names of voices: what a file in a library can be called."""

import unicodedata
from pathlib import Path

from ...errors import InvalidValue, WrongType
from .index import SPACE


def composed(name):
    """A name as the index has it: composed characters (NFC), as macOS may hand on decomposed ones."""
    return unicodedata.normalize("NFC", name) if isinstance(name, str) else name


def check_name(name):
    """A name that a file can have, composed, or an error."""
    if not isinstance(name, str):
        raise WrongType(f"a voice's name must be a string, not {name!r}")
    name = composed(name)
    if name == Path(SPACE).stem:
        raise InvalidValue(f"voice name {name!r} is taken by the library's voice space")
    if not name or not name.isprintable() or name != name.strip() or name.startswith(".") or set(name) & set('/\\"@'):
        raise InvalidValue(
            f'voice name {name!r}: it may not be empty, start with . or have / \\ " @ or spaces around it'
        )
    if len(name.encode()) > 200:
        raise InvalidValue(f"voice name {name[:20]!r}… is longer than 200 bytes")
    return name
