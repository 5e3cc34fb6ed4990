"""Does similarity find the speaker? The nearest other voice, in a space fitted without the speaker in question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ...errors import InvalidValue
from ..algebra import as_vectors
from ..space import VoiceSpace, check_labels, cosine, indices

if TYPE_CHECKING:
    from ..voice import Voice

WAYS = ("raw", "centred", "nuisance-free")


@dataclass(frozen=True)
class Retrieval:
    """For each way of comparing: how many of n voices have one of their own speaker nearest, and who has not."""

    n: int
    right: dict[str, int]
    failures: dict[str, list[str]]

    def __str__(self) -> str:
        lines = []
        for way, right in self.right.items():
            lines.append(f"nearest voice is the same speaker's, {way}: {right} of {self.n}")
            if self.failures[way]:
                lines.append(f"  not: {', '.join(self.failures[way])}")
        return "\n".join(lines)


def retrieval(
    X: mx.array | np.ndarray | Sequence[Voice],
    speakers: Sequence[Any] | np.ndarray,
    nuisance: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
) -> Retrieval:
    """Retrieval of voices X [N, D] by speaker, oneself excluded: raw, centred, and with `nuisance` (a label a voice)
    without its subspace. Mean and subspace are those of the other speakers' voices."""
    X = as_vectors(X, "voices", "X")
    count = X.shape[0]
    speakers = check_labels(speakers, count, "speakers")
    names = [str(i) for i in range(count)] if names is None else list(names)
    nearest = {way: np.zeros(count, int) for way in WAYS[: 2 if nuisance is None else 3]}
    for rows in indices(speakers).values():
        held = np.array(rows).tolist()
        rest = [i for i in range(count) if i not in set(held)]
        if len(rest) < 2:
            raise InvalidValue("retrieval needs voices of two speakers or more", param="speakers")
        others = mx.array(rest)
        labels = None if nuisance is None else [nuisance[i] for i in rest]
        groups = None if nuisance is None else [speakers[i] for i in rest]
        plain = VoiceSpace.fit(X[others])
        compared = {"raw": X, "centred": plain.centred(X)}
        if labels is not None:
            compared["nuisance-free"] = VoiceSpace.fit(X[others], labels, groups).centred(X)
        for way, vectors in compared.items():
            likeness = np.array(cosine(vectors[rows], vectors))
            likeness[np.arange(len(held)), held] = -2  # oneself
            nearest[way][held] = likeness.argmax(axis=1)
    wrong = {way: [i for i in range(count) if speakers[found[i]] != speakers[i]] for way, found in nearest.items()}
    failures = {way: [f"{names[i]} ({names[nearest[way][i]]})" for i in rows] for way, rows in wrong.items()}
    return Retrieval(count, {way: count - len(rows) for way, rows in wrong.items()}, failures)
