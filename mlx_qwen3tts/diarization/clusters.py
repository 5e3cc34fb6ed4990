"""Which windows are of one speaker: clusters of their vectors, merged until what is left is apart.

N windows, D dimensions of a vector, K speakers. benchmarks/diarization.py says what each rule here is worth.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import sparse
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from .windows import WINDOW

# Cosine distance about the centre, from which clusters are two voices. Measured on 36 real x-vectors of six speakers:
# one voice in two emotions lies 0.29 apart (median, emotions removed), two voices in 99 % of the pairs 0.46 and more.
THRESHOLD = 0.35
# Spreads (standard deviations of the windows on the line between two clusters) that count as THRESHOLD. A single
# cluster cut in two by its own noise is 2.7 spreads apart if it was normal, 3.5 if uniform; two voices whose windows
# scatter as widely as the voices differ, in ten dimensions, 7.
SPREADS = 4.0
SMALL = 2.0  # by how much n windows must lie farther apart than many: SMALL / n
LARGEST = 2000  # windows that are clustered, an even choice of them: linkage is quadratic
SEEDS, CLOSE, FEWEST = 40, 0.15, 3  # clusters to begin with: at most, no finer than, of so many windows


def clusters(
    x: np.ndarray,
    where: np.ndarray,
    spans: np.ndarray,
    fewest: int,
    most: int | None,
    threshold: float,
    rounding: float,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Centroids [K, D] of the speakers among centred vectors x [N, D] of windows: their regions [N] and (first, end)
    [N, 2]. known: the same vectors [N, D] about the centre of other voices.

    Average linkage by cosine gives clusters to begin with. The two least apart are merged as long as they are less than
    `threshold` apart, by the cosine of their means and by `apart`. What is left must stay apart when it has settled.
    The means of the last two are exact opposites about the recording's own centre, whoever speaks, so their cosine says
    nothing there: it is taken about `known`'s, and the closer they are by it, the more spreads apart they must be.
    """
    chosen = np.unique(np.linspace(0, len(x) - 1, min(LARGEST, len(x))).round().astype(int))
    x, where, near = x[chosen], where[chosen], sharing(spans[chosen])
    known = None if known is None else known[chosen]
    groups = assigned(x, seeds(x, fewest))
    spreads: dict[tuple[bytes, bytes], float] = {}
    settled = False
    while len(groups) > fewest:
        centroids = means(x, groups)
        angles = cosine_distances(centroids)
        pairs = list(itertools.combinations(range(len(groups)), 2))
        far = []
        for i, j in pairs:
            key = groups[i].tobytes(), groups[j].tobytes()
            if key not in spreads:
                spreads[key] = apart(x, near, groups[i], groups[j], rounding)
            far.append(min(angles[i, j], spreads[key]))
        if known is not None and len(groups) == 2:
            # In chords rather than cosines, as spreads are lengths too.
            chord = np.sqrt(max(cosine_distances(means(known, groups))[0, 1], 0) / THRESHOLD)
            far[0] *= min(chord, 1)
        least = int(np.argmin(far))
        if far[least] >= threshold and (most is None or len(groups) <= most):
            again = [] if settled else settle(x, where, groups)
            if len(again) < fewest:
                break
            groups, settled = again, True
            continue
        groups, settled = merged(x, groups, *pairs[least]), False
    return means(x, groups)


def units(x: np.ndarray) -> np.ndarray:
    """Rows of x [N, D] with the length of one; zero stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def cosine_distances(centroids: np.ndarray) -> np.ndarray:
    """Cosine distances [K, K] between centroids [K, D]."""
    unit = units(centroids)
    return 1 - unit @ unit.T


def means(x: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    """The centroids [K, D] of groups of rows of x [N, D]."""
    return np.stack([x[group].mean(axis=0) for group in groups])


def assigned(x: np.ndarray, groups: list[np.ndarray]) -> list[np.ndarray]:
    """All of x [N, D] to the nearest of the groups' means."""
    return sizeable(nearest(x, means(x, groups)), 1)


def nearest(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest [N] of the centroids [K, D] to each of x [N, D]."""
    return (np.square(centroids).sum(axis=1) - 2 * x @ centroids.T).argmin(axis=1)


def settle(x: np.ndarray, where: np.ndarray, groups: list[np.ndarray]) -> list[np.ndarray]:
    """All of x [N, D] to the nearest of the means of what lies within turns, until nothing changes. A cluster that
    noise has made has no turns, and does not last."""
    centroids, labels = means(x, groups), np.full(len(x), -1)
    for _ in range(10):
        before, labels = labels, nearest(x, centroids)
        if (before == labels).all():
            break
        within = ~changes(labels, where)
        for k in range(len(centroids)):
            own = labels == k
            own = own & within if (own & within).sum() > 1 else own
            if own.any():
                centroids[k] = x[own].mean(axis=0)
    return sizeable(labels, 1)


def changes(labels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Which windows [N] are next to one with another label in the same region `where` [N]."""
    change = (labels[1:] != labels[:-1]) & (where[1:] == where[:-1])
    return np.append(change, False) | np.insert(change, 0, False)


def merged(x: np.ndarray, groups: list[np.ndarray], i: int, j: int) -> list[np.ndarray]:
    """The groups with two of them as one, among which all of x [N, D] is shared out anew."""
    rest = [group for k, group in enumerate(groups) if k not in (i, j)]
    return assigned(x, [*rest, np.concatenate([groups[i], groups[j]])])


def sizeable(labels: np.ndarray, fewest: int) -> list[np.ndarray]:
    """The rows of each label [N] that `fewest` or more have."""
    return [np.flatnonzero(labels == k) for k in np.flatnonzero(np.bincount(labels) >= fewest)]


def seeds(x: np.ndarray, fewest: int) -> list[np.ndarray]:
    """Clusters of x [N, D], as lists of rows: the cut of the tree that gives most of a fair size."""
    if len(x) == 1:
        return [np.arange(1)]
    tree = hierarchy.average(pdist(units(x), "sqeuclidean") / 2)  # cosine distances
    best = [np.arange(len(x))]
    for height in tree[: -SEEDS - 1 : -1, 2]:
        groups = sizeable(hierarchy.fcluster(tree, max(CLOSE, height), "distance"), FEWEST)
        if len(groups) > len(best):
            best = groups
        if height < CLOSE:
            break
    if len(best) < fewest:  # more are asked for than stand out
        best = sizeable(hierarchy.fcluster(tree, fewest, "maxclust"), 1)
    return best


def sharing(spans: np.ndarray) -> sparse.csr_array:
    """A sparse [N, N] with 1 where two windows (first, end) [N, 2] have sound in common, themselves included."""
    first, count = spans[:, 0], len(spans)
    rows, columns = [np.arange(count)], [np.arange(count)]
    for step in range(1, count):
        close = np.flatnonzero(first[step:] - first[:-step] < WINDOW)
        if not close.size:
            break
        rows += [close, close + step]
        columns += [close + step, close]
    where = np.concatenate(rows), np.concatenate(columns)
    return sparse.csr_array((np.ones(len(where[0]), np.float32), where), shape=(count, count))


def apart(x: np.ndarray, near: sparse.csr_array, a: np.ndarray, b: np.ndarray, rounding: float) -> float:
    """How far apart two clusters (rows of x [N, D]) are, as a cosine distance: THRESHOLD where it is SPREADS spreads.

    Every window is projected on the line between the means of both clusters without the windows that share sound with
    it, so that noise does not point at itself; then the medians' distance is divided by the median deviation. Windows
    that share sound with the other cluster, as there are at every change, do not count where there are enough others.
    Small clusters must lie farther apart, as the most deviant of many windows are soon found.
    """
    both = np.concatenate([a, b])
    v, near, in_a = x[both], near[both][:, both], np.arange(len(both)) < len(a)
    inner_a, inner_b = (own & (near @ (~own).astype(np.float32) == 0) for own in (in_a, ~in_a))
    if min(inner_a.sum(), inner_b.sum()) < FEWEST:
        inner_a, inner_b = in_a, ~in_a

    def others(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = mask.sum() - near @ mask.astype(np.float32)
        mean = (v[mask].sum(axis=0) - near @ (v * mask[:, None])) / np.maximum(count, 1)[:, None]
        return mean, count > 0

    (mean_a, known_a), (mean_b, known_b) = others(inner_a), others(inner_b)
    line = mean_a - mean_b
    place = ((v - v.mean(axis=0)) * line).sum(axis=1) / np.maximum(np.linalg.norm(line, axis=1), 1e-12)
    one, two = place[inner_a & known_a & known_b], place[inner_b & known_a & known_b]
    if not one.size or not two.size:
        return 0.0
    deviation = np.median(np.abs(np.concatenate([one - np.median(one), two - np.median(two)])))
    spreads = (np.median(one) - np.median(two)) / max(1.4826 * deviation, rounding)  # of a normal distribution
    return float(THRESHOLD * spreads / SPREADS / (1 + SMALL / min(len(a), len(b))))
