"""The gate: what a frame may cost, held to the table in benchmarks/gate.py, and the counters it is made of."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import gate, nodes
from benchmarks.measure import weights_a_frame

CASES = [(rows, addition) for rows in gate.ROWS for addition in gate.ADDITIONS]
needs_fusing = pytest.mark.skipif(not shutil.which("g++"), reason="on Linux MLX fuses with g++")


@needs_fusing
@pytest.mark.parametrize("rows, addition", CASES)
def test_a_frame_costs_what_the_table_allows(rows, addition):
    cost, kernels = gate.measure(rows, addition, repeats=1)
    allowed = gate.LIMITS[rows, addition]
    assert cost.kernels <= allowed.kernels, f"more kernels than allowed; all of them: {kernels.most_common()}"
    assert cost.kernels >= 0.98 * allowed.kernels, "fewer kernels: put the new figures into benchmarks/gate.py"
    assert cost.waits == allowed.waits
    assert cost.read == allowed.read
    assert cost.calls <= gate.ROOM * allowed.calls


def test_every_row_has_its_limits_and_the_document_shows_them():
    assert list(gate.LIMITS) == CASES
    shown = (Path(gate.__file__).parent / "README.md").read_text(encoding="utf-8")
    table = "\n".join(gate.table(gate.LIMITS))
    assert table in shown, f"benchmarks/README.md should show\n{table}"


def test_bytes_are_those_of_the_weights_and_of_what_attention_reads():
    """For one row without an addition they can be told from shapes alone."""
    talker, config = nodes.blank_talker("tiny")
    with nodes.for_gpu(), gate.counted_bytes() as found:
        nodes.FrameGraph(talker, config).frame()
    assert found["weights"] == weights_a_frame(talker)["frame"]
    of, predictor, positions = config.talker, config.predictor, nodes.POSITION + 1
    seen = of.num_hidden_layers * positions * of.num_key_value_heads * of.head_dim
    seen += predictor.num_hidden_layers * sum(range(2, 17)) * predictor.num_key_value_heads * predictor.head_dim
    assert found["cache"] == seen * 2 * 2  # keys and values, bfloat16


def test_an_addition_that_reads_waits_or_calls_is_seen(monkeypatch):
    """Two additions, each a line of the table: one visits the host, the other multiplies by the talker's head again."""

    def visit(graph, generation):
        generation.rows[0].morph = SimpleNamespace(
            due=lambda frame: True, revise=lambda caches, frame: generation.seen.any().item()
        )

    def multiply(graph, generation):
        hidden = graph.hidden()
        generation.rows[0].morph = SimpleNamespace(
            due=lambda frame: True, revise=lambda caches, frame: graph.talker.codec_head(hidden)
        )

    monkeypatch.setattr(gate, "ADDITIONS", {gate.PLAIN: None, "visits": visit, "multiplies": multiply})
    plain, visiting, multiplying = (gate.measure(1, name, "tiny", 1)[0] for name in gate.ADDITIONS)
    assert visiting.waits == plain.waits + 1 and multiplying.waits == plain.waits
    assert visiting.read == plain.read and multiplying.read == plain.read + 3072 * 64 * 2  # the tiny head, bfloat16
    assert plain.calls < visiting.calls < multiplying.calls
    shown = gate.table(
        {(1, name): cost for name, cost in zip(gate.ADDITIONS, (plain, visiting, multiplying), strict=True)}
    )
    assert [line.split(" | ")[1] for line in shown[2:]] == [gate.PLAIN, "visits", "multiplies"]


def test_python_calls_are_counted_one_by_one():
    assert gate.python_calls(lambda: sorted([1, 2], key=lambda x: x)) == 3
