"""`convert`: what it writes loads, says the same and is whole or not there; what it refuses, it names."""

import errno
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors import safe_open

import mlx_qwen3tts.convert
from convert.random_checkpoint import write_checkpoint
from mlx_qwen3tts import Codec, Qwen3TTS
from mlx_qwen3tts.checkpoint import writer
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.checkpoint.weights import read_folder
from mlx_qwen3tts.convert import convert, parse_size
from mlx_qwen3tts.errors import CheckpointError, WrongType
from mlx_qwen3tts.files.output import claim
from mlx_qwen3tts.networks.talker import Talker
from tests.folders import edit

ROOT = Path(__file__).resolve().parent.parent
# Written from the published architecture, not taken from the networks.
TRANSPOSED = re.compile(r"decoder\.(upsample\.\d|decoder\.\d\.block)\.[01]\.conv\.weight")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("source") / "base", seed=3)


@pytest.fixture(scope="module")
def converted(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "base"
    convert(base, folder)
    return folder


@pytest.fixture
def copy(base, tmp_path):
    """A copy of the Base checkpoint to spoil."""
    return Path(shutil.copytree(base, tmp_path / "copy"))


def load(folder):
    """All tensors of a folder by name, read by MLX."""
    tensors = {}
    for path in sorted({tensor.path for tensor in read_folder(folder).values()}):
        tensors |= mx.load(str(path))
    return tensors


def set_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: v for key, v in values.items() if v is not None}))


def official(name, value):
    """A converted tensor in the published layout."""
    if value.ndim != 3:
        return value
    return value.transpose((2, 0, 1) if TRANSPOSED.fullmatch(name) else (0, 2, 1))


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and mx.array_equal(a, b).item()


def assert_same_folder(a, b):
    for inside in ("", "speech_tokenizer"):
        one, other = load(a / inside), load(b / inside)
        assert one.keys() == other.keys()
        assert [name for name in one if not same(one[name], other[name])] == []


def codes(folder, **options):
    tts = Qwen3TTS.from_pretrained(folder, **options)
    vector = mx.random.normal((tts.embedding_dim,), key=mx.random.key(5))
    with pytest.warns(UserWarning, match="did not end"):
        return np.array(tts.generate("Hello the ant.", voice=vector, greedy=True, max_tokens=8).codes)


def run(arguments, code="from mlx_qwen3tts.convert import main; main()"):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever starts the tests in the background has SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def fails(arguments, capsys):
    """The error line of a command that ends with status 2 and prints nothing else."""
    with pytest.raises(SystemExit) as status:
        mlx_qwen3tts.convert.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert (status.value.code, printed.out) == (2, "")
    [line] = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


# What is written


@pytest.mark.parametrize("inside", ["", "speech_tokenizer"])
def test_every_tensor_comes_through_in_one_layout(base, converted, inside):
    source, ours = load(base / inside), load(converted / inside)
    assert ours.keys() == source.keys()
    assert [name for name in source if not same(official(name, ours[name]), source[name])] == []


def test_greedy_codes_and_codec_are_the_sources(base, converted):
    assert np.array_equal(codes(base), codes(converted))
    assert Qwen3TTS.from_pretrained(converted).folder.part.layout == "mlx"
    noise = (np.random.default_rng(0).standard_normal(9600).astype(np.float32) * 0.1, 24000)
    ours, source = Codec.from_pretrained(converted), Codec.from_pretrained(base)
    assert mx.array_equal(ours.encode(noise), source.encode(noise))
    assert mx.array_equal(ours.decode(ours.encode(noise)), source.decode(source.encode(noise)))


def test_files_of_a_converted_folder(base, converted):
    names = {str(path.relative_to(converted)) for path in converted.rglob("*") if path.is_file()}
    added = {"README.md", "model.safetensors.index.json", "speech_tokenizer/model.safetensors.index.json"}
    assert names == {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()} | added
    for inside in ("", "speech_tokenizer"):
        values = json.loads((converted / inside / "config.json").read_text())
        assert values.pop("conv_layout") == "mlx"
        assert values == json.loads((base / inside / "config.json").read_text())
    for name in ("vocab.json", "merges.txt", "generation_config.json", "speech_tokenizer/preprocessor_config.json"):
        assert (converted / name).read_bytes() == (base / name).read_bytes()
    card = (converted / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "Converted from base by" in card
    assert str(base.parent) not in card
    assert converted.stat().st_mode & 0o777 == base.stat().st_mode & 0o777


def test_shards_and_index(base, converted, tmp_path):
    limit = 500_000
    made = convert(base, tmp_path / "out", max_shard_size=limit)
    assert_same_folder(converted, tmp_path / "out")
    assert np.array_equal(codes(base), codes(tmp_path / "out"))
    count = 0
    for inside in (tmp_path / "out", tmp_path / "out/speech_tokenizer"):
        index = json.loads((inside / "model.safetensors.index.json").read_text())
        files = sorted(path.name for path in inside.glob("*.safetensors"))
        assert files == [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
        assert sorted(set(index["weight_map"].values())) == files
        sizes = {}
        for name in files:
            with safe_open(inside / name, "np") as file:  # the format's own reader is strict about headers
                assert file.metadata() == {"format": "mlx"}
                held = set(file.keys())
            assert held == {tensor for tensor, place in index["weight_map"].items() if place == name}
            sizes[name] = sum(value.nbytes for value in mx.load(str(inside / name)).values())
        assert max(sizes.values()) <= limit
        assert sum(sizes.values()) == index["metadata"]["total_size"]
        count += len(files)
    assert made.files == count > 10
    assert convert(tmp_path / "out", tmp_path / "again").files == 2
    assert_same_folder(converted, tmp_path / "again")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dtype_is_that_of_talker_and_predictor_alone(base, tmp_path, dtype, recwarn):
    set_dtype = getattr(mx, dtype)
    convert(base, tmp_path / "out", dtype=dtype)
    source, ours = load(base), load(tmp_path / "out")
    for name, value in source.items():
        kept = name.startswith("speaker_encoder.")
        assert same(official(name, ours[name]), value if kept else value.astype(set_dtype)), name
    assert {value.dtype for value in load(tmp_path / "out/speech_tokenizer").values()} == {mx.float32}
    assert [str(warning.message)[:7] for warning in recwarn] == (["float16"] if dtype == "float16" else [])
    if dtype == "float32":
        assert np.array_equal(codes(base, dtype="float32"), codes(tmp_path / "out"))


@pytest.mark.filterwarnings("ignore:float16")
def test_what_float16_cannot_hold_is_an_error(copy, tmp_path):
    def change(tensors):
        tensors["talker.model.norm.weight"] = tensors["talker.model.norm.weight"] * 1e6

    edit(copy, change)
    with pytest.raises(
        CheckpointError, match=r"tensor talker\.model\.norm\.weight has values that float16 cannot hold"
    ):
        convert(copy, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["custom_voice", "voice_design"])
def test_other_kinds(tmp_path, kind):
    # As in an official fine-tune: an encoder's configuration without an encoder.
    source = write_checkpoint(tmp_path / "source", kind, changes={"speaker_encoder_config": {"enc_dim": 64}})
    convert(source, tmp_path / "out")
    assert ModelFolder(tmp_path / "out").config.model_type == kind
    assert [name for name, value in load(source).items() if not same(value, load(tmp_path / "out")[name])] == []


def test_codec_alone(base, converted, tmp_path, capsys):
    folder = shutil.copytree(base / "speech_tokenizer", tmp_path / "codec")
    made = convert(folder, tmp_path / "out")
    ours, inside = load(tmp_path / "out"), load(converted / "speech_tokenizer")
    assert made.files == 1
    assert ours.keys() == inside.keys()
    assert all(same(ours[name], inside[name]) for name in ours)
    assert Codec.from_pretrained(tmp_path / "out").decode(mx.zeros((3, 16), mx.int32)).shape == (3 * 1920,)
    for option in (["-q"], ["--dtype", "float16"]):
        line = fails(["--hf-path", folder, "--mlx-path", tmp_path / "no", *option], capsys)
        assert "is a codec, which keeps its dtype and is never quantised" in line


def test_community_layout_comes_in(base, converted, tmp_path):
    folder = shutil.copytree(converted, tmp_path / "community")
    set_config(folder, conv_layout=None)
    shutil.rmtree(folder / "speech_tokenizer")
    shutil.copytree(base / "speech_tokenizer", folder / "speech_tokenizer")
    convert(folder, tmp_path / "out")
    assert_same_folder(converted, tmp_path / "out")


# Quantising


def quantised_by_mlx_lm(folder, bits, group_size, predictor_bits, embedding_bits=None):
    """The talker's tensors as mlx-lm makes them of the published ones."""
    from mlx_lm.utils import quantize_model

    talker = Talker(ModelFolder(folder).config)
    tensors = {name: value for name, value in load(folder).items() if name.startswith("talker.")}
    talker.load_weights([(name.removeprefix("talker."), value) for name, value in tensors.items()])

    def predicate(path, layer):
        if not isinstance(layer, nn.Linear):
            return embedding_bits is not None and path == "model.text_embedding"
        own = predictor_bits if path.startswith("code_predictor.") else bits
        return {"group_size": group_size, "bits": own, "mode": "affine"}

    talker, _ = quantize_model(talker, {}, group_size, bits, quant_predicate=predicate)
    return {f"talker.{name}": value for name, value in tree_flatten(talker.parameters())}


@pytest.mark.filterwarnings("ignore:left unquantised")
@pytest.mark.parametrize(
    ("options", "block", "predictor_bits"),
    [
        ({}, {"group_size": 64, "bits": 8, "mode": "affine"}, 8),
        ({"q_bits": 4, "q_predictor_bits": 8}, {"group_size": 64, "bits": 4, "mode": "affine"}, 8),
        ({"q_bits": 8, "q_predictor_bits": 6, "q_group_size": 32}, {"group_size": 32, "bits": 8, "mode": "affine"}, 6),
    ],
    ids=["default", "mixed", "groups of 32"],
)
def test_quantised_as_mlx_lm_does_and_speaks(base, converted, tmp_path, options, block, predictor_bits):
    folder = tmp_path / "out"
    convert(base, folder, quantize=True, max_shard_size="300KB", **options)
    wanted = quantised_by_mlx_lm(base, block["bits"], block["group_size"], predictor_bits)
    plain = load(converted)
    wanted |= {name: value for name, value in plain.items() if name.startswith("speaker_encoder.")}
    ours = load(folder)
    assert ours.keys() == wanted.keys()
    assert [name for name in ours if not same(ours[name], wanted[name])] == []
    assert [name for name in plain if "embedding" in name and not same(ours[name], plain[name])] == []

    values = json.loads((folder / "config.json").read_text())
    assert values["quantization"] == values["quantization_config"]
    layers = {key: value for key, value in values["quantization"].items() if isinstance(value, dict)}
    assert {key: value for key, value in values["quantization"].items() if key not in layers} == block
    if predictor_bits == block["bits"]:
        assert layers == {}
    else:
        own = {name.removesuffix(".scales") for name in ours if name.endswith(".scales") and "code_predictor" in name}
        assert layers == {name: {**block, "bits": predictor_bits} for name in own}
    ours, plain = load(folder / "speech_tokenizer"), load(converted / "speech_tokenizer")
    assert all(same(ours[name], plain[name]) for name in plain)
    assert codes(folder).shape == (7, 16)


def test_quantised_text_embedding(tmp_path):
    source = write_checkpoint(tmp_path / "source", changes={"talker_config": {"text_hidden_size": 64}})
    with pytest.warns(UserWarning, match="left unquantised"):
        convert(source, tmp_path / "out", quantize=True, q_bits=4, q_embedding_bits=8, q_group_size=64)
    wanted = load(source)["talker.model.text_embedding.weight"]
    quantised = {
        name.rpartition(".")[2]: value
        for name, value in load(tmp_path / "out").items()
        if name.startswith("talker.model.text_embedding.")
    }
    back = mx.dequantize(quantised["weight"], quantised["scales"], quantised["biases"], group_size=64, bits=8)
    assert back.shape == wanted.shape
    assert mx.abs(back - wanted).max().item() < 0.03
    values = json.loads((tmp_path / "out/config.json").read_text())["quantization"]
    assert values["talker.model.text_embedding"]["bits"] == 8
    assert codes(tmp_path / "out").shape == (7, 16)


def test_widths_that_the_group_size_does_not_divide_are_listed(base, tmp_path):
    with pytest.warns(UserWarning) as warned:
        convert(base, tmp_path / "out", quantize=True, q_group_size=32)
    [message] = [str(warning.message) for warning in warned]
    assert message == (
        "left unquantised, as group size 32 does not divide the width: "
        "talker.code_predictor.model.layers.0.mlp.down_proj, talker.code_predictor.model.layers.1.mlp.down_proj, "
        "talker.text_projection.linear_fc1, talker.text_projection.linear_fc2"
    )
    tensors = load(tmp_path / "out")
    for name in message.partition("width: ")[2].split(", "):
        assert tensors[f"{name}.weight"].dtype == mx.bfloat16
        assert f"{name}.scales" not in tensors


def test_nothing_to_quantise_is_an_error(tmp_path, capsys):
    # With two heads no width of the tiny talker is a multiple of 128.
    source = write_checkpoint(tmp_path / "source", changes={"talker_config": {"num_attention_heads": 2}})
    arguments = ["--hf-path", source, "--mlx-path", tmp_path / "out", "-q", "--q-group-size", "128"]
    with pytest.raises(SystemExit) as status:
        mlx_qwen3tts.convert.main(list(map(str, arguments)))
    assert status.value.code == 2
    assert "error: q_group_size 128 divides no layer's width" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_quantised_sources_are_refused(base, copy, tmp_path):
    with pytest.warns(UserWarning, match="left unquantised"):
        convert(base, tmp_path / "out", quantize=True)
    with pytest.raises(CheckpointError, match=r"out is quantised already, and its rounding cannot be undone"):
        convert(tmp_path / "out", tmp_path / "again")
    set_config(tmp_path / "out", quantization=None, quantization_config=None)
    with pytest.raises(CheckpointError, match=r"out is quantised already"):
        convert(tmp_path / "out", tmp_path / "again")
    with pytest.raises(CheckpointError, match=r"^miniature is quantised .* use it as it is, as --model miniature, or"):
        convert("miniature", tmp_path / "again")
    assert not (tmp_path / "again").exists()


# Memory


@pytest.mark.filterwarnings("ignore:left unquantised")
def test_the_size_of_blocks_changes_nothing(base, converted, tmp_path, monkeypatch):
    convert(base, tmp_path / "quantised", quantize=True)
    monkeypatch.setattr(writer, "BLOCK", 700)
    convert(base, tmp_path / "out")
    assert_same_folder(converted, tmp_path / "out")
    convert(base, tmp_path / "again", quantize=True)
    assert_same_folder(tmp_path / "quantised", tmp_path / "again")


@pytest.mark.parametrize("options", [{}, {"dtype": "float32"}, {"quantize": True, "q_bits": 4, "q_group_size": 32}])
@pytest.mark.filterwarnings("ignore:left unquantised")
def test_peak_memory_stays_within_a_shard(base, tmp_path, options):
    limit = 200_000  # the largest tensors are larger and have shards of their own; they are not held either
    held = mx.get_active_memory()
    made = convert(base, tmp_path / "out", max_shard_size=limit, **options)
    assert made.peak_memory - held <= limit * 1.1


# What is refused


@pytest.mark.parametrize(
    ("inside", "change", "message"),
    [
        (
            "",
            lambda t: t.pop("talker.model.layers.1.mlp.up_proj.weight"),
            "missing tensor talker.model.layers.1.mlp",
        ),
        ("", lambda t: t.update(extra=mx.zeros(3)), "unexpected tensor extra"),
        (
            "",
            lambda t: t.update({"talker.codec_head.weight": mx.zeros((3072, 63))}),
            "tensor talker.codec_head.weight has shape [3072, 63], expected [3072, 64]",
        ),
        (
            "",
            lambda t: t.update({"talker.model.norm.weight": mx.zeros(64, mx.int32)}),
            "tensor talker.model.norm.weight has dtype I32, expected a float",
        ),
        (
            "",
            lambda t: t.update({"talker.model.norm.weight": mx.zeros(64, mx.uint32)}),
            "tensor talker.model.norm.weight has dtype U32, expected a float",
        ),
        (
            "speech_tokenizer",
            lambda t: t.pop("decoder.pre_conv.conv.bias"),
            "missing tensor decoder.pre_conv.conv.bias",
        ),
    ],
    ids=["missing", "unexpected", "misshapen", "integer", "packed", "codec"],
)
def test_a_tensor_that_does_not_fit_is_named(copy, tmp_path, capsys, inside, change, message):
    edit(copy / inside, change)
    assert message in fails(["--hf-path", copy, "--mlx-path", tmp_path / "out"], capsys)
    assert list(tmp_path.iterdir()) == [copy]


def test_spoilt_sources(copy, tmp_path, capsys):
    arguments = ["--hf-path", copy, "--mlx-path", tmp_path / "out"]
    (copy / "vocab.json").rename(copy / "vocab")
    assert "has no vocab.json" in fails(arguments, capsys)
    (copy / "vocab").rename(copy / "vocab.json")
    path = copy / "model.safetensors"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5)
    assert "model.safetensors is truncated" in fails(arguments, capsys)
    (copy / "config.json").write_text('{"model_type": "llama"}')
    line = fails(arguments, capsys)
    assert "model type 'llama' is not one of qwen3_tts, qwen3_tts_tokenizer_12hz" in line
    (copy / "config.json").write_text('{"enc_dim": 64}')
    assert "a speaker encoder alone needs no converting" in fails(arguments, capsys)
    (copy / "config.json").unlink()
    assert "has no config.json" in fails(arguments, capsys)
    assert list(tmp_path.iterdir()) == [copy]


def test_a_header_whose_sizes_disagree(copy, tmp_path):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"shape":[3072,64]', b'"shape":[3072,65]', 1))
    with pytest.raises(CheckpointError, match=r"has shape \[3072, 65\]"):
        convert(copy, tmp_path / "out")
    data = path.read_bytes().replace(b'"shape":[3072,65]', b'"shape":[3072,64]', 1)
    place = data.index(b'"BF16"')
    path.write_bytes(data[:place] + b'"F32" ' + data[place + 6 :])
    with pytest.raises(CheckpointError, match=r"tensor .* has \d+ bytes, expected \d+"):
        convert(copy, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-shard-size", "5XB"], "max shard size '5XB' is not a size"),
        (["--max-shard-size", "0"], "max shard size '0' is not a size"),
        (["--dtype", "int8"], "dtype 'int8' is not one of float32, float16, bfloat16"),
        (["-q", "--q-bits", "5"], "q_bits 5 is not one of 4, 6, 8"),
        (["-q", "--q-bits", "many"], "argument --q-bits: invalid int value: 'many'"),
        (["-q", "--q-group-size", "48"], "q_group_size 48 is not one of 32, 64, 128"),
        (["-q", "--q-predictor-bits", "3"], "q_predictor_bits 3 is not one of 4, 6, 8"),
        (["-q", "--q-embedding-bits", "4"], "q_embedding_bits 4 is not one of 8"),
        (["--q-bits", "8"], "q_bits 8 says how to quantise; add quantize (-q)"),
        (["--upload-repo", "mine"], "upload repository 'mine' is not of the form owner/name"),
        (["--revision", "main"], "revision 'main' is for hub ids"),
        (["--bits", "8"], "unknown option --bits: did you mean --q-bits?"),
    ],
)
def test_bad_options(base, tmp_path, capsys, options, message):
    assert message in fails(["--hf-path", base, "--mlx-path", tmp_path / "out", *options], capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bits", [8.0, True, "8"])
def test_numbers_of_a_wrong_type_in_python(base, tmp_path, bits):
    with pytest.raises(WrongType, match=f"q_bits must be an integer, not {bits!r}") as raised:
        convert(base, tmp_path / "out", quantize=True, q_bits=bits)
    assert raised.value.param == "q_bits" and list(tmp_path.iterdir()) == []


def test_sizes():
    assert [parse_size(size) for size in ("5GB", "1.5 mb", "20KB", "7B", "1000", 1000)] == [
        5_000_000_000,
        1_500_000,
        20_000,
        7,
        1000,
        1000,
    ]


# Where it writes


def test_destinations_that_are_refused(base, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--hf-path", base, "--mlx-path"]
    assert f"output folder {tmp_path / 'none'} does not exist" in fails([*arguments, tmp_path / "none/out"], capsys)
    out.write_text("")
    assert "out is a file; name a folder" in fails([*arguments, out], capsys)
    out.unlink()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "exists and is not empty; replace it with --overwrite" in fails([*arguments, out], capsys)
    assert "is not a Qwen3-TTS model folder and is not overwritten" in fails([*arguments, out, "--overwrite"], capsys)
    (out / "config.json").write_text('{"model_type": "llama"}')
    assert "is not a Qwen3-TTS model folder and is not overwritten" in fails([*arguments, out, "--overwrite"], capsys)
    (out / "config.json").write_text('{"model_type": "qwen3_tts"}')
    assert "is not overwritten, as it holds notes.txt" in fails([*arguments, out, "--overwrite"], capsys)
    assert (out / "notes.txt").read_text() == "mine"
    for path in (base, base / "speech_tokenizer"):
        assert f"output {path} overlaps the source" in fails([*arguments, path, "--overwrite"], capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_overwriting(base, converted, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    convert(base, out)  # an empty folder is as good as none
    convert(base, out, overwrite=True, max_shard_size="1MB")
    assert_same_folder(converted, out)
    assert not (out / "model.safetensors").exists()
    link = tmp_path / "link"
    link.symlink_to(out)
    convert(base, link, overwrite=True)
    assert link.is_symlink()
    assert (out / "model.safetensors").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_what_was_there(base, tmp_path, capsys, monkeypatch, overwrite):
    out = tmp_path / "out"
    if overwrite:
        convert(base, out)
    before = {path.name: path.stat().st_ino for path in tmp_path.rglob("*")}
    plain, calls = writer.Job.convert, []

    def full(job, block):
        calls.append(job)
        if len(calls) == 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(job, block)

    monkeypatch.setattr(writer.Job, "convert", full)
    arguments = ["--hf-path", base, "--mlx-path", out, *(["--overwrite"] if overwrite else [])]
    assert fails(arguments, capsys) == f"error: cannot write {out}: No space left on device"
    assert {path.name: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def test_a_file_that_cannot_grow(base, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)); "
    process = run(
        ["--hf-path", base, "--mlx-path", tmp_path / "out"], limit + "from mlx_qwen3tts.convert import main; main()"
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (2, "", f"error: cannot write {tmp_path / 'out'}: File too large\n")
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_beforehand(base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    line = fails(["--hf-path", base, "--mlx-path", tmp_path / "out"], capsys)
    assert f"output {tmp_path / 'out'} needs 11.2 MB and 1.0 MB are free" in line
    assert list(tmp_path.iterdir()) == []


SLOW = """
import time
from mlx_qwen3tts.checkpoint import writer
plain, calls = writer.Job.convert, []
def slow(job, block):
    calls.append(job)
    if len(calls) == 100:
        print("half way", flush=True)
        time.sleep(60)
    return plain(job, block)
writer.Job.convert = slow
from mlx_qwen3tts.convert import main
main()
"""


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_an_interrupted_run(base, converted, tmp_path, by):
    out = tmp_path / "out"
    process = run(["--hf-path", base, "--mlx-path", out], SLOW)
    assert process.stdout.readline() == "half way\n"
    process.send_signal(by)
    _, err = process.communicate(timeout=60)
    assert not out.exists()
    if by == signal.SIGINT:
        assert (process.returncode, err) == (130, "interrupted\n")
        assert list(tmp_path.iterdir()) == []
        return
    [left] = tmp_path.iterdir()
    assert not (left / "config.json").exists()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        Qwen3TTS.from_pretrained(left)
    convert(base, out)
    assert_same_folder(converted, out)
    assert list(tmp_path.iterdir()) == [out]  # what was left behind is gone


def test_another_run_under_way_is_left_alone(base, converted, tmp_path):
    out = tmp_path / "out"
    with claim(out, folder=True) as other:
        (other / "half.safetensors").write_bytes(b"half")
        with pytest.warns(UserWarning, match=rf"another run is writing the same folder: .*{other.name}"):
            convert(base, out)
        assert (other / "half.safetensors").is_file()
    assert_same_folder(converted, out)
    assert list(tmp_path.iterdir()) == [out]


# The command


def test_what_the_command_prints(base, tmp_path):
    process = run(["--hf-path", base, "--mlx-path", tmp_path / "out"])
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"{tmp_path / 'out'}\n")
    assert re.fullmatch(r"\d+\.\d MB written, tensors in 2 files; peak memory \d\.\d MB \(MLX's\)\n", err)


def test_help_is_quick_and_imports_nothing_slow():
    code = "import sys; from mlx_qwen3tts.convert import build_parser; build_parser().format_help(); "
    code += "print([name for name in ('mlx', 'numpy', 'mlx_lm', 'transformers') if name in sys.modules])"
    assert run([], code).communicate(timeout=60) == ("[]\n", "")
    times = []
    for module in ("convert", "mlx_qwen3tts.convert", "convert"):
        start = time.perf_counter()
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - start)
        assert done.stdout.startswith("usage: mlx_qwen3tts.convert ")
    assert min(times) < 0.5


def test_converting_without_quantising_imports_no_mlx_lm(base, tmp_path):
    code = "import sys; from mlx_qwen3tts.convert import convert; convert(*sys.argv[1:]); "
    code += "print([name for name in ('mlx_lm', 'transformers', 'torch') if name in sys.modules])"
    assert run([base, tmp_path / "out"], code).communicate(timeout=60) == ("[]\n", "")


def test_upload_through_a_stand_in(base, tmp_path, capsys, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalTokenNotFoundError

    calls = []

    class Hub:
        def create_repo(self, repo_id, exist_ok):
            calls.append((repo_id, exist_ok))
            if repo_id == "someone/else":
                raise LocalTokenNotFoundError("no token")

        def upload_folder(self, repo_id, folder_path):
            calls.append((repo_id, folder_path, sorted(path.name for path in Path(folder_path).glob("model*"))))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    convert(base, tmp_path / "a", upload_repo="someone/model")
    files = ["model.safetensors", "model.safetensors.index.json"]
    assert calls == [("someone/model", True), ("someone/model", str(tmp_path / "a"), files)]
    line = fails(["--hf-path", base, "--mlx-path", tmp_path / "b", "--upload-repo", "someone/else"], capsys)
    assert line == f"error: {tmp_path / 'b'} is converted, but could not be uploaded to someone/else: no token"
    assert ModelFolder(tmp_path / "b").config.model_type == "base"
