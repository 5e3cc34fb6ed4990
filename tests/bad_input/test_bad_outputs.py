"""Codes that are none, and places that cannot be written to."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts import Codec, Qwen3TTS, Voice
from mlx_qwen3tts.errors import AudioError, OutputError, VoiceError
from tests.bad_input.samples import V, archive, npy

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.zeros((2, 15), np.int32)), "codes codes.npy have shape [2, 15]; expected [frames, 16]"),
        (npy(np.zeros(16, np.int32)), "codes codes.npy have shape [16]; expected [frames, 16]"),
        (npy(np.zeros((0, 16), np.int32)), "codes codes.npy have shape [0, 16]; expected [frames, 16]"),
        (npy(np.full((2, 16), 2048)), "codes codes.npy range from 2048 to 2048; expected 0 to 2047"),
        (npy(np.full((2, 16), -1)), "codes codes.npy range from -1 to -1; expected 0 to 2047"),
        (npy(np.zeros((2, 16), np.float32)), "codes codes.npy: expected one array of integers"),
        (archive(np.zeros((2, 16), np.int32)), "codes codes.npy: expected one array of integers"),
        (pickle.dumps([1]), "codes codes.npy: not a plain NumPy array file"),
        (b"", "codes codes.npy: not a plain NumPy array file"),
    ],
)
def test_bad_codes(content, message, refused, checkpoint, tmp_path):
    (tmp_path / "codes.npy").write_bytes(content)
    assert refused("codec", "decode", "--model", checkpoint("base"), "codes.npy") == message


def test_codes_that_are_no_file(refused, checkpoint):
    assert refused("codec", "decode", "--model", checkpoint("base"), "c.npy") == "codes c.npy: no such file"
    assert refused("codec", "decode", "--model", checkpoint("base"), ".") == "codes .: not a regular file"


# Outputs


@pytest.fixture
def writers(speak, audio, checkpoint, tmp_path):
    """Every command that writes a file, but for the file's name, with the extensions it takes."""
    np.save(tmp_path / "codes.npy", np.zeros((2, 16), np.int32))
    model = ("--model", checkpoint("base"))
    sound = (".wav", ".flac", ".mp3", ".ogg")
    return {
        "generate": (("generate", *speak("custom-voice"), "Hello.", "--output"), sound),
        "codes": (("generate", *speak("custom-voice"), "Hello.", "--codes-output"), (".npy",)),
        "embed": (("embed", *model, audio, "--output"), (".npy", ".safetensors", ".json")),
        "encode": (("codec", "encode", *model, audio, "--output"), (".npy",)),
        "decode": (("codec", "decode", *model, "codes.npy", "--output"), sound),
    }


WRITERS = ("generate", "codes", "embed", "encode", "decode")


@pytest.mark.parametrize("writer", WRITERS)
def test_places_that_cannot_be_written(writer, writers, refused, tmp_path, monkeypatch):
    run, suffixes = writers[writer]
    (tmp_path / "file").touch()
    for opened in (Qwen3TTS, Codec):  # all of this is known before a model is opened
        monkeypatch.setattr(opened, "from_pretrained", None)
    for suffix in suffixes:
        (tmp_path / f"folder{suffix}").mkdir()
        assert refused(*run, f"nowhere/o{suffix}") == "output folder nowhere does not exist"
        assert refused(*run, f"file/o{suffix}") == "output folder file does not exist"
        if writer != "embed":  # which takes a folder
            assert refused(*run, f"folder{suffix}") == f"output folder{suffix} is a folder"
        if sys.platform == "linux":  # where root may write nothing either
            assert refused(*run, f"/proc/o{suffix}").startswith(f"cannot write /proc/o{suffix}: ")
    assert "extension" in refused(*run, "o.xyz")
    assert refused(*run, "")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS])
def test_a_folder_without_permission(writer, reason, writers, refused, tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    opened = os.open

    def fail(path, flags, *more):
        if "locked" in str(path) and flags & os.O_CREAT:  # permissions do not stop root, whom the tests may run as
            raise OSError(reason, os.strerror(reason))
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", fail)
    run, suffixes = writers[writer]
    file = f"locked/o{suffixes[0]}"
    assert refused(*run, file) == f"cannot write {file}: {os.strerror(reason)}"


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk(writer, writers, command, tmp_path, monkeypatch):
    """Half of the file fits. What was there before stays, and nothing else."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_bytes(path, data):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise full

    def write_text(path, text, **_):
        write_bytes(path, text.encode())

    def save(path, _):
        write_bytes(path, b"\x93NUMPY..")

    run, suffixes = writers[writer]
    for suffix in suffixes:
        (tmp_path / f"o{suffix}").write_bytes(b"the old one")
    (tmp_path / "out.wav").touch()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    monkeypatch.setattr(Path, "write_text", write_text)
    monkeypatch.setattr(np, "save", save)
    for suffix in suffixes:
        ran = command(*run, f"o{suffix}")
        failed = "out.wav" if writer == "codes" else f"o{suffix}"  # the first to be written
        assert (ran.status, ran.out) == (2, "")
        assert ran.lines == [f"error: cannot write {failed}: {full.strerror}"]
        assert (tmp_path / f"o{suffix}").read_bytes() == b"the old one"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_disk_that_ends(checkpoint, tmp_path):
    """For real: the system refuses to let files grow beyond 4 kB."""
    names = [f"o{suffix}" for suffix in (".wav", ".flac", ".mp3")]
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from mlx_qwen3tts.generate import main\n"
        "for name in sys.argv[1:]:\n"
        "    try: main(['--model', MODEL, '--voice', 'ryan', '--max-tokens', '40', '--output', name, 'Hello.'])\n"
        "    except SystemExit as stopped: print(stopped.code)\n"
    ).replace("MODEL", repr(str(checkpoint("custom-voice-1b7"))))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["2"] * len(names), done.stderr
    for name in names:
        assert f"error: cannot write {name}: File too large\n" in done.stderr
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_saving_in_python_says_the_same(model, tmp_path):
    speech = model("base").generate("Hello.", V, max_tokens=3, seed=1)
    with pytest.raises(OutputError, match=r"output folder .*nowhere does not exist"):
        speech.save(tmp_path / "nowhere" / "o.wav")
    with pytest.raises(AudioError, match=r"extension '\.xyz' is not one of"):
        speech.save(tmp_path / "o.xyz")
    with pytest.raises(VoiceError, match=r"only \.safetensors can hold the reference codes"):
        Voice(V, mx.zeros((2, 16), mx.int32), "Hi.").save(tmp_path / "v.npy")
    assert list(tmp_path.iterdir()) == []


def test_options_that_exclude_each_other(refused, speak):
    assert refused("generate", *speak("custom-voice"), "--output", "-", "--json", "Hello.") == (
        "--json and --output - both write to stdout; give one"
    )
    assert refused("generate", *speak("custom-voice"), "--codes-output", "c.txt", "Hello.") == (
        "--codes-output c.txt: the extension must be .npy"
    )
