"""What candidates are made and judged by: listening, the texts that are spoken, the text that was not."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.tuning import vector as fitting
from mlx_qwen3tts.tuning.data import Clip
from mlx_qwen3tts.tuning.judge import MOST, Judge, other_text, within
from mlx_qwen3tts.tuning.lessons import Form
from mlx_qwen3tts.tuning.takes import Take

ASSET = Path(__file__).parents[1] / "assets" / "unheard.jsonl"
FORM = Form("streaming", "english")


def take(text, seconds=2.0, codes=None):
    codes = mx.zeros((1, 8), mx.int32) if codes is None else codes
    return Take(Clip(Path("a.wav"), text, "a"), codes, mx.zeros(2), seconds, None)


def listening(monkeypatch, heard, rounds, clips=3):
    """(the listened vector, the texts of each round) where a voice v is heard as `heard(v, turn)` and 0 is the goal."""
    said = []

    class Heard:
        def __init__(self, tts, spoken, takes, form, seed):
            pass

        def say(self, spoken):
            said.append([one.clip.text for one in spoken[:MOST]])

        def lacking(self, vector, turn, progress):
            return -heard(vector, turn)

    monkeypatch.setattr(fitting, "Judge", Heard)
    takes = SimpleNamespace(train=[take(str(i)) for i in range(clips)], all=[])
    fit = SimpleNamespace(best_step=10)
    options = SimpleNamespace(form=FORM, seed=0, listen=rounds)
    own = SimpleNamespace(
        tts=None, takes=takes, fit=fit, options=options, start=mx.array([3.0, 1.0]), best=mx.array([1.0, 1.0])
    )
    return fitting.VectorFit.listened(own).tolist(), said


def test_listening_averages_its_rounds(monkeypatch):
    """From the nearer of the two vectors; the noise of the rounds is averaged, and not what the last one says."""
    noise = {1: mx.array([4.0, 0.0]), 2: mx.array([-4.0, 0.0]), 3: mx.array([0.0, 8.0])}
    found, _ = listening(monkeypatch, lambda vector, turn: vector, 3)
    assert found == pytest.approx([0.25, 0.25])  # the mean of the fitted [1, 1] and three times the goal
    found, _ = listening(monkeypatch, lambda vector, turn: vector + noise[turn], 3)
    assert found == pytest.approx([0.25, -1.75])  # two cancel each other, the third counts a quarter
    far = mx.array([1.0, 1.0])
    found, _ = listening(monkeypatch, lambda vector, turn: vector * (5 if bool((vector == far).all()) else 1), 1)
    assert found == pytest.approx([1.5, 0.5])  # where the fitted one is heard further off: from the x-vector


def test_rounds_speak_other_clips_where_there_are_more(monkeypatch):
    _, said = listening(monkeypatch, lambda vector, turn: vector, 3, clips=20)
    assert [texts[0] for texts in said] == ["0", "8", "16"] and said[2][4:6] == ["0", "1"]
    _, said = listening(monkeypatch, lambda vector, turn: vector, 2, clips=MOST)
    assert said[0] == said[1]


def test_what_is_spoken_and_heard():
    takes = [take("a", 30.0), take("b", 20.0), take("c", 20.0), take("d", 5.0)]
    assert within(takes, 60.0) == takes[:2] and within(takes, 1.0) == takes[:1] and within(takes, 80.0) == takes
    judge = Judge(None, takes, takes, FORM, 0)  # pyright: ignore[reportArgumentType]
    assert judge.spoken == takes[:2] and judge.times == 4 and judge.takes == takes


def test_a_text_that_is_not_spoken():
    takes = [take("Good night."), take("Good night."), take("Good morning."), take("Today is monday.")]
    assert other_text(takes[0], takes) == "Good morning." and other_text(takes[0], takes[:2]) is None


def test_clarity_falls_where_other_words_are_spoken():
    """Speech of other sentences is foreseen no better under the texts it should have said."""
    miniature = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    rows = [json.loads(line) for line in ASSET.read_text().splitlines()][:2]
    takes = [take(row["text"], codes=mx.array(np.array(row["audio_codes"], np.int32))) for row in rows]
    vector = miniature.embed((np.array(miniature.codec.decode(takes[0].codes)), 24000))
    judge = Judge(miniature, takes, takes, FORM, 0)
    speeches = [SimpleNamespace(codes=one.codes) for one in takes]
    right = judge.clarity(speeches, vector)
    wrong = judge.clarity(speeches[1:] + speeches[:1], vector)
    assert right > 0.05 and wrong < 0.5 * right
    alone = [takes[0], replace(takes[0])]
    assert Judge(miniature, alone, alone, FORM, 0).clarity(speeches[:1], vector) is None
