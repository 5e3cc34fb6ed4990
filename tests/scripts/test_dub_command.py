"""`mlx_qwen3tts.dub` from end to end: with the miniature, from a recording of two, and with what is refused."""

import functools
import json
import shutil
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.speaker import SpeakerEncoder
from mlx_qwen3tts.diarization import Turn
from mlx_qwen3tts.dub import warn
from mlx_qwen3tts.errors import InvalidValue
from mlx_qwen3tts.scripts import original
from mlx_qwen3tts.scripts.cues import Cue, Cues
from mlx_qwen3tts.scripts.original import Original, cleanest, read_original
from mlx_qwen3tts.synthesis.watch import CHECKS, Attempt

VOICES = hub.SHIPPED["miniature"] / "voices"
RECORDINGS = hub.SHIPPED["miniature"] / "recordings"
FILM = """1
00:00:00,500 --> 00:00:00,700
ANNA: Hello.

2
00:00:01,000 --> 00:00:01,500
<i>One, two, three</i>.

3
00:00:02,000 --> 00:00:08,000
[music]
"""
TWO = """1
00:00:00,100 --> 00:00:00,900
Hello!

2
00:00:06,500 --> 00:00:08,000
BEN: This is my voice.

3
00:00:12,600 --> 00:00:13,500
This is my voice.

4
00:00:30,000 --> 00:00:31,000
Welcome.
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "film.srt").write_text(FILM)
    cast = {"narrator": str(VOICES / "voice01.safetensors"), "ANNA": str(VOICES / "voice02.safetensors")}
    (tmp_path / "voices.json").write_text(json.dumps(cast))


MODEL = ("--model", "miniature", "--dtype", "float32")
DUB = ("dub", "film.srt", "--voices", "voices.json", *MODEL, "--json")


@pytest.fixture(autouse=True, scope="module")
def loaded_once():
    """The model is loaded by the first command alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Qwen3TTS, "from_pretrained", functools.cache(Qwen3TTS.from_pretrained))
        yield


def test_a_film(command, tmp_path, files):
    ran = command(*DUB, "--output", "film.wav", "--subtitles", "spoken.srt", "--max-rate", "2")
    told = json.loads(ran.out)
    assert ran.status == 0 and (told["spoken"], told["missing"], told["seconds"], told["subtitles"]) == (
        2,
        0,
        8.0,
        "spoken.srt",
    )
    assert soundfile.info("film.wav").duration == 8.0
    first, second = told["cues"]
    assert (first["cue"], first["names"], first["start"], second["start"]) == (1, ["ANNA"], 0.5, 1.0)
    assert first["rate"] > 1 and second["overflow"] == 0 and told["doubts"][0]["cue"] == 3
    assert "warning: cue 3: [music] is not spoken" in ran.err
    assert [(cue.name, cue.text) for cue in Cues.parse("spoken.srt").lines] == [
        ("ANNA", "Hello."),
        (None, "One, two, three."),
    ]
    whole = (tmp_path / "film.wav").read_bytes()
    ran = command(*DUB, "--output", "film.wav", "--max-rate", "2")
    assert json.loads(ran.out)["spoken"] == 0 and (tmp_path / "film.wav").read_bytes() == whole
    # A cue that is moved is not spoken again, so the first one can be given what fits at 1.2 times the rate.
    wanted = f"{0.5 + 0.5 * first['rate'] / 1.2:06.3f} -".replace(".", ",")
    (tmp_path / "film.srt").write_text(FILM.replace("01,000 -", wanted))
    ran = command(*DUB, "--output", "film.wav")
    assert "warning: cue 1: spoken 1.20 times as fast to fit\n" in ran.err and "too long" not in ran.err
    ran = command(*DUB, "--output", "film.wav", "--cues", "1", "--again", "--max-rate", "1.0")
    assert json.loads(ran.out)["spoken"] == 1
    assert "warning: cue 1: " in ran.err and "too long at 1.00 times the speed; characters to cut: " in ran.err


@pytest.fixture
def two(tmp_path):
    """A recording of two speakers, 0.5 to 6.2 s and 6.7 to 12 s and again from 12.5 s on, and cues for it."""
    sounds = [soundfile.read(RECORDINGS / f"{name}.flac", dtype="float32")[0] for name in ("low", "high", "low")]
    silence = np.zeros(12000, np.float32)
    soundfile.write(tmp_path / "two.wav", np.concatenate([part for one in sounds for part in (silence, one)]), 24000)
    (tmp_path / "two.srt").write_text(TWO)


FROM = ("dub", "two.srt", "--from-audio", "two.wav", *MODEL, "--json", "--output", "two.flac")


def nearness(encoder, place, voices):
    """Cosines of a piece's sound with voices, about their mean."""
    x = np.array(encoder.network.embed(mx.array(soundfile.read(place, dtype="float32")[0])))
    mean = sum(voices) / len(voices)
    return [float((x - mean) @ (v - mean) / np.linalg.norm(x - mean) / np.linalg.norm(v - mean)) for v in voices]


@pytest.mark.thorough
def test_the_cast_of_a_recording(command, two, tmp_path, monkeypatch):
    ran = command(*FROM, "--consent", "given", "--license", "CC-BY-4.0")
    told = json.loads(ran.out)
    assert ran.status == 0, ran.err
    speakers = ["speaker_1", "speaker_2", "speaker_1", "speaker_1"]
    assert [cue["names"] for cue in told["cues"]] == [[name] for name in speakers]
    assert "2 speakers kept in two.flac.voices/voices.json" in ran.err
    doubts = [(one["cue"], one["doubt"]) for one in told["doubts"]]
    assert doubts[0] == (2, "'BEN' is not spoken: it is taken for a name, and speaker_2 speaks then")
    assert doubts[1][0] == 4 and "nobody speaks then; spoken by speaker_1, 11." in doubts[1][1]

    # The vectors are those of the speakers, and each piece is nearer to its own.
    encoder = SpeakerEncoder.from_pretrained("miniature")
    truth = [np.array(encoder.encode(RECORDINGS / f"{name}.flac")) for name in ("low", "high")]
    found = [Voice.load(tmp_path / "two.flac.voices" / f"speaker_{i}.safetensors") for i in (1, 2)]
    for voice, other in zip(found, truth, strict=True):
        assert np.linalg.norm(np.array(voice.embedding) - other) < 0.3 * np.linalg.norm(truth[0] - truth[1])
        assert (voice.consent, voice.license, voice.other["recording"]) == ("given", "CC-BY-4.0", "two.wav")
    rows = json.loads((tmp_path / "two.flac.manifest.json").read_text())["pieces"]
    for row, name in zip(rows, speakers, strict=True):
        cosines = nearness(encoder, tmp_path / row["file"], truth)
        assert (cosines[0] > cosines[1]) == (name == "speaker_1"), (row["text"], cosines)

    # It is not diarized again, and what is edited counts.
    monkeypatch.setattr(original, "diarize", lambda *_, **__: pytest.fail("diarized again"))
    cast = tmp_path / "two.flac.voices" / "voices.json"
    cast.write_text(json.dumps({**json.loads(cast.read_text()), "speaker_1": str(VOICES / "voice03.safetensors")}))
    (tmp_path / "two.srt").write_text(TWO.partition("3\n")[0])
    (tmp_path / "voices.json").write_text(json.dumps({"Ben": str(VOICES / "voice04.safetensors")}))
    ran = command(*FROM, "--voices", "voices.json")
    told = json.loads(ran.out)
    assert (told["spoken"], [cue["names"] for cue in told["cues"]], told["doubts"]) == (2, [["speaker_1"], ["BEN"]], [])
    assert "2 speakers read from two.flac.voices/voices.json" in ran.err

    def again(**how):
        return read_original("two.wav", tmp_path / "two.flac.voices", "miniature", **how)

    assert not again(consent="refused").made  # which can be entered later
    assert Voice.load(tmp_path / "two.flac.voices" / "speaker_1.safetensors").consent == "refused"
    with pytest.raises(InvalidValue, match=r"was made with another --num-speakers; remove .*voices to hear"):
        again(num_speakers=3)
    shutil.copy(RECORDINGS / "low.flac", "two.wav")
    with pytest.raises(InvalidValue, match="is of another recording"):
        again()
    for text in ('{"turns": [{}]}', "no", '{"sha256": "", "num_speakers": null, "turns": [3]}'):
        (tmp_path / "two.flac.voices" / "turns.json").write_text(text)
        with pytest.raises(InvalidValue, match="is damaged"):
            again()


def test_who_speaks_during_a_cue():
    turns = (Turn(0.0, 2.0, "a"), Turn(1.5, 4.0, "b"), Turn(5.0, 5.5, "a"), Turn(5.6, 6.0, "a"))
    heard = Original(turns, VOICES, True)

    def at(start, end):
        return heard.speaker(Cue(1, None, (), start=start, end=end))

    assert at(0.5, 2.2) == ("a", 0.0) and at(1.0, 3.5) == ("b", 0.0) and at(3.2, 6.0) == ("a", 0.0)
    assert at(1.0, 1.0) == ("a", 0.0) and at(4.1, 4.3) == ("b", pytest.approx(0.1)) and at(9, 9.5) == ("a", 3.0)


def test_the_cleanest_of_a_voice():
    level = np.full(6000, -60.0)
    level[1000:2000] = -40  # noise around the second turn
    for first, end, loud in ((100, 900, -20), (1100, 1900, -20), (2500, 3500, -22), (4000, 4600, -20)):
        level[first:end] = loud
    turns = [Turn(1.0, 9.0, "a"), Turn(11.0, 19.0, "a"), Turn(25.0, 35.0, "a"), Turn(40.0, 46.0, "a"),
             Turn(42.0, 46.0, "b")]  # fmt: skip
    found = np.array(cleanest("a", turns, level)) / 24000
    assert found == pytest.approx(np.array([(1.15, 8.85), (40.15, 42.0), (25.15, 30.6)]))


def test_values_that_cannot_be(tmp_path):
    for how, message in (({"consent": "perhaps"}, "consent"), ({"num_speakers": 0}, "num_speakers")):
        with pytest.raises(InvalidValue, match=message):
            read_original(RECORDINGS / "low.flac", tmp_path / "x", "miniature", **how)
    assert not list(tmp_path.iterdir())


def test_ctrl_c(command, files, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Qwen3TTS, "generate_each", stopped)
    ran = command(*DUB, "--output", "film.wav")
    assert ran.status == 130 and "interrupted: what was spoken is kept; the same command goes on" in ran.err


def test_what_failed_the_guard(command, files, monkeypatch):
    def failing(self, requests, done, *, batch_size, numbers):
        for number, _ in zip(numbers, requests, strict=True):
            failed = next(iter(CHECKS)) if number == 1 else None
            sound = np.full(2400, 0.1, np.float32)
            done(
                number,
                SimpleNamespace(
                    audio=sound,
                    finish_reason="stop",
                    attempts=[Attempt(1, 2, failed, "stop")],
                    failed=failed,
                    origin=None,
                ),
            )

    monkeypatch.setattr(Qwen3TTS, "generate_each", failing)
    ran = command(*DUB, "--output", "film.wav")
    told = json.loads(ran.out)
    assert ran.status == 3 and told["output"] == "film.wav" and [one["cue"] for one in told["failed"]] == [2]
    assert "warning: cue 2: failed the guard three times" in ran.err and "--cues 2 --again varies it" in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "film.aiff"), "extension '.aiff'"),
        (("--output", "film"), "a dubbing is one file, such as film.wav"),
        (("--output", "film.srt"), "extension '.srt'"),
        (("--output", "a.wav", "--subtitles", "a.txt"), "subtitles a.txt: extension '.txt' is not one of .srt"),
        (("--output", "a.wav", "--subtitles", "film.srt"), "is the input film.srt as well"),
        (("--output", "a.wav", "--subtitles", "no/a.srt"), "does not exist"),
        (("--output", "a.wav", "--max-rate", "3"), "max_rate 3.0 is not between 1 and 2"),
        (("--output", "a.wav", "--level", "-19", "--no-level"), "contradict"),
        (("--output", "a.wav", "--encoding", "x"), "encoding 'x' is not one that Python knows"),
        (("--output", "a.wav", "--consent", "given"), "--consent belongs to --from-audio"),
        (("--output", "a.wav", "--num-speakers", "2"), "--num-speakers belongs to --from-audio"),
        (("--output", "a.wav", "--from-audio", "none.wav"), "none.wav: no such file"),
        (("--output", "a.wav", "--from-audio", "none.wav", "--voice", "x"), "both say who speaks"),
        (("--output", "a.wav", "--cues", "9"), "cues 9: nothing is spoken there; there are 1 to 2"),
        (("--output", "a.wav", "--again"), "again varies single lines"),
    ],
)
def test_what_is_refused(refused, files, options, message):
    voices = () if "--voice" in options else ("--voices", "voices.json")
    assert message in refused("dub", "film.srt", *voices, *MODEL, *options)


def test_cues_that_are_refused(refused, tmp_path, files):
    (tmp_path / "film.srt").write_text(FILM.replace("<i>One", "CARL: One"))
    message = refused("dub", "film.srt", "--voices", "voices.json", *MODEL, "--output", "a.wav")
    assert message.startswith("cue 2: no voice for 'CARL': put it into voices.json")
    (tmp_path / "film.srt").write_text(FILM)
    (tmp_path / "voices.json").write_text(json.dumps({"ANNA": str(VOICES / "voice02.safetensors")}))
    message = refused("dub", "film.srt", "--voices", "voices.json", *MODEL, "--output", "a.wav")
    assert message.startswith("cue 2: nobody is named who speaks")
    (tmp_path / "film.srt").write_bytes(FILM.replace("Hello", "Größe").encode("cp1252"))
    assert "not utf-8" in refused("dub", "film.srt", "--voice", "x", "--output", "a.wav")


def test_many_warnings_are_shortened(capsys):
    warn((number, "is not spoken") for number in range(1, 31))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: cue 1: is not spoken" and len(lines) == 21
    assert lines[-1] == "warning: 10 more of these; --json lists all"
