"""What MLX needs of a process: one that was forked says that it cannot go on, and without a compiler it speaks too."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Codec, Qwen3TTS, Voice
from mlx_qwen3tts.errors import UnsupportedValue
from mlx_qwen3tts.networks import process

ROOT = Path(__file__).parent.parent

SPEAK = """
import sys
from mlx_qwen3tts.generate import main
main(["--model", sys.argv[1], "--embedding", sys.argv[2], "--max-tokens", "8", "--seed", "1", "Hello."])
"""

FORK = """
import multiprocessing, sys
import numpy as np
from mlx_qwen3tts import Qwen3TTS

vector = np.load(sys.argv[2])
load = lambda: Qwen3TTS.from_pretrained(sys.argv[1])
before = load() if sys.argv[3] == "used" else None

def child():
    try:
        print(len((before or load()).generate("Hello.", vector, max_tokens=8, seed=1).codes), flush=True)
    except ValueError as error:
        print(error.code, error, flush=True)

forked = multiprocessing.get_context("fork").Process(target=child)
forked.start()
forked.join(60)
if forked.is_alive():
    forked.kill()
    print("it hangs")
"""


@pytest.fixture
def arguments(checkpoint, tmp_path):
    np.save(tmp_path / "v.npy", vector(64, 1))
    return [str(checkpoint("base")), str(tmp_path / "v.npy")]


def program(code, arguments, folder, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("when", ["used", "fresh"])
def test_a_forked_process(when, arguments, tmp_path):
    done = program(FORK, [*arguments, when], tmp_path)
    expected = "unsupported_value this process was forked from one in which MLX had computed" if when == "used" else "7"
    assert done.stdout.startswith(expected) and done.returncode == 0, done.stdout + done.stderr


def test_everything_that_computes_asks_whether_it_may(model, checkpoint, monkeypatch):
    tts, codes = model("base"), np.zeros((2, 16), np.int32)
    voice, stream, sound = Voice(vector(64, 1)), tts.stream("Hello.", vector(64, 1)), np.sin(np.arange(24000))
    monkeypatch.setattr(process.known, "forked", True)
    for compute in (
        lambda: Qwen3TTS.from_pretrained(checkpoint("base")),
        lambda: Codec.from_pretrained(checkpoint("base")).decode(codes),
        lambda: tts.codec.decode(codes),
        lambda: tts.codec.encode(sound),
        lambda: tts.embed(sound),
        lambda: tts.generate("Hello.", voice),
        lambda: tts.generate_batch(["Hello."], voice),
        lambda: next(stream),
        lambda: Voice(vector(64, 1)),
    ):
        with pytest.raises(UnsupportedValue, match="start it with multiprocessing"):
            compute()


@pytest.mark.skipif(mx.default_device().type != mx.cpu, reason="a GPU compiles nothing there")
@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_without_a_folder_for_temporary_files_it_speaks_with_a_warning(folder, arguments, tmp_path):
    (tmp_path / "file").touch()
    done = program(SPEAK, arguments, tmp_path, TMPDIR=str(tmp_path / folder))
    assert done.returncode == 0 and "Traceback" not in done.stderr and (tmp_path / "out.wav").stat().st_size > 4000
    reason = "No such file or directory" if folder == "nowhere" else "Not a directory"
    assert f"warning: MLX cannot compile ({tmp_path / folder}: {reason}), so speaking is slower; set" in done.stderr


class Full:
    """A file on a disk that has no room."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, _):
        raise OSError(28, "No space left on device")


def no_compiler(_):
    raise RuntimeError("[Compile::eval_cpu] Failed to compile function\nwith g++")


@pytest.mark.parametrize("fault", ["full", "compiler", None])
def test_compiling_is_tried_once(fault, monkeypatch):
    disabled = []
    monkeypatch.setattr(process.known, "tried", False)
    monkeypatch.setattr(mx, "disable_compile", lambda: disabled.append(True))
    if fault == "full":
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Full())
    if fault == "compiler":
        monkeypatch.setattr(mx, "eval", no_compiler)
    if fault is None:
        process.try_compiling()
    else:
        reason = {"full": "No space left on device", "compiler": r"\[Compile::eval_cpu\] Failed to compile function"}
        with pytest.warns(UserWarning, match=rf"MLX cannot compile \(.*: {reason[fault]}\), so speaking is slower"):
            process.try_compiling()
    process.try_compiling()
    assert disabled == [True] * (fault is not None)
