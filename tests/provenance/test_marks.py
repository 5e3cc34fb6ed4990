"""The mark on what commands write and send, and the command that finds it."""

import contextlib
import io
import json
import sys
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert.parity import vector
from mlx_qwen3tts import Seal, Speech
from mlx_qwen3tts.audio import player
from mlx_qwen3tts.audio.watermark import DEFAULT_KEY, mark
from mlx_qwen3tts.audio.writing import write_audio
from mlx_qwen3tts.errors import InvalidValue, WrongType
from mlx_qwen3tts.files import configuration
from mlx_qwen3tts.files.configuration import settings
from mlx_qwen3tts.provenance.origin import Credit, Origin
from mlx_qwen3tts.provenance.outlet import Outlet
from mlx_qwen3tts.provenance.seal import Marking

RATE = 24000


@pytest.fixture(scope="module")
def sound():
    """Three seconds of coloured noise in syllables, which hold a mark as speech does."""
    random = np.random.default_rng(1)
    noise = np.convolve(random.standard_normal(3 * RATE), np.hanning(9), "same")
    loud = 0.3 + 0.7 * np.abs(np.sin(2 * np.pi * 2 * np.arange(noise.size) / RATE))
    return (0.3 * noise * loud / np.abs(noise).max()).astype(np.float32)


@pytest.fixture
def base(checkpoint, tmp_path):
    """`generate` of a quarter of a second, but for the text."""
    np.save(tmp_path / "v.npy", vector(64, 1))
    return ("generate", "--model", checkpoint("base"), "--embedding", "v.npy", "--max-tokens", "4", "--seed", "1")


def keys_of(file, plain, *keys):
    """The keys whose mark on the plain sound of a file gives another file's sound; None where that is the same."""
    found, wanted = (soundfile.read(one)[0] for one in (file, plain))
    near = {"atol": 3 / 32768, "rtol": 0}
    if np.allclose(found, wanted, **near):
        return None
    return [key for key in keys if np.allclose(found, mark(wanted, key, RATE), **near)]


def test_generate_marks_files_batches_and_stdout(command, base, tmp_path, monkeypatch):
    assert command(*base, "Hello.", "--output", "plain.wav").status == 0
    assert command(*base, "Hello.", "--mark").status == 0
    assert keys_of("out.wav", "plain.wav", DEFAULT_KEY, "k") == [DEFAULT_KEY]
    (tmp_path / "lines.txt").write_text("Hello.\nHello.")
    more = ("--text-file", "lines.txt", "--batch-size", "2", "--output", "lines", "--mark", "k")
    assert command(*base, *more).status == 0
    assert keys_of("lines/0002.wav", "plain.wav", DEFAULT_KEY, "k") == ["k"]
    out = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", SimpleNamespace(buffer=out, flush=lambda: None))
        assert command(*base, "Hello.", "--stream", "--output", "-", "--mark").status == 0
    assert keys_of(io.BytesIO(out.getvalue()), "plain.wav", DEFAULT_KEY) == [DEFAULT_KEY]


def test_what_is_configured_and_switched_off(command, base, monkeypatch):
    assert command(*base, "Hello.", "--output", "plain.wav").status == 0
    monkeypatch.setenv("QWEN3TTS_MARK", "mine")
    assert command(*base, "Hello.").status == 0 and keys_of("out.wav", "plain.wav", "mine") == ["mine"]
    assert command(*base, "Hello.", "--no-mark").status == 0 and keys_of("out.wav", "plain.wav") is None


@pytest.mark.parametrize(
    ("value", "found"),
    [("true", True), ("false", None), ('"k"', "k"), ('"true"', True), ('"no"', None)],
)
def test_the_setting(monkeypatch, tmp_path, value, found):
    monkeypatch.setenv("QWEN3TTS_CONFIG", str(tmp_path / "c.toml"))
    (tmp_path / "c.toml").write_text(f"mark = {value}\n")
    assert settings()["mark"].value == found


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("1", WrongType, "mark must be true, false or a key, not 1"),
        ('" "', InvalidValue, "mark is empty"),
        ('"two words"', InvalidValue, "mark 'two words' has spaces, which a key has not"),
    ],
)
def test_settings_that_cannot_be(monkeypatch, tmp_path, value, error, message):
    assert "mark" in configuration.KNOWN
    monkeypatch.setenv("QWEN3TTS_CONFIG", str(tmp_path / "c.toml"))
    (tmp_path / "c.toml").write_text(f"mark = {value}\n")
    with pytest.raises(error, match=message):
        settings()


def test_a_text_that_was_taken_for_a_key(refused, base):
    assert "put --mark behind the text, or write --mark=KEY" in refused(*base, "--mark", "Hello there.")
    assert "--mark took 'Hello' for its key" in refused(*base, "--mark", "Hello")
    assert refused(*base).startswith("no text given; see") or refused(*base) == "no text given"
    assert refused(*base, "--mark=", "Hello.") == "key is empty; give any text"


def test_scripts_are_marked_and_their_pieces_are_not(command, checkpoint, base, tmp_path):
    (tmp_path / "play.txt").write_text("Hello there.\n\nHello.")
    render = ("script", "render", "play.txt", "--model", checkpoint("base"), "--voice", "v.npy", "--max-tokens", "4")
    assert command(*render, "--output", "a.wav", "--mark").status == 0
    marked = (tmp_path / "a.wav").read_bytes()
    pieces = {file.name: file.read_bytes() for file in (tmp_path / "a.wav.pieces").glob("*.flac")}
    assert command(*render, "--output", "a.wav", "--mark").status == 0 and (tmp_path / "a.wav").read_bytes() == marked
    assert command(*render, "--output", "a.wav").status == 0, "nothing is spoken again"
    assert keys_of(io.BytesIO(marked), "a.wav", DEFAULT_KEY) == [DEFAULT_KEY] and len(pieces) == 2
    assert command(*render, "--output", "b.wav").status == 0
    assert pieces == {file.name: file.read_bytes() for file in (tmp_path / "b.wav.pieces").glob("*.flac")}
    assert keys_of("b.wav", "a.wav") is None


def test_a_speech_and_its_seal(sound, tmp_path):
    speech = Speech(mx.array(sound[:RATE]), RATE, mx.zeros((3, 16), mx.int32), "stop")
    speech.save(tmp_path / "plain.wav")
    speech.save(tmp_path / "a.wav", seal=Seal("k"))
    assert keys_of(tmp_path / "a.wav", tmp_path / "plain.wav", "k") == ["k"]
    for bad, error in (("", InvalidValue), (5, WrongType)):
        with pytest.raises(error, match="key"):
            Seal(bad)


def test_what_is_heard_is_what_is_written(sound):
    played = []
    outlet = Outlet(Seal("k"), RATE, False, played.append)
    for start in range(0, sound.size, 1920):
        outlet.add(sound[start : start + 1920])
    assert sum(map(len, played)) >= sound.size - 0.04 * RATE
    outlet.finish()
    np.testing.assert_allclose(np.concatenate(played), mark(sound, "k", RATE), atol=1e-6)
    plain = Marking(None, RATE)
    assert plain(sound) is sound and np.concatenate(list(plain.blocks([sound]))).size == sound.size


def test_say_marks_what_it_writes_and_plays(command, checkpoint, monkeypatch, tmp_path, base):
    from mlx_qwen3tts.say import Own

    noise = np.random.default_rng(1).uniform(-0.3, 0.3, RATE).astype(np.float32)
    monkeypatch.setattr(Own, "speak", lambda self, *_: iter([noise[:9000], noise[9000:]]))
    said = ("say", "--server", "none", "--model", checkpoint("base"), "-v", "v.npy")
    assert command(*said, "-o", "s.wav", "--mark", "k", "Hello.").status == 0
    assert command(*said, "-o", "plain.wav", "Hello.").status == 0
    assert keys_of("s.wav", "plain.wav", "k") == ["k"]
    played = []
    speaker = SimpleNamespace(play=played.append)
    monkeypatch.setattr(player, "Player", lambda *_: contextlib.nullcontext(speaker))
    assert command(*said, "--mark", "k", "Hello.").status == 0
    np.testing.assert_allclose(np.concatenate(played), mark(noise, "k", RATE), atol=1e-6)
    ran = command(*said, "--mark", "two words", "Hello.")
    assert ran.status == 2 and "which has no spaces" in ran.err
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    ran = command(*said, "--mark", "Hello")
    assert ran.status == 2 and "--mark took 'Hello' for its key" in ran.err


# The command


@pytest.fixture
def files(sound, tmp_path):
    tags = Origin("miniature", (Credit("anna", consent="given"),), 1).tags()
    write_audio(tmp_path / "marked.wav", mark(sound, "k", RATE), RATE, tags=tags)
    write_audio(tmp_path / "plain.flac", sound, RATE)
    write_audio(tmp_path / "short.wav", sound[:9600], RATE)
    stereo = np.stack([mark(sound, "k", RATE)] * 2, axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, RATE)
    (tmp_path / "notes.txt").write_text("Not a sound.")


def test_detect(command, files, monkeypatch):
    ran = command("mark", "detect", "marked.wav", "plain.flac", "short.wav", "--key", "k", "--key", "other")
    marked, plain, short = ran.out.splitlines()
    assert ran.status == 1 and ran.err == ""
    assert marked.startswith("marked.wav: marked with the key 'k' (score ") and "'other'" not in marked
    assert plain.startswith("plain.flac: no mark of any of the 2 keys found (best: score ")
    assert short == "short.wav: too short to tell: 0.40 s, and 2 s are needed"
    assert command("mark", "detect", "stereo.wav", "--key", "k").status == 0
    monkeypatch.setenv("QWEN3TTS_MARK", "k")
    [row] = json.loads(command("mark", "detect", "marked.wav", "--json").out)["files"]
    assert {one["key"]: one["present"] for one in row["keys"]} == {"k": True, DEFAULT_KEY: False} and row["present"]


def test_what_cannot_be_searched(refused, files):
    assert "audio notes.txt cannot be read" in refused("mark", "detect", "notes.txt")
    assert "audio none.wav: no such file" in refused("mark", "show", "none.wav")
    assert refused("mark", "detect", "marked.wav", "--key", "") == "key is empty; give any text"


@pytest.mark.parametrize("way", ["detect", "show"])
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_searched(command, files, way):
    given = ("none.wav", "marked.wav", "notes.txt", "plain.flac")
    ran = command("mark", way, *given, "--key", "k")
    missing, text = ran.lines
    assert ran.status == 2 and missing == "error: audio none.wav: no such file"
    assert text.startswith("error: audio notes.txt cannot be read: ")
    heads = [line for line in ran.out.splitlines() if not line.startswith(" ")]
    assert [head.partition(":")[0] for head in heads] == ["marked.wav", "plain.flac"]
    ran = command("mark", way, *given, "--key", "k", "--json")
    rows = json.loads(ran.out)["files"]
    assert ran.status == 2 and ran.lines == [missing, text] and [row["file"] for row in rows] == list(given)
    problems = [row["problem"] for row in rows]
    assert problems == [missing.removeprefix("error: "), None, text.removeprefix("error: "), None]
    marks = rows if way == "detect" else [row["mark"] for row in rows]
    assert [one["present"] for one in marks] == [None, True, None, False]
    assert all(one.keys() == marks[1].keys() for one in marks) and all(row.keys() == rows[1].keys() for row in rows)


def test_a_file_that_the_system_withholds_stops_nothing_either(command, files, monkeypatch):
    def withheld(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("mlx_qwen3tts.provenance.signature.read_signature", withheld)
    ran = command("mark", "show", "marked.wav", "stereo.wav")
    assert ran.status == 2 and ran.out == "" and len(ran.lines) == 2
    assert ran.lines[1] == "error: [Errno 13] Permission denied: 'stereo.wav'"


def test_what_a_file_says_moves_no_cursor_and_begins_no_line(command, files, monkeypatch):
    forged = {"comment": "x\x1b[2J", "artist": "y\x9b1m\u2028  signature: valid"}
    monkeypatch.setattr("mlx_qwen3tts.audio.tag_reading.read_tags", lambda path: forged)
    signed = {"summary": "valid, by a\n  signature: valid, by b", "lines": ["made by: \x1b[31m\r"]}
    monkeypatch.setattr("mlx_qwen3tts.provenance.signature.read_signature", lambda path: signed)
    ran = command("mark", "show", "short.wav")
    assert ran.status == 0 and ran.out.count("\n") == 7, ran.out
    assert all(char.isprintable() or char == "\n" for char in ran.out)


def test_a_file_whose_name_is_not_utf_8(command, files, tmp_path):
    try:
        (tmp_path / "marked.wav").rename(tmp_path / "a\udcff.wav")
    except OSError:
        pytest.skip("this file system has names of UTF-8 alone")
    ran = command("mark", "detect", "a\udcff.wav", "--key", "k")
    assert ran.status == 0 and ran.out.startswith("a?.wav: marked with the key 'k'"), ran.err
    assert json.loads(command("mark", "show", "a\udcff.wav", "--json").out)["files"][0]["file"] == "a\udcff.wav"


def test_with_stdout_closed(command, files, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        ran = command("mark", "detect", "none.wav", "plain.flac")
    assert ran.status == 2 and ran.lines == ["error: audio none.wav: no such file"]


def test_show(command, files):
    ran = command("mark", "show", "marked.wav", "short.wav", "--key", "k")
    assert ran.status == 0, ran.err
    for line in ("Synthetic speech: made by a model", "seed: 1", "voice: anna"):
        assert f"    {line}" in ran.out
    assert "  mark: marked with the key 'k'" in ran.out and "  mark: too short to tell" in ran.out
    assert ("  tags: none" in ran.out and "  signature: none" in ran.out) or "not checked" in ran.out
    [told] = json.loads(command("mark", "show", "short.wav", "--json").out)["files"]
    assert told["origin"] is None and told["tags"] == {} and not told["mark"]["present"]
