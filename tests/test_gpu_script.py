"""benchmarks.gpu: its sections do not take each other along, and what it reads of profiles and graphs."""

import json

import pytest

from benchmarks import gpu

SLEEPS = "import time; print('begun', flush=True); time.sleep(60)"


def python(name, code, needs=0, limit=30, environment=None):
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


def test_unknown_sections_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--output", str(tmp_path), "--only", "proof,speeed"])
    assert "speeed: sections are proof, parity" in capsys.readouterr().err


def test_every_section_has_its_function(tmp_path):
    from benchmarks.gpu_sections import SECTIONS

    options = ["--output", str(tmp_path), "--work", str(tmp_path)]
    for section in gpu.sections(gpu.build_parser().parse_args(options)):
        module, body = section.arguments[2:4]
        assert module == "benchmarks.gpu_proof" or body in SECTIONS
        assert section.needs <= section.limit


def test_what_the_profiler_and_the_graphs_say(tmp_path):
    from benchmarks.gpu_sections import busy, graph_kernels, kernel_events, short_name

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
