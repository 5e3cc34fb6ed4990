"""Arithmetic of voices: blends, paths and offsets.

Every operation is one lazily evaluated expression over vectors [D] or rows of them [N, D]. Voices share a large mean
(97 % of the norm), so a blend pulls towards it: `keep` restores the norm, or in a VoiceSpace the distance to the mean.
D dimension, N voices, K parents.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from numbers import Real
from typing import Protocol, TypeAlias

import mlx.core as mx
import numpy as np

from .. import checks
from ..checks import word
from ..errors import InvalidValue, VoiceError, WrongType
from ..files.tensors import all_finite
from ..networks.process import enter
from .expression import scaled
from .voice import Vector, Voice, as_floats, differ

KEEP = ("none", "norm", "radius")

VoiceLike: TypeAlias = Voice | Vector  # one voice [D], or where it says so rows of them [N, D]
VoicesLike: TypeAlias = VoiceLike | Sequence[VoiceLike]
Number: TypeAlias = float | Vector  # a number, or [N] of them


class Space(Protocol):
    """What knows where the mean of voices lies: a VoiceSpace, or a Direction with the mean of its own."""

    @property
    def mean(self) -> mx.array: ...

    def check(self, vectors: mx.array) -> mx.array:
        """VoiceError where vectors [..., D] are of another dimension."""
        ...


def as_vectors(x: VoicesLike, name: str = "vector", param: str | None = None) -> mx.array:
    """Voices as a finite float32 mx.array: a Voice or vector [D] as [D], an array [N, D] or a list of either as [N, D].

    VoiceError for what is not a voice, has NaN, or mixes dimensions: its message begins with `name`.
    """
    if isinstance(x, Voice):
        return x.embedding
    try:
        if isinstance(x, list | tuple) and any(isinstance(part, Voice | mx.array | np.ndarray) for part in x):
            x = _stacked(
                [as_vectors(part) for part in x], [part.name if isinstance(part, Voice) else None for part in x]
            )
        vectors = as_floats(x)
        if vectors.ndim not in (1, 2) or vectors.size == 0:
            raise VoiceError(f"has shape {list(vectors.shape)}; expected [D] or [N, D]")
    except VoiceError as error:
        raise VoiceError(f"{name} {error}", param=param) from None
    return vectors


def _stacked(vectors: list[mx.array], names: list[str | None]) -> mx.array:
    """Arrays [D] or [N, D] as one more axis in front; names: of each, or None."""
    called = [repr(name) if name else f"number {i}" for i, name in enumerate(names, 1)]
    rows = {vector.shape[0] for vector in vectors if vector.ndim == 2} - {1}
    for name, vector in zip(called, vectors, strict=True):
        if vector.shape[-1] != vectors[0].shape[-1]:
            raise differ(name, vector.shape[-1], called[0], vectors[0].shape[-1])
    if len(rows) > 1:
        raise VoiceError(f"rows differ in number: {' and '.join(map(str, sorted(rows)))}")
    return mx.stack(list(mx.broadcast_arrays(*vectors)))


def as_numbers(value: Number, name: str) -> mx.array:
    """A number, or an array or list of them, as a finite float32 mx.array [] or [N]."""
    if isinstance(value, Real | np.bool_) or (isinstance(value, mx.array | np.ndarray) and value.ndim == 0):
        number = mx.array(checks.number(value, name))
        if not all_finite(number):
            raise InvalidValue(f"{name} {value} is too large for float32", param=name)
        return number
    try:
        array = as_floats(value.astype(mx.float32) if isinstance(value, mx.array) else np.asarray(value) * 1.0)
    except (VoiceError, TypeError, ValueError):  # the last two are NumPy's
        raise InvalidValue(f"{name} {value!r} is neither a number nor a list of finite numbers", param=name) from None
    if array.ndim != 1 or array.size == 0:
        raise InvalidValue(f"{name} has shape {list(array.shape)}; expected a number or [N]", param=name)
    return array


def check_keep(keep: str, space: Space | None) -> None:
    """Refuse a word that is not in KEEP, and "radius" where there is no space that knows the mean."""
    if word(keep, "keep", KEEP) == "radius" and space is None:
        raise InvalidValue("keep 'radius' needs a voice space, which says where the mean is", param="keep")


def _origin(keep: str, space: Space | None) -> mx.array:
    """Where the length that a checked `keep` preserves is measured from."""
    return space.mean if keep == "radius" and space is not None else mx.array(0.0)


def check_weights(weights: Vector | None, count: int) -> np.ndarray:
    """[K] float64 NumPy weights that sum to one, of `count` numbers or None for equal ones; InvalidValue for a total of
    zero or less."""
    if weights is None:
        return np.full(count, 1 / count)
    weights = [checks.number(weight, "weight") for weight in np.asarray(weights, dtype=object).reshape(-1).tolist()]
    if len(weights) != count:
        raise InvalidValue(f"{len(weights)} weights for {count} voices", param="weights")
    weights, power = scaled(weights)
    total = math.fsum(weights)
    if abs(total) <= 1e-6 * math.fsum(map(abs, weights)):
        raise InvalidValue(
            f"the weights sum to {total * 2.0**power:g}: that is an offset, not a voice", param="weights"
        )
    if total < 0:
        raise InvalidValue(
            f"the weights sum to {total * 2.0**power:g}, and dividing by that would turn every sign; let them sum to "
            "more than zero",
            param="weights",
        )
    return np.array(weights) / total


def _length(x: mx.array) -> mx.array:
    return mx.linalg.norm(x, axis=-1, keepdims=True)


def units(x: mx.array) -> mx.array:
    """x [..., D] with the length of one; zero stays zero."""
    return x / mx.maximum(_length(x), mx.array(1e-12))


def restore(result: mx.array, parents: mx.array, weights: mx.array, keep: str, space: Space | None) -> mx.array:
    """`result` [..., D] with the mean length of its parents [K, ..., D], or their mean distance to the space's mean.

    weights: [K]; the mean is weighted by their amounts.
    """
    if keep == "none":
        return result
    amounts = mx.abs(weights) / mx.abs(weights).sum()
    origin = _origin(keep, space)
    lengths = mx.tensordot(amounts, _length(parents - origin), axes=1)
    return origin + lengths * units(result - origin)


def blend(
    voices: VoicesLike, weights: Vector | None = None, space: Space | None = None, keep: str = "none"
) -> mx.array:
    """Weighted mean of voices: the sum of weight × voice, the weights normalised to sum to one.

    voices: K of Voice or [D], or an array [K, D]; or K arrays [N, D], which are blended row by row. weights: K numbers,
    negative ones move away (default: equal). keep: "none"; "norm" gives the result the parents' mean norm; "radius"
    their mean distance to space.mean, which blending shrinks (to 0.65 for two voices, 0.38 for four). Returns [D] or
    [N, D]. InvalidValue for weights that sum to zero or less, VoiceError for NaN or dimensions that differ.
    """
    check_keep(keep, space)
    if isinstance(voices, list | tuple) and voices:
        names = [voice.name if isinstance(voice, Voice) else None for voice in voices]
        parts = [as_vectors(voice, f"voice {i}", "voices") for i, voice in enumerate(voices, 1)]
        try:
            parents = _stacked(parts, names)
        except VoiceError as error:
            raise VoiceError(f"voice {error}", param="voices") from None
    elif isinstance(voices, mx.array | np.ndarray) and voices.ndim > 1 and len(voices):
        parents = as_floats(voices, "voices")
    elif isinstance(voices, list | tuple | mx.array | np.ndarray) and len(voices) == 0:
        raise InvalidValue("blend takes one or more voices, not none", param="voices")
    else:
        raise WrongType("blend takes several voices: a list of them or an array [K, D]", param="voices")
    if space is not None:
        space.check(parents)
    weights = mx.array(check_weights(weights, parents.shape[0]).astype(np.float32))
    return restore(mx.tensordot(weights, parents, axes=1), parents, weights, keep, space)


def _two(a: VoiceLike, b: VoiceLike, params: tuple[str, str]) -> mx.array:
    """Two voices or rows of them, broadcast against each other, as one array with an axis of two in front."""
    one, two = as_vectors(a, "first voice", params[0]), as_vectors(b, "second voice", params[1])
    try:
        return _stacked([one, two], [None, None])
    except VoiceError as error:
        raise VoiceError(str(error), param=params[1]) from None


def _pair(
    a: VoiceLike,
    b: VoiceLike,
    t: Number,
    space: Space | None,
    name: str = "t",
    params: tuple[str, str] = ("a", "b"),
) -> tuple[mx.array, mx.array, mx.array]:
    """a, b (called so in `params`) broadcast against each other, and t as an array that broadcasts against them."""
    enter()
    parents = _two(a, b, params)
    if space is not None:
        space.check(parents)
    times = as_numbers(t, name)
    if times.ndim == 0:
        return parents[0], parents[1], times
    if parents.ndim == 3 and times.shape[0] not in (1, parents.shape[1]) and parents.shape[1] != 1:
        raise InvalidValue(f"{name} has {times.shape[0]} values for {parents.shape[1]} voices", param=name)
    return parents[0], parents[1], times[:, None]


@functools.partial(mx.compile, shapeless=True)
def _mixed(a: mx.array, b: mx.array, t: mx.array) -> mx.array:
    return (1 - t) * a + t * b


def lerp(a: VoiceLike, b: VoiceLike, t: Number, space: Space | None = None, keep: str = "none") -> mx.array:
    """The straight path from a (t = 0) to b (t = 1): (1 - t) a + t b, which goes on beyond both.

    a, b: Voice, [D] or [N, D]; t: a number, or [N] for a point of the path (or a row) each. Returns [D] or [N, D].
    keep: as for `blend`.
    """
    check_keep(keep, space)
    a, b, t = _pair(a, b, t, space)
    if keep == "none":
        return _mixed(a, b, t)
    origin = _origin(keep, space)
    lengths = _mixed(_length(a - origin), _length(b - origin), t)
    return origin + mx.abs(lengths) * units(_mixed(a, b, t) - origin)


def slerp(a: VoiceLike, b: VoiceLike, t: Number, space: Space | None = None) -> mx.array:
    """The arc from a to b around the origin, or with a space around its mean, the length going evenly between theirs.

    Shoemake, "Animating Rotation with Quaternion Curves" (1985). Around the origin it differs from `lerp` by some 1.5 %
    on real voices, which lie 20° apart; around the mean it keeps the centred radius. Arguments and result are those of
    `lerp`. For opposite voices no arc is singled out: the path is straight.
    """
    a, b, t = _pair(a, b, t, space)
    origin = _origin("radius", space)
    a, b = a - origin, b - origin
    lengths = _length(a), _length(b)
    one, two = units(a), units(b)
    # From the chord: arccos of the product loses half the digits where the angle is small.
    angle = 2 * mx.arctan2(_length(one - two), _length(one + two))
    sine = mx.sin(angle)
    straight = sine < 1e-4
    sine = mx.where(straight, mx.array(1.0), sine)
    from_a = mx.where(straight, 1 - t, mx.sin((1 - t) * angle) / sine)
    from_b = mx.where(straight, t, mx.sin(t * angle) / sine)
    arc = (from_a * one + from_b * two) * _mixed(*lengths, t)
    return origin + mx.where(straight, _mixed(a, b, t), arc)


def offset(a: VoiceLike, b: VoiceLike) -> mx.array:
    """What leads from b to a: a - b. It is a way (norm about 2.5 between two voices of 0.6B), not a voice."""
    parents = _two(a, b, ("a", "b"))
    return parents[0] - parents[1]


def move(
    x: VoiceLike, offset: VoiceLike, amount: Number = 1.0, space: Space | None = None, keep: str = "none"
) -> mx.array:
    """x + amount × offset.

    x: Voice, [D] or [N, D]; offset: [D] or [N, D]; amount: a number, or [N] for a row each. keep: "norm" gives each
    result the length of its x, "radius" its distance to space.mean. Returns [D] or [N, D].
    """
    check_keep(keep, space)
    x, offset, amount = _pair(x, offset, amount, space, "amount", ("x", "offset"))
    result = x + amount * offset
    if keep == "none":
        return result
    origin = _origin(keep, space)
    return origin + _length(x - origin) * units(result - origin)
