"""convert/make_goldens.py: one checkpoint at a time, compared with what is committed."""

import json

import numpy as np
import pytest

from convert import make_goldens

KEPT = {"a/codes": np.array([[1, 2]], np.int16), "a/prompt": np.array([0.5, 1], np.float32)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that makes the goldens of one checkpoint, where the official package gives certain arrays."""
    monkeypatch.setattr(make_goldens, "GOLDENS", tmp_path / "committed")
    (tmp_path / "committed").mkdir()
    np.savez(tmp_path / "committed" / "fine-tune.npz", **KEPT)

    def make(arrays, out):
        monkeypatch.setattr(make_goldens, "run_reference", lambda model, cases, file, python: np.savez(file, **arrays))
        with pytest.raises(SystemExit) as stopped:
            given = ["--reference-python", "python", "--only", "fine-tune", "--out", str(tmp_path / out)]
            make_goldens.main(given)
        return stopped.value.code

    return make


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, 0, "ids and codes equal, floats within 0.0e+00"),
        ({"a/prompt": KEPT["a/prompt"] + np.float32(5e-5)}, 0, "ids and codes equal, floats within 5.0e-05"),
        ({"a/prompt": KEPT["a/prompt"] + np.float32(2e-4)}, 1, "floats within 2.0e-04"),
        ({"a/prompt": np.array([np.nan, 1], np.float32)}, 1, "floats within nan"),
        ({"a/codes": np.array([[1, 3]], np.int16)}, 1, "differs in a/codes"),
        ({"a/codes": np.array([[1, 2, 3]], np.int16)}, 1, "differs in a/codes"),
        ({"b/codes": KEPT["a/codes"]}, 1, "only one of them has b/codes"),
    ],
)
def test_what_differs(run, tmp_path, capsys, changes, status, words):
    assert run(KEPT | changes, "out") == status
    assert words in capsys.readouterr().out
    assert np.load(tmp_path / "committed" / "fine-tune.npz")["a/codes"].tolist() == [[1, 2]]


def test_the_committed_goldens_may_change(run, tmp_path):
    """And the entries of the other checkpoints stay."""
    manifest = tmp_path / "committed" / "manifest.json"
    manifest.write_text(json.dumps({"base": {"seed_offset": 0, "weights_sha256": "b"}}))
    assert run(KEPT | {"b/codes": KEPT["a/codes"]}, "committed") == 0
    assert "b/codes" in np.load(tmp_path / "committed" / "fine-tune.npz").files
    entries = json.loads(manifest.read_text())
    assert list(entries) == ["base", "fine-tune"] and entries["base"]["weights_sha256"] == "b"
    assert len(entries["fine-tune"]["weights_sha256"]) == 64
