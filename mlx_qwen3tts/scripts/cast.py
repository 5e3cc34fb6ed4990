"""The cast: which voice a script's names speak with, as voices.json has it.

    {"narrator": "anna*0.7 + ben*0.3",
     "BEN": {"voice": "ben", "instruct": "softly", "rate": 0.95, "language": "English"}}

A name that is not in it is a library voice, a preset or a file of that name. Names are matched without regard to case.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import checks
from ..errors import InvalidValue, QwenTTSError, UnsupportedValue, VoiceNotFound, WrongType, naming, shortened
from ..files.text import read_text
from ..synthesis.languages import language_name
from ..synthesis.request import RATES
from ..synthesis.text import check_text
from ..voices.voice import Voice
from .script import Line, Script, Span

if TYPE_CHECKING:
    from ..cluster.remote import Speakers
    from ..synthesis.tts import Qwen3TTS

NARRATOR = "narrator"
KEYS = ("voice", "instruct", "rate", "language")


@dataclass(frozen=True)
class Part:
    """How one of the cast speaks. voice: a name or a blend expression, None for a voice that `instruct` describes."""

    voice: str | None = None
    instruct: str | None = None
    rate: float = 1.0
    language: str | None = None


class Cast:
    """Parts by name, and Voices by what scripts call them.

    resolve: function from a name or an expression to its Voice, such as `tts.voice`; it raises where there is none, and
    gives None where the model designs voices itself.
    """

    def __init__(self, parts: Mapping[str, Part], resolve: Callable[[str | None], Voice | None]) -> None:
        self.parts, self._resolve = {name.casefold(): part for name, part in parts.items()}, resolve
        self._voices: dict[str | None, Voice | None] = {}

    def voice(self, name: str | None) -> Voice | None:
        """The Voice of a name or an expression, found once."""
        if name not in self._voices:
            self._voices[name] = self._resolve(name)
        return self._voices[name]

    def check(self, script: Script) -> None:
        """Refuse a script of which somebody has no voice; the message names the line."""
        for line in script.lines:
            for span in line.spans:
                self.part(line, span)

    def check_model(self, script: Script, tts: Qwen3TTS | Speakers, language: str = "auto") -> None:
        """Refuse a script that a model cannot speak, before it has spoken anything: the message names the line.

        language: where the cast has none.
        """
        for line in script.lines:
            for span in line.spans:
                part = self.part(line, span)
                with naming(f"{line.unit} {line.number}"):
                    language_name(part.language or language, tts.languages)
                if part.instruct and not tts.takes_instruct:
                    way_out = "use VoiceDesign or 1.7B CustomVoice"
                    message = f"{line.unit} {line.number}: this model takes no instruction; {way_out}"
                    raise UnsupportedValue(message, param="instruct")

    def part(self, line: Line, span: Span) -> Part:
        """How a span of a line is spoken; its `voice` can be found by `voice`."""
        try:
            own = self._named(line.name) if line.name is not None else self._narrator(span)
            if span.voice is not None:
                named = self.parts.get(span.voice.casefold())
                if named is None:
                    self.voice(span.voice)
                    named = Part(span.voice)
                own = replace(own, voice=named.voice)
            if span.voice is None or span.voice.casefold() in self.parts:
                self.voice(own.voice)
        except QwenTTSError as error:
            if not str(error).startswith(f"{line.unit} "):
                error.args = (f"{line.unit} {line.number}: {error}",)
            raise
        return replace(own, instruct=span.instruct or own.instruct, rate=span.rate or own.rate)

    def _narrator(self, span: Span) -> Part:
        if NARRATOR not in self.parts:
            if span.voice is not None:
                return Part()
            message = "nobody is named who speaks: give --voice, or a voices.json with a narrator"
            raise InvalidValue(message, param="voice")
        return self.parts[NARRATOR]

    def _named(self, name: str) -> Part:
        if name.casefold() in self.parts:
            return self.parts[name.casefold()]
        for spelling in dict.fromkeys((name, name.lower())):
            try:
                self.voice(spelling)
            except VoiceNotFound:
                continue
            return Part(spelling)
        known = f"; the cast has {shortened(sorted(self.parts))}" if self.parts else ""
        raise VoiceNotFound(
            f"no voice for {name!r}: put it into voices.json, or write \\: where no name is meant{known}", param="voice"
        )


def read_cast(file: str | Path) -> dict[str, Part]:
    """{name: Part} of a voices.json; InvalidValue for what is not one."""
    path = checks.path(file, "voices")
    try:
        values = json.loads(read_text(str(path)), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, QwenTTSError):
            raise
        raise InvalidValue(f"cast {path} is not JSON: {error}", param="voices") from None
    return parts_of(values, f"cast {path}")


def parts_of(values: object, title: str = "the cast") -> dict[str, Part]:
    """{name: Part} of an object of names and voices, as voices.json has it. title: what messages call it."""
    if not isinstance(values, dict):
        raise InvalidValue(f"{title} is not an object of names and voices", param="voices")
    parts, seen = {}, set()
    for name, value in values.items():
        if name.casefold() in seen:
            raise InvalidValue(f"{title} has {name!r} twice", param="voices")
        seen.add(name.casefold())
        try:
            parts[name] = _part(value)
        except QwenTTSError as error:
            raise type(error)(f"{title}: {name}: {error}", param="voices") from None
    return parts


def _part(value: Any) -> Part:
    if isinstance(value, str):
        return Part(check_text(value, "voice", "voice"))
    if not isinstance(value, dict):
        raise WrongType(f"a voice is a name, an expression or an object, not {value!r}")
    if unknown := [key for key in value if key not in KEYS]:
        raise InvalidValue(f"a part has no {unknown[0]!r}; it has {', '.join(KEYS)}")
    words = {key: value.get(key) for key in ("voice", "instruct", "language")}
    for key, word in words.items():
        if word is not None:
            check_text(word, key, key)
    return Part(**words, rate=checks.number(value.get("rate", 1.0), "rate", *RATES))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without a key twice, of which JSON would keep the last."""
    for place, (key, _) in enumerate(pairs):
        if key in (other for other, _ in pairs[:place]):
            raise InvalidValue(f"the cast has {key!r} twice", param="voices")
    return dict(pairs)
