"""The training loop on losses that cost nothing: its rates, its order, what it keeps, how it goes on."""

import json
import math
from xml.etree import ElementTree

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts.errors import InvalidValue, OutputError
from mlx_qwen3tts.files.json_text import json_text
from mlx_qwen3tts.tuning import unfinished
from mlx_qwen3tts.tuning.curves import ticks, write_csv, write_svg
from mlx_qwen3tts.tuning.fit import Fit, Row, Settings
from mlx_qwen3tts.tuning.lessons import sampled

TARGETS = np.array([[1.0, 2.0], [3.0, -1.0], [2.0, 0.5]], np.float32)
SETTINGS = {"iters": 12, "learning_rate": 0.3, "batch_size": 2, "steps_per_eval": 5}


def fit(parameters=None, evaluate=None, objective=None, **changes):
    """A Fit towards TARGETS, each a clip."""

    def towards(given, numbers, seed):
        noise = mx.array(np.random.RandomState(seed).normal(0, 0.01, 2))
        loss = mx.square(given["vector"] - mx.array(TARGETS[list(numbers)]) + noise).mean()
        return loss, {"first": loss, "rest": mx.array(0.0)}

    def distance(given):
        return float(mx.square(given["vector"] - mx.array(TARGETS)).mean())

    start = {"vector": mx.zeros(2)} if parameters is None else parameters
    return Fit(start, objective or towards, evaluate or distance, 3, Settings(**{**SETTINGS, **changes}))


def test_it_learns_and_keeps_the_best():
    one = fit(iters=60)
    rows = list(one)
    assert [row.step for row in rows] == list(range(61)) and one.done and one.burst is None
    assert np.abs(np.array(one.best["vector"]) - TARGETS.mean(axis=0)).max() < 0.15
    held = {row.step: row.valid for row in rows if row.valid is not None}
    assert list(held) == list(range(0, 61, 5)) and one.best_valid == min(held.values()) == held[one.best_step]


def test_the_best_is_not_the_last():
    losses = iter([0.5, 1.0, 2.0, 4.0])
    one = fit(evaluate=lambda _: next(losses))
    seen = {row.step: np.array(one.parameters["vector"]) for row in one}
    assert (one.best_step, one.best_valid) == (5, 1.0)
    assert (np.array(one.best["vector"]) == seen[4]).all(), "as they were before step 5"


def test_rates():
    rates = [Settings(**SETTINGS).rate(step) for step in range(13)]
    assert rates[:4] == pytest.approx([0.1, 0.2, 0.3, 0.3])
    assert rates[3:] == sorted(rates[3:], reverse=True) and rates[12] == pytest.approx(0.3 * 0.02)


def test_every_clip_comes_once_a_turn():
    one = fit()
    order = [number for step in range(9) for number in one.chosen(step)]
    assert all(sorted(order[turn : turn + 3]) == [0, 1, 2] for turn in range(0, 18, 3))
    assert order != [number for step in range(9) for number in fit(seed=1).chosen(step)]
    assert fit(batch_size=50).chosen(4) in (
        [*p] for p in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    )


def test_a_loss_that_is_not_a_number_ends_it():
    """Whether the loss is the first to burst or the parameters are; the best so far stays."""

    def bursting(given, numbers, seed):
        grown = given["vector"].sum()
        loss = mx.where(grown > 0.5, mx.array(math.nan), -grown)
        return loss, {}

    def steep(given, numbers, seed):
        return mx.sqrt(mx.abs(given["vector"] - 0.1)).sum() * 0 + mx.sqrt(given["vector"].sum() * 0), {}

    for objective, last in ((bursting, 3), (steep, 0)):
        one = fit(objective=objective, steps_per_eval=1, evaluate=lambda given: -float(given["vector"].sum()))
        rows = list(one)
        assert one.burst is not None and one.burst <= last and rows[-1].figures == {} and len(rows) == one.burst + 1
        assert np.isfinite(np.array(one.best["vector"])).all() and (one.best_step > 0) == math.isfinite(one.best_valid)
        assert np.isfinite(np.array(one.parameters["vector"])).all()
        assert list(one) == [], "it stays where it is"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iters": 0}, "iters 0 is not 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate 0.0 is not above 0"),
        ({"learning_rate": math.nan}, "learning_rate nan is not finite"),
        ({"batch_size": 0}, "batch_size 0 is not 1 or more"),
        ({"steps_per_eval": 0}, "steps_per_eval 0 is not 1 or more"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(InvalidValue, match=message):
        Settings(**{**SETTINGS, **change})


def test_stopped_and_gone_on_with_is_the_same(tmp_path):
    whole = fit()
    list(whole)
    first = fit()
    for row in first:
        if row.step == 6:
            break
    unfinished.save(tmp_path / "run", first, "as begun")
    second = fit()
    unfinished.restore(tmp_path / "run", second, "as begun")
    assert second.step == 7 and [row.step for row in second] == [7, 8, 9, 10, 11, 12]
    assert second.parameters["vector"].tolist() == whole.parameters["vector"].tolist()
    assert second.best["vector"].tolist() == whole.best["vector"].tolist()
    assert second.rows == whole.rows and second.best_step == whole.best_step
    unfinished.forget(tmp_path / "run")
    unfinished.forget(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_what_cannot_be_gone_on_with(tmp_path):
    one = fit()
    with pytest.raises(InvalidValue, match="nothing to go on from"):
        unfinished.restore(tmp_path, one, "x")
    unfinished.save(tmp_path, one, "x")
    with pytest.raises(InvalidValue, match="with other clips, another model or other options"):
        unfinished.restore(tmp_path, one, "y")
    for other in ({"vector": mx.zeros(3)}, {"adapter": mx.zeros(2)}):
        unfinished.save(tmp_path, fit(other), "x")
        with pytest.raises(InvalidValue, match="is damaged"):
            unfinished.restore(tmp_path, one, "x")
    assert one.step == 0 and one.parameters["vector"].tolist() == [0, 0]


def test_identity_holds_all_it_is_made_of():
    assert unfinished.identity({"a": [1]}) != unfinished.identity({"a": [2]})
    assert unfinished.digest(mx.array([1, 2])) != unfinished.digest(mx.array([2, 1]))


def test_sampled_frames():
    assert sampled(9, 0, 1) is None and sampled(9, 9, 1) is None
    some = sampled(9, 4, 1).tolist()
    assert len(set(some)) == 4 and some == sorted(some) and max(some) < 9
    assert some == sampled(9, 4, 1).tolist() != sampled(9, 4, 2).tolist()


# Curves


def test_curves(tmp_path):
    one = fit(iters=20)
    rows = list(one)
    write_csv(tmp_path / "steps.csv", rows)
    lines = (tmp_path / "steps.csv").read_text().splitlines()
    assert lines[0] == "step,learning_rate,loss,first,rest,held_out" and len(lines) == 22
    assert lines[1].startswith("0,0.1,") and not lines[1].endswith(",") and lines[2].endswith(",")
    write_svg(tmp_path / "curves.svg", rows, one.best_step, "anna <&> ben")
    svg = ElementTree.parse(tmp_path / "curves.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    trained, held = svg.findall(f"{name}polyline")
    assert len(trained.get("points").split()) == 20 and len(held.get("points").split()) == 5
    assert (
        len(svg.findall(f"{name}circle")) == 5 and len([c for c in svg.iter(f"{name}circle") if c.get("r") == "6"]) == 1
    )
    assert "anna <&> ben" in [text.text for text in svg.iter(f"{name}text")]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [Row(0, 0.1, {}, 2.0)],
        [Row(0, 0.1, {"first": math.inf, "rest": 1.0}, math.nan), Row(1, 0.1, {"first": 2.0, "rest": 1.0})],
    ],
)
def test_curves_of_little(tmp_path, rows):
    write_svg(tmp_path / "curves.svg", rows, 0, "x")
    assert "nan" not in (tmp_path / "curves.svg").read_text() and ElementTree.parse(tmp_path / "curves.svg")


def test_ticks():
    assert ticks(0, 60) == [0, 10, 20, 30, 40, 50, 60] and ticks(1.94, 2.02) == [1.94, 1.96, 1.98, 2.0, 2.02]


def test_a_full_disk(tmp_path, monkeypatch):
    """A state that cannot be written is an error that the command can go on after, and leaves the one before."""
    one = fit()
    unfinished.save(tmp_path, one, "x")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        unfinished.save(tmp_path, one, "y")
    assert [path.name for path in tmp_path.iterdir()] == [unfinished.NAME]
    unfinished.restore(tmp_path, one, "x")


def test_state_is_json(tmp_path):
    one = fit(iters=1)
    list(one)
    assert json.loads(json_text(one.state[1]))["step"] == 1
