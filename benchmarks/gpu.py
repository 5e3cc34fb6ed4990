"""What a CUDA GPU says of this package: fidelity and speed on MLX's CUDA backend, one report in some eight minutes.

    python -m benchmarks.gpu --output report [--only proof,parity,...] [--budget 480] [--size 0.6b] [--large 1.7b]

benchmarks/gpu_setup.sh installs what it needs where there is no network. Sections, in the order in which they run:

    proof           every operation that the package asks of MLX, on the device against the CPU; does float32 mean TF32?
    parity          the official package's goldens in float32 without TF32; codes equal, or where and how far apart
    bfloat16        how often bfloat16 chooses as float32 does, on the same speech; the miniature, and random weights
    speed           --size: frames a second, where a frame's milliseconds go, first audio, batches; bf16, 8 and 4 bit
    host            a frame's time on the host (building, handing over) against that on the device
    kernels         kernels a frame as the profiler counts them, beside what benchmarks.nodes counts
    kernels-graphs  the same with MLX's CUDA graphs, as it runs; the profiler may not see into them
    graphs          kernels a frame from the CUDA graphs that MLX writes down, which needs no profiler
    miniature       the miniature speaks: codes against its golden, F0, level, the sound as .wav
    others          the same weights in mlx-audio and the official package, by benchmarks.compare, as ratios
    loop-*          the loop's time with more operations to a CUDA graph, and without CUDA graphs
    speed-large     `speed` for --large
    parity-tf32     `parity` with MLX's default, TF32, to know what it costs

Each section is a process of its own with a time limit: one that fails, crashes or hangs is reported and the next one
runs. One that does not fit into what is left of the budget is skipped. Everything is written at once: figures as a line
of JSON each to OUTPUT/gpu.jsonl, what is printed to OUTPUT/gpu.log. Random checkpoints are written to --work meanwhile,
on the CPU. --size tiny --large tiny tries the whole script in minutes, on a CPU device too.
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
    proof = ("-u", "-m", "benchmarks.gpu_proof", "--records", str(options.output / "gpu.jsonl"))
    return [
        Section("proof", proof, 10, 120, PATIENT),
        section("parity", 30, 180, **EXACT),
        section("bfloat16", 15, 60, *small, **EXACT),
        section("speed", 40, 180, *small),
        section("host", 15, 60, *small),
        section("kernels", 15, 60, *small, MLX_USE_CUDA_GRAPHS="0"),
        section("kernels-graphs", 15, 45, *small, body="kernels"),
        section("graphs", 15, 45, *small, MLX_SAVE_CUDA_GRAPHS_DOT_FILE=str(options.work / "graphs" / "graph")),
        section("miniature", 15, 60, **EXACT, MLX_ENABLE_CACHE_THRASHING_CHECK="1"),
        section("others", 40, 150, *small, "--official-python", options.official_python, **EXACT),
        section("loop-100-ops", 10, 40, *small, body="loop", MLX_MAX_OPS_PER_BUFFER="100", **unlimited),
        section("loop-400-ops", 10, 40, *small, body="loop", MLX_MAX_OPS_PER_BUFFER="400", **unlimited),
        section("loop-no-graphs", 10, 40, *small, body="loop", MLX_USE_CUDA_GRAPHS="0"),
        section("speed-large", 60, 180, *large, body="speed"),
        section("parity-tf32", 30, 120, body="parity"),
    ]


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


def write_checkpoints(options: argparse.Namespace) -> subprocess.Popen:
    """Start to write the random checkpoints into --work, on the CPU, while the first sections run."""
    sizes = list(dict.fromkeys([options.size, options.large]))
    (options.work / WRITER_ENDED).unlink(missing_ok=True)
    arguments = ["-m", "benchmarks.gpu_sections", "checkpoints", "--work", str(options.work), "--sizes", *sizes]
    with open(options.output / "checkpoints.log", "w", encoding="utf-8") as log:
        return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the report")
    parser.add_argument("--work", type=Path, default=Path("/tmp/gpu-benchmark"), metavar="DIR", help="for checkpoints")
    parser.add_argument("--only", type=lambda value: value.split(","), metavar="NAMES", help="some sections alone")
    parser.add_argument("--budget", type=float, default=480, metavar="SECONDS", help="for all of it (default: 480)")
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
    # Sections with --size wait for their checkpoint.
    writing = write_checkpoints(options) if any("--size" in section.arguments for section in chosen) else None
    try:
        outcomes = run(chosen, options.budget, report)
    finally:
        if writing is not None and writing.poll() is None:
            os.killpg(writing.pid, signal.SIGKILL)
    report.say("\n" + "\n".join(f"{name:15} {outcome}" for name, outcome in outcomes.items()))
    sys.exit(any(outcome in ("failed", "stopped") for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
