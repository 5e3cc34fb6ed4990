"""Shared by the tests: random checkpoints of the parity suite, written once a run."""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

os.environ["QWEN3TTS_CONFIG"] = os.devnull  # the settings of whoever runs the tests must not change them

from convert.make_goldens import make_checkpoint
from mlx_qwen3tts import Qwen3TTS


@pytest.fixture(scope="session")
def shared():
    """The folder of real embeddings and recordings, which lie beside the repository and are not part of it."""
    folder = Path(os.environ.get("QWEN_TTS_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "voices").is_dir():
        pytest.skip(f"no real voices in {folder} (set QWEN_TTS_SHARED)")
    return folder


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


@dataclass
class Ran:
    """How a command ended: exit status, stdout, stderr."""

    status: int
    out: str
    err: str

    @property
    def lines(self):
        """stderr without warnings."""
        return [line for line in self.err.splitlines() if not line.startswith("warning: ")]


@pytest.fixture
def command(capfd, tmp_path, monkeypatch):
    """A function that runs a command in this process, in tmp_path: command("info", "--model", folder)."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        capfd.readouterr()
        status = 0
        try:
            import_module(f"mlx_qwen3tts.{name}").main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            status = stopped.code
        return Ran(status, *capfd.readouterr())

    return run


@pytest.fixture
def refused(command, tmp_path):
    """A function that runs a command which must fail as bad input does, and returns its message."""

    def run(name, *arguments):
        before = sorted(tmp_path.rglob("*"))
        ran = command(name, *arguments)
        assert ran.status == 2, ran.err
        assert len(ran.lines) == 1 and ran.lines[0].startswith("error: "), ran.err
        assert ran.out == ""
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return ran.lines[0].removeprefix("error: ")

    return run
