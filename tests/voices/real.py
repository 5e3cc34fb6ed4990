"""The real x-vectors, for tests that have them: six speakers in six emotions."""

import json

import mlx.core as mx
import numpy as np


def load(shared):
    """(X [36, 1024], names, {label: list of 36}) of the shared voices."""
    labels = json.loads((shared / "voices" / "labels.json").read_text())
    names = list(labels)
    X = np.stack([np.load(shared / "voices" / f"{name}.npy").reshape(-1) for name in names])
    return mx.array(X), names, {key: [labels[name][key] for name in names] for key in ("speaker", "gender", "emotion")}


def made(seed=0, speakers=8, emotions=4, dimension=64):
    """The same of made-up voices: a large shared mean, speakers, a gender along one axis, emotions along others."""
    random = np.random.RandomState(seed)
    mean = random.standard_normal(dimension) * 2
    gender = random.standard_normal(dimension) * 0.15
    shifts = random.standard_normal((emotions, dimension)) * 0.15
    rows, names, labels = [], [], {"speaker": [], "gender": [], "emotion": []}
    for speaker in range(speakers):
        own = random.standard_normal(dimension) * 0.15
        side = 1 if speaker % 2 else -1
        for emotion in range(emotions):
            rows.append(mean + own + side * gender + shifts[emotion] + random.standard_normal(dimension) * 0.05)
            names.append(f"s{speaker}_e{emotion}")
            for key, value in (("speaker", f"s{speaker}"), ("gender", "fm"[speaker % 2]), ("emotion", f"e{emotion}")):
                labels[key].append(value)
    return mx.array(np.array(rows, np.float32)), names, labels
