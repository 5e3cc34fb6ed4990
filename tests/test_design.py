"""A voice from words: spoken by a VoiceDesign model, heard by a speaker encoder, kept with its recipe."""

import numpy as np
import pytest

from mlx_qwen3tts import Library, SpeakerEncoder, design_voice
from mlx_qwen3tts.errors import AudioError, InvalidValue, QwenTTSError, UnsupportedValue
from mlx_qwen3tts.synthesis import design

PROMPT = "a warm, low voice"


@pytest.fixture
def encoder(checkpoint):
    return SpeakerEncoder.from_pretrained(checkpoint("base"))


@pytest.fixture
def designer(model):
    return model("voice-design")


def test_the_voice_is_what_the_encoder_hears_and_its_recipe_repeats_it(designer, encoder, model):
    made = design_voice(designer, encoder, f" {PROMPT}\n", "English", seed=1, text="Hi.")
    speech = designer.generate("Hi.", instruct=PROMPT, language="english", seed=1)
    np.testing.assert_array_equal(np.array(made.speech.codes), np.array(speech.codes))
    wanted = np.array(encoder.encode((np.array(speech.audio), speech.sample_rate)))
    np.testing.assert_allclose(np.array(made.voice.embedding), wanted, atol=1e-4)
    recipe = made.voice.recipe
    assert recipe == {
        "prompt": PROMPT,
        "model": "voice-design",
        "encoder": "base",
        "language": "english",
        "text": "Hi.",
        "seed": 1,
        "dtype": "float32",
    }
    assert (made.voice.source_model, made.voice.language) == ("base", "english")
    assert made.voice.notes == ("the speech: 2.1 s is short; 3 s or more give a better voice",)
    told = {key: recipe[key] for key in ("prompt", "language", "text", "seed")}
    again = design_voice(designer, model("base"), **told)  # heard by the encoder of a whole model
    np.testing.assert_allclose(np.array(again.voice.embedding), np.array(made.voice.embedding), atol=1e-5)
    assert again.voice.recipe == recipe
    model("base").generate("Hi.", made.voice, max_tokens=3)  # which speaks with it


def test_every_language_of_the_published_models_has_a_sentence(designer):
    languages = designer.languages
    assert set(design.TEXTS) == set(languages) - {"auto"}
    for language in languages:
        assert len(designer.tokenizer.assistant(design.sentence(language))[1]) > 20
    assert design.sentence("auto") == design.TEXTS["english"]


def test_a_slice_at_a_time_is_the_same(designer, encoder):
    frames, steps = 0, design.designing(designer, encoder, PROMPT, seed=1, text="Hi.", chunks=(1,))
    with pytest.raises(StopIteration) as stopped:
        while True:
            frames += len(next(steps).codes)
    made = stopped.value.value
    assert frames == len(made.speech.codes)
    whole = design_voice(designer, encoder, PROMPT, seed=1, text="Hi.")
    np.testing.assert_allclose(np.array(made.voice.embedding), np.array(whole.voice.embedding), atol=1e-4)


def test_what_does_not_end_or_is_too_short_is_tried_with_the_next_seed(designer, encoder, monkeypatch):
    monkeypatch.setattr(design, "MOST_SECONDS", 1.2)
    with pytest.warns(UserWarning, match="seed 0: the speech did not end within 1 s"):
        made = design_voice(designer, encoder, PROMPT, seed=0, text="Hi.")
    assert made.voice.recipe["seed"] == 2 and len(made.speech.codes) < 15
    monkeypatch.setattr(design, "check_reference", lambda *_: (_ for _ in ()).throw(AudioError("too short")))
    with pytest.raises(AudioError, match=r"seed 0: the speech .*; seed 1: .*; seed 2: too short") as refused:
        design_voice(designer, encoder, PROMPT, seed=0, text="Hi.")
    assert refused.value.param == "prompt"


def test_seeds_wrap(designer, encoder, monkeypatch):
    monkeypatch.setattr(design, "MOST_SECONDS", 0.2)
    with pytest.raises(AudioError, match=r"seed 4294967295: .*; seed 0: .*; seed 1: "):
        design_voice(designer, encoder, PROMPT, seed=2**32 - 1, text="Hi.")


@pytest.mark.parametrize(
    ("arguments", "param", "message"),
    [
        ({"prompt": " "}, "prompt", "the description is empty"),
        ({"prompt": 5}, "prompt", "the description must be a string"),
        ({"language": "klingon"}, "language", "language 'klingon' is not one of"),
        ({"text": ""}, "text", "text is empty"),
        ({"seed": -1}, "seed", "seed"),
        ({"seed": True}, "seed", "seed"),
    ],
)
def test_refusals(designer, encoder, arguments, param, message):
    with pytest.raises(QwenTTSError, match=message) as refused:
        design_voice(designer, encoder, **{"prompt": PROMPT, **arguments})
    assert refused.value.param == param


def test_models_of_another_kind_are_refused(designer, encoder, model):
    with pytest.raises(UnsupportedValue, match="base is a base model; a VoiceDesign model designs voices"):
        design_voice(model("base"), encoder, PROMPT)
    with pytest.raises(UnsupportedValue, match="no speaker encoder"):
        design_voice(designer, designer, PROMPT)


def test_a_language_without_a_sentence_needs_a_text(monkeypatch):
    monkeypatch.delitem(design.TEXTS, "german")
    with pytest.raises(InvalidValue, match="language 'german' has no calibration sentence"):
        design.sentence("german")


def test_the_command(command, refused, checkpoint, tmp_path):
    ways = "--model", checkpoint("voice-design"), "--encoder", checkpoint("base"), "--text", "Hi.", "--dtype", "float32"
    line = ["voices", "design", PROMPT, "--name", "warm", *ways, "--seed", "1"]
    ran = command(*line, "--consent", "unknown", "--tag", "age=old", "--language", "en", "--sample", "heard.wav")
    assert ran.status == 0, ran.err
    library = Library(tmp_path / "voices")
    kept = library["warm"]
    assert kept.recipe["prompt"] == PROMPT and kept.consent == "unknown" and kept.attributes == {"age": "old"}
    heard = SpeakerEncoder.from_pretrained(checkpoint("base")).encode("heard.wav")
    np.testing.assert_allclose(np.array(kept.embedding), np.array(heard), atol=0.02)  # 16 bits
    assert f"designed: {PROMPT}" in command("voices", "list").out
    shown = command("voices", "show", "warm").out
    assert (
        "model         voice-design\ntext          Hi.\nseed          1\n" in shown and "language      english" in shown
    )
    assert "has a voice 'warm' already; --overwrite replaces it" in refused(*line)
    assert command(*line, "--overwrite").status == 0
    # Nobody's rights are in it, so what was entered can be corrected.
    assert command("voices", "tag", "warm", "--consent", "unknown").status == 0
    assert command("voices", "tag", "warm", "--consent", "not-needed").status == 0
    blend = command("voices", "blend", "warm", "--add", "again", "--overwrite")
    assert blend.status == 0, blend.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--name", "a/b"], "voice name 'a/b'"),
        (["--consent", "maybe"], "consent"),
        (["--sample", "x.xyz"], "extension '.xyz'"),
        (["--sample", "none/x.wav"], "none"),
        (["--encoder", "voice-design"], "no speaker encoder"),
        (["--model", "base"], "base is a base model"),
        (["--seed", "-1"], "seed"),
        (["--language", "klingon"], "language 'klingon'"),
    ],
)
def test_what_the_command_refuses(refused, checkpoint, monkeypatch, more, message):
    names = {"voice-design": str(checkpoint("voice-design")), "base": str(checkpoint("base"))}
    line = ["--name", "x", "--model", "voice-design", "--encoder", "base", *more]
    line = [names.get(word, word) for word in line]
    assert message in refused("voices", "design", PROMPT, *line)
    if more == ["--name", "a/b"]:
        assert "the description is empty" in refused("voices", "design", " ", "--name", "x", *line[2:6])
