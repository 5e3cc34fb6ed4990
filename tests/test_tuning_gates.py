"""The gates of benchmarks/tuning.py, by results that were made up."""

import numpy as np
import pytest

from benchmarks.tuning import beyond, drawn, f0, gates, one_way, pairs, table

pytestmark = pytest.mark.benchmarks


def result(speaker=150.0, **kept):
    one = {"distance": 2.0, "f0": 0.1, "wer": 0.02, "norm": 10.0}
    figures = {"one clip": one, "x-vector": one, "kept": {**one, **kept}, "codec": {"floor": 1.0, "wer": 0.01}}
    return {"speaker": {"f0": speaker}, "figures": figures, "kept": "listened"}


def test_gates_are_met_and_missed():
    good = {"in1": result(distance=1.2), "in2": result(distance=1.4), "out1": result(distance=2.1)}
    assert all(value <= bound for value, bound in gates(good).values())
    bad = {"in1": result(distance=1.5, f0=0.5, wer=0.06, norm=14.0), "out1": result(distance=2.3)}
    assert all(value > bound for value, bound in gates(bad).values()) and len(gates(bad)) == 5
    assert list(gates({"out1": result()})) == ["outside: voices made worse and kept"]


def test_f0_moves_one_way():
    assert one_way([100, 110, 120]) and one_way([120, 110, 100])
    assert not one_way([100, 120, 110]) and not one_way([100, 100, 110]) and not one_way([100, float("nan"), 120])


def test_f0_of_codes():
    codes = np.array([[0, 5], [12, 5], [12, 5]])
    assert f0([codes, codes[:1]]) == pytest.approx(150) and np.isnan(f0([codes[:1]]))


def test_pairs_are_apart():
    results = {f"in{i}": result(speaker=100.0 * 1.2**i) for i in range(5)} | {"out1": result(speaker=400.0)}
    found = pairs(results)
    assert len(found) == len(set(found)) == 6 and all(int(b[2:]) - int(a[2:]) >= 2 for a, b in found)


def test_voices_are_within_and_beyond_the_range():
    assert drawn(3, 5) == drawn(3, 5) != drawn(3, 6)
    outside = beyond(6, 5)
    assert outside["out1"].formants > 1.18 and outside["out2"].f0 > 240 and outside["out5"].pace > 165
    assert 125 <= outside["out1"].pace <= 165


def test_the_table():
    *_, row = table({"in1": result(distance=1.2)})
    one = "2.00 / +0.10 / 0.02 / 10.0"
    assert row == f"| in1 | {one} | {one} | 1.20 / +0.10 / 0.02 / 10.0 | 1.00 / 0.01 | listened | 0.60 |"
