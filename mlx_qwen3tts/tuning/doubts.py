"""What may be wrong with clips that can be read: another speaker, two of them, a text that is not what is said."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from .. import diarization
from ..errors import AudioError, listed
from ..networks.speaker.encoder import SpeakerEncoder
from ..voices.average import average
from .data import Clip
from .takes import Take, together

LISTENED = 600.0  # seconds of sound in which speakers are sought
SHARE = 0.2  # of a clip, from which on a second speaker in it counts
FAR = 2.5  # robust deviations of the loss above the median, from which on a text is doubted
LEAST = 0.3  # of the median, below which a difference says nothing
NAMED = 5  # clips that a message names


def speakers(clips: Sequence[Clip], encoder: SpeakerEncoder, folder: Path) -> list[str]:
    """What speaks against all clips being of one speaker, as sentences. folder: the model's, whose voices the speakers
    found are compared with."""
    some, total = [], 0.0
    for clip in clips:
        if total > LISTENED:
            break
        some.append(clip)
        total += 10.0
    sound, spans = together(some)
    known = diarization.background(encoder.dimension, folder)
    try:
        found = diarization.diarize((sound, 24000), diarization.embedder(encoder), background=known)
    except AudioError:  # too little speech in all of it to tell
        return []
    if len(found.speakers) < 2:
        return []
    shares = [_shares(found, span) for span in spans]
    most = Counter(max(share, key=lambda name: share[name]) for share in shares if share)
    own = most.most_common(1)[0][0]
    mixed = [
        clip.name for clip, share in zip(some, shares, strict=True) if sorted([0, *share.values()])[-2:][0] > SHARE
    ]
    other = [
        clip.name
        for clip, share in zip(some, shares, strict=True)
        if share and clip.name not in mixed and max(share, key=lambda name: share[name]) != own
    ]
    said = []
    if mixed:
        said.append(f"two speakers seem to be heard in {listed(mixed, NAMED)}")
    if other:
        said.append(f"another speaker than in the other clips seems to be heard in {listed(other, NAMED)}")
    return said


def _shares(found: diarization.Diarization, span: tuple[float, float]) -> dict[str, float]:
    """{speaker: share of the speech within a span of seconds}."""
    heard: dict[str, float] = {}
    for turn in found.turns:
        overlap = min(turn.end, span[1]) - max(turn.start, span[0])
        if overlap > 0:
            heard[turn.speaker] = heard.get(turn.speaker, 0.0) + overlap
    total = sum(heard.values())
    return {name: seconds / total for name, seconds in heard.items()}


def outliers(takes: Sequence[Take]) -> list[str]:
    """What the vectors say of clips that are unlike the others."""
    if len(takes) < 3:
        return []
    names = [takes[i].clip.name for i in average(mx.stack([take.vector for take in takes])).outliers]
    return [f"far from the others, another speaker or a bad recording: {listed(names, NAMED)}"] if names else []


def transcripts(takes: Sequence[Take], losses: Sequence[float]) -> list[str]:
    """What speaks against the texts: lengths that cannot be, losses far above the others'. losses: of each take."""
    said = [f"{take.clip.name}: {take.doubt}" for take in takes if take.doubt]
    if len(takes) >= 4:
        middle = statistics.median(losses)
        spread = 1.4826 * statistics.median(abs(loss - middle) for loss in losses)
        limit = middle + max(FAR * spread, LEAST * middle)
        names = [take.clip.name for take, loss in zip(takes, losses, strict=True) if loss > limit]
        if names:
            said.append(
                f"the model foresees these far worse than the others; is it their text?: {listed(names, NAMED)}"
            )
    elif len(takes) > 1 and np.ptp(losses) > LEAST * min(losses):
        worst = max(range(len(takes)), key=lambda i: losses[i])
        said.append(f"the model foresees {takes[worst].clip.name} far worse than the others; is it its text?")
    return said
