"""benchmarks.bench on random weights: what it counts, what it refuses. Times are not judged."""

import json
import sys

import pytest

from benchmarks import bench, measure
from convert.random_checkpoint import write_checkpoint
from mlx_qwen3tts import Qwen3TTS, Voice

pytestmark = pytest.mark.benchmarks

# Weights of the tiny configuration as they lie in memory. Talker: 3 layers, width 64, MLP 96, 4 heads and 2 KV heads of
# 32; predictor: 2 layers, width 32, MLP 48, 2 heads and 1 KV head of 16. A layer has q, k, v; o; gate, up, down; a norm
# a head of q and k (fused, the norm stands once for each head); two norms of its own.
TALKER_LAYER = 64 * (4 + 2 + 2) * 32 + 4 * 32 * 64 + 3 * 64 * 96 + (4 + 2) * 32 + 2 * 64
PREDICTOR_LAYER = 32 * (2 + 1 + 1) * 16 + 2 * 16 * 32 + 3 * 32 * 48 + (2 + 1) * 16 + 2 * 32
TALKER = 3 * TALKER_LAYER + 64 + 3072 * 64  # final norm, head
PREDICTOR = 15 * (2 * PREDICTOR_LAYER + 32 + 64 * 32 + 32)  # final norm, projection with its bias
HEADS = 15 * 2048 * 32


def test_tiny(capsys):
    command = "--size tiny --dtype float32 --repeats 2 --texts long,short --batch 1,3 --frames-cap 4 --json"
    bench.main(command.split())
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])

    assert result["model"] == "random tiny" and result["voice"] == "made-up x-vector"
    assert result["weights"] == "float32" and result["bits"] == {"talker": [], "predictor": []}
    assert list(result["texts"]) == ["long", "short"] and result["typical"] == "short"
    for of in result["texts"].values():
        assert of["frames"] == 4 and of["seconds"] == pytest.approx(4 * 0.08) and of["finish_reason"] == "length"
        assert of["rtf"] == pytest.approx(of["elapsed"] / of["seconds"])
        # medians of two runs, which are means: that of the reciprocals is the larger
        assert of["frames_per_second"] >= 4 / of["elapsed"] * (1 - 1e-6)
        assert 0 < of["stream"]["first_audio"] < of["stream"]["rtf"] * of["seconds"]
        assert 0 < of["stream"]["largest_gap"] < of["stream"]["rtf"] * of["seconds"]
        assert of["peak_memory"] > result["load"]["active_memory"] > 0

    ms = result["ms_per_frame"]
    assert ms["loop_sum"] == pytest.approx(ms["talker"] + ms["predictor"] + ms["host"])
    assert ms["sum"] == pytest.approx(ms["loop_sum"] + ms["codec"])
    assert ms["overlap"] == pytest.approx(1 - ms["loop"] / ms["loop_sum"])
    assert min(ms["talker"], ms["predictor"], ms["host"], ms["codec"], ms["codec_stream"], ms["loop"]) > 0
    assert ms["whole"] == pytest.approx(1000 * result["texts"]["short"]["elapsed"] / 4)
    # Role, tags for language auto, speaker, pad and bos, the first word with codec bos; two frames into the text.
    assert ms["position"] == 3 + 3 + 1 + 1 + 1 + 2

    at = result["positions"]
    assert list(at["talker"]) == list(at["frame"]) == ["100", "2000"]
    for position, talker in at["talker"].items():
        assert at["frame"][position] == pytest.approx(talker + ms["predictor"])
    assert at["frame_ratio"] == pytest.approx(at["frame"]["2000"] / at["frame"]["100"])

    size = result["weight_bytes"]
    assert size == {
        "talker": 4 * TALKER,
        "predictor": 4 * PREDICTOR,
        "predictor_heads": 4 * HEADS,
        "frame": 4 * (TALKER + PREDICTOR + HEADS),
    }
    fastest = max(result["bandwidth"].values())
    assert result["bandwidth_share"] == pytest.approx(size["frame"] / fastest / (ms["loop"] / 1000))
    assert {name: of["frames"] for name, of in result["batch"].items()} == {"1": 4, "3": 12}

    # Two lines of head, the row, the JSON.
    head, rule, row = (line.strip("| ").split(" | ") for line in lines[-4:-1])
    assert len(head) == len(rule) == len(row)
    cells = dict(zip(head, row, strict=True))
    assert cells["model"] == "random tiny" and cells["RTF"] == f"{result['texts']['short']['rtf']:.3f}"


def test_quantised(tmp_path):
    """Scales and biases count, and the words say which part has how many bits."""
    from mlx_qwen3tts import convert

    source = write_checkpoint(tmp_path / "source", size="tiny")
    options = ["--hf-path", source, "--mlx-path", tmp_path / "q", "-q", "--q-bits", 4, "--q-group-size", 32]
    convert.main([*map(str, options), "--q-predictor-bits", "8"])
    tts = Qwen3TTS.from_pretrained(tmp_path / "q", "float32")
    bits = bench.quantisation(tts.talker.model), bench.quantisation(tts.talker.code_predictor)
    assert bits == ([4], [8])
    assert bench.describe_weights("float32", *bits) == "float32, 4-bit talker, 8-bit predictor"
    assert bench.describe_weights("bfloat16", [8], [8]) == "bfloat16, 8-bit"
    # A head row of 32 weights: 32 bytes, and a scale and a bias of float32.
    assert measure.weights_a_frame(tts.talker)["predictor_heads"] == 15 * 2048 * (32 + 8)


@pytest.mark.parametrize(
    "kind, voice", [("custom_voice", "serena"), ("voice_design", "instruction"), ("base", "made-up x-vector")]
)
def test_own_voice(tmp_path, kind, voice):
    tts = Qwen3TTS.from_pretrained(write_checkpoint(tmp_path, kind=kind, model_size="1b7"), "float32")
    speaker, name = bench.find_speaker(tts, None)
    assert name == voice
    assert (speaker.voice is None) == (kind == "voice_design") == (speaker.instruct is not None)
    assert speaker.generate("Hello.", 2).codes.shape == (2, 16)


def test_given_voice(tmp_path):
    tts = Qwen3TTS.from_pretrained(write_checkpoint(tmp_path / "model"), "float32")
    voice = measure.gaussian_voice(64, 3.0)
    voice.save(tmp_path / "voice.safetensors")
    speaker, name = bench.find_speaker(tts, str(tmp_path / "voice.safetensors"))
    assert isinstance(speaker.voice, Voice) and name == str(tmp_path / "voice.safetensors")
    assert speaker.voice.embedding.tolist() == voice.embedding.tolist()
    assert (voice.embedding**2).sum().item() == pytest.approx(9)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--model no-such-folder", "model 'no-such-folder': no such folder"),
        ("--model a --size tiny", "not allowed with argument"),
        ("--size huge", "invalid choice: 'huge'"),
        ("--texts short,poem", "text 'poem' is not one of short, medium, long"),
        ("--batch 1,0", "'0' is not an integer of 1 or more"),
        ("--repeats 0", "'0' is not an integer of 1 or more"),
        ("--frames-cap 1", "'1' is not an integer of 2 or more"),
        ("--size tiny --dtype int8", "dtype 'int8' is not one of float32, float16, bfloat16"),
        ("--size tiny --voice nobody", "voice 'nobody' is not a file or a preset of this model"),
    ],
)
def test_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        bench.main(arguments.split())
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0] and printed.err.splitlines()[-1] == errors[0]
    assert printed.out == ""


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux tells it")
def test_machine():
    about = bench.machine()
    assert about["processor"] and about["system"].startswith("Linux ") and about["device"] in ("cpu", "gpu")
