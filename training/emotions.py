"""Directions for the published 0.6B models: gender and six emotions, each with its report.

    python -m training.emotions DIR

DIR holds real vectors of 1,024 dimensions, NAME.npy, and labels.json with the speaker, gender and emotion of each: the
36 of `presets/emovoice` in gabriele-mastrapasqua/qwen3-tts (MIT). Writes mlx_qwen3tts/voices/brought/1024/directions/,
in a second. What is left out for the reports is a speaker at a time.
"""

import argparse
import json
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import Direction
from mlx_qwen3tts.voices.brought import FOLDER


def directions(folder):
    """{name: Direction} of the vectors in a folder."""
    labels = json.loads((folder / "labels.json").read_text("utf-8"))
    names = sorted(labels)
    X = mx.array(np.stack([np.load(folder / f"{name}.npy") for name in names]))
    gender, emotions, speakers = ([labels[name][key] for name in names] for key in ("gender", "emotion", "speaker"))
    made = {"gender": Direction.fit(X, gender, groups=speakers, names=names)}
    for emotion in sorted(set(emotions)):
        made[emotion] = Direction.fit(X, emotions, groups=speakers, names=names, positive=emotion)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    made = directions(parser.parse_args().folder)
    for name, direction in made.items():
        path = FOLDER / str(direction.dimension) / "directions" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        direction.save(path)
        print(f"{name}: {direction.report}\n")


if __name__ == "__main__":
    main()
