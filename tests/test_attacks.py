"""The attacks of benchmarks/soak.py, for as long as a test may take."""

import json

import pytest

from benchmarks import attacks, soak

pytestmark = pytest.mark.benchmarks


def test_many_processes_on_one_library(capsys):
    with pytest.raises(SystemExit) as ended:
        soak.main(["library", "--processes", "3", "--seconds", "1", "--json"])
    told = capsys.readouterr()
    counts = json.loads(told.out)
    assert ended.value.code == 0 and counts["done"] > 0, told.err
    assert counts["refused"] == counts["tracebacks"] == 0


def test_files_with_random_damage(capsys):
    with pytest.raises(SystemExit) as ended:
        soak.main(["corrupt", "--count", "28", "--seed", "7", "--json"])
    told = capsys.readouterr()
    assert ended.value.code == 0 and json.loads(told.out) == {"right": 28}, told.err


def test_the_attack_would_see_a_wrong_result(monkeypatch):
    """An index without its checksum is found out."""
    from mlx_qwen3tts.voices.library import index

    monkeypatch.setattr(index, "checksum", lambda *_: "the same")
    monkeypatch.setattr(attacks, "KINDS", ("index",))
    monkeypatch.setattr(
        attacks, "damage", lambda content, chance: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]
    )
    counts, wrong = attacks.corrupt(2)
    assert counts["wrong"] == 2 and "came out otherwise" in wrong[0]
