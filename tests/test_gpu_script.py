"""benchmarks.gpu: its sections do not take each other along, and what it reads of profiles and graphs."""

import json
import time

import mlx.core as mx
import numpy as np
import pytest

from benchmarks import gpu

pytestmark = pytest.mark.benchmarks

SLEEPS = "import time; print('begun', flush=True); time.sleep(60)"


def python(name: str, code: str, needs: float = 0, limit: float = 30, environment: dict[str, str] | None = None):
    """A section that runs a line of Python."""
    return gpu.Section(name, ("-c", code), needs, limit, environment or {})


def test_a_section_that_fails_or_hangs_does_not_take_the_others_along(tmp_path, capfd):
    report = gpu.Report(tmp_path)
    sections = [
        python("wrong", "raise ValueError('as it should')"),
        python("crashes", "import os; os.abort()"),
        python("hangs", SLEEPS, limit=0.5),
        # A process of its own that would keep the pipe open.
        python("leaves", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPS!r}])", limit=0.5),
        python("right", "import os; print(os.environ['GIVEN'])", environment={"GIVEN": "what it was given"}),
        python("long", "print('never')", needs=1000),
    ]
    outcomes = gpu.run(sections, 60, report)
    assert outcomes == {
        "wrong": "failed",
        "crashes": "failed",
        "hangs": "stopped",
        "leaves": "stopped",
        "right": "done",
        "long": "skipped",
    }
    log = (tmp_path / "gpu.log").read_text()
    assert "ValueError: as it should" in log and "begun" in log and "what it was given" in log and "never" not in log
    assert log == capfd.readouterr().out
    records = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [record["section"] for record in records] == list(outcomes)
    assert records[0]["status"] == 1 and records[2]["seconds"] < 30


def test_the_budget_ends_a_section_and_skips_the_next(tmp_path):
    sections = [python("first", SLEEPS, needs=0.1), python("second", "print()", needs=0.1)]
    assert gpu.run(sections, 0.5, gpu.Report(tmp_path)) == {"first": "stopped", "second": "skipped"}


def test_what_runs_beside_the_sections_is_reported(tmp_path):
    report = gpu.Report(tmp_path)
    codes = {"right": "print('what it says')", "wrong": "raise ValueError('as it should')", "long": SLEEPS}
    beside = [gpu.Beside(name, ("-u", "-c", code), report) for name, code in codes.items()]
    end = time.monotonic() + 30
    while beside[0].running or beside[1].running or not (tmp_path / "long.log").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert [process.end() for process in beside] == ["done", "failed", "stopped"]
    log = (tmp_path / "gpu.log").read_text()
    assert "right: done\n  what it says\nwrong: failed\n" in log and log.endswith("long: stopped\n  begun\n")


def test_what_sections_need_is_started_beside_them(tmp_path, monkeypatch):
    started, report = [], gpu.Report(tmp_path)
    monkeypatch.setattr(gpu, "Beside", lambda name, arguments, report: started.append(name))
    options = gpu.build_parser().parse_args(["--output", str(tmp_path), "--work", str(tmp_path)])
    of = {section.name: section for section in gpu.sections(options)}
    gpu.start_beside(options, [of["parity"]], report)
    assert started == []
    gpu.start_beside(options, [of["parity"], of["speed"]], report)
    assert started == ["checkpoints"]
    gpu.start_beside(options, [of["proof"]], report)
    assert started == ["checkpoints", "proof-slow"]


def test_quantised_products_are_expected_as_float32_gives_them():
    from benchmarks.gpu_proof import SLOW, TOLERANCE, normal, operations

    weight = normal(3072, 1024, seed=2, dtype=mx.bfloat16) / 32
    for name, rows in (("one row", normal(1, 1, 1024)), ("24 rows", normal(1, 24, 1024, seed=1))):
        rows = np.array(rows.astype(mx.bfloat16).astype(mx.float32), np.float64)
        for bits in (8, 4):
            plain = mx.dequantize(*mx.quantize(weight.astype(mx.float32), 64, bits), 64, bits)
            exact = rows @ np.array(plain, np.float64).T
            expected = np.array(operations(mx.bfloat16, expected=True)[f"{bits} bit, {name}"]())
            assert np.abs(expected - exact).max() < TOLERANCE["bfloat16"] * np.abs(exact).max()
    assert set(SLOW) <= set(operations(mx.float32))


def test_unknown_sections_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--output", str(tmp_path), "--only", "proof,speeed"])
    assert "speeed: sections are proof, parity" in capsys.readouterr().err


def test_every_section_has_its_function(tmp_path):
    from benchmarks import gpu_sections

    options = ["--output", str(tmp_path), "--work", str(tmp_path)]
    for section in gpu.sections(gpu.build_parser().parse_args(options)):
        module, body = section.arguments[2:4]
        assert module == "benchmarks.gpu_proof" or body in gpu_sections.SECTIONS
        assert section.needs <= section.limit
        if module == "benchmarks.gpu_sections":
            gpu_sections.build_parser().parse_args(section.arguments[3:])  # it takes what it is given


def test_what_the_profiler_and_the_graphs_say(tmp_path):
    from benchmarks.gpu_kernels import busy, graph_kernels, kernel_events, short_name

    trace = tmp_path / "trace.json"
    events = [
        {"cat": "kernel", "name": "void add<float>(int)", "ts": 5.0, "dur": 4.0},
        {"cat": "cpu_op", "name": "elsewhere", "ts": 0.0, "dur": 100.0},
        {"cat": "gpu_memcpy", "name": "copy", "ts": 0.0, "dur": 2.0},
        {"cat": "kernel", "name": "mul", "ts": 7.0, "dur": 3.0},
    ]
    trace.write_text(json.dumps({"traceEvents": events}))
    found = kernel_events(trace)
    assert [short_name(event) for event in found] == ["copy", "add", "mul"]
    assert busy(found) == 2 + 5

    dot = (
        'digraph dot {\nsubgraph cluster_1 {\nlabel="graph_1" graph[style="dashed"];\n'
        '"graph_1_node_0"[style="bold" shape="octagon" label="0\n_Z5saxpyifPfS_\n"];\n'
        '"graph_1_node_1"[style="solid" shape="rectangle" label="1\ngraph_2\n"];\n'
        '"graph_1_node_0" -> "graph_1_node_1" [headlabel=0];\n}\n'
        'subgraph cluster_2 {\n"graph_2_node_0"[style="bold" shape="record" label="{KERNEL\n| {ID | 0 | k}\n}"];\n}\n}'
    )
    assert graph_kernels(dot) == 2
