"""Adapters merged into a model: a folder that speaks the same, quantised or not, and official folders with presets."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import check, run_reference, vector
from convert.suite import speak
from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.checkpoint.adapters import FUSED, read_adapter
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.convert import convert
from tests.test_adapters import ALL, NAME, adapter_for, spoken


@pytest.fixture(scope="module")
def base(checkpoint, tmp_path_factory):
    """A float32 model as `convert` writes it."""
    folder = tmp_path_factory.mktemp("base") / "base"
    convert(checkpoint(NAME), folder, dtype="float32")
    return folder


@pytest.fixture(scope="module")
def quantised(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised") / "model"
    convert(checkpoint(NAME), folder, quantize=True, q_bits=4, q_group_size=32)
    return folder


@pytest.fixture(scope="module")
def loaded(base):
    return Qwen3TTS.from_pretrained(base)


@pytest.fixture
def adapted(base, tmp_path):
    """The folder of an adapter of all projections, with the voices Anna and ben."""
    folder = tmp_path / "lora"
    folder.mkdir()
    adapter_for(ModelFolder(base), ALL).save(folder)
    for seed, name in enumerate(("Anna", "ben"), 3):
        Voice(vector(64, seed)).save(folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def fuse(command, adapted):
    def run(model, *arguments, output="fused"):
        return command("fuse", "--model", model, "--adapter-path", adapted, "--mlx-path", output, *arguments)

    return run


def tensors(folder):
    return mx.load(str(Path(folder) / "model.safetensors"))


def config(folder):
    return json.loads((Path(folder) / "config.json").read_text())


Q = "talker.model.layers.0.self_attn.q_proj"


def test_fused_speaks_as_unfused(fuse, loaded, base, adapted, tmp_path):
    ran = fuse(base)
    assert ran.status == 0 and ran.out == "fused\n" and "tensors in 2 files" in ran.err, ran.err
    fused = Qwen3TTS.from_pretrained(tmp_path / "fused")
    plain = spoken(loaded)
    loaded.adapt(adapted)
    assert spoken(fused) == spoken(loaded) != plain
    assert config(tmp_path / "fused")[FUSED] == [read_adapter(adapted).digest]
    assert fused.model_type == "base" and fused.folder.speaker_encoder is not None
    card = (tmp_path / "fused" / "README.md").read_text()
    assert "# base, taught a voice" in card and read_adapter(adapted).digest in card
    ran = fuse(tmp_path / "fused", output="again")
    assert ran.status == 2 and "was made for tiny, not for fused" in ran.lines[0]


def test_how_much_of_it(fuse, base, adapted, tmp_path):
    assert fuse(base, "--adapter-scale", "0.5").status == 0
    a, b = read_adapter(adapted).matrices[Q]
    found, plain = (tensors(folder)[f"{Q}.weight"] for folder in (tmp_path / "fused", base))
    assert mx.abs(found - plain - (a @ b).T).max().item() < 1e-6


def test_dtypes_stay(fuse, checkpoint, tmp_path):
    """Of an official folder in bfloat16; what is not adapted is the same to the bit."""
    assert fuse(checkpoint(NAME)).status == 0
    before, after = tensors(checkpoint(NAME)), tensors(tmp_path / "fused")
    assert {name: array.dtype for name, array in before.items()} == {name: a.dtype for name, a in after.items()}
    for name in ("talker.codec_head.weight", "talker.model.norm.weight", "talker.text_projection.linear_fc1.weight"):
        assert (np.array(before[name].view(mx.uint16)) == np.array(after[name].view(mx.uint16))).all()
    assert config(tmp_path / "fused")["conv_layout"] == "mlx"
    ModelFolder(tmp_path / "fused")


def dequantised(folder, name):
    """A layer's weight in a quantised folder, float32."""
    found, block = tensors(folder), config(folder)["quantization"]
    how = {key: {**block, **block.get(name, {})}[key] for key in ("bits", "group_size")}
    scales, biases = (found[f"{name}.{leaf}"].astype(mx.float32) for leaf in ("scales", "biases"))
    return mx.dequantize(found[f"{name}.weight"], scales, biases, **how)


def test_a_quantised_model_stays_quantised(fuse, quantised, adapted, tmp_path):
    assert fuse(quantised).status == 0
    a, b = read_adapter(adapted).matrices[Q]
    wanted, found = dequantised(quantised, Q) + 2 * (a @ b).T, dequantised(tmp_path / "fused", Q)
    step = tensors(tmp_path / "fused")[f"{Q}.scales"].astype(mx.float32).abs().max().item()
    assert mx.abs(wanted - found).max().item() <= step and mx.abs(wanted - found).max().item() > 0
    before, after = tensors(quantised), tensors(tmp_path / "fused")
    assert (
        list(before) == list(after) and config(tmp_path / "fused")["quantization"] == config(quantised)["quantization"]
    )
    assert (np.array(before["talker.codec_head.weight"]) == np.array(after["talker.codec_head.weight"])).all()
    index = json.loads((tmp_path / "fused" / "model.safetensors.index.json").read_text())["metadata"]
    assert index == json.loads((quantised / "model.safetensors.index.json").read_text())["metadata"]
    assert len(spoken(Qwen3TTS.from_pretrained(tmp_path / "fused"), 1)) == 1


def test_a_quantised_model_dequantised(fuse, quantised, adapted, tmp_path):
    assert fuse(quantised, "--dequantize").status == 0
    a, b = read_adapter(adapted).matrices[Q]
    found = tensors(tmp_path / "fused")
    wanted = (dequantised(quantised, Q) + 2 * (a @ b).T).astype(mx.bfloat16)
    assert found[f"{Q}.weight"].dtype == mx.bfloat16 and (found[f"{Q}.weight"] == wanted).all().item()
    assert not any(name.endswith((".scales", ".biases")) for name in found)
    assert "quantization" not in config(tmp_path / "fused")
    ModelFolder(tmp_path / "fused")


# Presets


def test_a_voice_as_a_preset(fuse, loaded, base, checkpoint, adapted, tmp_path):
    """In the official layout: what is written of a converted folder has the axes of the official one again."""
    (adapted / "ben.safetensors").unlink()
    ran = fuse(base, "--as-preset", "anna")
    assert ran.status == 0 and "generate --voice anna speaks with one" in ran.err, ran.err
    made = config(tmp_path / "fused")
    assert made["tts_model_type"] == "custom_voice" and "conv_layout" not in made
    assert made["talker_config"]["spk_id"] == {"anna": 3000} and made["talker_config"]["spk_is_dialect"] == {
        "anna": False
    }
    before, after = tensors(checkpoint(NAME)), tensors(tmp_path / "fused")
    assert set(after) == {name for name in before if not name.startswith("speaker_encoder.")}
    row = after["talker.model.codec_embedding.weight"][3000]
    assert row.tolist() == vector(64, 3).tolist()
    inside = "speech_tokenizer/model.safetensors"
    codec, official = (mx.load(str(folder / inside)) for folder in (tmp_path / "fused", checkpoint(NAME)))
    assert set(codec) == set(official)
    for name, array in official.items():
        assert array.shape == codec[name].shape and (array == codec[name]).all().item(), name
    fused = Qwen3TTS.from_pretrained(tmp_path / "fused")
    assert fused.model_type == "custom_voice" and fused.speakers == ["anna"]
    loaded.adapt(adapted)
    own, options = vector(64, 3), {"greedy": True, "max_tokens": 6, "text_mode": "full"}
    theirs = loaded.generate("Hello there.", own, **options).codes.tolist()
    assert fused.generate("Hello there.", "anna", **options).codes.tolist() == theirs


def test_several_presets_beside_those_that_are_there(fuse, checkpoint, base, adapted, tmp_path):
    ran = fuse(base, "--as-preset", "ben", "--as-preset", "Anna")
    assert ran.status == 0
    assert config(tmp_path / "fused")["talker_config"]["spk_id"] == {"ben": 3000, "anna": 3001}
    rows = tensors(tmp_path / "fused")["talker.model.codec_embedding.weight"][3000:3002]
    assert rows.tolist() == [vector(64, 4).tolist(), vector(64, 3).tolist()]
    (adapted / "adapters.safetensors").unlink()
    ran = fuse(tmp_path / "fused", "--as-preset", "anna", output="more")
    assert ran.lines == ["error: the model has a preset anna already; give another name"]
    (adapted / "Anna.safetensors").rename(adapted / "carla.safetensors")
    assert fuse(tmp_path / "fused", "--as-preset", "carla", output="more").status == 0
    assert config(tmp_path / "more")["talker_config"]["spk_id"] == {"ben": 3000, "anna": 3001, "carla": 3002}


def test_a_voice_without_an_adapter_as_a_preset(fuse, checkpoint, adapted, tmp_path):
    """Where no adapter spoke better than the x-vector, that is what there is."""
    (adapted / "adapters.safetensors").unlink()
    assert fuse(checkpoint(NAME), "--as-preset", "anna").status == 0
    assert FUSED not in config(tmp_path / "fused")
    before, after = tensors(checkpoint(NAME)), tensors(tmp_path / "fused")
    assert (before[f"{Q}.weight"] == after[f"{Q}.weight"]).all().item()
    ran = fuse(checkpoint(NAME), output="more")
    assert ran.status == 2 and ran.lines[0].endswith("has no adapters.safetensors")


@pytest.mark.reference
@pytest.mark.parametrize("name", [NAME, "tune-1b7"])
def test_the_official_package_speaks_with_the_preset(name, checkpoint, command, tmp_path):
    model, folder = ModelFolder(checkpoint(name)), tmp_path / "lora"
    folder.mkdir()
    adapter_for(model, ALL).save(folder)
    Voice(vector(model.config.talker.hidden_size, 3)).save(folder / "voice.safetensors")
    given = ("--model", checkpoint(name), "--adapter-path", folder, "--mlx-path", "fused", "--as-preset", "anna")
    assert command("fuse", *given).status == 0
    case = speak("fused", "long", layout="full", preset="anna", language="english")
    arrays = run_reference(tmp_path / "fused", [case], tmp_path / "out.npz")
    check(Qwen3TTS.from_pretrained(tmp_path / "fused", dtype="float32"), case, arrays)


# What is refused


def test_what_cannot_be_a_preset(fuse, refused, base, quantised, checkpoint, adapted):
    def message(model, *arguments):
        given = ("--model", model, "--adapter-path", adapted, "--mlx-path", "fused")
        return refused("fuse", *given, *arguments)

    assert (
        message(quantised, "--as-preset", "ben") == "the official package reads no quantised weights; add --dequantize"
    )
    assert message(base, "--as-preset", "carla").endswith("lora has only Anna, ben")
    assert message(base, "--as-preset", "ben", "--as-preset", "Ben") == "as_preset ben is given twice"
    assert message(base, "--as-preset", "a/b").startswith("voice name 'a/b'")
    assert "was made for tiny, not for voice-design" in message(checkpoint("voice-design"))
    (adapted / "adapters.safetensors").unlink()
    design = message(checkpoint("voice-design"), "--as-preset", "ben")
    assert design == "a voice_design model has no speaker slot, and so no presets"
    Voice(np.ones(32, np.float32)).save(adapted / "ben.safetensors")
    assert "has 32 dimensions, this model takes 64" in message(base, "--as-preset", "ben")
    for voice in adapted.glob("*.safetensors"):
        voice.unlink()
    assert message(base, "--as-preset", "ben").endswith("lora has no voice")
    assert message(base).endswith("has no adapters.safetensors")


def test_places_that_cannot_be_written(fuse, base, tmp_path, monkeypatch):
    (tmp_path / "fused").mkdir()
    (tmp_path / "fused" / "mine.txt").touch()
    assert "exists and is not empty" in fuse(base).lines[0]
    assert "is not a Qwen3-TTS model folder" in fuse(base, "--overwrite").lines[0]
    assert fuse(base, output="other").status == 0
    assert fuse(base, "--overwrite", output="other").status == 0
    assert "overlaps the source" in fuse(base, output=base / "inside").lines[0] or (base / "inside").is_dir()
    shutil.rmtree(base / "inside", ignore_errors=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 10))
    ran = fuse(base, output="full")
    assert ran.status == 2 and "0.0 MB are free; make room" in ran.lines[0] and not (tmp_path / "full").exists()
