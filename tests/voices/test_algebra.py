"""Identities of voice arithmetic, over vectors and rows of them, and what is refused."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mlx_qwen3tts import Voice, VoiceSpace
from mlx_qwen3tts.errors import InvalidValue, VoiceError, WrongType
from mlx_qwen3tts.voices import blend, lerp, move, offset, slerp
from mlx_qwen3tts.voices.algebra import as_vectors
from tests.voices.real import made

X, *_ = made()
SPACE = VoiceSpace.fit(X)
seeds = st.integers(0, 2**31)
amounts = st.floats(0.01, 10)


def voices(seed, *shape):
    return mx.array(np.random.RandomState(seed).standard_normal(shape).astype(np.float32) + 3)


def close(a, b, limit=1e-6):
    """Equal within a limit, relative to the larger one's size."""
    a, b = np.array(a), np.array(b)
    return a.shape == b.shape and np.abs(a - b).max() <= limit * max(1, np.abs(b).max())


@settings(max_examples=30, deadline=None)
@given(seed=seeds, weights=st.lists(amounts, min_size=1, max_size=6), rows=st.sampled_from([(), (3,)]))
def test_weights_are_order_free_and_scale_free(seed, weights, rows):
    parents = [voices(seed + i, *rows, 32) for i in range(len(weights))]
    order = np.random.RandomState(seed).permutation(len(weights))
    result = blend(parents, weights)
    assert result.shape == (*rows, 32)
    assert close(blend([parents[i] for i in order], [weights[i] for i in order]), result)
    assert close(blend(parents, [3 * weight for weight in weights]), result)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, t=st.floats(-2, 3), rows=st.sampled_from([(), (3,)]))
def test_the_straight_path(seed, t, rows):
    a, b = voices(seed, *rows, 32), voices(seed + 1, *rows, 32)
    assert np.array_equal(np.array(lerp(a, b, 0)), np.array(a)) and np.array_equal(np.array(lerp(a, b, 1)), np.array(b))
    assert close(lerp(a, b, t), lerp(b, a, 1 - t), 1e-5)
    assume(abs(t) > 1e-3 and abs(1 - t) > 1e-3)
    assert close(lerp(a, b, t), blend([a, b], [1 - t, t]), 1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, t=st.floats(0, 1))
def test_the_arc(seed, t):
    a, b = voices(seed, 32), voices(seed + 1, 32)
    assert close(slerp(a, b, 0), a, 1e-5) and close(slerp(a, b, 1), b, 1e-5)
    assert close(slerp(a, b, t), slerp(b, a, 1 - t), 1e-5)
    length = (1 - t) * np.linalg.norm(a) + t * np.linalg.norm(b)
    assert abs(np.linalg.norm(slerp(a, b, t)) - length) <= 1e-4 * length
    # against the textbook formula for unit vectors, in double precision
    one, two = (np.array(v, np.float64) / np.linalg.norm(np.array(v, np.float64)) for v in (a, b))
    angle = math.acos(np.clip(one @ two, -1, 1))
    arc = (math.sin((1 - t) * angle) * one + math.sin(t * angle) * two) / math.sin(angle)
    assert close(slerp(a, b, t), (arc * length).astype(np.float32), 1e-5)


def test_the_arc_where_none_is_singled_out():
    a = voices(1, 16)
    assert close(slerp(a, a, 0.3), a, 1e-5)
    assert close(slerp(a, -a, 0.25), 0.5 * a, 1e-5)
    assert np.array_equal(np.array(slerp(mx.zeros(4), mx.zeros(4), 0.5)), np.zeros(4))


def test_an_arc_around_the_mean_keeps_the_radius():
    t = mx.linspace(0, 1, 7)
    distances = mx.linalg.norm(slerp(X[0], X[20], t, SPACE) - SPACE.mean, axis=1)
    ends = mx.linalg.norm(X[0] - SPACE.mean), mx.linalg.norm(X[20] - SPACE.mean)
    assert close(distances, (1 - t) * ends[0] + t * ends[1], 1e-4)
    assert mx.linalg.norm(lerp(X[0], X[20], 0.5) - SPACE.mean).item() < 0.95 * min(e.item() for e in ends)


@pytest.mark.parametrize("rows", [(), (5,)])
def test_what_is_kept(rows):
    parents = [voices(i, *rows, 64) for i in range(3)]
    weights = [0.5, 0.3, 0.2]
    for keep, origin in (("norm", 0), ("radius", SPACE.mean)):
        lengths = [mx.linalg.norm(p - origin, axis=-1) for p in parents]
        wanted = sum(w * length for w, length in zip(weights, lengths, strict=True))
        result = blend(parents, weights, space=SPACE, keep=keep)
        assert close(mx.linalg.norm(result - origin, axis=-1), wanted, 1e-5)
        plain = blend(parents, weights) - origin  # the direction stays
        assert close((result - origin) / wanted[..., None], plain / mx.linalg.norm(plain, axis=-1, keepdims=True), 1e-5)
        moved = move(parents[0], parents[1] - parents[2], 0.7, SPACE, keep)
        assert close(mx.linalg.norm(moved - origin, axis=-1), lengths[0], 1e-5)
        between = lerp(parents[0], parents[1], 0.25, SPACE, keep)
        assert close(mx.linalg.norm(between - origin, axis=-1), 0.75 * lengths[0] + 0.25 * lengths[1], 1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, amount=st.floats(-5, 5))
def test_moving_there_and_back(seed, amount):
    x, way = voices(seed, 4, 32), voices(seed + 1, 32)
    assert close(move(move(x, way, amount), way, -amount), x, 1e-5)
    assert close(move(voices(seed + 1, 32), offset(x[0], voices(seed + 1, 32))), x[0], 1e-6)


def test_a_path_at_many_times_and_rows_at_their_own():
    a, b = voices(1, 8), voices(2, 8)
    t = mx.array([0.0, 0.5, 1.0])
    assert close(lerp(a, b, t), mx.stack([a, (a + b) / 2, b]))
    rows = voices(3, 3, 8)
    assert close(lerp(rows, b, t), mx.stack([rows[0], (rows[1] + b) / 2, b]))


def test_numbers_of_every_kind():
    a, b = voices(1, 8), voices(2, 8)
    half = lerp(a, b, 0.5)
    for t in (mx.array(0.5), np.array(0.5), np.float32(0.5), np.float64(0.5)):
        assert close(lerp(a, b, t), half)
    for t in ([0, 1], mx.arange(2), np.arange(2), [0.0, 1.0], (0, 1)):
        assert close(lerp(a, b, t), mx.stack([a, b]))
    assert close(move(a, b, mx.array(2)), a + 2 * b)


def test_voices_and_numpy_stand_for_vectors():
    a, b = voices(1, 8), voices(2, 8)
    for one, two in ((Voice(a), Voice(b)), (np.array(a), np.array(b, np.float64)), (a, b.astype(mx.float32))):
        assert close(blend([one, two]), (a + b) / 2)
        assert close(lerp(one, two, 0.5), (a + b) / 2)
    assert close(blend(mx.stack([a, b])), (a + b) / 2)
    assert as_vectors([Voice(a), b]).shape == (2, 8) and as_vectors(Voice(a)).shape == (8,)


BAD = np.full(8, np.nan, np.float32)
A, B = voices(1, 8), voices(2, 8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: blend([A, BAD]), VoiceError, "voice 2 has values that are NaN"),
        (lambda: blend(mx.stack([A, mx.array(BAD)])), VoiceError, "NaN"),
        (lambda: lerp(A, BAD, 0.5), VoiceError, "second voice has values that are NaN"),
        (lambda: slerp(BAD, A, 0.5), VoiceError, "first voice has values that are NaN"),
        (lambda: move(A, BAD), VoiceError, "NaN"),
        (lambda: blend([A, voices(1, 9)]), VoiceError, "number 2 has 9 dimensions, number 1 8; voices do not transfer"),
        (lambda: blend([Voice(A, name="anna"), Voice(voices(1, 9), name="ben")]), VoiceError, "'ben' has 9"),
        (lambda: lerp(A, voices(1, 9), 0.5), VoiceError, "do not transfer"),
        (lambda: blend([A, B], keep="radius", space=SPACE), VoiceError, "the voice has 8 dimensions, the voice space"),
        (lambda: blend([A, B], [1, -1]), InvalidValue, "sum to 0: that is an offset, not a voice"),
        (lambda: blend([A, B], [1, 2, 3]), InvalidValue, "3 weights for 2 voices"),
        (lambda: blend([A, B], [1, math.nan]), InvalidValue, "weight nan is not finite"),
        (lambda: blend([A, B], ["1", "2"]), WrongType, "weight must be a number, not '1'"),
        (lambda: blend([A, B], [True, False]), WrongType, "weight must be a number"),
        (lambda: blend([]), InvalidValue, "not none"),
        (lambda: blend(A), WrongType, "several voices"),
        (lambda: blend([A, B], keep="radius"), InvalidValue, "needs a voice space"),
        (lambda: blend([A, B], keep="all"), InvalidValue, "keep 'all' is not one of none, norm, radius"),
        (lambda: lerp(A, B, math.inf), InvalidValue, "t inf is not finite"),
        (lambda: lerp(A, B, "half"), InvalidValue, "t 'half' is neither a number"),
        (lambda: lerp(A, B, [0.0, math.nan]), InvalidValue, "t .* is neither a number nor a list of finite numbers"),
        (lambda: move(A, B, math.nan), InvalidValue, "amount nan is not finite"),
        (lambda: move(A, B, True), WrongType, "amount must be a number"),
        (lambda: lerp(voices(1, 3, 8), voices(2, 2, 8), 0.5), VoiceError, "rows differ in number: 2 and 3"),
        (lambda: lerp(voices(1, 3, 8), B, mx.zeros(2)), InvalidValue, "t has 2 values for 3 voices"),
        (lambda: blend("anna"), WrongType, "several voices"),
        (lambda: lerp(A, B, mx.zeros((2, 2))), InvalidValue, "expected a number or"),
        (lambda: as_vectors(mx.zeros((2, 2, 2))), VoiceError, "vector has shape"),
        (lambda: as_vectors(mx.zeros((0, 2))), VoiceError, "vector has shape"),
        (lambda: as_vectors("anna"), VoiceError, "vector has dtype <U4"),
        (lambda: as_vectors([[1.0], [1.0, 2.0]]), VoiceError, "vector"),
    ],
)  # fmt: skip
def test_what_is_not_a_voice(call, error, message):
    with pytest.raises(error, match=message):
        call()


@example(weights=[1e-30, 1.0])
@settings(max_examples=20, deadline=None)
@given(weights=st.lists(amounts, min_size=2, max_size=2))
def test_a_blend_lies_between(weights):
    result = np.array(blend([mx.zeros(3) + 1, mx.zeros(3) + 2], weights))
    assert ((result >= 1 - 1e-6) & (result <= 2 + 1e-6)).all()
