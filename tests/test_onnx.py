"""The speaker encoder as ONNX: the vector is ours at any length, browsers know the operators, 8 bits cost what is told.

And the files that other programs exchange voices in.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert.parity import recording, vector
from mlx_qwen3tts import Voice
from mlx_qwen3tts.audio.reading import read_audio
from mlx_qwen3tts.checkpoint.speaker import load_encoder_alone
from mlx_qwen3tts.checkpoint.speaker_onnx import Graph, build
from mlx_qwen3tts.convert import convert
from mlx_qwen3tts.errors import AudioError
from mlx_qwen3tts.networks.speaker.mel import log_mel

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from convert import export_onnx  # noqa: E402, after the extra is known to be there
from convert.export_onnx import INT8, MEL, WAVEFORM  # noqa: E402

ROOT = Path(__file__).parent.parent

# What onnxruntime-web's table for WebGPU has at opset 17 (js/web/docs/webgpu-operators.md); its WASM has all of ONNX.
BROWSER = re.compile(
    "Add|Clip|Concat|Conv|DequantizeLinear|Log|MatMul|Mul|Pad|ReduceMean|ReduceSum|Relu|Reshape|Sigmoid|Slice|Softmax|"
    "Split|Sqrt|Squeeze|Sub|Tanh|Transpose|Unsqueeze"
)
Failed = onnxruntime.capi.onnxruntime_pybind11_state.Fail
Refused = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument


def session(model):
    data = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def run(opened, given):
    return opened.run(None, {opened.get_inputs()[0].name: given})[0]


def sound(samples, seed=0):
    """A wandering tone that ends anywhere, so that both edges differ."""
    random = np.random.RandomState(seed)
    tone = np.sin(np.cumsum(random.uniform(0.02, 0.08, samples)))
    return (0.3 * tone + 0.02 * random.uniform(-1, 1, samples)).astype(np.float32)


@pytest.fixture
def export(capfd, tmp_path, monkeypatch):
    """A function that runs the command in tmp_path: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capfd.readouterr()
        status = 0
        try:
            export_onnx.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            status = stopped.code
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def refused(export, tmp_path):
    """A function that runs the command on bad input and returns its message."""

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        status, out, err = export(*arguments)
        assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, err
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return err.removeprefix("error: ").strip()

    return run


# The network


@pytest.mark.parametrize(("name", "frames"), [("base", 5), ("base-other-shape", 7)])
def test_the_vector_is_ours_at_any_length(name, frames, checkpoint):
    encoder, _ = load_encoder_alone(checkpoint(name))
    assert encoder.shortest == (frames, frames * 256)
    waveform, spectrum = session(build(encoder, name)), session(build(encoder, name, from_mel=True))
    least = frames * 256
    for samples in (72000, least, least + 1, 12345, least + 255, least + 256, 24000):
        audio = mx.array(sound(samples, samples))
        ours = np.array(encoder.embed(audio))
        for theirs in (run(waveform, np.array(audio)), run(spectrum, np.array(log_mel(audio))[None])):
            assert theirs.shape == ours.shape == (encoder.fc.weight.shape[0],) and theirs.dtype == np.float32
            assert ours @ theirs >= 0.99999 * np.linalg.norm(ours) * np.linalg.norm(theirs)
            # The cosine alone would pass a vector of another voice: most of a vector is what all share.
            assert np.abs(theirs - ours).max() < 1e-4 * np.abs(ours).max()


@pytest.mark.parametrize("samples", [24000, 1280])
@pytest.mark.parametrize("loudness", [0, 1e-4, 3])
def test_silence_and_noise(samples, loudness, checkpoint):
    encoder, _ = load_encoder_alone(checkpoint("base"))
    audio = (loudness * np.random.RandomState(1).uniform(-1, 1, samples)).astype(np.float32)
    ours, theirs = np.array(encoder.embed(mx.array(audio))), run(session(build(encoder, "base")), audio)
    assert np.abs(theirs - ours).max() < 1e-4 * np.abs(ours).max()


@pytest.mark.parametrize("name", ["base", "base-other-shape"])
def test_what_is_too_short_is_refused(name, checkpoint):
    encoder, _ = load_encoder_alone(checkpoint(name))
    frames, samples = encoder.shortest
    waveform, spectrum = session(build(encoder, name)), session(build(encoder, name, from_mel=True))
    for fewer in (samples - 1, samples - 256, 400, 1):
        with pytest.raises(AudioError, match=f"audio of {fewer} samples is too short; at least {samples} are needed"):
            encoder.embed(mx.array(sound(fewer)))
        with pytest.raises(Failed, match=f"at least {samples} samples"):
            run(waveform, sound(fewer))
    with pytest.raises(Failed, match=f"at least {frames} frames"):
        run(spectrum, np.zeros((1, frames - 1, 128), np.float32))
    with pytest.raises(Refused, match="rank"):
        run(waveform, sound(samples)[None])
    with pytest.raises(Refused, match="dimensions"):
        run(spectrum, np.zeros((1, frames, 80), np.float32))


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("from_mel", [False, True])
def test_browsers_know_every_operator(int8, from_mel, checkpoint):
    encoder, _ = load_encoder_alone(checkpoint("base"))
    model = build(encoder, "a-name", from_mel, int8)
    onnx.checker.check_model(model, full_check=True)
    assert all(BROWSER.fullmatch(node.op_type) for node in model.graph.node)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert ("DequantizeLinear" in {node.op_type for node in model.graph.node}) == int8
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    least = {"minimum_frames": "5"} if from_mel else {"minimum_samples": "1280"}
    assert metadata == {"source_model": "a-name", "dimension": "64", "sample_rate": "24000", **least}
    modes = [a.s for node in model.graph.node if node.op_type == "Pad" for a in node.attribute if a.name == "mode"]
    assert modes and set(modes) == {b"reflect"}


def test_the_weights_are_the_published_ones(checkpoint):
    encoder, _ = load_encoder_alone(checkpoint("base"))
    published = mx.load(str(checkpoint("base") / "model.safetensors"))
    model = build(encoder, "base", from_mel=True)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    divided = "asp.tdnn.conv.weight"
    for name in (name for name in published if name.startswith("speaker_encoder.")):
        short, value = name.removeprefix("speaker_encoder."), np.array(published[name].astype(mx.float32))
        if short == divided:
            parts = [stored[f"asp.tdnn.conv.{part}.weight"] for part in ("frame", "mean", "deviation")]
            assert np.array_equal(np.concatenate(parts, axis=1), value)
        elif short == "asp.tdnn.conv.bias":
            assert np.array_equal(stored["asp.tdnn.conv.frame.bias"], value)
        else:
            assert np.array_equal(stored[short], value), name


# The command


@pytest.fixture
def recordings(tmp_path):
    """Two made-up speakers, 6.5 s each: four slices of 3 s."""
    return [recording(tmp_path / f"{seed}.wav", seed, 6.5) for seed in (1, 2)]


def cosines(a, b):
    return [float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) for x, y in zip(a, b, strict=True)]


def test_eight_bits_cost_what_is_told(export, checkpoint, recordings, tmp_path):
    status, out, err = export(
        "--model", checkpoint("base"), "--output", "onnx", "--int8", "--audio", *recordings, "--json"
    )
    assert status == 0, err
    told = json.loads(out)
    assert told["output"] == [f"onnx/{name}" for name in (WAVEFORM, MEL, INT8)] and told["dimension"] == 64
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == sorted((WAVEFORM, MEL, INT8))
    full, small = session(f"onnx/{WAVEFORM}"), session(f"onnx/{INT8}")
    slices = [read_audio(path, 24000)[start : start + 72000] for path in recordings for start in (0, 72000)]
    full, small = (np.stack([run(opened, audio) for audio in slices]).astype(np.float64) for opened in (full, small))
    mean = full.mean(axis=0)
    raw, centred = cosines(full, small), cosines(full - mean, small - mean)
    expected = {
        "raw": np.mean(raw),
        "raw_lowest": min(raw),
        "centred": np.mean(centred),
        "centred_lowest": min(centred),
    }
    assert told[INT8].pop("slices") == 4
    assert told[INT8] == pytest.approx(expected, abs=1e-5)
    # Two random voices lie so close together that what 8 bits add to both is much of what centring leaves.
    assert 0.5 < told[INT8]["centred"] < 0.999 < told[INT8]["raw"] < 1 - 1e-7
    for name in (WAVEFORM, MEL):
        assert told[name]["cosine"] >= 0.99999 and told[name]["relative_error"] < 1e-4
    exact, rounded = (
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(f"onnx/{name}").graph.initializer}
        for name in (WAVEFORM, INT8)
    )
    weights = [name for name in exact if name.endswith(".weight")]
    assert len(weights) == 40
    for name in weights:
        scale = rounded[f"{name}.scale"][:, None, None]
        assert rounded[name].dtype == np.int8 and (np.abs(rounded[name]).max(axis=(1, 2)) == 127).all()
        assert (np.abs(rounded[name] * scale - exact[name]) <= 0.501 * scale).all()
    assert err.count("\n") == 3 and "raw (lowest" in err and "centred (lowest" in err


def test_every_form_of_a_checkpoint_gives_the_same_files(export, checkpoint, tmp_path):
    base = checkpoint("base")
    alone = tmp_path / "alone" / "base"
    alone.mkdir(parents=True)
    tensors = mx.load(str(base / "model.safetensors"))
    tensors = {name: value for name, value in tensors.items() if name.startswith("speaker_encoder.")}
    mx.save_safetensors(str(alone / "model.safetensors"), tensors)
    config = json.loads((base / "config.json").read_text())["speaker_encoder_config"]
    (alone / "config.json").write_text(json.dumps(config))
    (tmp_path / "converted").mkdir()
    convert(base, tmp_path / "converted" / "base")
    for i, folder in enumerate((base, alone, tmp_path / "converted" / "base")):
        status, out, err = export("--model", folder, "--output", f"out{i}")
        assert (status, out) == (0, ""), err
        assert sorted(path.name for path in (tmp_path / f"out{i}").iterdir()) == sorted((WAVEFORM, MEL))
        for name in (WAVEFORM, MEL):
            assert (tmp_path / f"out{i}" / name).read_bytes() == (tmp_path / "out0" / name).read_bytes()
    # Again over the first, as a maintainer does.
    assert export("--model", base, "--output", "out0")[0] == 0


def test_no_torch(checkpoint, tmp_path):
    code = (
        "import sys, runpy; sys.modules['torch'] = None; runpy.run_module('convert.export_onnx', run_name='__main__')"
    )
    arguments = ["--model", str(checkpoint("base")), "--output", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "cosine to ours 1.0000" in done.stderr, done.stderr


def test_an_encoder_that_went_wrong_leaves_no_files(refused, checkpoint, monkeypatch):
    def edge(graph, x, pad):
        return graph.node("Pad", x, graph.integers(0, 0, pad, 0, 0, pad), graph.number(0), mode="edge")

    monkeypatch.setattr(Graph, "reflect", edge)
    message = refused("--model", checkpoint("base"), "--output", "onnx")
    assert message.startswith(f"{WAVEFORM} does not give our vectors in onnxruntime: cosine 0.")
    assert message.endswith("; nothing is written")


def test_bad_input(refused, checkpoint, recordings, tmp_path, monkeypatch):
    base = ("--model", checkpoint("base"), "--output")
    assert "custom_voice model has no speaker encoder" in refused(
        "--model", checkpoint("custom-voice"), "--output", "onnx"
    )
    assert "no such folder" in refused("--model", "nowhere", "--output", "onnx")
    (tmp_path / "file").touch()
    assert refused(*base, "file") == "--output file is not a folder"
    assert "does not exist" in refused(*base, "no/where")
    assert refused(*base, "") == "--output is empty"
    assert refused(*base, "onnx", "--int8") == "--int8 needs 4 recordings or slices of 3 s in --audio, not 0"
    assert refused(*base, "onnx", "--int8", "--audio", recordings[0]).endswith("not 2")
    assert "no such file" in refused(*base, "onnx", "--audio", "gone.wav")
    soundfile.write("silence.wav", np.zeros(72000), 24000)
    assert refused(*base, "onnx", "--audio", "silence.wav") == "audio silence.wav is silent"
    short = recording(tmp_path / "short.wav", 3, 2.0)
    assert "the recordings are the same" in refused(*base, "onnx", "--int8", "--audio", *[short] * 4)
    (tmp_path / "taken" / WAVEFORM).mkdir(parents=True)
    assert refused(*base, "taken") == f"output taken/{WAVEFORM} is a folder"
    for missing in ("onnx", "onnxruntime"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, missing, None)
            assert refused(*base, "onnx") == f"the export needs {missing}: pip install '.[onnx]'"


# Voices in the files that others write and read


def test_a_standalone_encoder_writes_what_others_read(command, checkpoint, tmp_path):
    from safetensors.numpy import load_file

    base, alone = checkpoint("base"), tmp_path / "encoder"
    alone.mkdir()
    tensors = mx.load(str(base / "model.safetensors"))
    tensors = {n.split(".", 1)[1]: value for n, value in tensors.items() if n.startswith("speaker_encoder.")}
    mx.save_safetensors(str(alone / "model.safetensors"), tensors)
    config = json.loads((base / "config.json").read_text())["speaker_encoder_config"]
    (alone / "config.json").write_text(json.dumps({"speaker_encoder_config": config}))
    audio = recording(tmp_path / "speaker.wav", 2, 3.1)
    assert command("embed", "--model", "encoder", audio, "--output", "v.safetensors").status == 0
    written = load_file("v.safetensors")
    assert list(written) == ["speaker_embedding"]
    assert written["speaker_embedding"].dtype == np.float32 and written["speaker_embedding"].shape == (64,)
    encoder, _ = load_encoder_alone(base)
    opened = session(build(encoder, "base"))
    theirs = run(opened, read_audio(audio, 24000))
    assert np.abs(written["speaker_embedding"] - theirs).max() < 1e-4 * np.abs(theirs).max()
    assert np.array_equal(np.array(Voice.load("v.safetensors").embedding), written["speaker_embedding"])


@pytest.mark.parametrize("shape", [(64,), (1, 64)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_plain_safetensors_file_is_a_voice(shape, dtype, tmp_path):
    values = mx.array(vector(64, 1)).astype(getattr(mx, dtype))
    mx.save_safetensors(str(tmp_path / "v.safetensors"), {"speaker_embedding": values.reshape(shape)})
    voice = Voice.load(tmp_path / "v.safetensors")
    assert voice.embedding.dtype == mx.float32 and voice.embedding.shape == (64,) and voice.ref_codes is None
    assert np.array_equal(np.array(voice.embedding), np.array(values.astype(mx.float32)))
