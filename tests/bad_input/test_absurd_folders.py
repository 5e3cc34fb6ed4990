"""Model folders that are made to hurt: numbers, headers and files of absurd sizes, NaN. Each is refused at once."""

import json
import os
import struct
import time

import mlx.core as mx
import pytest

from mlx_qwen3tts import Codec, Qwen3TTS, SpeakerEncoder
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.checkpoint.presets import TABLE, read_preset
from mlx_qwen3tts.errors import CheckpointError, ConfigError
from mlx_qwen3tts.networks import config as limits
from mlx_qwen3tts.networks.config import ModelConfig


@pytest.fixture
def at_once(checkpoint):
    """Fails a test whose body took three seconds of this process's time; what is not seen at once takes minutes."""
    checkpoint("base")  # made once for all tests
    start = time.process_time()
    yield
    assert time.process_time() - start < 3  # some 0.4 s at most, but the collector of the whole suite's objects counts


def set_value(folder, keys, value, inside=""):
    path = folder / inside / "config.json"
    values = part = json.loads(path.read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(values))


ABSURD = [
    (("talker_config", "num_hidden_layers"), 10_000_000),
    (("talker_config", "num_hidden_layers"), 257),
    (("talker_config", "code_predictor_config", "num_hidden_layers"), 10_000_000),
    (("talker_config", "num_code_groups"), 10_000_000),
    (("talker_config", "rope_theta"), float("inf")),
    (("talker_config", "rope_theta"), float("nan")),
    (("talker_config", "rope_theta"), 10**400),
    (("talker_config", "rms_norm_eps"), 1e-300),
    (("talker_config", "hidden_size"), 10**401),
    (("talker_config", "num_attention_heads"), 1 << 20),
    (("talker_config", "head_dim"), 1 << 20),
    (("talker_config", "text_vocab_size"), 1 << 40),
    (("speaker_encoder_config", "enc_channels"), [32] * 10_000),
]


@pytest.mark.parametrize(("keys", "value"), ABSURD)
def test_absurd_numbers_in_the_configuration(keys, value, copy, refused, at_once):
    folder = copy()
    set_value(folder, keys, value)
    message = refused("info", "--model", folder)
    assert f"{keys[-1]} " in message and message.endswith(" is not a valid value for it") and len(message) < 400


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("decoder_config", "num_hidden_layers"), 10_000_000),
        (("decoder_config", "num_quantizers"), 10_000_000),
        (("decoder_config", "rope_theta"), float("inf")),
        (("encoder_config", "num_residual_layers"), 10_000_000),
        (("encoder_config", "upsampling_ratios"), [2] * 100),
        (("encoder_valid_num_quantizers",), 10**401),
    ],
)
def test_absurd_numbers_in_the_codecs_configuration(keys, value, copy, refused, at_once):
    folder = copy()
    set_value(folder, keys, value, "speech_tokenizer")
    message = refused("codec", "decode", "--model", folder, _codes(folder.parent))
    assert f"{keys[-1]} " in message and message.endswith(" is not a valid value for it") and len(message) < 400


def _codes(folder):
    import numpy as np

    np.save(folder / "codes.npy", np.zeros((2, 16), np.int32))
    return folder / "codes.npy"


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            ("talker_config", "num_key_value_heads"),
            3,
            "num_attention_heads 4 is not a multiple of num_key_value_heads 3",
        ),
        (("talker_config", "head_dim"), 31, "head_dim 31 is odd"),
        (("speaker_encoder_config", "enc_res2net_scale"), 7, "enc_res2net_scale 7 does not divide enc_channels 32"),
        (("speaker_encoder_config", "enc_channels"), [32, 32, 32, 32, 95], "the last is not the others' sum"),
        (("speaker_encoder_config", "enc_kernel_sizes"), [4, 3, 3, 3, 1], "enc_kernel_sizes [4, 3, 3, 3, 1]"),
    ],
)
def test_numbers_that_do_not_fit_each_other(keys, value, message, copy, refused):
    folder = copy()
    set_value(folder, keys, value)
    assert message in refused("info", "--model", folder)


def test_the_largest_numbers_that_are_taken_are_refused_by_the_files(copy, at_once):
    """Just below the limits networks are still built at once, so that the tensors can contradict the configuration."""
    folder = copy()
    path = folder / "config.json"
    values = json.loads(path.read_text())
    talker = {
        "num_hidden_layers": 256,
        "intermediate_size": limits.WIDEST,
        "head_dim": 4096,
        "text_vocab_size": 1 << 24,
    }
    values["talker_config"] |= {**talker, "num_attention_heads": 1024}
    values["talker_config"]["code_predictor_config"] |= {"num_hidden_layers": 256, "vocab_size": 1 << 24}
    path.write_text(json.dumps(values))
    ModelConfig.from_dict(values)
    with pytest.raises(CheckpointError, match=r"missing tensor .* and \d+ more"):
        ModelFolder(folder)


def sparse(path, content, size):
    """A file of `size` bytes that takes no room on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.truncate(size)


@pytest.mark.parametrize("inside", ["", "speech_tokenizer"])
def test_a_header_of_gigabytes(inside, copy, refused, at_once):
    folder = copy(weights=True)
    file = folder / inside / "model.safetensors"
    sparse(file, struct.pack("<Q", 3 << 30) + b'{"a":', (3 << 30) + 8)
    assert refused("info", "--model", folder) == (
        f"{file} is not a safetensors file: its header would be {3 << 30} bytes long"
    )


@pytest.mark.parametrize("name", ["config.json", "speech_tokenizer/config.json", "vocab.json"])
def test_a_configuration_of_gigabytes(name, copy, speak, refused, at_once):
    folder = copy()
    sparse(folder / name, b"{", 3 << 30)
    assert refused("generate", *speak("base", folder), "Hello.") == (
        f"{folder / name} has more than 32 MiB, too much for a file of that name"
    )


def test_a_configuration_that_never_ends(copy, refused):
    folder = copy()
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert refused("info", "--model", folder) == f"{folder / 'config.json'} cannot be read: not a regular file"


def test_a_pointer_in_place_of_the_weights(copy, refused):
    folder = copy(weights=True)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "only a pointer to the file; fetch the file itself with `git lfs pull`" in refused("info", "--model", folder)


# NaN


def spoil(folder, name, value=float("nan"), place=-1):
    """Put one value into a tensor of a folder's file."""
    tensors = mx.load(str(folder / "model.safetensors"))
    flat = tensors[name].reshape(-1)
    flat[place] = value
    tensors[name] = flat.reshape(tensors[name].shape)
    mx.eval(tensors)
    (folder / "model.safetensors").unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "name",
    [
        "talker.model.layers.1.self_attn.k_proj.weight",  # fused with others
        "talker.model.layers.1.self_attn.q_norm.weight",
        "talker.code_predictor.model.codec_embedding.3.weight",
        "talker.text_projection.linear_fc1.bias",
        "talker.codec_head.weight",
    ],
)
def test_nan_in_the_talker(name, value, copy):
    folder = copy(weights=True)
    spoil(folder, name, float(value))
    with pytest.raises(CheckpointError, match=f"tensor {name} has values that are NaN or infinite"):
        Qwen3TTS.from_pretrained(folder)


def test_nan_in_the_encoder_and_the_codec(copy, refused, speak):
    folder = copy(weights=True)
    name, codec = "speaker_encoder.blocks.1.res2net_block.blocks.2.conv.weight", folder / "speech_tokenizer"
    spoil(folder, name)
    with pytest.raises(CheckpointError, match=f"tensor {name} has values that are NaN or infinite"):
        SpeakerEncoder.from_pretrained(folder)
    name = "decoder.decoder.1.block.0.alpha"
    spoil(codec, name)
    assert f"{codec / 'model.safetensors'}: tensor {name} has values" in refused(
        "generate", *speak("base", folder), "Hello."
    )
    name = "encoder.quantizer.acoustic_residual_vector_quantizer.layers.3.codebook.embed_sum"
    spoil(codec, name)
    with pytest.raises(CheckpointError, match=f"tensor {name} has values"):
        assert Codec.from_pretrained(folder).encoder


def test_nan_in_a_preset_and_in_a_scale(copy):
    folder = copy("custom-voice", weights=True)
    row = ModelFolder(folder).config.talker.spk_id["ryan"]
    spoil(folder, f"{TABLE}.weight", place=row * 64 + 5)
    with pytest.raises(CheckpointError, match="the preset ryan has values that are NaN or infinite"):
        read_preset(ModelFolder(folder), "ryan")
    assert read_preset(ModelFolder(folder), "vivian")[1] == "vivian"


def test_large_values_are_not_taken_for_nan(copy):
    """Their sum overflows, the values are finite. Of what float16 cannot hold the message says just that."""
    folder = copy(weights=True)
    name = "talker.model.layers.0.mlp.up_proj.weight"
    spoil(folder, name, 3e38, slice(None, None, 64))  # a column
    assert ModelFolder(folder).load_talker(mx.float32) is not None
    with pytest.raises(CheckpointError, match=f"tensor {name} has values that float16 cannot hold; use bfloat16"):
        ModelFolder(folder).load_talker(mx.float16)


def test_a_config_error_is_a_checkpoint_error(copy):
    folder = copy()
    set_value(folder, ("talker_config", "rope_theta"), float("inf"))
    for opened in (Qwen3TTS, SpeakerEncoder):
        with pytest.raises(ConfigError):
            opened.from_pretrained(folder)
