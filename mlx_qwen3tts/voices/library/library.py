"""A library: a folder of voice files, with an index that is rebuilt where files have changed.

The files are the truth; anybody may put a voice into the folder or take one out. What has been read of them is kept in
`.index.safetensors`, so that opening a large library reads only what is new. Directions lie in `directions/`, a voice
space in `space.safetensors`. Whatever writes here does so under a lock, so several processes may at once.
"""

import contextlib
import fcntl
import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from ...errors import InvalidValue, OutputError, WrongType
from .. import FOLDER
from ..algebra import as_vectors
from ..directions.direction import Direction
from ..space import FEWEST, VoiceSpace, warn_raw
from ..voice import SUFFIXES, Voice, differ
from .archive import DIRECTIONS, export_zip, import_zip
from .index import SPACE, Index
from .names import check_name, composed
from .rights import check_consent, laxer
from .search import Searcher, has, search

LOCK = ".lock"
OWN_FIELDS = ("consent", "license", "language", "source_model")  # metadata of their own, next to attributes


class Library:
    """Voices in a folder, by name: the file's name without its extension."""

    def __init__(self, folder=FOLDER):
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidValue(f"library {self.folder} is no folder")
        self._index, self._space_seen = Index(self.folder), None
        self._searcher = Searcher(self._index, self.space)

    # Reading

    @property
    def names(self):
        """All names, sorted."""
        self._refresh()
        return sorted(self._index.entries)

    def __len__(self):
        return len(self.names)

    def __iter__(self):
        return iter(self.names)

    def __contains__(self, name):
        self._refresh()
        return composed(name) in self._index.entries

    def __getitem__(self, name):
        """The Voice of a name; ValueError where there is none."""
        return replace(Voice.load(self.path(name)), name=name)

    def path(self, name):
        """The file of a voice; ValueError where there is none."""
        if name not in self:
            raise InvalidValue(f"voice {name!r} is not in library {self.folder}{self._listed()}")
        return self.folder / self._index.entries[composed(name)]["stamp"][0]

    def info(self, name):
        """What the index knows of a voice: dimension, norm, and its metadata, attributes taken apart."""
        self.path(name)
        return {key: value for key, value in self._index.entries[composed(name)].items() if key not in ("stamp", "row")}

    def _listed(self):
        names = self.names
        return f"; it has {', '.join(names[:10])}{' …' if len(names) > 10 else ''}" if names else ", which is empty"

    def vectors(self, names=None):
        """[N, D] of the voices of these names (default: all, in the order of `names`), all of one dimension."""
        names = self.names if names is None else [composed(name) for name in names]
        if not names:
            raise InvalidValue(f"library {self.folder} has no voices")
        self.path(names[0])
        entries = self._index.entries
        for name in names:
            if name not in entries:
                self.path(name)
            if entries[name]["dimension"] != entries[names[0]]["dimension"]:
                raise differ(repr(name), entries[name]["dimension"], repr(names[0]), entries[names[0]]["dimension"])
        matrix = self._index.matrices[entries[names[0]]["dimension"]]
        return matrix[mx.array([entries[name]["row"] for name in names])]

    def where(self, where):
        """The names of the voices that have all of {attribute: value}; a value of None asks for the attribute alone."""
        self._refresh()
        return [name for name in self.names if has(self._index.entries[name], where)]

    def _refresh(self):
        try:
            space = (self.folder / SPACE).stat().st_mtime_ns
        except FileNotFoundError:
            space = None
        changed, self._space_seen = space != self._space_seen, space
        if self._index.refresh() or changed:
            self._searcher = Searcher(self._index, self.space)

    # Writing

    @contextlib.contextmanager
    def locked(self):
        """Alone among all processes that write to this library."""
        try:
            self.folder.mkdir(exist_ok=True)
            lock = (self.folder / LOCK).open("w")
        except OSError as error:
            raise OutputError(f"cannot write library {self.folder}: {error.strerror}") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def add(self, name, voice, *, overwrite=False, **attributes):
        """Keep a Voice or vector [D] under a name. Returns its path.

        attributes: strings by which to find it, gender="female"; language, consent, license and source_model are
        entered as such. ValueError where the name is taken, unless `overwrite`.
        """
        name = check_name(name)
        voice = voice if isinstance(voice, Voice) else Voice(as_vectors(voice, "voice"))
        path = self.folder / f"{name}.safetensors"
        voice = described(voice, attributes)
        with self.locked():
            taken = [self.path(name)] if name in self else [file for file in _files(self.folder, name) if file.exists()]
            if taken and not overwrite:
                raise InvalidValue(f"library {self.folder} has a voice {name!r} already; remove it or overwrite it")
            voice.save(path)
            for file in taken:
                if file != path:
                    file.unlink()
        return path

    def remove(self, name):
        """Delete a voice's file."""
        with self.locked():
            self.path(name).unlink()

    def tag(self, name, **attributes):
        """Enter attributes of a voice; None takes one away."""
        path = self.path(name)
        if path.suffix != ".safetensors":
            raise InvalidValue(f"voice {name!r} lies in {path.name}, which holds a vector alone; add it to the library")
        with self.locked():
            described(Voice.load(path), attributes).save(path)

    def add_direction(self, name, direction, overwrite=False):
        """Keep a Direction for `@name`. Returns its path."""
        name = check_name(name)
        with self.locked():
            (self.folder / DIRECTIONS).mkdir(exist_ok=True)
            path = self.folder / DIRECTIONS / f"{name}.safetensors"
            if path.exists() and not overwrite:
                raise InvalidValue(
                    f"library {self.folder} has a direction {name!r} already; overwrite it or choose a name"
                )
            direction.save(path)
        return path

    def direction(self, name):
        """The Direction of a name, or None."""
        path = self.folder / DIRECTIONS / f"{name}.safetensors"
        return Direction.load(path) if path.is_file() else None

    @property
    def directions(self):
        """Names of the directions kept here."""
        return sorted(path.stem for path in (self.folder / DIRECTIONS).glob("[!.]*.safetensors"))

    # Searching

    def space(self, dimension):
        """The VoiceSpace to compare voices of a dimension in: the one kept here, else one fitted to the voices here,
        else None, with a warning, where they are too few."""
        self._refresh()
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

    def export(self, path, names=None):
        """Write voices (default: all), directions and space into one zip. Returns the names of the voices."""
        return export_zip(self, path, names)

    def import_zip(self, path, overwrite=False):
        """Take in what `export` wrote, all of it or, where a name is taken or a file is no voice, nothing. Returns the
        names of the voices."""
        return import_zip(self, path, overwrite)

    def search(self, query, k=5, *, where=None, lowest=False, embed=None):
        """The k best voices: a list of (name, score), best first.

        query: a Voice or vector [D]: the nearest by `VoiceSpace.similarity`; a library voice's name (itself left out),
        a file or a blend expression: likewise; a recording's path or (samples, rate): likewise, where `embed` is given,
        a function such as Qwen3TTS.embed; an offset ("@pitch", "anna - ben"): those that score highest on it, in radii.
        lowest: from the other end. where: {attribute: value}, of which a voice must have all; a value of None asks for
        the attribute alone.
        """
        self._refresh()
        return search(self, self._searcher, query, k, where, lowest, embed)


def described(voice, attributes):
    """A Voice with attributes entered, None taken away; ValueError for a consent that is none of the words."""
    metadata, tags, made = dict(voice.metadata), dict(voice.attributes), bool(voice.recipe)
    for key, value in attributes.items():
        if value is not None and not isinstance(value, str):
            raise WrongType(f"attribute {key} must be a string, not {value!r}")
        if key == "consent" and value is not None:
            check_consent(value)
        if key in ("consent", "license") and made and key in metadata and laxer(key, value, metadata[key]):
            raise InvalidValue(
                f"{key} {value!r} is laxer than {metadata[key]!r}, which the voice has from those it is made of; enter "
                "it there and blend again"
            )
        place = metadata if key in OWN_FIELDS else tags
        if value is None:
            place.pop(key, None)
        else:
            place[key] = value
    metadata.pop("attributes", None)
    if tags:
        metadata["attributes"] = json.dumps(tags, ensure_ascii=False)
    return replace(voice, metadata=metadata)


def _files(folder, name):
    return [folder / f"{name}{suffix}" for suffix in SUFFIXES]
