"""What a rendering costs: how long this machine computes for a second of sound, as far as that has been measured."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError
from ..files.json_text import json_text
from ..files.output import whole_file

if TYPE_CHECKING:
    from ..synthesis.request import Request
    from ..synthesis.speech import Speech
    from ..synthesis.tts import Qwen3TTS

FILE = "speed.json"  # in the folder of the pieces
TRIED, FRAMES = 8, 125  # pieces of a calibration, frames of each: 10 s


@dataclass(frozen=True)
class Pace:
    """sound: seconds that were spoken; computing: seconds that it took; model: which one, as the user named it."""

    sound: float
    computing: float
    model: str = ""

    @property
    def rtf(self) -> float:
        """Seconds of computing for a second of sound."""
        return self.computing / self.sound


def measured(folder: Path, model: str | None = None) -> Pace | None:
    """The Pace of earlier renderings with their pieces in a folder; None where none is known, or of another model."""
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
        pace = Pace(float(values["sound"]), float(values["computing"]), str(values["model"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if model is not None and pace.model.partition(" ")[0] != model:
        return None
    return pace if pace.sound > 0 and pace.computing > 0 else None


class Stopwatch:
    """Counts sound and computing from when it is made; `keep` adds them to what a folder knows of this model."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.model = folder, model
        self.sound, self.start, self.end = 0.0, time.perf_counter(), 0.0

    def count(self, seconds: float) -> None:
        """So much sound has come."""
        self.sound, self.end = self.sound + seconds, time.perf_counter()

    def keep(self) -> None:
        """Called once at the end; what is computed behind the last sound does not count, as it is not known."""
        if not self.sound:
            return
        before = measured(self.folder)
        sound, computing = self.sound, self.end - self.start
        if before is not None and before.model == self.model:
            sound, computing = sound + before.sound, computing + before.computing
        values = {"model": self.model, "sound": round(sound, 3), "computing": round(computing, 3)}
        with contextlib.suppress(OutputError), whole_file(self.folder / FILE) as temporary:
            # On a full disk whatever is being raised says so; an estimate is not worth another error.
            temporary.write_text(json_text(values), encoding="utf-8")


def calibrate(tts: Qwen3TTS, requests: Sequence[Request], batch_size: int, model: str = "") -> Pace:
    """The Pace of a few Requests, as many at once as a rendering would have, each cut after some seconds.

    A first one is spoken before the clock starts: what compiles then is not computed again.
    """
    chosen = requests[:: max(1, len(requests) // TRIED)][:TRIED]
    short = [replace(one, sampling=replace(one.sampling, max_tokens=FRAMES + 1)) for one in chosen]
    tts.generate_each([replace(short[0], sampling=replace(short[0].sampling, max_tokens=13))], lambda *_: None)
    spoken: list[float] = []

    def heard(number: int, speech: Speech) -> None:
        spoken.append(speech.audio.size / tts.sample_rate)

    start = time.perf_counter()
    tts.generate_each(short, heard, batch_size=batch_size)
    return Pace(sum(spoken), time.perf_counter() - start, model)
