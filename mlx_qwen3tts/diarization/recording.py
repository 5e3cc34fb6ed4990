"""Who speaks when in a recording: regions of speech, windows, clusters of their vectors, boundaries, the result.

N windows, D dimensions of a vector, K speakers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from .. import checks
from ..audio.reading import read_audio
from ..audio.regions import FRAME, RATE, blocks, levels, speech_regions, windows
from ..errors import AudioError, InvalidValue
from .boundaries import costs, pieces, pin, undecided
from .clusters import THRESHOLD, clusters
from .result import Diarization, gathered
from .windows import FINE, HOP, WINDOW, Embedder, around, embedded

if TYPE_CHECKING:
    from ..voices.space import VoiceSpace

LEAST = 0.5  # seconds of speech below which nothing can be told


def diarize(
    source: Path | str | tuple[np.ndarray | mx.array, int] | np.ndarray | mx.array,
    embed: Embedder,
    *,
    space: VoiceSpace | None = None,
    background: VoiceSpace | None = None,
    num_speakers: int | None = None,
    min_speakers: int = 1,
    max_speakers: int | None = None,
    threshold: float = THRESHOLD,
    overlap: bool = False,
    progress: Callable[[float], object] | None = None,
) -> Diarization:
    """A Diarization of a recording of any length, whose memory does not grow with it but for a vector a window.

    source: a path, (samples, rate) or samples at 24 kHz. embed: a function of windows [B, samples] float32 at 24 kHz to
    vectors [B, D] (mx.array), called with windows of 1.5 s and of 0.75 s. space: a VoiceSpace to centre with, else
    the recording's own centre. background: a VoiceSpace of other voices (`diarization.background`), in which the last
    two speakers are compared, as about their own centre any two are opposites; where `space` is given, give none.
    threshold: smaller finds more speakers. overlap: whether to mark where two speak at once. progress: called with the
    seconds of the recording just gone through.

    A speaker needs three windows (some three seconds) to be found unasked. AudioError where there is no speech,
    InvalidValue where it is less than `num_speakers` or `min_speakers` ask for.
    """
    fewest, most = limits(num_speakers, min_speakers, max_speakers, threshold)
    asked = "min_speakers" if num_speakers is None else "num_speakers"
    sound = source if isinstance(source, str | Path) else read_audio(source, RATE)
    level, duration = levels(blocks(sound))
    regions = [(first * FRAME, end * FRAME) for first, end in speech_regions(level)]
    spoken = sum(end - first for first, end in regions) / RATE
    if spoken < LEAST:
        name = f"audio {source}" if isinstance(source, str | Path) else "audio"
        raise AudioError(
            f"{name}: {spoken:.1f} s of speech in {duration:.1f} s of sound; {LEAST} s are needed", param="source"
        )
    where, spans = windows(regions, WINDOW, HOP)
    if len(spans) < fewest:
        raise InvalidValue(f"{fewest} speakers cannot be told apart in {spoken:.1f} s of speech", param=asked)
    vectors = np.concatenate(list(embedded(sound, embed, spans, WINDOW, progress)))
    if progress:
        progress(duration - spans[-1, 1] / RATE)
    mean = vectors.mean(axis=0)

    def centred(x: np.ndarray) -> np.ndarray:
        return x - mean if space is None else np.array(space.centred(mx.array(x)))

    x = centred(vectors)
    rounding = 1e-5 * float(np.linalg.norm(vectors, axis=1).mean())
    known = None if background is None else np.array(background.centred(mx.array(vectors)))
    centroids = clusters(x, where, spans, fewest, most, threshold, rounding, known)
    count = len(centroids)
    if count < fewest:
        raise InvalidValue(
            f"{fewest} speakers cannot be told apart: only {count} different sounds were found", param=asked
        )
    if count == 1:
        return gathered([(first, end, 0) for first, end in regions], spans, vectors, duration)
    coarse, again = costs(x, centroids, overlap), undecided(x, where, centroids)
    if count == fewest:  # all are asked for
        again[pin(coarse, count)] = False
    fine_where, fine = around(regions, where[again], spans[again])
    finer = [costs(centred(part), centroids, overlap) for part in embedded(sound, embed, fine, FINE)]
    kept = ~(again & np.isin(where, fine_where))
    found = pieces(
        regions,
        np.concatenate([where[kept], fine_where]),
        np.concatenate([spans[kept], fine]).mean(axis=1),
        np.concatenate([coarse[kept], *finer]),
        count,
    )
    return gathered(found, spans, vectors, duration)


def limits(number: int | None, fewest: int, most: int | None, threshold: float) -> tuple[int, int | None]:
    """(fewest, most or None) of the speakers asked for; an error where that or the threshold cannot be."""
    if not 0 < checks.number(threshold, "threshold") <= 2:
        said = f"threshold {threshold} is not between 0 and 2; it is a cosine distance"
        raise InvalidValue(said, param="threshold")
    checks.whole(fewest, "min_speakers", 1)
    if most is not None and checks.whole(most, "max_speakers", 1) < fewest:
        raise InvalidValue(f"max_speakers {most} is less than min_speakers {fewest}", param="max_speakers")
    if number is None:
        return fewest, most
    checks.whole(number, "num_speakers", 1)
    if number < fewest or (most is not None and number > most):
        said = f"num_speakers {number} is not within min_speakers and max_speakers; give one or the others"
        raise InvalidValue(said, param="num_speakers")
    return number, number
