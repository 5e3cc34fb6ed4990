"""A voice as an object and a file: round trips, metadata that cannot change, and what does not fit a model."""

import copy
import dataclasses
import json
import pickle
import shlex
import sys
import threading
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file

from convert.parity import vector
from mlx_qwen3tts import Voice
from mlx_qwen3tts.errors import InvalidValue, VoiceError, VoiceNotFound, WrongType
from mlx_qwen3tts.files.safetensors import read_metadata
from mlx_qwen3tts.voices.metadata import plain

floats = arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
words = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=floats, metadata=st.dictionaries(st.sampled_from(["source_model", "language", "license", "x"]), words))
def test_every_format_gives_back_what_it_was_given(values, metadata, tmp_path):
    for suffix in (".npy", ".json", ".safetensors"):
        file = tmp_path / f"v{suffix}"
        Voice(values, metadata=metadata).save(file)
        again = Voice.load(file)
        assert np.array(again.embedding).tobytes() == values.tobytes()
        assert again.metadata == (metadata if suffix == ".safetensors" else {}) and again.name == "v"


NUMBERS = [0.5, -1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", NUMBERS),
        ("row.json", [NUMBERS]),
        ("whole.json", {"speaker_embedding": [1, -2, 4, 6], "name": "anna"}),
        ("object.json", {"speaker_embedding": NUMBERS, "embedding": [9.0]}),
        ("other.json", {"embedding": NUMBERS, "model": "0.6B", "dim": 4}),
        ("other_row.json", {"embedding": [NUMBERS]}),
        ("one.safetensors", {"embedding": np.array(NUMBERS, np.float32)}),
        ("any.safetensors", {"x.vector": np.array([NUMBERS], np.float16)}),
        ("double.safetensors", {"speaker_embedding": np.array(NUMBERS), "extra": np.zeros((3, 4), np.float32)}),
    ],
)
def test_what_other_programs_save_is_read(name, content, tmp_path):
    path = tmp_path / name
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    else:
        save_file(content, path, {"format": "pt"})
    vector = np.array(Voice.load(path).embedding)
    assert vector.dtype == np.float32 and (vector * (0.5 if name == "whole.json" else 1)).tolist() == NUMBERS


class Tensor:
    """As much of a torch.Tensor as the program that the message gives asks for."""

    def __init__(self, values):
        self.values = values

    def float(self):
        return Tensor(np.array(self.values, np.float32))

    def numpy(self):
        return self.values


@pytest.mark.parametrize(
    "content",
    [
        Tensor(NUMBERS),
        {"items": [{"ref_code": None, "ref_spk_embedding": Tensor(NUMBERS), "x_vector_only_mode": True}]},
    ],
)
def test_a_pickle_is_refused_with_the_program_that_converts_it(content, tmp_path, monkeypatch):
    """Never opened here. The program takes a bare tensor, and what the official demo saves."""
    path = tmp_path / "it's mine.pt"
    path.write_bytes(b"PK")
    with pytest.raises(VoiceError, match="which could run any program; where PyTorch is, convert it with") as told:
        Voice.load(path)
    _, _, command = str(told.value).partition("convert it with ")
    python, option, program = shlex.split(command)
    assert (python, option) == ("python", "-c")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=lambda file, **_: content))
    exec(program)
    assert np.array(Voice.load(path.with_suffix(".npy")).embedding).tolist() == NUMBERS


def test_codes_text_and_metadata_come_back(tmp_path):
    codes = np.arange(48).reshape(3, 16)
    recipe = {"expression": "a + b", "parents": [{"name": "ä", "weight": 0.5}]}
    metadata = {
        "consent": "given",
        "recipe": json.dumps(recipe, ensure_ascii=False),
        "attributes": '{"gender": "female", "warm": ""}',
    }
    Voice(vector(64, 1), codes, "Wörter, 你好", metadata).save(tmp_path / "v.safetensors")
    voice = Voice.load(tmp_path / "v.safetensors")
    assert np.array_equal(np.array(voice.ref_codes), codes) and voice.ref_codes.dtype == mx.int32
    assert voice.ref_text == "Wörter, 你好" and voice.metadata == metadata
    assert plain(voice.recipe) == recipe and voice.attributes == {"gender": "female", "warm": ""}
    assert Voice(vector(64, 1)).recipe == {} == Voice(vector(64, 1)).attributes
    stored = {**metadata, "ref_text": "Wörter, 你好", "dimension": "64", "format_version": "1"}
    assert read_metadata(tmp_path / "v.safetensors") == stored
    before = (tmp_path / "v.safetensors").read_bytes()
    voice.save(tmp_path / "v.safetensors")
    assert (tmp_path / "v.safetensors").read_bytes() == before


METADATA = {
    "source_model": "m",
    "language": "English",
    "consent": "given",
    "license": "CC0-1.0",
    "attributes": '{"gender": "female"}',
    "recipe": '{"expression": "a + b", "parents": [{"name": "a", "recipe": {"parents": [{"name": "c"}]}}]}',
    "preset": "vivian",
}


def test_metadata_are_fields():
    voice = Voice(vector(64, 1), metadata=METADATA)
    assert (voice.source_model, voice.language, voice.consent, voice.license) == ("m", "English", "given", "CC0-1.0")
    assert voice.attributes == {"gender": "female"} and voice.other == {"preset": "vivian"}
    assert voice.recipe["parents"][0]["recipe"]["parents"][0]["name"] == "c"
    assert voice.metadata == METADATA and list(voice.metadata) == sorted(METADATA)
    fields = ("source_model", "language", "consent", "license", "attributes", "recipe", "other")
    assert Voice(vector(64, 1), **{field: getattr(voice, field) for field in fields}) == voice
    bare = Voice(vector(64, 1))
    assert bare.metadata == {} and bare.source_model is bare.license is None


@pytest.mark.parametrize(
    "change",
    [
        lambda voice: voice.attributes.__setitem__("gender", "male"),
        lambda voice: voice.attributes.update(age="40"),
        lambda voice: voice.attributes.__ior__({"age": "40"}),
        lambda voice: voice.attributes.__delitem__("gender"),
        lambda voice: voice.attributes.pop("gender"),
        lambda voice: voice.attributes.popitem(),
        lambda voice: voice.attributes.setdefault("age", "40"),
        lambda voice: voice.attributes.clear(),
        lambda voice: voice.metadata.__setitem__("consent", "given"),
        lambda voice: voice.other.__setitem__("preset", "ryan"),
        lambda voice: voice.recipe.__setitem__("expression", "c"),
        lambda voice: voice.recipe["parents"].append({}),
        lambda voice: voice.recipe["parents"][0].__setitem__("name", "c"),
        lambda voice: setattr(voice, "consent", "given"),
        lambda voice: delattr(voice, "name"),
    ],
)
def test_a_voice_does_not_change(change):
    given = {"gender": "female"}
    voice = Voice(vector(64, 1), attributes=given, recipe={"parents": [{"name": "a"}]}, other={"preset": "vivian"})
    given["gender"] = "male"
    with pytest.raises((TypeError, AttributeError)):  # Python's own; nothing of ours is asked
        change(voice)
    assert voice.attributes == {"gender": "female"} and voice.name is voice.consent is None
    assert json.loads(json.dumps(voice.recipe)) == {"parents": [{"name": "a"}]}
    ours = {**voice.attributes, "gender": "male"}  # a copy may change
    assert ours == voice.attributes | {"gender": "male"} == {"gender": "male"}


def test_replacing_makes_another():
    codes = np.arange(32).reshape(2, 16)
    voice = Voice(vector(64, 1), codes, "one", METADATA, "anna")
    for other in (voice.replace(embedding=vector(64, 2)), dataclasses.replace(voice, embedding=vector(64, 2))):
        assert np.array_equal(np.array(other.embedding), vector(64, 2)) and other.name == "anna"
        assert other.metadata == METADATA and np.array_equal(np.array(other.ref_codes), codes)
    tagged = voice.replace(attributes={**voice.attributes, "age": "40"}, consent=None)
    assert json.loads(tagged.metadata["attributes"]) == {"gender": "female", "age": "40"}
    assert tagged.consent is None and "consent" not in tagged.metadata and voice.consent == "given"
    anew = voice.replace(metadata={"language": "German"})
    assert anew.metadata == {"language": "German"} and anew.ref_text == "one" and anew.name == "anna"
    with pytest.raises(InvalidValue, match=r"as a whole or one by one, not both; voice\.replace"):
        dataclasses.replace(voice, metadata={"language": "German"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'mood'"):
        voice.replace(mood="warm")


def test_equal_by_value():
    codes = np.arange(32).reshape(2, 16)
    voice = Voice(vector(64, 1), codes, "one", METADATA, "anna")
    spaced = {**METADATA, "attributes": '{ "gender":"female" }'}
    again = Voice(mx.array(vector(64, 1)), mx.array(codes), "one", spaced, "another name")
    assert voice == again and voice.metadata == again.metadata
    for other in (
        voice.replace(embedding=vector(64, 2)),
        voice.replace(embedding=vector(63, 1)),
        voice.replace(ref_codes=codes + 1),
        voice.replace(ref_codes=None, ref_text=None),
        voice.replace(ref_text="two"),
        voice.replace(license=None),
        voice.replace(attributes={}),
        voice.replace(recipe={**voice.recipe, "keep": "norm"}),
        voice.replace(other={}),
        "anna",
    ):
        assert voice != other and other != voice
    with pytest.raises(TypeError, match="unhashable"):
        hash(voice)


def test_a_voice_can_be_copied_and_pickled():
    voice = Voice(vector(64, 1), np.arange(32).reshape(2, 16), "one", METADATA, "anna")
    for again in (copy.copy(voice), copy.deepcopy(voice), pickle.loads(pickle.dumps(voice))):
        assert again == voice and again.name == "anna"
        with pytest.raises(TypeError, match="a voice does not change"):
            again.attributes["gender"] = "male"
    told = dataclasses.asdict(voice)
    assert told["attributes"] == {"gender": "female"} and told["recipe"]["expression"] == "a + b"


def test_what_a_voice_says_of_itself():
    values = np.full(64, 0.5, np.float32)
    assert repr(Voice(values)) == "Voice(64 dimensions, norm 4.0)"
    assert repr(Voice(values, np.zeros((26, 16), np.int32), "Hi.", name="anna")) == (
        "Voice('anna', 64 dimensions, norm 4.0, in context: 26 frames)"
    )


def test_a_voice_made_in_one_thread_serves_in_another():
    made = []
    lazy = mx.array(vector(64, 1))[None], mx.arange(32).reshape(2, 16)

    def make():
        voice = Voice(mx.array(vector(64, 1))[None] * 2, mx.arange(32).reshape(2, 16) + 1, "one")
        made.append((voice, Voice(*lazy, "one")))

    mx.eval(lazy)
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    for voice, factor, added in zip(made[0], (2, 1), (1, 0), strict=True):
        assert np.array_equal(np.array(voice.embedding + 0), vector(64, 1) * factor)
        assert np.array_equal(np.array(voice.ref_codes + 0), np.arange(32).reshape(2, 16) + added)
        assert voice.norm == pytest.approx(factor * float(np.linalg.norm(vector(64, 1))), rel=1e-5)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"metadata": {"attributes": "[1]"}}, VoiceError, r"a voice's attributes must be a JSON object, not '\[1\]'"),
        ({"metadata": {"attributes": '{"age": 40}'}}, WrongType, "attribute age must be a string, not 40"),
        ({"metadata": {"recipe": "{"}}, VoiceError, "a voice's recipe must be a JSON object, not"),
        ({"metadata": {"recipe": 5}}, WrongType, "must be strings"),
        ({"metadata": {"language": 5}}, WrongType, "must be strings"),
        ({"metadata": {5: "x"}}, WrongType, "must be strings"),
        ({"metadata": "English"}, WrongType, "must be strings by name, not 'English'"),
        ({"metadata": {"dimension": "5"}}, InvalidValue, "'dimension' .* has a place of its own"),
        ({"metadata": {}, "language": "English"}, InvalidValue, "as a whole or one by one, not both"),
        ({"other": {"consent": "given"}}, InvalidValue, "'consent' .* has a place of its own"),
        ({"attributes": {"age": 40}}, WrongType, "attribute age must be a string, not 40"),
        ({"attributes": ["warm"]}, WrongType, "the attributes of a voice must be a mapping"),
        ({"recipe": {"parents": ["anna"]}}, VoiceError, "objects as parents"),
        ({"ref_text": "Hi."}, VoiceError, "reference codes and their text, or neither"),
        ({"ref_text": 5, "ref_codes": np.zeros((2, 16), int)}, WrongType, "must be strings"),
        ({"ref_text": "Hi.", "ref_codes": object()}, VoiceError, "is not an array of numbers"),
    ],
)
def test_what_a_voice_cannot_have(given, error, message):
    with pytest.raises(error, match=message):
        Voice(vector(64, 1), **given)


def test_a_file_that_is_not_there(tmp_path):
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(VoiceNotFound, match=r"none.npy: no such file"):
        Voice.load(tmp_path / "none.npy")
    with pytest.raises(VoiceError, match=r"folder.npy: not a regular file"):
        Voice.load(tmp_path / "folder.npy")


@pytest.mark.parametrize("dimension", [63, 1024])
def test_a_voice_of_another_size_is_refused_by_name(model, tmp_path, dimension):
    voice = Voice(vector(dimension, 1), metadata={"source_model": "Qwen3-TTS-12Hz-1.7B-Base"})
    voice.save(tmp_path / "anna.safetensors")
    with pytest.raises(VoiceError) as told:
        model("base").generate("Hi.", tmp_path / "anna.safetensors")
    assert str(told.value) == (
        f"the voice 'anna' (of Qwen3-TTS-12Hz-1.7B-Base) has {dimension} dimensions, this model takes 64; voices do "
        "not transfer between model sizes"
    )
