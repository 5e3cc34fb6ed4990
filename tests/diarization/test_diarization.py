"""Who speaks when: error rates with embeddings that are known, with real ones and on real recordings; the command."""

import functools
import itertools
import json
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from mlx_qwen3tts import Voice
from mlx_qwen3tts.audio.regions import RATE, blocks, levels, speech_regions
from mlx_qwen3tts.diarization import Diarization, Turn, diarize
from mlx_qwen3tts.errors import AudioError, InvalidValue, WrongType
from tests.diarization.conversations import (
    DIMENSION,
    RECORDINGS,
    Known,
    conversation,
    directions,
    error_rate,
    manners,
    sound,
    spliced,
    trained,
    voices,
)


@functools.lru_cache
def recorded(turns, seed):
    return sound(turns, seed)


def run(turns, embed, seed, **options):
    """(Diarization, its error rate)."""
    samples = recorded(tuple(turns), seed)
    found = diarize(samples, embed, **options)
    return found, error_rate(turns, found, samples.size / RATE)


# Error rates with known embeddings


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (1, 2))])
@pytest.mark.parametrize("speakers", [2, 3, 4, 5])
@pytest.mark.parametrize(("noise", "spread"), [(0.01, None), (1.6, 30), (2.4, None)])
def test_conversations(speakers, seed, noise, spread):
    """Number not given. A noise of 2.4 is as large as what tells the voices apart."""
    basis = None if spread is None else directions(seed, spread)
    found, rate = run(conversation(seed, speakers), Known(voices(seed, speakers), seed, noise, basis), seed)
    assert len(found.speakers) == speakers and rate < 0.015  # measured: 0.008 at most
    assert list(found.speakers) == [f"speaker_{i + 1}" for i in range(speakers)]
    firsts = [min(turn.start for turn in found.turns if turn.speaker == name) for name in found.speakers]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("speakers", [2, 3, 5])
@pytest.mark.thorough
def test_quick_exchanges(speakers, seed):
    turns = conversation(seed, speakers, turn=(0.8, 3), direct=0.5)
    found, rate = run(turns, Known(voices(seed, speakers), seed, 1.0, directions(seed, 20)), seed)
    assert len(found.speakers) == speakers and rate < 0.05  # measured: 0.013 at most


@pytest.mark.parametrize("seed", range(4))
def test_one_speaks_nearly_all_the_time(seed):
    turns = conversation(seed, 2, share=[0.92, 0.08])
    seconds = [sum(end - start for start, end, voice in turns if voice == k) for k in (0, 1)]
    found, rate = run(turns, Known(voices(seed, 2), seed, 1.6, directions(seed, 20)), seed)
    assert seconds[0] > 3 * seconds[1] and len(found.speakers) == 2 and rate < 0.02


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [3, 10, DIMENSION])
@pytest.mark.parametrize("noise", [0, 0.3, 2.4])
@pytest.mark.thorough
def test_one_speaker_is_one(noise, spread, seed):
    """About the recording's own mean nothing but noise is left of a single voice."""
    found, rate = run(conversation(seed, 1), Known(voices(seed, 1), seed, noise, directions(seed, spread)), seed)
    assert list(found.speakers) == ["speaker_1"] and rate < 0.01


@pytest.mark.parametrize("snr", [30, 10])
def test_speech_is_found_in_noise(snr):
    for seed in range(3):
        turns = [(start, end, 0) for start, end, _ in conversation(seed, 3)]
        samples = sound(turns, seed, snr)
        level, seconds = levels(blocks(samples))
        found = Diarization([Turn(a / 100, b / 100, "s") for a, b in speech_regions(level)], {"s": None}, seconds)
        assert error_rate(turns, found, seconds) < 0.01


def test_boundaries_within_a_region():
    """Changes without a pause are found to a tenth of a second, from windows of 0.75 s and 1.5 s."""
    turns = [(0.5, 3.2, 0), (3.2, 7.03, 1), (7.03, 9.5, 0), (10.2, 12.0, 2), (12.0, 15.31, 1), (15.31, 18.0, 2)]
    found, _ = run(turns, Known(voices(1, 3), 1, 0.5), 1)
    told = [(turn.start, turn.end, int(turn.speaker[-1]) - 1) for turn in found.turns]
    assert [voice for *_, voice in told] == [0, 1, 0, 2, 1, 2]
    assert np.abs(np.array(told)[:, :2] - np.array(turns)[:, :2]).max() < 0.1


def test_each_speaker_has_the_vector_of_its_voice():
    """Windows that two share are left out of it."""
    vectors = voices(3, 3)
    found, _ = run(conversation(3, 3), Known(vectors, 3, 0.01), 3)
    for name, vector in found.speakers.items():
        assert vector.dtype == mx.float32
        assert np.linalg.norm(np.array(vector) - vectors[int(name[-1]) - 1]) < 0.02


# Real embeddings and recordings


def test_real_embeddings(shared):
    """Each speaks in one emotion; windows scatter as emotions do, with a third of the radius: a hard case."""
    rates, right = [], 0
    for speakers, seed in itertools.product((1, 2, 3, 4, 5), range(2)):
        vectors, noise, space = manners(shared, seed, speakers, 1)
        turns = conversation(seed, speakers)
        found, rate = run(turns, Known(vectors, seed, 0.8, noise), seed, space=space)
        rates.append(rate)
        right += len(found.speakers) == speakers
    assert np.median(rates) < 0.01 and np.mean(rates) < 0.05 and right >= 9  # measured: 0.003, 0.016, 9 of 10


def test_a_space_without_emotions_keeps_a_changing_speaker_together(shared):
    """Two speakers who change between two emotions from turn to turn, the number given: about their own mean emotions
    are taken for speakers."""
    right = {"own": 0, "space": 0}
    for seed in range(6):
        vectors, noise, space = manners(shared, seed, 2, 2)
        turns = conversation(seed, 2)
        moods = np.random.default_rng(seed).integers(2, size=len(turns))
        samples = sound([(a, b, 2 * voice + mood) for (a, b, voice), mood in zip(turns, moods, strict=True)], seed)
        for name, given in (("own", None), ("space", space)):
            found = diarize(samples, Known(vectors, seed, 0.5, noise), space=given, num_speakers=2)
            right[name] += error_rate(turns, found, samples.size / RATE) < 0.05
    assert right["space"] >= 5 and right["space"] > right["own"]


@pytest.mark.parametrize("names", [RECORDINGS, RECORDINGS[:2], RECORDINGS[1:], RECORDINGS[::2]])
@pytest.mark.thorough
def test_spliced_recordings(names, shared):
    """Windows and boundaries in real sound, in pieces of 2 to 3 s; of three, also with their number not given."""
    embed, rates = trained(shared, names), []
    for seed in range(3):
        samples, turns = spliced(shared, names, seed)
        for number in (len(names), None) if len(names) == 3 else (len(names),):
            found = diarize(samples, embed, num_speakers=number)
            assert len(found.speakers) == len(names)
            rates.append(error_rate(turns, found, samples.size / RATE))
    assert max(rates) < 0.12 and np.mean(rates) < 0.1  # measured: 0.7 to 10 %, 5.6 % on average


# What is asked for


def test_the_number_of_speakers(shared):
    turns, vectors = conversation(2, 3), voices(2, 3)

    def count(**options):
        return len(run(turns, Known(vectors, 2, 0.5), 2, **options)[0].speakers)

    assert count() == 3 and count(num_speakers=2) == 2 and count(max_speakers=2) == 2 and count(min_speakers=2) == 3
    assert count(num_speakers=4) == 4 and count(min_speakers=4) == 4 and count(num_speakers=1) == 1


@pytest.mark.parametrize("seed", range(2))
def test_as_many_speakers_as_are_asked_for(seed):
    """More than there are: each has a window for certain."""
    turns, vectors = conversation(seed, 3), voices(seed, 3)
    for number in (6, 9):
        found, _ = run(turns, Known(vectors, seed, 1.6), seed, num_speakers=number)
        assert len(found.speakers) == number


def test_two_at_once_are_marked_when_asked():
    turns = [(0.5, 6, 0), (6.5, 12, 1), (12.5, 18, 0), (16, 21, 1), (21.5, 26, 1), (26.4, 31, 0)]
    embed = Known(voices(4, 2), 4, 0.5)
    plain, _ = run(turns, embed, 4)
    marked, rate = run(turns, Known(voices(4, 2), 4, 0.5), 4, overlap=True)
    assert plain.overlaps == [] and rate < 0.05
    ((start, end),) = marked.overlaps
    assert abs(start - 16) < 0.3 and abs(end - 18) < 0.3


def test_the_same_again():
    turns, vectors = conversation(5, 3), voices(5, 3)
    one, two = (run(turns, Known(vectors, 5, 1.0), 5)[0].rttm("a") for _ in range(2))
    assert one == two


def test_memory_does_not_grow_with_the_recording(tmp_path):
    """Six minutes have 35 MB of samples at 24 kHz."""
    peaks = []
    for minutes in (1, 6):
        samples = np.concatenate([sound(conversation(k, 2, seconds=55), k) for k in range(minutes)])
        soundfile.write(tmp_path / "long.wav", samples, RATE, subtype="PCM_16")
        del samples
        embed = Known(voices(1, 2), 1, 0.3)
        tracemalloc.start()
        found = diarize(tmp_path / "long.wav", embed)
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
        assert len(found.speakers) == 2
    assert peaks[1] < peaks[0] + 10, peaks


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (np.zeros(RATE, np.float32), {}, AudioError, "0.0 s of speech in 1.0 s of sound; 0.5 s are needed"),
        (np.zeros(0, np.float32), {}, AudioError, "audio is empty"),
        ("none.wav", {}, AudioError, "none.wav: no such file"),
        (None, {"num_speakers": 0}, InvalidValue, "num_speakers 0 is not 1 or more"),
        (None, {"min_speakers": 3, "max_speakers": 2}, InvalidValue, "max_speakers 2 is less than min_speakers 3"),
        (None, {"num_speakers": 3, "max_speakers": 2}, InvalidValue, "give one or the others"),
        (None, {"threshold": 3}, InvalidValue, "threshold 3 is not between 0 and 2"),
        (None, {"num_speakers": 200}, InvalidValue, "200 speakers cannot be told apart in"),
    ],
)
def test_what_cannot_be_diarized(source, options, error, message):
    samples = sound(conversation(0, 2, seconds=10), 0) if source is None else source
    with pytest.raises(error, match=message):
        diarize(samples, Known(voices(0, 2), 0, 0.1), **options)


def test_embedders_that_are_none():
    samples = sound(conversation(0, 2, seconds=10), 0)
    for embed, error, message in (
        (lambda x: mx.full((x.shape[0], 4), float("nan")), InvalidValue, "the embedder gave values that are NaN"),
        (lambda x: mx.zeros((1, 4)), InvalidValue, r"the embedder gave \[1, 4\] for"),
        (lambda x: [1.0], WrongType, "the embedder gave list for .* windows; expected an mx.array"),
    ):
        with pytest.raises(error, match=message) as raised:
            diarize(samples, embed)
        assert raised.value.param == "embed"


def test_a_result_says_what_it_is_and_is_of_use_to_any_thread():
    with ThreadPoolExecutor(1) as pool:
        found, _ = pool.submit(run, conversation(5, 3), Known(voices(5, 3), 5, 0.5), 5).result()
    assert repr(found) == f"Diarization(3 speakers, {len(found.turns)} turns, {found.duration:.1f} s)"
    assert [np.array(vector).shape for vector in found.speakers.values()] == [(DIMENSION,)] * 3
    for value, name in ((found, "turns"), (found.turns[0], "speaker")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, [])


# The command


@pytest.fixture
def meeting(tmp_path):
    """Two made-up voices in turn, in a file at another rate."""
    import soxr

    samples = sound(conversation(1, 2, seconds=25), 1)
    soundfile.write(tmp_path / "the meeting.wav", soxr.resample(samples, RATE, 16000), 16000)
    return "the meeting.wav"


def test_the_command(command, checkpoint, meeting, tmp_path):
    base = ("diarize", meeting, "--model", checkpoint("base"), "--num-speakers", 2)
    ran = command(*base, "--voices", "found", "--output", "out.rttm", "--json")
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    assert told["output"] == "out.rttm" and list(told["speakers"]) == ["speaker_1", "speaker_2"]
    lines = (tmp_path / "out.rttm").read_text().splitlines()
    pattern = r"SPEAKER the_meeting 1 \d+\.\d{3} \d+\.\d{3} <NA> <NA> speaker_[12] <NA> <NA>"
    assert len(lines) == len(told["turns"]) and all(re.fullmatch(pattern, line) for line in lines)
    for name in told["speakers"]:
        voice = Voice.load(tmp_path / "found" / f"{name}.safetensors")
        assert voice.dimension == 64 and voice.metadata["source_model"] == "base"
        assert voice.metadata["recording"] == "the meeting.wav"
    spoken = ("--embedding", "found/speaker_2.safetensors", "--max-tokens", 4, "--seed", 1, "Hello.")
    assert command("generate", "--model", checkpoint("base"), *spoken).status == 0
    assert command(*base).out.splitlines() == lines  # without an output, on stdout
    assert command(*base, "--output", "out.json", "--overlap").status == 0
    saved = json.loads((tmp_path / "out.json").read_text())
    assert set(saved["turns"][0]) == {"start", "end", "speaker"} and saved["duration"] == told["duration"]


def test_what_the_command_refuses(refused, checkpoint, meeting, tmp_path):
    (tmp_path / "found").mkdir()
    Voice(np.ones(64, np.float32)).save(tmp_path / "found" / "speaker_1.safetensors")
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    model = ("--model", checkpoint("base"))
    for arguments, message in (
        (("none.wav", *model), "none.wav: no such file"),
        (("silence.wav", *model), "0.0 s of speech"),
        ((meeting, *model, "--output", "a.txt"), "extension '.txt' is not one of .rttm .json"),
        ((meeting, *model, "--voices", "found"), "holds speaker_1.safetensors already"),
        ((meeting, *model, "--num-speakers", 0), "num_speakers 0 is not 1 or more"),
        ((meeting, *model, "--threshold", 9), "threshold 9.0 is not between 0 and 2"),
        ((meeting, *model, "--space", "none.safetensors"), "voice space none.safetensors: no such file"),
        ((meeting, "--model", checkpoint("custom-voice")), "no speaker encoder"),
    ):
        assert message in refused("diarize", *arguments)
