"""Words for voices: "low, female, slow", each of which stands for a side of a direction in the library."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from ...errors import DirectionNotFound, QwenTTSError, VoiceNotFound, listed
from ..directions.direction import Direction
from ..voice import differ

if TYPE_CHECKING:
    from .library import Library

# Of a direction fitted to numbers: words in its name, what is said of more, and of less.
SCALES = (
    ({"pitch", "f0", "height", "high"}, ("high",), ("low", "deep")),
    ({"rate", "pace", "tempo", "speed", "speaking"}, ("fast", "quick"), ("slow",)),
    ({"energy", "level", "loudness", "volume"}, ("loud",), ("quiet", "soft")),
    ({"brightness", "tilt"}, ("bright",), ("dark",)),
    ({"age"}, ("old",), ("young",)),
    ({"deep", "depth"}, ("low", "deep"), ("high",)),
)
# Other words for a side that has a label.
ALIKE = (
    {"female", "f", "woman", "women", "feminine"},
    {"male", "m", "man", "men", "masculine"},
    {"anger", "angry"},
    {"joy", "happiness", "happy"},
    {"sadness", "sad"},
    {"fear", "afraid", "fearful"},
    {"disgust", "disgusted"},
    {"surprise", "surprised"},
    {"calm", "calmness"},
)
YES, NO = {"yes", "true", "1"}, {"no", "false", "0"}
SIGNS = re.compile(r'[+*@():"]|\s-')  # of an expression


@dataclass(frozen=True)
class Side:
    """What a word stands for: the `sign` side of the Direction that the library has as `name`."""

    name: str
    direction: Direction
    sign: int


def words_in(query: str) -> list[str]:
    """The words of a query that is nothing but words with commas between them; of one with signs, none."""
    return [] if SIGNS.search(query) else [word.strip().casefold() for word in query.split(",") if word.strip()]


def readable(library: Library) -> dict[str, Direction]:
    """{name: Direction} of a library; a file that is not one is passed over with a warning."""
    found = {}
    for name in library.directions:
        try:
            found[name] = library.direction(name)
        except DirectionNotFound:  # removed since they were listed
            continue
        except QwenTTSError as error:
            warnings.warn(f"library {library.folder}: skipped {error}", stacklevel=2)
    return found


def sides(library: Library) -> dict[str, Side]:
    """{word: Side} of all directions of a library; of two that have a word, the first in the alphabet."""
    found: dict[str, Side] = {}
    for name, direction in readable(library).items():
        for sign, words in ((1, _words(name, direction, 1)), (-1, _words(name, direction, -1))):
            for word in words:
                found.setdefault(word, Side(name, direction, sign))
    return found


def _words(name: str, direction: Direction, sign: int) -> list[str]:
    """What one side of a direction may be called."""
    label, other = direction.positive.casefold(), direction.negative.casefold()
    label, other = (label, other) if sign > 0 else (other, label)
    if {label, other} == {"more", "less"}:
        parts = set(re.split(r"[\W_]+", name.casefold()))
        scales = [(more, less) for names, more, less in SCALES if names & parts]
        named = [name.casefold()] if sign > 0 and not scales else []
        return [*named, *(word for more, less in scales[:1] for word in (more if sign > 0 else less))]
    if label in YES and other in NO:
        label = name.casefold()
    elif label in NO and other in YES:
        label = f"not {name.casefold()}"
    return [label, *(word for group in ALIKE if label in group for word in sorted(group - {label}))]


def ranking(words: Iterable[str], known: dict[str, Side], X: mx.array) -> Callable[[mx.array], mx.array]:
    """Function from voices [n, D] to [n]: the mean of their scores on each word's side, in standard deviations among
    voices X [N, D], so that a direction on which they differ much does not outvote the others."""
    weighed = []
    for word in words:
        side = known[word]
        if side.direction.dimension != X.shape[1]:
            raise differ(f"direction {side.name!r}", side.direction.dimension, "the voices of the library", X.shape[1])
        scores = side.sign * np.array(side.direction.score(X))
        spread = float(scores.std())
        weighed.append((side, scores.mean(), spread if spread > 1e-6 else 1.0))

    def score(some: mx.array) -> mx.array:
        total = np.zeros(some.shape[0], np.float32)
        for side, mean, spread in weighed:
            total += (side.sign * np.array(side.direction.score(some)) - mean) / spread
        return mx.array(total / len(weighed))

    return score


def unknown(words: Iterable[str], known: dict[str, Side], library: Library) -> VoiceNotFound:
    """The error for words that stand for nothing here."""
    missing = ", ".join(repr(word) for word in words if word not in known)
    if not known:
        said = f"library {library.folder} has no directions that it could stand for; fit one with voices direction fit"
    else:
        said = f"library {library.folder} knows {listed(sorted(known), 40)}"
    return VoiceNotFound(f"query: {missing} is not a voice or a word for a side of a direction; {said}", param="query")
