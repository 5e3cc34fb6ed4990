"""Names of voices: what a file in a library can be called."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from ...errors import InvalidValue, WrongType

LARGEST = 64 << 20  # bytes of one file: a voice with a minute of reference codes has 50 kB
SPACE = "space.safetensors"  # the file of the library's voice space
ALIASES = "aliases.json"  # the file of the server's aliases
TAKEN = {Path(SPACE).stem: "the library's voice space", Path(ALIASES).stem: "the server's aliases"}  # names of no voice

# What no attribute can be called: the arguments beside which `Library.add`, `tag` and `import_pack` take attributes.
ARGUMENTS = ("self", "name", "voice", "overwrite", "vectors", "names", "advance")

# What Windows keeps for devices, with any extension, and the characters that it allows in no name.
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"
}
FORBIDDEN = '<>:"|?*'

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
    if owner := TAKEN.get(name.casefold()):  # macOS does not tell capitals apart
        raise InvalidValue(f"voice name {name!r} is taken by {owner}", param="name")
    if not name or not name.isprintable() or name != name.strip() or name.startswith(".") or set(name) & set('/\\"@'):
        raise InvalidValue(
            f'voice name {name!r}: it may not be empty, start with . or have / \\ " @ or spaces around it', param="name"
        )
    if len(name.encode()) > 200:
        raise InvalidValue(f"voice name {name[:20]!r}… is longer than 200 bytes", param="name")
    return name


def check_attribute(key: str) -> str:
    """What an attribute of a voice can be called, or an error."""
    if key in ARGUMENTS:
        raise InvalidValue(f"an attribute cannot be called {key!r}; choose another word", param="attributes")
    return key


def unportable(name: str, others: Iterable[str] = ()) -> str | None:
    """Why a name that this system can hold is one that others cannot, or None. others: the names beside it."""
    if name.partition(".")[0].rstrip().casefold() in DEVICES:
        return "Windows keeps this name for a device"
    if bad := sorted(set(name) & set(FORBIDDEN)):
        return f"Windows allows no {' '.join(bad)} in a name"
    if name.endswith("."):
        return "Windows drops a dot at the end"
    for other in others:
        if other != name and composed(other).casefold() == name.casefold():
            return f"macOS and Windows cannot tell it from {other!r}"
    return None


def shown(name: str) -> str:
    """A file's name as a message can show it: bytes that are not UTF-8 and control characters as escapes."""
    if name.isprintable():
        return name
    return "".join(repr(sign)[1:-1] if unicodedata.category(sign) in ("Cc", "Cs") else sign for sign in name)
