"""Which of two equal forms of a computation to build: the plain one, for a GPU, or the one of `cpu.py`.

All who have two forms ask here, so that the graph a GPU would run can be built, counted and checked anywhere.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import mlx.core as mx

_form: contextvars.ContextVar[str | None] = contextvars.ContextVar("form", default=None)


def on_gpu() -> bool:
    """Whether to build the forms for a GPU: what `form` says, else what MLX's default device is."""
    chosen = _form.get()
    return mx.default_device().type == mx.gpu if chosen is None else chosen == "gpu"


@contextlib.contextmanager
def form(name: str) -> Iterator[None]:
    """Build the forms for "gpu" or "cpu" within the block, whatever the device."""
    if name not in ("gpu", "cpu"):
        raise ValueError(f"form {name!r} is not gpu or cpu")
    token = _form.set(name)
    try:
        yield
    finally:
        _form.reset(token)
