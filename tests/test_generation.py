"""The loop, the prompt and the model object, beyond the goldens; among them the mistakes that other ports made."""

import inspect
import threading

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import recording, vector
from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.synthesis.prompt import build_prompt


def logits_of(tts, voice):
    caches = tts.talker.make_cache()
    logits, _ = tts.talker(tts.prompt("Hello, the weather.", tts.voice(voice)).embeddings[None], caches)
    return logits, caches


@pytest.mark.parametrize("name", ["base", "base-other-shape"])
def test_bfloat16_logits_are_close_to_float32(name, checkpoint, model):
    half = Qwen3TTS.from_pretrained(checkpoint(name))
    whole = model(name)
    voice = vector(whole.embedding_dim, 1)
    ours, theirs = (np.array(logits_of(tts, voice)[0].astype(mx.float32)) for tts in (half, whole))
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) <= 0.02


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_float32_embedding_promotes_nothing(checkpoint, dtype):
    with pytest.warns(UserWarning) if dtype == "float16" else _nothing():
        tts = Qwen3TTS.from_pretrained(checkpoint("base"), dtype=dtype)
    wanted = getattr(mx, dtype)
    prompt = tts.prompt("Hello.", tts.voice(vector(64, 1)))
    assert {prompt.embeddings.dtype, prompt.text.known.dtype, prompt.text.pad.dtype} == {wanted}
    generation = tts.generation([prompt], [0], tts.sampling.override(greedy=True, max_tokens=4))
    next(iter(generation))
    assert {array.dtype for cache in generation.caches for array in cache.state} == {wanted}
    assert tts.generate("Hello.", vector(64, 1), max_tokens=4, seed=1).audio.dtype == mx.float32


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def test_the_speaker_vector_goes_in_raw(model):
    tts = model("base")
    given = 7 * vector(64, 1)
    prompt = tts.prompt("Hello.", tts.voice(given))
    slot = np.array(prompt.embeddings[prompt.speaker_position] - prompt.text.pad)
    assert np.abs(slot - given).max() < 1e-5
    assert np.array(model("voice-design").prompt("Hello.", None).speaker_position) == np.array(None)


def test_the_same_seed_gives_the_same_speech_and_another_seed_another(model):
    tts = model("base")
    one, two, three = (tts.generate("Hello.", vector(64, 1), seed=s, max_tokens=12) for s in (4, 4, 5))
    assert np.array_equal(np.array(one.audio), np.array(two.audio))
    assert not np.array_equal(np.array(one.codes), np.array(three.codes))
    assert one.stats["seed"] == 4


def test_a_random_seed_is_reported_and_repeats_the_run(model):
    tts = model("base")
    one = tts.generate("Hello.", vector(64, 1), max_tokens=10)
    again = tts.generate("Hello.", vector(64, 1), max_tokens=10, seed=one.stats["seed"])
    assert np.array_equal(np.array(one.codes), np.array(again.codes))


def test_max_tokens_gives_one_frame_less_and_warns(model):
    tts = model("base")
    with pytest.warns(UserWarning, match="did not end within 7 tokens"):
        speech = tts.generate("Hello.", vector(64, 1), greedy=True, max_tokens=7)
    assert speech.codes.shape == (6, 16) and speech.finish_reason == "length"
    assert speech.codes.dtype == mx.int32 and speech.audio.shape == (6 * 1920,)


def test_end_of_speech_as_the_last_token_is_a_stop(model):
    tts = model("base-ends")
    frames = len(tts.generate("Hello.", vector(64, 1), greedy=True, max_tokens=80).codes)
    assert 2 <= frames < 60
    exact = tts.generate("Hello.", vector(64, 1), greedy=True, max_tokens=frames + 1)
    assert len(exact.codes) == frames and exact.finish_reason == "stop"
    with pytest.warns(UserWarning):
        assert tts.generate("Hello.", vector(64, 1), greedy=True, max_tokens=frames).finish_reason == "length"


def test_in_context_audio_is_cut_by_exact_frame_count(model, tmp_path):
    tts = model("base")
    for seconds in (0.55, 1.013, 1.9):
        voice = tts.clone(recording(tmp_path / "a.wav", 1, seconds), ref_text="one two")
        speech = tts.generate("Hello.", voice, greedy=True, max_tokens=5)
        assert speech.audio.shape == (len(speech.codes) * 1920,)


def test_presets_and_vectors_share_one_slot(model):
    """A preset's row given as a vector speaks exactly like the preset."""
    tts = model("custom-voice")
    row = tts.preset("vivian").embedding
    options = {"greedy": True, "max_tokens": 8, "text_mode": "full"}
    named, given = (tts.generate("Hello.", voice, **options).codes for voice in ("Vivian", row))
    assert np.array_equal(np.array(named), np.array(given))


def test_a_dialect_preset_speaks_its_dialect_in_chinese_and_auto_alone(model):
    tts = model("custom-voice")
    dialect = tts.talker.embed_codec(mx.array([tts.config.talker.codec_language_id["sichuan_dialect"]]))
    pad = tts.prompt("你好", tts.preset("eric")).text.pad
    for language, expected in (("auto", True), ("chinese", True), ("english", False)):
        tag = (
            tts.prompt("你好", tts.preset("eric"), language).embeddings[5] - pad
        )  # three role tokens, think, think_bos
        assert bool(mx.allclose(tag, dialect[0], atol=1e-5).item()) is expected


def test_layout_defaults_follow_the_official_package(model):
    clone, preset, design = model("base"), model("custom-voice"), model("voice-design")
    assert clone.prompt("Hello.", clone.voice(vector(64, 1))).text.known.shape[0] > 0
    assert preset.prompt("Hello.", preset.preset("ryan")).text.known.shape[0] == 0
    assert preset.prompt("Hello.", preset.voice(vector(64, 1))).text.known.shape[0] > 0
    assert design.prompt("Hello.", None).text.known.shape[0] == 0


def test_unknown_keywords_are_not_swallowed(model):
    tts = model("base")
    for speak in (tts.generate, tts.stream, lambda text, voice, **how: tts.generate_batch([text], voice, **how)):
        with pytest.raises(TypeError, match="temprature"):
            speak("Hello.", vector(64, 1), temprature=0.5)
    for function in (Qwen3TTS.from_pretrained, build_prompt):
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds


def test_the_default_penalty_is_the_official_one_in_greedy_too(model):
    tts = model("base")
    plain = tts.generate("Hello.", vector(64, 7), greedy=True, max_tokens=30)
    named = tts.generate("Hello.", vector(64, 7), greedy=True, max_tokens=30, repetition_penalty=1.05)
    assert np.array_equal(np.array(plain.codes), np.array(named.codes))


@pytest.mark.parametrize("loaded_here", [True, False])
def test_speaking_works_in_another_thread(checkpoint, loaded_here):
    """MLX binds streams to threads: a model used in a worker thread must not meet the stream of another."""
    heard, here = [], Qwen3TTS.from_pretrained(checkpoint("base"), dtype="float32")

    def work():
        tts = here if loaded_here else Qwen3TTS.from_pretrained(checkpoint("base"), dtype="float32")
        heard.append(np.array(tts.generate("Hello.", vector(64, 1), greedy=True, max_tokens=4).codes))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard[0].shape == (3, 16)


def test_voice_sources_are_equivalent(model, tmp_path):
    tts, given = model("base"), vector(64, 1)
    codes = []
    for suffix in (".npy", ".safetensors", ".json"):
        Voice(given).save(tmp_path / f"v{suffix}")
        codes.append(tts.generate("Hi.", str(tmp_path / f"v{suffix}"), greedy=True, max_tokens=4).codes)
    codes += [tts.generate("Hi.", voice, greedy=True, max_tokens=4).codes for voice in (given, Voice(given))]
    assert all(np.array_equal(np.array(codes[0]), np.array(other)) for other in codes[1:])


def test_progress_counts_frames(model):
    counted = []
    model("base").generate("Hi.", vector(64, 1), greedy=True, max_tokens=5, progress=counted.append)
    assert counted == [1, 2, 3, 4]
