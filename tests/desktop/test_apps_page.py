"""docs/apps.md: its programs in Python print what it shows, and its line for a shell starts a server in the environment
of an app from the Finder. The program for Node is run by tests/server/test_clients.py."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from docs import refresh
from mlx_qwen3tts.checkpoint import hub

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "apps.md"
LINE = re.compile(r"exec \S+ serve [^`\n]*3>&1 >&2")  # how an app starts the server through a shell


@pytest.mark.thorough
def test_everything_it_shows_is_what_is_printed(tmp_path):
    differences = refresh.refresh(PAGE, tmp_path, check=True)
    assert not differences, "\n".join(differences)


def lines():
    return [LINE.findall((DOCS / name).read_text(encoding="utf-8")) for name in ("apps.md", "desktop.md")]


def test_apps_start_program_and_model_by_absolute_paths():
    [apps, desktop] = lines()
    assert apps == desktop and len(apps) == 1, "both pages show one line, the same"
    assert "'/path/to/.venv/bin/mlx_qwen3tts'" in apps[0] and "--model '/path/to/mlx_model'" in apps[0]
    assert 'start("mlx' not in PAGE.read_text(encoding="utf-8")


@pytest.mark.thorough
def test_the_line_starts_a_server_with_what_the_finder_gives(tmp_path):
    """launchd's short PATH, no variable of a shell, in /; and spaces in both paths."""
    program, model = tmp_path / "a program", tmp_path / "a model"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{DOCS.parent}" exec "{sys.executable}" -m mlx_qwen3tts "$@"\n')
    program.chmod(0o755)
    model.symlink_to(hub.SHIPPED["miniature"])
    line = lines()[0][0].replace("/path/to/.venv/bin/mlx_qwen3tts", str(program))
    line = line.replace("/path/to/mlx_model", str(model))
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    command = ["/bin/sh", "-c", line]
    with (
        open(os.devnull, "w") as nowhere,
        subprocess.Popen(
            command, cwd="/", env=environment, stdout=subprocess.PIPE, stderr=nowhere, text=True
        ) as server,
    ):
        told = json.loads(server.stdout.readline())
        with urllib.request.urlopen(f"{told['url']}/health") as answer:
            assert answer.status == 200
        server.terminate()
    assert server.returncode == 0
