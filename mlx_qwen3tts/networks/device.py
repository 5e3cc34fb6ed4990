"""Which of two equal forms of a computation to build: the one for a GPU or the one for a CPU device.

RoPE, convolutions, sines and the memory layout of weights have two forms. All of them ask here, so that the graph a
GPU would run can be built, counted and checked anywhere.
"""

import contextlib
import contextvars

import mlx.core as mx

_form = contextvars.ContextVar("form", default=None)


def on_gpu():
    """Whether to build the forms for a GPU: what `form` says, else what MLX's default device is."""
    chosen = _form.get()
    return mx.default_device().type == mx.gpu if chosen is None else chosen == "gpu"


@contextlib.contextmanager
def form(name):
    """Build the forms for "gpu" or "cpu" within the block, whatever the device."""
    if name not in ("gpu", "cpu"):
        raise ValueError(f"form {name!r} is not gpu or cpu")
    token = _form.set(name)
    try:
        yield
    finally:
        _form.reset(token)
