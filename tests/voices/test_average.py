"""One voice from several recordings: the mean, who is far from the others, and whether two are of two speakers."""

import itertools

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts.voices.average import APART, average
from tests.voices.real import load

V = np.random.RandomState(0).standard_normal(64).astype(np.float32)


def far(distance, axis=0):
    """V moved by a share of its norm, across it."""
    step = np.eye(64, dtype=np.float32)[axis]
    step -= V * (step @ V) / (V @ V)
    return V + step * (distance * np.linalg.norm(V) / np.linalg.norm(step))


@pytest.mark.parametrize(
    ("vectors", "two", "farthest"),
    [
        ([V, far(0.35)], True, (0, 1)),
        ([V, far(0.2)], False, (0, 1)),
        ([V, V], False, None),
        ([V, far(0.05, 1), far(0.35), far(0.36)], True, (1, 3)),  # two takes of each: neither is an outlier
        ([V, far(0.05, 1), far(0.05, 2), far(0.5)], False, (2, 3)),  # an outlier, which is said instead
    ],
)
def test_two_speakers(vectors, two, farthest):
    found = average(mx.array(np.stack(vectors)))
    assert found.two_speakers == two and farthest in (None, found.farthest)
    assert np.allclose(np.array(found.mean), np.mean(vectors, axis=0), atol=1e-6)
    assert bool(found.outliers) == (len(vectors) == 4 and not two)


def test_the_bound_on_real_voices(shared):
    """The figures beside APART."""
    X, _, labels = load(shared)
    same, others, calm = [], [], []
    for i, j in itertools.combinations(range(X.shape[0]), 2):
        apart = average(X[mx.array([i, j])]).apart
        if labels["speaker"][i] != labels["speaker"][j]:
            others.append(apart)
        else:
            same.append(apart)
            if not {"anger", "joy"} & {labels["emotion"][i], labels["emotion"][j]}:
                calm.append(apart)
    assert np.mean(np.array(others) > APART) > 0.83 and np.mean(np.array(same) > APART) < 0.4
    assert max(calm) < 0.25
