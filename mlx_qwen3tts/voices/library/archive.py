"""A library as one zip: its voice files, `directions/` and `space.safetensors`."""

from __future__ import annotations

import contextlib
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

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
# What an archive may unpack to, as its list of contents says, which is all that is ever unpacked.
MOST_FILES = 100_000
LARGEST_ALL = 1 << 30  # bytes
SMALL = 1 << 20  # bytes that any archive may unpack to
RATIO = 100  # bytes of one that is packed; vectors hardly get smaller, JSON by a factor of two or three


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
        archive, size = zipfile.ZipFile(path), path.stat().st_size
    # What zipfile raises for a list of contents that is not one.
    except (zipfile.BadZipFile, NotImplementedError, OSError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        raise InvalidValue(f"archive {path} cannot be read: {error}") from None
    with archive:
        members = _members(archive, path, size)
        _check_names(library, members, overwrite, path)  # before the work, and again once nobody else can add any
        with together(library.folder) as files:
            for name, member in members.items():
                _unpack(archive, member, name, files, path)
            with library.locked():
                _check_names(library, members, overwrite, path)
                olds = {str(old.relative_to(library.folder)) for name in members for old in _present(library, name)}
                files.commit(sorted(olds - members.keys()))
    return [PurePosixPath(name).stem for name in members if "/" not in name and name != SPACE]


def _members(archive: zipfile.ZipFile, path: Path, size: int) -> dict[str, zipfile.ZipInfo]:
    """{where it goes in the library: member}, or InvalidValue for what does not belong in one."""
    listed = archive.infolist()
    if len(listed) > MOST_FILES:
        raise InvalidValue(f"archive {path} has {len(listed)} files; a library has at most {MOST_FILES}")
    members: dict[str, zipfile.ZipInfo] = {}
    stems: dict[str, list[str]] = {}
    for member in listed:
        place = PurePosixPath(member.filename)
        if not place.parts:
            raise InvalidValue(f"archive {path}: {member.filename!r} is not the name of a file")
        # What the systems' own archivers put in beside the files.
        if member.is_dir() or place.name.startswith(".") or place.parts[0] == "__MACOSX":
            continue
        if str(place.parent) not in (".", DIRECTIONS) or place.suffix not in SUFFIXES or "\\" in member.filename:
            raise InvalidValue(f"archive {path}: {member.filename!r} is not a voice, direction or space of a library")
        beside = stems.setdefault(str(place.parent), [])
        if str(place) != SPACE:
            place = place.with_name(_checked(place.stem, beside, path) + place.suffix)
            beside.append(place.stem)
        if member.file_size > LARGEST:
            raise InvalidValue(
                f"archive {path}: {member.filename!r} has {member.file_size} bytes, too many for a voice"
            )
        members[str(place)] = member
    if not members:
        raise InvalidValue(f"archive {path} has no voices")
    total = sum(member.file_size for member in members.values())
    if total > min(LARGEST_ALL, RATIO * size + SMALL):
        raise InvalidValue(f"archive {path} has {size} bytes and would unpack to {total}, which no library does")
    return members


def _checked(stem: str, beside: list[str], path: Path) -> str:
    """A name that every system can hold beside the others, composed."""
    try:
        name = check_name(stem)
    except QwenTTSError as error:
        raise InvalidValue(f"archive {path}: {error}") from None
    if name in beside:
        raise InvalidValue(f"archive {path} has two files for {name!r}")
    if reason := unportable(name, beside):
        raise InvalidValue(f"archive {path}: name {name!r}: {reason}")
    return name


def _check_names(library: Library, members: dict[str, zipfile.ZipInfo], overwrite: bool, path: Path) -> None:
    """Refuse names that the library has, unless they may be overwritten, or has in another spelling."""
    there = [file.name for name in members for file in _present(library, name)]
    if there and not overwrite:
        raise NameTaken(
            f"library {library.folder} has {shortened(there, 5)} already; "
            "--overwrite (in Python overwrite=True) replaces them, --library names another one"
        )
    known = {".": library.names, DIRECTIONS: library.directions}
    folded = {parent: {composed(name).casefold(): name for name in names} for parent, names in known.items()}
    for place in map(PurePosixPath, members):
        other = folded[str(place.parent)].get(place.stem.casefold())
        if other is not None and composed(other) != place.stem and str(place) != SPACE:
            reason = unportable(place.stem, [other])
            raise InvalidValue(f"archive {path}: name {place.stem!r}: {reason}, which library {library.folder} has")


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, files: Together, path: Path) -> None:
    """A member written to where it waits for the others, checked to be what its place says."""
    place = PurePosixPath(name)
    kind = Direction if place.parent.name == DIRECTIONS else VoiceSpace if name == SPACE else Voice
    file = files.place(name)
    try:
        content = archive.read(member)
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
        raise InvalidValue(f"archive {path}: {place.name}: {error}") from None
    with whole_file(file) as temporary:
        temporary.write_bytes(content)
    try:
        kind.load(file)
    except QwenTTSError as error:
        raise InvalidValue(f"archive {path}: {str(error).replace(str(file), place.name)}") from None


def _present(library: Library, name: str) -> list[Path]:
    """The files that stand where a member would go."""
    place = library.folder / name
    if "/" in name or name == SPACE:
        return [place] if place.exists() else []
    return [other for other in (place.with_suffix(suffix) for suffix in SUFFIXES) if other.exists()]
