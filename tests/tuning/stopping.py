"""Ctrl-C in the middle of a fit."""

import contextlib

import pytest

from mlx_qwen3tts.tuning.fit import Fit


@contextlib.contextmanager
def stopped_at(step):
    """Within the block, a fit that comes to a step is interrupted."""
    chosen = Fit.chosen

    def stop(self, now):
        if now == step:
            raise KeyboardInterrupt
        return chosen(self, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "chosen", stop)
        yield
