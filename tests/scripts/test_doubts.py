"""What `script check` doubts in a script, and what it expects it to cost."""

import json
import re
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.vocabulary import Vocabulary
from mlx_qwen3tts.scripts import cost
from mlx_qwen3tts.scripts.cast import Cast, Part, read_cast
from mlx_qwen3tts.scripts.doubts import doubtful
from mlx_qwen3tts.scripts.render import Timeline
from mlx_qwen3tts.scripts.script import Script
from mlx_qwen3tts.scripts.timeline import lay_out
from mlx_qwen3tts.synthesis.request import Request
from tests.scripts.standin import StandIn, timeline

CAST = ("--voices", "voices.json")
VOICES = hub.SHIPPED["miniature"] / "voices"


def doubts(text, language="auto", parts=None, **how):
    script = Script.parse_text(text)
    cast = Cast(parts or {"narrator": Part("low"), "ANNABEL": Part("high")}, lambda name: None)
    pieces = lay_out(script, cast, language=language)
    return doubtful(script, cast, pieces, language, **how)


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("He left [laughs] {softly} at once.", "'[laughs]', '{softly}' is read out"),
        ("He *sighs* and <b>goes</b>.", "'*sighs*', '<b>', '</b>' is read out"),
        ("Born in 1999, at 3.50 or 50%.", "'1999', '3.50', '50%': digits may be read in another language"),
        ("See https://example.org/a1 for more.", "'https://example.org/a1' is an address"),
        ("Good ☺ morning.", "'☺' has no sound"),
        ("ANABEL: Hello.", "'ANABEL' is not 'annabel' of the cast, but the voice of that name"),
        ("then: five.", "'then' before a colon is spoken: it does not look like a name"),
        (("word " * 200).strip() + ".", "a sentence of 1000 characters is cut between words"),
        ("مرحبا.", "'م' is written in Arabic, and the model speaks no such language"),
        ("ANNABEL:", "ANNABEL says nothing"),
    ],
)
def test_a_line_is_doubted(text, doubt):
    found = doubts(f"{text}\n\nA line like any other (with brackets), “quoted”.\n")
    assert len(found) == 1 and found[0][0] == 1 and doubt in found[0][1], found


def test_what_is_meant_is_not_doubted():
    text = "# One\n\nANNABEL: Hello! [pause: 1s] And you?\n\nПривет. 你好。こんにちは。안녕. Ça va, Müller? 5½"
    assert [number for number, _ in doubts(text)] == [5]  # the digit alone
    assert doubts(text, normalized=True) == []


def test_words_languages_and_pieces():
    known = Vocabulary(("hello", "you"), ".,")
    [one] = doubts("Hello, dear you.", unknown=known.unknown)
    assert one == (1, "'dear': the model was not taught this word")
    assert doubts("Bonjour.", "fr", languages=["English"]) == [(1, "the model does not speak French")]
    assert doubts("Привет.", languages=["English"])[0][1].startswith("'П' is written in Cyrillic")
    long = doubts("我" * 400 + "。")
    assert long == [(1, "a sentence of 401 characters is cut between words")]


def test_a_book_whose_names_the_cast_lacks(tmp_path):
    from tests.scripts.test_parsing import book

    path = book(tmp_path / "a.epub")
    assert zipfile.is_zipfile(path)
    assert [doubt for _, doubt in Script.parse(path).doubts] == [
        "'ANNA' before a colon is spoken: the cast has no such name"
    ]
    assert Script.parse(path, ["anna"]).doubts == ()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "play.txt").write_text("Hello, world.\n\nANNA: One two three.\n\nThe moon is white.")
    cast = {"narrator": str(VOICES / "voice01.safetensors"), "ANNA": str(VOICES / "voice02.safetensors")}
    (tmp_path / "voices.json").write_text(json.dumps(cast))


def test_the_cost_is_measured_now(command, files, monkeypatch):
    monkeypatch.setattr(cost, "FRAMES", 12)
    ran = command("script", "check", "play.txt", *CAST, "--calibrate", "--model", "miniature", "--dtype", "float32")
    told = re.search(r"3 lines in 3 pieces, some 0:0\d\nto compute: 0:\d\d, ([\d.]+) s for a second of sound", ran.out)
    assert float(told[1]) > 0.01 and "(measured now)" in ran.out


def test_the_cost_is_known_from_an_earlier_rendering(command, files, tmp_path):
    check = ("script", "check", "play.txt", *CAST)
    assert json.loads(command(*check, "--json").out)["computing"] is None
    tts = StandIn()
    tts.voice = lambda name: SimpleNamespace(embedding=np.ones(4), ref_codes=None, ref_text=None)
    parts = read_cast("voices.json")
    Timeline(Script.parse("play.txt", parts), Cast(parts, tts.voice)).render(tts, "play.wav", model="m x", lines="1,3")
    pace = cost.measured(tmp_path / "play.wav.pieces", "m")
    told = json.loads(command(*check, "--output", "play.wav", "--json").out)
    assert (told["pieces"], told["left"]) == (3, 1)
    assert told["computing"] == {
        "seconds": round(pace.rtf * 18 / 15, 1),
        "rtf": round(pace.rtf, 3),
        "measured": "measured when play.wav was rendered",
    }
    assert "2 pieces are spoken already\nto compute: " in command(*check, "--output", "play.wav").out
    assert cost.measured(tmp_path / "play.wav.pieces", "another") is None
    (tmp_path / "play.wav.pieces" / cost.FILE).write_text("{")
    assert json.loads(command(*check, "--output", "play.wav", "--json").out)["computing"] is None


def test_runs_of_one_model_are_counted_together(tmp_path):
    timeline("LOW: One.", StandIn()).render(StandIn(), tmp_path / "a.wav", model="m")
    first = cost.measured(tmp_path / "a.wav.pieces")
    timeline("LOW: One.\n\nLOW: Two.", StandIn()).render(StandIn(), tmp_path / "a.wav", model="m")
    both = cost.measured(tmp_path / "a.wav.pieces", "m")
    assert both.sound > first.sound and both.computing > first.computing > 0
    timeline("LOW: One.", StandIn()).render(StandIn(), tmp_path / "a.wav", model="other")
    assert cost.measured(tmp_path / "a.wav.pieces").sound < both.sound


def test_a_calibration_warms_up_and_takes_a_few():
    tts = StandIn()
    requests = [Request(f"Number {i}.", tts.voice("low"), seed=i) for i in range(40)]
    pace = cost.calibrate(tts, requests, 8)
    assert tts.said == ["Number 0.", *(f"Number {i}." for i in range(0, 40, 5))]
    assert 0.8 < pace.sound < 1.3 and pace.rtf > 0
