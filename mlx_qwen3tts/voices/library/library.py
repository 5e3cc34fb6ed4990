"""A library: a folder of voice files, with an index that is rebuilt where files have changed.

The files are the truth; anybody may put a voice into the folder or take one out. What has been read of them is kept in
`.index.safetensors`, so that opening a large library takes apart only what is new. Directions lie in `directions/`, a
voice space in `space.safetensors`. Whatever writes here does so under a lock, so several processes may at once.
Whatever reads sees the voices of one moment, and leaves nothing in a folder that was not written to from here.
"""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from ... import checks
from ...errors import (
    DirectionNotFound,
    InvalidValue,
    NameTaken,
    UnsupportedValue,
    VoiceNotFound,
    WrongType,
    shortened,
)
from .. import FOLDER
from ..algebra import VoiceLike, as_vectors
from ..directions.direction import Direction
from ..metadata import STRINGS
from ..space import FEWEST, VoiceSpace, mean_cosine, warn_raw
from ..voice import SUFFIXES, Voice
from .archive import DIRECTIONS, export_zip, import_zip
from .index import Index
from .lock import locked
from .names import SPACE, check_name, composed, shown, unportable
from .rights import check_consent, laxer
from .search import Embed, Query, Searcher, search
from .snapshot import Snapshot


class Library:
    """Voices in a folder, by name: the file's name without its extension."""

    def __init__(self, folder: Path | str = FOLDER) -> None:
        self.folder = checks.path(folder, "folder")
        try:
            if self.folder.exists() and not self.folder.is_dir():
                raise InvalidValue(f"library {self.folder} is not a folder", param="folder")
        except OSError as error:  # in a folder that may not be searched, or of a name that is too long
            raise InvalidValue(f"library {self.folder} cannot be read: {error.strerror}", param="folder") from None
        self._index = Index(self.folder)
        self._space_seen: tuple[int, ...] | None = None
        self._searcher = self._searching()

    # Reading

    def snapshot(self) -> Snapshot:
        """The voices as they are now. It has `names`, `path`, `info`, `vectors` and `where` too, and stays what it is
        while files come and go."""
        self.refresh()
        return self._index.snapshot

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return self.snapshot().names

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.snapshot()

    def __repr__(self) -> str:
        return f"Library({str(self.folder)!r}, {len(self)} voices)"

    def __getitem__(self, name: str) -> Voice:
        """The Voice of a name; VoiceNotFound, a KeyError, where there is none."""
        try:
            return Voice.load(self.path(name)).replace(name=name)
        except VoiceNotFound:  # no such name, or its file went just now; another one may have taken its place
            return Voice.load(self.path(name)).replace(name=name)

    def path(self, name: str) -> Path:
        """The file of a voice; VoiceNotFound where there is none."""
        return self.snapshot().path(name)

    def info(self, name: str) -> dict[str, Any]:
        """What is known of a voice without reading it: dimension, norm, in_context, attributes, recipe, and under
        metadata the other strings of its file. A copy: it may be changed."""
        return self.snapshot().info(name)

    def vectors(self, names: Iterable[str] | None = None) -> mx.array:
        """[N, D] of the voices of these names (default: all, in the order of `names`), all of one dimension; evaluated,
        so any thread can use it."""
        return self.snapshot().vectors(names)

    def where(self, where: Mapping[str, str | None]) -> list[str]:
        """The names of the voices that have all of {attribute: value}; a value of None asks for the attribute alone."""
        return self.snapshot().where(where)

    def refresh(self) -> None:
        """Read what has changed in the folder. Every other method does so first; a folder that has not changed costs
        one look."""
        try:
            state = os.stat(self.folder / SPACE)
            space = state.st_mtime_ns, state.st_size, state.st_ino, state.st_ctime_ns
        except OSError:  # there is none, or no way to it, which the index will say
            space = None
        changed, self._space_seen = space != self._space_seen, space
        if self._index.refresh() or changed:
            self._searcher = self._searching()

    def _searching(self) -> Searcher:
        snapshot = self._index.snapshot
        return Searcher(snapshot, partial(self._space_among, snapshot))

    # Writing

    def locked(self) -> AbstractContextManager[None]:
        """Alone among all processes that write to this library. Waiting for another one is said after a second;
        OutputError after half a minute."""
        return locked(self.folder)

    def add(self, name: str, voice: VoiceLike, *, overwrite: bool = False, **attributes: str | None) -> Path:
        """Keep a Voice or vector [D] under a name. Returns its path.

        attributes: strings by which to find it, gender="female"; language, consent, license and source_model are
        entered as such. NameTaken where the library has the name already, unless `overwrite`. A name that other systems
        cannot hold is warned of.
        """
        name = check_name(name)
        checks.flag(overwrite, "overwrite")
        voice = voice if isinstance(voice, Voice) else Voice(as_vectors(voice, "voice"))
        path = self.folder / f"{name}.safetensors"
        voice = described(voice, attributes)
        with self.locked():
            taken = self._there(name)
            if taken and not overwrite:
                raise NameTaken(
                    f"library {self.folder} has a voice {name!r} already; --overwrite (in Python overwrite=True) "
                    "replaces it",
                    param="name",
                )
            if reason := unportable(name, self.names):
                warnings.warn(f"voice name {name!r}: {reason}; such a library cannot be imported", stacklevel=2)
            voice.save(path)
            for file in taken:
                if file != path:
                    file.unlink()
        return path

    def rename(self, name: str, new: str, *, overwrite: bool = False) -> Path:
        """Give a voice another name. Returns its path. NameTaken where the library has the name already, unless
        `overwrite`."""
        new = check_name(new)
        checks.flag(overwrite, "overwrite")
        with self.locked():
            snapshot = self.snapshot()
            source = snapshot.path(name)
            if composed(name) == new:
                raise InvalidValue(f"voice {name!r} has this name already", param="new")
            others = [other for other in snapshot.names if other != composed(name)]
            target = self.folder / f"{new}{source.suffix}"
            taken = [file for file in self._there(new) if not file.samefile(source)]
            if taken and not overwrite:
                raise NameTaken(
                    f"library {self.folder} has a voice {new!r} already; --overwrite (in Python overwrite=True) "
                    "replaces it",
                    param="new",
                )
            if reason := unportable(new, others):
                warnings.warn(f"voice name {new!r}: {reason}; such a library cannot be imported", stacklevel=2)
            os.replace(source, target)
            for file in taken:
                if file != target:
                    file.unlink()
        return target

    def remove(self, name: str) -> None:
        """Delete a voice's file."""
        with self.locked():
            self.path(name)  # which refuses a name that is not there
            for file in self._there(composed(name)):
                file.unlink()

    def _there(self, name: str) -> list[Path]:
        """The files of a name: one, or two where a run was killed that put one kind of file in the place of another."""
        known = [self.path(name)] if name in self else []
        return [*known, *(file for file in _files(self.folder, name) if file.exists() and file not in known)]

    def tag(self, name: str, **attributes: str | None) -> None:
        """Enter attributes of a voice; None takes one away."""
        path = self.path(name)
        if path.suffix != ".safetensors":
            raise UnsupportedValue(
                f"voice {name!r} is stored in {path.name}, which cannot hold attributes; store it as .safetensors: "
                f"voices add {shlex.quote(name)} {shlex.quote(str(path))} --library {shlex.quote(str(self.folder))} "
                "--overwrite",
                param="name",
            )
        with self.locked():
            described(self[name], attributes).save(path)

    def add_direction(self, name: str, direction: Direction, overwrite: bool = False) -> Path:
        """Keep a Direction for `@name`. Returns its path."""
        name = check_name(name)
        if not isinstance(direction, Direction):
            raise WrongType(f"direction must be a Direction, not {direction!r}", param="direction")
        with self.locked():
            if reason := unportable(name, self.directions):
                warnings.warn(f"direction name {name!r}: {reason}; such a library cannot be imported", stacklevel=2)
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
        return Direction.load(self._direction_path(name))

    def remove_direction(self, name: str) -> None:
        """Delete a direction's file; DirectionNotFound where there is none."""
        with self.locked():
            self._direction_path(name).unlink()

    def _direction_path(self, name: str) -> Path:
        if not isinstance(name, str):
            raise WrongType(f"a direction's name must be a string, not {name!r}", param="direction")
        known = self.directions
        # A listed name is a file of the folder, whatever it is called; any other could be a path out of it.
        found = next((one for one in known if composed(one) == composed(name)), None)
        if found is None:
            check_name(name)
            listed = f"; it has {shortened(known)}" if known else ""
            raise DirectionNotFound(f"direction {name!r} is not in library {self.folder}{listed}", param="direction")
        return self.folder / DIRECTIONS / f"{found}.safetensors"

    @property
    def directions(self) -> list[str]:
        """Names of the directions kept here."""
        files = (self.folder / DIRECTIONS).glob("[!.]*.safetensors")
        return sorted(file.stem for file in files if shown(file.name) == file.name)  # else it cannot be named

    # Searching

    def space(self, dimension: int) -> VoiceSpace | None:
        """The VoiceSpace to compare voices of a dimension in: the one kept here, else one fitted to the voices here,
        else None, with a warning, where they are too few."""
        return self._space_among(self.snapshot(), dimension)

    def _space_among(self, snapshot: Snapshot, dimension: int) -> VoiceSpace | None:
        if (self.folder / SPACE).is_file():
            try:
                space = VoiceSpace.load(self.folder / SPACE)
                if space.dimension == dimension:
                    return space
            except InvalidValue as error:
                if (self.folder / SPACE).exists():  # else it was removed just now
                    warnings.warn(f"library {self.folder}: skipped {error}", stacklevel=3)
        matrix = snapshot.matrices.get(dimension)
        if matrix is not None and matrix.shape[0] >= FEWEST:
            try:
                return VoiceSpace.fit(matrix, source=f"library {self.folder.name}")
            except InvalidValue as error:  # they are all the same
                warn_raw(f"library {self.folder}: {error}", mean_cosine(matrix))
                return None
        count = 0 if matrix is None else matrix.shape[0]
        warn_raw(
            f"library {self.folder} has {count} voices of dimension {dimension}, too few to fit a space ({FEWEST})",
            None if matrix is None else mean_cosine(matrix),
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
        if (
            key in ("consent", "license")
            and voice.recipe.get("parents")
            and before is not None
            and laxer(key, value, before)
        ):
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
