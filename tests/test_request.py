"""Requests: checked when they are made, frozen, and the same thing as keyword arguments. And what a Speech says."""

import dataclasses
import io

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert.parity import recording, vector
from mlx_qwen3tts import Qwen3TTS, QwenTTSError, Request, Sampling, Speech
from mlx_qwen3tts.errors import (
    AudioError,
    InvalidValue,
    TextTooLong,
    UnsupportedValue,
    VoiceError,
    VoiceNotFound,
    WrongType,
)
from mlx_qwen3tts.synthesis.request import as_request, as_requests

A = vector(64, 1)


@pytest.mark.parametrize(
    ("values", "kind", "param", "message"),
    [
        ({"text": " "}, InvalidValue, "text", "text is empty"),
        ({"text": 5}, WrongType, "text", "text must be a string, not int"),
        ({"text": b"a"}, WrongType, "text", "text must be a string, not bytes"),
        ({"text": np.array(5)}, WrongType, "text", "text must be a string, not ndarray"),
        ({"text": "a\x00"}, InvalidValue, "text", "control character"),
        ({"language": 5}, WrongType, "language", "language must be a string, not 5"),
        ({"instruct": " "}, InvalidValue, "instruct", "instruction is empty"),
        ({"instruct": A}, WrongType, "instruct", "instruction must be a string, not ndarray"),
        ({"instruct": 0}, WrongType, "instruct", "instruction must be a string, not int"),
        ({"text_mode": "half"}, InvalidValue, "text_mode", "text_mode 'half' is not one of streaming, full"),
        ({"keep": "size", "voice": "a"}, InvalidValue, "keep", "keep 'size' is not one of none, norm, radius"),
        ({"keep": "norm"}, InvalidValue, "keep", "keep belongs to a blend expression"),
        ({"keep": "norm", "voice": A}, InvalidValue, "keep", "keep belongs to a blend expression"),
        ({"seed": -1}, InvalidValue, "seed", "seed -1 is not between 0 and 4294967295"),
        ({"seed": 10**400}, InvalidValue, "seed", "is not between 0 and 4294967295"),
        ({"seed": 1.5}, WrongType, "seed", "seed must be an integer, not 1.5"),
        ({"sampling": {"top_k": 3}}, WrongType, "sampling", "sampling must be a Sampling"),
        ({"morph_seconds": 1}, InvalidValue, "morph", "belong to morph, which is not given"),
        ({"morph": A, "morph_mode": "slow"}, InvalidValue, "morph_mode", "morph_mode 'slow' is not one of live"),
        ({"morph": A, "morph_seconds": 0}, InvalidValue, "morph_seconds", "morph_seconds 0 is not above 0"),
        ({"morph": A, "morph_seconds": 10**400}, InvalidValue, "morph_seconds", "is not finite"),
        ({"morph": A, "text": iter("ab")}, InvalidValue, "morph_seconds", "give morph_seconds"),
    ],
)
def test_what_no_model_could_do_is_refused_at_once(values, kind, param, message):
    with pytest.raises(kind, match=message) as refused:
        Request(**{"text": "Hello.", **values})
    assert refused.value.param == param and isinstance(refused.value, QwenTTSError)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"top_k": 1.5}, WrongType, "top_k must be an integer, not 1.5"),
        ({"temperature": True}, WrongType, "temperature must be a number, not True"),
        ({"top_p": 1.5}, InvalidValue, "top_p 1.5 is not between 0 and 1"),
        ({"greedy": 1}, WrongType, "greedy must be true or false, not 1"),
        ({"max_tokens": 1}, InvalidValue, "max_tokens 1 is not 2 or more"),
    ],
)
def test_sampling_is_checked_when_it_is_made(values, kind, message):
    with pytest.raises(kind, match=message):
        Sampling(**values)


def test_it_does_not_change():
    request = Request("Hello.")
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.text = "Bye."
    assert dataclasses.replace(request, seed=3) == Request("Hello.", seed=3)


def test_keywords_make_the_same_request():
    made = as_request("Hello.", "anna", language="english", seed=3, top_k=5, greedy=True)
    assert made == Request("Hello.", "anna", "english", seed=3, sampling=Sampling(greedy=True, top_k=5))
    assert as_request(made) is made
    with pytest.raises(InvalidValue, match="a Request has its voice and options already"):
        as_request(made, seed=4)
    with pytest.raises(InvalidValue, match="sampling and top_k are both given"):
        as_request("Hello.", sampling=Sampling(), top_k=3)
    with pytest.raises(TypeError, match="vocie"):
        as_request("Hello.", vocie="anna")


def test_batches_are_requests_too():
    made = as_requests(["One.", "Two."], ["a", "b"], languages="english", seeds=[1, 2], top_k=5, keep="norm")
    assert made == [
        Request(text, voice, "english", seed=seed, sampling=Sampling(top_k=5), keep="norm")
        for text, voice, seed in (("One.", "a", 1), ("Two.", "b", 2))
    ]
    assert as_requests(made) == made
    with pytest.raises(InvalidValue, match="strings with options, or Requests"):
        as_requests(made, seeds=3)
    with pytest.raises(WrongType, match="text 2: text must be a string, not int"):
        as_requests(["One.", 2])
    with pytest.raises(TypeError, match="vocies"):
        as_requests(["One."], vocies="a")


def test_a_request_speaks_as_its_keywords_do(model):
    tts, how = model("base"), {"language": "english", "seed": 3, "max_tokens": 9}
    request = Request("Hello.", A, "english", seed=3, sampling=Sampling(max_tokens=9))
    wanted = np.array(tts.generate("Hello.", A, **how).codes)
    assert (np.array(tts.generate(request).codes) == wanted).all()
    assert (np.concatenate([np.array(chunk.codes) for chunk in tts.stream(request)]) == wanted).all()
    other = dataclasses.replace(request, seed=4, sampling=Sampling(greedy=True, max_tokens=5))
    both = tts.generate_batch([request, other])
    assert (np.array(both[0].codes) == wanted).all()
    assert (np.array(both[1].codes) == np.array(tts.generate(other).codes)).all()


@pytest.mark.parametrize(
    ("name", "values", "kind", "code", "param"),
    [
        ("base", {"voice": "nobody"}, VoiceNotFound, "voice_not_found", "voice"),
        ("base", {"voice": None}, InvalidValue, "invalid_value", "voice"),
        ("base", {"voice": np.zeros(63, np.float32)}, VoiceError, "invalid_voice", "voice"),
        ("base", {"language": "klingon"}, InvalidValue, "invalid_value", "language"),
        ("base", {"instruct": "softly"}, UnsupportedValue, "unsupported_value", "instruct"),
        ("base", {"text": "a " * 9000}, TextTooLong, "text_too_long", "text"),
        ("base", {"sampling": Sampling(max_tokens=10**6)}, TextTooLong, "text_too_long", "max_tokens"),
        ("voice-design", {}, UnsupportedValue, "unsupported_value", "voice"),
    ],
)
def test_what_this_model_cannot_do_has_a_code_and_a_param(model, name, values, kind, code, param):
    with pytest.raises(kind) as refused:
        model(name).generate(Request(**{"text": "Hello.", "voice": A, **values}))
    assert refused.value.code == code and refused.value.param == param


# What was said about a speech


def test_a_speech_has_its_warnings(model, tmp_path):
    tts = model("base")
    with pytest.warns(UserWarning, match="is short"):
        voice = tts.clone(recording(tmp_path / "a.wav", 1, 1.1))
    with pytest.warns(UserWarning, match="did not end"):
        speech = tts.generate("Hello.", voice, seed=1, max_tokens=5)
    short, cut = speech.warnings
    assert "1.1 s is short" in short and cut.startswith("the speech did not end within 5 tokens")
    with pytest.warns(UserWarning):
        rows = tts.generate_batch(["One.", "Two."], [voice, A], max_tokens=5)
    assert [len(row.warnings) for row in rows] == [2, 1] and rows[1].warnings[0].startswith("text 2 did not end")
    with pytest.warns(UserWarning), tts.stream("Hello.", A, max_tokens=5) as stream:
        assert stream.warnings == () and list(stream)
        assert len(stream.warnings) == 1


def test_what_a_small_vocabulary_lacks_is_said_of_each_speech():
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    voice = vector(tts.embedding_dim, 1)
    with pytest.warns(UserWarning, match="zebra"):
        said = [
            tts.generate(text, voice, seed=1, max_tokens=40).warnings
            for text in ("Hello.", "A zebra.", iter(["Hello ze", "bra."]))
        ]
    assert ["zebra" in " ".join(warnings) for warnings in said] == [False, True, True]


def test_it_says_what_it_is(model):
    speech = model("base").generate("Hello.", A, seed=1, max_tokens=27)
    assert isinstance(speech, Speech) and repr(speech) == "Speech(2.08 s, 26 frames, length)"
    assert repr(Sampling(greedy=True, top_k=0)) == "Sampling(greedy=True, top_k=0)" and repr(Sampling()) == "Sampling()"


def test_requests_with_vectors_are_compared_by_their_values():
    for kind in (np.array, mx.array):
        one, other = (Request("Hello.", kind(A), morph=kind(values)) for values in (A, A))
        assert one == other != Request("Hello.", kind(A), morph=kind(A + 1))
        assert one != Request("Hello.", "anna", morph=kind(A))
    assert hash(Request("Hello.", "anna")) == hash(Request("Hello.", "anna"))


def test_a_speech_as_bytes_and_in_file_objects(model, tmp_path):
    speech = model("base").generate("Hello.", A, seed=1, max_tokens=4)
    speech.save(tmp_path / "a.wav")
    whole = (tmp_path / "a.wav").read_bytes()
    assert whole[whole.index(b"data") + 8 :] == speech.pcm16() and len(speech.pcm16()) == 2 * speech.audio.size
    for kind in (None, "wav", "flac", "ogg", "mp3"):
        buffer = io.BytesIO()
        speech.save(buffer, kind)
        assert buffer.getvalue() == whole or kind not in (None, "wav")
        buffer.seek(0)
        heard, rate = soundfile.read(buffer)
        assert rate == 24000 and abs(len(heard) - speech.audio.size) <= 2400
    with open(tmp_path / "b.wav", "wb") as file:
        speech.save(file)
    speech.save(tmp_path / "no.extension", format="flac")
    assert (tmp_path / "b.wav").read_bytes() == whole and soundfile.info(tmp_path / "no.extension").format == "FLAC"
    chunks = list(model("base").stream("Hello.", A, seed=1, max_tokens=4))
    assert len(b"".join(chunk.pcm16() for chunk in chunks)) == len(speech.pcm16())
    again = model("base").codec.encode((speech.pcm16(), speech.sample_rate))  # what is given back is taken
    assert again.shape == speech.codes.shape
    with pytest.raises(AudioError, match="format 'm4a' is not one of wav, flac, mp3, ogg"):
        speech.save(io.BytesIO(), "m4a")
    for wrong in (io.StringIO(), 5, None):
        with pytest.raises(WrongType, match="file must be a path or a binary file object"):
            speech.save(wrong)


def test_speeches_can_be_looked_for_in_a_list(model):
    one, other = model("base").generate_batch(["One.", "Two."], A, max_tokens=3)
    assert [one, other].index(other) == 1 and len({one, other}) == 2


@pytest.mark.parametrize(
    ("values", "kind", "param"),
    [
        ({"text": ["Hello ", 5]}, WrongType, "text"),
        ({"text": iter(())}, InvalidValue, "text"),
        ({"voice": A[:63]}, VoiceError, "voice"),
        ({"voice": "nobody"}, VoiceNotFound, "voice"),
        ({"morph": A[:63]}, VoiceError, "morph"),
        ({"morph": "nobody"}, VoiceNotFound, "morph"),
        ({"morph": lambda seconds: [1, 2]}, VoiceError, "morph"),
    ],
)
def test_what_is_found_later_names_its_parameter_too(model, values, kind, param):
    with pytest.raises(kind) as refused:
        model("base").generate(Request(**{"text": "Hello.", "voice": A, **values}))
    assert refused.value.param == param
