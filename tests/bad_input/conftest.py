"""Bad input: each kind ends with status 2 and one line that names the value, and leaves nothing behind."""

import os
import shutil

import numpy as np
import pytest

from convert.parity import recording, vector

SHORT = ("--max-tokens", "3", "--seed", "1", "--output", "out.wav")


@pytest.fixture
def speak(checkpoint, tmp_path):
    """A function from a suite checkpoint to the arguments that make `generate` speak with it, but for the text."""

    def arguments(name, folder=None):
        np.save(tmp_path / "voice.npy", vector(64, 1))
        voice = ("--embedding", "voice.npy") if name.startswith("base") else ("--voice", "vivian")
        return ("--model", folder or checkpoint(name), *(() if "design" in name else voice), *SHORT)

    return arguments


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A function that copies a checkpoint; its weights are links unless they are to be changed."""

    def link_weights(source, target):
        if source.endswith(".safetensors"):
            os.symlink(source, target)
        else:
            shutil.copyfile(source, target)

    def make(name="base", weights=False):
        how = shutil.copyfile if weights else link_weights
        return shutil.copytree(checkpoint(name), tmp_path / "model", copy_function=how)

    return make


@pytest.fixture
def audio(tmp_path):
    return recording(tmp_path / "speaker.wav", 1, 0.7)
