"""Whatever is killed while it writes leaves the old or the new behind, and the next run is not hindered."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import kills

pytestmark = pytest.mark.benchmarks

ROOT = Path(__file__).parent.parent


def test_every_writer_is_killed_where_names_change_hands():
    # A process of its own: this one has used MLX, and what it forks could not.
    command = [sys.executable, "-m", "benchmarks.soak", "kill", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    found = json.loads(done.stdout)
    assert found.keys() == kills.WRITERS.keys()
    assert {name: one["wrong"] for name, one in found.items()} == {name: [] for name in found}
    assert all(one["kills"] >= 3 for one in found.values()) and done.returncode == 0, done.stderr


def files(*names):
    return lambda folder: {name: kills.digest(folder / name) for name in names}


def in_place(folder):
    with (folder / "a").open("wb", buffering=0) as file:
        file.write(b"ne")
        file.write(b"w")


def littering(folder):
    (folder / ".a-new").write_bytes(b"new")
    (folder / ".a-new").rename(folder / "a")


def stumbling(folder):
    (folder / "lock").mkdir()
    littering(folder)
    (folder / "lock").rmdir()


@pytest.mark.parametrize(
    ("write", "problems"),
    [
        (in_place, {"a neither old nor new"}),
        (littering, set()),
        (stumbling, {"the next run fails"}),
    ],
)
def test_the_killing_finds_writers_that_are_not_safe(write, problems, tmp_path, capfd):
    one = kills.Writer(lambda folder: (folder / "a").write_bytes(b"old"), write, files("a"))
    count, wrong = kills.torment(one, tmp_path, kills.every)
    assert count >= 3
    assert {line.partition(": ")[2] for line in wrong} == problems
