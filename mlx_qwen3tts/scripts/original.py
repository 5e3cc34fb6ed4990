"""The cast of a dubbing from the original recording: who speaks when in it, with whose voice.

A folder keeps what was found: a voice file for each speaker, voices.json with their names, and at last turns.json with
who speaks when. It is made once. What is there is read again, with all that was changed in it by hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from .. import checks
from ..audio.reading import open_recording
from ..audio.regions import FRAME, RATE, blocks, levels
from ..checkpoint import hub
from ..checkpoint.speaker import SpeakerEncoder
from ..diarization import Diarization, Turn, background, diarize, embedder
from ..errors import InvalidValue, OutputError
from ..files.json_text import json_text
from ..files.output import whole_file
from ..voices.library.rights import check_consent
from ..voices.metadata import RECORDING, recording_of
from ..voices.voice import Voice
from .cues import Cue

if TYPE_CHECKING:
    from collections.abc import Iterable

TURNS, CAST = "turns.json", "voices.json"
ENOUGH, LEAST = 15.0, 1.0  # seconds of a voice: wanted, and below which the windows of the diarization are its vector
EDGE = 15  # frames of 10 ms off both ends of a turn, where somebody else may still be heard
AROUND = 150  # frames to either side, in whose pauses the noise is measured


@dataclass(frozen=True)
class Original:
    """Who speaks when in a recording. turns: by their start; cast: the path of the voices' map; made: whether it was
    made just now."""

    turns: tuple[Turn, ...]
    cast: Path
    made: bool

    def speaker(self, cue: Cue) -> tuple[str, float]:
        """(who speaks most during a cue, or nearest to it, seconds from there to the cue)."""
        starts, ends = self._times()
        shares = np.minimum(ends, cue.end) - np.maximum(starts, cue.start)  # below 0: how far away
        if shares.max() <= 0:
            return self.turns[int(shares.argmax())].speaker, float(-shares.max())
        spoken: dict[str, float] = {}
        for place in np.flatnonzero(shares > 0).tolist():
            name = self.turns[place].speaker
            spoken[name] = spoken.get(name, 0.0) + float(shares[place])
        return max(spoken, key=lambda name: spoken[name]), 0.0

    def _times(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([turn.start for turn in self.turns]), np.array([turn.end for turn in self.turns])


def read_original(
    source: str | Path,
    folder: Path,
    model: str,
    *,
    num_speakers: int | None = None,
    consent: str | None = None,
    license: str | None = None,
    progress: Callable[[float], object] | None = None,
) -> Original:
    """The Original of a recording, from what a folder keeps, else found and kept there.

    model: whose speaker encoder hears the voices; num_speakers: where that is known; consent, license: entered into
    the voices; progress: called with the seconds of the recording just gone through.
    """
    if consent is not None:
        check_consent(consent)
    if num_speakers is not None:
        checks.whole(num_speakers, "num_speakers", 1)
    open_recording(source).close()
    asked = {"sha256": _digest(Path(source)), "num_speakers": num_speakers}
    given = {"consent": consent, "license": license}
    rights: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if (folder / TURNS).exists():
        turns = _read_turns(folder / TURNS, asked)
        for file in {folder / f"{turn.speaker}.safetensors" for turn in turns} if rights else ():
            if file.exists():
                Voice.load(file).replace(**rights).save(file)
        return Original(turns, folder / CAST, False)
    place = hub.resolve(model, hub.ALONE)
    encoder = SpeakerEncoder(place)
    known = None if num_speakers is not None else background(encoder.network.dimension, place)
    found = diarize(
        source,
        embedder(encoder.network),
        background=known,
        num_speakers=num_speakers,
        overlap=True,
        progress=progress,
    )
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from None
    for name, (vector, seconds) in heard(source, found, encoder).items():
        told = {RECORDING: recording_of(source), "speaker": name, "seconds": f"{seconds:.1f}"}
        Voice(vector, source_model=encoder.source, other=told, **rights).save(folder / f"{name}.safetensors")
    _write(folder / CAST, {name: str(folder / f"{name}.safetensors") for name in found.speakers})
    _write(folder / TURNS, {RECORDING: recording_of(source), **asked, "turns": [asdict(turn) for turn in found.turns]})
    return Original(tuple(found.turns), folder / CAST, True)


def heard(source: str | Path, found: Diarization, encoder: SpeakerEncoder) -> dict[str, tuple[mx.array, float]]:
    """{speaker: (x-vector [D] of where each is heard best, seconds of that)}."""
    level, _ = levels(blocks(source))
    spans = {name: cleanest(name, found.turns, level) for name in found.speakers}
    sounds = _gathered(blocks(source), sorted(span for own in spans.values() for span in own))
    voices = {}
    for name, vector in found.speakers.items():
        samples = np.concatenate([np.zeros(0, np.float32), *(sounds[span] for span in spans[name])])
        if samples.size >= LEAST * RATE:
            vector = encoder.network.embed(mx.array(samples))
            mx.eval(vector)
        voices[name] = (vector, samples.size / RATE)
    return voices


def cleanest(name: str, turns: Sequence[Turn], level: np.ndarray) -> list[tuple[int, int]]:
    """[(first, end)] in samples: where one speaks alone and stands out most from the noise around, up to ENOUGH.

    level [frames] dB: of every 10 ms.
    """
    alone = np.zeros(level.size, np.int32)
    for turn in turns:
        first, end = round(turn.start * 100), round(turn.end * 100)
        if turn.speaker == name:
            alone[first + EDGE : max(end - EDGE, 0)] += 1
        else:
            alone[first:end] -= level.size
    edges = np.flatnonzero(np.diff((alone > 0).astype(np.int8), prepend=0, append=0)).reshape(-1, 2).tolist()

    def clear(span: Sequence[int]) -> float:
        """How many dB the speech of a span lies above the noise."""
        first, end = span
        return float(np.median(level[first:end]) - np.quantile(level[max(0, first - AROUND) : end + AROUND], 0.1))

    chosen, wanted = [], round(ENOUGH * 100)
    for first, end in sorted(edges, key=clear, reverse=True):
        end = min(end, first + wanted)
        chosen.append((first * FRAME, end * FRAME))
        wanted -= end - first
        if wanted <= 0:
            break
    return chosen


def _gathered(pieces: Iterable[np.ndarray], spans: Sequence[tuple[int, int]]) -> dict[tuple[int, int], np.ndarray]:
    """The samples of spans (first, end) of a recording's blocks."""
    found: dict[tuple[int, int], list[np.ndarray]] = {span: [] for span in spans}
    at = 0
    for piece in pieces:
        for first, end in spans:
            if first < at + piece.size and end > at:
                found[first, end].append(piece[max(0, first - at) : end - at].copy())
        at += piece.size
    return {span: np.concatenate(parts) for span, parts in found.items()}


def _digest(path: Path) -> str:
    made = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            made.update(block)
    return made.hexdigest()


def _write(path: Path, value: Any) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json_text(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_turns(path: Path, asked: dict[str, Any]) -> tuple[Turn, ...]:
    """The turns of a file that was made of the same recording; InvalidValue for anything else."""
    way_out = f"remove {path.parent} to hear the recording again"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        made = {key: values[key] for key in asked}
        turns = [Turn(float(turn["start"]), float(turn["end"]), str(turn["speaker"])) for turn in values["turns"]]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise InvalidValue(f"{path} is damaged; {way_out}", param="from_audio") from None
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror or error}", param="from_audio") from None
    if made["sha256"] != asked["sha256"]:
        raise InvalidValue(f"{path} is of another recording; {way_out}", param="from_audio")
    if asked["num_speakers"] not in (None, made["num_speakers"]):
        raise InvalidValue(f"{path} was made with another --num-speakers; {way_out}", param="num_speakers")
    if not turns:
        raise InvalidValue(f"{path} has no turns; {way_out}", param="from_audio")
    return tuple(sorted(turns, key=lambda turn: turn.start))
