"""Presets read from the files are what the loaded model speaks with, in every form of folder."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest

from convert.random_checkpoint import DIALECTS, PRESETS
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.checkpoint.part import check_dtype
from mlx_qwen3tts.checkpoint.presets import TABLE, find_preset, preset_names, read_preset
from mlx_qwen3tts.convert import convert
from mlx_qwen3tts.errors import UnsupportedValue, VoiceNotFound, WrongType


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint("custom-voice"), tmp_path / "copy")


def quantised(folder, bits):
    """Quantise the codec embedding in a folder, as some community copies have it, with bits of its own."""
    file, path = folder / "model.safetensors", folder / "config.json"
    tensors = mx.load(str(file))
    packed = mx.quantize(tensors[f"{TABLE}.weight"], group_size=32, bits=bits)
    tensors |= {f"{TABLE}.{name}": part for name, part in zip(("weight", "scales", "biases"), packed, strict=True)}
    mx.eval(tensors)
    mx.save_safetensors(str(file), tensors, metadata={"format": "mlx"})
    block = {"group_size": 64, "bits": 8, TABLE: {"group_size": 32, "bits": bits}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization": block}))


def sharded(folder):
    file = folder / "model.safetensors"
    tensors = mx.load(str(file))
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    for shard in set(where.values()):
        mx.save_safetensors(str(folder / shard), {name: tensors[name] for name in where if where[name] == shard})
    file.unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def agrees(folder, dtype=None):
    """Whether every preset read from the files is what the loaded talker has; the presets' names."""
    files, tts = ModelFolder(folder), Qwen3TTS.from_pretrained(folder, dtype=dtype)
    for name in preset_names(files.config):
        vector, found, dialect = read_preset(files, name.upper(), check_dtype(dtype))
        row = tts.talker.embed_codec(mx.array([tts.config.talker.spk_id[name]]))[0]
        assert (found, vector.dtype) == (name, mx.float32)
        assert np.array_equal(np.array(vector), np.array(row.astype(mx.float32)))
        voice = tts.preset(name)
        assert np.array_equal(np.array(vector), np.array(voice.embedding))
        assert dialect == voice.metadata.get("dialect")
    return preset_names(files.config)


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_official_presets(checkpoint, dtype):
    assert agrees(checkpoint("custom-voice"), dtype) == list(PRESETS)
    assert agrees(checkpoint("fine-tune"), dtype) == ["anna"]


@pytest.mark.filterwarnings("ignore:left unquantised")
@pytest.mark.parametrize("quantize", [False, True])
def test_converted_presets(checkpoint, tmp_path, quantize):
    source, out = checkpoint("custom-voice"), tmp_path / "out"
    convert(source, out, quantize=quantize, dtype="float32", max_shard_size="300KB")
    assert agrees(out) == agrees(out, "bfloat16") == list(PRESETS)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_presets_of_a_quantised_table(copy, checkpoint, bits):
    quantised(copy, bits)
    assert agrees(copy) and agrees(copy, "float32")
    plain, rounded = (read_preset(ModelFolder(folder), "ryan")[0] for folder in (checkpoint("custom-voice"), copy))
    step = 1 / (2 ** (bits - 1) - 1) + 2**-7  # of the quantisation, and of bfloat16
    assert 0 < mx.abs(plain - rounded).max().item() < mx.abs(plain).max().item() * step


def test_presets_of_a_sharded_folder(copy):
    sharded(copy)
    assert agrees(copy)


def test_presets_are_read_without_the_talker(checkpoint, monkeypatch):
    folder = ModelFolder(checkpoint("custom-voice"))
    monkeypatch.setattr(ModelFolder, "load_talker", None)
    monkeypatch.setattr(mx, "load", None)
    assert [read_preset(folder, name)[2] for name in ("Eric", "DYLAN", "ryan")] == [*DIALECTS.values(), None]
    assert find_preset(folder.config, "Uncle_Fu") == "uncle_fu" and find_preset(folder.config, "nobody") is None


def test_presets_are_the_same_once_the_talker_is_loaded(copy):
    quantised(copy, 8)
    folder = ModelFolder(copy)
    before = read_preset(folder, "ryan")[0]
    folder.load_talker()
    assert mx.array_equal(before, read_preset(folder, "ryan")[0]).item()


def test_presets_that_there_are_not(checkpoint):
    with pytest.raises(VoiceNotFound, match=r"voice 'alice' is not one of serena, vivian, ") as raised:
        read_preset(ModelFolder(checkpoint("custom-voice")), "alice")
    assert raised.value.param == "voice"
    with pytest.raises(UnsupportedValue, match="voice 'ryan': a base model has no presets") as raised:
        read_preset(ModelFolder(checkpoint("base")), "ryan")
    assert raised.value.param == "voice"
    with pytest.raises(WrongType, match="a preset's name must be a string, not 3"):
        read_preset(ModelFolder(checkpoint("base")), 3)
