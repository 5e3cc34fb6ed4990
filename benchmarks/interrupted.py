"""`script render` killed at random moments, and started again until it is done.

A process of its own each time, the miniature speaking, kill -9 by the clock. Afterwards nothing that was finished may
have been spoken again, nothing may be missing, and the output must have the bytes of one that nobody disturbed. The
processes are forked, as importing takes longer than speaking; MLX is used in them alone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlx_qwen3tts import script
from mlx_qwen3tts.audio import level, long  # noqa: F401  (what a rendering imports late)
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.scripts import render  # noqa: F401
from mlx_qwen3tts.synthesis import tts  # noqa: F401

from .hours import sentence

LINES = 24  # of the script
TICK = 0.005  # seconds between two looks at a process
Finished = dict[str, tuple[int, int, int]]  # pieces by hash: (inode, time of writing, bytes) of their sound


def start(folder: Path) -> int:
    """Fork a process that renders the script of a folder; its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        voice = hub.SHIPPED["miniature"] / "voices" / "voice02.safetensors"
        asked = ["render", str(folder / "play.txt"), "--voice", str(voice), "--output", str(folder / "play.wav")]
        script.main([*asked, "--model", "miniature", "--dtype", "float32"])
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    finally:  # nothing of the parent's may run here
        os._exit(status)


def ended(child: int, seconds: float | None, seen: Callable[[], object] = lambda: None) -> int:
    """The exit status of a process, negative for a signal; killed where it has not ended within so many seconds.

    seen: called now and then while it runs.
    """
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seen()
        time.sleep(TICK)


def finished(folder: Path) -> Finished:
    """What a manifest says is spoken. ValueError where it is not whole, OSError where a sound is missing."""
    manifest = folder / "play.wav.manifest.json"
    if not manifest.exists():
        return {}
    entries = json.loads(manifest.read_text(encoding="utf-8"))["pieces"]
    found = {entry["hash"]: (folder / entry["file"]).stat() for entry in entries}
    return {word: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for word, stat in found.items()}


def prepare(folder: Path, seed: int) -> Path:
    draw = random.Random(seed)
    folder.mkdir()
    (folder / "play.txt").write_text("\n\n".join(sentence(draw) for _ in range(LINES)), encoding="utf-8")
    return folder


def interrupted(count: int, seed: int, killed: Callable[[int], object]) -> tuple[dict[str, int], list[str]]:
    """({what: how many}, what was wrong) of `count` kills. killed: called with how many there were, after each."""
    draw, wrong, counts = random.Random(seed), [], {"kills": 0, "rounds": 0, "without a new piece": 0, "pieces": 0}
    with tempfile.TemporaryDirectory() as root:
        whole = prepare(Path(root) / "whole", seed)
        begun, first = time.monotonic(), 0.0

        def look() -> None:
            nonlocal first
            if not first and finished(whole):
                first = time.monotonic() - begun

        if status := ended(start(whole), None, look):
            return counts, [f"an undisturbed run fails with {status}"]
        length = time.monotonic() - begun
        expected, everything = (whole / "play.wav").read_bytes(), set(finished(whole))
        while counts["kills"] < count:
            counts["rounds"] += 1
            folder, before = prepare(Path(root) / f"round{counts['rounds']}", seed), Finished()
            while True:
                delay = draw.uniform(0, first + (length - first) / 4)
                status = ended(start(folder), delay if counts["kills"] < count else None)
                try:
                    now = finished(folder)
                except (ValueError, OSError) as error:
                    wrong.append(f"kill {counts['kills']}: {error}")
                    now = Finished()
                again = [word for word, sound in before.items() if now.get(word) != sound]
                wrong += [f"kill {counts['kills']}: {word} was finished, and is lost or spoken again" for word in again]
                counts["without a new piece"] += status != 0 and now == before
                before = now
                if status == 0:
                    break
                if status != -signal.SIGKILL:
                    return counts, [*wrong, f"kill {counts['kills']}: the next run fails with status {status}"]
                counts["kills"] += 1
                killed(counts["kills"])
            counts["pieces"] += len(before)
            if set(before) != everything:
                wrong.append(f"round {counts['rounds']}: {len(before)} pieces of {len(everything)}")
            if (folder / "play.wav").read_bytes() != expected:
                wrong.append(f"round {counts['rounds']}: another file than an undisturbed run's")
    return counts, wrong
