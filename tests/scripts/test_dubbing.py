"""Cues dubbed through a stand-in for the model: where each begins and ends, what is stretched, mixed and reported."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from mlx_qwen3tts.audio import long
from mlx_qwen3tts.errors import InvalidValue, OutputError, VoiceNotFound
from mlx_qwen3tts.scripts import dubbing
from mlx_qwen3tts.scripts import manifest as manifests
from mlx_qwen3tts.scripts import render as rendering
from mlx_qwen3tts.scripts.cast import Cast, Part
from mlx_qwen3tts.scripts.cues import Cues
from mlx_qwen3tts.scripts.dubbing import Dubbing
from tests.scripts.standin import RATE, StandIn


class Timed(StandIn):
    """Says "0.5" as a tone of half a second, of 250 Hz from `low` and 1000 Hz from `high`, 0.2 and 0.3 loud, with so
    much silence around it; other texts as of a tenth of a second a letter."""

    def __init__(self, silence=0.0, loud=(0.2, 0.3), **options):
        super().__init__(**options)
        self.silence, self.loud = silence, loud

    def sound(self, request):
        number = re.search(r"\d+\.\d+", request.text)
        seconds = float(number[0]) if number else 0.1 * len(request.text)
        voice = int(np.array(request.voice.embedding)[0])
        time = np.arange(round(RATE * seconds)) / RATE
        tone = self.loud[voice] * np.sin(2 * np.pi * (250, 1000)[voice] * time)
        return np.pad(tone, round(RATE * self.silence)).astype(np.float32)


def clock(seconds):
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02},{milliseconds:03}"


def srt(*cues):
    """SubRip of (start, end, text)."""
    blocks = (f"{i}\n{clock(start)} --> {clock(end)}\n{text}\n" for i, (start, end, text) in enumerate(cues, 1))
    return "\n".join(blocks)


@pytest.fixture
def dub(tmp_path):
    """A function that dubs cues (start, end, text) and returns (Dubbed, samples)."""

    def go(*cues, tts=None, output="dub.wav", max_rate=1.3, read=True, **how):
        tts = Timed() if tts is None else tts
        cast = Cast({"narrator": Part("low"), "HIGH": Part("high")}, tts.voice)
        made = Dubbing(Cues.parse_text(srt(*cues)), cast, max_rate=max_rate, level=None)
        result = made.render(tts, tmp_path / output, **how)
        return result, soundfile.read(tmp_path / output, dtype="float32")[0] if result.output and read else None

    return go


def spans(samples):
    """[(first, end)] of what sounds, in seconds, gaps below 20 ms bridged."""
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    cuts = np.flatnonzero(np.diff(loud) > 0.02 * RATE)
    return [(a / RATE, b / RATE) for a, b in zip(loud[np.append(0, cuts + 1)], loud[np.append(cuts, -1)], strict=True)]


def test_each_begins_at_its_time_and_may_run_into_the_gap(dub):
    result, samples = dub((0.5, 1.0, "0.9"), (1.5, 2.0, "0.4"), (3.0, 5.0, "0.3"))
    assert np.array(spans(samples)) == pytest.approx(np.array([(0.5, 1.4), (1.5, 1.9), (3.0, 3.3)]), abs=0.001)
    assert result.seconds == samples.size / RATE == 5.0  # the last cue's end
    assert [one.speed for one in result.placed] == [1, 1, 1] and not any(one.overflow for one in result.placed)
    assert dub((0.0, 0.5, "0.9"), output="b.wav")[0].seconds == pytest.approx(0.9)  # or of its speech


@pytest.mark.parametrize("silence", [0.0, 0.05, 0.4])
def test_silence_in_front_of_the_speech_does_not_delay_it(dub, silence):
    _, samples = dub((0.0, 1.0, "0.5"), (1.0, 2.0, "1.2"), tts=Timed(silence))
    assert [start for start, _ in spans(samples)] == pytest.approx([0.0, 1.0], abs=0.021)  # found to 20 ms


def test_what_does_not_fit_is_stretched(dub):
    result, samples = dub(
        (0.0, 1.0, "1.1"), (1.0, 2.0, "1.25"), (2.0, 3.0, "2.6"), (4.0, 4.1, "0.5"), (8.0, 9.0, "0.1")
    )
    assert [one.speed for one in result.placed] == pytest.approx([1.1, 1.25, 1.3, 1, 1])
    assert [one.overflow for one in result.placed] == [0, 0, 0, 0, 0]  # the third one has two seconds
    assert [one.end for one in result.placed] == pytest.approx([1.0, 2.0, 4.0, 4.5, 8.1])
    assert np.abs(samples[round(4.6 * RATE) : round(7.9 * RATE)]).max() == 0


def test_what_is_still_too_long_overflows(dub):
    result, samples = dub((0.0, 1.0, "HIGH: 2.6 and some words"), (1.0, 2.0, "0.5"))
    (first, second), text = result.placed, "2.6 and some words"
    assert (first.speed, first.end, first.overflow) == pytest.approx((1.3, 2.0, 1.0))
    assert first.too_long == len(text) // 2 and (second.overflow, second.too_long) == (0, 0)
    assert second.start == 1.0 and np.abs(samples[RATE : RATE + 600]).max() > 0.4  # both are heard
    result, _ = dub((0.0, 1.0, "1.9"), (1.0, 2.0, "0.5"), max_rate=2, output="b.wav")
    assert result.placed[0].speed == pytest.approx(1.9) and not result.placed[0].overflow
    result, _ = dub((0.0, 1.0, "1.1"), (1.0, 2.0, "0.5"), max_rate=1, output="c.wav")
    assert result.placed[0].overflow == pytest.approx(0.1) and result.placed[0].too_long == 1


def test_overlapping_cues_are_mixed(dub):
    cues = ((0.0, 2.0, "1.5"), (1.0, 3.0, "HIGH: 1.5"))
    _, samples = dub(*cues)
    power = np.abs(np.fft.rfft(samples[RATE : round(1.5 * RATE)])) / (RATE / 4)
    assert power[[125, 500]] == pytest.approx([0.2, 0.3], abs=0.01)  # 250 and 1000 Hz of half a second
    _, samples = dub(*cues, tts=Timed(loud=(0.9, 0.6)), output="b.wav")
    assert np.abs(samples).max() <= 0.98 + 1e-3
    power = np.abs(np.fft.rfft(samples[RATE : round(1.5 * RATE)])) / (RATE / 4)
    assert power[[125, 500]] == pytest.approx(np.array([0.9, 0.6]) * 0.98 / 1.5, abs=0.01)
    alone = dub((0.0, 2.0, "1.5"), (2.0, 3.0, "HIGH: 0.5"), tts=Timed(loud=(0.9, 0.6)), output="c.wav")[1]
    assert np.abs(alone[:RATE]).max() == pytest.approx(0.9, abs=1e-3)


def test_several_at_the_same_time_and_one_speaker_at_once(dub):
    result, samples = dub((0.5, 1.5, "0.4"), (0.5, 1.5, "0.5"), (0.5, 1.5, "HIGH: 0.6"), (1.0, 1.4, "0.2"))
    assert [one.start for one in result.placed] == [0.5, 0.5, 0.5, 1.0]
    assert result.placed[0].overflow == pytest.approx(0.4 / 1.3) and result.placed[2].overflow == 0
    assert result.placed[0].too_long == 4 and samples.size == 1.5 * RATE


def test_two_who_speak_in_one_cue(dub):
    result, _ = dub((1.0, 4.0, "HIGH: 0.5.\nLOW: 1.0."), tts=Timed())
    first, second = result.placed[0].rows
    assert (first.name, first.text, second.name, second.text) == ("HIGH", "0.5.", "LOW", "1.0.")
    assert [first.start, first.end, second.start, second.end] == pytest.approx([1.0, 1.5, 1.85, 2.85])
    assert second.end == result.placed[0].end


@pytest.mark.thorough
def test_two_hours_do_not_drift(dub, monkeypatch):
    random, save, begun = np.random.default_rng(1), manifests.Manifest.save, []
    starts = np.cumsum(random.uniform(3.8, 5.8, 1500).round(3))
    lengths = np.where(np.arange(1500) % 100, random.uniform(0.03, 0.08, 1500), random.uniform(5, 8, 1500)).round(2)

    def seldom(self):  # as in test_five_thousand_pieces
        if len(self.pieces) % 500 == 0:
            save(self)

    def write(path, blocks, rate, length, *_):  # a file of two hours takes most of the time
        at = 0
        for block in blocks:
            if block.any():
                begun.extend(at / rate + start for start, _ in spans(block))
            at += block.size
        assert at == length

    monkeypatch.setattr(manifests.Manifest, "save", seldom)
    monkeypatch.setattr(rendering, "write_long", write)
    monkeypatch.setattr(dubbing, "stretched", lambda sound, rate, speed: sound[: round(sound.size / speed)])
    cues = [
        (start, start + 0.5, f"{'HIGH: ' if i % 3 else ''}{length}")
        for i, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    result, _ = dub(*cues, read=False)
    placed = np.array([one.start for one in result.placed])
    assert result.spoken == 1500 and 7000 < result.seconds < 7400 and sum(one.overflow > 0 for one in result.placed) > 5
    assert np.abs(placed - starts).max() < 1e-6
    hidden = [False, *(one.overflow > 0 for one in result.placed[:-1])]  # by one that is still speaking
    heard = np.sort(begun)
    near = [np.abs(heard - start).min() for start, covered in zip(starts, hidden, strict=True) if not covered]
    assert len(near) > 1480 and max(near) < 0.001


def test_a_changed_cue_alone_is_spoken_again_and_a_moved_one_is_not(dub):
    first = [(0.0, 1.0, "0.4"), (1.0, 2.0, "0.5"), (2.0, 3.0, "0.6")]
    tts = Timed()
    dub(*first, tts=tts)
    dub(first[0], (1.25, 2.0, "0.7"), (2.5, 3.0, "0.6"), tts=tts)
    assert tts.said == ["0.4", "0.5", "0.6", "0.7"]
    result, samples = dub(first[0], (1.25, 2.0, "0.7"), (2.5, 3.0, "0.6"), tts=tts, lines="2", again=True)
    assert tts.said[4:] == ["0.7"] and [start for start, _ in spans(samples)] == pytest.approx([0, 1.25, 2.5], abs=1e-3)
    result, samples = dub(first[0], (1.25, 2.0, "0.8"), (2.5, 3.0, "0.9"), tts=tts, lines="2")
    assert (result.missing, result.output, result.placed, samples) == (1, None, [], None)
    with pytest.raises(InvalidValue, match="cues 4: nothing is spoken there; there are 1 to 3"):
        dub(*first, lines="4")


def test_what_was_stopped_goes_on(dub, tmp_path):
    cues = [(float(i), i + 0.5, f"0.{i + 1}") for i in range(8)]

    def fault(text):
        if text == "0.5":
            raise KeyboardInterrupt

    tts = Timed(fault=fault)
    with pytest.raises(KeyboardInterrupt):
        dub(*cues, tts=tts)
    assert not (tmp_path / "dub.wav").exists()
    rest = Timed()
    dub(*cues, tts=rest)
    assert tts.said + rest.said == [cue[2] for cue in cues]
    dub(*cues, output="whole.wav")
    assert (tmp_path / "dub.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    other = manifests.Manifest(tmp_path / "dub.wav", "", RATE)
    with other.held(), pytest.raises(OutputError, match="another process is rendering"):
        dub(*cues)


def test_a_full_disk(dub, tmp_path, monkeypatch):
    cues = [(0.0, 1.0, "0.4"), (1.0, 2.0, "0.5")]
    with monkeypatch.context() as patch:
        patch.setattr(long.FileSink, "write", lambda self, data: setattr(self, "error", OSError(28, "No space left")))
        with pytest.raises(OutputError, match="No space left"):
            dub(*cues)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dub.wav.manifest.json", "dub.wav.pieces"]
    assert len(json.loads((tmp_path / "dub.wav.manifest.json").read_text())["pieces"]) == 2
    tts = Timed()
    assert dub(*cues, tts=tts)[0].kept == 2 and tts.said == []


@pytest.mark.parametrize("silence", [0.0, 0.2])
def test_a_silent_piece_and_long_silence(dub, monkeypatch, silence):
    monkeypatch.setattr(dubbing, "SILENCE", 1000)
    result, samples = dub((0.5, 1.0, "0.0"), (40.0, 41.0, "0.5"), tts=Timed(silence))
    assert (result.placed[0].start, result.placed[0].end, result.placed[0].overflow) == (0.5, 0.5, 0)
    assert len(spans(samples)) == 1 and samples.size == 41 * RATE


def test_what_is_refused(dub, tmp_path):
    with pytest.raises(VoiceNotFound, match=r"cue 2: no voice for 'CARL': put it into voices\.json"):
        dub((0.0, 1.0, "0.5"), (1.0, 2.0, "CARL: 0.5"))
    for rate in (0.9, 2.1, float("nan")):
        with pytest.raises(InvalidValue, match=r"max_rate .* is not between 1 and 2"):
            dub((0.0, 1.0, "0.5"), max_rate=rate)
    with pytest.raises(OutputError, match=r"a dubbing is one file, such as folder\.wav"):
        dub((0.0, 1.0, "0.5"), output="folder")
    assert not list(tmp_path.iterdir())
    late = (99 * 3600.0, 99 * 3600 + 1.0, "0.5")
    with pytest.raises(OutputError, match="more than a WAV can be"):
        dub(late)


def test_levels(tmp_path):
    tts = Timed()
    cast = Cast({"narrator": Part("low"), "HIGH": Part("high")}, tts.voice)
    cues = Cues.parse_text(srt((0.0, 2.0, "2.0"), (2.0, 4.0, "HIGH: 2.0")))
    Dubbing(cues, cast).render(tts, tmp_path / "a.wav")
    samples, _ = soundfile.read(tmp_path / "a.wav")
    peaks = [np.abs(part).max() for part in np.split(samples, 2)]
    assert peaks == pytest.approx([0.16, 0.16], abs=0.05)  # -19 LUFS of a tone


def test_shares_are_quick_with_all_at_once():
    random = np.random.default_rng(0)
    sounds = []
    for start, length, peak in zip(*random.uniform(0.1, 1, (3, 300)), strict=True):
        placed = SimpleNamespace(start=start, end=start + length)
        sounds.append(SimpleNamespace(placed=placed, peak=peak))
    shares = dubbing.shares(sounds)
    for time in np.linspace(0, 2, 400):
        now = [i for i, one in enumerate(sounds) if one.placed.start <= time < one.placed.end]
        assert sum(shares[i] * sounds[i].peak for i in now) <= (0.98 + 1e-9 if len(now) > 1 else 1)
