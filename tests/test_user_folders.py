"""Folders as users bring them: fine-tunes that kept their encoder, saved buffers, tokenizer.json, half a download."""

import json
import shutil

import huggingface_hub
import mlx.core as mx
import numpy as np
import pytest
from huggingface_hub import constants

from convert.parity import recording, vector
from mlx_qwen3tts import Codec, Qwen3TTS, SpeakerEncoder
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.checkpoint.weights import read_folder
from mlx_qwen3tts.convert import convert
from mlx_qwen3tts.errors import CheckpointError, ConfigError, QwenTTSError, UnsupportedValue
from mlx_qwen3tts.networks.talker import Talker
from tests.folders import edit


def equal(a, b):
    return np.array_equal(np.array(a), np.array(b))


# A fine-tune that kept its speaker encoder


@pytest.fixture
def fine_tune(checkpoint, tmp_path):
    """A custom_voice folder with the encoder of the Base model."""
    folder = shutil.copytree(checkpoint("fine-tune"), tmp_path / "fine-tune")
    encoder = mx.load(str(checkpoint("base") / "model.safetensors"))
    edit(folder, lambda t: t.update({n: v for n, v in encoder.items() if n.startswith("speaker_encoder.")}))
    config = json.loads((folder / "config.json").read_text())
    config["speaker_encoder_config"] = json.loads((checkpoint("base") / "config.json").read_text())[
        "speaker_encoder_config"
    ]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.filterwarnings("ignore:audio .* is short", "ignore:the speech did not end")
def test_a_fine_tune_that_kept_its_encoder_embeds(fine_tune, checkpoint, tmp_path, command):
    audio = recording(tmp_path / "a.wav", 1, 0.7)
    wanted = SpeakerEncoder.from_pretrained(checkpoint("base")).encode(audio)
    tts = Qwen3TTS.from_pretrained(fine_tune)
    assert equal(tts.embed(audio), wanted) and tts.speakers == ["anna"]
    assert tts.generate("Hello.", tts.clone(audio), greedy=True, max_tokens=4).codes.shape == (3, 16)
    assert equal(SpeakerEncoder.from_pretrained(fine_tune).encode(audio), wanted)
    assert command("embed", "--model", fine_tune, audio, "--output", "v.npy").status == 0
    assert equal(np.load("v.npy"), wanted)
    convert(fine_tune, tmp_path / "converted")
    assert equal(SpeakerEncoder.from_pretrained(tmp_path / "converted").encode(audio), wanted)
    assert json.loads(command("info", fine_tune, "--json").out)["memory"]["speaker_encoder"] > 0


def test_an_encoder_that_is_not_whole_is_refused(fine_tune):
    edit(fine_tune, lambda tensors: tensors.pop("speaker_encoder.fc.bias"))
    for opened in (Qwen3TTS, SpeakerEncoder):
        with pytest.raises(CheckpointError, match=r"missing tensor speaker_encoder\.fc\.bias"):
            opened.from_pretrained(fine_tune)


def test_an_encoder_that_does_not_fit_is_refused(fine_tune):
    config = json.loads((fine_tune / "config.json").read_text())
    config["speaker_encoder_config"]["enc_dim"] = 32
    (fine_tune / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="speaker encoder dimension 32 is not the talker's 64"):
        Qwen3TTS.from_pretrained(fine_tune)


def test_voice_design_takes_no_encoder(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("voice-design"), tmp_path / "model")
    edit(folder, lambda tensors: tensors.update({"speaker_encoder.fc.bias": mx.zeros(64)}))
    with pytest.raises(CheckpointError, match=r"unexpected tensor speaker_encoder\.fc\.bias"):
        ModelFolder(folder)


# Buffers

INSIDE = {
    "talker.model.rotary_emb.inv_freq": mx.ones(16),
    "talker.model.rotary_emb.original_inv_freq": mx.ones(16),
    "talker.code_predictor.model.rotary_emb.inv_freq": mx.ones(8, mx.bfloat16),
}
CODEC = {
    "decoder.pre_transformer.rotary_emb.inv_freq": mx.ones(4),
    "encoder.encoder_transformer.layers.0.self_attn.rotary_emb.inv_freq": mx.ones(4),
    "encoder.encoder.layers.0.stride": mx.array(1, mx.int64),
    "encoder.encoder.layers.1.block.3.kernel_size": mx.array(1, mx.int64),
    "encoder.downsample.padding_total": mx.array(2, mx.int64),
}


@pytest.mark.filterwarnings("ignore:the speech did not end")
def test_saved_buffers_are_passed_over_by_name(checkpoint, model, tmp_path):
    folder = shutil.copytree(checkpoint("base"), tmp_path / "model")
    edit(folder, lambda tensors: tensors.update(INSIDE))
    edit(folder / "speech_tokenizer", lambda tensors: tensors.update(CODEC))
    ours = Qwen3TTS.from_pretrained(folder, dtype="float32")
    made = [tts.generate("Hello.", vector(64, 1), greedy=True, max_tokens=4) for tts in (ours, model("base"))]
    assert equal(made[0].codes, made[1].codes)
    assert abs(made[0].audio - made[1].audio).max() < 1e-5  # the last bits depend on where the weights lie in memory
    convert(folder, tmp_path / "out")
    assert read_folder(tmp_path / "out").keys() == read_folder(checkpoint("base")).keys()


@pytest.mark.parametrize(
    "name",
    [
        "talker.model.inv_freq",
        "rotary_emb.inv_freq",
        "talker.model.rotary_emb.inv_freq.weight",
        "talker.model.layers.0.stride",
        "talker.model.rotary_emb.cos_cached",
    ],
)
def test_other_names_are_not_passed_over(name, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("base"), tmp_path / "model")
    edit(folder, lambda tensors: tensors.update({name: mx.ones(16)}))
    with pytest.raises(CheckpointError, match=f"unexpected tensor {name}"):
        ModelFolder(folder)


# tokenizer.json


def to_one_file(folder, pairs):
    """Replace vocab.json and merges.txt by the tokenizer.json that the tokenizers library writes of them."""
    from tokenizers import Tokenizer, models

    files = folder / "vocab.json", folder / "merges.txt"
    Tokenizer(models.BPE.from_file(*map(str, files))).save(str(folder / "tokenizer.json"))
    values = json.loads((folder / "tokenizer.json").read_text())
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in values["model"]["merges"]]
    values["model"]["merges"] = merges if pairs else [" ".join(merge) for merge in merges]
    (folder / "tokenizer.json").write_text(json.dumps(values))
    for file in files:
        file.unlink()
    return values


@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "strings"])
def test_tokenizer_json_alone_serves(pairs, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("base"), tmp_path / "model")
    wanted = Qwen3TTS.from_pretrained(folder).tokenizer.assistant("Hello the ant,\n\n  it's 12!")
    to_one_file(folder, pairs)
    assert Qwen3TTS.from_pretrained(folder).tokenizer.assistant("Hello the ant,\n\n  it's 12!") == wanted
    convert(folder, tmp_path / "out")
    assert Qwen3TTS.from_pretrained(tmp_path / "out").tokenizer.assistant("Hello the ant,\n\n  it's 12!") == wanted
    assert not (tmp_path / "out" / "vocab.json").exists()


def test_spoilt_tokenizer_json(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("base"), tmp_path / "model")
    values, path = to_one_file(folder, True), folder / "tokenizer.json"
    vocab, merges = values["model"]["vocab"], values["model"]["merges"]
    spoilt = {
        "does not hold a BPE model": [
            {},
            {"model": 5},
            {"model": {"vocab": [], "merges": []}},
            {"model": {"vocab": {}}},
        ],
        "ids must be integers from 0 to 1023": [{"model": {"vocab": vocab | {"a": 1024}, "merges": merges}}],
        "has no token for 1 of the 256 bytes": [
            {"model": {"vocab": {t: i for t, i in vocab.items() if t != "a"}, "merges": merges}}
        ],
        "does not fit vocab.json": [
            {"model": {"vocab": vocab, "merges": [*merges, wrong]}}
            for wrong in ("azz", ["a"], ["a", 5], 5, None, ["a", "b", "c"], ["zzz", "a"])
        ],
    }
    for message, contents in spoilt.items():
        for content in contents:
            path.write_text(json.dumps(content))
            with pytest.raises(CheckpointError, match=f"{path}.*{message}"):
                Qwen3TTS.from_pretrained(folder)


# Downloads

REPO = "owner/some-model"


@pytest.fixture
def snapshot(checkpoint, tmp_path, monkeypatch):
    """A repository in the hub's cache, links and blobs, as its client makes them: (folder of the revision, blobs)."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    root = cache / "models--owner--some-model"
    revision, blobs = root / "snapshots" / ("0" * 40), root / "blobs"
    blobs.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    for number, file in enumerate(sorted(checkpoint("base").rglob("*"))):
        if file.is_file():
            place = revision / file.relative_to(checkpoint("base"))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, blobs / str(number))
            place.symlink_to(blobs / str(number))
    return revision, blobs


def half(file, blobs):
    """Leave a file of a snapshot as the hub's client does when it is killed while it fetches it."""
    blob = file.resolve()
    file.unlink()
    blob.rename(blobs / f"{blob.name}.a1b2c3d4.incomplete")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "speech_tokenizer/config.json", "vocab.json"])
def test_a_half_downloaded_snapshot(file, snapshot):
    revision, blobs = snapshot
    assert Qwen3TTS.from_pretrained(revision).model_type == "base"
    half(revision / file, blobs)
    with pytest.raises(QwenTTSError) as raised:
        Qwen3TTS.from_pretrained(revision)
    place = revision / file
    assert str(raised.value) == (
        f"{place.parent} has no {place.name}; its download is unfinished: `hf download {REPO}` fetches the rest"
    )


def test_a_half_downloaded_snapshot_by_its_id(snapshot, monkeypatch):
    """Offline the cache is all there is; the hub's client gives an unfinished snapshot as it gives a whole one."""
    revision, blobs = snapshot
    half(revision / "model.safetensors", blobs)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(revision))
    with pytest.raises(CheckpointError, match=f"download is unfinished: `hf download {REPO}` fetches the rest"):
        Qwen3TTS.from_pretrained(REPO)


def test_a_snapshot_that_was_cut_off_between_two_files(snapshot):
    revision, _ = snapshot
    (revision / "merges.txt").unlink()
    with pytest.raises(
        CheckpointError, match=r"has no merges\.txt; perhaps its download is unfinished: `hf download owner"
    ):
        Qwen3TTS.from_pretrained(revision)


def test_a_blob_that_is_gone(snapshot):
    revision, _ = snapshot
    (revision / "model.safetensors").resolve().unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors; perhaps its download is unfinished"):
        Qwen3TTS.from_pretrained(revision)


def test_missing_shards(snapshot, tmp_path):
    revision, _ = snapshot
    names = list(read_folder(revision))
    (revision / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (revision / "model.safetensors.index.json").write_text(json.dumps(index))
    missing = "has no model-00001-of-00002.safetensors, which its index names; its download"
    with pytest.raises(CheckpointError, match=f"{missing} is unfinished: `hf download {REPO}` fetches the rest"):
        Qwen3TTS.from_pretrained(revision)
    copied = shutil.copytree(revision, tmp_path / "copied")
    with pytest.raises(CheckpointError, match=f"{missing} or copy is unfinished"):
        Qwen3TTS.from_pretrained(copied)


@pytest.mark.parametrize("file", ["model.safetensors", "speech_tokenizer/model.safetensors"])
def test_an_unfinished_download_to_a_folder(file, checkpoint, tmp_path):
    """As `hf download --local-dir` leaves it."""
    folder = shutil.copytree(checkpoint("base"), tmp_path / "model")
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors$"):
        Qwen3TTS.from_pretrained(folder)
    place = folder / ".cache" / "huggingface" / "download" / file
    place.parent.mkdir(parents=True)
    place.with_name("x7Yb3.0123abcd.incomplete").touch()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors; its download is unfinished: start it again"):
        Qwen3TTS.from_pretrained(folder)


# The encoder and the codec alone


@pytest.mark.filterwarnings("ignore:audio")
def test_the_encoder_alone_of_every_form(checkpoint, tmp_path, monkeypatch):
    audio, preset = recording(tmp_path / "a.wav", 1, 0.7), checkpoint("custom-voice")
    assert checkpoint("base").is_dir()  # made now, as making one builds a talker
    monkeypatch.setattr(Talker, "__init__", None)
    alone = tmp_path / "alone"
    alone.mkdir()
    tensors = mx.load(str(checkpoint("base") / "model.safetensors"))
    encoder = {name: value for name, value in tensors.items() if name.startswith("speaker_encoder.")}
    mx.save_safetensors(str(alone / "model.safetensors"), encoder)
    config = json.loads((checkpoint("base") / "config.json").read_text())["speaker_encoder_config"]
    (alone / "config.json").write_text(json.dumps({"speaker_encoder_config": config}))
    samples = (np.sin(np.arange(48000) / 20).astype(np.float32) / 2, 48000)
    for source in (audio, str(audio), samples):
        vectors = [SpeakerEncoder.from_pretrained(folder).encode(source) for folder in (checkpoint("base"), alone)]
        assert vectors[0].shape == (64,) and vectors[0].dtype == mx.float32 and equal(*vectors)
    small = hub.SHIPPED["miniature"] / "recordings" / "low.flac"
    assert SpeakerEncoder.from_pretrained("miniature").encode(small).shape == (192,)
    with pytest.raises(UnsupportedValue, match="a custom_voice model has no speaker encoder; use a Base model"):
        SpeakerEncoder.from_pretrained(preset)


def test_the_codec_alone_has_the_models_number_of_codebooks(monkeypatch):
    monkeypatch.setattr(Talker, "__init__", None)
    codec = Codec.from_pretrained("miniature")
    codes = codec.encode(hub.SHIPPED["miniature"] / "recordings" / "low.flac")
    assert codec.num_codebooks == codes.shape[1] == 8
    assert codec.decode(np.array(codes)[:3].tolist()).shape == (3 * codec.samples_per_frame,)
