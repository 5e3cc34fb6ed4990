"""What a speech was made from, as one word, by which an unfinished batch knows what it has made already."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..files.json_text import json_text
from .planning import Notes
from .request import Request


class Speaker(Protocol):
    """A Qwen3TTS, or what stands for one and resolves voices as its planner does."""

    @property
    def planner(self) -> Any: ...

    @property
    def adapted(self) -> str | None: ...


def identities(tts: Speaker, requests: Sequence[Request], *model: str | None) -> list[str]:
    """A word for each Request that changes with all that its speech depends on.

    model: what the model was loaded from, and what else counts. The voice counts by its values, so that a file of the
    same name with another voice is another speech. A seed that is left to chance is the same as another one.
    """
    model = (*model, tts.adapted) if tts.adapted else model
    voices: dict[str, str] = {}
    words = []
    for one in requests:
        key = f"{one.voice if isinstance(one.voice, str) else id(one.voice)} {one.keep}"
        if key not in voices:
            voice = tts.planner.resolve(one.voice, Notes(quiet=True), one.keep)
            codes = None if voice is None or voice.ref_codes is None else np.array(voice.ref_codes).tolist()
            values = [] if voice is None else [np.array(voice.embedding).tolist(), voice.ref_text, codes]
            voices[key] = hashlib.sha256(json_text(values).encode()).hexdigest()
        own = [one.text, one.language, one.instruct, one.text_mode, one.seed, repr(one.sampling), one.rate]
        own += [one.guard] if one.guard else []
        words.append(hashlib.sha256(json_text([model, voices[key], own]).encode()).hexdigest())
    return words
