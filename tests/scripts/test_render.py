"""Scripts rendered through a stand-in for the model: what is spoken when, what is kept, and what the files hold."""

import errno
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mlx_qwen3tts.audio import level, long
from mlx_qwen3tts.errors import AudioError, InvalidValue, MissingExtra, OutputError, VoiceNotFound
from mlx_qwen3tts.scripts import cost
from mlx_qwen3tts.scripts import manifest as manifests
from tests.scripts.standin import RATE, StandIn, timeline

ROOT = Path(__file__).parents[2]
TEXT = "# One\n\nThe first. [pause: 1s] The second.\n\nHIGH: The third.\n\n# Two\n\nLOW: The fourth."


@pytest.fixture
def speak(tmp_path):
    """A function that renders a text and returns (Rendered, what was said)."""

    def go(text=TEXT, output="play.wav", seconds=0.1, fault=None, how=None, failing=None, **options):
        tts = StandIn(seconds=seconds, fault=fault, failing=failing)
        return timeline(text, tts, **(how or {})).render(tts, tmp_path / output, **options), tts.said

    return go


def read_manifest(folder, output="play.wav"):
    return json.loads((folder / f"{output}.manifest.json").read_text())


def test_what_is_spoken_is_kept(speak, tmp_path):
    result, said = speak()
    assert said == ["One", "The first.", "The second.", "The third.", "Two", "The fourth."]
    assert (result.spoken, result.kept, result.missing, result.cut) == (6, 0, 0, [])
    first = (tmp_path / "play.wav").read_bytes()
    assert soundfile.info(tmp_path / "play.wav").frames == round(result.seconds * RATE)
    assert speak()[1] == [] and (tmp_path / "play.wav").read_bytes() == first
    pieces = read_manifest(tmp_path)["pieces"]
    assert [piece["text"] for piece in pieces] == said and [piece["line"] for piece in pieces] == [1, 3, 3, 5, 7, 9]
    for piece in pieces:
        assert soundfile.info(tmp_path / piece["file"]).frames == piece["samples"]
    assert result.seconds == pytest.approx(sum(piece["seconds"] for piece in pieces) + 1 + 1 + 0.6 + 1.6 + 1, abs=0.01)


def test_a_changed_line_alone_is_spoken_again(speak, tmp_path):
    speak()
    assert speak(TEXT.replace("third", "other").replace("# One", "# One\n\n\n"))[1] == ["The other."]
    assert speak(f"LOW: New.\n\n{TEXT}")[1] == ["New.", "The third."]  # it was forgotten with the change
    assert len(list((tmp_path / "play.wav.pieces").glob("*.flac"))) == 7
    assert len(speak(how={"seed": 1})[1]) == 6  # all other draws
    assert len(speak(how={"seed": 1}, model="another")[1]) == 6


def test_a_piece_that_is_lost_or_cut_short_is_spoken_again(speak, tmp_path):
    speak()
    whole = (tmp_path / "play.wav").read_bytes()
    first, second, *_ = (tmp_path / piece["file"] for piece in read_manifest(tmp_path)["pieces"])
    first.unlink()
    second.write_bytes(second.read_bytes()[:-10])
    assert speak()[1] == ["One", "The first."] and (tmp_path / "play.wav").read_bytes() == whole


def test_single_lines(speak, tmp_path):
    result, said = speak(lines="3,7-9")
    assert said == ["The first.", "The second.", "Two", "The fourth."]
    assert (result.output, result.missing) == (None, 2) and not (tmp_path / "play.wav").exists()
    assert speak()[1] == ["One", "The third."]
    first = (tmp_path / "play.wav").read_bytes()
    assert speak(lines="9", again=True)[1] == ["The fourth."]
    second = (tmp_path / "play.wav").read_bytes()
    assert second != first and speak()[1] == [] and (tmp_path / "play.wav").read_bytes() == second
    assert speak(lines="9", again=True)[1] == ["The fourth."]
    assert {piece["text"]: piece["take"] for piece in read_manifest(tmp_path)["pieces"]}["The fourth."] == 2
    for lines, message in (
        ("20", "nothing is spoken there"),
        ("2-x", "is not a selection"),
        ("2", "nothing is spoken"),
    ):
        with pytest.raises(InvalidValue, match=message):
            speak(lines=lines)
    with pytest.raises(InvalidValue, match="again varies single lines"):
        speak(again=True)


def test_a_variation_that_was_stopped_goes_on(speak):
    def fault(text):
        if text == "The second.":
            raise KeyboardInterrupt

    speak()
    with pytest.raises(KeyboardInterrupt):
        speak(lines="3", again=True, fault=fault)
    assert speak(lines="3", again=True)[1] == ["The second."]


def test_a_piece_that_fails_the_guard_is_marked_and_the_rest_goes_on(speak, tmp_path):
    failing = {"The second.": "too_long", "The fourth.": "silence_inside"}
    result, said = speak(failing=failing)
    assert len(said) == 6 and result.output and result.failed == [(3, "too_long"), (9, "silence_inside")]
    pieces = {piece["text"]: piece for piece in read_manifest(tmp_path)["pieces"]}
    second = pieces["The second."]
    seeds = [(second["seed"] + number) % 2**32 for number in range(3)]
    assert second["checks"]["failed"] == "too_long"
    assert second["checks"]["attempts"] == [{"seed": seed, "failed": "too_long"} for seed in seeds]
    third = pieces["The third."]
    assert third["checks"]["failed"] is None
    assert third["checks"]["attempts"] == [{"seed": third["seed"], "failed": None}]
    again, said = speak(failing=failing)
    assert said == [] and again.failed == result.failed  # it is known, and would fail again
    varied, said = speak(lines="9", again=True)
    assert said == ["The fourth."] and varied.failed == [(3, "too_long")]
    assert speak(how={"guard": False}, failing=failing, output="other.wav")[0].failed == []
    assert "failed" not in read_manifest(tmp_path, "other.wav")["pieces"][0]["checks"]


def test_an_unknown_name_stops_before_anything(speak, tmp_path):
    with pytest.raises(VoiceNotFound, match="line 3: no voice for 'CARL'"):
        speak("LOW: Yes.\n\nCARL: No.")
    assert not list(tmp_path.iterdir())
    speak("LOW: Yes.\n\nHIGH: No.")
    before = (tmp_path / "play.wav.manifest.json").read_bytes()
    with pytest.raises(VoiceNotFound, match="line 3"):  # a voice that has vanished between runs
        speak("LOW: Yes.\n\nGONE: No.")
    assert (tmp_path / "play.wav.manifest.json").read_bytes() == before


def test_a_folder_of_lines(speak, tmp_path):
    speak(output="lines")
    assert [path.name for path in sorted((tmp_path / "lines").iterdir())] == [
        f"{number:04d}.wav" for number in (1, 3, 5, 7, 9)
    ]
    second = [piece["seconds"] for piece in read_manifest(tmp_path, "lines")["pieces"]][1:3]
    assert soundfile.info(tmp_path / "lines" / "0003.wav").duration == pytest.approx(sum(second) + 1, abs=0.001)


def test_levels(speak, tmp_path):
    text = "LOW: One.\n\nHIGH: Two.\n\nLOW: Three."
    speak(text, output="lines", seconds=1)
    for name in ("0001", "0003", "0005"):
        samples, _ = soundfile.read(tmp_path / "lines" / f"{name}.wav")
        assert level.loudness(samples, RATE) == pytest.approx(-19, abs=1)  # the voice as a whole has -19 exactly
    speak(text, output="lines", seconds=1, how={"level": None})
    peaks = [np.abs(soundfile.read(tmp_path / "lines" / f"{name}.wav")[0]).max() for name in ("0001", "0003")]
    assert peaks == pytest.approx([0.05, 0.25], abs=0.001)
    speak(text, output="lines", seconds=1, how={"level": 0.0})  # louder than a peak can be
    samples, _ = soundfile.read(tmp_path / "lines" / "0003.wav")
    assert np.abs(samples).max() == pytest.approx(level.HIGHEST, abs=0.001)
    assert level.loudness(np.zeros(4800), RATE) is None and level.loudness(np.zeros(0), RATE) is None
    assert level.together([(-20.0, 1.0), (-20.0, 3.0)]) == pytest.approx(-20) and level.together([]) is None


@pytest.mark.parametrize("name", ["play.flac", "play.mp3", "play.ogg", "play.m4b"])
def test_formats(speak, tmp_path, name):
    result, _ = speak(output=name)
    if name.endswith(".m4b"):
        av = pytest.importorskip("av")
        with av.open(str(tmp_path / name)) as file:
            chapters = [(one["metadata"]["title"], float(one["start"] * one["time_base"])) for one in file.chapters()]
            samples = sum(frame.samples for frame in file.decode(audio=0))
        assert [title for title, _ in chapters] == ["One", "Two"]
        assert [start for _, start in chapters] == pytest.approx([start for _, start in result.chapters], abs=0.002)
        assert result.seconds <= samples / RATE < result.seconds + 0.2
    else:
        assert soundfile.info(tmp_path / name).duration == pytest.approx(result.seconds, abs=0.1)


def test_a_book_without_headings(speak, tmp_path):
    av = pytest.importorskip("av")
    assert speak("LOW: One.", output="a.m4b")[0].chapters == []
    with av.open(str(tmp_path / "a.m4b")) as file:
        assert not file.chapters()
    first = (tmp_path / "a.m4b").read_bytes()
    assert speak("LOW: One.", output="a.m4b")[1] == [] and (tmp_path / "a.m4b").read_bytes() == first


def test_what_precedes_the_first_heading_is_a_chapter(speak):
    assert [title for title, _ in speak(f"LOW: Before.\n\n{TEXT}", output="a.m4b")[0].chapters] == [
        "Beginning",
        "One",
        "Two",
    ]


def test_outputs_that_are_refused(speak, tmp_path, monkeypatch):
    with pytest.raises(AudioError, match=r"extension '.aiff'"):
        speak(output="play.aiff")
    with pytest.raises(OutputError, match="does not exist"):
        speak(output="no/play.wav")
    monkeypatch.setattr(long, "libav", lambda: None)
    with pytest.raises(MissingExtra, match="needs av"):
        speak(output="play.m4b")
    monkeypatch.setattr(long, "LARGEST_WAV", 1000)
    with pytest.raises(OutputError, match="more than a WAV can be"):
        speak()
    (tmp_path / "play.wav.manifest.json").write_text('{"version": 1}')
    with pytest.raises(InvalidValue, match="is damaged"):
        speak()


def test_two_renders_of_one_output(speak, tmp_path):
    other = manifests.Manifest(tmp_path / "play.wav", "", RATE)
    with other.held(), pytest.raises(OutputError, match="another process is rendering"):
        speak()
    assert len(speak()[1]) == 6


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["piece", "manifest", "output"])
def test_a_full_disk(speak, tmp_path, monkeypatch, where):
    speak("LOW: One.")
    before = (tmp_path / "play.wav").read_bytes()
    with monkeypatch.context() as patch:
        if where == "output":
            patch.setattr(
                long.FileSink, "write", lambda self, data: setattr(self, "error", OSError(28, "No space left"))
            )
        else:
            target = ".flac" if where == "piece" else ".json"
            method = "write_bytes" if where == "piece" else "write_text"
            original = getattr(Path, method)

            def write(self, *arguments, **more):
                return (
                    full() if self.suffix == target and "partial" in self.name else original(self, *arguments, **more)
                )

            patch.setattr(Path, method, write)
        with pytest.raises(OutputError, match="No space left"):
            speak("LOW: One.\n\nLOW: Two.")
    assert (tmp_path / "play.wav").read_bytes() == before
    assert read_manifest(tmp_path)["pieces"][0]["text"] == "One."
    assert speak("LOW: One.\n\nLOW: Two.")[1] == ([] if where == "output" else ["Two."])
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize("name", ["play.wav", "play.mp3", "play.m4b", "lines"])
def test_an_output_that_outgrows_the_disk(speak, tmp_path, name):
    """The system itself refuses to write on: none of the formats may swallow that."""
    if name.endswith(".m4b"):
        pytest.importorskip("av")
    text = "\n\n".join(f"LOW: Number {i}." for i in range(10))
    speak(text, output=name, seconds=1)
    place = tmp_path / name
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole[0]) // 2, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            speak(text, output=name, seconds=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not any(file.exists() for file in files)
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
    assert speak(text, output=name, seconds=1)[1] == [] and [file.read_bytes() for file in files] == whole


def test_two_processes_that_render_one_output(tmp_path):
    """The second is refused at once; the first, killed, leaves no lock behind."""
    code = (
        "import sys, time; from tests.scripts.standin import StandIn, timeline\n"
        "def wait(text): print('speaking', flush=True); time.sleep(60)\n"
        "timeline('LOW: One.', StandIn()).render(StandIn(fault=wait), sys.argv[1])"
    )
    other = [sys.executable, "-c", code, str(tmp_path / "play.wav")]
    with subprocess.Popen(other, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "speaking\n"
        tts = StandIn()
        with pytest.raises(OutputError, match=r"another process is rendering to .*play.wav.pieces; wait for it"):
            timeline("LOW: One.", tts).render(tts, tmp_path / "play.wav")
        first.kill()
    assert timeline("LOW: One.", tts).render(tts, tmp_path / "play.wav").spoken == 1


@pytest.mark.thorough
def test_six_random_kills(tmp_path):
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    (tmp_path / "play.txt").write_text("\n\n".join(f"LOW: Number {i}." for i in range(20)))
    command = [sys.executable, "-m", "tests.scripts.standin", str(tmp_path), "6", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], 6]
    killed, whole = (sorted((tmp_path / name).rglob("*")) for name in ("killed", "whole"))
    killed, whole = ([path for path in paths if path.name != cost.FILE] for paths in (killed, whole))  # it is timed
    assert [path.name for path in killed] == [path.name for path in whole] and len(whole) == 23
    assert all(a.is_dir() or a.read_bytes() == b.read_bytes() for a, b in zip(killed, whole, strict=True))


@pytest.mark.thorough
def test_five_thousand_pieces(speak, tmp_path, monkeypatch):
    save = manifests.Manifest.save

    def seldom(self):  # two megabytes after each piece are nothing beside a model, but most of the time here
        if len(self.pieces) % 500 == 0 or len(self.pieces) == 4999:
            save(self)

    monkeypatch.setattr(manifests.Manifest, "save", seldom)
    monkeypatch.setattr(manifests, "loudness", lambda samples, rate: -20.0)  # of 5 ms: half of the time otherwise
    text = "\n\n".join(f"LOW: [pause: 0] Number {i}." for i in range(5000))  # and no hour of silence to be written
    result, said = speak(text, seconds=0.005, lines="1-9997")
    assert (result.spoken, result.missing) == (len(said), 1) == (4999, 1)
    result, said = speak(text, seconds=0.005)
    assert said == ["Number 4999."] and result.kept == 4999 and result.seconds > 5000 * 0.005
    assert len(read_manifest(tmp_path)["pieces"]) == 5000
