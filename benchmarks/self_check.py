"""Does this machine compute the same in the forms for a GPU as in those for a CPU? What a Mac's owner runs once.

    python -m benchmarks.bench --self-check [--model M | --size tiny|narrow|0.6b|1.7b]

Every form that is chosen by device is computed twice from the same inputs: in its GPU form on the default device, and
in its CPU form, uncompiled, on the CPU. First alone, then in the parts of a model, then in speech. Each line says
`pass` and how far the two are apart, `DIFFERS` and the first difference, or `-` and why there is nothing to compare;
the verdict comes last. Without a model these are random weights with the published head sizes, and the miniature.

In float32 numbers agree within 1e-4 of the largest, and codes are equal up to near-ties. In bfloat16 the GPU's talker
and predictor agree with the CPU's float32 within 2 %. Where there is no GPU, both run on the CPU: then it proves the
forms and says nothing of a GPU. Exit status 0 where all agrees, else 1.

On a GPU the fused kernels are compared too, alone and in frames, and the result is recorded for this machine: where
all agree, models use them from then on (`kernels="fused"`); where one does not compile or differs, it is shown and the
plain kernels stay.
"""

import argparse
import contextlib
import functools
import gc
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from benchmarks import gpu_proof, nodes
from benchmarks.check_forms import FAR, FORMS, Answers
from benchmarks.check_parts import FUSED, HALF, PARTS
from benchmarks.differences import distance, of_answers, relative
from convert.random_checkpoint import SIZES, write_checkpoint
from mlx_qwen3tts import Qwen3TTS, cli
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.weights import read_folder
from mlx_qwen3tts.networks import kernel_check, kernels, proof
from mlx_qwen3tts.networks.device import form

TOLERANCE, HALF_TOLERANCE = 1e-4, gpu_proof.TOLERANCE["bfloat16"]
LOOSE = {
    f"rotation at {FAR}": 1e-3,  # Metal's rotation takes the fast sine, whose error grows with the angle
    "codec decoder": 5e-4,  # codes that nobody spoke, through all those sines: 66 dB down
    "codec streaming": 5e-4,
}
FAILURES = (RuntimeError, ValueError)  # what MLX raises for what a backend lacks
# A tiny model with the published head sizes, for which MLX has attention kernels of their own.
HEADS = {
    "changes": {
        "talker_config": {
            "head_dim": 128,
            "rope_scaling": {"mrope_section": [24, 20, 20]},
            "code_predictor_config": {"head_dim": 128},
        }
    },
    "codec_changes": {"decoder_config": {"head_dim": 64}, "encoder_config": {"head_dim": 64}},
}


@dataclass(frozen=True)
class Outcome:
    """Of a comparison: passed is None where there is nothing to compare. seconds: of the GPU form's first run."""

    name: str
    passed: bool | None
    detail: str
    seconds: float = 0.0

    def __str__(self) -> str:
        mark = {True: "pass", False: "DIFFERS", None: "-"}[self.passed]
        took = f"  ({self.seconds:.1f} s)" if self.seconds >= 0.5 else ""
        return f"{mark:8}{self.name:44}{self.detail}{took}"


@contextlib.contextmanager
def side(name: str) -> Iterator[None]:
    """Run the GPU forms on the default device, or the CPU forms on the CPU, where nothing is compiled."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(form(name))
        if name == "cpu":
            stack.enter_context(mx.stream(mx.cpu))
            mx.disable_compile()
            stack.callback(mx.enable_compile)
        yield


def on_cpu() -> bool:
    """Whether there is no GPU to check."""
    return mx.default_device().type == mx.cpu


@dataclass(frozen=True)
class Answered:
    """What a side computed: arrays by name, None where there is nothing to compute, or what it raised."""

    answers: Answers | None
    error: str = ""
    seconds: float = 0.0


def answer(work: Callable[[], Answers | None]) -> Answered:
    """What a piece of work gives, and the seconds it took."""
    start = time.perf_counter()
    try:
        return Answered(work(), seconds=time.perf_counter() - start)
    except FAILURES as error:
        return Answered(None, f"{type(error).__name__}: {' '.join(str(error).split())}")


def judged(name: str, gpu: Answered, cpu: Answered, tolerance: float, measure=relative) -> Outcome:
    """What two sides' answers say."""
    for who, side_of in (("GPU", gpu), ("CPU", cpu)):
        if side_of.error:
            return Outcome(name, False, f"the {who} form raised {side_of.error}")
    if gpu.answers is None or cpu.answers is None:
        both = gpu.answers is None and cpu.answers is None
        return Outcome(name, None if both else False, "not in this model" if both else "on one side alone")
    return Outcome(name, *of_answers(gpu.answers, cpu.answers, tolerance, measure), gpu.seconds)


def check_machine() -> Iterator[Outcome]:
    """Whether float32 is float32, and whether MLX fuses what is compiled."""
    numbers = gpu_proof.precision()
    what = f"relative error {numbers['relative_error']:.1e}"
    advice = "; set MLX_ENABLE_TF32=0" if numbers["tf32"] else ""
    yield Outcome("float32 products", not numbers["tf32"], what + advice)
    fused = nodes.count(mx.compile(lambda x: mx.sin(x) * 2 + 1)(nodes.blank((3,), mx.float32))).total() == 1
    missing = "not fused: MLX needs g++ on the path; all is slower without"
    yield Outcome("compiled functions", True if fused else None, "fused" if fused else missing)


def check_operations() -> Iterator[Outcome]:
    """Every operation that the package asks MLX for, one line a dtype."""
    for dtype in (mx.float32, mx.bfloat16):
        name = str(dtype).removeprefix("mlx.core.")
        works, expected = gpu_proof.operations(dtype), gpu_proof.operations(dtype, expected=True)
        if on_cpu() and dtype == mx.bfloat16:  # a CPU adds up quantised products in bfloat16
            works = {operation: work for operation, work in works.items() if "bit" not in operation}
        start, worst, wrong = time.perf_counter(), 0.0, None
        for operation, work in works.items():
            proved: dict[str, Any] = gpu_proof.prove(work, expected[operation], gpu_proof.TOLERANCE[name])
            if not proved["proved"]:
                why = proved["error"] if "error" in proved else f"off by {proved['difference']:.1e}"
                wrong = f"{operation}: {why}"
                break
            worst = max(worst, float(proved["difference"]))
        detail = wrong or f"{len(works)}, within {worst:.1e}"
        yield Outcome(f"operations, {name}", wrong is None, detail, time.perf_counter() - start)


def check_forms(forms: Mapping[str, Callable[[], Answers]] = FORMS) -> Iterator[Outcome]:
    """Every form that is chosen by device, alone."""
    for name, work in forms.items():
        found = {}
        for which in ("gpu", "cpu"):
            with side(which):
                found[which] = answer(work)
        yield judged(f"forms, {name}", found["gpu"], found["cpu"], LOOSE.get(name, TOLERANCE))


def answers_of(
    folder: Path, which: str, dtype: str, parts: Mapping[str, Any], fused: frozenset[str] = frozenset()
) -> dict[str, Answered]:
    """What a side computes of a model that it loads for it, by part. fused: the kernels it is loaded with."""
    with side(which), kernels.using(fused):
        tts = Qwen3TTS(folder, dtype, kernels="plain")
        tts.steps.kernels = fused
        found = {}
        for name, work in parts.items():
            cli.note(f"{which} forms: {name}")
            found[name] = answer(functools.partial(work, tts))
        del tts
    gc.collect()
    mx.clear_cache()  # the next one is loaded into the same memory
    return found


def check_model(
    label: str, folder: Path, parts: Mapping[str, Any] = PARTS, half: Mapping[str, Any] = HALF, fused=frozenset()
) -> Iterator[Outcome]:
    """The parts of a model, loaded for one side after the other so that only one is in memory.

    fused: the names of the kernels that the GPU's side is to use.
    """
    gpu = answers_of(folder, "gpu", "float32", parts, fused)
    low = {} if on_cpu() and quantised(folder) else answers_of(folder, "gpu", "bfloat16", half, fused)
    lowered = {f"{name} in bfloat16": work for name, work in half.items()}
    cpu = answers_of(folder, "cpu", "float32", {**parts, **lowered})
    for name in parts:
        yield judged(f"{label}, {name}", gpu[name], cpu[name], LOOSE.get(name, TOLERANCE))
    for name, title in zip(half, lowered, strict=True):
        if name in low:
            yield judged(f"{label}, {title}", low[name], cpu[title], HALF_TOLERANCE, distance)
        else:
            yield Outcome(f"{label}, {title}", None, "not run here: a CPU adds up quantised products in bfloat16")


def check_kernels(
    models: Mapping[str, Path], parts: Mapping[str, Any] = FUSED, half: Mapping[str, Any] = HALF
) -> Iterator[Outcome]:
    """The fused kernels alone, then in frames; what is found is recorded, and decides what models use here.

    A kernel that does not compile or differs is no failure of the machine: it is not used.
    """
    if kernels.backend() is None:
        yield Outcome("fused kernels", None, "not run here: there is no GPU")
        return
    unused = []
    for name in kernels.NAMES:
        start = time.perf_counter()
        problem = kernel_check.check(name)
        unused += [f"{name}: {problem}"] * (problem is not None)
        detail = "as the plain form" if problem is None else f"not used: {problem}"
        yield Outcome(f"kernel {name}", problem is None or None, detail, time.perf_counter() - start)
    for label, folder in models.items() if not unused else ():
        for outcome in check_model(f"{label}, fused", folder, parts, half, frozenset(kernels.NAMES)):
            if outcome.passed is False:
                unused.append(f"{outcome.name}: {outcome.detail}")
                outcome = replace(outcome, passed=None, detail=f"fused kernels are not used: {outcome.detail}")
            yield outcome
    path = proof.record(not unused, "; ".join(unused) or f"frames of {', '.join(models)} agree")
    chosen = "plain kernels, as before" if unused else "kernels='fused' from now on"
    yield Outcome("fused kernels", None if unused else True, f"{chosen}; recorded in {path}")


def quantised(folder: Path) -> bool:
    """Whether a model has quantised layers."""
    return any(name.endswith(".scales") for name in read_folder(folder))


def everything(models: Mapping[str, Path]) -> Iterator[Outcome]:
    """All comparisons, as they are made. models: label to folder."""
    yield from check_machine()
    yield from check_operations()
    yield from check_forms()
    for label, folder in models.items():
        yield from check_model(label, folder)
    yield from check_kernels(models)


def default_models(scratch: Path) -> dict[str, Path]:
    """Random weights with the published head sizes, and the miniature: no download."""
    return {"random": write_checkpoint(scratch / "random", **HEADS), "miniature": hub.SHIPPED["miniature"]}


def verdict(outcomes: list[Outcome]) -> str:
    """The last line."""
    wrong = [outcome.name for outcome in outcomes if outcome.passed is False]
    compared = sum(outcome.passed is not None for outcome in outcomes)
    if wrong:
        return f"{len(wrong)} of {compared} comparisons differ: {'; '.join(wrong)}"
    where = "on the CPU alone, as there is no GPU here" if on_cpu() else f"on {mx.device_info()['device_name']}"
    return f"all {compared} comparisons agree, {where}"


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m benchmarks.self_check", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="M", help="check this model instead: a folder, hub id or `miniature`")
    which.add_argument("--size", choices=SIZES, help="check random weights of this shape instead")
    cli.add_json(parser)
    return parser


def self_check(options: argparse.Namespace) -> None:
    for intended in (".* did not end within", "audio .* is short", "this model knows"):
        warnings.filterwarnings("ignore", message=intended, category=UserWarning)
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        if options.model:
            models = {Path(options.model).name: hub.resolve(options.model)}
        elif options.size:
            models = {options.size: write_checkpoint(Path(scratch) / "random", size=options.size)}
        else:
            models = default_models(Path(scratch))
        print(f"GPU forms on {mx.default_device()} against CPU forms on the CPU, MLX {mx.__version__}", flush=True)
        for outcome in everything(models):
            outcomes.append(outcome)
            print(outcome, flush=True)
    print(verdict(outcomes), flush=True)
    passed = not any(outcome.passed is False for outcome in outcomes)
    if options.json:
        cli.print_json({"passed": passed, "device": str(mx.default_device()), "outcomes": list(map(asdict, outcomes))})
    if not passed:
        sys.exit(1)


def main(arguments=None) -> None:
    cli.run(self_check, build_parser().parse_args(arguments))


if __name__ == "__main__":
    main()
