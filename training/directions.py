"""Directions for the miniature's sliders: pitch, size, brightness and pace, each with its report.

    python -m training.directions [FOLDER]

draws voices that nothing was trained on, lets espeak-ng say a few sentences with each, embeds them with the shipped
miniature, or with the model in FOLDER, and writes its voices/directions/. Runs in the project's own environment, needs
espeak-ng, and takes a minute.
"""

import random
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import Direction, Qwen3TTS

from .espeak import Espeak, Speaker
from .ship import PACKAGE

VOICES, SEED = 120, 11
SAY = "Hello, this is my voice. The red car is big. I want to speak to you."
LABELS = {
    "pitch": lambda speaker: speaker.f0,  # Hz
    "size": lambda speaker: 1 / speaker.formants,  # length of the vocal tract over the usual one
    "brightness": lambda speaker: speaker.tilt,  # -1 dark to 1 bright
    "pace": lambda speaker: speaker.pace,  # words a minute
}


def main():
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE
    model = Qwen3TTS.from_pretrained(package, dtype="float32")
    generator = random.Random(SEED)
    speakers = [Speaker.draw(generator) for _ in range(VOICES)]
    vectors = []
    with tempfile.TemporaryDirectory() as data:
        espeak = Espeak(data)
        for speaker in speakers:
            espeak.use(speaker)
            vectors.append(model.embed((espeak.say(SAY), 24000)))
    X = mx.array(np.stack([np.array(vector) for vector in vectors]))
    folder = package / "voices" / "directions"
    folder.mkdir(parents=True, exist_ok=True)
    for name, label in LABELS.items():
        # A voice each, so every one is a group of its own.
        direction = Direction.fit(X, [label(s) for s in speakers], method="correlation", groups=list(range(VOICES)))
        direction.save(folder / f"{name}.safetensors")
        print(f"{name}: {direction.report}\n")


if __name__ == "__main__":
    main()
