"""The shipped miniature from end to end: text to sound to words, and the algebra of voices by ear.

What is heard is judged by a recogniser that was trained on espeak-ng alone (tests/assets) and by pYIN.
"""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from mlx_qwen3tts import Direction, Qwen3TTS
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.demo import labelled
from mlx_qwen3tts.diarization import diarize, embedder
from mlx_qwen3tts.errors import UnsupportedValue
from mlx_qwen3tts.voices.library.library import Library
from mlx_qwen3tts.voices.voice import Voice
from training.acoustics import f0, formant_shift
from training.evaluate import LINES as SPOKEN
from training.hearing import Hearing
from training.language import errors, words

FOLDER = hub.SHIPPED["miniature"]
ASSETS = Path(__file__).parent / "assets"
LINES = (
    *SPOKEN,  # those of the golden
    "I want to speak to you.",
    "One two three four five.",
    "This is a blend of two voices.",
)


@pytest.fixture(scope="module")
def miniature():
    return Qwen3TTS.from_pretrained("miniature", dtype="float32")  # bfloat16 takes a CPU twice as long


@pytest.fixture(scope="module")
def hear():
    return Hearing(ASSETS / "recogniser.safetensors")


@pytest.fixture(scope="module")
def low(miniature):
    return miniature.embed(FOLDER / "recordings" / "low.flac")


@pytest.fixture(scope="module")
def high(miniature):
    return miniature.embed(FOLDER / "recordings" / "high.flac")


SPOKEN = {}  # what `speak` gave before


def speak(model, rows, text_mode="streaming"):
    """The Speech of each (vector, text), greedy, in one batch; each is made once for all tests."""
    keys = [(np.array(vector).tobytes(), text, text_mode) for vector, text in rows]
    new = {key: row for key, row in zip(keys, rows, strict=True) if key not in SPOKEN}
    if new:
        vectors, texts = zip(*new.values(), strict=True)
        made = model.generate_batch(list(texts), list(vectors), languages="english", text_modes=text_mode, greedy=True)
        assert all(speech.finish_reason == "stop" for speech in made)
        SPOKEN.update(zip(new, made, strict=True))
    return [SPOKEN[key] for key in keys]


def say(model, *vectors, texts=LINES[:1]):
    """The sound of each vector that says the texts one after another."""
    spoken = speak(model, [(vector, text) for vector in vectors for text in texts])
    sounds = [np.array(speech.audio) for speech in spoken]
    return [np.concatenate(sounds[i : i + len(texts)]) for i in range(0, len(sounds), len(texts))]


def test_it_is_small():
    sizes = {path: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    weights = sum(size for path, size in sizes.items() if path.suffix == ".safetensors" and "voices" not in path.parts)
    assert weights <= 8e6 and sum(sizes.values()) <= 8.5e6
    assert (ASSETS / "recogniser.safetensors").stat().st_size <= 1.5e6


def test_the_recogniser_hears_the_recordings(hear):
    for path in sorted((FOLDER / "recordings").glob("*.flac")):
        samples, _ = soundfile.read(path, dtype="float32")
        said = words("Hello, this is my voice. The red car is big. I want to speak to you.")
        assert errors(said, hear(samples)) <= 1
        assert len(hear(np.random.default_rng(0).normal(0, 0.05, 48000))) <= 2  # it does not make words up


@pytest.mark.parametrize(("text_mode", "limit"), [("streaming", 0.12), ("full", 0.15)])
@pytest.mark.thorough
def test_what_is_said_is_understood(miniature, hear, low, high, text_mode, limit):
    rows = [(vector, text) for vector in (low, high) for text in LINES[:3]]
    spoken = speak(miniature, rows, text_mode)
    assert hear.error_rate([text for _, text in rows], [speech.audio for speech in spoken]) <= limit


@pytest.fixture(scope="module")
def sampled(miniature, low, high):
    """All lines, sampled, from the two voices in turn: a batch with a seed for each."""
    return miniature.generate_batch(list(LINES), [low, high] * 3, languages="english", seeds=list(range(len(LINES))))


@pytest.mark.thorough
def test_what_is_sampled_is_understood(sampled, hear):
    assert sum(speech.finish_reason == "stop" for speech in sampled) >= len(LINES) - 1
    assert hear.error_rate(list(LINES), [speech.audio for speech in sampled]) <= 0.12
    for speech in sampled:
        level = np.sqrt(np.mean(np.array(speech.audio) ** 2))
        assert 0.01 < level < 0.3 and np.abs(np.array(speech.audio)).max() < 1


@pytest.mark.thorough
def test_streams_and_batches_are_the_same_speech(miniature, sampled, low, high):
    for seed, voice in enumerate((low, high)):
        one, other = miniature.generate(LINES[seed], voice, language="english", seed=seed), sampled[seed]
        assert mx.array_equal(one.codes, other.codes)
        assert np.allclose(np.array(one.audio), np.array(other.audio), atol=1e-4)
    stream = miniature.stream(iter(["Hel", "lo, this is", " my voice", "."]), low, language="english", seed=0)
    heard = np.concatenate([np.array(chunk.audio) for chunk in stream])
    assert np.allclose(heard, np.array(sampled[0].audio), atol=1e-4)


@pytest.mark.thorough
def test_the_voice_is_that_of_the_recording(miniature, low, high):
    for name, sound in zip(("low", "high"), say(miniature, low, high), strict=True):
        samples, _ = soundfile.read(FOLDER / "recordings" / f"{name}.flac", dtype="float32")
        assert abs(12 * np.log2(f0(sound) / f0(samples))) <= 2


@pytest.mark.thorough
def test_a_blend_lies_between_its_parents(miniature, low, high):
    shares = np.array([0, 0.25, 0.5, 0.75, 1])
    heard = [f0(sound) for sound in say(miniature, *((1 - t) * low + t * high for t in shares.tolist()))]
    assert (np.diff(heard) > 0).all()
    assert np.abs(12 * np.log2(heard / (heard[0] * (heard[-1] / heard[0]) ** shares))).max() <= 2


@pytest.mark.thorough
def test_a_pitch_direction_raises_the_pitch(miniature, hear, low, high):
    voices, pitches = labelled(FOLDER / "voices")
    pitch = Direction.fit(voices, pitches, method="ridge")
    assert len(voices) == 10 and pitch.report.correlation >= 0.9
    for vector in (low, high):
        sign = 1 if vector is low else -1
        sounds = say(miniature, vector, *(pitch.apply(vector, sign * k) for k in (0.3, 0.6)))
        heard = [f0(sound) for sound in sounds]
        assert (np.diff(heard) * sign > 0).all() and abs(12 * np.log2(heard[2] / heard[0])) >= 2
        assert errors(words(LINES[0]), hear(sounds[2])) <= 1  # of 5


@pytest.mark.thorough
def test_a_direction_for_the_vocal_tract_moves_the_formants(miniature, low, high):
    voices, _ = labelled(FOLDER / "voices")
    sizes = [float(voice.attributes["formants"]) for voice in voices]
    tract = Direction.fit(voices, sizes, method="ridge")
    assert tract.report.correlation >= 0.9
    middle = 0.5 * low + 0.5 * high
    small, sound, large = say(miniature, tract.apply(middle, -0.5), middle, tract.apply(middle, 0.5))
    assert formant_shift(small, sound) < 1 < formant_shift(large, sound)


@pytest.mark.thorough
def test_a_live_morph_glides(miniature, low, high):
    text = " ".join(LINES[:2])
    own = dict(zip(("low", "high"), map(f0, say(miniature, low, high)), strict=True))

    def heard(sound):
        return [f0(sound[: 3 * 24000 // 4]), f0(sound[3 * 24000 // 4 : 2 * 24000]), f0(sound[3 * 24000 :])]

    morphed = miniature.generate(text, low, language="english", greedy=True, morph=high, morph_seconds=2)
    begins, between, ends = heard(np.array(morphed.audio))
    assert begins < between < ends
    assert abs(12 * np.log2(begins / own["low"])) <= 2 and abs(12 * np.log2(ends / own["high"])) <= 2
    [plain] = say(miniature, low, texts=LINES[:2])
    assert all(abs(12 * np.log2(pitch / own["low"])) <= 2 for pitch in heard(plain))  # it is not the words that rise


@pytest.mark.parametrize(("speakers", "told"), [((5, 2, 6), None), ((5, 2, 8), 3)])
@pytest.mark.thorough
def test_diarization_of_a_conversation(miniature, speakers, told):
    """Three voices in turn. Of some such three it finds two where it is not told how many there are."""
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    voices, _ = labelled(FOLDER / "voices")
    truth, sounds, time = Annotation(), [], 0.0
    for number in range(7):
        voice = voices[speakers[number % 3]]
        [sound] = say(miniature, voice.embedding, texts=[LINES[number % 3], LINES[(number + 1) % 3]])
        truth[Segment(time, time + len(sound) / 24000)] = voice.name
        sounds += [sound, np.zeros(9600, np.float32)]
        time += len(sound) / 24000 + 0.4
    encoder = embedder(miniature.folder.load_speaker_encoder())
    found = diarize(np.concatenate(sounds), encoder, num_speakers=told)
    heard = Annotation()
    for turn in found.turns:
        heard[Segment(turn.start, turn.end)] = turn.speaker
    assert len(found.speakers) == 3
    assert DiarizationErrorRate(collar=0.25)(truth, heard, uem=Timeline([Segment(0, time)])) <= 0.10


@pytest.mark.thorough
def test_search_finds_the_speaker(miniature, tmp_path):
    voices, _ = labelled(FOLDER / "voices")
    library = Library(tmp_path / "voices")
    for voice in voices:
        library.add(voice.name, voice)
    sounds = say(miniature, *(voice.embedding for voice in voices))
    found = [library.search(miniature.embed(sound), k=1)[0][0] for sound in sounds]
    assert sum(name == voice.name for name, voice in zip(found, voices, strict=True)) >= 8


def test_words_it_does_not_know_are_named(miniature, low):
    with pytest.warns(UserWarning, match="does not know: zebra, 7") as told:
        miniature.generate("Hello, zebra! 7 cat.", low, max_tokens=4)
    assert "103 words" in str(told[0].message)
    with pytest.warns(UserWarning, match="does not know: zebra "):
        list(miniature.stream(iter(["Hello ze", "bra cat"]), low, max_tokens=4))


def test_cloning_in_context_is_refused_by_name(miniature, low):
    recording = FOLDER / "recordings" / "low.flac"
    with pytest.raises(UnsupportedValue, match="miniature was not trained to clone in context"):
        miniature.clone(recording, ref_text="Hello, this is my voice.")
    voice = Voice(low, mx.zeros((5, 8), mx.int32), "hello")
    with pytest.raises(UnsupportedValue, match="not trained to clone in context"):
        miniature.generate("hello", voice)


def test_every_command_knows_it(command, tmp_path):
    ran = command("info", "--model", "miniature", "--json")
    told = json.loads(ran.out)
    assert ran.status == 0 and len(told["words"]) == 103 and told["quantization"]["bits"] == 6
    recording = FOLDER / "recordings" / "high.flac"
    assert command("embed", "--model", "miniature", recording, "--output", "high.npy").status == 0
    speaking = ("generate", "--model", "miniature", "--dtype", "float32", "--embedding", "high.npy")
    ran = command(*speaking, "--output", "out.wav", "Hello, zebra.")
    assert ran.status == 0 and "zebra" in ran.err and soundfile.info("out.wav").frames > 12000
    refused = command("generate", "--model", "miniature", "--ref-audio", recording, "--ref-text", "hello", "Hello.")
    assert refused.status == 2 and "not trained to clone in context" in refused.err
    assert command("codec", "encode", "--model", "miniature", recording, "--output", "codes.npy").status == 0
    assert np.load("codes.npy").shape[1] == 8


@pytest.mark.parametrize("text_mode", ["streaming", "full"])
@pytest.mark.parametrize("name", ["low", "high"])
def test_codes_are_those_of_the_official_implementation(miniature, low, high, name, text_mode):
    """From training/golden.py: the official package, given the same numbers that the quantised weights stand for."""
    golden = np.load(ASSETS / "miniature_codes.npz")
    vector = {"low": low, "high": high}[name]
    assert np.abs(golden[f"{name}_vector"] - np.array(vector)).max() <= 1e-4
    for number, speech in enumerate(speak(miniature, [(vector, text) for text in LINES[:3]], text_mode)):
        assert np.array_equal(np.array(speech.codes), golden[f"{name}_{text_mode}_{number}"])
