"""From what a user calls a voice to the Voice: file, library voice, preset, blend expression."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import mlx.core as mx
import numpy as np

from ..errors import DirectionNotFound, QwenTTSError, VoiceError, VoiceNotFound, shortened
from ..files.tensors import all_finite
from .algebra import check_keep, restore
from .directions.direction import Direction
from .expression import ExpressionError, Form, Name, Sum, parse, reduce, scaled
from .library.rights import inherited
from .voice import SUFFIXES, Voice, check_file, check_kind, differ

if TYPE_CHECKING:
    from .library.library import Library
    from .space import VoiceSpace

Kept = TypeVar("Kept", Voice | None, Direction)

SHARED = ("source_model", "language")  # metadata that a blend takes over where its parents agree


@dataclass(eq=False)
class Offset:
    """What an expression whose weights sum to zero makes: where it leads, not how far.

    step [D], evaluated: the offset, divided by a power of two so that its largest weight is between 1 and 2; direction:
    the Direction that it is a multiple of, or None; place: where it stands in the text.
    """

    step: mx.array
    direction: Direction | None
    place: int


class Lookup:
    """Finds voices and directions by name.

    library: Library or None; preset: function from a name to a preset's Voice or None; presets: their names, for
    messages; brought: Libraries of what came with the model, whose voices and directions are found last. files:
    whether a path is a name too. Without, nothing outside the library is looked at, so its messages are the same
    whether a file exists or not, and they name no folder: for a server, whose clients may name what it offers but must
    not reach into its disk.
    """

    def __init__(
        self,
        library: Library | None = None,
        preset: Callable[[str], Voice | None] | None = None,
        presets: Iterable[str] = (),
        *,
        files: bool = True,
        brought: Iterable[Library] = (),
    ) -> None:
        self.library, self.preset, self.presets, self.files = library, preset, list(presets), files
        self.brought = list(brought)

    def names_only(self) -> Lookup:
        """The same without files."""
        return Lookup(self.library, self.preset, self.presets, files=False, brought=self.brought)

    def voice(self, text: str | Path | Sum, space: VoiceSpace | None = None, keep: str = "none") -> Voice:
        """The Voice that a string means: a file, a library voice, a preset, or a blend expression of them.

        keep, space: as for `algebra.blend`, for what an expression makes. VoiceNotFound for a name that is none of
        them, ExpressionError for an expression that cannot be read or names what is not there.
        """
        found = self._find(str(text), space, keep)
        if isinstance(found, Offset):
            raise ExpressionError(
                "its weights sum to zero: that is an offset, not a voice; add it to one", str(text), found.place
            )
        return found

    def find(self, text: str | Path | Sum, space: VoiceSpace | None = None, keep: str = "none") -> Voice | Offset:
        """As `voice`, but an expression whose weights sum to zero gives an Offset."""
        text = str(text)
        found = self._find(text, space, keep)
        if isinstance(found, Offset) and not mx.any(found.step).item():
            raise ExpressionError("it adds up to nothing: an offset leads from one voice to another", text, found.place)
        if isinstance(found, Offset) and not all_finite(found.step):
            raise ExpressionError("it leads to numbers too large for a voice", text, found.place)
        return found

    def _find(self, text: str, space: VoiceSpace | None, keep: str) -> Voice | Offset:
        voice = self.named(text)
        if voice is not None:
            return voice
        if not any(sign in text for sign in ("+", "*", "@", "(", ")", ",", ":", '"', " -")):
            raise self._unknown(text)
        return self._evaluate(parse(text), text, space, keep)

    def named(self, name: str) -> Voice | None:
        """The voice of a file, of the library, of a preset or one that was brought, in this order, or None."""
        if self.files and _is_file(name):
            return Voice.load(name)
        kept = None if self.library is None else self._kept(self._in_library, name, "voice")
        if kept is not None:
            return kept
        voice = self.preset(name) if self.preset else None
        if voice is None:
            voice = next((library[name] for library in self.brought if name in library), None)
        return voice

    def _in_library(self, name: str) -> Voice | None:
        assert self.library is not None, "whoever asks has looked"
        if name not in self.library:
            return None
        with contextlib.suppress(VoiceNotFound):  # another program has deleted it just now
            return self.library[name]
        return None

    def _unknown(self, name: str) -> QwenTTSError:
        """The error for a name that is not a voice."""
        if self.files:
            try:
                check_kind(name)
                if Path(name).suffix in SUFFIXES:
                    check_file(name)
            except QwenTTSError as error:
                return error
        known = f"; presets: {', '.join(self.presets)}" if self.presets else ""
        voices = self.library.names if self.library is not None else []
        if self.library is not None and voices:
            known = f"; library {self.library.folder if self.files else 'voices'}: {shortened(voices)}{known}"
        places = ["a file"] * self.files + ["a library voice"] * bool(voices or not self.preset)
        places += ["a preset of this model"] * bool(self.preset)
        return VoiceNotFound(f"voice {name!r} is not {_either(places)}{known}", param="voice")

    def direction(self, name: str, dimension: int | None = None) -> Direction:
        """The Direction of a file, of the library, of a file named without its extension, or one that was brought; else
        DirectionNotFound. dimension: that what is brought must have."""
        if self.files and Path(name).suffix and _is_file(name):
            return Direction.load(name)
        known: list[str] = []
        if self.library is not None:
            known += self.library.directions
            if name in known:
                return self._kept(self.library.direction, name, "direction")
        if self.files and _is_file(f"{name}.safetensors"):
            return Direction.load(f"{name}.safetensors")
        for library in self.brought:
            held = library.directions
            if name in held:
                found = self._kept(library.direction, name, "direction")
                if dimension in (None, found.dimension):
                    return found
            known += [one for one in held if one not in known]
        way = "fit one with voices direction fit" if self.files or not known else f"it has {shortened(known)}"
        raise DirectionNotFound(
            f"direction {name!r} is not {'a file or ' * self.files}in the library; {way}", param="direction"
        )

    def _kept(self, read: Callable[[str], Kept], name: str, what: str) -> Kept:
        """What the library has under a name. Without files an error names no path either."""
        try:
            return read(name)
        except QwenTTSError as error:
            if self.files:
                raise
            raise VoiceError(f"{what} {name!r} of the library cannot be read", param=error.param) from None

    def _evaluate(self, expression: Sum, text: str, space: VoiceSpace | None, keep: str) -> Voice | Offset:
        """The Voice of a parsed expression with its recipe, an Offset, or for an expression of one name that voice."""
        check_keep(keep, space)
        form, voices, directions = self._found(expression, text)
        if not form.amounts:
            alone = next(iter(directions.values())) if len(directions) == 1 and not form.voices else None
            return Offset(_offset(form, voices, directions), alone, expression.place)
        parents = mx.stack([voices[name].embedding for name in form.voices])
        result = _along(form.directions.values(), directions) + mx.array(list(form.voices.values())) @ parents
        (_, only), *more = expression.terms
        if isinstance(only, Name) and not more:
            return voices[only]
        if space is not None:
            space.check(result)
        amounts = mx.array([form.amounts.get(name, 0.0) for name in form.voices])
        result = restore(result, parents, amounts, keep, space)
        if not all_finite(result):
            raise ExpressionError("it leads to numbers too large for a voice", text, expression.place)
        return Voice(result, name=str(expression), **_inherited(expression, form, voices, directions, keep))

    def _found(self, expression: Sum, text: str) -> tuple[Form, dict[Name, Voice], dict[Name, Direction]]:
        """(Form, {Name: Voice}, {Name: Direction}), all of one dimension."""
        form = reduce(expression, text)
        voices: dict[Name, Voice] = {}
        directions: dict[Name, Direction] = {}
        for name in [*form.voices, *form.directions]:
            try:
                if name.direction:
                    size = next((voice.dimension for voice in voices.values()), None)
                    directions[name] = self.direction(name.name, size)
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


def _along(strengths: Iterable[float], directions: Mapping[Name, Direction]) -> mx.array:
    """The sum of strength × direction: [D], or a zero where there are none."""
    steps = [strength * direction.step for strength, direction in zip(strengths, directions.values(), strict=True)]
    return sum(steps, mx.array(0.0))


def _offset(form: Form, voices: Mapping[Name, Voice], directions: Mapping[Name, Direction]) -> mx.array:
    """The step [D] of a Form whose weights sum to zero, as Offset has it."""
    weights, _ = scaled([*form.voices.values(), *form.directions.values()])
    step = _along(weights[len(voices) :], directions)
    if voices:
        step = step + mx.array(weights[: len(voices)]) @ mx.stack([voice.embedding for voice in voices.values()])
    mx.eval(step)
    return step


def _either(places: list[str]) -> str:
    return " or ".join([", ".join(places[:-1]), places[-1]] if places[1:] else places)


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
