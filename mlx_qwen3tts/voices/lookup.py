"""From what a user calls a voice to the Voice: file, library voice, preset, blend expression."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..errors import InvalidValue
from .algebra import check_keep, restore
from .directions.direction import Direction
from .expression import ExpressionError, Name, parse, reduce
from .library.rights import inherited
from .voice import SUFFIXES, Voice, differ

SHARED = ("source_model", "language")  # metadata that a blend takes over where its parents agree


@dataclass
class Offset:
    """What an expression whose weights sum to zero makes: step [D]; direction: the Direction that it is a multiple of,
    or None; place: where it stands in the text."""

    step: mx.array
    direction: Direction | None
    place: int


class Lookup:
    """Finds voices and directions by name.

    library: Library or None; preset: function from a name to a preset's Voice or None; presets: their names, for
    messages.
    """

    def __init__(self, library=None, preset=None, presets=()):
        self.library, self.preset, self.presets = library, preset, list(presets)

    def voice(self, text, space=None, keep="none"):
        """The Voice that a string means: a file, a library voice, a preset, or a blend expression of them.

        keep, space: as for `algebra.blend`, for what an expression makes. ValueError for what is none of them.
        """
        found = self.find(text, space, keep)
        if isinstance(found, Offset):
            raise ExpressionError(
                "its weights sum to zero: that is an offset, not a voice; add it to one", str(text), found.place
            )
        return found

    def find(self, text, space=None, keep="none"):
        """As `voice`, but what is an offset comes as an Offset."""
        text = str(text)
        voice = self.named(text)
        if voice is not None:
            return voice
        if not any(sign in text for sign in ("+", "*", "@", "(", ")", ",", ":", '"', " -")):
            raise InvalidValue(self._unknown(text))
        return self._evaluate(parse(text), text, space, keep)

    def named(self, name):
        """A voice by file, library, preset, or None."""
        if _is_file(name):
            return Voice.load(name)
        if self.library is not None and name in self.library:
            return self.library[name]
        return self.preset(name) if self.preset else None

    def _unknown(self, name):
        if Path(name).suffix in SUFFIXES:
            return f"embedding {name}: {'no regular file' if Path(name).exists() else 'no such file'}"
        known = f"; presets: {', '.join(self.presets)}" if self.presets else ""
        voices = self.library.names if self.library is not None else []
        if voices:
            listed = ", ".join(voices[:10]) + (" …" if len(voices) > 10 else "")
            known = f"; library {self.library.folder}: {listed}{known}"
        places = ["no file"] + ["no library voice"] * bool(voices or not self.preset)
        places += ["no preset of this model"] * bool(self.preset)
        return f"voice {name!r} is {', '.join(places[:-1])} and {places[-1]}{known}"

    def direction(self, name):
        """A Direction by file, from the library, or by file without its extension."""
        if Path(name).suffix and _is_file(name):
            return Direction.load(name)
        found = self.library.direction(name) if self.library is not None else None
        if found is None and _is_file(f"{name}.safetensors"):
            found = Direction.load(f"{name}.safetensors")
        if found is None:
            raise InvalidValue(
                f"direction {name!r} is no file and not in the library; fit one with voices direction fit"
            )
        return found

    def _evaluate(self, expression, text, space, keep):
        """The Voice of a parsed expression with its recipe, an Offset, or for an expression of one name that voice."""
        check_keep(keep, space)
        form, voices, directions = self._found(expression, text)
        parents = [voices[name] for name in form.voices]
        vectors = mx.stack([parent.embedding for parent in parents]) if parents else None
        result = sum((strength * directions[name].step for name, strength in form.directions.items()), 0.0)
        if parents:
            result = result + mx.array(list(form.voices.values())) @ vectors
        if not form.amounts:
            alone = next(iter(directions.values())) if len(directions) == 1 and not parents else None
            return Offset(result, alone, expression.place)
        (weight, only), *more = expression.terms
        if isinstance(only, Name) and not more and weight > 0:
            return voices[only]
        if space is not None:
            space.check(result)
        amounts = mx.array([form.amounts.get(name, 0.0) for name in form.voices])
        result = restore(result, vectors, amounts, keep, space)
        return Voice(result, metadata=_metadata(expression, form, voices, directions, keep), name=str(expression))

    def _found(self, expression, text):
        """(Form, {Name: Voice}, {Name: Direction}), all of one dimension."""
        form, voices, directions = reduce(expression), {}, {}
        for name in [*form.voices, *form.directions]:
            try:
                if name.direction:
                    found = directions[name] = self.direction(name.name)
                else:
                    found = voices[name] = self.named(name.name)
                    if found is None:
                        raise InvalidValue(self._unknown(name.name))
            except ValueError as error:
                raise ExpressionError(str(error), text, name.place) from None
            first, known = next(iter({**voices, **directions}.items()))
            if found.dimension != known.dimension:
                error = differ(name, found.dimension, first, known.dimension)
                raise ExpressionError(str(error), text, name.place)
        return form, voices, directions


def _is_file(name):
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # longer than a name can be, or with a null character: an expression perhaps
        return False


def fingerprint(vector):
    """Sixteen hexadecimal digits of a vector's float32 bytes, by which a recipe knows a parent again."""
    return hashlib.sha256(np.array(vector).astype("<f4").tobytes()).hexdigest()[:16]


def _metadata(expression, form, voices, directions, keep):
    parents = []
    for name, weight in form.voices.items():
        voice = voices[name]
        parent = {"name": name.name, "weight": round(weight, 6), "fingerprint": fingerprint(voice.embedding)}
        for key in ("source_model", "consent", "license"):
            if key in voice.metadata:
                parent[key] = voice.metadata[key]
        parents.append({**parent, "recipe": voice.recipe} if voice.recipe else parent)
    moves = [
        {"name": name.name, "strength": round(strength, 6), "towards": directions[name].positive}
        for name, strength in form.directions.items()
    ]
    recipe = {"expression": str(expression), "keep": keep, "parents": parents, "directions": moves}
    metadata = [voice.metadata for voice in voices.values()]
    taken = {key: metadata[0].get(key) for key in SHARED if len({own.get(key) for own in metadata}) == 1}
    return {
        **{key: value for key, value in taken.items() if value},
        **inherited(metadata),
        "recipe": json.dumps(recipe, ensure_ascii=False),
    }
