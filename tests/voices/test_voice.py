"""A voice as an object and a file: round trips, metadata, and what does not fit a model."""

import json

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from convert.parity import vector
from mlx_qwen3tts import Voice
from mlx_qwen3tts.voices import VoiceError

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


def test_codes_text_and_metadata_come_back(tmp_path):
    codes = np.arange(48).reshape(3, 16)
    recipe = {"expression": "a + b", "parents": [{"name": "ä", "weight": 0.5}]}
    metadata = {"consent": "given", "recipe": json.dumps(recipe), "attributes": '{"gender": "female", "warm": ""}'}
    Voice(vector(64, 1), codes, "Wörter, 你好", metadata).save(tmp_path / "v.safetensors")
    voice = Voice.load(tmp_path / "v.safetensors")
    assert np.array_equal(np.array(voice.ref_codes), codes) and voice.ref_codes.dtype == mx.int32
    assert voice.ref_text == "Wörter, 你好" and voice.metadata == metadata
    assert voice.recipe == recipe and voice.attributes == {"gender": "female", "warm": ""}
    assert Voice(vector(64, 1)).recipe == {} == Voice(vector(64, 1)).attributes
    with pytest.raises(VoiceError, match="voice 'bad': what it has as attributes is no JSON object"):
        _ = Voice(vector(64, 1), metadata={"attributes": "[1]"}, name="bad").attributes


@pytest.mark.parametrize("dimension", [63, 1024])
def test_a_voice_of_another_size_is_refused_by_name(model, tmp_path, dimension):
    voice = Voice(vector(dimension, 1), metadata={"source_model": "Qwen3-TTS-12Hz-1.7B-Base"})
    voice.save(tmp_path / "anna.safetensors")
    with pytest.raises(ValueError) as told:
        model("base").generate("Hi.", tmp_path / "anna.safetensors")
    assert str(told.value) == (
        f"the voice 'anna' (of Qwen3-TTS-12Hz-1.7B-Base) has {dimension} dimensions, this model takes 64; voices do "
        "not transfer between model sizes"
    )


def test_refused_consent_is_said(model):
    with pytest.warns(UserWarning, match="consent to the voice anna is entered as refused"):
        model("base").voice(Voice(vector(64, 1), metadata={"consent": "refused"}, name="anna"))
