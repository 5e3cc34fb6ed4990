"""What diarization says: turns, speakers with their vectors, and how this is written (RTTM, JSON).

K speakers, N windows, D dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..audio.regions import RATE


@dataclass(frozen=True)
class Turn:
    """From start to end, in seconds, a speaker talks."""

    start: float
    end: float
    speaker: str


@dataclass(frozen=True, eq=False, repr=False)
class Diarization:
    """turns: sorted by start; speakers: {name: vector mx.array [D]}, in the order they appear; duration in seconds."""

    turns: list[Turn]
    speakers: dict[str, mx.array]
    duration: float

    def __post_init__(self) -> None:
        mx.eval(self.speakers)  # so that any thread can use them

    def __repr__(self) -> str:
        count, turns = len(self.speakers), len(self.turns)
        return (
            f"Diarization({count} speaker{'s' * (count != 1)}, {turns} turn{'s' * (turns != 1)}, {self.duration:.1f} s)"
        )

    @property
    def seconds(self) -> dict[str, float]:
        """{name: how long each speaks}."""
        told = dict.fromkeys(self.speakers, 0.0)
        for turn in self.turns:
            told[turn.speaker] += turn.end - turn.start
        return told

    @property
    def overlaps(self) -> list[tuple[float, float]]:
        """[(start, end)] where two speak at once."""
        found, until = [], 0.0
        for turn in self.turns:
            if turn.start < until:
                found.append((turn.start, min(turn.end, until)))
            until = max(until, turn.end)
        return found

    def as_dict(self) -> dict[str, Any]:
        """What JSON holds: duration, each speaker's seconds, share of all speech and number of turns, and the turns."""
        seconds, total = self.seconds, sum(self.seconds.values())
        speakers = {
            name: {
                "seconds": round(seconds[name], 3),
                "share": round(seconds[name] / total, 4),
                "turns": sum(turn.speaker == name for turn in self.turns),
            }
            for name in self.speakers
        }
        return {"duration": self.duration, "speakers": speakers, "turns": [asdict(turn) for turn in self.turns]}

    def rttm(self, uri: str = "recording") -> str:
        """The turns in NIST's Rich Transcription Time Marked format, a line each; whitespace in `uri` becomes _."""
        uri = "_".join(str(uri).split()) or "recording"
        rows = ((turn.start, turn.end - turn.start, turn.speaker) for turn in self.turns)
        return "".join(f"SPEAKER {uri} 1 {at:.3f} {length:.3f} <NA> <NA> {who} <NA> <NA>\n" for at, length, who in rows)


def gathered(
    pieces: Iterable[tuple[float, float, int]], spans: np.ndarray, vectors: np.ndarray, duration: float
) -> Diarization:
    """A Diarization of pieces [(first, end, speaker)] in samples, sorted; those of a speaker that touch are one turn.

    A speaker's vector is the mean of the windows (spans [N, 2], vectors [N, D]) in which no other speaks.
    """
    turns: list[tuple[float, float, int]] = []
    last: dict[int, int] = {}  # the place of each speaker's last turn
    for first, end, k in pieces:
        if k in last and first <= turns[last[k]][1]:
            turns[last[k]] = (turns[last[k]][0], end, k)
        else:
            last[k] = len(turns)
            turns.append((first, end, k))
    alone = {k: np.zeros(len(spans)) for k in last}  # samples of each window in which k alone speaks
    for first, end, k in turns:
        within = np.clip(np.minimum(spans[:, 1], end) - np.maximum(spans[:, 0], first), 0, None)
        for other in alone:
            alone[other] += within if other == k else -within
    lengths = np.diff(spans)[:, 0]
    names = {k: f"speaker_{i + 1}" for i, k in enumerate(last)}
    speakers = {}
    for k, name in names.items():
        share = alone[k] / lengths
        speakers[name] = mx.array(vectors[share >= min(0.95, share.max())].mean(axis=0))
    found = [Turn(round(float(first) / RATE, 3), round(float(end) / RATE, 3), names[k]) for first, end, k in turns]
    return Diarization(found, speakers, round(duration, 3))
