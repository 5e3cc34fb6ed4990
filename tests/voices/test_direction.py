"""Directions: that they find what separates labels, say how far to trust them, and can be taken back."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_qwen3tts import Direction, Voice, VoiceSpace
from mlx_qwen3tts.errors import InvalidValue, VoiceError, WrongType
from mlx_qwen3tts.voices.directions.fit import ridge
from tests.voices.real import load, made

X, NAMES, LABELS = made()
SPEAKERS = LABELS["speaker"]
GENDER = Direction.fit(X, LABELS["gender"], groups=SPEAKERS, names=NAMES)


def pitch(noise=0.0, seed=3, count=60, dimension=40):
    """(X, numbers, the true axis): voices of which one axis says the number."""
    random = np.random.RandomState(seed)
    axis = random.standard_normal(dimension)
    axis /= np.linalg.norm(axis)
    rows = random.standard_normal((count, dimension)) * 0.3
    numbers = 150 + 60 * random.standard_normal(count)
    rows += np.outer((numbers - 150) / 60 - rows @ axis, axis)
    return mx.array((rows + 5 + noise * random.standard_normal(rows.shape)).astype(np.float32)), numbers, axis


@pytest.mark.parametrize("method", ["mean", "correlation", "ridge", "pca"])
def test_every_method_separates_two_labels(method):
    d = Direction.fit(X, LABELS["gender"], method=method, groups=SPEAKERS, names=NAMES)
    assert (d.positive, d.negative, d.method) == ("m", "f", method)
    assert abs(mx.linalg.norm(d.vector).item() - 1) <= 1e-5
    right = np.array(d.score(X) > 0) == (np.array(LABELS["gender"]) == "m")
    assert right.all() and d.report.accuracy >= 0.9 and d.report.n == 32 and d.report.groups == 8


def test_the_difference_of_means_is_that():
    rows, male = np.array(X, np.float64), np.array(LABELS["gender"]) == "m"
    wanted = rows[male].mean(0) - rows[~male].mean(0)
    assert np.allclose(np.array(GENDER.vector), wanted / np.linalg.norm(wanted), atol=1e-5)
    middle = (rows[male].mean(0) + rows[~male].mean(0)) / 2
    assert abs(GENDER.score(mx.array(middle.astype(np.float32))).item()) <= 1e-4
    space = VoiceSpace.fit(X)
    scores = (rows - middle) @ wanted / np.linalg.norm(wanted) / space.radius
    assert np.allclose(np.array(GENDER.score(X)), scores, atol=1e-4)


@pytest.mark.parametrize("k", [1, 5, 64])
def test_the_most_correlated_dimensions_alone(k):
    d = Direction.fit(X, LABELS["gender"], top_k=k)
    rows, y = np.array(X, np.float64), np.where(np.array(LABELS["gender"]) == "m", 1, -1)
    strength = np.abs([np.corrcoef(rows[:, i], y)[0, 1] for i in range(64)])
    assert set(np.flatnonzero(np.array(d.vector))) == set(np.argsort(strength)[-k:])


def test_ridge_finds_the_axis_of_a_number():
    X, numbers, axis = pitch()
    d = Direction.fit(X, numbers, method="ridge")
    assert np.array(d.vector) @ axis > 0.95 and d.report.correlation > 0.9
    assert abs(d.report.per_radius / (60 * VoiceSpace.fit(X).radius) - 1) < 0.15
    assert np.array(Direction.fit(X, numbers, method="correlation").vector) @ axis > 0.8
    assert (d.positive, d.negative) == ("more", "less")


def test_ridge_against_its_closed_form():
    """By the smaller Gram matrix, for more voices than dimensions and fewer."""
    for count, dimension in ((50, 8), (12, 40)):
        X, numbers, _ = pitch(0.2, count=count, dimension=dimension)
        rows, y = np.array(X, np.float64), np.array(numbers, np.float32)
        centred, target = rows - rows.mean(0), y - y.mean()
        found = np.array(ridge(X, mx.array(y)))
        size = (centred**2).sum() / count
        close = []
        for power in range(-3, 4):
            solved = np.linalg.solve(centred.T @ centred + 10.0**power * size * np.eye(dimension), centred.T @ target)
            close.append(np.abs(found - solved).max() / np.abs(solved).max())
            # the chosen strength has the least error, leaving out one at a time for real
            errors = []
            for i in range(count):
                rest = np.arange(count) != i
                own = rows[rest] - rows[rest].mean(0)
                w = np.linalg.solve(
                    own.T @ own + 10.0**power * size * np.eye(dimension), own.T @ (y[rest] - y[rest].mean())
                )
                errors.append((y[i] - y[rest].mean() - (rows[i] - rows[rest].mean(0)) @ w) ** 2)
            close[-1] = close[-1], np.mean(errors)
        nearest = min(range(7), key=lambda i: close[i][0])
        assert close[nearest][0] < 1e-2
        assert close[nearest][1] <= 1.05 * min(error for _, error in close)


@settings(max_examples=25, deadline=None)
@given(strength=st.floats(-4, 4), row=st.integers(0, 31))
def test_there_and_back_again(strength, row):
    there = GENDER.apply(X[row], strength)
    assert np.abs(np.array(GENDER.apply(there, -strength) - X[row])).max() <= 1e-5
    assert abs((GENDER.score(there) - GENDER.score(X[row])).item() - strength) <= 1e-3
    assert abs((mx.linalg.norm(GENDER.apply(X[row], strength, "norm")) - mx.linalg.norm(X[row])).item()) <= 1e-3
    radius = mx.linalg.norm(GENDER.apply(X[row], strength, "radius") - GENDER.mean)
    assert abs((radius - mx.linalg.norm(X[row] - GENDER.mean)).item()) <= 1e-3


def test_rows_with_a_strength_each():
    moved = GENDER.apply(X[:3], mx.array([0.0, 1.0, -1.0]))
    assert np.allclose(np.array(GENDER.score(moved) - GENDER.score(X[:3])), [0, 1, -1], atol=1e-4)
    assert np.array_equal(np.array(moved[0]), np.array(X[0]))
    assert GENDER.score(Voice(X[0])).shape == ()


@pytest.mark.parametrize("keep", ["none", "norm", "radius"])
def test_rows_move_as_single_voices_do(keep):
    rows = GENDER.apply(X[:3], 1.5, keep)
    for i in range(3):
        assert np.allclose(np.array(rows[i]), np.array(GENDER.apply(X[i], 1.5, keep)), atol=1e-5)
    border = GENDER.apply(X[0], -GENDER.score(X[0]))  # a strength that is itself an array
    assert abs(GENDER.score(border).item()) <= 1e-4


def test_orthogonal_to_another():
    other = Direction.fit(X, LABELS["emotion"], positive="e1", groups=SPEAKERS)
    mixed = Direction.fit(X, np.array(GENDER.score(X)) + np.array(other.score(X)), method="ridge")
    assert mixed.cosine(other) > 0.2
    rest = mixed.orthogonal_to(other)
    assert abs(rest.cosine(other)) <= 1e-5 and abs(mx.linalg.norm(rest.vector).item() - 1) <= 1e-5
    assert np.allclose(np.array(other.score(rest.apply(X, 3.0))), np.array(other.score(X)), atol=1e-3)
    report = rest.report  # of its own: the figures of `mixed` are another vector's
    assert (report.n, report.labels, report.method) == (mixed.report.n, mixed.report.labels, "ridge")
    assert (report.scored, report.correlation, report.split_half, report.per_radius) == (0, None, None, None)
    cosine = rest.cosine(mixed)
    assert report.warnings == [str(report).splitlines()[-1]] and f"What remains (cosine {cosine:.2f})" in str(report)
    assert "has not been measured" in str(report) and "correlation" not in f"{report}{rest!r}"
    with pytest.raises(InvalidValue, match="are the same, so nothing of one remains"):
        other.orthogonal_to(other)


def test_a_nuisance_stays_out_of_a_direction():
    space = VoiceSpace.fit(X, LABELS["emotion"])
    d = Direction.fit(X, LABELS["gender"], space=space)
    assert np.abs(np.array(space.nuisance @ d.vector)).max() <= 1e-5


def test_the_sides():
    assert Direction.fit(X, LABELS["gender"], positive="f").positive == "f"
    assert (Direction.fit(X, [True, False] * 16).positive, Direction.fit(X, [2, 1] * 16).positive) == ("True", "2")
    d = Direction.fit(X, LABELS["emotion"], positive="e2", groups=SPEAKERS, names=NAMES)
    assert (d.positive, d.negative) == ("e2", "not e2") and d.report.first == [8, 8]


def test_what_the_report_says():
    text = str(GENDER.report)
    assert "32 voices, 8 groups; f 16, m 16; method mean" in text
    assert f"right for {GENDER.report.right} of 32" in text and "agree at cosine" in text
    assert "Too few to trust: a side has 4 independent groups" in text
    alone = str(Direction.fit(X, LABELS["gender"]).report)
    assert "No groups were given" in alone and "leaving out a voice at a time" in alone


def test_the_report_does_not_flatter():
    """Labels drawn by lot for every speaker: no better than guessing, unless groups are kept from the report."""
    grouped, alone = [], []
    for seed in range(8):
        X, names, labels = made(seed)
        speakers, random = labels["speaker"], np.random.RandomState(seed)
        lot = dict(zip(sorted(set(speakers)), random.permutation(["a", "b"] * 4).tolist(), strict=True))
        y = [lot[speaker] for speaker in speakers]
        report = Direction.fit(X, y, groups=speakers, names=names).report
        assert len(report.failures) == 32 - report.right and report.split_half < 0.6
        grouped.append(report.accuracy)
        alone.append(Direction.fit(X, y).report.accuracy)
        if report.accuracy <= 0.5:
            assert "no better than always guessing" in str(report)
    assert min(grouped) <= 0.5 and np.mean(grouped) < 0.6 < np.mean(alone) - 0.1
    numbers = np.random.RandomState(0).standard_normal(32)
    report = Direction.fit(X, numbers, method="ridge", groups=NAMES).report
    assert report.correlation < 0.3 and "hardly predicts" in str(report)


def test_a_group_that_alone_has_a_label_cannot_be_scored():
    y = ["x" if speaker == "s0" else "y" for speaker in SPEAKERS]
    report = Direction.fit(X, y, groups=SPEAKERS).report
    assert report.scored == 28 and "4 voices could not be scored" in str(report) and report.split_half is None


def test_saved_and_loaded(tmp_path):
    GENDER.save(tmp_path / "g.safetensors")
    again = Direction.load(tmp_path / "g.safetensors")
    for name in ("vector", "centre", "mean"):
        assert np.array_equal(np.array(getattr(again, name)), np.array(getattr(GENDER, name)))
    assert again.report == GENDER.report and again.radius == GENDER.radius and again.positive == "m"
    Voice(X[0]).save(tmp_path / "v.safetensors")
    with pytest.raises(InvalidValue, match="has no tensor 'direction', only speaker_embedding"):
        Direction.load(tmp_path / "v.safetensors")
    with pytest.raises(InvalidValue, match="no such file"):
        Direction.load(tmp_path / "none.safetensors")


def test_a_direction_says_what_it_is_and_stays_as_it_is():
    assert repr(GENDER) == f"Direction(from f to m, 64 dimensions, {GENDER.report.right} of 32 right)"
    X, numbers, _ = pitch()
    d = Direction.fit(X, numbers, method="ridge")
    assert repr(d) == f"Direction(from less to more, 40 dimensions, correlation {d.report.correlation:.2f})"
    for value, name in ((GENDER, "vector"), (GENDER.report, "right")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)
    assert replace(GENDER.report, n=1) != GENDER.report


def test_any_thread_can_use_what_another_one_made(tmp_path):
    GENDER.save(tmp_path / "g.safetensors")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(Direction.fit, X, LABELS["gender"]).result()
        loaded = pool.submit(Direction.load, tmp_path / "g.safetensors").result()
        moved = pool.submit(lambda: np.array(GENDER.apply(X[0], 1.0))).result()
    assert np.array_equal(np.array(loaded.apply(X[0], 1.0)), moved)
    assert np.array_equal(np.array(other.score(X)), np.array(GENDER.score(X)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Direction.fit(X[0], ["a"]), InvalidValue, "fitted to voices"),
        (lambda: Direction.fit(X, ["a"] * 32), InvalidValue, "the same label 'a'; two are needed"),
        (lambda: Direction.fit(X, ["a", "b"]), InvalidValue, "labels has 2 labels for 32 voices"),
        (lambda: Direction.fit(X, "ab"), WrongType, "labels must be a list"),
        (lambda: Direction.fit(X, LABELS["emotion"]), InvalidValue, "4 labels, e0, e1, e2, e3; say which"),
        (lambda: Direction.fit(X, LABELS["emotion"], positive="x"), InvalidValue, "no voice has the label 'x'"),
        (lambda: Direction.fit(X, list(range(32))), InvalidValue, "method 'mean' needs two labels; for numbers"),
        (lambda: Direction.fit(X, [math.nan, *range(31)], method="ridge"), InvalidValue, "NaN or infinite"),
        (lambda: Direction.fit(X, [10**401, *range(31)], method="ridge"), InvalidValue, "NaN or infinite"),
        (lambda: Direction.fit(X, [int("9" * 401), *[1] * 31]), InvalidValue, "NaN or infinite"),
        (lambda: Direction.fit(X, LABELS["gender"], method="svm"), InvalidValue, "'svm' is not one of mean, corr"),
        (lambda: Direction.fit(X, LABELS["gender"], top_k=65), InvalidValue, "top_k 65 is not between 1 and"),
        (lambda: Direction.fit(X, LABELS["gender"], top_k=1.5), WrongType, "top_k must be an integer"),
        (lambda: Direction.fit(X, LABELS["gender"], groups=["a"]), InvalidValue, "groups has 1 labels"),
        (
            lambda: Direction.fit(mx.concatenate([X[:16], X[:16]]), ["a"] * 16 + ["b"] * 16),
            InvalidValue,
            "do not differ",
        ),
        (lambda: GENDER.score(mx.zeros(8)), VoiceError, "the voice has 8 dimensions, the direction 64"),
        (lambda: GENDER.score(mx.full(64, float("nan"))), VoiceError, "NaN"),
        (lambda: GENDER.apply(X[0], math.inf), InvalidValue, "strength inf is not finite"),
        (lambda: GENDER.orthogonal_to("x"), WrongType, "compared with another, not with 'x'"),
        (lambda: Direction.fit(X, [[1]] * 32), WrongType, r"labels: \[1\] is no"),
        (lambda: GENDER.apply(X[0], 1, keep="all"), InvalidValue, "keep 'all'"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# The real voices, leaving out a speaker at a time


def test_gender_of_real_voices(shared):
    X, names, labels = load(shared)
    d = Direction.fit(X, labels["gender"], groups=labels["speaker"], names=names)
    assert d.report.right >= 34 and set(d.report.failures) == {"aiden_anger", "dylan_anger"}
    assert f"right for {d.report.right} of 36" in str(d.report)
    for k in (1, 8, 512):
        assert Direction.fit(X, labels["gender"], groups=labels["speaker"], top_k=k).report.right >= 30
    anger = Direction.fit(X, labels["emotion"], positive="anger", groups=labels["speaker"])
    assert -0.6 < d.cosine(anger) < -0.2  # entangled: towards female
    assert abs(d.orthogonal_to(anger).cosine(anger)) <= 1e-5


def test_emotions_of_real_voices(shared):
    X, names, labels = load(shared)
    ranked = []
    for emotion in sorted(set(labels["emotion"])):
        d = Direction.fit(X, labels["emotion"], positive=emotion, groups=labels["speaker"], names=names)
        ranked.append(d.report.first)
        assert len(d.report.first_failures) == d.report.first[1] - d.report.first[0]
    assert sum(tried for _, tried in ranked) == 36 and sum(won for won, _ in ranked) >= 34
