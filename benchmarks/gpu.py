"""What a CUDA GPU says of this package: fidelity and speed on MLX's CUDA backend, one report.

    python -m benchmarks.gpu --output report [--only proof,parity,...] [--budget 900] [--size 0.6b] [--large 1.7b]

benchmarks/gpu_setup.sh installs what it needs where there is no network. Sections, in the order in which they run, what
decides most at the least cost first:

    proof           every operation that the package asks of MLX, on the device against the CPU; does float32 mean TF32?
    parity          the official package's goldens in float32 without TF32; codes equal, or where and how far apart
    forms           `bench --self-check`: every form chosen by device against the CPU's, alone and in models
    host            a frame's time on the host (building, handing over) against that on the device
    graphs          kernels a frame from the CUDA graphs that MLX writes down, which needs no profiler
    kernels-graphs  kernels a frame as the profiler counts them, beside what benchmarks.nodes counts; bf16 and 8 bit
    miniature       the miniature speaks: codes against its golden, F0, level, the sound as .wav
    speed           --size in bf16: frames a second, where a frame's milliseconds go, first audio, batches
    loop-*          the loop's time without CUDA graphs, and with more operations to a CUDA graph
    others          the same weights in mlx-audio and the official package, by benchmarks.compare, as ratios
    speed-8bit, speed-4bit
    bfloat16        how often bfloat16 chooses as float32 does, on the same speech; the miniature, and random weights
    kernels         `kernels-graphs` without CUDA graphs
    speed-large     `speed` for --large
    parity-tf32     `parity` with MLX's default, TF32, to know what it costs
    others-float32  `others` in float32

Each section is a process of its own with a time limit: one that fails, crashes or hangs is reported and the next one
runs. One that does not fit into what is left of the budget is skipped. Everything is written at once: figures as a line
of JSON each to OUTPUT/gpu.jsonl, what is printed to OUTPUT/gpu.log. MLX compiles kernels at their first use and keeps
them on disk, so a first run on a machine takes minutes longer than a second. What compiles longest (proof's quantised
products of many rows) and the random checkpoints, written to --work on the CPU, run beside the first sections.
--size tiny --large tiny tries the whole script in minutes, on a CPU device too.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WRITER_ENDED = "checkpoints.ended"  # lies in --work once no more checkpoints come
EXACT = {"MLX_ENABLE_TF32": "0"}  # products of float32 in float32
# MLX ends a program that uses many shapes, as tests with growing lengths do; the miniature speaks with the check on.
PATIENT = {"MLX_ENABLE_CACHE_THRASHING_CHECK": "0"}


@dataclass(frozen=True)
class Section:
    """A part of the report: the arguments of the Python that runs it, and the seconds it needs at least and at most."""

    name: str
    arguments: Sequence[str]
    needs: float
    limit: float
    environment: dict[str, str] = field(default_factory=dict)


class Report:
    """The log and the figures, both written through at once."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.records = folder, folder / "gpu.jsonl"
        self._log = open(folder / "gpu.log", "a", encoding="utf-8")  # noqa: SIM115

    def say(self, line: str) -> None:
        """A line for people, printed and logged."""
        print(line, flush=True)
        self._log.write(line + "\n")
        self._log.flush()

    def record(self, **values: object) -> None:
        """A line of JSON."""
        write_record(self.records, values)


def write_record(path: Path, values: dict) -> None:
    """Append a line of JSON. Sections and runner write to one file, each line in one piece."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def sections(options: argparse.Namespace) -> list[Section]:
    """The whole report, in order."""

    def section(name, needs, limit, *more, body=None, **environment):
        given = ("--work", str(options.work), "--output", str(options.output), *more)
        arguments = ("-u", "-m", "benchmarks.gpu_sections", body or name, "--section", name, *given)
        return Section(name, arguments, needs, limit, {**PATIENT, **environment})

    unlimited = {"MLX_MAX_MB_PER_BUFFER": "100000"}  # so that operations alone end a graph
    small, large = ("--size", options.size), ("--size", options.large)
    official = ("--official-python", options.official_python)
    return [
        Section("proof", proof(options, "quick"), 10, 120, PATIENT),
        section("parity", 30, 180, **EXACT),
        section("forms", 30, 180, **EXACT),
        section("host", 15, 60, *small),
        section("graphs", 15, 45, *small, MLX_SAVE_CUDA_GRAPHS_DOT_FILE=str(options.work / "graphs" / "graph")),
        section("kernels-graphs", 15, 120, *small, "--bits", "16", "8", body="kernels"),
        section("miniature", 15, 120, **EXACT, MLX_ENABLE_CACHE_THRASHING_CHECK="1"),
        section("speed", 40, 150, *small, "--bits", "16"),
        section("loop-no-graphs", 10, 40, *small, body="loop", MLX_USE_CUDA_GRAPHS="0"),
        section("loop-100-ops", 10, 40, *small, body="loop", MLX_MAX_OPS_PER_BUFFER="100", **unlimited),
        section("loop-400-ops", 10, 40, *small, body="loop", MLX_MAX_OPS_PER_BUFFER="400", **unlimited),
        section("others", 40, 150, *small, *official, **EXACT),
        section("speed-8bit", 40, 120, *small, "--bits", "8", body="speed"),
        section("speed-4bit", 40, 120, *small, "--bits", "4", body="speed"),
        section("bfloat16", 60, 240, *small, **EXACT),
        section("kernels", 30, 120, *small, "--bits", "16", "8", MLX_USE_CUDA_GRAPHS="0"),
        section("speed-large", 60, 180, *large, "--bits", "16", body="speed"),
        section("parity-tf32", 30, 120, body="parity"),
        section("others-float32", 60, 240, *small, *official, "--dtype", "float32", body="others", **EXACT),
    ]


def proof(options: argparse.Namespace, part: str) -> Sequence[str]:
    """The arguments of the Python that proves a part of the operations."""
    return ("-u", "-m", "benchmarks.gpu_proof", "--records", str(options.output / "gpu.jsonl"), "--part", part)


def run_section(section: Section, seconds: float, report: Report) -> dict[str, object]:
    """Run a section, `seconds` at most; its output goes to the report. Returns how it ended."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *section.arguments],
        cwd=ROOT,
        env={**os.environ, **section.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # so that what it starts ends with it
    )
    stopped = threading.Event()

    def stop():
        stopped.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, stop)
    timer.start()
    for line in process.stdout:
        report.say(f"  {line.rstrip()}")
    status = process.wait()
    timer.cancel()
    outcome = "stopped" if stopped.is_set() else "failed" if status else "done"
    return {"outcome": outcome, "status": status, "seconds": round(time.monotonic() - start, 1)}


def run(chosen: Sequence[Section], budget: float, report: Report) -> dict[str, str]:
    """Run sections one after the other within `budget` seconds; the outcome of each."""
    end, outcomes = time.monotonic() + budget, {}
    for section in chosen:
        left = end - time.monotonic()
        if left < section.needs:
            ended = {"outcome": "skipped", "left": round(left, 1), "needs": section.needs}
            report.say(f"{section.name}: skipped, it needs {section.needs:.0f} s and {max(left, 0):.0f} s are left")
        else:
            seconds = min(section.limit, left)
            report.say(f"{section.name}: at most {seconds:.0f} s")
            ended = run_section(section, seconds, report)
            status = f", status {ended['status']}" if ended["outcome"] == "failed" else ""
            report.say(f"{section.name}: {ended['outcome']} after {ended['seconds']} s{status}")
        report.record(section=section.name, **ended)
        outcomes[section.name] = str(ended["outcome"])
    return outcomes


class Beside:
    """A process that runs beside the sections; what it prints goes to a log of its own in the report's folder."""

    def __init__(self, name: str, arguments: Sequence[str], report: Report):
        self.name, self._report = name, report
        self._log = report.folder / f"{name}.log"
        with open(self._log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, **PATIENT},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> str:
        """Stop it where it still runs; how it ended, which is reported with what it printed."""
        status = self._process.poll()
        if status is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        outcome = "stopped" if status is None else "failed" if status else "done"
        self._report.say(f"{self.name}: {outcome}")
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            self._report.say(f"  {line}")
        self._report.record(section=self.name, outcome=outcome)
        return outcome


def start_beside(options: argparse.Namespace, chosen: Sequence[Section], report: Report) -> list[Beside]:
    """Start what the chosen sections need beside them: random checkpoints, and what compiles longest."""
    started = []
    if any("--size" in section.arguments for section in chosen):  # they wait for their checkpoint
        (options.work / WRITER_ENDED).unlink(missing_ok=True)
        sizes = list(dict.fromkeys([options.size, options.large]))
        writer = ("-m", "benchmarks.gpu_sections", "checkpoints", "--work", str(options.work), "--sizes", *sizes)
        started.append(Beside("checkpoints", writer, report))
    if any(section.name == "proof" for section in chosen):
        started.append(Beside("proof-slow", proof(options, "slow"), report))
    return started


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the report")
    parser.add_argument("--work", type=Path, default=Path("/tmp/gpu-benchmark"), metavar="DIR", help="for checkpoints")
    parser.add_argument("--only", type=lambda value: value.split(","), metavar="NAMES", help="some sections alone")
    parser.add_argument("--budget", type=float, default=900, metavar="SECONDS", help="for all of it (default: 900)")
    parser.add_argument("--size", default="0.6b", help="random weights that most sections run (default: 0.6b)")
    parser.add_argument("--large", default="1.7b", help="random weights of speed-large (default: 1.7b)")
    parser.add_argument("--official-python", default="", metavar="PYTHON", help="a Python that has qwen-tts")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser()
    options = parser.parse_args(arguments)
    options.output, options.work = options.output.resolve(), options.work.resolve()
    every = sections(options)
    unknown = set(options.only or ()) - {section.name for section in every}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: sections are {', '.join(section.name for section in every)}")
    chosen = [section for section in every if options.only is None or section.name in options.only]
    (options.work / "graphs").mkdir(parents=True, exist_ok=True)
    report = Report(options.output)
    beside, outcomes = start_beside(options, chosen, report), {}
    try:
        outcomes = run(chosen, options.budget, report)
    finally:
        outcomes |= {process.name: process.end() for process in beside}
    report.say("\n" + "\n".join(f"{name:15} {outcome}" for name, outcome in outcomes.items()))
    sys.exit(any(outcome in ("failed", "stopped") for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
