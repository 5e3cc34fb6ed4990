"""Model folders that are not whole or not ours."""

import json
import struct

import mlx.core as mx
import numpy as np
import pytest

KINDS = ("base", "custom-voice", "voice-design")


@pytest.fixture
def doors(audio, tmp_path):
    """Every command that opens a model, with the arguments it needs."""
    np.save(tmp_path / "codes.npy", np.zeros((2, 16), np.int32))
    return {
        "info": ("info",),
        "generate": ("generate", "Hello."),
        "embed": ("embed", audio, "--output", "v.npy"),
        "codec encode": ("codec", "encode", audio),
        "codec decode": ("codec", "decode", "codes.npy"),
    }


DOORS = ("info", "generate", "embed", "codec encode", "codec decode")


@pytest.mark.parametrize("door", DOORS)
def test_a_folder_that_is_no_model(door, doors, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    run = doors[door]
    assert (
        refused(*run, "--model", "nowhere") == "model 'nowhere': no such folder; name a folder or a hub id owner/name"
    )
    assert refused(*run, "--model", "file") == "model 'file' is a file, not a folder"
    assert refused(*run, "--model", "empty") == "empty has no config.json"
    assert "run convert first" in refused(*run)  # the default folder, where nothing has been converted yet


@pytest.mark.parametrize("door", DOORS)
def test_a_foreign_model(door, doors, refused, tmp_path):
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}))
    assert "model type 'llama'" in refused(*doors[door], "--model", "llama")


def test_the_codec_is_no_model_and_no_encoder(doors, refused, checkpoint):
    codec = checkpoint("base") / "speech_tokenizer"
    assert "model type 'qwen3_tts_tokenizer_12hz'" in refused(*doors["generate"], "--model", codec)
    assert "has no speaker encoder" in refused(*doors["embed"], "--model", codec)


@pytest.mark.parametrize("name", ["custom-voice", "voice-design", "fine-tune"])
def test_kinds_without_a_speaker_encoder(name, refused, checkpoint, audio):
    message = refused("embed", "--model", checkpoint(name), audio, "--output", "v.npy")
    assert "has no speaker encoder; use a Base model" in message
    message = refused("generate", "--model", checkpoint(name), "--ref-audio", audio, "--ref-text", "Hi.", "Hello.")
    assert "has no speaker encoder; embed recordings with a Base model" in message


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("inside", ["", "speech_tokenizer"])
def test_spoilt_weight_files(name, inside, refused, copy, speak):
    folder = copy(name, weights=True)
    file = folder / inside / "model.safetensors"
    whole = file.read_bytes()
    header = struct.unpack("<Q", whole[:8])[0]
    contents = {
        f"{file} is truncated: {len(whole) - 1} bytes of {len(whole)}": whole[:-1],
        f"{file} is truncated: {8 + header} bytes": whole[: 8 + header],
        f"{file} is truncated or not a safetensors file": whole[:1000],
        "is truncated or not a safetensors": b"",
        "not a safetensors file": b"PK\3\4" + bytes(100),
        "its header is not a JSON object": struct.pack("<Q", 8) + b"[1,2,3] ",
        "header is not a JSON object": struct.pack("<Q", 50000) + b"[" * 50000,
        "does not describe tensor a": struct.pack("<Q", 10) + b'{"a":null}',
        "its metadata are not strings": struct.pack("<Q", 24) + b'{"__metadata__":{"a":5}}',
        "not describe tensor a": struct.pack("<Q", 54) + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
    }
    for message, content in contents.items():
        file.write_bytes(content)
        assert message in refused("generate", *speak(name, folder), "Hello.")
        assert message in refused("info", "--model", folder)
    file.unlink()
    assert "has no model.safetensors" in refused("generate", *speak(name, folder), "Hello.")


TENSORS = {
    "missing tensor talker.model.norm.weight": lambda tensors: tensors.pop("talker.model.norm.weight"),
    "unexpected tensor lora.weight": lambda tensors: tensors.update({"lora.weight": mx.zeros(3)}),
    "tensor talker.codec_head.weight has shape [3072, 1], expected [3072, 64]": lambda tensors: tensors.update(
        {"talker.codec_head.weight": mx.zeros((3072, 1))}
    ),
    "tensor talker.model.norm.weight has dtype I32, expected a float": lambda tensors: tensors.update(
        {"talker.model.norm.weight": mx.zeros(64, mx.int32)}
    ),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("message", TENSORS)
def test_tensors_that_do_not_fit(name, message, refused, copy, speak):
    folder = copy(name, weights=True)
    tensors = mx.load(str(folder / "model.safetensors"))
    TENSORS[message](tensors)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    assert message in refused("generate", *speak(name, folder), "Hello.")
    assert message in refused("info", "--model", folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "model-00001.safetensors"}}, "has no model-00001.safetensors, which its index names"),
        ({"weight_map": {"a": "model.safetensors"}}, "tensor a is in the index but in no file"),
        ({"weight_map": ["a"]}, "weight_map does not name a file for each tensor"),
        ({"weight_map": {"a": 1}}, "weight_map does not name a file for each tensor"),
        ({}, "weight_map does not name a file for each tensor"),
        ([], "does not hold a JSON object"),
    ],
)
def test_a_spoilt_index(index, message, refused, copy):
    folder = copy()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert message in refused("info", "--model", folder)


@pytest.mark.parametrize(
    "file", ["config.json", "speech_tokenizer/config.json", "vocab.json", "generation_config.json"]
)
def test_files_that_are_not_json(file, refused, copy, speak):
    folder = copy("custom-voice")
    path = folder / file
    whole = path.read_bytes()
    contents = {whole[:-20]: "is not valid JSON", b"": "is not valid JSON", b"\xff{}": "is not valid JSON"}
    contents |= {b"[" * 50000: "is not valid JSON", b"[]": "does not hold a JSON object", b"null": "hold a JSON object"}
    for content, message in contents.items():
        path.write_bytes(content)
        told = refused("generate", *speak("custom-voice", folder), "Hello.")
        assert told.startswith(str(path)) and message in told
    path.unlink()
    path.mkdir()
    assert refused("generate", *speak("custom-voice", folder), "Hello.").startswith(f"{path} cannot be read")


CONFIGS = [
    ("", "tts_model_type", "singer", "tts_model_type 'singer' is not one of base, custom_voice, voice_design"),
    ("", "tokenizer_type", "25hz", "only the 12 Hz codec is supported"),
    ("", "talker_config", None, "talker_config: expected an object, found NoneType"),
    ("", "talker_config", [1], "talker_config: expected an object, found list"),
    ("", "im_end_token_id", 4711, "im_end_token_id 4711 is not an integer from 0 to 1023"),
    ("", "tts_pad_token_id", "3", "tts_pad_token_id '3' is not an integer"),
    ("", "conv_layout", "torch", "conv_layout 'torch' is not known"),
    ("", "quantization", {"bits": "eight"}, "no bits or group_size that MLX knows"),
    ("", "quantization", {"bits": 8.0}, "no bits or group_size that MLX knows"),
    (
        "",
        "quantization",
        {"bits": 8, "mode": "mxfp3"},
        "quantization mode 'mxfp3' is not one of affine, mxfp4, mxfp8, nvfp4",
    ),
    ("", "quantization", {"bits": 8, "group_size": 0}, "no bits or group_size that MLX knows"),
    ("talker_config", "hidden_size", None, "missing hidden_size"),
    ("talker_config", "hidden_size", "64", "hidden_size '64' is not a valid value for it"),
    ("talker_config", "num_attention_heads", 0, "num_attention_heads 0 is not a valid value for it"),
    ("talker_config", "num_hidden_layers", -1, "num_hidden_layers -1 is not a valid value for it"),
    ("talker_config", "head_dim", 10**12, "head_dim 1000000000000 is not a valid value for it"),
    ("talker_config", "rope_theta", [1], "rope_theta [1] is not a valid value for it"),
    ("talker_config", "hidden_act", "gelu", "hidden_act 'gelu' is not 'silu'"),
    ("talker_config", "codec_bos_id", 3072, "codec_bos_id 3072 is not an integer from 0 to 3071"),
    ("talker_config", "spk_id", {"anna": 5000}, "anna 5000 is not an integer from 0 to 3071"),
    ("talker_config", "codec_language_id", {"english": "x"}, "english 'x' is not an integer"),
    ("talker_config", "codec_language_id", ["english"], "codec_language_id ['english'] is not a valid value for it"),
    ("talker_config", "spk_is_dialect", {"eric": "klingon"}, "'klingon', is not in codec_language_id"),
    ("talker_config", "spk_is_dialect", {"eric": ["german"]}, "['german'], is not in codec_language_id"),
    ("speaker_encoder_config", "enc_dim", 32, "speaker encoder dimension 32 is not the talker's 64"),
    ("speaker_encoder_config", "enc_channels", [32], "enc_channels, enc_kernel_sizes and enc_dilations"),
    ("speaker_encoder_config", "enc_channels", [], "enc_channels [] is not a valid value for it"),
]


@pytest.mark.parametrize(("part", "key", "value", "message"), CONFIGS)
def test_broken_configurations(part, key, value, message, refused, copy, speak):
    folder = copy()
    config = json.loads((folder / "config.json").read_text())
    (config[part] if part else config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    assert message in refused("generate", *speak("base", folder), "Hello.")
    assert message in refused("info", "--model", folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("decoder_config", None, "decoder_config: expected an object"),
        ("input_sample_rate", 16000, "input and output sample rates differ"),
        ("encoder_valid_num_quantizers", "16", "encoder_valid_num_quantizers '16' is not a valid value for it"),
        ("encoder_valid_num_quantizers", 8, "the codec has 8 codebooks, the talker 16"),
        ("decode_upsample_rate", 960, "decode_upsample_rate is not 1920, the product of the decoder's"),
    ],
)
def test_broken_codec_configurations(key, value, message, refused, copy, speak):
    folder = copy("voice-design")
    path = folder / "speech_tokenizer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert message in refused("generate", *speak("voice-design", folder), "Hello.")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("temperature", "hot", "temperature must be a number, not 'hot'"),
        ("temperature", -1, "temperature -1 is not between 0 and 100"),
        ("temperature", float("nan"), "temperature nan is not between 0 and 100"),
        ("top_k", 5.5, "top_k must be an integer, not 5.5"),
        ("max_new_tokens", [8], "max_tokens must be an integer, not [8]"),
        ("repetition_penalty", "1.05", "repetition_penalty must be a number, not '1.05'"),
    ],
)
def test_sampling_values_of_a_wrong_type_in_the_checkpoint(key, value, message, refused, copy, speak):
    folder = copy("custom-voice")
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert refused("generate", *speak("custom-voice", folder), "Hello.") == f"{path}: {message}"


def test_spoilt_vocabularies(refused, copy, speak):
    folder = copy("custom-voice")
    run = ("generate", *speak("custom-voice", folder), "Hello.")
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    whole, lines = json.loads(vocab.read_text()), merges.read_text()
    for ids in ({"a": 1024}, {"a": -1}, {"a": "x"}, {"a": None}):
        vocab.write_text(json.dumps(whole | ids))
        assert refused(*run) == f"{vocab}: ids must be integers from 0 to 1023"
    vocab.write_text(json.dumps({token: i for token, i in whole.items() if token not in "äöü"}))
    assert refused(*run) == f"{vocab} has no token for 3 of the 256 bytes"
    vocab.write_text(json.dumps(whole))
    for content in (lines + "Ġ zzz\n", lines + "one\n", lines + "a b c\n", lines[:30]):
        merges.write_text(content)
        assert "does not fit vocab.json" in refused(*run)
    merges.write_bytes(b"\xff\xfe")
    assert refused(*run) == f"{merges} is not UTF-8"
    merges.unlink()
    assert refused(*run) == f"{folder} has no merges.txt"
    vocab.unlink()
    assert refused(*run) == f"{folder} has no vocab.json"
