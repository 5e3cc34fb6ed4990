"""What keeps `serve` running: a LaunchAgent on a Mac, a user unit of systemd on Linux.

Both start it when the user logs in and again where it fails, hold absolute paths and no secrets, and let it write its
log itself, which turns over (serve --log).
"""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError, UnsupportedValue
from ..files.output import whole_file

LABEL = "mlx_qwen3tts.serve"
WAIT = 30  # seconds for launchctl or systemctl


@dataclass(frozen=True)
class Service:
    """file: what is written; text: its content; start, stop, ask: command lines that bring it up, down, and tell."""

    file: Path
    text: bytes
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    ask: tuple[str, ...]
    log: Path


def service(command: list[str], home: Path, system: str) -> Service:
    """The Service that runs a command for the user whose home this is. system: as of platform.system().

    UnsupportedValue for a system that has neither launchd nor systemd.
    """
    if system == "Darwin":
        return _agent(command, home)
    if system == "Linux":
        return _unit(command, home)
    raise UnsupportedValue(f"{system} has neither launchd nor systemd: start mlx_qwen3tts.serve by its own means")


def log_file(home: Path, system: str) -> Path:
    """Where the server writes its log."""
    folder = "Library/Logs" if system == "Darwin" else ".local/state"
    return home / folder / "mlx_qwen3tts.log"


def _agent(command: list[str], home: Path) -> Service:
    file, log, user = home / f"Library/LaunchAgents/{LABEL}.plist", log_file(home, "Darwin"), f"gui/{os.getuid()}"
    values: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": command,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ProcessType": "Interactive",  # else macOS takes processor time away from it
        "WorkingDirectory": str(home),
        # What comes before the log is opened, such as a missing package; a few lines a start.
        "StandardErrorPath": str(log.with_suffix(".err")),
        "StandardOutPath": "/dev/null",
    }
    return Service(
        file,
        plistlib.dumps(values),
        start=(("launchctl", "bootstrap", user, str(file)),),
        stop=(("launchctl", "bootout", f"{user}/{LABEL}"),),
        ask=("launchctl", "print", f"{user}/{LABEL}"),
        log=log,
    )


def _unit(command: list[str], home: Path) -> Service:
    name = "mlx_qwen3tts.service"
    text = f"""\
[Unit]
Description=mlx_qwen3tts speech server

[Service]
ExecStart={" ".join(map(_quoted, command))}
WorkingDirectory={_escaped(str(home))}
Restart=on-failure
RestartSec=5

[Install]
WantedBy=default.target
"""
    systemctl = ("systemctl", "--user")
    return Service(
        home / ".config/systemd/user" / name,
        text.encode(),
        start=((*systemctl, "daemon-reload"), (*systemctl, "enable", "--now", name)),
        stop=((*systemctl, "disable", "--now", name),),
        ask=(*systemctl, "is-active", name),
        log=log_file(home, "Linux"),
    )


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """A word of ExecStart, in which quotes, backslashes, % and $ have a meaning."""
    text = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if any(char in text for char in " \t\"\\';$") or not text else text


def install(made: Service) -> list[str]:
    """Write the file and start the service. Returns the command lines to type where its manager is not at hand."""
    made.file.parent.mkdir(parents=True, exist_ok=True)
    made.log.parent.mkdir(parents=True, exist_ok=True)
    if made.file.exists():
        for command in made.stop:  # else launchd keeps the old one
            _run(command)
    with whole_file(made.file) as temporary:
        temporary.write_bytes(made.text)
    return _each(made.start)


def remove(made: Service) -> list[str]:
    """Stop the service and remove its file. Returns the command lines to type where its manager is not at hand.

    OutputError where it is not installed.
    """
    if not made.file.exists():
        raise OutputError(f"no service is installed: {made.file} does not exist")
    left = _each(made.stop)
    made.file.unlink()
    return left


def running(made: Service) -> bool:
    """Whether the manager says that it runs."""
    done = _run(made.ask)
    return done is not None and done.returncode == 0


def _each(commands: tuple[tuple[str, ...], ...]) -> list[str]:
    """Run command lines in turn; from the first that fails on, they are returned."""
    for number, command in enumerate(commands):
        done = _run(command)
        if done is None or done.returncode:
            return [" ".join(line) for line in commands[number:]]
    return []


def _run(command: tuple[str, ...]) -> subprocess.CompletedProcess[str] | None:
    """None where there is no such program, or it does not come back."""
    if shutil.which(command[0]) is None:
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    except subprocess.TimeoutExpired:
        return None
