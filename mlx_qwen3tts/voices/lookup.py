"""From what a user calls a voice to the Voice: file, library voice, preset, blend expression."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ..errors import DirectionNotFound, QwenTTSError, VoiceNotFound, shortened
from .algebra import check_keep, restore
from .directions.direction import Direction
from .expression import ExpressionError, Form, Name, Sum, parse, reduce
from .library.rights import inherited
from .voice import SUFFIXES, Voice, check_file, differ

if TYPE_CHECKING:
    from .library.library import Library
    from .space import VoiceSpace

SHARED = ("source_model", "language")  # metadata that a blend takes over where its parents agree


@dataclass(eq=False)
class Offset:
    """What an expression whose weights sum to zero makes: step [D], evaluated; direction: the Direction that it is a
    multiple of, or None; place: where it stands in the text."""

    step: mx.array
    direction: Direction | None
    place: int


class Lookup:
    """Finds voices and directions by name.

    library: Library or None; preset: function from a name to a preset's Voice or None; presets: their names, for
    messages.
    """

    def __init__(
        self,
        library: Library | None = None,
        preset: Callable[[str], Voice | None] | None = None,
        presets: Iterable[str] = (),
    ) -> None:
        self.library, self.preset, self.presets = library, preset, list(presets)

    def voice(self, text: str | Path | Sum, space: VoiceSpace | None = None, keep: str = "none") -> Voice:
        """The Voice that a string means: a file, a library voice, a preset, or a blend expression of them.

        keep, space: as for `algebra.blend`, for what an expression makes. VoiceNotFound for a name that is none of
        them, ExpressionError for an expression that cannot be read or names what is not there.
        """
        found = self.find(text, space, keep)
        if isinstance(found, Offset):
            raise ExpressionError(
                "its weights sum to zero: that is an offset, not a voice; add it to one", str(text), found.place
            )
        return found

    def find(self, text: str | Path | Sum, space: VoiceSpace | None = None, keep: str = "none") -> Voice | Offset:
        """As `voice`, but an expression whose weights sum to zero gives an Offset."""
        text = str(text)
        voice = self.named(text)
        if voice is not None:
            return voice
        if not any(sign in text for sign in ("+", "*", "@", "(", ")", ",", ":", '"', " -")):
            raise self._unknown(text)
        return self._evaluate(parse(text), text, space, keep)

    def named(self, name: str) -> Voice | None:
        """The voice of a file, of the library or of a preset, in this order, or None."""
        if _is_file(name):
            return Voice.load(name)
        if self.library is not None and name in self.library:
            return self.library[name]
        return self.preset(name) if self.preset else None

    def _unknown(self, name: str) -> QwenTTSError:
        """The error for a name that is not a voice."""
        if Path(name).suffix in SUFFIXES:
            try:
                check_file(name)
            except QwenTTSError as error:
                return error
        known = f"; presets: {', '.join(self.presets)}" if self.presets else ""
        voices = self.library.names if self.library is not None else []
        if self.library is not None and voices:
            known = f"; library {self.library.folder}: {shortened(voices)}{known}"
        places = ["a file"] + ["a library voice"] * bool(voices or not self.preset)
        places += ["a preset of this model"] * bool(self.preset)
        return VoiceNotFound(f"voice {name!r} is not {', '.join(places[:-1])} or {places[-1]}{known}", param="voice")

    def direction(self, name: str) -> Direction:
        """The Direction of a file, of the library, or of a file named without its extension; else DirectionNotFound."""
        if Path(name).suffix and _is_file(name):
            return Direction.load(name)
        if self.library is not None and name in self.library.directions:
            return self.library.direction(name)
        if _is_file(f"{name}.safetensors"):
            return Direction.load(f"{name}.safetensors")
        raise DirectionNotFound(
            f"direction {name!r} is not a file or in the library; fit one with voices direction fit",
            param="direction",
        )

    def _evaluate(self, expression: Sum, text: str, space: VoiceSpace | None, keep: str) -> Voice | Offset:
        """The Voice of a parsed expression with its recipe, an Offset, or for an expression of one name that voice."""
        check_keep(keep, space)
        form, voices, directions = self._found(expression, text)
        steps = [strength * directions[name].step for name, strength in form.directions.items()]
        parents = mx.stack([voices[name].embedding for name in form.voices]) if form.voices else None
        result = sum(steps, mx.array(0.0))
        if parents is not None:
            result = result + mx.array(list(form.voices.values())) @ parents
        if parents is None or not form.amounts:
            mx.eval(result)
            alone = next(iter(directions.values())) if len(directions) == 1 and not form.voices else None
            return Offset(result, alone, expression.place)
        (weight, only), *more = expression.terms
        if isinstance(only, Name) and not more and weight > 0:
            return voices[only]
        if space is not None:
            space.check(result)
        amounts = mx.array([form.amounts.get(name, 0.0) for name in form.voices])
        result = restore(result, parents, amounts, keep, space)
        return Voice(result, name=str(expression), **_inherited(expression, form, voices, directions, keep))

    def _found(self, expression: Sum, text: str) -> tuple[Form, dict[Name, Voice], dict[Name, Direction]]:
        """(Form, {Name: Voice}, {Name: Direction}), all of one dimension."""
        form = reduce(expression)
        voices: dict[Name, Voice] = {}
        directions: dict[Name, Direction] = {}
        for name in [*form.voices, *form.directions]:
            try:
                if name.direction:
                    directions[name] = self.direction(name.name)
                    dimension = directions[name].dimension
                else:
                    voices[name] = self._known(name.name)
                    dimension = voices[name].dimension
            except QwenTTSError as error:
                raise ExpressionError(str(error), text, name.place, error.code) from None
            first, known = next(iter({**voices, **directions}.items()))
            if dimension != known.dimension:
                error = differ(str(name), dimension, str(first), known.dimension)
                raise ExpressionError(str(error), text, name.place, error.code)
        return form, voices, directions

    def _known(self, name: str) -> Voice:
        voice = self.named(name)
        if voice is None:
            raise self._unknown(name)
        return voice


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # longer than a name can be, or with a null character: an expression perhaps
        return False


def fingerprint(vector: mx.array) -> str:
    """Sixteen hexadecimal digits of a vector's float32 bytes, by which a recipe recognises a parent."""
    return hashlib.sha256(np.array(vector).astype("<f4").tobytes()).hexdigest()[:16]


def _inherited(
    expression: Sum,
    form: Form,
    voices: Mapping[Name, Voice],
    directions: Mapping[Name, Direction],
    keep: str,
) -> dict[str, Any]:
    """The fields of a blend's Voice: its recipe, the strictest rights of its parents, and what they agree on."""
    parents = []
    for name, weight in form.voices.items():
        voice = voices[name]
        parent: dict[str, Any] = {
            "name": name.name,
            "weight": round(weight, 6),
            "fingerprint": fingerprint(voice.embedding),
        }
        for key in ("source_model", "consent", "license"):
            if getattr(voice, key) is not None:
                parent[key] = getattr(voice, key)
        parents.append({**parent, "recipe": voice.recipe} if voice.recipe else parent)
    moves = [
        {"name": name.name, "strength": round(strength, 6), "towards": directions[name].positive}
        for name, strength in form.directions.items()
    ]
    recipe = {"expression": str(expression), "keep": keep, "parents": parents, "directions": moves}
    told = {key: {getattr(voice, key) for voice in voices.values()} for key in SHARED}
    shared = {key: values.pop() or None for key, values in told.items() if len(values) == 1}
    return {**shared, **inherited([voice.metadata for voice in voices.values()]), "recipe": recipe}
