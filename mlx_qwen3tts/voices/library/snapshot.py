"""The voices of a library at one moment: what was known of each, which does not change while files come and go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import mlx.core as mx

from ...errors import InvalidValue, UnsupportedValue, VoiceNotFound, WrongType, shortened
from ..metadata import plain
from ..voice import differ
from .names import composed
from .packs import Pack

# What is known of a voice: file (its name), digest (of its bytes), dimension, norm, in_context, metadata (strings),
# attributes, recipe, and row, its place in the matrix of its dimension.
Entry: TypeAlias = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """entries: {name: Entry} of the voices that have files of their own, sorted by name; matrices: {dimension: [N, D]}
    of these, evaluated, so any thread can use them; packs: {name: Pack}, whose voices are found by name and by search.
    """

    folder: Path
    entries: Mapping[str, Entry] = field(default_factory=dict)
    matrices: Mapping[int, mx.array] = field(default_factory=dict)
    packs: Mapping[str, Pack] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All names but those of packs, sorted."""
        return list(self.entries)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (composed(name) in self.entries or self.pack(name) is not None)

    def pack(self, name: str) -> Pack | None:
        """The Pack that has a voice of this name, NAME/LINE, or None."""
        found = self.packs.get(composed(name.partition("/")[0])) if "/" in name else None
        return found if found is not None and found.row(name) is not None else None

    @property
    def dimensions(self) -> set[int]:
        """Those of all voices."""
        return {*self.matrices, *(pack.dimension for pack in self.packs.values())}

    def first(self) -> tuple[str, int]:
        """(name, dimension) of the first voice, for messages."""
        if self.entries:
            name = min(self.entries)
            return name, self.entries[name]["dimension"]
        pack = next(iter(self.packs.values()))
        return pack.called(0), pack.dimension

    def count(self, dimension: int) -> int:
        """How many voices there are of a dimension, those of packs too."""
        own = self.matrices[dimension].shape[0] if dimension in self.matrices else 0
        return own + sum(pack.count for pack in self.packs.values() if pack.dimension == dimension)

    def sample(self, dimension: int, count: int) -> mx.array:
        """[n, D]: all voices of a dimension that have files of their own, and of packs together at most `count`, evenly
        spaced."""
        packs = [pack for pack in self.packs.values() if pack.dimension == dimension]
        parts = [self.matrices[dimension]] if dimension in self.matrices else []
        total = sum(pack.count for pack in packs)
        parts += [mx.array(pack.sample(-(-count * pack.count // max(total, count)))) for pack in packs]
        return parts[0] if len(parts) == 1 else mx.concatenate(parts)

    def entry(self, name: str) -> Entry:
        """What is known of a voice; VoiceNotFound where there is none of this name."""
        if not isinstance(name, str):
            raise WrongType(f"a voice's name must be a string, not {name!r}", param="name")
        if self.pack(name) is not None:
            way_out = f"`voices add NAME {name}` gives it one"
            raise UnsupportedValue(f"voice {name!r} is in a pack and has no file of its own; {way_out}", param="name")
        if composed(name) not in self.entries:
            known = f"; it has {shortened(self.names)}" if self.entries else ", which is empty"
            raise VoiceNotFound(f"voice {name!r} is not in library {self.folder}{known}", param="name")
        return self.entries[composed(name)]

    def path(self, name: str) -> Path:
        """The file of a voice; VoiceNotFound where there is none of this name."""
        return self.folder / self.entry(name)["file"]

    def info(self, name: str) -> dict[str, Any]:
        """What `Library.info` tells of a voice."""
        return plain({key: value for key, value in self.entry(name).items() if key not in ("file", "digest", "row")})

    def vector(self, name: str) -> mx.array:
        """[D] of one voice."""
        pack = self.pack(name)
        return self.vectors([name])[0] if pack is None else pack.voice(name).embedding

    def vectors(self, names: Iterable[str] | None = None) -> mx.array:
        """[N, D] of the voices of these names (default: all, in the order of `names`), all of one dimension; evaluated,
        so any thread can use it."""
        names = self.names if names is None else check_names(names)
        if not names:
            raise InvalidValue(f"library {self.folder} has no voices")
        entries = [self.entry(name) for name in names]
        for name, entry in zip(names, entries, strict=True):
            if entry["dimension"] != entries[0]["dimension"]:
                raise differ(repr(name), entry["dimension"], repr(names[0]), entries[0]["dimension"])
        vectors = self.matrices[entries[0]["dimension"]][mx.array([entry["row"] for entry in entries])]
        mx.eval(vectors)
        return vectors

    def where(self, where: Mapping[str, str | None]) -> list[str]:
        """The names of the voices that have all of {attribute: value}; a value of None asks for the attribute alone."""
        check_where(where)
        return [name for name, entry in self.entries.items() if has(entry, where)]

    def attributes(self) -> dict[str, set[str]]:
        """{attribute: its values} of all voices, the strings of their files among them."""
        found: dict[str, set[str]] = {}
        for entry in self.entries.values():
            for key, value in {**entry["metadata"], **entry["attributes"]}.items():
                found.setdefault(key, set()).add(value)
        return found


def check_names(names: Iterable[str]) -> list[str]:
    """Several names, composed, as a list; WrongType for anything else, and for one string."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise WrongType(f"names must be a list of strings, not {names!r}", param="names")
    return [composed(name) for name in names]


def check_where(where: Mapping[str, str | None]) -> None:
    """WrongType for what is not a dict of attributes."""
    if not isinstance(where, Mapping):
        raise WrongType(f"where must be a dict of attributes, not {where!r}", param="where")


def has(entry: Entry, where: Mapping[str, str | None]) -> bool:
    """Whether an index's entry has all of {attribute: value}; a value of None asks for the attribute alone."""
    known = {**entry["metadata"], **entry["attributes"]}
    return all(key in known and (value is None or known[key] == value) for key, value in where.items())
