"""A library: a folder of voice files, with an index that is rebuilt where files have changed.

The files are the truth; anybody may put a voice into the folder or take one out. What has been read of them is kept in
`.index.safetensors`, so that opening a large library reads only what is new. Directions lie in `directions/`, a voice
space in `space.safetensors`. Whatever writes here does so under a lock, so several processes may at once.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...errors import (
    DirectionNotFound,
    InvalidValue,
    NameTaken,
    OutputError,
    UnsupportedValue,
    VoiceNotFound,
    WrongType,
    shortened,
)
from .. import FOLDER
from ..algebra import VoiceLike, as_vectors
from ..directions.direction import Direction
from ..metadata import STRINGS, plain
from ..space import FEWEST, VoiceSpace, warn_raw
from ..voice import SUFFIXES, Voice, differ
from .archive import DIRECTIONS, export_zip, import_zip
from .index import Index
from .names import SPACE, check_name, composed
from .rights import check_consent, laxer
from .search import Embed, Query, Searcher, has, search

LOCK = ".lock"


class Library:
    """Voices in a folder, by name: the file's name without its extension."""

    def __init__(self, folder: Path | str = FOLDER) -> None:
        if not isinstance(folder, str | Path):
            raise WrongType(f"library must be a folder, not of type {type(folder).__name__}", param="library")
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidValue(f"library {self.folder} is not a folder", param="folder")
        self._index = Index(self.folder)
        self._space_seen: int | None = None
        self._searcher = Searcher(self._index, self.space)

    # Reading

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        self.refresh()
        return sorted(self._index.entries)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        self.refresh()
        return composed(name) in self._index.entries

    def __repr__(self) -> str:
        return f"Library({str(self.folder)!r}, {len(self)} voices)"

    def __getitem__(self, name: str) -> Voice:
        """The Voice of a name; VoiceNotFound, a KeyError, where there is none."""
        return Voice.load(self.path(name)).replace(name=name)

    def path(self, name: str) -> Path:
        """The file of a voice; VoiceNotFound where there is none."""
        if name not in self:
            raise VoiceNotFound(f"voice {name!r} is not in library {self.folder}{self._listed()}", param="name")
        return self.folder / self._index.entries[composed(name)]["stamp"][0]

    def info(self, name: str) -> dict[str, Any]:
        """What is known of a voice without reading it: dimension, norm, in_context, attributes, recipe, and under
        metadata the other strings of its file. A copy: it may be changed."""
        self.path(name)
        entry = self._index.entries[composed(name)]
        return plain({key: value for key, value in entry.items() if key not in ("stamp", "row")})

    def _listed(self) -> str:
        names = self.names
        return f"; it has {shortened(names)}" if names else ", which is empty"

    def vectors(self, names: Iterable[str] | None = None) -> mx.array:
        """[N, D] of the voices of these names (default: all, in the order of `names`), all of one dimension; evaluated,
        so any thread can use it."""
        names = self.names if names is None else [composed(name) for name in names]
        if not names:
            raise InvalidValue(f"library {self.folder} has no voices")
        self.path(names[0])
        entries = self._index.entries
        for name in names:
            if name not in entries:
                self.path(name)  # which refuses it
            if entries[name]["dimension"] != entries[names[0]]["dimension"]:
                raise differ(repr(name), entries[name]["dimension"], repr(names[0]), entries[names[0]]["dimension"])
        matrix = self._index.matrices[entries[names[0]]["dimension"]]
        vectors = matrix[mx.array([entries[name]["row"] for name in names])]
        mx.eval(vectors)
        return vectors

    def where(self, where: Mapping[str, str | None]) -> list[str]:
        """The names of the voices that have all of {attribute: value}; a value of None asks for the attribute alone."""
        self.refresh()
        return [name for name in self.names if has(self._index.entries[name], where)]

    def refresh(self) -> None:
        """Read what has changed in the folder. Every other method does so first; a folder that has not changed costs
        one look."""
        try:
            space = (self.folder / SPACE).stat().st_mtime_ns
        except FileNotFoundError:
            space = None
        changed, self._space_seen = space != self._space_seen, space
        if self._index.refresh() or changed:
            self._searcher = Searcher(self._index, self.space)

    # Writing

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes that write to this library."""
        try:
            self.folder.mkdir(exist_ok=True)
            lock = (self.folder / LOCK).open("w")
        except OSError as error:
            raise OutputError(f"cannot write library {self.folder}: {error.strerror}") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def add(self, name: str, voice: VoiceLike, *, overwrite: bool = False, **attributes: str | None) -> Path:
        """Keep a Voice or vector [D] under a name. Returns its path.

        attributes: strings by which to find it, gender="female"; language, consent, license and source_model are
        entered as such. NameTaken where the library has the name already, unless `overwrite`.
        """
        name = check_name(name)
        voice = voice if isinstance(voice, Voice) else Voice(as_vectors(voice, "voice"))
        path = self.folder / f"{name}.safetensors"
        voice = described(voice, attributes)
        with self.locked():
            taken = [self.path(name)] if name in self else [file for file in _files(self.folder, name) if file.exists()]
            if taken and not overwrite:
                raise NameTaken(
                    f"library {self.folder} has a voice {name!r} already; --overwrite (in Python overwrite=True) "
                    "replaces it",
                    param="name",
                )
            voice.save(path)
            for file in taken:
                if file != path:
                    file.unlink()
        return path

    def remove(self, name: str) -> None:
        """Delete a voice's file."""
        with self.locked():
            self.path(name).unlink()

    def tag(self, name: str, **attributes: str | None) -> None:
        """Enter attributes of a voice; None takes one away."""
        path = self.path(name)
        if path.suffix != ".safetensors":
            raise UnsupportedValue(
                f"voice {name!r} lies in {path.name}, which holds a vector alone; add it to the library", param="name"
            )
        with self.locked():
            described(Voice.load(path), attributes).save(path)

    def add_direction(self, name: str, direction: Direction, overwrite: bool = False) -> Path:
        """Keep a Direction for `@name`. Returns its path."""
        name = check_name(name)
        with self.locked():
            (self.folder / DIRECTIONS).mkdir(exist_ok=True)
            path = self.folder / DIRECTIONS / f"{name}.safetensors"
            if path.exists() and not overwrite:
                raise NameTaken(
                    f"library {self.folder} has a direction {name!r} already; --overwrite (in Python overwrite=True) "
                    "replaces it",
                    param="name",
                )
            direction.save(path)
        return path

    def direction(self, name: str) -> Direction:
        """The Direction of a name; DirectionNotFound where there is none, InvalidValue for what cannot be a name."""
        known = self.directions
        # A listed name is a file of the folder, whatever it is called; any other could be a path out of it.
        path = self.folder / DIRECTIONS / f"{name if name in known else check_name(name)}.safetensors"
        if not path.is_file():
            listed = f"; it has {shortened(known)}" if known else ""
            raise DirectionNotFound(f"direction {name!r} is not in library {self.folder}{listed}", param="direction")
        return Direction.load(path)

    @property
    def directions(self) -> list[str]:
        """Names of the directions kept here."""
        return sorted(path.stem for path in (self.folder / DIRECTIONS).glob("[!.]*.safetensors"))

    # Searching

    def space(self, dimension: int) -> VoiceSpace | None:
        """The VoiceSpace to compare voices of a dimension in: the one kept here, else one fitted to the voices here,
        else None, with a warning, where they are too few."""
        self.refresh()
        if (self.folder / SPACE).is_file():
            space = VoiceSpace.load(self.folder / SPACE)
            if space.dimension == dimension:
                return space
        matrix = self._index.matrices.get(dimension)
        if matrix is not None and matrix.shape[0] >= FEWEST:
            return VoiceSpace.fit(matrix, source=f"library {self.folder.name}")
        count = 0 if matrix is None else matrix.shape[0]
        warn_raw(
            f"library {self.folder} has {count} voices of dimension {dimension}, too few to fit a space ({FEWEST})"
        )
        return None

    def export(self, path: Path | str, names: Iterable[str] | None = None) -> list[str]:
        """Write voices (default: all), directions and space into one zip. Returns the names of the voices."""
        return export_zip(self, path, names)

    def import_zip(self, path: Path | str, overwrite: bool = False) -> list[str]:
        """Take in what `export` wrote: all of it, or where a name is taken or a file is not a voice, nothing. Returns
        the names of the voices."""
        return import_zip(self, path, overwrite)

    def search(
        self,
        query: Query,
        k: int = 5,
        *,
        where: Mapping[str, str | None] | None = None,
        lowest: bool = False,
        embed: Embed | None = None,
    ) -> list[tuple[str, float]]:
        """The k best voices: a list of (name, score), best first.

        query: a Voice or vector [D]: the nearest by `VoiceSpace.similarity`; a library voice's name (itself left out),
        a file or a blend expression: likewise; a recording's path or (samples, rate): likewise, where `embed` is given,
        a function such as Qwen3TTS.embed; an offset ("@pitch", "anna - ben"): those that score highest on it, in radii.
        lowest: from the other end. where: {attribute: value}, of which a voice must have all; a value of None asks for
        the attribute alone.
        """
        self.refresh()
        return search(self, self._searcher, query, k, where, lowest, embed)


def described(voice: Voice, attributes: Mapping[str, str | None]) -> Voice:
    """A Voice with attributes entered, those that are None taken away; InvalidValue for a consent that is not one of
    the words, or a right that is laxer than what a blend has from its parents."""
    changes: dict[str, Any] = {}
    tags = dict(voice.attributes)
    for key, value in attributes.items():
        if value is not None and not isinstance(value, str):
            raise WrongType(f"attribute {key} must be a string, not {value!r}", param=key)
        if key == "consent" and value is not None:
            check_consent(value)
        before = getattr(voice, key) if key in STRINGS else None
        if key in ("consent", "license") and voice.recipe and before is not None and laxer(key, value, before):
            raise InvalidValue(
                f"{key} {value!r} is laxer than {before!r}, which the voice has from those it is made of; enter "
                "it there and blend again",
                param=key,
            )
        if key in STRINGS:
            changes[key] = value
        elif value is None:
            tags.pop(key, None)
        else:
            tags[key] = value
    return voice.replace(**changes, attributes=tags)


def _files(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}{suffix}" for suffix in SUFFIXES]
