"""Every form of folder loads strictly: official, community MLX (quantised too), fine-tuned, standalone encoder."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import recording, vector
from mlx_qwen3tts import Codec, Qwen3TTS
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.checkpoint.presets import read_preset
from mlx_qwen3tts.checkpoint.speaker import SpeakerEncoder, load_encoder_alone
from mlx_qwen3tts.errors import CheckpointError, UnsupportedValue


def speak(folder, **options):
    tts = Qwen3TTS.from_pretrained(folder, dtype="float32")
    return np.array(tts.generate("Hello.", vector(64, 1), greedy=True, max_tokens=6, **options).codes)


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint("base"), tmp_path / "model")


def rewrite(folder, change, metadata=None):
    """Load a folder's tensors, let `change` edit the dictionary, write them back."""
    tensors = mx.load(str(folder / "model.safetensors"))
    change(tensors)
    mx.eval(tensors)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata=metadata or {})


def to_community(tensors):
    """Convolutions as the community's MLX copies have them."""
    for name, value in tensors.items():
        if name.startswith("speaker_encoder") and value.ndim == 3:
            tensors[name] = mx.contiguous(value.transpose(0, 2, 1))


def set_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_community_copies_have_their_convolutions_transposed(copy, checkpoint, tmp_path):
    audio = recording(tmp_path / "a.wav", 1, 0.7)
    official = Qwen3TTS.from_pretrained(checkpoint("base"))
    rewrite(copy, to_community, {"format": "mlx"})
    community = Qwen3TTS.from_pretrained(copy)
    assert np.array_equal(np.array(official.embed(audio)), np.array(community.embed(audio)))
    assert (speak(copy) == speak(checkpoint("base"))).all()
    assert np.array_equal(np.array(official.codec.encode(audio)), np.array(community.codec.encode(audio)))


def test_community_quantised_copies_load_by_their_config(copy):
    def quantise(tensors):
        to_community(tensors)
        for name in [n for n in tensors if n.endswith("proj.weight") and "talker.model" in n]:
            if tensors[name].shape[1] % 32 == 0:
                path = name.removesuffix(".weight")
                packed = mx.quantize(tensors[name], group_size=32, bits=8)
                tensors[name], tensors[f"{path}.scales"], tensors[f"{path}.biases"] = packed

    whole = speak(copy)
    rewrite(copy, quantise, {"format": "mlx"})
    set_config(copy, quantization={"group_size": 32, "bits": 8, "mode": "affine"})
    tts = Qwen3TTS.from_pretrained(copy)
    logits, _ = tts.talker(tts.prompt("Hello.", tts.voice(vector(64, 1))).embeddings[None], tts.talker.make_cache())
    assert tts.talker.model.layers[0].self_attn.qkv_proj.scales is not None
    assert logits.dtype == mx.bfloat16 and speak(copy).shape == whole.shape


def test_a_fine_tune_speaks_with_the_row_its_speaker_has(checkpoint):
    tts = Qwen3TTS.from_pretrained(checkpoint("fine-tune"), dtype="float32")
    rows = mx.load(str(checkpoint("fine-tune") / "model.safetensors"))["talker.model.codec_embedding.weight"]
    assert tts.speakers == ["anna"]
    assert np.array_equal(np.array(tts.preset("Anna").embedding), np.array(rows[3000].astype(mx.float32)))
    with pytest.raises(UnsupportedValue, match="custom_voice model has no speaker encoder"):
        tts.embed(np.zeros(24000, np.float32))


@pytest.mark.parametrize("prefix", ["speaker_encoder.", ""])
@pytest.mark.parametrize("layout", ["official", "mlx"])
@pytest.mark.parametrize("nested", [True, False])
def test_a_standalone_encoder_embeds(checkpoint, tmp_path, prefix, layout, nested):
    audio = recording(tmp_path / "a.wav", 2, 0.8)
    source = checkpoint("base")
    tensors = {n: v for n, v in mx.load(str(source / "model.safetensors")).items() if n.startswith("speaker_encoder")}
    if layout == "mlx":
        to_community(tensors)
    tensors = {name.replace("speaker_encoder.", prefix): value for name, value in tensors.items()}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
    config = json.loads((source / "config.json").read_text())["speaker_encoder_config"]
    values = {"speaker_encoder_config": config} if nested else config
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "an_encoder", **values}))
    alone, rate = load_encoder_alone(tmp_path)
    assert rate == 24000
    tts = Qwen3TTS.from_pretrained(source)
    from mlx_qwen3tts.audio.reading import read_audio

    assert np.array_equal(np.array(alone.embed(mx.array(read_audio(audio, rate)))), np.array(tts.embed(audio)))


def test_embedding_reads_the_encoder_alone(checkpoint, copy):
    shutil.rmtree(copy / "speech_tokenizer")
    (copy / "vocab.json").unlink()
    encoder, _ = load_encoder_alone(copy)
    assert encoder.fc.weight.shape == (64, 1, 192)


def test_the_codec_loads_from_a_model_folder_and_alone(checkpoint):
    folder = checkpoint("base")
    given = np.arange(32).reshape(2, 16)
    inside, alone = Codec.from_pretrained(folder), Codec.from_pretrained(folder / "speech_tokenizer")
    assert np.array_equal(np.array(inside.decode(given)), np.array(alone.decode(given)))


def test_shards_with_an_index_load(copy, checkpoint):
    tensors = mx.load(str(copy / "model.safetensors"))
    names = sorted(tensors)
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        mx.save_safetensors(str(copy / file), {n: tensors[n] for n in names if where[n] == file})
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert (speak(copy) == speak(checkpoint("base"))).all()
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model-00002-of-00002\.safetensors, which its index names"):
        Qwen3TTS.from_pretrained(copy)


def drop(name):
    return lambda tensors: tensors.pop(name)


def put(name, value):
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("talker.model.norm.weight"), "missing tensor talker.model.norm.weight"),
        (drop("speaker_encoder.fc.bias"), "missing tensor speaker_encoder.fc.bias"),
        (put("talker.lora.weight", mx.zeros(3)), "unexpected tensor talker.lora.weight"),
        (
            put("talker.codec_head.weight", mx.zeros((3072, 32))),
            r"talker.codec_head.weight has shape \[3072, 32\], expected \[3072, 64\]",
        ),
        (put("talker.model.norm.weight", mx.zeros(64, mx.int8)), "talker.model.norm.weight has dtype I8"),
        (put("speaker_encoder.mfa.conv.weight", mx.zeros((96, 2, 96))), "speaker_encoder.mfa.conv.weight has shape"),
    ],
)
def test_every_tensor_is_accounted_for(copy, change, message):
    rewrite(copy, change)
    with pytest.raises(CheckpointError, match=message):
        Qwen3TTS.from_pretrained(copy)


def test_codec_tensors_that_speech_does_not_need_are_accounted_for_too(copy):
    rewrite(copy / "speech_tokenizer", drop("decoder.quantizer.rvq_rest.input_proj.weight"))
    with pytest.raises(CheckpointError, match=r"missing tensor decoder.quantizer.rvq_rest.input_proj.weight"):
        Codec.from_pretrained(copy)


def test_encoders_are_read_only_when_a_voice_is_taken(checkpoint, tmp_path, monkeypatch):
    read, load = [], ModelFolder.load_speaker_encoder
    monkeypatch.setattr(ModelFolder, "load_speaker_encoder", lambda self: read.append(self) or load(self))
    tts = Qwen3TTS.from_pretrained(checkpoint("base"))
    tts.generate("Hello.", vector(64, 1), greedy=True, max_tokens=4)
    assert read == [] and "encoder" not in vars(tts.codec)
    tts.clone(recording(tmp_path / "a.wav", 1, 0.6), ref_text="one")
    assert read == [tts.folder] and "encoder" in vars(tts.codec)


def test_what_is_returned_can_be_used_in_any_thread(checkpoint, tmp_path):
    """An array that is still to be computed belongs to the thread that it was made in."""
    audio = recording(tmp_path / "a.wav", 1, 0.6)
    codec, encoder = Codec.from_pretrained(checkpoint("base")), SpeakerEncoder.from_pretrained(checkpoint("base"))
    folder = ModelFolder(checkpoint("custom-voice"))
    codes = codec.encode(audio)
    made = codes, codec.decode(codes), encoder.encode(audio), read_preset(folder, "ryan")[0]
    talker = folder.load_talker()

    def elsewhere():
        again = codec.encode(audio), codec.decode(codes), encoder.encode(audio), read_preset(folder, "ryan")[0]
        return [np.array(array) for array in (*made, *again, talker.embed_codec(mx.array([5])).astype(mx.float32))]

    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(elsewhere).result()
    for first, second in zip(heard[:4], heard[4:8], strict=True):
        assert np.array_equal(first, second)
