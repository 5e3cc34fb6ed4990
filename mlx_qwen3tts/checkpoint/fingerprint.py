"""What tells two model folders apart: a digest of each file that a model is read from."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from ..errors import CheckpointError
from .hub import WHOLE

BLOCK = 1 << 20


def fingerprint(folder: Path, patterns: Collection[str] = WHOLE) -> dict[str, str]:
    """{file within a model's folder: its SHA-256} of the files that match `patterns`, sorted by name."""
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return {file.relative_to(folder).as_posix(): _digest(file) for file in sorted(files)}


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def difference(one: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    """The first file by which two fingerprints differ, or None where they are of the same model."""
    return next((name for name in sorted({*one, *other}) if one.get(name) != other.get(name)), None)
