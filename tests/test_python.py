"""The Python interface where it meets values that people really have: NumPy scalars, lists, other dtypes."""

import io
import json

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert.parity import vector
from convert.random_checkpoint import configs
from mlx_qwen3tts import Voice
from mlx_qwen3tts.audio.reading import read_audio
from mlx_qwen3tts.audio.writing import audio_bytes
from mlx_qwen3tts.errors import AudioError, ConfigError, UnsupportedValue, VoiceError, WrongType
from mlx_qwen3tts.networks.cache import SlidingKVCache
from mlx_qwen3tts.networks.config import ModelConfig, SpeakerEncoderConfig, from_dict


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_the_same_sound_is_the_same_file(kind):
    sound = 0.5 * np.sin(np.arange(60000) / 20).astype(np.float32)
    first, second = audio_bytes(sound, 24000, kind), audio_bytes(sound, 24000, kind)
    (heard, rate), (again, _) = (soundfile.read(io.BytesIO(data)) for data in (first, second))
    assert np.array_equal(heard, again) and len(first) == len(second)
    assert first == second or kind == "OGG"  # whose streams have a random serial number
    assert rate == 24000 and len(heard) == len(sound) and np.abs(heard - sound).max() < 0.05


def test_numpy_scalars_serve_as_numbers(model):
    tts = model("base")
    options = {"max_tokens": np.int32(5), "temperature": np.float32(0.5)}
    ours = tts.generate("Hi.", vector(64, 1), seed=np.int64(3), **options)
    assert np.array_equal(np.array(ours.codes), np.array(tts.generate("Hi.", vector(64, 1), seed=3, **options).codes))
    assert read_audio((np.zeros(100, np.float32), np.int64(48000)), 24000).shape == (50,)


def test_greedy_speech_that_is_cut_is_not_told_to_try_another_seed(model):
    for tokens in (3, 12):
        with pytest.warns(UserWarning, match="raise max_tokens") as said:
            model("base").generate("Hi.", vector(64, 1), greedy=True, max_tokens=tokens)
        assert "seed" not in str(said[0].message)


def test_whole_numbers_in_json_are_a_vector(tmp_path):
    (tmp_path / "v.json").write_text(json.dumps([1, 2, 3]))
    assert np.array(Voice.load(tmp_path / "v.json").embedding).tolist() == [1.0, 2.0, 3.0]


def test_reference_codes_may_be_numpy(model, tmp_path):
    given = Voice(vector(64, 1), np.arange(48).reshape(3, 16), "one two")
    given.save(tmp_path / "v.safetensors")
    again = Voice.load(tmp_path / "v.safetensors")
    codes = [model("base").generate("Hi.", v, greedy=True, max_tokens=4).codes for v in (given, again)]
    assert given.ref_codes.dtype == mx.int32 and np.array_equal(*map(np.array, codes))
    for wrong in (np.zeros((2, 16), np.float32), np.zeros(16, np.int32)):
        with pytest.raises(VoiceError, match=r"expected integers \[frames, codebooks\]"):
            Voice(vector(64, 1), wrong, "one")
    with pytest.raises(WrongType, match="must be strings"):
        Voice(vector(64, 1), metadata={"take": 1})


def test_audio_arrays_of_other_kinds():
    sound = vector(2400, 1)
    assert np.abs(read_audio(mx.array(sound).astype(mx.bfloat16), 24000) - sound).max() < 0.02
    assert np.array_equal(read_audio((np.stack([sound, sound], axis=1), 24000), 24000), sound)
    assert np.array_equal(read_audio((sound[None], 24000), 24000), sound)
    with pytest.raises(AudioError, match=r"tuple \(samples, rate\)"):
        read_audio([sound, 24000], 24000)


def test_names_of_a_wrong_type(model):
    with pytest.raises(WrongType, match="must be a string, not 5"):
        model("custom-voice").preset(5)
    with pytest.raises(UnsupportedValue, match="describe the voice with instruct"):
        model("voice-design").generate("Hi.", "ryan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["sliding_attention"] * 2}, "layer_types other than full_attention"),
    ],
)
def test_attention_that_is_not_built_is_refused(changes, message):
    values, _ = configs("tiny", "base")
    values["talker_config"]["code_predictor_config"] |= changes
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(values)


def test_a_speaker_encoder_of_another_rate_is_refused():
    with pytest.raises(ConfigError, match="sample_rate 16000 is not 24000"):
        from_dict(SpeakerEncoderConfig, {"sample_rate": 16000}, "config.json")


def test_a_window_of_one_keeps_nothing():
    cache = SlidingKVCache(1)
    for _ in range(2):
        keys, _ = cache.update(mx.ones((1, 1, 3, 2)), mx.ones((1, 1, 3, 2)))
        assert keys.shape[2] == 3 and cache.keys.shape[2] == 0
