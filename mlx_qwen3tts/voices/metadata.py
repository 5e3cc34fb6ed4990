"""What a voice's file says about it in strings, taken apart into typed values and put together again.

A file has one string for each of STRINGS; `attributes` and `recipe` are JSON objects in it; whatever else there is
stays as it is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import InvalidValue, VoiceError, WrongType
from ..files.json_text import json_text

STRINGS = ("source_model", "language", "consent", "license")
RECORDING = "recording"  # among the other strings: the name of the file that a voice was made from
FORMAT = ("format_version", "dimension", "ref_text")  # strings of a file that `Voice.save` writes by itself

DEEPEST = 150  # levels of a recipe: each blend of a blend adds three. Python itself allows some five hundred.


class ReadOnly(dict[str, Any]):
    """A dict that cannot be changed. json, copy and pickle take it as they take any dict, unlike a MappingProxyType."""

    def _refuse(self: Any, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a voice does not change; voice.replace(…) makes another one, dict(…) a copy to change")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[object, ...]:  # a dict's own fills an empty one
        return ReadOnly, (dict(self),)


def recording_of(path: str | Path) -> str:
    """What RECORDING says of a file: its name, with a question mark for what is not UTF-8 in it."""
    return Path(path).name.encode(errors="replace").decode()


def taken_apart(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a Voice, by name, that a file's strings hold; the strings without a field are its `other`."""
    if not isinstance(metadata, Mapping):
        raise WrongType(f"the metadata of a voice must be strings by name, not {metadata!r}", param="metadata")
    fields: dict[str, Any] = {key: metadata.get(key) for key in STRINGS}
    for key in ("attributes", "recipe"):
        fields[key] = _read_object(metadata[key], key) if key in metadata else None
    fields["other"] = {key: value for key, value in metadata.items() if key not in fields}
    return fields


def put_together(fields: Mapping[str, Any]) -> Mapping[str, str]:
    """All strings of a voice's checked fields, as a file has them, sorted by name; immutable."""
    strings = {key: fields[key] for key in STRINGS if fields[key] is not None}
    for key in ("attributes", "recipe"):
        if fields[key]:
            strings[key] = json_text(fields[key], ensure_ascii=False)
    return ReadOnly(sorted({**strings, **fields["other"]}.items()))


def _read_object(text: object, key: str) -> object:
    if not isinstance(text, str):
        raise WrongType("the reference text and the metadata of a voice must be strings", param="metadata")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise VoiceError(f"a voice's {key} must be a JSON object, not {text[:40]!r}", param="metadata")
    return value


def check_strings(values: Mapping[str, object]) -> None:
    """Refuse what is neither a string nor None."""
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise WrongType("the reference text and the metadata of a voice must be strings", param=name)


def check_attributes(attributes: Mapping[str, str] | None) -> Mapping[str, str]:
    """An immutable copy of {name: value}, both strings; {} for None."""
    for key, value in _items(attributes, "attributes"):
        if not isinstance(key, str) or not isinstance(value, str):
            raise WrongType(f"attribute {key} must be a string, not {value!r}", param="attributes")
    return frozen(attributes or {})


def check_other(other: Mapping[str, str] | None) -> Mapping[str, str]:
    """An immutable copy of the strings that have no field; none of them may take a field's place in the file."""
    for key, value in _items(other, "other"):
        if not isinstance(key, str) or not isinstance(value, str):
            raise WrongType("the reference text and the metadata of a voice must be strings", param="metadata")
        if key in (*STRINGS, "attributes", "recipe", *FORMAT):
            raise InvalidValue(
                f"{key!r} cannot be among a voice's other metadata: it has a place of its own", param="other"
            )
    return frozen(other or {})


def check_recipe(recipe: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """An immutable copy of how a voice was made; {} for None."""
    kept: Mapping[str, Any] = frozen(dict(_items(recipe, "recipe")))
    parents = kept.get("parents", ())
    whole = isinstance(parents, tuple) and all(isinstance(parent, Mapping) for parent in parents)
    if not whole or not isinstance(kept.get("expression", ""), str):
        raise VoiceError(
            "the recipe of a voice must have a string as expression and objects as parents", param="recipe"
        )
    try:
        json_text(kept)
    except (InvalidValue, TypeError) as error:  # the latter for what is not JSON at all
        raise VoiceError(f"the recipe of a voice must be JSON: {error}", param="recipe") from None
    return kept


def _items(values: Mapping[str, Any] | None, name: str) -> list[tuple[str, Any]]:
    if values is not None and not isinstance(values, Mapping):
        raise WrongType(f"the {name} of a voice must be a mapping, not {values!r}", param=name)
    return list((values or {}).items())


def frozen(value: Any, depth: int = 0) -> Any:
    """An immutable copy of JSON-like values: dicts as ReadOnly, lists as tuples, at every depth up to DEEPEST."""
    if depth > DEEPEST:
        raise VoiceError(f"the recipe of a voice is nested more than {DEEPEST} deep", param="recipe")
    if isinstance(value, Mapping):
        return ReadOnly((key, frozen(part, depth + 1)) for key, part in value.items())
    return tuple(frozen(part, depth + 1) for part in value) if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """A copy of JSON-like values, `frozen` or not, as dicts and lists that can be changed."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return list(map(plain, value)) if isinstance(value, list | tuple) else value
