"""benchmarks.ladder: its replay is the model's own decoding. And what it is for: checkpoints that were quantised."""

import contextlib
import io
import json
import re
import shutil
import warnings

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from benchmarks import ladder
from benchmarks.ladder import RECIPES, Recipe, Utterance, choices, compare, divergence, replay
from benchmarks.shared import frame_bytes
from convert.random_checkpoint import write_checkpoint
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.checkpoint.weights import read_folder
from mlx_qwen3tts.convert import convert
from mlx_qwen3tts.networks.linear import Rows
from mlx_qwen3tts.networks.talker import Talker

pytestmark = pytest.mark.benchmarks

TEXT = "Hello the ant is in the house."
LADDER = ("bf16", "8", "4", "8+e8", "4+p8")  # the recipes that the whole command is tried with


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Base checkpoint whose end of speech comes early."""
    return write_checkpoint(tmp_path_factory.mktemp("source") / "base", seed=3, eos_gain=2.6)


@pytest.fixture(scope="module")
def tts(folder):
    return Qwen3TTS.from_pretrained(folder, "float32")


def vector(tts, seed=5):
    return mx.random.normal((tts.embedding_dim,), key=mx.random.key(seed))


def spoken(tts, frames, greedy, text_mode="streaming", seed=0):
    """(prompt, sampler, codes [F, 16], finish reason) of speech by the loop."""
    config = tts.sampling.override(greedy=greedy, max_tokens=frames + 1)
    sampler = tts.steps.of([config])[0].sampler
    prompt = tts.prompt(TEXT, tts.voice(vector(tts)), text_mode=text_mode)
    made = list(tts.generation([prompt], [seed], config))
    return prompt, sampler, mx.concatenate([frame.codes for frame in made]).astype(mx.int32), made[-1].ended[0]


def silently(work, *arguments, **options):
    """Call what prints how many bits a weight has, and warns of layers left."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="left unquantised")
        return work(*arguments, **options)


# The replay


@pytest.mark.parametrize("text_mode", ["streaming", "full"])
def test_greedy_codes_reproduce_themselves(tts, text_mode):
    ends = set()
    for frames in (6, 60):
        prompt, sampler, codes, reason = spoken(tts, frames, True, text_mode)
        first, rest = choices(tts.talker, prompt, codes, sampler)
        assert first.shape == (len(codes) + 1, 3072) and rest.shape == (len(codes), 15, 2048)
        assert first.argmax(axis=-1).tolist()[:-1] == codes[:, 0].tolist()
        assert mx.array_equal(rest.argmax(axis=-1), codes[:, 1:])
        assert (first[-1].argmax().item() == tts.config.talker.codec_eos_token_id) == (reason == "stop")
        ends.add(reason)
    assert ends == {"length", "stop"}


def test_replay_is_the_decoding_step_by_step(tts):
    # Sampled codes: none of them is what the logits would choose.
    prompt, _, codes, _ = spoken(tts, 12, False, seed=4)
    talker, caches = tts.talker, tts.talker.make_cache()
    first, rest, inputs = [], [], prompt.embeddings[None]
    for frame, row in enumerate(codes):
        logits, hidden = talker(inputs, caches)
        steps = []

        def given(step, logits, row=row, steps=steps):
            steps.append(logits[0])
            return row[step + 1 : step + 2]

        talker.predict(hidden, row[:1], given)
        first.append(logits[0])
        rest.append(mx.stack(steps))
        inputs = (talker.embed_frames(row[None]) + prompt.text.at(frame))[None]
    first.append(talker(inputs, caches)[0][0])
    for whole, stepped in zip(replay(talker, prompt, codes), (first, rest), strict=True):
        assert mx.allclose(whole, mx.stack(stepped), rtol=1e-4, atol=1e-4)


def test_agreement_and_divergence():
    random = np.random.RandomState(0)
    p, q = random.standard_normal((2, 5, 7)).astype(np.float32)
    a, b = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (p, q))
    assert np.allclose(divergence(mx.array(p), mx.array(q)), (a * np.log(a / b)).sum(axis=1), atol=1e-5)
    barred = mx.array([0.0, 0.0, float("-inf")])
    assert divergence(barred, barred).item() == 0
    assert divergence(barred, mx.array([0.0, 0.0, 0.0])).item() == pytest.approx(np.log(3 / 2), abs=1e-6)

    eye = mx.eye(4)
    utterances = [Utterance("", None, eye[:3], eye[None, :2]), Utterance("", None, eye[:2], eye[None, 2:])]
    same = compare(utterances, [(utterance.first, utterance.rest) for utterance in utterances])
    assert same.pop("agreement") == [1, 1, 1]
    assert same == pytest.approx({"agreement_0": 1, "kl_0": 0, "agreement_rest": 1, "kl_rest": 0}, abs=1e-6)
    other = compare(utterances, [(eye[1:4], eye[None, :2]), (eye[:2], eye[None, :2])])
    assert other["agreement_0"] == pytest.approx(2 / 5)
    assert other["agreement"] == pytest.approx([2 / 5, 1 / 2, 1 / 2]) and other["agreement_rest"] == 0.5
    assert other["kl_0"] > 0 and other["kl_rest"] > 0


# The command


def run(capsys, *arguments):
    """(exit status, stdout, stderr) of the command."""
    status = 0
    with warnings.catch_warnings():
        try:
            ladder.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            status = stopped.code
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_recipes():
    assert Recipe.parse("bf16", 64) == Recipe("bf16", dtype="bfloat16")
    assert Recipe.parse("6", 64) == Recipe("6", None, 6, 64)
    assert Recipe.parse("4g32+p8+e8", 64) == Recipe("4g32+p8+e8", None, 4, 32, 8, 8)
    for name in (*RECIPES, "fp32"):
        assert Recipe.parse(name, 128).name == name


def test_the_whole_ladder(capsys, tmp_path, folder):
    (tmp_path / "texts").write_text("Hello the ant.\n\n  The ant is in the house. \nNever.\n")
    arguments = ["--model", folder, "--text-file", tmp_path / "texts", "--texts", 2, "--frames", 8, "--group-size", 32]
    vector_file = tmp_path / "voice.npy"
    np.save(vector_file, np.random.RandomState(0).standard_normal(64).astype(np.float32))
    arguments += ["--voice", vector_file, "--recipes", *LADDER, "--json"]
    status, out, err = run(capsys, *arguments)
    assert status == 0, err
    lines = out.splitlines()
    result = json.loads(lines[-1])
    assert result["dtype"] == "bfloat16" and result["seed"] == 0 and not result["random"]
    assert [speech["text"] for speech in result["speech"]] == ["Hello the ant.", "The ant is in the house."]
    assert 4 <= result["frames"] == sum(speech["frames"] for speech in result["speech"]) <= 16
    assert all(0 < share < 1 for share in result["certainty"])
    rows = {row["recipe"]: row for row in result["recipes"]}
    assert list(rows) == list(LADDER)
    # Itself, through convert: bit for bit.
    itself = rows["bf16"]
    assert itself["agreement"] == [1] * 16 and itself["kl_0"] == itself["kl_rest"] == 0
    assert itself["layers"] == 0 and itself["left"] == []
    for row in result["recipes"]:
        assert len(row["agreement"]) == 16 and row["agreement"][0] == row["agreement_0"]
        assert row["agreement_rest"] == pytest.approx(np.mean(row["agreement"][1:]), abs=1e-6)
        assert row["bytes"] > row["bytes_without_codec"] > row["bytes_a_frame"]
    for name in ("agreement_rest", "bytes", "bytes_without_codec", "bytes_a_frame"):
        assert rows["bf16"][name] > rows["8"][name] > rows["4"][name], name
    for name in ("kl_0", "kl_rest"):
        assert 0 < rows["8"][name] < rows["4"][name], name
    assert rows["4+p8"]["agreement_0"] == rows["4"]["agreement_0"] and rows["4+p8"]["kl_0"] == rows["4"]["kl_0"]
    assert rows["4+p8"]["kl_rest"] < rows["4"]["kl_rest"]
    # 48 wide: the text's side and the predictor's down projections.
    left = {f"talker.text_projection.linear_fc{i}" for i in (1, 2)}
    left |= {f"talker.code_predictor.model.layers.{i}.mlp.down_proj" for i in (0, 1)}
    assert set(rows["8"]["left"]) == left and rows["8"]["layers"] == 7 * 3 + 1 + 2 + 7 * 2 + 1 + 15
    assert set(rows["8+e8"]["left"]) == left | {"talker.model.text_embedding"}
    assert any(re.match(r"4\+p8 .* MB +4 of 54$", line) for line in lines), out
    assert "recipe 4+p8" in err


def test_bytes_of_a_frame(folder):
    """Counted by hand; the tiny configuration is written out in test_compare."""
    talker_layer = 64 * 8 * 32 + 4 * 32 * 64 + 3 * 64 * 96 + 2 * 32 + 2 * 64
    predictor_layer = 32 * 4 * 16 + 2 * 16 * 32 + 3 * 32 * 48 + 2 * 16 + 2 * 32
    talker = 3 * talker_layer + 64 + 3072 * 64
    predictor = 15 * (2 * predictor_layer + 32 + 64 * 32 + 32) + 15 * 2048 * 32
    sizes = {name: tensor.bytes for name, tensor in read_folder(folder).items()}
    assert frame_bytes(sizes)["frame"] == 2 * (talker + predictor)


def test_bad_input_is_one_line(capsys, tmp_path, folder):
    silently(convert, folder, tmp_path / "quantised", quantize=True)
    (tmp_path / "empty").write_text("\n \n")
    # With two heads no width of the tiny talker is a multiple of 128.
    thin = write_checkpoint(tmp_path / "thin", changes={"talker_config": {"num_attention_heads": 2}})
    for arguments, message in (
        (["--model", tmp_path / "quantised"], "ladder needs the unquantised checkpoint"),
        (["--model", tmp_path / "absent"], "no such folder"),
        (["--model", folder], "no voice given"),
        (["--model", folder, "--recipes", "5"], "recipe '5' is not bf16 or fp32 or BITS"),
        (["--model", folder, "--recipes", "4g16"], "GROUP is 32, 64, 128"),
        (["--model", thin, "--recipes", "8g128"], "recipe '8g128': group size 128 divides no layer's width"),
        (["--size", "tiny", "--frames", 0], "frames 0 is not 1 or more"),
        (["--size", "tiny", "--texts", 99], "texts 99 is not between 1 and 8"),
        (["--size", "tiny", "--text-file", tmp_path / "empty"], "texts 0 is not"),
        (["--size", "tiny", "--dtype", "int8"], "dtype 'int8' is not one of"),
        (["--size", "tiny", "--seed", -1], "seed -1"),
        ([], "one of the arguments --model --size is required"),
    ):
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (2, ""), arguments
        [line] = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert line.startswith("error: ") and message in line, line


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in LADDER])
def test_the_other_recipes_load_and_speak(tmp_path, folder, name):
    made = silently(Recipe.parse(name, 32).write, folder, tmp_path / "out")
    tts = Qwen3TTS.from_pretrained(made.folder)
    assert tts.talker.dtype == mx.bfloat16
    speech = tts.generate("Hello the ant.", voice=vector(tts), seed=1, max_tokens=6)
    assert speech.codes.shape[1] == 16 and 2 <= len(speech.codes) <= 5
    assert mx.isfinite(speech.audio).all().item() and speech.audio.shape[0] == 1920 * len(speech.codes)


# Quantising


@pytest.mark.parametrize(("group_size", "of_bits"), [(32, (6,)), (64, (8, 6, 4)), (128, (4,))])
def test_bits_and_groups(tmp_path, group_size, of_bits):
    wide = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    predictor = {**wide, "num_attention_heads": 4, "num_key_value_heads": 2}
    changes = {"talker_config": {**wide, "text_hidden_size": 128, "code_predictor_config": predictor}}
    changes["speaker_encoder_config"] = {"enc_dim": 128}
    source = write_checkpoint(tmp_path / "source", seed=1, changes=changes)
    plain = mx.load(str(source / "model.safetensors"))
    errors = []
    for bits in of_bits:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="left unquantised")  # every width is a multiple
            with contextlib.redirect_stderr(io.StringIO()):
                convert(source, tmp_path / f"{bits}", quantize=True, q_bits=bits, q_group_size=group_size)
        tts = Qwen3TTS.from_pretrained(tmp_path / f"{bits}", "float32")
        linear = list(ladder.linear_widths(source))
        tensors = mx.load(str(next((tmp_path / f"{bits}").glob("model*.safetensors"))))
        assert {name.removesuffix(".scales") for name in tensors if name.endswith(".scales")} == set(linear)
        square = 0
        for name in linear:
            scales, biases = (tensors[f"{name}.{leaf}"].astype(mx.float32) for leaf in ("scales", "biases"))
            back = mx.dequantize(tensors[f"{name}.weight"], scales, biases, group_size, bits)
            error = mx.abs(back - plain[f"{name}.weight"]).reshape(*scales.shape, group_size)
            # Half a step, another as MLX moves the grid to meet a group's largest weight, and bfloat16's rounding.
            assert (error <= mx.abs(scales[..., None]) * (1 + 2.0 ** (bits - 8))).all().item(), name
            square += mx.square(error).mean().item()
        errors.append((square / len(linear)) ** 0.5)
        codes = tts.generate(TEXT, voice=vector(tts), greedy=True, max_tokens=3).codes
        assert codes.shape == (2, 16)
    # Two bits fewer make a step about four times as long.
    assert len(errors) == 1 or errors[0] * 2.5 < errors[1] < errors[2] / 3


def mixed_4_6(path):
    """mlx-lm's recipe of that name, in all layers."""
    return 6 if any(name in path for name in ("v_proj", "down_proj", "lm_head")) else 4


def all_differ(path):
    return {"q_proj": 8, "k_proj": 4, "v_proj": 6, "gate_proj": 4, "up_proj": 8}.get(path.rpartition(".")[2], 6)


def some_plain(path):
    return None if path.rpartition(".")[2] in ("k_proj", "up_proj", "codec_head") else 4


def community_folder(source, folder, bits_of):
    """As the community's copies are: quantised by mlx-lm, each layer's settings in config.json, the codec untouched."""
    from mlx_lm.utils import quantize_model

    shutil.copytree(source, folder)
    values, tensors = json.loads((folder / "config.json").read_text()), mx.load(str(source / "model.safetensors"))
    whole = nn.Module()
    whole.talker = Talker(ModelFolder(source).config)
    own = [(name, value) for name, value in tensors.items() if name.startswith("talker.")]
    whole.load_weights(own)

    def predicate(path, layer):
        bits = bits_of(path) if isinstance(layer, nn.Linear) else None
        return {"group_size": 32, "bits": bits, "mode": "affine"} if bits else False

    whole, values = silently(quantize_model, whole, values, 32, 4, quant_predicate=predicate)
    made = dict(tree_flatten(whole.parameters())) | {n: v for n, v in tensors.items() if not n.startswith("talker.")}
    for name, value in made.items():
        if name.startswith("speaker_encoder.") and value.ndim == 3:
            made[name] = mx.contiguous(value.transpose(0, 2, 1))
    (folder / "model.safetensors").unlink()  # arrays may still lie in the source's
    mx.save_safetensors(str(folder / "model.safetensors"), made)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def dequantised(folder):
    """The talker's tensors as NumPy's float64, with one plain weight for every layer."""
    values = json.loads((folder / "config.json").read_text())["quantization"]
    tensors = mx.load(str(folder / "model.safetensors"))
    weights = {}
    for name, value in tensors.items():
        path, _, leaf = name.rpartition(".")
        if leaf in ("scales", "biases"):
            continue
        if f"{path}.scales" in tensors and leaf == "weight":
            scales, biases = (tensors[f"{path}.{extra}"].astype(mx.float32) for extra in ("scales", "biases"))
            value = mx.dequantize(value, scales, biases, values[path]["group_size"], values[path]["bits"])
        weights[name] = np.array(value.astype(mx.float32), np.float64)
    return weights


def rms_norm(x, weight):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * weight


def decoder(weights, prefix, config, x):
    """The published decoder on [T, E], one projection at a time."""
    length, dim = len(x), config.head_dim
    angles = np.arange(length)[:, None] / config.rope_theta ** (np.arange(0, dim, 2) / dim)
    cos, sin = (np.concatenate([f(angles)] * 2, axis=1)[:, None] for f in (np.cos, np.sin))

    def rotate(x):
        return x * cos + np.concatenate([-x[..., dim // 2 :], x[..., : dim // 2]], axis=-1) * sin

    for number in range(config.num_hidden_layers):
        at = f"{prefix}.layers.{number}."

        def linear(name, x, at=at):
            return x @ weights[f"{at}{name}_proj.weight"].T

        y = rms_norm(x, weights[f"{at}input_layernorm.weight"])
        q, k, v = (linear(f"self_attn.{name}", y).reshape(length, -1, dim) for name in "qkv")
        q, k = (rotate(rms_norm(z, weights[f"{at}self_attn.{name}_norm.weight"])) for z, name in ((q, "q"), (k, "k")))
        k, v = (np.repeat(z, q.shape[1] // z.shape[1], axis=1) for z in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) * dim**-0.5
        scores[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out = np.einsum("hqk,khd->qhd", scores / scores.sum(axis=-1, keepdims=True), v)
        x = x + linear("self_attn.o", out.reshape(length, -1))
        y = rms_norm(x, weights[f"{at}post_attention_layernorm.weight"])
        gate = linear("mlp.gate", y)
        x = x + linear("mlp.down", gate / (1 + np.exp(-gate)) * linear("mlp.up", y))
    return rms_norm(x, weights[f"{prefix}.norm.weight"])


@pytest.mark.parametrize(
    ("bits_of", "products"),
    [(mixed_4_6, (2, 1)), (all_differ, (3, 2)), (some_plain, (3, 2))],
    ids=["mixed_4_6", "all differ", "some plain"],
)
def test_layers_quantised_differently(tmp_path, folder, bits_of, products):
    tts = Qwen3TTS.from_pretrained(community_folder(folder, tmp_path / "mixed", bits_of), "float32")
    for layer in (*tts.talker.model.layers, *tts.talker.code_predictor.model.layers):
        fused = layer.self_attn.qkv_proj, layer.mlp.gate_up_proj
        assert tuple(len(part.layers) if isinstance(part, Rows) else 1 for part in fused) == products

    prompt, _, codes, _ = spoken(tts, 5, False, seed=4)
    first, rest = replay(tts.talker, prompt, codes)
    config, weights, frames = tts.config, dequantised(tmp_path / "mixed"), len(codes)
    tables = [weights["talker.model.codec_embedding.weight"]]
    predictor = "talker.code_predictor"
    tables += [weights[f"{predictor}.model.codec_embedding.{i}.weight"] for i in range(15)]
    embedded = np.stack([table[np.array(codes[:, i])] for i, table in enumerate(tables)], axis=1)  # [F, 16, E]
    text = np.stack([np.array(prompt.text.at(step)) for step in range(frames)])
    inputs = np.concatenate([np.array(prompt.embeddings), embedded.sum(axis=1) + text])
    hidden = decoder(weights, "talker.model", config.talker, inputs)[-frames - 1 :]
    wanted = hidden @ weights["talker.codec_head.weight"].T
    assert np.allclose(np.array(first), wanted, atol=1e-4 * np.abs(wanted).max())
    for frame in range(frames):
        inputs = np.concatenate([hidden[frame : frame + 1], embedded[frame, :-1]])
        projection = f"{predictor}.small_to_mtp_projection."
        inputs = inputs @ weights[f"{projection}weight"].T + weights[f"{projection}bias"]
        states = decoder(weights, f"{predictor}.model", config.predictor, inputs)
        wanted = np.stack([weights[f"{predictor}.lm_head.{i}.weight"] @ states[i + 1] for i in range(15)])
        assert np.allclose(np.array(rest[frame]), wanted, atol=1e-4 * np.abs(wanted).max())
