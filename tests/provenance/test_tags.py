"""Tags: what every written file says of itself, that other programs read it, and that the sound stays as it is."""

import io
import json
import sys
import wave
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile

from convert.parity import vector
from mlx_qwen3tts import Library, Voice
from mlx_qwen3tts.audio.encoding import CONTENT_TYPES, encoded, encoder
from mlx_qwen3tts.audio.long import Chapter, write_long
from mlx_qwen3tts.audio.reading import read_audio
from mlx_qwen3tts.audio.tag_reading import read_tags
from mlx_qwen3tts.audio.tags import Tags
from mlx_qwen3tts.audio.upload import read_upload
from mlx_qwen3tts.audio.writing import audio_bytes, write_audio
from mlx_qwen3tts.provenance.origin import SOURCE, SYNTHETIC, Credit, Origin, read_comment
from mlx_qwen3tts.voices.lookup import Lookup, fingerprint

RATE = 24000
TAGS = Tags("Synthetic speech: überall.\nvoice: 安娜\nseed: 1", "mlx_qwen3tts 9.9", "CC-BY-4.0")
LONG = Tags("x" * 5000 + "\n" + "é" * 5001, "mlx_qwen3tts 9.9")
FILES = ("wav", "flac", "mp3", "ogg")


@pytest.fixture(scope="module")
def sound():
    time = np.arange(RATE) / RATE
    return (0.3 * np.sin(2 * np.pi * 200 * time) * np.sin(2 * np.pi * 3 * time)).astype(np.float32)


def decoded(data):
    """The samples of a file, and its tags as PyAV tells them, in lower case."""
    with av.open(io.BytesIO(data)) as file:
        told = {name.lower(): value for one in (file, file.streams.audio[0]) for name, value in one.metadata.items()}
        parts = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
    return np.concatenate(parts) if parts else np.zeros(0), told


def ours(path_or_bytes, tmp_path):
    """The tags as this package reads them."""
    if isinstance(path_or_bytes, bytes):
        (tmp_path / "read").write_bytes(path_or_bytes)
        path_or_bytes = tmp_path / "read"
    return read_tags(path_or_bytes)


# Formats


@pytest.mark.parametrize("tags", [TAGS, LONG], ids=["short", "long"])
@pytest.mark.parametrize("kind", [*FILES, "m4b"])
def test_a_file_has_them_and_sounds_as_without(sound, tmp_path, kind, tags):
    chapters = (Chapter("One", 0), Chapter("Two", 12000)) if kind == "m4b" else ()
    ways = [lambda path, **more: write_long(path, [sound[:7000], sound[7000:]], RATE, sound.size, chapters, **more)]
    if kind != "m4b":
        ways.append(lambda path, **more: write_audio(path, sound, RATE, **more))
    for way in ways:
        plain, tagged = tmp_path / f"plain.{kind}", tmp_path / f"tagged.{kind}"
        way(plain)
        way(tagged, tags=tags)
        (one, _), (other, told) = decoded(plain.read_bytes()), decoded(tagged.read_bytes())
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(read_audio(tagged, RATE), read_audio(plain, RATE))
        found = read_tags(tagged)
        assert told["comment"] == found["comment"] == tags.comment
        assert found["software"].startswith(tags.software)
        if tags.license:
            assert tags.license in (found.get("license"), found.get("copyright"))
        if kind == "m4b":
            with av.open(str(tagged)) as file:
                assert [one["metadata"]["title"] for one in file.chapters()] == ["One", "Two"]
        first = tagged.read_bytes()
        way(tagged, tags=tags)
        assert tagged.read_bytes() == first or kind == "ogg"  # whose streams have a number drawn by chance


@pytest.mark.parametrize("kind", CONTENT_TYPES)
def test_a_stream_has_them_in_front(sound, tmp_path, kind):
    made, plain = encoder(kind, RATE, TAGS), encoder(kind, RATE)
    pieces = [made.add(sound[start : start + 1920]) for start in range(0, sound.size, 1920)] + [made.finish()]
    bare = b"".join([plain.add(sound), plain.finish()])
    stream, whole = b"".join(pieces), encoded(kind, sound, RATE, TAGS)
    if kind == "pcm":
        assert stream == whole == bare
        return
    first = next(piece for piece in pieces if piece)
    assert ours(first, tmp_path)["comment"] == TAGS.comment, "with the first bytes"
    for data in (stream, whole):
        _, told = decoded(data)
        assert told["comment"] == ours(data, tmp_path)["comment"] == TAGS.comment
        assert ours(data, tmp_path)["software"].startswith(TAGS.software)
    np.testing.assert_allclose(decoded(stream)[0], decoded(bare)[0], atol=1e-6)
    again = whole if kind == "flac" else stream  # libsndfile reads no FLAC whose length is not known
    assert read_upload(again, RATE, 60).size == pytest.approx(sound.size, abs=4000)
    (tmp_path / f"a.{kind}").write_bytes(again)
    assert read_audio(tmp_path / f"a.{kind}", RATE).size == pytest.approx(sound.size, abs=4000)


def test_a_wav_has_them_before_its_samples(sound):
    data = audio_bytes(sound, RATE, "WAV", TAGS)
    assert data.index(b"LIST") < data.index(b"data") and data.endswith(audio_bytes(sound, RATE, "RAW"))
    assert len(data) == int.from_bytes(data[4:8], "little") + 8
    assert soundfile.info(io.BytesIO(data)).frames == sound.size


def test_the_head_of_a_streamed_wav_is_short(sound, tmp_path):
    """Clients read it out of the first 2,048 bytes."""
    told = Tags("\n".join(["Synthetic", "a: 1", f"recipe: {'é' * 900}", "b: 2"]), "mlx_qwen3tts 9.9", "CC-BY-4.0")
    first = encoder("wav", RATE, told).add(sound[:1920])
    with wave.open(io.BytesIO(first[:2048])) as file:
        assert file.getframerate() == RATE
    assert ours(first, tmp_path)["comment"] == "Synthetic\na: 1\nb: 2" and told.within(5000) == told
    assert Tags("x" * 90 + "\ny", "s").within(10).comment == "x" * 90


@pytest.mark.parametrize("kind", [*FILES, "m4b"])
def test_what_is_damaged_is_passed_over(sound, tmp_path, kind):
    write_long(tmp_path / f"a.{kind}", [sound], RATE, sound.size, tags=TAGS)
    data = (tmp_path / f"a.{kind}").read_bytes()
    random = np.random.default_rng(1)
    for number in range(150):
        broken = bytearray(data[: random.integers(1, 1500)] if number % 2 else data)
        for place in random.integers(0, min(len(broken), 700), 3):
            broken[place] = random.integers(0, 256)
        assert isinstance(ours(bytes(broken), tmp_path), dict)
    assert ours(b"not a sound", tmp_path) == {}


def test_tags_of_other_programs(sound, tmp_path):
    """ID3v2.3 in UTF-16, and fields that are not ours."""
    text = "é".encode("utf-16")
    frame = b"TIT2" + (len(text) + 1).to_bytes(4, "big") + b"\0\0\1" + text
    comment = b"COMM" + (13).to_bytes(4, "big") + b"\0\0\0" + b"engabc\0hello"
    tag = b"ID3\3\0\0" + bytes([0, 0, 0, len(frame + comment)]) + frame + comment
    found = ours(tag + audio_bytes(sound, RATE, "MP3"), tmp_path)
    assert found == {"title": "é", "abc": "hello"}


# What they say


def test_what_is_said_of_a_blend():
    anna = Voice(vector(64, 1), consent="given", license="CC-BY-4.0", name="anna")
    ben = Voice(vector(64, 2), consent="given", license="CC-BY-NC-4.0", name="ben")
    lookup = Lookup(preset=lambda name: {"anna": anna, "ben": ben}.get(name))
    blend = lookup.voice("anna*0.7 + ben*0.3")
    tags = Origin.of("miniature", [(blend, None)], 5, "Secret words.").tags()
    told = read_comment(tags.comment)
    assert tags.comment.startswith(SYNTHETIC) and told["source"] == SOURCE and "Secret" not in tags.comment
    assert (told["model"], told["seed"]) == ("miniature", 5)
    [voice] = told["voices"]
    assert voice["voice"] == "0.7*anna + 0.3*ben" and voice["fingerprint"] == fingerprint(blend.embedding)
    assert (voice["consent"], voice["license"], tags.license) == ("given", "CC-BY-NC-4.0", "CC-BY-NC-4.0")
    assert [one["fingerprint"] for one in voice["recipe"]["parents"]] == [
        fingerprint(one.embedding) for one in (anna, ben)
    ]
    asked = Origin.of("miniature", [(blend, None)], 5, "Secret\nwords.").tags(text=True)
    assert read_comment(asked.comment)["text"] == "Secret words."


def test_what_nobody_needs_to_know_is_left_out():
    deep = {"expression": "'/home/me/a.npy' + b", "parents": [{"name": "/home/me/a.npy", "weight": 1}, {"name": "b"}]}
    voice = Voice(vector(64, 1), recipe=deep, name="x")
    comment = Origin.of("m", [(voice, None)]).tags().comment
    assert "/home" not in comment and read_comment(comment)["voices"][0]["voice"] == "'a' + b"
    long = {"expression": "e" * 5000, "parents": [{"name": "p", "recipe": {"expression": "q" * 9000}}]}
    [told] = read_comment(Origin.of("m", [(Voice(vector(64, 1), recipe=long), None)]).tags().comment)["voices"]
    assert len(told["voice"]) == 1000 and "recipe" not in told
    shorter = {"expression": "e", "parents": [{"name": "p", "recipe": {"expression": "q" * 9000}}]}
    [told] = read_comment(Origin.of("m", [(Voice(vector(64, 1), recipe=shorter), None)]).tags().comment)["voices"]
    assert told["recipe"] == {"expression": "e", "parents": [{"name": "p"}]}


def test_what_could_end_a_line_or_a_field_does_not():
    voice = Voice(vector(64, 1), name="a\nconsent: given\0\u2028b", license="x\ud800\r\ny")
    [told] = read_comment(Origin.of("m\nseed: 9", [(voice, None)]).tags().comment)["voices"]
    assert told["voice"] == "a consent: given b" and told["license"] == "x? y" and "consent" not in told


def test_many_voices_each_once():
    voices = [Voice(vector(64, number), name=f"v{number}") for number in range(120)]
    origin = Origin.of("m", [(voice, None) for voice in [*voices, *voices]])
    assert len(origin.voices) == 120
    assert len(read_comment(origin.tags().comment)["voices"]) == 100 and "voices: 20 more" in origin.tags().comment
    assert read_comment("A song.") is None and read_comment("") is None


def test_a_designed_voice_and_what_travels():
    origin = Origin.of("m", [(None, "A warm voice."), (None, "A warm voice."), (None, "A cold one.")], 1, "Hi.")
    assert [one.voice for one in origin.voices] == ["designed by the model"] * 2
    assert json.loads(origin.voices[0].recipe) == {"prompt": "A warm voice."}
    assert Origin.from_dict(json.loads(json.dumps(origin.as_dict()))) == origin
    heard = Origin.from_header(origin.header())
    assert heard.text is None and heard.voices == origin.voices and origin.header().isascii()
    wordy = Origin("m", (Credit("a", recipe="r" * 3000),))
    assert Origin.from_header(wordy.header()).voices == (Credit("a"),)
    assert Origin("m", (Credit("a" * 3000),)).header() is None
    for line in (None, "", "no", "[1]", '{"model": 1, "voices": [{"x": 1}]}', "[" * 10000):
        assert Origin.from_header(line) is None


# Who writes them


@pytest.fixture
def anna(tmp_path):
    library = Library(tmp_path / "voices")
    library.add("anna", Voice(vector(64, 1)), consent="given", license="CC-BY-4.0")
    return ("--library", library.folder, "--voice", "anna")


def said(file, tmp_path, **voice):
    told = read_comment(ours(file, tmp_path)["comment"])
    assert told["software"].startswith("mlx_qwen3tts ") and "Hello" not in str(told) and "text" not in told
    assert told["voices"][0]["voice"] == voice.get("voice", "anna")
    assert (told["voices"][0]["consent"], told["voices"][0]["license"]) == ("given", "CC-BY-4.0")
    return told


def test_generate_in_all_its_ways(command, checkpoint, anna, tmp_path, monkeypatch):
    base = ("generate", "--model", checkpoint("base"), *anna, "--max-tokens", "4", "--seed", "7")
    for kind in FILES:
        assert command(*base, "Hello.", "--output", f"a.{kind}").status == 0
        told = said(tmp_path / f"a.{kind}", tmp_path)
        assert told["seed"] == 7 and told["model"] == checkpoint("base").name
    first = (tmp_path / "a.wav").read_bytes()
    assert command(*base, "Hello.", "--output", "a.wav").status == 0 and (tmp_path / "a.wav").read_bytes() == first
    for more in ((), ("--stream",)):
        out = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", SimpleNamespace(buffer=out, flush=lambda: None))
            assert command(*base, "Hello.", *more, "--output", "-").status == 0
        assert said(out.getvalue(), tmp_path)["seed"] == 7
    (tmp_path / "lines.txt").write_text("Hello.\nHello.")
    assert command(*base, "--text-file", "lines.txt", "--batch-size", "2", "--output", "lines").status == 0
    assert said(tmp_path / "lines" / "0002.wav", tmp_path)["seed"] == 7


def test_the_text_where_it_is_asked_for(command, refused, checkpoint, anna, tmp_path, monkeypatch):
    base = ("generate", "--model", checkpoint("base"), *anna, "--max-tokens", "4", "--seed", "7", "--tag-text")
    assert command(*base, "Hello there.").status == 0
    assert read_comment(read_tags(tmp_path / "out.wav")["comment"])["text"] == "Hello there."
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"Hello from there.")))
    assert command(*base, "--text-file", "-").status == 0
    assert read_comment(read_tags(tmp_path / "out.wav")["comment"])["text"] == "Hello from there."
    assert "--tag-text needs the whole text" in refused(*base, "--text-file", "-", "--stream", "--output", "-")


def test_script_dub_and_say(command, checkpoint, anna, tmp_path):
    model, short = ("--model", checkpoint("base")), ("--max-tokens", "4", "--seed", "7", "--greedy")
    (tmp_path / "play.txt").write_text("# Hello\n\nHello there.\n\n[voice: anna*0.5 + anna*0.5] Hello.")
    (tmp_path / "film.srt").write_text("1\n00:00:00,100 --> 00:00:01,000\nHello.\n")
    for output in ("a.wav", "a.m4b", "lines"):
        assert command("script", "render", "play.txt", *model, *anna, *short, "--output", output).status == 0
        told = said(tmp_path / output / "0003.wav" if output == "lines" else tmp_path / output, tmp_path)
        assert told["seed"] == 7 and len(told["voices"]) == (1 if output == "lines" else 2)
    piece = next((tmp_path / "a.wav.pieces").glob("*.flac"))
    assert read_comment(read_tags(piece)["comment"])["voices"][0]["consent"] == "given"
    assert command("dub", "film.srt", *model, *anna, *short, "--output", "film.mp3", "--tag-text").status == 0
    assert read_comment(read_tags(tmp_path / "film.mp3")["comment"])["text"] == "Hello."
    ends = ("--model", checkpoint("base-ends"))  # `say` knows no --max-tokens
    assert command("say", "--server", "none", *ends, *anna, "--seed", "7", "-o", "s.flac", "Hello.").status == 0
    assert said(tmp_path / "s.flac", tmp_path)["seed"] == 7
