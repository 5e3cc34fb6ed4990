"""The programs in examples/ run as they stand, offline, in an empty folder, and say and write what they promise."""

import ast
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.speaker import SpeakerEncoder
from mlx_qwen3tts.server.settings import Settings
from tests.server.conftest import running

pytestmark = pytest.mark.thorough

FOLDER = Path(__file__).parents[1] / "examples"
RECORDINGS = hub.SHIPPED["miniature"] / "recordings"
WITH_TEST = {"speak", "stream", "blend", "direction", "batch", "steps", "live"}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function that runs a program with arguments and returns the lines it prints."""
    monkeypatch.chdir(tmp_path)

    def program(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        capsys.readouterr()
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return program


def seconds(name):
    """The length of a sound file that is not silent."""
    samples, rate = soundfile.read(name)
    assert rate == 24000 and np.abs(samples).max() > 0.05
    return len(samples) / rate


def test_each_program_has_a_test_and_is_short():
    programs = sorted(FOLDER.glob("*.py"))
    assert {path.stem for path in programs} == WITH_TEST
    for path in programs:
        code = path.read_text(encoding="utf-8")
        assert f"python examples/{path.name}" in ast.get_docstring(ast.parse(code))
        assert 10 <= len([line for line in code.splitlines() if line.strip()]) <= 40


def test_speak(run):
    [line] = run("speak", "Good morning.")
    assert re.fullmatch(r"speech\.wav: \d\.\d\d s in \d+\.\d\d s, stop", line)
    assert float(line.split()[1]) == pytest.approx(seconds("speech.wav"), abs=0.01)


def test_stream(run):
    times = [re.fullmatch(r"after (.+) s: (.+) s of sound", line).groups() for line in run("stream")]
    after, lengths = np.array(times, float).T
    assert len(after) > 3 and (np.diff(after) >= 0).all()
    assert after[0] < after[-1] / 2  # sound comes long before the end
    assert lengths.sum() == pytest.approx(seconds("streamed.wav"), abs=0.01)


def test_blend(run):
    assert run("blend", "0.25") == ["each recording is a vector of 192 numbers", "blend.safetensors", "blend.wav"]
    assert seconds("blend.wav") > 1
    encoder = SpeakerEncoder.from_pretrained("miniature")
    low, high = (np.array(encoder.encode(RECORDINGS / f"{name}.flac")) for name in ("low", "high"))
    assert np.allclose(np.array(Voice.load("blend.safetensors").embedding), 0.75 * low + 0.25 * high, atol=1e-5)


def test_direction(run):
    pytest.importorskip("librosa")
    about, *measured = run("direction")
    assert about == "10 voices; voices left out of the fit: correlation 0.96"
    before, after = (float(re.fullmatch(r"(?:before|after): (\d+) Hz", line)[1]) for line in measured)
    assert after > 1.2 * before
    assert seconds("before.wav") > 1 and seconds("after.wav") > 1


def test_steps(run):
    lines = run("steps", "Good morning.")
    codes = [ast.literal_eval(re.fullmatch(r"frame \d+: entropy .+, norm .+, (\[.+\])", line)[1]) for line in lines]
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    speech = tts.generate("Good morning.", tts.clone(RECORDINGS / "low.flac"), language="English", seed=1)
    assert np.array_equal(codes, np.array(speech.codes))
    assert seconds("steps.wav") == pytest.approx(speech.stats["seconds"], abs=0.01)


def test_batch(run):
    refused, *spoken = run("batch")
    assert refused.startswith("line 2: voice_not_found: voice 'nobody' is ")
    assert [line.split(":")[0] for line in spoken] == [f"lines/{number}.wav" for number in (0, 1, 3)]
    for line in spoken:
        name, length = re.fullmatch(r"(\S+): (.+) s", line).groups()
        assert float(length) == pytest.approx(seconds(name), abs=0.01)


def test_live(run, tmp_path):
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    with running(tts, Settings(library=tmp_path / "voices", max_batch=1)) as (url, _):
        times = [re.fullmatch(r"after (.+) s: (.+) s of sound", line).groups() for line in run("live", url)]
    after, lengths = np.array(times, float).T
    assert len(after) > 3 and (np.diff(after) >= 0).all()
    assert lengths.sum() == pytest.approx(seconds("live.wav"), abs=0.01 * len(lengths))
    settings = Settings(library=tmp_path / "voices", voice="nobody", max_batch=1)
    with running(tts, settings) as (url, _), pytest.raises(SystemExit, match="voice 'nobody' is not"):
        run("live", url)
