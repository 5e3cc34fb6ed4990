"""Folders quantised as mxfp4, mxfp8 or nvfp4: their scales are bits, which no dtype may change, without biases."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.checkpoint.presets import TABLE, read_preset
from mlx_qwen3tts.checkpoint.quantization import MICROSCALED
from mlx_qwen3tts.errors import CheckpointError

LAYER = "talker.model.layers.0.self_attn.q_proj"


def edit(folder, change, **config):
    """Rewrite a folder's tensors after `change` has had them, and set keys of its configuration."""
    file, path = folder / "model.safetensors", folder / "config.json"
    tensors = mx.load(str(file))
    change(tensors)
    mx.eval(tensors)
    file.unlink()
    mx.save_safetensors(str(file), tensors, metadata={"format": "mlx"})
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def quantised(tensors, mode):
    """{name: what mx.quantize makes of it}: projections, heads and embeddings of the talker and the predictor."""
    width = 64 if mode == "nvfp4" else 32
    names = [
        name
        for name, value in tensors.items()
        if name.startswith("talker.") and value.ndim == 2 and value.shape[1] % width == 0
    ]
    return {name: mx.quantize(tensors[name], mode=mode) for name in names}


@pytest.fixture(scope="module", params=MICROSCALED)
def folders(request, checkpoint, tmp_path_factory):
    """(mode, a folder quantised so, one with the numbers that mx.dequantize makes of it, stored as bfloat16)."""
    mode, root = request.param, tmp_path_factory.mktemp("microscaled")
    packed, plain = (shutil.copytree(checkpoint("custom-voice"), root / name) for name in ("packed", "plain"))

    def pack(tensors):
        for name, (weight, scales) in quantised(tensors, mode).items():
            tensors |= {name: weight, f"{name.removesuffix('weight')}scales": scales}

    def round_off(tensors):
        for name, (weight, scales) in quantised(tensors, mode).items():
            tensors[name] = mx.dequantize(weight, scales, mode=mode, dtype=mx.bfloat16)

    edit(packed, pack, quantization={**MICROSCALED[mode], "mode": mode})
    edit(plain, round_off)
    return mode, packed, plain


@pytest.fixture
def spoilt(folders, tmp_path):
    """A copy of a quantised folder to spoil."""
    return shutil.copytree(folders[1], tmp_path / "model")


def greedy(tts, voice):
    return np.array(tts.generate("Hello the ant.", voice, greedy=True, max_tokens=8, seed=1).codes)


@pytest.mark.filterwarnings("ignore:the speech did not end")
def test_they_speak_as_what_dequantising_makes_of_them(folders):
    _, packed, plain = folders
    ours, theirs = (Qwen3TTS.from_pretrained(folder, dtype="float32") for folder in (packed, plain))
    assert mx.array_equal(ours.talker.codes, theirs.talker.codes) and ours.talker.codes.dtype == mx.float32
    prompts = [tts.prompt("Hello.", tts.voice(vector(64, 1))).embeddings[None] for tts in (ours, theirs)]
    assert prompts[0].dtype == mx.float32 and mx.abs(prompts[0] - prompts[1]).max().item() < 1e-3
    logits = [tts.talker(prompts[1], tts.talker.make_cache())[0] for tts in (ours, theirs)]
    assert mx.abs(logits[0] - logits[1]).max().item() < 1e-2 * mx.abs(logits[1]).max().item()
    assert (greedy(ours, "ryan") == greedy(theirs, "ryan")).all()


def test_scales_are_never_cast(folders):
    _, packed, _ = folders
    stored = mx.load(str(packed / "model.safetensors"))
    for dtype in (mx.float16, mx.bfloat16, mx.float32):
        talker = ModelFolder(packed).load_talker(dtype)
        qkv, size = talker.model.layers[0].self_attn.qkv_proj, stored[f"{LAYER}.scales"].shape[0]
        assert qkv.scales.dtype == mx.uint8 and mx.array_equal(qkv.scales[:size], stored[f"{LAYER}.scales"])
        assert qkv.weight.dtype == mx.uint32 and "biases" not in qkv
        assert talker.dtype == talker.embed_text(mx.array([1, 2])).dtype == dtype


def test_presets_are_rows_of_the_quantised_table(folders):
    _, packed, _ = folders
    for dtype in (None, mx.float32):
        folder = ModelFolder(packed)
        row = folder.load_talker(dtype).codes[folder.config.talker.spk_id["ryan"]]
        assert mx.array_equal(read_preset(folder, "ryan", dtype)[0], row.astype(mx.float32))


def test_a_layer_may_have_a_mode_of_its_own(checkpoint, tmp_path):
    """As in folders that keep some layers at 8 bits; without a mode a block is affine."""
    folder = shutil.copytree(checkpoint("base"), tmp_path / "model")
    other = LAYER.replace("q_proj", "k_proj")

    def change(tensors):
        weight, scales = mx.quantize(tensors[f"{LAYER}.weight"], mode="nvfp4")
        tensors |= {f"{LAYER}.weight": weight, f"{LAYER}.scales": scales}
        parts = mx.quantize(tensors[f"{other}.weight"], group_size=32, bits=8)
        tensors |= {f"{other}.{leaf}": part for leaf, part in zip(("weight", "scales", "biases"), parts, strict=True)}

    edit(
        folder,
        change,
        quantization={"group_size": 16, "bits": 4, "mode": "nvfp4", other: {"group_size": 32, "bits": 8}},
    )
    layers = ModelFolder(folder).load_talker().model.layers[0].self_attn.qkv_proj.layers
    assert [(getattr(layer, "mode", None), getattr(layer, "bits", None)) for layer in layers] == [
        ("nvfp4", 4),
        ("affine", 8),
        (None, None),
    ]


@pytest.mark.parametrize("name", [LAYER, TABLE])
def test_bits_that_are_not_numbers_are_found(name, spoilt):
    """The scale 255 is NaN in the formats E8M0 and E4M3."""

    def change(tensors):
        scales = np.array(tensors[f"{name}.scales"])
        scales[3, 0] = 255
        tensors[f"{name}.scales"] = mx.array(scales)

    edit(spoilt, change)
    with pytest.raises(CheckpointError, match=f"tensor {name}.weight has values that are NaN or infinite"):
        ModelFolder(spoilt).load_talker()


def test_everything_else_is_strict(folders, spoilt):
    refused = {
        f"unexpected tensor {LAYER}.biases": lambda tensors: {f"{LAYER}.biases": mx.zeros((128, 2))},
        f"{LAYER}.scales has dtype BF16, expected U8": lambda tensors: {
            f"{LAYER}.scales": tensors[f"{LAYER}.scales"].astype(mx.bfloat16)
        },
    }
    for message, change in refused.items():
        edit(spoilt, lambda tensors, change=change: tensors.update(change(tensors)))
        with pytest.raises(CheckpointError, match=message):
            ModelFolder(spoilt)
        shutil.copyfile(folders[1] / "model.safetensors", spoilt / "model.safetensors")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"mode": "mxfp4", "bits": 8, "group_size": 32}, "no bits or group_size that MLX knows"),
        ({"mode": "nvfp4", "group_size": 32}, "no bits or group_size that MLX knows"),
        ({"mode": "mxfp3"}, "mode 'mxfp3' is not one of affine, mxfp4, mxfp8, nvfp4"),
        ({"mode": ["mxfp4"]}, r"mode \['mxfp4'\] is not one of"),
        ({"bits": 8, "group_size": 128}, f"{TABLE} cannot be affine: its width 64 is not divisible by 128"),
    ],
)
def test_settings_that_cannot_be(block, message, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("custom-voice"), tmp_path / "model")
    edit(folder, lambda tensors: tensors.update({f"{TABLE}.scales": mx.zeros((3072, 2))}), quantization=block)
    with pytest.raises(CheckpointError, match=message):
        ModelFolder(folder)
