"""Cloning in context: transcripts that cannot be those of their recordings, and silence behind the reference."""

import json
import warnings

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert.parity import recording
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.audio.reference import MARGIN, prepare, speech_seconds
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.errors import InvalidValue, WrongType
from mlx_qwen3tts.synthesis.transcript import FASTEST, SLOWEST, mismatch, syllables

# Sentences with their syllables (morae in Japanese), counted by hand.
COUNTED = [
    ("The quick brown fox jumps over the lazy dog, and nobody was surprised by what happened afterwards.", 25),
    ("Der schnelle braune Fuchs springt über den faulen Hund, und niemand wunderte sich darüber.", 24),
    ("Oggi il tempo è bello e andiamo a passeggiare nel parco vicino a casa nostra.", 27),
    ("Сегодня хорошая погода, и мы пойдём гулять в парк рядом с домом.", 23),
    ("今天天气很好，我们一起去公园散步，然后回家吃饭。", 21),
    ("今日は天気がいいので、公園まで散歩に行きましょう。", 25),
    ("오늘은 날씨가 좋아서 공원으로 산책을 가려고 합니다.", 22),
]


@pytest.mark.parametrize(("text", "count"), COUNTED)
def test_letters_tell_syllables_in_every_script(text, count):
    assert 0.75 < syllables(text) / count < 1.33
    for rate in (3, 10):  # slow with pauses, and faster than anybody reads
        assert mismatch(text, count / rate, count / rate) is None, rate
    assert "more than can be said" in mismatch(text, count / 25, count / 25)
    assert "far less than is said" in mismatch(text, count * 1.5, count * 1.5)


def test_what_is_not_letters():
    assert syllables("...") == syllables("I") == 1  # a word takes its time, however short it is
    assert syllables("1984") == 6
    assert mismatch("No.", 0.6, 0.5) is None


def test_the_miniatures_own_speech_is_within_the_band():
    """Measured: 3.8 to 6.5 syllables a second, of a synthesizer's 125 to 165 words a minute."""
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    for name in ("low", "high"):
        voice = tts.clone(hub.SHIPPED["miniature"] / "recordings" / f"{name}.flac")
        for text in ("Hello, this is my voice.", "I see a small white house and a big green tree."):
            speech = tts.generate(text, voice, language="English", seed=1)
            spoken = speech_seconds(np.array(speech.audio), speech.sample_rate)
            assert SLOWEST < 3 < syllables(text) / spoken < 8 < FASTEST


def test_cloning_warns_once(command, model, checkpoint, tmp_path):
    audio = recording(tmp_path / "a.wav", 1, 4.0)
    for text, message in (
        ("Hi.", "the reference text is far less than is said in the recording (0.2 syllables a second"),
        ("the " * 60, "the reference text is more than can be said in the recording (17.3 syllables a second"),
        ("今" * 80, "the reference text is more than can be said in the recording (20.0 syllables a second"),
        ("Nobody was surprised by what happened here.", None),
    ):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            voice = model("base").clone(audio, ref_text=text)
        assert [str(w.message)[: len(message)] for w in said] == ([message] if message else [])
        assert list(voice.notes) == [str(w.message) for w in said]
    run = ("generate", "--model", checkpoint("base"), "--ref-audio", audio, "--max-tokens", "3", "Hello.")
    assert command(*run, "--ref-text", "Hi.").err.count("the reference text is") == 1
    assert "the reference text is" not in command(*run).err


def test_silence_in_the_recording_is_not_speech():
    sound = np.concatenate([np.zeros(48000), np.sin(np.arange(48000) / 20) * 0.3, np.zeros(48000)])
    assert speech_seconds(sound, 24000) == pytest.approx(2, abs=0.05)


# Silence behind it


def heard(monkeypatch, tts):
    """The samples that are encoded for the codes of a reference."""
    kept, encode = [], tts.codec.encode
    monkeypatch.setattr(tts.codec, "encode", lambda audio: kept.append(audio[0]) or encode(audio))
    return kept


TEXT = "Nobody was surprised."


def test_silence_behind_the_reference(model, monkeypatch, tmp_path):
    tts, audio = model("base"), recording(tmp_path / "a.wav", 1, 2.0)
    plain, kept = tts.clone(audio, ref_text=TEXT), heard(monkeypatch, tts)
    padded = tts.clone(audio, ref_text=TEXT, ref_silence=0.5)
    [samples] = kept
    assert samples.size == 60000 and not samples[48000:].any() and samples[:48000].any()
    assert len(padded.ref_codes) == 32 and len(plain.ref_codes) == 25
    assert mx.array_equal(padded.ref_codes[:24], plain.ref_codes[:24])  # the encoder is causal
    assert mx.array_equal(padded.embedding, plain.embedding), "the vector is that of the recording"
    assert tts.clone(audio, ref_text=TEXT, ref_silence=0) == plain, "none, unless it is asked for"


def test_preparing_leaves_the_silence(model, monkeypatch, tmp_path):
    rate, tone = 24000, 0.3 * np.sin(np.arange(48000) / 20)
    hiss = np.random.RandomState(0).normal(0, 1e-4, 48000)
    soundfile.write(tmp_path / "a.wav", np.concatenate([hiss, tone, hiss]), rate, subtype="FLOAT")
    tts = model("base")
    kept = heard(monkeypatch, tts)
    tts.clone(tmp_path / "a.wav", ref_text=TEXT, prepare=True, ref_silence=0.5)
    assert kept[0].size == pytest.approx((0.1 + 2 + 0.5 + 0.5) * rate, abs=rate // 25)
    assert np.abs(kept[0][-rate // 2 :]).max() == 0 < np.abs(kept[0][-rate : -rate // 2]).max() < 0.01
    both = np.concatenate([hiss, tone, hiss]).astype(np.float32)
    ends = [prepare(both, rate, tail).size for tail in (0, MARGIN, 0.5, 60)]
    assert ends[0] == ends[1] == ends[2] - round(0.4 * rate) and ends[3] == ends[1] + round(1.9 * rate)


def test_silence_that_cannot_be(model, refused, command, checkpoint, tmp_path):
    audio = recording(tmp_path / "a.wav", 1, 1.0)
    tts = model("base")
    with pytest.raises(InvalidValue, match="ref_silence belongs to ref_text, which is not given"):
        tts.clone(audio, ref_silence=0.5)
    with pytest.raises(InvalidValue, match="ref_silence 11 is not between 0 and 10"):
        tts.clone(audio, ref_text=TEXT, ref_silence=11)
    with pytest.raises(WrongType, match="ref_silence must be a number"):
        tts.clone(audio, ref_text=TEXT, ref_silence="0.5")
    run = (
        "generate",
        "--model",
        checkpoint("base"),
        "--ref-audio",
        audio,
        "--max-tokens",
        "3",
        "--seed",
        "1",
        "Hello.",
    )
    run = (*run, "--codes-output", "c.npy", "--greedy")
    assert "ref_silence nan is not between 0 and 10" in refused(*run, "--ref-text", TEXT, "--ref-silence", "nan")
    codes = []
    for silence in ((), ("--ref-silence", "0"), ("--ref-silence", "0.5")):
        ran = command(*run, "--ref-text", TEXT, *silence, "--json")
        assert ran.status == 0 and json.loads(ran.out)["frames"] == 2
        codes.append(np.load(tmp_path / "c.npy"))
    assert np.array_equal(codes[0], codes[1]) and not np.array_equal(codes[0], codes[2])
