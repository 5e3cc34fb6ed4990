"""The configuration: what is in force and whence, what is refused, and that commands heed it."""

import json
import os

import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Library
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.cli import dispatch, usual_voice
from mlx_qwen3tts.errors import InvalidValue, WrongType
from mlx_qwen3tts.files import configuration
from mlx_qwen3tts.files.configuration import Setting, settings
from mlx_qwen3tts.generate import build_parser
from mlx_qwen3tts.scripts import cost
from mlx_qwen3tts.serve import build_parser as serve_parser
from mlx_qwen3tts.serve import settings as serve_settings


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes the configuration file; nothing of it is in the environment."""
    for name in configuration.KNOWN:
        monkeypatch.delenv(configuration.variable(name), raising=False)
    monkeypatch.setenv("QWEN3TTS_CONFIG", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def write(text):
        file = tmp_path / "mlx_qwen3tts.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(file)

    return write


def test_the_environment_stands_above_the_file_and_options_above_both(write, monkeypatch):
    assert {one.source for one in settings().values()} == {"default"}  # there is no file
    file = write('model = "here"\nlibrary = "~/shelf"\nformat = "flac"\n')
    monkeypatch.setenv("QWEN3TTS_MODEL", "there")
    found = settings()
    assert found["model"] == Setting("there", "QWEN3TTS_MODEL")
    assert found["library"] == Setting(os.path.expanduser("~/shelf"), file)
    assert found["voice"] == Setting(None, "default")
    options = build_parser().parse_args(["Hi.", "--library", "mine"])
    assert (options.model, options.library) == ("there", "mine")
    assert serve_parser().parse_args([]).default_format == "flac"
    monkeypatch.delenv("QWEN3TTS_MODEL")
    assert build_parser().parse_args(["Hi."]).model == "here"
    os.remove(file)
    assert build_parser().parse_args(["Hi."]).model == "mlx_model"


def test_the_usual_voice_belongs_to_the_configured_model(write):
    write('model = "here"\nvoice = "anna"\n')
    assert usual_voice("here") == "anna" and usual_voice("another") is None
    assert usual_voice(None) == "anna"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = 5\n", "model must be a string, not 5"),
        ('model = ""\n', "model is empty"),
        ('modle = "x"\n', "no setting 'modle'; did you mean model?"),
        ("[other]\nx = 1\n", "no setting 'other'; settings are model"),
        ('format = "ogg"\n', "format"),
        ("model = \n", "is not TOML: .*line 1"),
        (b"\xff\xfe", "is not UTF-8"),
        ("#" * (configuration.LARGEST + 1), "too many for a configuration"),
    ],
)
def test_a_broken_file_is_named_with_the_way_out(write, text, message, command):
    file = write(text)
    with pytest.raises((InvalidValue, WrongType), match=message) as refused:
        settings()
    assert file in str(refused.value)
    ran = command("generate", "Hi.")
    assert ran.status == 2 and len(ran.lines) == 1 and ran.lines[0].startswith(f"error: {file}")
    assert command("generate", "--help").status == 0  # help comes all the same


def test_a_file_that_is_named_must_be_there(write, monkeypatch, tmp_path):
    monkeypatch.setenv("QWEN3TTS_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(InvalidValue, match=r"none\.toml, which QWEN3TTS_CONFIG names"):
        settings()


def test_what_is_in_force_is_shown(write, command):
    file = write('voice = "anna"\n')
    ran = command("info", "--config")
    assert f"voice    anna  ({file})" in ran.out and "model    mlx_model  (default)" in ran.out
    shown = json.loads(command("info", "--config", "--json").out.splitlines()[-1])
    assert shown["voice"] == {"value": "anna", "source": file}
    assert command("info", "--config", "miniature").status == 2
    write('model = "another"\n')
    assert command("info", "miniature").status == 0  # the configured model is not one that was asked for


def test_a_user_who_has_configured_types_the_text_alone(write, command, tmp_path):
    shelf = Library(tmp_path / "shelf")
    shelf.add("low", vector(192, 1), consent="not-needed")
    write(f'model = "miniature"\nlibrary = "{shelf.folder}"\nvoice = "low"\nformat = "flac"\n')
    ran = command("generate", "two", "--seed", "1", "--max-tokens", "3")
    assert ran.status == 0 and (tmp_path / "out.flac").is_file(), ran.err


def test_the_configured_voice_narrates_where_nobody_else_does(write, command, tmp_path, monkeypatch):
    shelf = Library(tmp_path / "shelf")
    for seed, name in enumerate(("low", "high")):
        shelf.add(name, vector(192, seed), consent="not-needed")
    write(f'model = "miniature"\nlibrary = "{shelf.folder}"\nvoice = "low"\n')
    (tmp_path / "play.txt").write_text("Hello.\n")
    (tmp_path / "film.srt").write_text("1\n00:00:00,500 --> 00:00:03,000\nHello.\n")
    (tmp_path / "cast.json").write_text('{"Narrator": "high"}')

    def narrator(*more):
        ran = command("script", "check", "play.txt", *more, "--json")
        return json.loads(ran.out)["cast"][0]["voice"] if ran.status == 0 else ran.lines[0]

    assert [narrator(), narrator("--voice", "high"), narrator("--voices", "cast.json")] == ["low", "high", "high"]
    assert narrator("--model", "miniature") == "low"
    another = ("--model", str(miniature_elsewhere(tmp_path)))
    assert "nobody is named who speaks" in narrator(*another)
    short = ("--max-tokens", "3", "--seed", "1", "--dtype", "float32")
    for ran in (
        command("script", "render", "play.txt", "--output", "play.wav", *short),
        command("dub", "film.srt", "--output", "film.wav", *short),
    ):
        assert ran.status == 0, ran.err
    for name in ("play", "film"):
        [piece] = json.loads((tmp_path / f"{name}.wav.manifest.json").read_text())["pieces"]
        assert piece["voice"] == "low"
    assert "nobody is named" in command("dub", "film.srt", "--output", "other.wav", *another).err
    monkeypatch.setattr(cost, "FRAMES", 5)
    told = json.loads(command("script", "check", "play.txt", "--calibrate", "--dtype", "float32", "--json").out)
    assert told["computing"]["measured"] == "measured now", "with the configured model"


def test_a_server_passes_over_a_configured_voice_that_is_a_file(write, command, tmp_path, capfd, monkeypatch):
    np.save(tmp_path / "my voice.npy", vector(192, 1))
    monkeypatch.chdir(tmp_path)
    for voice in (str(tmp_path / "my voice.npy"), "my voice.npy"):
        file = write(f'model = "miniature"\nvoice = "{voice}"\n')
        assert serve_settings(serve_parser().parse_args([])).voice is None
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"{file}: voice '{voice}' is a file") and f"`voices add NAME '{voice}'`" in line
        assert usual_voice("miniature") == voice, "every other command takes it"
        with pytest.raises(InvalidValue, match="is a file, and a server takes names alone"):
            serve_settings(serve_parser().parse_args(["--voice", voice]))
    (tmp_path / "anna").write_text("")  # a file, but no voice
    write('model = "miniature"\nvoice = "anna"\n')
    assert serve_settings(serve_parser().parse_args([])).voice == "anna"
    assert serve_settings(serve_parser().parse_args(["--model", "other"])).voice is None
    assert capfd.readouterr().err == ""


def miniature_elsewhere(folder):
    """The same model under a name that is not configured."""
    (folder / "another").symlink_to(hub.SHIPPED["miniature"])
    return folder / "another"


def test_a_broken_file_is_named_where_nothing_but_the_name_is_typed(write, capfd):
    file = write("modle = 1\n")
    with pytest.raises(SystemExit) as stopped:
        dispatch([])
    told = capfd.readouterr()
    assert stopped.value.code == 2 and told.out == "" and told.err.startswith(f"error: {file}: no setting 'modle'")


def test_a_recording_is_heard_by_the_configured_model(write, command, tmp_path):
    write(f'model = "miniature"\nlibrary = "{tmp_path / "shelf"}"\n')
    recording = sorted((hub.SHIPPED["miniature"] / "recordings").glob("*.flac"))[0]
    ran = command("voices", "add", "heard", recording, "--consent", "not-needed")
    assert ran.status == 0 and Library(tmp_path / "shelf")["heard"].dimension == 192, ran.err
