"""One voice from several recordings of a speaker."""

import statistics
from dataclasses import dataclass

import mlx.core as mx

# Times the median distance of the others at which a recording is named an outlier. Measured on 36 real x-vectors: four
# recordings of one speaker in four emotions stay below 1.74 in 99 % of the draws, while a foreign one among two good
# ones can reach 2 at most.
OUTLIER = 1.75


@dataclass
class Average:
    """mean [D]; distances [N]: of every vector to the mean of the others; outliers: indices."""

    mean: mx.array
    distances: list
    outliers: list

    @property
    def spread(self):
        """Mean distance to the mean of the others, relative to the average's norm."""
        return sum(self.distances) / len(self.distances) / mx.linalg.norm(self.mean).item()


def average(vectors):
    """Average of vectors [N, D], N ≥ 2; with three or more, those far from the others are named."""
    count = vectors.shape[0]
    others = (vectors.sum(axis=0) - vectors) / (count - 1)
    distances = mx.linalg.norm(vectors - others, axis=1).tolist()
    outliers = []
    for i, distance in enumerate(distances if count > 2 else []):
        if distance > OUTLIER * statistics.median(distances[:i] + distances[i + 1 :]):
            outliers.append(i)
    return Average(vectors.mean(axis=0), distances, outliers)
