"""Where a speech comes from, as the tags of its file say it: that a model spoke it, which one, and in whose voice.

The comment is for people and programs. Its first line says that the speech is synthetic; each of the others is
`name: value`. A `voice` begins another voice, to which the lines up to the next one belong:

    Synthetic speech: made by a model, not recorded from a person.
    software: mlx_qwen3tts 0.1.0
    source: http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia
    model: Qwen/Qwen3-TTS-12Hz-0.6B-Base
    seed: 1
    voice: 0.7*anna + 0.3*ben
    fingerprint: 0f1e2d3c4b5a6978
    recipe: {"expression": "0.7*anna + 0.3*ben", …}
    consent: given
    license: CC-BY-4.0

There is no time among them: the same request gives the same bytes. The text is there only where somebody asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from .. import __version__
from ..audio.tags import Tags
from ..errors import QwenTTSError
from ..files.json_text import json_text
from ..voices.library.rights import strictest_license
from ..voices.lookup import fingerprint
from ..voices.metadata import plain
from ..voices.voice import Voice

SYNTHETIC = "Synthetic speech: made by a model, not recorded from a person."
# The IPTC's word for what a trained model has made, which C2PA uses too.
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SOFTWARE = f"mlx_qwen3tts {__version__}"
LONGEST_RECIPE, LONGEST_NAME, LONGEST_TEXT = 4000, 1000, 1_000_000  # characters
MOST_VOICES = 100  # of a script
LONGEST_HEADER = 2000  # characters; some proxies take 4096 for all headers together
OF_VOICE = ("fingerprint", "recipe", "consent", "license")


@dataclass(frozen=True)
class Credit:
    """A voice that is heard. voice: its name, or the expression that it was made by; fingerprint: of its vector, as
    recipes have it; recipe: how it was made, as JSON; consent, license: as they were entered. None: there is none."""

    voice: str
    fingerprint: str | None = None
    recipe: str | None = None
    consent: str | None = None
    license: str | None = None

    @classmethod
    def of(cls, voice: Voice | None, instruct: str | None = None) -> Credit:
        """The Credit of a Voice, or of one that the model designs by an instruction."""
        if voice is None:
            return cls("designed by the model", recipe=None if instruct is None else _recipe({"prompt": instruct}))
        digits, recipe = fingerprint(voice.embedding), _without_folders(voice.recipe)
        name = str(recipe.get("expression") or voice.name or f"vector {digits}")
        text = _recipe(recipe) if recipe else None
        consent, license = (None if value is None else _line(value) for value in (voice.consent, voice.license))
        return cls(_line(name, LONGEST_NAME), digits, text, consent, license)


@dataclass(frozen=True)
class Origin:
    """What a speech comes from. model: its name; voices: each once, in the order in which they are heard; seed: None
    where there is not one alone; text: what is spoken, None where nobody knows it as a whole."""

    model: str
    voices: tuple[Credit, ...] = ()
    seed: int | None = None
    text: str | None = None

    @classmethod
    def of(
        cls,
        model: str,
        voices: Iterable[tuple[Voice | None, str | None]],
        seed: int | None = None,
        text: str | None = None,
    ) -> Origin:
        """The Origin of a speech in several voices, each with the instruction that designs it where it is None."""
        known: dict[tuple[int, str | None], Voice | None] = {}
        for voice, instruct in voices:
            known.setdefault((id(voice), None if voice is not None else instruct), voice)
        credits = (Credit.of(voice, instruct) for (_, instruct), voice in known.items())
        return cls(model, tuple(dict.fromkeys(credits)), seed, text)

    @classmethod
    def joined(cls, parts: Sequence[Origin], seed: int | None = None, text: str | None = None) -> Origin:
        """The Origin of several speeches in a row. seed: that all of them were begun with; else one has its own."""
        voices = dict.fromkeys(voice for part in parts for voice in part.voices)
        seed = parts[0].seed if seed is None and len(parts) == 1 else seed
        return cls(parts[0].model, tuple(voices), seed, text)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Origin:
        """What `as_dict` was called of."""
        return cls(**{**values, "voices": tuple(Credit(**one) for one in values["voices"])})

    def as_dict(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return asdict(self)

    def header(self) -> str | None:
        """It in a line of ASCII for an answer over HTTP, without the text; None where it is too long for one."""
        whole = {**self.as_dict(), "text": None}
        short = {**whole, "voices": [{**one, "recipe": None} for one in whole["voices"]]}
        return next((line for line in map(json_text, (whole, short)) if len(line) <= LONGEST_HEADER), None)

    @classmethod
    def from_header(cls, line: str | None) -> Origin | None:
        """What a server said by `header`; None where it said nothing that can be read."""
        try:
            values = json.loads(line or "null")
            return None if values is None else cls.from_dict(values)
        except (ValueError, TypeError, KeyError, RecursionError):  # of a server of another version
            return None

    def tags(self, text: bool = False) -> Tags:
        """The tags of a file; text: whether they have the text too."""
        lines = [SYNTHETIC, f"software: {SOFTWARE}", f"source: {SOURCE}", f"model: {_line(self.model)}"]
        lines += [] if self.seed is None else [f"seed: {self.seed}"]
        for one in self.voices[:MOST_VOICES]:
            told = [(name, getattr(one, name)) for name in OF_VOICE]
            lines += [f"voice: {one.voice}", *(f"{name}: {value}" for name, value in told if value is not None)]
        if len(self.voices) > MOST_VOICES:
            lines.append(f"voices: {len(self.voices) - MOST_VOICES} more")
        if text and self.text is not None:
            lines.append(f"text: {_line(self.text, LONGEST_TEXT)}")
        license = None
        if any(one.license is not None for one in self.voices):
            license = strictest_license([one.license for one in self.voices])
        return Tags("\n".join(lines), SOFTWARE, license)


def read_comment(comment: str) -> dict[str, Any] | None:
    """What a comment of ours says: {"software", "source", "model", "seed", "voices": [{"voice", …}], "text"}, of each
    what it has; None for a comment of somebody else's."""
    first, *lines = comment.splitlines() or [""]
    if first.strip() != SYNTHETIC:
        return None
    told: dict[str, Any] = {"voices": []}
    for line in lines:
        name, colon, value = line.partition(": ")
        if not colon:
            continue
        if name == "voice":
            told["voices"].append({"voice": value})
        elif name in OF_VOICE and told["voices"]:
            told["voices"][-1][name] = _value(value) if name == "recipe" else value
        elif name == "seed":
            told["seed"] = int(value) if value.isdecimal() and len(value) < 20 else value
        elif name != "voices":
            told[name] = value
    return told


def _value(text: str) -> Any:
    """A recipe's JSON, or the text itself where somebody has changed it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _line(value: str, most: int = LONGEST_NAME) -> str:
    """A text as one line that every format can hold."""
    text = "".join(char if char.isprintable() else " " for char in value.encode("utf-8", "replace").decode())
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _recipe(recipe: Mapping[str, Any]) -> str | None:
    """A recipe as JSON. Where that is too long, without the recipes of its parents; None where it still is."""
    parents = [{key: value for key, value in one.items() if key != "recipe"} for one in recipe.get("parents", ())]
    for shorter in (recipe, {**recipe, "parents": parents}):
        try:
            text = json_text(shorter)
        except QwenTTSError:  # a number that JSON does not have
            return None
        if len(text) <= LONGEST_RECIPE:
            return text
    return None


def _without_folders(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a recipe in which files are named without the way to them, which is nobody's business."""
    made = plain(recipe)
    parents = [one for one in made.get("parents", []) if isinstance(one.get("name"), str)]
    for one in parents:
        name = one["name"]
        short = PurePath(name).stem
        if "/" in name and short:
            one["name"] = short
            if isinstance(made.get("expression"), str):
                made["expression"] = made["expression"].replace(name, short)
        if isinstance(one.get("recipe"), dict):
            one["recipe"] = _without_folders(one["recipe"])
    return made
