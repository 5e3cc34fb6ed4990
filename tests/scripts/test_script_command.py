"""`mlx_qwen3tts.script` from end to end, with the miniature and with what is refused."""

import json

import pytest
import soundfile

from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.synthesis import watch

VOICES = hub.SHIPPED["miniature"] / "voices"
MODEL = ("--model", "miniature", "--dtype", "float32")
PLAY = "# One two\n\nANNA: Hello.\n\nthen: five.\n\nBEN: [rate: 1.5] Hello."


@pytest.fixture
def files(tmp_path):
    (tmp_path / "play.txt").write_text(PLAY)
    cast = {"narrator": str(VOICES / "voice01.safetensors"), "ANNA": str(VOICES / "voice02.safetensors")}
    (tmp_path / "voices.json").write_text(json.dumps({**cast, "BEN": {"voice": cast["narrator"], "rate": 0.9}}))


def test_render_and_check(command, tmp_path, files):
    ran = command("script", "check", "play.txt", "--voices", "voices.json", "--json")
    told = json.loads(ran.out)
    assert (ran.status, told["lines"], told["pieces"]) == (0, 4, 4) and [one["line"] for one in told["doubts"]] == [5]
    assert [(row["name"], row["pieces"]) for row in told["cast"]] == [("narrator", 2), ("ANNA", 1), ("BEN", 1)]
    ran = command("script", "check", "play.txt", "--voices", "voices.json")
    assert "4 lines in 4 pieces, some 0:04\nline 5: 'then' before a colon is spoken" in ran.out

    render = ("script", "render", "play.txt", "--voices", "voices.json", *MODEL, "--json")
    ran = command(*render, "--output", "play.wav")
    told = json.loads(ran.out)
    assert ran.status == 0 and (told["spoken"], told["missing"], told["cut"]) == (4, 0, [])
    assert told["chapters"] == [{"title": "One two", "start": 0.0}]
    assert soundfile.info("play.wav").duration == pytest.approx(told["seconds"], abs=0.001)
    whole = (tmp_path / "play.wav").read_bytes()
    (tmp_path / "play.wav").unlink()
    assert json.loads(command(*render, "--output", "play.wav").out)["spoken"] == 0
    assert (tmp_path / "play.wav").read_bytes() == whole

    # Alone, each is what it is in the batch.
    assert json.loads(command(*render, "--output", "other.wav", "--batch-size", "1").out)["spoken"] == 4
    assert (tmp_path / "other.wav").read_bytes() == whole

    ran = command(*render, "--output", "cut.wav", "--lines", "3", "--max-tokens", "3")
    assert json.loads(ran.out)["cut"] == [3] and "pieces not spoken yet: 3" in ran.err


def test_a_line_that_fails_the_guard(command, tmp_path, files, monkeypatch):
    monkeypatch.setattr(watch, "LETTERS", 0.01)  # no speech has that many frames
    render = ("script", "render", "play.txt", "--voices", "voices.json", *MODEL, "--lines", "3", "--json")
    ran = command(*render, "--output", "a.wav")
    assert ran.status == 3 and json.loads(ran.out)["failed"] == [{"line": 3, "failed": "too_short"}]
    assert (
        "warning: line 3 failed the guard three times (it is too short for its text) and is kept so; --lines 3"
        in ran.err
    )
    checks = json.loads((tmp_path / "a.wav.manifest.json").read_text())["pieces"][0]["checks"]
    first = checks["attempts"][0]["seed"]
    assert [one["seed"] for one in checks["attempts"]] == [first, first + 1, first + 2]
    ran = command(*render, "--output", "b.wav", "--seed", "0")
    assert ran.status == 0 and json.loads(ran.out)["failed"] == []


def test_ctrl_c(command, files, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Qwen3TTS, "generate_each", stopped)
    render = ("script", "render", "play.txt", "--voices", "voices.json", "--model", "miniature", "--output", "a.wav")
    ran = command(*render)
    assert ran.status == 130 and "interrupted: what was spoken is kept; the same command goes on" in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--voices", "voices.json", "--output", "play.aiff"), "extension '.aiff'"),
        (("--voices", "voices.json", "--output", "a.wav", "--level", "-19", "--no-level"), "contradict"),
        (("--voices", "voices.json", "--voice", "x", "--output", "a.wav"), "name two voices"),
        (("--voices", "none.json", "--output", "a.wav"), "none.json: No such file"),
        (("--output", "a.wav", "--model", "miniature"), "line 1: nobody is named"),
        (("--voices", "voices.json", "--output", "a.wav", "--again", "--model", "miniature"), "give lines too"),
        (("--voices", "voices.json", "--output", "a.wav", "--lines", "99", "--model", "miniature"), "lines 99"),
    ],
)
def test_what_is_refused(refused, files, options, message):
    assert message in refused("script", "render", "play.txt", *options)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("Hello.\n\n[instruct: softly] Hello.", (), "line 3: this model takes no instruction"),
        ("Hello.", ("--language", "Klingon"), "line 1: language 'Klingon' is not one of auto, english"),
    ],
)
def test_what_the_model_cannot_do_is_found_before_it_speaks(refused, tmp_path, text, options, message):
    (tmp_path / "play.txt").write_text(text)
    voice = ("--voice", str(VOICES / "voice01.safetensors"), "--model", "miniature")
    assert refused("script", "render", "play.txt", *voice, *options, "--output", "a.wav").startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["play.txt"]


def test_an_unknown_name(refused, tmp_path):
    (tmp_path / "play.txt").write_text("Hello.\n\nCARL: Hello.")
    message = refused("script", "render", "play.txt", "--voice", "nobody", "--model", "miniature", "--output", "a.wav")
    assert message.startswith("line 1: voice 'nobody' is not a file")
    voice = VOICES / "voice01.safetensors"
    message = refused("script", "check", "play.txt", "--voice", voice)
    assert message.startswith("line 3: no voice for 'CARL': put it into voices.json")
