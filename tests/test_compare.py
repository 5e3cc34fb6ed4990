"""benchmarks.compare with this package alone, and what it says of those that are absent or die."""

import json
import sys
from contextlib import ExitStack

import pytest

from benchmarks import compare

pytestmark = pytest.mark.benchmarks

# The tiny configuration: talker of 3 layers, width 64, MLP 96, 4 heads and 2 KV heads of 32; predictor of 2 layers,
# width 32, MLP 48, 2 heads and 1 KV head of 16. Projections, MLP, the norms of q and k, the layer's two norms.
TALKER_LAYER = 64 * (4 + 2 + 2) * 32 + 4 * 32 * 64 + 3 * 64 * 96 + 2 * 32 + 2 * 64
PREDICTOR_LAYER = 32 * (2 + 1 + 1) * 16 + 2 * 16 * 32 + 3 * 32 * 48 + 2 * 16 + 2 * 32
TALKER = 3 * TALKER_LAYER + 64 + 3072 * 64  # final norm, head
PREDICTOR = 15 * (2 * PREDICTOR_LAYER + 32 + 64 * 32 + 32)  # final norm, projection with its bias
HEADS = 15 * 2048 * 32


def test_ours_alone(capsys):
    command = "--size tiny --frames 3 --codec-frames 2 --repeats 2 --parts frames codec speech floor --json"
    compare.main([*command.split(), "--mlx-audio-python", "no-such-python", "--official-python", "nor-this"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "mlx-audio: skipped: no-such-python is no program",
        "official: skipped: nor-this is no program",
    ]

    result = json.loads(lines[-1])
    assert set(result["skipped"]) == {"mlx-audio", "official"} and result["died"] == {}
    assert set(result["implementations"]) == {"ours"}
    assert list(result["parts"]) == ["prefill", "frames", "codec", "speech"]
    for part, frames in (("frames", 3), ("codec", 2), ("speech", 3)):
        of = result["parts"][part]["ours"]
        assert of["frames"] == [frames] * 2 and len(of["seconds"]) == 2
        assert 0 < of["min"] <= of["median"] <= of["max"]
        assert result["ratios"][part] == {"ours": 1}
    assert result["agreement"] == {"frames": {}, "codec": {}}
    if "cpu" not in result["implementations"]["ours"]["device"]:
        assert "floor" not in result
        return
    floor = result["floor"]
    assert floor["bytes"] == {
        "talker": 4 * TALKER,
        "predictor": 4 * PREDICTOR,
        "predictor_heads": 4 * HEADS,
        "frame": 4 * (TALKER + PREDICTOR + HEADS),
    }
    assert len(floor["bytes_per_second"]) == 2 and 0 < floor["share"] < 1


def test_absent_package(monkeypatch):
    monkeypatch.setitem(compare.OTHERS, "official", ("no_such_package", "--official-python", "QWEN_TTS_PYTHON"))
    python, reason = compare.find_python("official", sys.executable)
    assert python is None
    assert reason.startswith(f"{sys.executable} has no no_such_package; name a Python that has it with")


def test_dead_worker(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(compare.MODULES, "official", "no_such_worker")
    with ExitStack() as stack:
        crew = compare.Crew(tmp_path, 1, stack)
        assert crew.start("official", sys.executable) is None
        assert crew.ask("official", "codec") is None
    printed = capfd.readouterr().out
    assert printed.startswith("official: died in 'load' with status 1\n")
    assert "No module named benchmarks.workers.no_such_worker" in printed
    assert crew.died["official"] in printed
