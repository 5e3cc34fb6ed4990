"""A library as one zip: its voice files, `directions/` and `space.safetensors`."""

from __future__ import annotations

import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ...errors import InvalidValue, NameTaken, QwenTTSError, shortened
from ...files.output import check_writable, whole_file
from ..directions.direction import Direction
from ..space import VoiceSpace
from ..voice import SUFFIXES, Voice
from .names import SPACE, check_name

if TYPE_CHECKING:
    from .library import Library

DIRECTIONS = "directions"
LARGEST = 64 << 20  # bytes of one file: a voice with a minute of reference codes has 50 kB


def export_zip(library: Library, path: Path | str, names: Iterable[str] | None = None) -> list[str]:
    """What Library.export does."""
    path = Path(path)
    if path.suffix != ".zip":
        raise InvalidValue(f"output {path}: the extension must be .zip")
    chosen = library.names if names is None else list(dict.fromkeys(names))
    if not chosen:
        raise InvalidValue(f"library {library.folder} has no voices")
    files = [library.path(name) for name in chosen]
    files += sorted((library.folder / DIRECTIONS).glob("[!.]*.safetensors"))
    files += [file for file in [library.folder / SPACE] if file.is_file()]
    check_writable(path)
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            # The date is fixed, so that the same library is the same file.
            archive.writestr(zipfile.ZipInfo(file.relative_to(library.folder).as_posix()), file.read_bytes())
    return chosen


def import_zip(library: Library, path: Path | str, overwrite: bool = False) -> list[str]:
    """What Library.import_zip does."""
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise InvalidValue(f"archive {path}: no such file") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise InvalidValue(f"archive {path} cannot be read: {error}") from None
    with archive, tempfile.TemporaryDirectory() as folder:
        taken = {
            name: _unpack(archive, member, Path(folder) / f"{number}{PurePosixPath(name).suffix}", path)
            for number, (name, member) in enumerate(_members(archive, path).items())
        }
        with library.locked():
            there = [file.name for name in taken for file in _present(library, name)]
            if there and not overwrite:
                raise NameTaken(
                    f"library {library.folder} has {shortened(there, 5)} already; "
                    "--overwrite (in Python overwrite=True) replaces them, --library names another one"
                )
            (library.folder / DIRECTIONS).mkdir(exist_ok=True)
            for name, file in taken.items():
                with whole_file(library.folder / name) as temporary:
                    shutil.copyfile(file, temporary)
                for old in _present(library, name):
                    if old != library.folder / name:
                        old.unlink()
    return [PurePosixPath(name).stem for name in taken if "/" not in name and name != SPACE]


def _members(archive: zipfile.ZipFile, path: Path | str) -> dict[str, zipfile.ZipInfo]:
    """{where it goes in the library: member}, or InvalidValue for what does not belong in one."""
    members: dict[str, zipfile.ZipInfo] = {}
    stems: set[str] = set()
    for member in archive.infolist():
        place = PurePosixPath(member.filename)
        # What the systems' own archivers put in beside the files.
        if member.is_dir() or place.name.startswith(".") or place.parts[0] == "__MACOSX":
            continue
        if str(place.parent) not in (".", DIRECTIONS) or place.suffix not in SUFFIXES or "\\" in member.filename:
            raise InvalidValue(f"archive {path}: {member.filename!r} is not a voice, direction or space of a library")
        if str(place) != SPACE:
            try:
                name = check_name(place.stem)
            except QwenTTSError as error:
                raise InvalidValue(f"archive {path}: {error}") from None
            place = place.with_name(name + place.suffix)
        if str(place.parent / place.stem) in stems:
            raise InvalidValue(f"archive {path} has two files for {place.stem!r}")
        stems.add(str(place.parent / place.stem))
        if member.file_size > LARGEST:
            raise InvalidValue(
                f"archive {path}: {member.filename!r} has {member.file_size} bytes, too many for a voice"
            )
        members[str(place)] = member
    if not members:
        raise InvalidValue(f"archive {path} has no voices")
    return members


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: Path, path: Path | str) -> Path:
    """A member written to a file, checked to be what its place says."""
    place = PurePosixPath(member.filename)
    kind = Direction if place.parent.name == DIRECTIONS else VoiceSpace if str(place) == SPACE else Voice
    try:
        with archive.open(member) as source, file.open("wb") as target:
            shutil.copyfileobj(source, target)
        kind.load(file)
    except (
        QwenTTSError,
        # What zipfile raises for a damaged, encrypted or unknown member; ValueError for a name or place that is none.
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise InvalidValue(f"archive {path}: {str(error).replace(str(file), place.name)}") from None
    return file


def _present(library: Library, name: str) -> list[Path]:
    """The files that stand where a member would go."""
    place = library.folder / name
    if "/" in name or name == SPACE:
        return [place] if place.exists() else []
    return [other for other in (place.with_suffix(suffix) for suffix in SUFFIXES) if other.exists()]
