"""What a type checker tells a user of the package: nothing of a right program, and where a keyword is misspelled."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("pyright")
ROOT = Path(__file__).parents[1]

RIGHT = """\
import mlx.core as mx

from mlx_qwen3tts import Direction, Library, Qwen3TTS, Voice, VoiceSpace
from mlx_qwen3tts.voices import blend

tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
speech = tts.generate("Hello.", voice="anna", seed=1)
speech.save("hello.wav")
sound: mx.array = speech.audio
for chunk in tts.stream("Hello.", voice=Voice(mx.zeros(192)), language="English"):
    sound = chunk.audio
batch = tts.generate_batch(["One.", "Two."], voices=["anna", "ben"], seeds=[1, 2])
library = Library("voices")
space = VoiceSpace.fit(library.vectors())
mixed = blend([library["anna"], library["ben"]], weights=[0.7, 0.3], space=space, keep="radius")
deeper: mx.array = library.direction("pitch").apply(mixed, -1.5)
Voice(deeper).save("deeper.safetensors")
pitch = Direction.fit([library["anna"], library["ben"]], [200, 100], method="ridge")
"""
# What is wrong with a program, by the rule that finds it. `tts` and the names above are there.
WRONG = {
    'tts.generate("x", vocie="y")': "reportCallIssue",
    'tts.stream("x", vocie="y")': "reportCallIssue",
    'tts.generate_batch(["x"], voice="y")': "reportCallIssue",
    'Qwen3TTS.from_pretrained("miniature", dtpye="float32")': "reportCallIssue",
    'Voice(deeper).sav("deeper.safetensors")': "reportAttributeAccessIssue",
    'speech.save("hello.wav", rate=24000)': "reportCallIssue",
    "speech.sound": "reportAttributeAccessIssue",
    'blend(["anna"], [1], keeping="norm")': "reportCallIssue",
    'Library("voices").serach(deeper)': "reportAttributeAccessIssue",
    'Direction.fit(deeper, [1], methd="ridge")': "reportCallIssue",
    "from mlx_qwen3tts import Qwen4TTS": "reportAttributeAccessIssue",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What pyright says of both programs, in an environment where the package is installed as a wheel would be: a list
    of (line of code, rule)."""
    folder = tmp_path_factory.mktemp("types")
    site = folder / "venv" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (site / "mlx_qwen3tts").symlink_to(ROOT / "mlx_qwen3tts")  # with its py.typed: nothing is inferred, as for a user
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    lines = RIGHT.splitlines() + list(WRONG)
    (folder / "program.py").write_text("\n".join(lines))
    (folder / "pyrightconfig.json").write_text(json.dumps({"venvPath": ".", "venv": "venv", "include": ["program.py"]}))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [(lines[entry["range"]["start"]["line"]], entry.get("rule")) for entry in found]


def test_a_right_program_is_clean(told):
    assert [entry for entry in told if entry[0] not in WRONG] == []


@pytest.mark.parametrize(("line", "rule"), WRONG.items())
def test_a_wrong_line_is_found(told, line, rule):
    assert (line, rule) in told
