"""The windows of a recording and their vectors: some over all of its speech, finer ones where these are undecided.

N windows, B of them in a batch, D dimensions of a vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import mlx.core as mx
import numpy as np

from ..audio.regions import RATE, blocks, cut, windows
from ..errors import InvalidValue, WrongType
from ..networks.speaker.mel import log_mel

if TYPE_CHECKING:
    from ..networks.speaker.encoder import SpeakerEncoder

WINDOW, HOP = 36000, 18000  # samples: 1.5 s every 0.75 s, which tell the speakers
FINE, STEP = 18000, 2400  # samples: 0.75 s every 0.1 s, which tell where one gives way to another
BATCH = 16  # windows given to the embedder at once

# Windows [B, samples] float32 at 24 kHz to vectors [B, D]. All that is asked of it is that windows of one voice give
# vectors close together and that a window in which two voices share the time lies between their vectors.
Embedder: TypeAlias = Callable[[mx.array], mx.array]
Source: TypeAlias = Path | str | np.ndarray | mx.array


def embedder(encoder: SpeakerEncoder) -> Embedder:
    """The function of windows [B, samples] at 24 kHz to vectors [B, D] that a SpeakerEncoder makes."""
    return lambda windows: encoder(mx.stack([log_mel(window, encoder.bands) for window in windows]))


def embedded(
    source: Source,
    embed: Embedder,
    spans: np.ndarray,
    length: int,
    progress: Callable[[float], object] | None = None,
) -> Iterator[np.ndarray]:
    """The vectors [B, D] of one batch of windows (spans [N, 2], in order) after another, checked."""
    pieces, done = cut(blocks(source), spans.tolist(), length), 0
    for start in range(0, len(spans), BATCH):
        batch = np.stack(list(itertools.islice(pieces, BATCH)))
        yield _checked(embed(mx.array(batch)), len(batch))
        if progress:
            last = int(spans[start + len(batch) - 1, 1])
            progress((last - done) / RATE)
            done = last


def _checked(vectors: object, count: int) -> np.ndarray:
    """An embedder's vectors of `count` windows."""
    if not isinstance(vectors, mx.array):
        said = f"the embedder gave {type(vectors).__name__} for {count} windows; expected an mx.array [B, D]"
        raise WrongType(said, param="embed")
    if vectors.ndim != 2 or len(vectors) != count:
        said = f"the embedder gave {list(vectors.shape)} for {count} windows; expected an mx.array [B, D]"
        raise InvalidValue(said, param="embed")
    found = np.array(vectors.astype(mx.float32))
    if not np.isfinite(found).all():
        raise InvalidValue("the embedder gave values that are NaN or infinite", param="embed")
    return found


def around(regions: Sequence[tuple[int, int]], where: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The finer windows around some of the others (the region of each [N], spans [N, 2]), in the same two arrays.

    None are in regions too short for them.
    """
    places, found = [np.zeros(0, int)], [np.zeros((0, 2), int)]
    for region in np.unique(where):
        first, end = regions[region]
        if end - first > FINE:
            _, fine = windows([(first, end)], FINE, STEP)
            apart = np.abs(fine.mean(axis=1)[:, None] - spans[where == region].mean(axis=1))
            fine = fine[apart.min(axis=1) <= HOP]
            places.append(np.full(len(fine), region))
            found.append(fine)
    return np.concatenate(places), np.concatenate(found)
