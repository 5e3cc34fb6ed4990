"""A run that was stopped, on disk: all that the next step depends on, in one file that appears whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import InvalidValue
from ..files.json_text import json_text
from ..files.tensors import read_all, write_tensors
from .fit import Fit

NAME = "unfinished.safetensors"


def identity(values: object) -> str:
    """A word for all that a run was begun with; values: as JSON takes them."""
    return hashlib.sha256(json_text(values).encode()).hexdigest()


def digest(array: mx.array) -> str:
    """A word for the values of an array."""
    return hashlib.sha256(np.array(array).tobytes()).hexdigest()


def save(folder: Path, fit: Fit, begun: str) -> None:
    arrays, values = fit.state
    folder.mkdir(exist_ok=True)
    write_tensors(folder / NAME, arrays, {"identity": begun, "values": json_text(values)})


def restore(folder: Path, fit: Fit, begun: str) -> None:
    """Go on from what `save` wrote; InvalidValue where there is nothing, or where it was begun with something else."""
    path = folder / NAME
    if not path.is_file():
        raise InvalidValue(
            f"--resume: nothing to go on from, {path} does not exist; leave --resume out", param="resume"
        )
    arrays, metadata = read_all(path, "unfinished run")
    if metadata.get("identity") != begun:
        message = f"--resume: {path} was begun with other clips, another model or other options; leave --resume out"
        raise InvalidValue(message, param="resume")
    try:
        values: dict[str, Any] = json.loads(metadata["values"])
        fit.restore(arrays, values)
    except (KeyError, ValueError, TypeError):
        raise InvalidValue(f"--resume: {path} is damaged; leave --resume out", param="resume") from None


def forget(folder: Path) -> None:
    (folder / NAME).unlink(missing_ok=True)
