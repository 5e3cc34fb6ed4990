"""benchmarks.self_check: that it passes here, that it finds each form that is wrong, and what it says then."""

import ast
import inspect
import json
import subprocess
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from benchmarks import bench, check_forms, check_parts, differences, gpu_proof, self_check
from convert.random_checkpoint import write_checkpoint
from mlx_qwen3tts.networks import cpu, kernels, proof
from mlx_qwen3tts.networks.device import on_gpu

pytestmark = pytest.mark.benchmarks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights with the published head sizes."""
    return write_checkpoint(tmp_path_factory.mktemp("random"), **self_check.HEADS)


def spoiled(function, gpu):
    """What a function gives, an hundredth larger in the forms of one side."""

    def wrong(*arguments, **options):
        return function(*arguments, **options) * (1.01 if on_gpu() == gpu else 1)

    return wrong


def rotates_wrongly(self, *arguments):
    rotate = rotation(self, *arguments)
    return lambda x: rotate(x) * 1.01


rotation = cpu.RopeTable.rotation


@pytest.mark.parametrize(
    "place, name, wrong, line",
    [
        (mx, "conv1d", spoiled(mx.conv1d, True), "convolutions"),
        (cpu, "conv1d", spoiled(cpu.conv1d, False), "convolutions"),
        (cpu, "snake", spoiled(cpu.snake, False), "snake"),
        (mx.fast, "rms_norm", spoiled(mx.fast.rms_norm, True), "norms"),
        (cpu, "rms_norm", spoiled(cpu.rms_norm, False), "norms"),
        (mx.fast, "rope", spoiled(mx.fast.rope, True), "rotation"),
        (cpu.RopeTable, "rotation", rotates_wrongly, f"rotation at {check_forms.FAR}"),
        (cpu, "lay_out", lambda weight: (weight * 1.01, None), "products"),
        (mx, "addmm", spoiled(mx.addmm, True), "products"),
        (mx.fast, "scaled_dot_product_attention", spoiled(mx.fast.scaled_dot_product_attention, True), "attention"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_form_that_is_wrong_is_found(monkeypatch, place, name, wrong, line):
    forms = {line: check_forms.FORMS[line]}
    assert [outcome.passed for outcome in self_check.check_forms(forms)] == [True]
    monkeypatch.setattr(place, name, wrong)
    (outcome,) = self_check.check_forms(forms)
    assert outcome.passed is False and str(outcome).startswith(f"DIFFERS forms, {line}")
    assert "expected" in outcome.detail and "allowed" in outcome.detail


def test_every_form_for_a_cpu_is_run_on_its_side_alone(monkeypatch):
    """So whoever adds a form has to add its check."""
    called: dict[str, set[bool]] = {}

    def watched(name, function):
        def noting(*arguments, **options):
            called.setdefault(name, set()).add(on_gpu())
            return function(*arguments, **options)

        return noting

    # A form is what other files take from cpu.py and what gives arrays.
    used = {
        node.attr
        for path in Path(cpu.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "cpu"
    }
    functions = [node for node in ast.parse(inspect.getsource(cpu)).body if isinstance(node, ast.FunctionDef)]
    names = {node.name for node in functions if node.name in used and "mx.array" in ast.unparse(node.returns)}
    assert names >= {"conv1d", "snake", "rms_norm", "lay_out", "multiply_in_blocks"}
    for name in names:
        monkeypatch.setattr(cpu, name, watched(name, getattr(cpu, name)))
    monkeypatch.setattr(cpu.RopeTable, "rotation", watched("rotation", rotation))
    monkeypatch.setattr(cpu, "multiplies_in_place", lambda: True)  # the blocks too
    assert all(outcome.passed for outcome in self_check.check_forms())
    assert called == {name: {False} for name in (*names, "rotation")}


def test_a_model_agrees_in_all_its_parts(folder):
    outcomes = list(self_check.check_model("random", folder))
    assert [outcome.name for outcome in outcomes if not outcome.passed] == []
    assert len(outcomes) == len(check_parts.PARTS) + len(check_parts.HALF)


def test_what_goes_wrong_in_a_model_is_found_where_it_is(folder, monkeypatch):
    """A cache that loses a position on the GPU alone: the prompt is right, the steps and what they say are not."""
    update = check_parts.KVCache.update

    def forgetful(self, keys, values):
        found = update(self, keys, values)
        return tuple(x * (0.5 if on_gpu() and x.shape[2] > keys.shape[2] else 1) for x in found)

    parts = {name: check_parts.PARTS[name] for name in ("talker, prefill", "talker, steps", "greedy speech")}
    monkeypatch.setattr(check_parts.KVCache, "update", forgetful)
    prompt, steps, speech = self_check.check_model("random", folder, parts, {})
    assert prompt.passed and not steps.passed and not speech.passed
    assert "step 0[" in steps.detail and "codes leave at frame" in speech.detail


def test_what_a_part_raises_is_reported_and_the_others_go_on(folder):
    def lacking(tts):
        if on_gpu():
            raise RuntimeError("[conv] not\nimplemented")
        return {"x": np.ones(1)}

    parts = {"lacking": lacking, "absent": lambda tts: None, "there": lambda tts: {"x": np.ones(2)}}
    lacks, absent, there = self_check.check_model("m", folder, parts, {})
    assert lacks.passed is False and lacks.detail == "the GPU form raised RuntimeError: [conv] not implemented"
    assert absent.passed is None and str(absent).startswith("- ") and there.passed is True


def test_an_operation_that_is_wrong_is_named(monkeypatch):
    def operations(dtype, expected=False):
        return {"right": lambda: mx.ones(2), "doubled": lambda: mx.ones(2) * (1 if expected else 2)}

    monkeypatch.setattr(gpu_proof, "operations", operations)
    found = list(self_check.check_operations())
    assert [(outcome.passed, outcome.detail) for outcome in found] == [(False, "doubled: off by 1.0e+00")] * 2


@pytest.mark.parametrize(
    "found, expected, says",
    [
        (np.array([1.0, 2.0]), np.array([1.0, 2.00001]), None),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0]), "x[1]: nan, expected 2"),
        (np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0]), "x: shape [3], expected [2]"),
        (np.array([[1, 2], [3, 5]]), np.array([[1, 2], [3, 4]]), "x[1, 1]: 5, expected 4 (equal)"),
        (np.array([True, False]), np.array([True, False]), None),
        (np.zeros(3), np.zeros(3), None),
    ],
)
def test_numbers_are_compared(found, expected, says):
    told = differences.of_numbers("x", found, expected, 1e-4)
    assert (told is None) if says is None else told.startswith(says)


def test_codes_may_differ_at_near_ties_alone():
    codes, gaps = np.arange(32).reshape(2, 16), np.ones((2, 16))
    other = codes.copy()
    other[1, 3] += 1
    expected = {"codes": codes, "codes gaps": gaps, "sound": np.ones(4)}
    given = {"codes": other, "codes gaps": gaps, "sound": np.zeros(4)}
    assert differences.of_answers(expected, expected, 1e-4) == (True, "codes equal, 2 frames")
    passed, told = differences.of_answers(given, expected, 1e-4)
    assert not passed and told == "codes: codes leave at frame 1, codebook 3, logits 1.0e+00 apart"
    gaps[1, 3] = 1e-6
    passed, told = differences.of_answers(given, expected, 1e-4)
    assert passed and told.endswith("logits 1.0e-06 apart, a near-tie")
    assert not differences.of_codes(codes[:1], codes, gaps)[0], "fewer frames"


def test_the_command_says_and_counts(capsys, monkeypatch, tmp_path):
    def few(models):
        assert list(models) == ["random", "miniature"]
        yield self_check.Outcome("one", True, "equal", 2.5)
        yield self_check.Outcome("two", None, "not in this model")

    monkeypatch.setattr(self_check, "everything", few)
    self_check.main(["--json"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("pass") and lines[1].endswith("equal  (2.5 s)") and lines[2].startswith("- ")
    assert lines[3].startswith("all 1 comparisons agree, ") and json.loads(lines[-1])["passed"] is True

    monkeypatch.setattr(self_check, "everything", lambda models: iter([self_check.Outcome("three", False, "off")]))
    with pytest.raises(SystemExit) as stopped:
        self_check.main([])
    assert stopped.value.code == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 1 comparisons differ: three"


@pytest.mark.parametrize("status, code", [(1, 1), (2, 2), (-6, 1)])
def test_bench_measures_nothing_where_the_check_does_not_pass(monkeypatch, capsys, status, code):
    ran = []

    def run(command, env):
        ran.append((command, env))
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--self-check", "--size", "tiny"])
    assert stopped.value.code == code
    command, environment = ran[0]
    assert command[1:] == ["-m", "benchmarks.self_check", "--size", "tiny"] and environment["MLX_ENABLE_TF32"] == "0"
    assert ("SIGABRT" in capsys.readouterr().err) == (status == -6)


def test_bench_measures_what_was_named_and_nothing_else_after_the_check(monkeypatch):
    commands, measured = [], []
    monkeypatch.setattr(
        subprocess, "run", lambda command, env: commands.append(command) or subprocess.CompletedProcess(command, 0)
    )
    monkeypatch.setattr(bench, "run", lambda options, scratch: measured.append(options.model))
    monkeypatch.setattr(bench, "print_tables", lambda result: None)
    bench.main(["--self-check", "--json"])
    assert commands[0][-1] == "--json" and measured == []
    bench.main(["--self-check", "--model", "miniature"])
    bench.main([])
    assert len(commands) == 2 and measured == ["miniature", "mlx_model"]


SOME = {name: check_parts.FUSED[name] for name in ("talker, steps", "frame", "greedy speech")}


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    """A machine that runs fused kernels, in which their plain forms take their place. Returns which were run."""
    ran = []

    def standing_in(name):
        plain = getattr(kernels, f"plain_{name}")
        return lambda *arguments: ran.append(name) or plain(*arguments)

    monkeypatch.setattr(kernels, "backend", lambda: "metal")
    for name in kernels.NAMES:
        monkeypatch.setattr(kernels, name, standing_in(name))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return ran


def test_fused_kernels_that_agree_are_chosen_from_then_on(folder, stand_ins):
    assert not proof.proved()
    *alone, recorded = list(self_check.check_kernels({"random": folder}, SOME, {}))
    assert [outcome.name for outcome in alone if not outcome.passed] == [] and set(stand_ins) == set(kernels.NAMES)
    assert any(outcome.name == "random, fused, greedy speech" for outcome in alone)
    assert proof.proved() and str(proof.record_path()) in recorded.detail
    assert set(self_check.Qwen3TTS(folder).kernels) == set(kernels.NAMES)


@pytest.mark.parametrize("where", ["alone", "in frames"])
def test_fused_kernels_that_differ_are_shown_and_not_used(folder, stand_ins, monkeypatch, where):
    """Off alone; or right alone and off where they are used, as a kernel may be for a shape that nobody tried."""
    right = kernels.qk_rope_write
    monkeypatch.setattr(kernels, "qk_rope_write", lambda *arguments: tuple(x * 1.5 for x in right(*arguments)))
    if where == "in frames":
        monkeypatch.setattr(self_check.kernel_check, "check", lambda name: None)
    outcomes = list(self_check.check_kernels({"random": folder}, SOME, {}))
    assert all(outcome.passed is not False for outcome in outcomes)
    shown = [outcome for outcome in outcomes if "not used" in outcome.detail]
    assert shown[0].name == ("kernel qk_rope_write" if where == "alone" else "random, fused, talker, steps")
    assert outcomes[-1].passed is None and not proof.proved()
    assert json.loads(proof.record_path().read_text())["passed"] is False
    assert self_check.Qwen3TTS(folder).kernels == []


def test_where_there_is_no_gpu_kernels_are_not_run(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernels, "backend", lambda: None)
    (outcome,) = self_check.check_kernels({})
    assert outcome.passed is None and outcome.detail == "not run here: there is no GPU" and not list(tmp_path.iterdir())
