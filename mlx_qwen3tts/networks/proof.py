"""Whether the fused kernels were proved on this machine, and which of them a model uses.

`benchmarks.bench --self-check` compares whole frames and writes a record, which counts for this device, this MLX, this
package and these kernels alone.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import mlx.core as mx

from .. import __version__, checks
from ..errors import UnsupportedValue
from ..files.caches import cache_folder
from ..files.json_text import json_text
from ..files.output import whole_file
from . import kernels
from .kernel_check import check
from .kernel_source import FIRST_LINES, HEADERS, KERNELS

CHOICES = ("plain", "fused")


def check_choice(wanted: str | None) -> None:
    """Raise InvalidValue or UnsupportedValue unless a model can be loaded with `kernels=wanted` here."""
    if wanted is not None and checks.word(wanted, "kernels", CHOICES) == "fused" and kernels.backend() is None:
        raise UnsupportedValue("kernels 'fused' need a GPU with Metal or CUDA; use 'plain'", param="kernels")


def choose(wanted: str | None, dtype: mx.Dtype = mx.bfloat16) -> frozenset[str]:
    """The names of the kernels that a model of this dtype, loaded with `kernels=wanted`, uses.

    "plain": none; "fused": all that `check` finds right, with a warning for each other one; None: all where they were
    proved, else none. Raises UnsupportedValue for "fused" where nothing runs kernels.
    """
    if wanted is None:
        return frozenset(kernels.NAMES if proved() else ())
    check_choice(wanted)
    if wanted == "plain":
        return frozenset()
    problems = {name: check(name, (dtype,)) for name in kernels.NAMES}
    for name, problem in problems.items():
        if problem is not None:
            warnings.warn(f"kernel {name} is not used: {problem}", stacklevel=4)
    return frozenset(name for name, problem in problems.items() if problem is None)


# The record


def record_path() -> Path:
    """Where the record for what runs here lies, in the user's folder for caches."""
    return cache_folder() / f"kernels-{hashlib.sha256(json_text(identity()).encode()).hexdigest()[:16]}.json"


def identity() -> dict[str, str]:
    """What a record counts for."""
    sources = json_text([HEADERS, FIRST_LINES, [repr(kernel) for kernel in KERNELS.values()]])
    return {
        "device": str(mx.device_info().get("device_name")),
        "backend": str(kernels.backend()),
        "mlx": mx.__version__,  # pyright: ignore[reportAttributeAccessIssue]
        "mlx_qwen3tts": __version__,
        "kernels": hashlib.sha256(sources.encode()).hexdigest(),
    }


def record(passed: bool, detail: str) -> Path:
    """Note what a check of whole frames found, for `proved`. detail: for people. Returns where."""
    path = record_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        content = identity() | {"passed": passed, "detail": detail}
        temporary.write_text(json_text(content, indent=2) + "\n", encoding="utf-8")
    return path


def proved() -> bool:
    """Whether a record says that the kernels were found right with what runs here."""
    if kernels.backend() is None:
        return False
    path = record_path()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        warnings.warn(f"{path} is not read, so plain kernels are used: {error}", stacklevel=5)
        return False
    return isinstance(content, dict) and content.get("passed") is True and identity().items() <= content.items()
