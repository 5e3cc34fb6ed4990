"""`script render` killed at random moments, and started again until it is done.

A process of its own each time, the miniature speaking, kill -9 by the clock. Afterwards nothing that was finished may
have been spoken again, nothing may be missing, and the output must have the bytes of one that nobody disturbed.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlx_qwen3tts.checkpoint import hub

from .hours import sentence

LINES, BEYOND = 60, 1.5  # lines of the script; how far behind its first piece a run may be killed, as a share of a run
Finished = dict[str, tuple[int, int, int]]  # pieces by hash: (inode, time of writing, bytes) of their sound


def command(folder: Path) -> list[str]:
    voice = hub.SHIPPED["miniature"] / "voices" / "voice02.safetensors"
    render = [sys.executable, "-m", "mlx_qwen3tts.script", "render", str(folder / "play.txt"), "--voice", str(voice)]
    return [*render, "--model", "miniature", "--dtype", "float32", "--output", str(folder / "play.wav")]


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
    draw, wrong, counts = random.Random(seed), [], {"kills": 0, "rounds": 0, "before the first piece": 0, "pieces": 0}
    with tempfile.TemporaryDirectory() as root:
        whole = prepare(Path(root) / "whole", seed)
        start, first = time.monotonic(), 0.0
        with subprocess.Popen(command(whole), stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                time.sleep(0.02)
                first = first or (time.monotonic() - start if finished(whole) else 0.0)
        length = time.monotonic() - start
        if process.returncode:
            return counts, ["an undisturbed run fails"]
        expected, everything = (whole / "play.wav").read_bytes(), set(finished(whole))
        while counts["kills"] < count:
            counts["rounds"] += 1
            folder, before = prepare(Path(root) / f"round{counts['rounds']}", seed), Finished()
            while True:
                delay = draw.uniform(0, first + BEYOND * (length - first) / 4)
                with subprocess.Popen(command(folder), stderr=subprocess.DEVNULL) as process:
                    try:
                        process.wait(delay if counts["kills"] < count else None)
                    except subprocess.TimeoutExpired:
                        process.kill()
                try:
                    now = finished(folder)
                except (ValueError, OSError) as error:
                    wrong.append(f"kill {counts['kills']}: {error}")
                    now = Finished()
                again = [word for word, sound in before.items() if now.get(word) != sound]
                wrong += [f"kill {counts['kills']}: {word} was finished, and is lost or spoken again" for word in again]
                counts["before the first piece"] += process.returncode != 0 and now == before
                before = now
                if process.returncode == 0:
                    break
                if process.returncode != -9:
                    return counts, [*wrong, f"kill {counts['kills']}: the next run fails with {process.returncode}"]
                counts["kills"] += 1
                killed(counts["kills"])
            counts["pieces"] += len(before)
            if set(before) != everything:
                wrong.append(f"round {counts['rounds']}: {len(before)} pieces of {len(everything)}")
            if (folder / "play.wav").read_bytes() != expected:
                wrong.append(f"round {counts['rounds']}: another file than an undisturbed run's")
    return counts, wrong
