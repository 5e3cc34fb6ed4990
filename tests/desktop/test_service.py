"""service: the file that it writes for launchd and systemd, and what it does with it."""

import json
import os
import platform
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_qwen3tts.desktop import launching
from mlx_qwen3tts.errors import UnsupportedValue


@pytest.fixture(params=["Darwin", "Linux"])
def system(request, monkeypatch, tmp_path):
    monkeypatch.setattr(platform, "system", lambda: request.param)
    monkeypatch.setenv("HOME", str(tmp_path / "a home"))
    (tmp_path / "a home").mkdir()
    return request.param


@pytest.fixture
def manager(monkeypatch):
    """The command lines that launchctl or systemctl got; `status` is what they return, by their words."""

    def run(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, next((n for word, n in status.items() if word in command), 0))

    asked, status = [], {}
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", run)
    return asked, status


def written(system, text):
    """The command line in a file of the service."""
    if system == "Darwin":
        return plistlib.loads(text)["ProgramArguments"]
    line = next(line for line in text.decode().splitlines() if line.startswith("ExecStart="))
    words = line.removeprefix("ExecStart=")
    return [word.replace("%%", "%").replace("$$", "$") for word in __import__("shlex").split(words)]


def test_a_dry_run_shows_the_file_and_touches_nothing(command, system, tmp_path, manager):
    (tmp_path / "my model").mkdir()
    ran = command("service", "install", "--dry-run", "--", "--model", "my model", "--port", "9000", "--voice", "50%$x")
    assert ran.status == 0 and not manager[0] and os.listdir(tmp_path / "a home") == []
    more = command("service", "install", "--dry-run", "--", "--mcp-output", "speech", "--unix=a/sock")
    assert written(system, more.out.encode())[3:6] == [
        "--mcp-output", str(tmp_path / "speech"), f"--unix={tmp_path / 'a' / 'sock'}"
    ]  # fmt: skip
    line = written(system, ran.out.encode())
    assert line[:3] == [sys.executable, "-m", "mlx_qwen3tts.serve"] and os.path.isabs(line[0])
    assert line[3:9] == ["--model", str(tmp_path / "my model"), "--port", "9000", "--voice", "50%$x"]
    assert line[9] == "--log" and line[10].startswith(str(tmp_path / "a home"))
    assert "would run: " in ran.err


def test_install_status_remove(command, system, tmp_path, manager):
    asked, status = manager
    status["is-active"] = status["print"] = 3
    assert command("service", "status").out == "not installed, not running\n"
    asked.clear()
    ran = command("service", "install", "--json", "--", "--model", "miniature")
    told = json.loads(ran.out)
    file = Path(told["file"])
    assert (
        ran.status == 0 and told["left"] == [] and written(system, file.read_bytes())[3:5] == ["--model", "miniature"]
    )
    assert [line[1] if system == "Darwin" else line[2] for line in asked] == (
        ["bootstrap"] if system == "Darwin" else ["daemon-reload", "enable"]
    )
    status.clear()
    assert command("service", "status").out == "installed, running\n"
    asked.clear()
    assert command("service", "install").status == 0  # again: the old one is stopped first
    assert asked[0][1] == "bootout" or "disable" in asked[0]
    assert command("service", "remove").status == 0 and not file.exists()
    again = command("service", "remove")
    assert again.status == 2 and "no service is installed" in again.err


def test_where_the_manager_does_not_answer_its_lines_are_shown(command, system, manager, monkeypatch):
    manager[1]["bootstrap"] = manager[1]["enable"] = 1
    ran = command("service", "install", "--json")
    assert len(json.loads(ran.out)["left"]) == 1 and "type this yourself" in ran.err
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert ran.status == 0 and len(json.loads(command("service", "remove", "--json").out)["left"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["install", "--", "--api-key", "secret"], "--api-key-file"),
        (["install", "--", "--open"], "--open is not for a service"),
        (["install", "--", "--log", "x"], "--log is not for a service"),
        (["install", "--", "--port", "99999"], "port"),
        (["install", "--", "--prot", "1"], "unknown option --prot: did you mean --port"),
        (["remove", "--", "--port", "1"], "remove takes no options of serve"),
        (["begin"], "invalid choice"),
    ],
)
def test_what_is_refused(command, system, manager, options, message):
    ran = command("service", *options)
    assert ran.status == 2 and message in ran.err and not manager[0]


def test_other_systems_are_told_so(tmp_path):
    with pytest.raises(UnsupportedValue, match="Plan 9 has neither launchd nor systemd"):
        launching.service(["x"], tmp_path, "Plan 9")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path):
    made = launching.service([sys.executable, "-m", "mlx_qwen3tts.serve", "--voice", 'a "b" 5% $x'], tmp_path, "Linux")
    unit = tmp_path / "mlx_qwen3tts.service"
    unit.write_bytes(made.text)
    (tmp_path / "systemd").mkdir()
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", unit],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
