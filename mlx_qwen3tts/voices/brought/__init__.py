"""Directions that come with the package, for the published models whose vectors have a certain dimension."""

from __future__ import annotations

from pathlib import Path

from ..library.library import Library

FOLDER = Path(__file__).parent


def everything() -> list[Library]:
    """Libraries of all directions, for whoever does not know the dimension yet."""
    return [Library(folder) for folder in sorted(FOLDER.iterdir()) if folder.name.isdigit()]


def brought(dimension: int) -> Library | None:
    """A Library of directions for vectors of a dimension, or None where there are none."""
    folder = FOLDER / str(dimension)
    return Library(folder) if folder.is_dir() else None
