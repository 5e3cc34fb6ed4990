"""One voice from several recordings of a speaker."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

# Times the median distance of the others at which a recording is named an outlier. Measured on 36 real x-vectors: four
# recordings of one speaker in four emotions stay below 1.74 in 99 % of the draws, while a foreign one among two good
# ones can reach 2 at most.
OUTLIER = 1.75


@dataclass
class Average:
    """mean [D]; distances [N]: of every vector to the mean of the others; outliers: indices."""

    mean: mx.array
    distances: list[float]
    outliers: list[int]

    @property
    def spread(self) -> float:
        """Mean distance to the mean of the others, relative to the average's norm."""
        return sum(self.distances) / len(self.distances) / float(mx.linalg.norm(self.mean))


def average(vectors: mx.array) -> Average:
    """Average of vectors [N, D], N ≥ 2; with three or more, those far from the others are named."""
    count = vectors.shape[0]
    others = (vectors.sum(axis=0) - vectors) / (count - 1)
    distances: list[float] = np.array(mx.linalg.norm(vectors - others, axis=1)).tolist()
    outliers = []
    for i, distance in enumerate(distances if count > 2 else []):
        if distance > OUTLIER * statistics.median(distances[:i] + distances[i + 1 :]):
            outliers.append(i)
    mean = vectors.mean(axis=0)
    mx.eval(mean)
    return Average(mean, distances, outliers)
