"""A voice that changes while it speaks. Equality with the official talker, its cache edited likewise, is a golden."""

import warnings

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import recording, vector
from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.errors import InvalidValue, UnsupportedValue, VoiceError, VoiceNotFound, WrongType
from mlx_qwen3tts.networks.talker import Talker
from mlx_qwen3tts.synthesis.morph import path
from mlx_qwen3tts.synthesis.text import split_sentences

TEXT = "Hello there, the weather is fine; we'll walk to the old harbour, you and I."
A, B = vector(64, 1), vector(64, 2)
FRAME = 0.08


def codes(speech):
    return np.array(speech.codes)


@pytest.fixture
def revised(monkeypatch):
    """A list that grows by the vectors' first positions as they are written into the cache."""
    starts, revise = [], Talker.revise
    monkeypatch.setattr(
        Talker, "revise", lambda self, x, caches, start: starts.append(start) or revise(self, x, caches, start)
    )
    return starts


def test_a_function_has_the_first_word(model):
    """The voice of the first frame is the function's too."""
    tts, how = model("base"), {"seed": 5, "max_tokens": 9}
    assert (codes(tts.generate(TEXT, A, morph=lambda s: B, **how)) == codes(tts.generate(TEXT, B, **how))).all()


@pytest.mark.parametrize("layout", ["streaming", "full"])
@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize(
    "constant", [lambda seconds: A, lambda seconds: Voice(A), A], ids=["function", "voice", "itself"]
)
@pytest.mark.thorough
def test_a_constant_voice_is_no_change(model, revised, layout, greedy, constant):
    tts, how = (
        model("base"),
        {"seed": 5, "max_tokens": 32, "greedy": greedy, "text_mode": layout, "language": "English"},
    )
    plain = tts.generate(TEXT, A, **how)
    assert revised == []
    same = tts.generate(TEXT, A, morph=constant, **how)
    assert len(revised) >= 30 and set(revised) == {7}  # role, four tags
    assert (codes(same) == codes(plain)).all() and (np.array(same.audio) == np.array(plain.audio)).all()


@pytest.mark.thorough
def test_presets_change_too(model):
    tts, how = model("custom-voice"), {"seed": 5, "max_tokens": 40}
    plain = codes(tts.generate(TEXT, "vivian", **how))
    assert (codes(tts.generate(TEXT, "vivian", morph="Vivian", **how)) == plain).all()
    mixed = codes(tts.generate(TEXT, "vivian", morph="vivian*0.2 + ryan*0.8", morph_seconds=0.5, **how))
    assert mixed.shape != plain.shape or (mixed != plain).any()


def test_the_cache_holds_what_a_prefill_with_the_new_voice_would(model):
    tts = model("base")
    prompts = [tts.prompt(TEXT, tts.voice(v), text_mode="full") for v in (A, B)]
    caches = []
    for prompt in prompts:
        caches.append(tts.talker.make_cache())
        tts.talker(prompt.embeddings[None], caches[-1])
    step = mx.ones((1, 1, 64)) * 0.01
    tts.talker(step, caches[0])  # a frame that was spoken with the old voice
    start, length = prompts[0].speaker_position, prompts[0].embeddings.shape[0]
    tts.talker.revise(prompts[0].spoken_by(mx.array(B))[None, start:], caches[0], start)
    before = tts.talker.make_cache()
    tts.talker(prompts[0].embeddings[None], before)
    tts.talker(step, before)
    for ours, wanted, old in zip(*caches, before, strict=True):
        assert ours.offset == length + 1
        for name in ("keys", "values"):
            now, then, was = (np.array(getattr(cache, name)) for cache in (ours, wanted, old))
            assert np.abs(now[:, :, :length] - then[:, :, :length]).max() <= 1e-4
            assert np.array_equal(now[:, :, length : length + 1], was[:, :, length : length + 1])
            assert np.array_equal(now[:, :, :start], was[:, :, :start])
    assert np.abs(np.array(caches[0][1].keys - before[1].keys)).max() > 0.01


def test_a_voice_changes_over_the_time_it_is_given(model, revised):
    tts, how = model("base"), {"seed": 5, "max_tokens": 24, "greedy": True}
    plain, other = (codes(tts.generate(TEXT, v, **how)) for v in (A, B))
    slow, fast = (codes(tts.generate(TEXT, A, morph=B, morph_seconds=s, **how)) for s in (30, 0.1))
    assert (slow != plain).any() and (fast != slow).any() and (fast != other).any()
    seconds = []
    told = tts.generate(
        TEXT, A, morph=lambda s: seconds.append(s) or (1 - min(1, s / 0.8)) * A + min(1, s / 0.8) * B, **how
    )
    assert np.allclose(seconds, FRAME * np.arange(len(seconds))) and len(seconds) >= 23
    assert (codes(told) == codes(tts.generate(TEXT, A, morph=Voice(B), morph_seconds=0.8, **how))).all()


def test_how_long_it_takes_by_default(model):
    """Three and a half frames for each token of the text."""
    tts, how = model("base"), {"seed": 5, "max_tokens": 16}
    tokens = len(tts.tokenizer.assistant(TEXT)[1])
    timed = tts.generate(TEXT, A, morph=B, morph_seconds=3.5 * tokens * FRAME, **how)
    assert (codes(tts.generate(TEXT, A, morph=B, **how)) == codes(timed)).all()
    at = path(mx.array(A), mx.array(B), 10)
    assert (
        np.array_equal(np.array(at(0)), A)
        and np.array_equal(np.array(at(10)), B)
        and np.array_equal(np.array(at(99)), B)
    )
    assert np.allclose(np.array(at(5)), (A + B) / 2)


@pytest.mark.thorough
def test_streams_and_texts_in_pieces_change_alike(model):
    tts, how = model("base"), {"seed": 5, "max_tokens": 30, "morph": B, "morph_seconds": 1.0}
    whole = tts.generate(TEXT, A, **how)
    for text in (TEXT, iter([TEXT[:20], TEXT[20:]])):
        chunks = list(tts.stream(text, A, **how))
        assert (np.concatenate([np.array(chunk.codes) for chunk in chunks]) == codes(whole)).all()
        assert np.abs(np.concatenate([np.array(chunk.audio) for chunk in chunks]) - np.array(whole.audio)).max() <= 1e-5


# Sentence by sentence


@pytest.mark.thorough
def test_each_sentence_begins_anew_with_the_voice_of_its_time(model):
    tts, parts = model("base-ends"), ["Hello.", "How are you?", "Fine!"]
    how = {"greedy": True, "seed": 7}
    speech = tts.generate(" ".join(parts), A, morph=B, morph_seconds=1.0, morph_mode="sentences", max_tokens=200, **how)
    spoken = 0
    for number, part in enumerate(parts):
        t = min(1.0, spoken * FRAME)
        alone = tts.generate(part, (1 - t) * A + t * B, max_tokens=200 - spoken, **{**how, "seed": 7 + number})
        assert (codes(speech)[spoken : spoken + len(alone.codes)] == codes(alone)).all()
        spoken += len(alone.codes)
    assert spoken == len(speech.codes) and speech.finish_reason == "stop"
    assert speech.audio.shape == (1920 * spoken,)  # the sound runs on
    assert np.abs(np.array(speech.audio) - np.array(tts.codec.decode(speech.codes))).max() <= 1e-5


@pytest.mark.parametrize("limit", [3, 12, 20])
def test_sentences_share_the_limit(model, limit):
    tts = model("base")  # never ends of its own
    speech = tts.generate("One. Two. Three.", A, morph=B, morph_mode="sentences", max_tokens=limit, seed=1)
    assert len(speech.codes) == limit - 1 and speech.finish_reason == "length"


def test_a_sentence_that_uses_up_the_limit_is_the_last(model):
    """It ends by itself, with the last token, and leaves none for the next one."""
    tts, how = model("base-ends"), {"greedy": True, "seed": 1}
    first = len(tts.generate("Hello.", A, max_tokens=80, **how).codes)
    for text, reason in (("Hello.", "stop"), ("Hello. How are you?", "length")):
        speech = tts.generate(text, A, morph=B, morph_mode="sentences", max_tokens=first + 1, **how)
        assert len(speech.codes) == first and speech.finish_reason == reason
    assert "did not end" in speech.warnings[-1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It is 3.5 km to St Ives… go!", ["It is 3.5 km to St Ives…", "go!"]),
        ("He said: “Yes.” Then he left.", ["He said: “Yes.”", "Then he left."]),
        ("你好。今天天气很好！走吧", ["你好。", "今天天气很好！", "走吧"]),
        ("A title\n\nand text", ["A title", "and text"]),
        ("one\ntwo", ["one\ntwo"]),
        ("Hm ... well.", ["Hm ...", "well."]),
        ("no end", ["no end"]),
        ("...", ["..."]),
        ("?! Really?!", ["Really?!"]),
    ],
)
def test_where_sentences_end(text, parts):
    assert split_sentences(text) == parts


def test_each_thing_is_said_once(tmp_path):
    """Of a text in sentences, of two voices with the same note, of marks that the miniature was not taught."""
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    voice = Voice(vector(tts.embedding_dim, 1), notes=["the recording is short"])
    how = {"morph": voice, "morph_mode": "sentences", "seed": 1, "max_tokens": 4}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        speech = tts.generate("Hello zebra. Hello zebra!", voice, **how)
    told = [str(warning.message) for warning in said]
    assert speech.warnings == (*voice.notes, *told)
    assert [word in message for word, message in zip(("zebra", "cut"), told, strict=True)] == [True] * 2


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"morph": np.zeros(63, np.float32)}, VoiceError, "the voice has 63 dimensions, this model takes 64"),
        ({"morph": np.full(64, np.nan, np.float32)}, VoiceError, "NaN"),
        ({"morph": "nobody"}, VoiceNotFound, "voice 'nobody' is not a file"),
        (
            {"morph": lambda s: np.zeros(63, np.float32)},
            InvalidValue,
            r"morph: the vector has shape \[63\], .* takes \[64\]",
        ),
        ({"morph": lambda s: np.full(64, np.inf, np.float32)}, VoiceError, "morph: the vector has values that are NaN"),
        ({"morph": lambda s: A, "morph_seconds": 1}, InvalidValue, "a function knows its own times"),
        ({"morph": B, "morph_seconds": 0}, InvalidValue, "morph_seconds 0 is not above 0"),
        ({"morph": B, "morph_seconds": "1"}, WrongType, "morph_seconds must be a number"),
        ({"morph_seconds": 1}, InvalidValue, "belong to morph, which is not given"),
        ({"morph_mode": "sentences"}, InvalidValue, "belong to morph, which is not given"),
        ({"morph": B, "morph_mode": "fast"}, InvalidValue, "morph_mode 'fast' is not one of live, sentences"),
    ],
)
def test_bad_changes(model, options, error, message):
    with pytest.raises(error, match=message):
        model("base").generate("Hi.", A, max_tokens=5, **options)


def test_what_cannot_change(model, tmp_path):
    tts = model("base")
    icl = tts.clone(recording(tmp_path / "a.wav", 1, 1.0), ref_text="one two")
    with pytest.raises(UnsupportedValue, match="must be a vector: reference codes keep their speaker"):
        tts.generate("Hi.", icl, morph=B)
    with pytest.raises(InvalidValue, match="not known: give morph_seconds"):
        tts.generate(iter(["Hi."]), A, morph=B)
    with pytest.raises(InvalidValue, match="needs the whole text at once"):
        tts.generate(iter(["Hi."]), A, morph=B, morph_seconds=1, morph_mode="sentences")
    with pytest.raises(UnsupportedValue, match="no speaker slot, so there is nothing to change"):
        model("voice-design").generate("Hi.", instruct="A voice.", morph=B)


def test_the_command(command, refused, checkpoint, tmp_path):
    for name, v in (("a", A), ("b", B)):
        np.save(tmp_path / f"{name}.npy", v)
    (tmp_path / "t.txt").write_text("One.\n")
    run = ("generate", "--model", checkpoint("base"), "--seed", 1)
    speak = (*run, "--embedding", "a.npy", "--max-tokens", 12, "--codes-output", "c.npy")
    assert command(*speak, "Hello.").status == 0
    plain = np.load(tmp_path / "c.npy")
    for how in ((), ("--morph-seconds", 0.2), ("--morph-mode", "sentences")):
        ran = command(*speak, "--morph-to", "b.npy", *how, "Hello.")
        assert ran.status == 0, ran.err
        changed = np.load(tmp_path / "c.npy")
        assert changed.shape == plain.shape and (changed != plain).any() == ("--morph-mode" not in how)
    belong = "--morph-seconds and --morph-mode belong to --morph-to, which is not given"
    assert refused(*run, "--embedding", "a.npy", "--morph-seconds", 1, "Hello.") == belong
    assert refused(*run, "--embedding", "a.npy", "--morph-mode", "live", "Hello.") == belong
    batch = (*run, "--embedding", "a.npy", "--batch-size", 2, "--text-file", "t.txt", "--morph-to", "b.npy")
    assert refused(*batch) == "--morph-to speaks one text; leave out --batch-size"
    assert "no such file" in refused(*run, "--embedding", "a.npy", "--morph-to", "c.npz.npy", "Hello.")
