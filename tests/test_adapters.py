"""Adapters that are spoken with: where they lie, what they add, what they leave as it was, which are refused.

Their training is in tuning/test_lora.py, merging in test_fuse.py.
"""

import json
import shutil
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.checkpoint import adapters
from mlx_qwen3tts.checkpoint.adapters import CONFIG, IDENTITY, TENSORS, Adapter, identity, read_adapter, sites
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.convert import convert
from mlx_qwen3tts.errors import AdapterError, InvalidValue, OutputError
from mlx_qwen3tts.networks.linear import Adapted
from mlx_qwen3tts.synthesis.request import Request
from mlx_qwen3tts.synthesis.resuming import identities
from tests.folders import edit

NAME = "tune-0b6"
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapter_for(folder, keys=("q_proj", "v_proj"), size=0.3, rank=3, **changes):
    """An Adapter of random matrices for a ModelFolder; size: of what it adds, 0 for nothing."""
    random, matrices = np.random.RandomState(1), {}
    for name, site in sites(folder.talker).items():
        if name.endswith(keys):
            a = random.normal(0, site.place.inputs**-0.5, (site.place.inputs, rank)).astype(np.float32)
            b = random.normal(0, size, (rank, site.place.last - site.place.first)).astype(np.float32)
            matrices[name] = (mx.array(a), mx.array(b))
    return replace(Adapter(matrices, 2.0, {"model": "tiny", IDENTITY: identity(folder)}), **changes)


def spoken(tts, frames=5, **options):
    voice = vector(tts.embedding_dim, 3)
    return tts.generate("Hello there.", voice, greedy=True, max_tokens=frames + 1, **options).codes.tolist()


@pytest.fixture
def tts(model):
    loaded = model(NAME)
    yield loaded
    loaded.adapt(None)


@pytest.fixture
def saved(tts, tmp_path):
    """A folder with an adapter."""
    folder = tmp_path / "anna-lora"
    folder.mkdir()
    adapter_for(tts.folder).save(folder)
    return folder


def test_every_projection_has_its_published_name(tts):
    known = sites(tts.talker)
    linear = [name for name in tts.folder.part.expected if ".layers." in name and name.endswith("proj.weight")]
    assert sorted(f"{name}.weight" for name in known) == sorted(linear)
    for name, site in known.items():
        shape, _ = tts.folder.part.expected[f"{name}.weight"]
        assert shape == (site.place.last - site.place.first, site.place.inputs)


def test_scale_0_is_the_base_after_scale_1(tts):
    """Exactly: the same layers, and steps that are compiled anew."""
    base, voice = spoken(tts), vector(tts.embedding_dim, 3)
    adapter = adapter_for(tts.folder)
    tts.adapt(adapter)
    with_it = spoken(tts)
    assert with_it != base and tts.adapted
    tts.adapt(adapter, 0)
    assert spoken(tts) == base and tts.adapted is None
    assert not any(isinstance(part, Adapted) for _, part in tts.talker.named_modules())
    tts.adapt(adapter, 0.5)
    assert spoken(tts) not in (base, with_it)
    tts.adapt(None)
    assert spoken(tts) == base
    assert tts.generate("Hello there.", voice, seed=3, max_tokens=5).codes.shape[1] == 16


@pytest.mark.parametrize("keys", [("q_proj", "v_proj"), ALL])
def test_an_adapter_that_adds_nothing_changes_no_number(tts, keys):
    x = mx.array(np.random.RandomState(0).normal(size=(2, 7, tts.embedding_dim)).astype(np.float32))
    base = tts.talker(x, tts.talker.make_cache())
    codes = spoken(tts)
    tts.adapt(adapter_for(tts.folder, keys, size=0.0))
    for one, other in zip(base, tts.talker(x, tts.talker.make_cache()), strict=True):
        assert (np.array(one) == np.array(other)).all()
    assert spoken(tts) == codes


@pytest.mark.parametrize("keys", [("q_proj", "v_proj"), ALL])
def test_it_is_what_published_weights_with_it_merged_in_compute(tts, checkpoint, tmp_path, keys):
    folder = tmp_path / "merged"
    shutil.copytree(checkpoint(NAME), folder)
    adapter = adapter_for(tts.folder, keys)

    def merge(tensors):
        for name in [name for name in tensors if name.startswith("talker.")]:
            tensors[name] = tensors[name].astype(mx.float32)
        for name, (a, b) in adapter.matrices.items():
            tensors[f"{name}.weight"] = tensors[f"{name}.weight"] + 2 * (a @ b).T

    edit(folder, merge)
    tts.adapt(adapter)
    assert spoken(tts, 8) == spoken(Qwen3TTS.from_pretrained(folder, dtype="float32"), 8)


@pytest.fixture(scope="module")
def quantised(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised") / "model"
    convert(checkpoint(NAME), folder, quantize=True, q_bits=4, q_group_size=32)
    return folder


def test_a_quantised_base(tts, quantised, saved):
    """The same adapter, since quantising leaves a model the model that it is; and scale 0 is the quantised base."""
    assert identity(ModelFolder(quantised)) == identity(tts.folder)
    plain = Qwen3TTS.from_pretrained(quantised, dtype="float32")
    base = spoken(plain)
    adapted = Qwen3TTS.from_pretrained(quantised, "float32", adapter_path=saved)
    assert spoken(adapted) != base
    adapted.adapt(saved, 0)
    assert spoken(adapted) == base


def test_bfloat16_is_added_in_bfloat16(checkpoint, saved):
    tts = Qwen3TTS.from_pretrained(checkpoint(NAME), adapter_path=str(saved), adapter_scale=0.5)
    layers = [part for _, part in tts.talker.named_modules() if isinstance(part, Adapted)]
    assert len(layers) == len({id(site.owner) for site in sites(tts.talker).values() if "q_proj" in site.owner.places})
    assert {layer.down.dtype for layer in layers} | {layer.up.dtype for layer in layers} == {mx.bfloat16}
    assert len(spoken(tts)) == 5 and tts.adapted == f"{read_adapter(saved).digest} 0.5"


# Files


def test_a_folder_in_the_form_of_mlx_lm(tts, saved):
    values = json.loads((saved / CONFIG).read_text())
    assert values["fine_tune_type"] == "lora" and values["num_layers"] == 3
    told = {"rank": 3, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj", "self_attn.v_proj"]}
    assert values["lora_parameters"] == told
    tensors = mx.load(str(saved / TENSORS))
    q = "talker.model.layers.0.self_attn.q_proj"
    width, outputs = tts.embedding_dim, tts.folder.part.expected[f"{q}.weight"][0][0]
    assert tensors[f"{q}.lora_a"].shape == (width, 3) and tensors[f"{q}.lora_b"].shape == (3, outputs)
    assert "talker.code_predictor.model.layers.1.self_attn.v_proj.lora_b" in tensors
    again, made = read_adapter(saved), adapter_for(tts.folder)
    assert again.digest == made.digest and again.scale == 2.0 and again.values[IDENTITY] == identity(tts.folder)


def change(folder, **changes):
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_adapter_for_another_model(tts, model, saved):
    """Of the same shapes and of others; one that does not say what it is for is taken where it fits."""
    with pytest.raises(AdapterError, match=f"{saved} was made for tiny, not for {NAME}") as refused:
        adapters_of_another = adapter_for(tts.folder).values | {IDENTITY: "0" * 32}
        tts.adapt(Adapter(adapter_for(tts.folder).matrices, 2.0, adapters_of_another, str(saved)))
    assert refused.value.param == "adapter_path" and tts.adapter is None
    with pytest.raises(AdapterError, match="was made for tiny, not for tune-1b7"):
        model("tune-1b7").adapt(saved)
    own = adapter_for(tts.folder, values={})
    with pytest.raises(AdapterError, match=r"q_proj has \[64, 3\] and \[3, \d+\], not the \[32, r\] and \[r, \d+\] of"):
        model("tune-1b7").adapt(own)
    tts.adapt(own)
    other = replace(own, matrices={"talker.model.layers.9.self_attn.q_proj": next(iter(own.matrices.values()))})
    with pytest.raises(AdapterError, match=r"has no layer talker\.model\.layers\.9\.self_attn"):
        tts.adapt(other)
    assert tts.adapter is own, "a refusal changes nothing"


def test_what_was_merged_into_a_model_makes_it_another(tts, checkpoint, tmp_path):
    folder = tmp_path / "fused"
    shutil.copytree(checkpoint(NAME), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, adapters.FUSED: ["1234"]}))
    assert identity(ModelFolder(folder)) != identity(tts.folder)


def test_folders_that_hold_no_adapter(saved, tmp_path):
    def refused(folder, message):
        with pytest.raises(AdapterError, match=message) as found:
            read_adapter(folder)
        assert found.value.param == "adapter_path"

    refused(tmp_path / "none", "no such folder; name one that `tune lora` made")
    refused(tmp_path, "has no adapter_config.json")
    for values, message in (
        ({"fine_tune_type": "dora"}, 'fine_tune_type "dora" is not lora'),
        ({"lora_parameters": {"rank": 3}}, "has no lora_parameters with a scale"),
        ({"lora_parameters": {"scale": 1e9}}, "has no lora_parameters with a scale"),
    ):
        copy = tmp_path / "copy"
        shutil.copytree(saved, copy)
        change(copy, **values)
        refused(copy, message)
        shutil.rmtree(copy)
    change(saved, lora_parameters={"scale": 1.0})
    refused(saved, "are of two adapters; one of them was replaced")
    x = mx.ones((2, 2))
    for tensors, message in (
        ({"x.lora_a": x}, "no pair lora_a .* for x.lora_b"),
        ({"x.lora_a": x, "x.lora_b": x, "y.weight": x}, "no pair lora_a .* for y.lora_a, y.lora_b and 1 more"),
        ({"x.lora_a": x, "x.lora_b": mx.ones(2)}, "no pair lora_a .* for x.lora_b"),
        ({"x.lora_a": x * float("nan"), "x.lora_b": x}, "tensor x.lora_a has values that are NaN or infinite"),
        ({}, "has no tensors"),
    ):
        mx.save_safetensors(str(saved / TENSORS), tensors)
        refused(saved, message)
    (saved / TENSORS).unlink()
    refused(saved, "has no adapters.safetensors")


def test_a_full_disk(tts, saved, monkeypatch):
    """Neither file is half written, and a pair that does not belong together is found out."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = (saved / CONFIG).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", full)
        with pytest.raises(OutputError, match=r"adapter_config\.json: No space left on device"):
            adapter_for(tts.folder, size=0.1).save(saved)
    assert (saved / CONFIG).read_bytes() == before and len(list(saved.iterdir())) == 2
    assert read_adapter(saved).digest == adapter_for(tts.folder, size=0.1).digest


# Commands


@pytest.mark.parametrize("name", ["generate", "serve", "script", "dub"])
def test_a_scale_of_nothing(name, refused, tmp_path):
    (tmp_path / "a.txt").write_text("Hello.")
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello.\n")
    given = {"generate": ["Hello.", "--voice", "x"], "serve": [], "script": ["render", "a.txt", "--output", "o.wav"]}
    given["dub"] = ["a.srt", "--output", "o.wav"]
    message = "--adapter-scale belongs to --adapter-path, which is not given"
    assert refused(name, *given[name], "--adapter-scale", "0.5") == message


@pytest.mark.parametrize("name", ["serve", "script", "dub"])
def test_other_commands_load_it(name, refused, tmp_path, monkeypatch):
    """With how much of it is asked for; what becomes of it then is the model's."""

    def load(*_, **given):
        raise InvalidValue(f"loaded with {given}")

    monkeypatch.setattr(Qwen3TTS, "from_pretrained", load)
    (tmp_path / "a.txt").write_text("Hello.")
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello.\n")
    given = {"serve": ["--port", 0], "script": ["render", "a.txt", "--output", "o.wav"]}
    given["dub"] = ["a.srt", "--output", "o.wav", "--voice", "x"]
    for more, scale in ((("--adapter-scale", 0.5), 0.5), ((), 1.0)):
        message = refused(name, *given[name], "--adapter-path", "lora", *more)
        assert message == f"loaded with {{'adapter_path': 'lora', 'adapter_scale': {scale}}}"


def test_generate_speaks_with_an_adapter(command, checkpoint, saved, tts, tmp_path):
    np.save(tmp_path / "v.npy", np.array(vector(tts.embedding_dim, 3)))
    given = ("--model", checkpoint(NAME), "--dtype", "float32", "--embedding", "v.npy", "--greedy", "--max-tokens", 6)

    def codes(*more):
        ran = command("generate", *given, "--codes-output", "c.npy", "Hello there.", *more)
        assert ran.status == 0, ran.err
        return np.load(tmp_path / "c.npy").tolist()

    tts.adapt(saved, 0.5)
    assert codes("--adapter-path", saved, "--adapter-scale", "0.5") == spoken(tts)
    ran = command("generate", *given, "Hello.", "--adapter-path", "none")
    assert ran.status == 2 and ran.lines == ["error: adapter none: no such folder; name one that `tune lora` made"]


def test_an_unfinished_batch_knows_the_adapter(tts, saved):
    asked = [Request("Hello.", vector(tts.embedding_dim, 3), seed=1)]
    words = [identities(tts, asked)]
    for scale in (1.0, 0.5, 0.0):
        tts.adapt(saved, scale)
        words.append(identities(tts, asked))
    assert words[3] == words[0] and len({str(word) for word in words}) == 3


def test_workers_speak_without(refused, saved, tmp_path):
    (tmp_path / "a.txt").write_text("Hello.")
    given = ("a.txt", "--output", "o.wav", "--adapter-path", saved, "--workers", "tcp://localhost:1")
    assert refused("script", "render", *given).startswith("--workers speak without an adapter; fuse it into a model")


@pytest.mark.parametrize("scale", [float("nan"), 1e300, -101])
def test_bad_scales(tts, saved, scale):
    with pytest.raises(InvalidValue, match=r"adapter_scale .* is not between -100\.0 and 100\.0"):
        tts.adapt(saved, scale)
    assert tts.adapter is None
