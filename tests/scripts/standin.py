"""A stand-in for the model: it says each text as a tone, at once, and writes down what it has said.

    python -m tests.scripts.standin FOLDER KILLS SEED

renders FOLDER/play.txt to FOLDER/killed/play.wav in forked processes that kill themselves at random calls by which they
touch the file system, KILLS of them, until one is left in peace, and to FOLDER/whole/play.wav without any. Prints
[what went wrong, kills] as JSON.
"""

import json
import random
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from mlx_qwen3tts import Voice
from mlx_qwen3tts.errors import VoiceNotFound
from mlx_qwen3tts.scripts.cast import Cast, Part
from mlx_qwen3tts.scripts.render import Timeline
from mlx_qwen3tts.scripts.script import Script
from mlx_qwen3tts.synthesis.watch import Attempt

VOICES = ("low", "high")
RATE = 24000


class StandIn:
    """As much of a Qwen3TTS as scripts use. said: texts in the order in which they were spoken."""

    sample_rate, title = RATE, "stand-in"

    def __init__(self, log=None, seconds=0.1, fault=None, failing=None):
        """log: a file to which texts are appended; fault: called with each text before it is spoken; failing: {text:
        what the guard finds wrong with it each time}."""
        self.said, self.log, self.seconds, self.fault, self.failing = [], log, seconds, fault, failing or {}
        self.planner = SimpleNamespace(resolve=lambda voice, notes, keep: voice)
        self.adapted = None

    def voice(self, name):
        if name not in VOICES:
            raise VoiceNotFound(f"voice {name!r} is not there")
        return Voice(np.full(4, VOICES.index(name), np.float32), name=name)

    def generate_each(self, requests, done, *, batch_size=8, numbers=None):
        for number, request in enumerate(requests) if numbers is None else zip(numbers, requests, strict=True):
            if self.fault:
                self.fault(request.text)
            self.said.append(request.text)
            if self.log:
                with open(self.log, "a") as log:
                    log.write(f"{request.text}\n")
            failed = self.failing.get(request.text) if request.guard else None
            seeds = (request.seed, *(request.guard if failed else ())) if request.guard else ()
            attempts = tuple(Attempt(seed, 1, failed, "stop") for seed in seeds)
            sound = self.sound(request)
            done(
                number,
                SimpleNamespace(audio=sound, finish_reason="stop", attempts=attempts, failed=failed, origin=None),
            )

    def sound(self, request):
        """A tone whose pitch and length depend on the seed; the voice is its loudness."""
        random = np.random.default_rng(request.seed)
        time = np.arange(round(RATE * (self.seconds + 0.05 * random.random()))) / RATE
        loud = 0.05 + 0.2 * float(np.array(request.voice.embedding)[0])
        return (loud * np.sin(2 * np.pi * random.uniform(100, 400) * time)).astype(np.float32)


def timeline(text, tts, **options):
    """A Timeline of a plain text with the voices of the stand-in."""
    cast = Cast({"narrator": Part("low")}, tts.voice)
    return Timeline(Script.parse_text(text), cast, **options)


def kill(root, count, seed):
    """([what went wrong], how many were killed)."""
    from benchmarks.kills import in_child, watched

    draw, text, folder = random.Random(seed), (root / "play.txt").read_text(), root / "killed"
    log, manifest = root / "said.txt", folder / "play.wav.manifest.json"

    def write(where):
        timeline(text, StandIn()).render(StandIn(log), where / "play.wav")

    wrong, kills, status = [], 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        log.write_text("")
        finished = {one["text"] for one in json.loads(manifest.read_text())["pieces"]} if manifest.exists() else set()
        status, _ = in_child(watched, write, folder, draw.randint(1, 80) if kills < count else None)
        kills += status == -signal.SIGKILL
        wrong += [f"{text} is spoken twice" for text in log.read_text().splitlines() if text in finished]
    if status or in_child(write, root / "whole")[0]:
        wrong.append("a run fails")
    return wrong, kills


if __name__ == "__main__":
    print(json.dumps(kill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
