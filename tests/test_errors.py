"""What is refused and what is a bug: kinds with stable code words, and what a command makes of an exception."""

import inspect
import itertools
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_qwen3tts import errors
from mlx_qwen3tts.errors import DirectionNotFound, QwenTTSError, VoiceNotFound, WrongType, listed

ROOT = Path(__file__).parent.parent
CODES = {
    "AdapterError": "invalid_adapter",
    "AudioError": "invalid_audio",
    "CheckpointError": "invalid_model",
    "ClusterError": "no_cluster",
    "ConfigError": "invalid_model",
    "DirectionNotFound": "direction_not_found",
    "InvalidValue": "invalid_value",
    "MissingExtra": "missing_extra",
    "ModelNotFound": "model_not_found",
    "NameTaken": "name_taken",
    "OutputError": "invalid_output",
    "PlayError": "no_playback",
    "QwenTTSError": "invalid_value",
    "TextTooLong": "text_too_long",
    "UnsupportedValue": "unsupported_value",
    "VoiceError": "invalid_voice",
    "VoiceNotFound": "voice_not_found",
    "WrongType": "invalid_type",
}
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


def test_code_words_are_stable():
    """Programs depend on them: a word may be added, never changed."""
    assert {kind.__name__: kind.code for kind in KINDS} == CODES


def test_only_a_kind_of_a_kind_shares_its_code():
    for one, other in itertools.combinations(KINDS, 2):
        assert one.code != other.code or issubclass(one, other) or issubclass(other, one)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_an_error_of_ours_and_a_value_error(kind):
    error = kind("voice 'x' is not one of a, b", param="voice")
    assert isinstance(error, QwenTTSError) and isinstance(error, ValueError)
    assert (str(error), error.param, kind("y").param) == ("voice 'x' is not one of a, b", "voice", None)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.param) == (kind, str(error), "voice")


def test_kinds_that_are_builtin_errors_too():
    assert {kind for kind in KINDS if issubclass(kind, KeyError)} == {VoiceNotFound, DirectionNotFound}
    assert {kind for kind in KINDS if issubclass(kind, TypeError)} == {WrongType}


def test_lists_of_names_are_cut():
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"


@pytest.mark.parametrize(
    ("checkout", "here", "hint"),
    [
        (True, True, "pip install -e '.[play]'"),
        (True, False, "pip install -e '{root}[play]'"),
        (False, True, "pip install 'mlx-qwen3tts[play]'"),
    ],
)
def test_an_extra_is_installed_from_where_the_package_is(checkout, here, hint, tmp_path, monkeypatch):
    root = tmp_path / "checkout"
    root.mkdir()
    if checkout:
        (root / "pyproject.toml").touch()
    monkeypatch.chdir(root if here else tmp_path)
    monkeypatch.setattr(errors, "__file__", str(root / "mlx_qwen3tts" / "errors.py"))
    assert errors.install_hint("play") == hint.format(root=root)


def command(fault):
    """`info` in a process of its own, with the statement `fault` run within."""
    code = (
        f"from mlx_qwen3tts import errors, info\ndef describe(model): {fault}\ninfo.describe = describe\ninfo.main([])"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("fault", "last"),
    [
        ("len(5)", "TypeError: object of type 'int' has no len()"),
        ("import mlx.core as mx; mx.zeros(3) @ mx.zeros(4)", "ValueError: [matmul]"),
        ("{}['a']", "KeyError: 'a'"),
        ("assert False", "AssertionError"),
    ],
)
def test_a_bug_is_a_traceback_and_status_1(fault, last):
    done = command(fault)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.splitlines()[-1].startswith(last) and "error: " not in done.stderr


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("raise errors.WrongType('text must be a string, not 5')", "error: text must be a string, not 5"),
        ("raise errors.VoiceNotFound('no voice\\n of  that name')", "error: no voice of that name"),
        ("open('nowhere/at/all')", "error: [Errno 2] No such file or directory: 'nowhere/at/all'"),
    ],
)
def test_a_refusal_is_one_line_and_status_2(fault, line):
    done = command(fault)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}\n")
