"""Who can speak here: names, aliases, recordings and vectors to Voices. Runs in the engine's thread.

Names are names: nothing a client sends is ever opened as a path.
"""

from __future__ import annotations

import collections
import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from ..audio.reading import LONGEST
from ..audio.upload import read_upload
from ..errors import DirectionNotFound, InvalidValue, QwenTTSError, VoiceNotFound
from ..networks.speaker.mel import SAMPLE_RATE
from ..voices.brought import brought
from ..voices.directions.direction import Direction
from ..voices.fit import check_refused
from ..voices.library.library import Library
from ..voices.library.names import ALIASES as ALIASES_FILE
from ..voices.library.rights import REFUSED
from ..voices.lookup import Lookup
from ..voices.voice import Voice
from .roster import Roster

if TYPE_CHECKING:
    from ..synthesis.tts import Qwen3TTS

log = logging.getLogger(__name__)

ALIASES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # OpenAI's names, which some of its clients insist on  # fmt: skip
KEPT = 32  # voices of recordings that are kept for the next request


@dataclass(frozen=True, eq=False)
class Recording:
    """samples [n] float32 at the encoder's rate; digest: of the bytes that they came as."""

    samples: np.ndarray
    digest: str

    @classmethod
    def read(cls, data: bytes) -> Recording:
        """A recording's bytes, decoded. Takes its time, and no MLX: in a thread that nobody waits for."""
        try:
            return cls(read_upload(data, SAMPLE_RATE, LONGEST), hashlib.sha256(data).hexdigest())
        except QwenTTSError as error:
            error.param = error.param or "ref_audio"
            raise


class Voices:
    """The voices of a server: its library's, the model's presets, those that came with the model, and aliases."""

    def __init__(self, tts: Qwen3TTS, library: Library, default: str | None = None) -> None:
        self.tts, self.library, self.default = tts, library, default
        packaged = tts.folder.folder / "voices"
        self.packaged = Library(packaged) if packaged.is_dir() else None
        self.brought = [one for one in (self.packaged, brought(tts.embedding_dim)) if one is not None]
        presets = [*(self.packaged.names if self.packaged is not None else []), *tts.speakers]
        self.lookup = Lookup(library, self._preset, presets, files=False, brought=self.brought)
        self.roster = Roster(library, self.packaged, tts.speakers, self._preset, tts.embedding_dim)
        self._passed: set[str] = set()  # directions that cannot be read
        self._heard: collections.OrderedDict[tuple[str, str | None], Voice] = collections.OrderedDict()

    def kept_in(self, name: str) -> Library | None:
        """The library that has a voice: the server's, or what came with the model; None for presets and others."""
        if name in self.library:
            return self.library
        return self.packaged if self.packaged is not None and name in self.packaged else None

    def _preset(self, name: str) -> Voice | None:
        """What the model brings along under a name."""
        if self.packaged is not None and name in self.packaged:
            return self.packaged[name]
        return self.tts.casting.lookup.preset(name) if self.tts.casting.lookup.preset else None

    @property
    def names(self) -> list[str]:
        """Every name, the library's first."""
        own = self.library.names
        more = [*(self.packaged.names if self.packaged is not None else []), *self.tts.speakers]
        return [*own, *(name for name in more if name not in own)]

    @property
    def directions(self) -> list[str]:
        """Names of the directions, the library's first."""
        return list(dict.fromkeys(name for one in (self.library, *self.brought) for name in one.directions))

    def read_directions(self) -> dict[str, Direction]:
        """{name: Direction} of those that can be read. One that cannot is logged, once, and keeps nobody from the
        others."""
        found: dict[str, Direction] = {}
        for name in self.directions:
            try:
                found[name] = self.lookup.direction(name)
            except DirectionNotFound:  # another program has deleted it since
                continue
            except QwenTTSError as error:
                if name not in self._passed:
                    self._passed.add(name)
                    log.warning("passed over: %s", error)
        return found

    def aliases(self) -> dict[str, str]:
        """{OpenAI's name: a voice here}: those of aliases.json in the library, and where there is no such file spread
        over the voices in the order of their names. A voice that has such a name itself is no alias."""
        names = self.names
        try:
            chosen = json.loads((self.library.folder / ALIASES_FILE).read_text("utf-8"))
        except FileNotFoundError:
            chosen = {alias: sorted(names)[i % len(names)] for i, alias in enumerate(ALIASES)} if names else {}
        except ValueError as error:
            raise InvalidValue(f"{ALIASES_FILE} of the library is not JSON: {error}") from None
        if not isinstance(chosen, dict) or not all(isinstance(voice, str) for voice in chosen.values()):
            raise InvalidValue(f"{ALIASES_FILE} of the library is not an object of names")
        return {alias: voice for alias, voice in chosen.items() if alias not in names}

    def named(self, name: str) -> Voice:
        """The Voice of a name, an alias or a blend expression. VoiceNotFound, ExpressionError."""
        voice = self.lookup.voice(self.aliases().get(name, name))
        check_refused(voice, name)
        return voice

    def blend(self, expression: str, keep: str) -> Voice:
        """The Voice of an expression; keep: as of `algebra.blend`, in the library's space for "radius"."""
        space = self.library.space(self.tts.embedding_dim) if keep == "radius" else None
        return self.lookup.voice(expression, space, keep)

    @property
    def usual_name(self) -> str | None:
        """What the voice is called that speaks where nobody is named: the first whose owner has not refused. None where
        the model designs its voices; VoiceNotFound where there is none."""
        if self.tts.model_type == "voice_design":
            return None
        if self.default is not None:
            return self.default
        for name in self.names:
            voice = self.lookup.named(name)
            if voice is not None and voice.consent != REFUSED:  # None: it was deleted just now
                return name
        raise VoiceNotFound("no voice is named, and the server has none; add one to its library", param="voice")

    def usual(self) -> Voice | None:
        """Who speaks where nobody is named; None where the model designs its voices."""
        name = self.usual_name
        return None if name is None else self.named(name) if name == self.default else self.lookup.voice(name)

    def of_vector(self, values: list[float]) -> Voice:
        """The Voice of a list of numbers."""
        try:
            return Voice(mx.array(values, mx.float32))
        except QwenTTSError as error:
            error.param = "speaker_embedding"
            raise

    def of_recording(self, recording: Recording, ref_text: str | None = None) -> Voice:
        """The Voice of a recording, with its transcript to be cloned in context; kept for the next time."""
        key = recording.digest, ref_text
        if key in self._heard:
            self._heard.move_to_end(key)
            return self._heard[key]
        try:
            voice = self._heard[key] = self.tts.clone((recording.samples, SAMPLE_RATE), ref_text)
        except QwenTTSError as error:
            error.param = error.param or "ref_audio"
            raise
        while len(self._heard) > KEPT:
            self._heard.popitem(last=False)
        return voice


def open_library(folder: Path) -> Library:
    """The library of a server; a folder that is not there yet is made when the first voice is kept."""
    return Library(folder)
