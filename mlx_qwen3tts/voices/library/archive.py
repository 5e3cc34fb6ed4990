"""A library as one zip: its voice files, `directions/` and `space.safetensors`."""

from __future__ import annotations

import contextlib
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from ... import checks
from ...errors import InvalidValue, NameTaken, QwenTTSError, VoiceNotFound, shortened
from ...files.output import check_writable, whole_file
from ...files.together import Together, together
from ..directions.direction import Direction
from ..space import VoiceSpace
from ..voice import SUFFIXES, Voice
from .names import LARGEST, SPACE, check_name, composed, shown, unportable
from .snapshot import Snapshot, check_names

if TYPE_CHECKING:
    from .library import Library

DIRECTIONS = "directions"
SMALL = 1 << 20  # bytes that any archive may unpack to
RATIO = 100  # bytes of one that is packed; vectors hardly get smaller, JSON by a factor of two or three


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to, as its list of contents says, which is all that is ever unpacked.

    files: how many; one, total: bytes of one file and of all; methods: how they may be packed, as zipfile numbers it,
    None for every way that it knows.
    """

    files: int = 100_000
    one: int = LARGEST
    total: int = 1 << 30
    methods: tuple[int, ...] | None = None


def export_zip(library: Library, path: Path | str, names: Iterable[str] | None = None) -> list[str]:
    """What Library.export does."""
    path = checks.path(path, "path")
    if path.suffix != ".zip":
        raise InvalidValue(f"output {path}: the extension must be .zip")
    snapshot = library.snapshot()
    chosen = snapshot.names if names is None else list(dict.fromkeys(check_names(names)))
    if not chosen:
        raise InvalidValue(f"library {library.folder} has no voices")
    for name in chosen:
        snapshot.entry(name)  # or its error, before anything is written
    others = sorted((library.folder / DIRECTIONS).glob("[!.]*.safetensors"))
    others = [file for file in [*others, library.folder / SPACE] if shown(file.name) == file.name]
    check_writable(path)
    written = []
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in chosen:
            found = _voice_file(library, snapshot, name)
            if found is not None:
                _pack(archive, *found)
                written.append(name)
            elif names is not None:
                raise VoiceNotFound(f"voice {name!r} is no longer in library {library.folder}", param="names")
        for file in others:
            with contextlib.suppress(FileNotFoundError):  # there is none, or it was removed just now
                _pack(archive, file.relative_to(library.folder).as_posix(), file.read_bytes())
    return written


def _voice_file(library: Library, snapshot: Snapshot, name: str) -> tuple[str, bytes] | None:
    """(file name, bytes) of a voice, or None where it has been removed since the snapshot was taken."""
    for path in (snapshot.path, library.path):  # where it was, and where it is now: its extension may have changed
        with contextlib.suppress(FileNotFoundError, VoiceNotFound):
            file = path(name)
            try:
                return file.name, file.read_bytes()
            except PermissionError as error:
                raise InvalidValue(f"voice {file} cannot be read: {error.strerror}") from None
    return None


def _pack(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # The date is fixed, so that the same library is the same file.
    archive.writestr(zipfile.ZipInfo(name), content)


def import_zip(library: Library, path: Path | str, overwrite: bool = False) -> list[str]:
    """What Library.import_zip does."""
    path = checks.path(path, "path")
    checks.flag(overwrite, "overwrite")
    try:
        if not path.is_file():
            raise InvalidValue(f"archive {path}: {'not a regular file' if path.exists() else 'no such file'}")
        file = path.open("rb")
    except OSError as error:
        raise InvalidValue(f"archive {path} cannot be read: {error}") from None
    with file, unpacking(file, f"archive {path}") as packed:
        return packed.into(library, overwrite)


@contextlib.contextmanager
def unpacking(file: IO[bytes], called: str, limits: Limits | None = None) -> Iterator[Packed]:
    """Look through an archive. InvalidValue for what does not belong in a library, or is more than `limits` allow;
    called: what messages call it. Nothing is unpacked yet."""
    try:
        archive, size = zipfile.ZipFile(file), file.seek(0, 2)
    # What zipfile raises for a list of contents that is not one.
    except (zipfile.BadZipFile, NotImplementedError, OSError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{called} cannot be read: {error}") from None
    with archive:
        yield Packed(archive, _members(archive, called, size, limits or Limits()), called)


@dataclass(frozen=True)
class Packed:
    """An archive that was looked through. members: {where it goes in the library: member}; called: what messages call
    it."""

    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    called: str

    @property
    def names(self) -> list[str]:
        """Of its voices."""
        return [PurePosixPath(name).stem for name in self.members if "/" not in name and name != SPACE]

    @property
    def directions(self) -> list[str]:
        """Their names."""
        return [PurePosixPath(name).stem for name in self.members if "/" in name]

    def into(self, library: Library, overwrite: bool = False) -> list[str]:
        """Take all of it into a library, or nothing. Returns the names of the voices. NameTaken where the library has
        one of them, unless `overwrite`."""
        for _ in self.steps(library, overwrite):
            pass
        return self.names

    def steps(self, library: Library, overwrite: bool = False) -> Iterator[None]:
        """What `into` does, file by file, for whoever has other things to do in between. Nothing is in the library
        before the end."""
        self._check_names(library, overwrite)  # before the work, and again once nobody else can add any
        with together(library.folder) as files:
            for name, member in self.members.items():
                self._unpack(member, name, files)
                yield
            with library.locked():
                self._check_names(library, overwrite)
                olds = {
                    str(old.relative_to(library.folder)) for name in self.members for old in _present(library, name)
                }
                files.commit(sorted(olds - self.members.keys()))

    def _check_names(self, library: Library, overwrite: bool) -> None:
        """Refuse names that the library has, unless they may be overwritten, or has in another spelling."""
        there = [file.name for name in self.members for file in _present(library, name)]
        if there and not overwrite:
            raise NameTaken(
                f"library {library.folder} has {shortened(there, 5)} already; "
                "--overwrite (in Python overwrite=True) replaces them, --library names another one"
            )
        known = {".": library.names, DIRECTIONS: library.directions}
        folded = {parent: {composed(name).casefold(): name for name in names} for parent, names in known.items()}
        for place in map(PurePosixPath, self.members):
            other = folded[str(place.parent)].get(place.stem.casefold())
            if other is not None and composed(other) != place.stem and str(place) != SPACE:
                reason = unportable(place.stem, [other])
                raise InvalidValue(f"{self.called}: name {place.stem!r}: {reason}, which library {library.folder} has")

    def _unpack(self, member: zipfile.ZipInfo, name: str, files: Together) -> None:
        """A member written to where it waits for the others, checked to be what its place says."""
        place = PurePosixPath(name)
        kind = Direction if place.parent.name == DIRECTIONS else VoiceSpace if name == SPACE else Voice
        file = files.place(name)
        try:
            content = self.archive.read(member)
        # What zipfile raises for a damaged, encrypted or unknown member, at a place that may be none.
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            struct.error,
            EOFError,
            MemoryError,
            NotImplementedError,
            OSError,
            OverflowError,
            RuntimeError,
            ValueError,
        ) as error:
            raise InvalidValue(f"{self.called}: {place.name}: {error}") from None
        with whole_file(file) as temporary:
            temporary.write_bytes(content)
        try:
            kind.load(file)
        except QwenTTSError as error:
            raise InvalidValue(f"{self.called}: {str(error).replace(str(file), place.name)}") from None


def _members(archive: zipfile.ZipFile, called: str, size: int, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    """{where it goes in the library: member}, or InvalidValue for what does not belong in one."""
    listed = archive.infolist()
    if len(listed) > limits.files:
        raise InvalidValue(f"{called} has {len(listed)} files; a library has at most {limits.files}")
    members: dict[str, zipfile.ZipInfo] = {}
    stems: dict[str, list[str]] = {}
    for member in listed:
        place = PurePosixPath(member.filename)
        if not place.parts:
            raise InvalidValue(f"{called}: {member.filename!r} is not the name of a file")
        # What the systems' own archivers put in beside the files.
        if member.is_dir() or place.name.startswith(".") or place.parts[0] == "__MACOSX":
            continue
        if str(place.parent) not in (".", DIRECTIONS) or place.suffix not in SUFFIXES or "\\" in member.filename:
            raise InvalidValue(f"{called}: {member.filename!r} is not a voice, direction or space of a library")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InvalidValue(f"{called}: {member.filename!r} is a link, not a file")
        beside = stems.setdefault(str(place.parent), [])
        if str(place) != SPACE:
            place = place.with_name(_checked(place.stem, beside, called) + place.suffix)
            beside.append(place.stem)
        elif SPACE in members:
            raise InvalidValue(f"{called} has two files {SPACE!r}")
        if member.file_size > limits.one:
            raise InvalidValue(f"{called}: {member.filename!r} has {member.file_size} bytes, too many for a voice")
        if limits.methods is not None and member.compress_type not in limits.methods:
            raise InvalidValue(f"{called}: {member.filename!r} is packed in a way that is not taken; deflate is")
        members[str(place)] = member
    if not members:
        raise InvalidValue(f"{called} has no voices")
    total = sum(member.file_size for member in members.values())
    if total > min(limits.total, RATIO * size + SMALL):
        raise InvalidValue(f"{called} has {size} bytes and would unpack to {total}, which no library does")
    return members


def _checked(stem: str, beside: list[str], called: str) -> str:
    """A name that every system can hold beside the others, composed."""
    try:
        name = check_name(stem)
    except QwenTTSError as error:
        raise InvalidValue(f"{called}: {error}") from None
    if name in beside:
        raise InvalidValue(f"{called} has two files for {name!r}")
    if reason := unportable(name, beside):
        raise InvalidValue(f"{called}: name {name!r}: {reason}")
    return name


def _present(library: Library, name: str) -> list[Path]:
    """The files that stand where a member would go."""
    place = library.folder / name
    if "/" in name or name == SPACE:
        return [place] if place.exists() else []
    return [other for other in (place.with_suffix(suffix) for suffix in SUFFIXES) if other.exists()]
