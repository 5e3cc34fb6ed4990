"""Who speaks: from what a Request has as its voice to the Voice, and whether the model can speak with it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx

from ..checkpoint.folder import ModelFolder
from ..checkpoint.presets import find_preset, preset_names
from ..errors import InvalidValue, UnsupportedValue, VoiceError
from ..voices.brought import brought
from ..voices.fit import KNOWN_NORMS, check_fit
from ..voices.library.library import Library
from ..voices.lookup import Lookup
from ..voices.presets import preset_voice
from ..voices.voice import Voice
from .planning import Notes

if TYPE_CHECKING:
    from .request import VoiceLike


class Casting:
    """Finds the Voices that a model speaks with. No weights need be loaded for it."""

    def __init__(self, folder: ModelFolder, dtype: mx.Dtype, library: Library) -> None:
        """dtype: what the talker computes in."""
        self.folder, self.config, self.dtype, self.library = folder, folder.config, dtype, library
        packaged, own = folder.folder / "voices", brought(self.config.talker.hidden_size)
        came = [Library(packaged) if packaged.is_dir() else None, own]
        more = [one for one in came if one is not None]
        self.lookup = Lookup(library, self._preset_or_none, list(self.config.talker.spk_id), brought=more)

    def preset(self, name: str) -> Voice:
        """The Voice of a preset, in the talker's dtype; VoiceNotFound where the model has none of this name."""
        return preset_voice(self.folder, name, self.dtype)

    def _preset_or_none(self, name: str) -> Voice | None:
        return self.preset(name) if find_preset(self.config, name) else None

    def resolve(self, voice: VoiceLike, notes: Notes, keep: str = "none") -> Voice | None:
        """The Voice that is meant, or None where the model designs it. Refuses what the model cannot speak with.

        keep: what a blend expression keeps of its parents, a radius that of the library's voice space.
        """
        kind = self.config.model_type
        if kind == "voice_design":
            if voice is not None:
                message = "a voice_design model has no speaker slot; describe the voice with instruct"
                raise UnsupportedValue(message, param="voice")
            return None
        if voice is None:
            ways = ", --embedding or --ref-audio"
            if kind != "base":
                ways = f" with one of {', '.join(self.config.talker.spk_id)}, or --embedding"
            raise InvalidValue(f"no voice given: give --voice (in Python voice=){ways}", param="voice")
        if isinstance(voice, str | Path):
            space = self.library.space(self.config.talker.hidden_size) if keep == "radius" else None
            if keep == "radius" and space is None:
                message = (
                    "keep radius needs a voice space, which takes a library with more voices; keep norm needs none"
                )
                raise InvalidValue(message, param="keep")
            voice = self.lookup.voice(voice, space, keep)
        elif not isinstance(voice, Voice):
            try:
                voice = Voice(voice)
            except VoiceError as error:
                raise VoiceError(f"embedding {error}", param="voice") from None
        notes += [note for note in voice.notes if note not in notes]  # which were warned of when it was made
        check_fit(voice, self.config.talker.hidden_size, kind, self._usual_norm, notes.warn)
        return voice

    @functools.cached_property
    def _usual_norm(self) -> float | None:
        """The mean norm of the model's voices, where it is known."""
        if presets := preset_names(self.config):
            rows = mx.stack([self.preset(name).embedding for name in presets])
            return float(mx.linalg.norm(rows, axis=-1).mean())
        return KNOWN_NORMS.get(self.config.talker.hidden_size)
