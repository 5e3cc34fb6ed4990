"""Voices that do not fit, and files that are not voices."""

import json
import math
import pickle
import struct
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Voice, VoiceSpace
from mlx_qwen3tts.errors import InvalidValue, QwenTTSError, UnsupportedValue, VoiceError, VoiceNotFound, WrongType
from mlx_qwen3tts.voices import blend, lerp, move, offset, slerp
from mlx_qwen3tts.voices.fit import check_fit
from mlx_qwen3tts.voices.lookup import Lookup
from tests.bad_input.samples import V, archive, npy

SPACE = VoiceSpace.fit(np.stack([vector(64, seed) for seed in range(12)]))
SHORT = ("--max-tokens", "3", "--seed", "1", "--output", "out.wav")


def test_two_voices_at_once(refused, checkpoint, audio):
    run = ("generate", "--model", checkpoint("base"), "Hello.")
    given = {"--voice": "vivian", "--embedding": "v.npy", "--ref-audio": str(audio)}
    for one, two in (("--voice", "--embedding"), ("--voice", "--ref-audio"), ("--embedding", "--ref-audio")):
        assert refused(*run, one, given[one], two, given[two]) == f"{one} and {two} name two voices; give one"
        assert refused(*run, one, given[one], two, "") == f"{one} and {two} name two voices; give one"


def test_missing_and_unknown_voices(refused, checkpoint, audio, tmp_path):
    def told(name, *arguments):
        return refused("generate", "--model", checkpoint(name), *arguments, "Hello.")

    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "v.npy", vector(64, 1))
    presets = "serena, vivian, uncle_fu, ryan, eric, dylan"
    assert told("base") == "no voice given: give --voice (in Python voice=), --embedding or --ref-audio"
    assert told("custom-voice") == (
        f"no voice given: give --voice (in Python voice=) with one of {presets}, or --embedding"
    )
    for name in ("nobody", "vivian ", "folder"):
        message = f"voice '{name}' is not a file or a preset of this model"
        assert told("base", "--voice", name) == message
        assert told("custom-voice", "--voice", name) == f"{message}; presets: {presets}"
    for option in ("--voice", "--embedding", "--ref-audio"):
        assert told("base", option, "") == f"{option} is empty"
        assert told("base", option, "nowhere.npy").endswith(" nowhere.npy: no such file")
    for recording in (audio, "nowhere.wav", "call.M4A"):
        assert "clone it with --ref-audio" in told("base", "--voice", recording)
        assert "clone it with --ref-audio" in told("base", "--embedding", recording)
    assert told("voice-design", "--embedding", "v.npy") == (
        "a voice_design model has no speaker slot; describe the voice with instruct"
    )
    assert told("base", "--embedding", "v.npy", "--ref-text", "Hi.") == (
        "--ref-text belongs to --ref-audio, which is not given"
    )
    assert told("base", "--embedding", "v.npy", "--prepare") == ("--prepare belongs to --ref-audio, which is not given")


def tensors(metadata=None, **arrays):
    """A safetensors file, from (dtype, shape, bytes) by name."""
    header, data = {"__metadata__": metadata} if metadata is not None else {}, b""
    for name, (dtype, shape, content) in arrays.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


EMBEDDING = {"speaker_embedding": ("F32", [64], V.tobytes())}
PICKLED = "is not a NumPy array file or holds pickled objects, which are refused; save a plain array"
EMBEDDINGS = [
    ("short.npy", npy(V[:63]), "the voice 'short' has 63 dimensions, this model takes 64; voices do not transfer"),
    ("long.npy", npy(vector(1024, 1)), "the voice 'long' has 1024 dimensions, this model takes 64"),
    ("nan.npy", npy(np.where(np.arange(64) == 5, np.nan, V)), "has values that are NaN or infinite"),
    ("inf.npy", npy(np.where(np.arange(64) == 5, np.inf, V)), "has values that are NaN or infinite"),
    ("overflow.npy", npy(V.astype(np.float64) * 1e300), "has values that are NaN or infinite"),
    ("integers.npy", npy(np.arange(64)), "has dtype int64; expected floats"),
    ("bool.npy", npy(np.ones(64, bool)), "has dtype bool; expected floats"),
    ("complex.npy", npy(V * 1j), "has dtype complex64; expected floats"),
    ("text.npy", npy(np.array(["a"] * 64)), "has dtype <U1; expected floats"),
    ("objects.npy", npy(np.array([1.0, None], object)), PICKLED),
    ("pickle.npy", pickle.dumps(V.tolist()), PICKLED),
    ("words.npy", b"these are words", PICKLED),
    ("empty.npy", b"", "is not a NumPy array file"),
    ("cut.npy", npy(V)[:200], "is not a NumPy array file"),
    ("lying.npy", npy(V).replace(b"(64,), }" + b" " * 12, b"(64" + b"0" * 12 + b",), }"), "is not a NumPy array file"),
    ("archive.npy", archive(V), "is an archive of arrays (.npz); save one plain array"),
    ("rows.npy", npy(np.stack([V, V])), "has shape [2, 64]; expected [D] or [1, D]"),
    ("column.npy", npy(V[:, None]), "has shape [64, 1]; expected [D] or [1, D]"),
    ("scalar.npy", npy(V[0]), "has shape []; expected [D] or [1, D]"),
    ("none.npy", npy(V[:0]), "has shape [0]; expected [D] or [1, D]"),
    ("object.json", b'{"vector": [1.0], "name": "x"}', "has neither 'speaker_embedding' nor 'embedding', only vector"),
    ("nothing.json", b"{}", "has neither 'speaker_embedding' nor 'embedding', only nothing"),
    ("short.json", b'{"embedding": [1.0]}', "the voice 'short' has 1 dimensions"),
    ("inner.json", b'{"embedding": {"data": [1.0]}}', "is not an array of numbers"),
    ("none.json", b'{"embedding": null}', "is not an array of numbers"),
    ("huge.json", b"[" + b"9" * 400 + b"]", "is not an array of numbers"),
    ("nan.json", b"[NaN, 1.0]", "has values that are NaN or infinite"),
    ("null.json", b"[1.0, null]", "is not an array of numbers"),
    ("strings.json", b'["1.0"]', "expected floats"),
    ("ragged.json", b"[[1.0], [1.0, 2.0]]", "is not a JSON list of numbers"),
    ("cut.json", b"[1.0, 2", "is not a JSON list of numbers"),
    ("deep.json", b"[" * 100_000, "is not a JSON list of numbers"),
    ("latin.json", b"[\xff]", "is not a JSON list of numbers"),
    (
        "two.safetensors",
        tensors(x=EMBEDDING["speaker_embedding"], y=EMBEDDING["speaker_embedding"]),
        "has no tensor 'speaker_embedding', only x, y",
    ),
    ("none.safetensors", tensors(), "has no tensor 'speaker_embedding', only none"),
    ("matrix.safetensors", tensors(x=("F32", [2, 32], V.tobytes())), "has shape [2, 32]; expected [D] or [1, D]"),
    ("whole.safetensors", tensors(x=("I32", [64], V.tobytes())), "dtype int32; expected floats"),
    (
        "space.safetensors",
        tensors({"kind": "voice_space"}, mean=EMBEDDING["speaker_embedding"]),
        "is a voice space, not a voice",
    ),
    ("voice.pt", b"PK", "a pickle, which could run any program; where PyTorch is, convert it with python -c 'import"),
    ("empty.safetensors", b"", "is truncated or not a safetensors file"),
    ("cut.safetensors", tensors(**EMBEDDING)[:-1], "is truncated: "),
    ("list.safetensors", struct.pack("<Q", 2) + b"[]", "its header is not a JSON object"),
    ("metadata.safetensors", tensors({"a": 1}, **EMBEDDING), "its metadata are not strings"),
    ("integers.safetensors", tensors(speaker_embedding=("I32", [64], V.tobytes())), "dtype int32; expected floats"),
    ("float8.safetensors", tensors(speaker_embedding=("F8_E4M3", [64], bytes(64))), "has dtype F8_E4M3"),
    ("size.safetensors", tensors(speaker_embedding=("F32", [128], V.tobytes())), "256 bytes, not those of its shape"),
    ("codes.safetensors", tensors(**EMBEDDING, ref_codes=("I32", [2, 16], bytes(128))), "and their text, or neither"),
    (
        "shape.safetensors",
        tensors({"ref_text": "Hi."}, **EMBEDDING, ref_codes=("I32", [4, 8], bytes(128))),
        "reference codes have shape [4, 8]; expected [frames, 16]",
    ),
    (
        "range.safetensors",
        tensors({"ref_text": "Hi."}, **EMBEDDING, ref_codes=("I32", [1, 16], b"\0\x08\0\0" * 16)),
        "reference codes range from 2048 to 2048; expected 0 to 2047",
    ),
    (
        "dialect.safetensors",
        tensors({"preset": "eric", "dialect": "klingon"}, **EMBEDDING),
        "the voice speaks 'klingon', which this model does not know",
    ),
    ("words.txt", b"1 2 3", "extension '.txt' is not one of .npy .safetensors .json"),
    ("nothing", b"", "extension '' is not one of .npy .safetensors .json"),
]


@pytest.mark.parametrize(("name", "content", "message"), EMBEDDINGS, ids=[name for name, *_ in EMBEDDINGS])
def test_bad_embeddings(name, content, message, refused, checkpoint, tmp_path):
    (tmp_path / name).write_bytes(content)
    for kind in ("base", "custom-voice"):
        run = ("generate", "--model", checkpoint(kind), *SHORT)
        told = refused(*run, "--embedding", name, "Hello.") if "codes" not in message or kind == "base" else message
        assert message in told
        assert name in told or told.startswith(("the voice", "reference codes"))


def test_an_in_context_voice_on_another_kind(refused, checkpoint, tmp_path):
    content = tensors({"ref_text": "Hi."}, **EMBEDDING, ref_codes=("I32", [2, 16], bytes(128)))
    (tmp_path / "icl.safetensors").write_bytes(content)
    told = refused("generate", "--model", checkpoint("custom-voice"), "--embedding", "icl.safetensors", "Hello.")
    assert told == "cloning in context needs a Base model; leave out the reference text"


@pytest.mark.parametrize(
    ("voice", "error", "message"),
    [
        (object(), VoiceError, "embedding is not an array of numbers"),
        (np.zeros(63, np.float32), VoiceError, "the voice has 63 dimensions"),
        (np.arange(64), VoiceError, "embedding has dtype int64"),
        (mx.full(64, float("nan")), VoiceError, "embedding has values that are NaN"),
        ([1.0, 2.0], VoiceError, "the voice has 2 dimensions"),
        ("nobody", VoiceNotFound, "voice 'nobody' is not a file"),
        (Path("nowhere.npy"), VoiceNotFound, "embedding nowhere.npy: no such file"),
    ],
)
def test_bad_voices_in_python(voice, error, message, model):
    with pytest.raises(error, match=message):
        model("base").generate("Hello.", voice, max_tokens=3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"text": None}, WrongType, "text must be a string, not NoneType"),
        ({"text": b"Hello."}, WrongType, "text must be a string, not bytes"),
        ({"instruct": "Angry."}, UnsupportedValue, "takes no instruction"),
        ({"language": 5}, WrongType, "language must be a string, not 5"),
        ({"text_mode": "both"}, InvalidValue, "text_mode 'both'"),
        ({"seed": 1.5}, WrongType, "seed must be an integer, not 1.5"),
        ({"seed": True}, WrongType, "seed must be an integer, not True"),
        ({"top_k": 2.0}, WrongType, "top_k must be an integer"),
        ({"temperature": "1"}, WrongType, "temperature must be a number"),
        ({"max_tokens": True}, WrongType, "max_tokens must be an integer"),
    ],
)
def test_bad_arguments_in_python(arguments, error, message, model):
    with pytest.raises(error, match=message):
        model("base").generate(**{"text": "Hello.", "voice": V, **arguments})


@pytest.mark.parametrize(
    ("call", "param"),
    [
        (lambda: Voice(object()), "embedding"),
        (lambda: Voice(np.arange(64)), "embedding"),
        (lambda: Voice(np.full(64, np.inf)), "embedding"),
        (lambda: Voice(V[None, None]), "embedding"),
        (lambda: Voice(V, np.zeros(4), "Hi."), "ref_codes"),
        (lambda: Voice(V, np.array([None]), "Hi."), "ref_codes"),
        (lambda: Voice(V, ref_text="Hi."), "ref_codes"),
        (lambda: Voice(V, np.zeros((4, 16), int)), "ref_text"),
        (lambda: Voice(V, recipe={"parents": 1}), "recipe"),
        (lambda: Voice(V, recipe={"parents": [{"weight": math.nan}]}), "recipe"),
        (lambda: Voice(V, recipe={"expression": "a", "by": object()}), "recipe"),
        (lambda: Voice(V, metadata={"recipe": '{"weight": NaN}'}), "recipe"),
        (lambda: Voice(V).save("v.wav"), "path"),
        (lambda: Voice(V, np.zeros((4, 16), int), "Hi.").save("v.npy"), "path"),
        (lambda: Voice.load("v.txt"), "voice"),
        (lambda: Voice.load("v.wav"), "voice"),
        (lambda: Voice.load("v.pt"), "voice"),
        (lambda: Voice.load("."), "voice"),
        (lambda: blend([V, V[:8]]), "voices"),
        (lambda: blend(["x", V]), "voices"),
        (lambda: blend([V, V], weights=[1, -2]), "weights"),
        (lambda: lerp("x", V, 0.5), "a"),
        (lambda: slerp(V, V[:8], 0.5), "b"),
        (lambda: offset(V, "x"), "b"),
        (lambda: move(V, V[:8]), "offset"),
        (lambda: move(V, V, 1e39), "amount"),
        (lambda: SPACE.centred(V[:8]), "x"),
        (lambda: SPACE.similarity("x", V), "a"),
        (lambda: VoiceSpace.fit(["x"]), "X"),
        (lambda: check_fit(Voice(V), 1024, "base", None), "voice"),
    ],
)
def test_errors_name_the_argument_at_fault(call, param):
    with pytest.raises(QwenTTSError) as told:
        call()
    assert told.value.param == param, told.value


def test_a_file_name_that_is_too_long_is_no_error_of_the_systems():
    for load in (Voice.load, Lookup().voice):
        with pytest.raises(VoiceError, match="File name too long"):
            load("x" * 5000 + ".npy")
