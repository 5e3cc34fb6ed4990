"""Shared by the tests: random checkpoints of the parity suite, written once a run."""

import pytest

from convert.make_goldens import make_checkpoint
from mlx_qwen3tts import Qwen3TTS


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A function from a suite checkpoint's name to its folder."""
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def get(name):
        if name not in made:
            made[name] = make_checkpoint(name, root)[0]
        return made[name]

    return get


@pytest.fixture(scope="session")
def model(checkpoint):
    """A function from a suite checkpoint's name to the model loaded from it in float32."""
    loaded = {}

    def get(name):
        if name not in loaded:
            loaded[name] = Qwen3TTS.from_pretrained(checkpoint(name), dtype="float32")
        return loaded[name]

    return get
