"""Cues spoken at their times: what does not fit is spoken faster, and what is still too long is reported.

The pieces come from the manifest as those of any script. Their places in time do not depend on each other, so nothing
drifts: a cue begins at its time, whatever was spoken before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..audio.level import HIGHEST
from ..audio.reference import SILENT, sounding
from ..audio.stretch import stretched
from ..errors import OutputError
from .cast import Cast
from .cues import Cue, Cues
from .manifest import Manifest
from .render import Finish, Rendered, Timeline, Track, is_folder
from .subtitles import Row
from .timeline import Piece

if TYPE_CHECKING:
    from ..synthesis.tts import Qwen3TTS

UNHEARD = 1.15  # above 1.2 listeners notice
MAX_RATE, FASTEST = 1.3, 2.0
SILENCE = 240_000  # samples of it that are written at once


@dataclass(frozen=True)
class Placed:
    """A cue as it is spoken. number: of the cue; start, end: of its speech, in seconds; speed: how many times as fast
    it was made; overflow: seconds beyond its time; too_long: characters to cut from it; rows: who says what when."""

    number: int
    start: float
    end: float
    speed: float
    overflow: float
    too_long: int
    rows: tuple[Row, ...]


@dataclass
class Dubbed(Rendered):
    """What came of a dubbing. placed: the cues by time; none where pieces are missing."""

    placed: list[Placed] = field(default_factory=list)


@dataclass(frozen=True)
class _Sound:
    """A cue's sound. pieces: their numbers; begin: in samples of the output, before the speech by the near-silence in
    front of it; peak: of all of it."""

    placed: Placed
    pieces: range
    begin: int
    peak: float


class Dubbing(Timeline):
    """Cues with their cast, to be spoken. max_rate: how many times as fast speech may be made to fit into its time, 1
    to 2; options: those of a Timeline."""

    def __init__(self, cues: Cues, cast: Cast, *, max_rate: float = MAX_RATE, **options: Any) -> None:
        self.cues, self.max_rate = cues, checks.number(max_rate, "max_rate", 1, FASTEST)
        self._placed: list[Placed] = []
        super().__init__(cues, cast, **options)

    def render(self, tts: Qwen3TTS, output: str | Path, **how: Any) -> Dubbed:
        """As `Timeline.render`, to one file. lines: a selection of cues by number."""
        path = checks.path(output, "output")
        if is_folder(path):
            raise OutputError(f"output {path}: a dubbing is one file, such as {path.name or 'dub'}.wav", param="output")
        self._placed = []
        return Dubbed(**vars(super().render(tts, path, **how)), placed=self._placed)

    def _write(
        self,
        path: Path,
        pieces: Sequence[Piece],
        words: list[str],
        manifest: Manifest,
        result: Rendered,
        finish: Finish,
    ) -> None:
        rate, track = manifest.sample_rate, Track(pieces, words, manifest, self.level)
        limits, cues = self.cues.limits(), {}
        for cue in self.cues.lines:
            cues.setdefault(cue.number, []).append(cue)
        sounds = []
        for number, group in groupby(range(len(pieces)), key=lambda place: pieces[place].line):
            first, *rest = group
            numbers = range(first, first + 1 + len(rest))
            sounds.append(_sound(cues[number], limits[number], self.max_rate, track, numbers, rate))
        self._placed = [sound.placed for sound in sounds]
        length = round(max(self.cues.end, *(placed.end for placed in self._placed)) * rate)
        finish.write(path, _mixed(sounds, track, length, rate), rate, length, range(len(pieces)))
        result.output, result.seconds = path, length / rate


def _sound(
    cues: Sequence[Cue], limit: float | None, max_rate: float, track: Track, numbers: range, rate: int
) -> _Sound:
    """Where the sound of some pieces lies. cues: those of one number, which the pieces say; limit: until when, in
    seconds, it may be heard."""
    start, names = cues[0].start, [track.pieces[number].name for number in numbers]
    blocks = list(track.blocks(numbers, lead=False))  # pieces, with a pause between any two
    edges = [0, *accumulate(block.size for block in blocks)]
    sound = np.concatenate(blocks)
    peak = float(np.abs(sound).max(initial=0))
    onset, over = sounding(sound, rate) if peak >= SILENT else (0, 0)
    seconds, room = (over - onset) / rate, math.inf if limit is None else limit - start
    speed = 1.0 if seconds <= room else max_rate if room <= 0 else min(seconds / room, max_rate)
    overflow, too_long = max(0.0, seconds / speed - room), 0
    if overflow * rate < 0.5:  # of a sample
        overflow = 0.0
    else:
        too_long = math.ceil(sum(len(cue.text) for cue in cues) * overflow * speed / seconds)

    def when(edge: int) -> float:
        return start + (min(max(edge, onset), over) - onset) / rate / speed

    rows, place = [], 0
    texts = [" ".join(cue.text for cue in some) for _, some in groupby(cues, key=lambda cue: cue.name)]
    for (name, some), text in zip(groupby(names), texts, strict=True):
        first, place = place, place + len(list(some))
        rows.append(Row(when(edges[2 * first]), when(edges[2 * place - 1]), name, text))
    placed = Placed(cues[0].number, start, start + seconds / speed, speed, overflow, too_long, tuple(rows))
    return _Sound(placed, numbers, round(start * rate) - round(onset / speed), peak)


def shares(sounds: Sequence[_Sound]) -> np.ndarray:
    """A factor for each sound, by which it is turned down where it and what is spoken meanwhile could clip together."""
    starts, ends = (np.array([getattr(one.placed, name) for one in sounds]) for name in ("start", "end"))
    peaks = np.array([one.peak for one in sounds])
    by_start, by_end = np.argsort(starts, kind="stable"), np.argsort(ends, kind="stable")
    begun, ended = (np.concatenate([[0.0], np.cumsum(peaks[order])]) for order in (by_start, by_end))
    # All that begin before one ends, without those that end before it begins.
    together = begun[np.searchsorted(starts[by_start], ends)] - ended[np.searchsorted(ends[by_end], starts, "right")]
    alone = together <= peaks + 1e-6
    return np.where(alone | (together <= HIGHEST), 1.0, HIGHEST / np.maximum(together, HIGHEST))


def _mixed(sounds: Sequence[_Sound], track: Track, length: int, rate: int) -> Iterator[np.ndarray]:
    """The samples of the output, block by block: what is spoken at once added up, and silence between."""
    factors = shares(sounds)
    at, held = 0, np.zeros(0, np.float32)  # of `held` on, which later sounds may be added to
    for place in sorted(range(len(sounds)), key=lambda place: sounds[place].begin):
        one = sounds[place]
        sound = np.concatenate(list(track.blocks(one.pieces, lead=False))) * np.float32(factors[place])
        if one.placed.speed != 1:
            sound = stretched(sound, rate, one.placed.speed)
        begin, sound = max(one.begin, 0), sound[max(-one.begin, 0) :]
        ready = held[: begin - at]
        yield ready
        held, at = held[ready.size :], at + ready.size
        yield from _silence(begin - at)
        at = begin
        held = np.pad(held, (0, max(0, sound.size - held.size)))
        held[: sound.size] += sound
    yield held[: length - at]
    yield from _silence(length - at - held.size)


def _silence(samples: int) -> Iterator[np.ndarray]:
    for start in range(0, samples, SILENCE):
        yield np.zeros(min(SILENCE, samples - start), np.float32)
