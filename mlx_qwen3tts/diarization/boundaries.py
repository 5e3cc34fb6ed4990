"""Where one speaker gives way to another: the cheapest speaker, or pair that speaks at once, for every window.

N windows, D dimensions of a vector, K speakers, S states: the speakers and, where wanted, every two of them at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from .clusters import changes
from .windows import FINE, STEP

BARRED = 1e6  # the cost of what cannot be


def costs(x: np.ndarray, centroids: np.ndarray, pairs: bool = False) -> np.ndarray:
    """What it costs [N, S] to put x [N, D] down to each of the speakers [K, D], or with `pairs` also to each two at
    once: squared distances, less the smallest."""
    states = centroids
    if pairs:
        i, j = np.triu_indices(len(centroids), 1)  # in the order of itertools.combinations
        states = np.concatenate([centroids, (centroids[i] + centroids[j]) / 2])
    found = np.square(states).sum(axis=1) - 2 * x @ states.T
    return found - found.min(axis=1, keepdims=True)


def undecided(x: np.ndarray, where: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Which windows x [N, D] finer ones must decide [N]: those most like two speakers at once, and those next to one
    of another speaker in the same region `where` [N]."""
    count = len(centroids)
    found = costs(x, centroids, pairs=True)
    return (found[:, :count].min(axis=1) > 0) | changes(found[:, :count].argmin(axis=1), where)


def pin(costs: np.ndarray, count: int) -> np.ndarray:
    """Give every speaker one window of `costs` [N, S] for certain, the best there is; returns these windows."""
    from scipy.optimize import linear_sum_assignment

    speakers, pinned = linear_sum_assignment(costs[:, :count].T)
    costs[pinned] = BARRED
    costs[pinned, speakers] = 0
    return pinned


def pieces(
    regions: Sequence[tuple[int, int]], where: np.ndarray, centres: np.ndarray, costs: np.ndarray, count: int
) -> list[tuple[float, float, int]]:
    """[(first, end, speaker)] in samples, sorted, from windows by their region, centre and costs [N, S]."""
    members = [(k,) for k in range(count)] + list(itertools.combinations(range(count), 2))
    order, found = np.lexsort((centres, where)), []
    parts = np.split(order, np.searchsorted(where[order], np.arange(1, len(regions))))
    for (first, end), rows in zip(regions, parts, strict=True):
        edges = np.concatenate([[first], (centres[rows][1:] + centres[rows][:-1]) / 2, [end]])
        path = honest(costs[rows], count)
        for a, b in runs(path):
            found += [(edges[a], edges[b], k) for k in members[path[a]]]
    return sorted(found)


def honest(costs: np.ndarray, count: int) -> np.ndarray:
    """The cheapest state [N] of each window, without the pairs that a mere change explains: until a window of length L
    has passed one, it looks like both voices for L / 2, and like one that joins for however long that one speaks."""
    costs = costs.copy()
    while True:
        path = costs.argmin(axis=1)
        short = []
        for a, b in runs(path):
            joins = a > 0 and b < len(path) and path[a - 1] == path[b]
            if path[a] >= count and (b - a) * STEP < (3 * STEP if joins else FINE / 2 + 2 * STEP):
                short.append((a, b))
        if not short:
            return path
        for a, b in short:
            costs[a:b, count:] = BARRED


def runs(path: np.ndarray) -> list[tuple[int, int]]:
    """[(first, end)] of equal values in a path [N]."""
    ends = np.append(np.flatnonzero(np.diff(path)) + 1, len(path)).tolist()
    return list(itertools.pairwise([0, *ends]))
