"""The same random weights in this package, in mlx-audio and in the official PyTorch package, run in turn.

    python -m benchmarks.compare [--size narrow] [--frames 40] [--repeats 3] [--parts frames codec floor]
                                 [--dtype float32] [--checkpoint DIR] [--official-device cpu]
                                 [--mlx-audio-python PYTHON] [--official-python PYTHON] [--json]

Parts:
    frames  a text and an x-vector to codes: prompt, prefill, talker, predictor and sampling, no codec
    codec   codes to sound
    speech  both, as a user calls it (not in the default: mlx-audio decodes for minutes on a CPU)
    floor   the time in which a frame's weights can be read, beside our time for a frame; CPU only, and it means
            something where the weights do not fit in the caches, from 0.6b on

Everything is float32; --dtype bfloat16 is for talker and predictor, and in the official package for the codec too. The
whole text stands in the prompt, the one layout that all three have. The head's row for end of speech is zero here: a
logit of 0 is never among the 50 best of 2,048, so every run is as long as asked. Sampling is as in the checkpoint,
temperature 0.9 and top-k 50. The warm-up is greedy, and everyone has to make the same codes in it. Each runs in a
worker process, loaded once and timed inside. For N frames mlx-audio takes N talker steps, the prefill among them; the
official package and this one take N + 1, for the token that may have been the end.

Another implementation is left out, with a line that says why, where its Python is not named and its package is not
installed here. MLX_AUDIO_PYTHON and QWEN_TTS_PYTHON stand in for the two options. Other environment variables, such as
LD_PRELOAD, pass on to all. An OpenBLAS preloaded for MLX takes the place of PyTorch's own BLAS too and gets in the way
of its threads; --official-own-blas keeps LD_PRELOAD from it.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import mlx.core as mx
import numpy as np

from benchmarks.shared import frame_bytes, processor
from convert.random_checkpoint import SIZES, write_checkpoint

ROOT = Path(__file__).resolve().parent.parent
TEXT = "The weather is fine today."
PARTS = ("frames", "codec", "speech", "floor")
# Name: the package that its Python must have, the option and the environment variable that name its Python.
OTHERS = {
    "mlx-audio": ("mlx_audio", "--mlx-audio-python", "MLX_AUDIO_PYTHON"),
    "official": ("qwen_tts", "--official-python", "QWEN_TTS_PYTHON"),
}
MODULES = {"ours": "ours", "mlx-audio": "mlx_audio", "official": "official", "memory": "memory"}


class WorkerError(RuntimeError):
    """A worker ended without an answer; the message has the end of its stderr."""


class Worker:
    """A process of benchmarks.workers in a Python of its own, which answers requests."""

    def __init__(self, python, module, environment, log):
        """log: the file for whatever it prints."""
        self.log = log
        # Answers have a pipe of their own, as libraries print to stdout when they please.
        reading, writing = os.pipe()
        with open(log, "wb") as printed:
            self.process = subprocess.Popen(
                [python, "-m", f"benchmarks.workers.{module}", str(writing)],
                cwd=ROOT,
                env=environment,
                pass_fds=[writing],
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                encoding="utf-8",
            )
        os.close(writing)
        self.answers = os.fdopen(reading, encoding="utf-8")

    def ask(self, do, **arguments):
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            answer = self.answers.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            status = self.process.wait()
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise WorkerError("\n    ".join([f"died in {do!r} with status {status}", *lines[-8:]]))
        return json.loads(answer)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.answers.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()


class Crew:
    """The workers by name. One that dies is reported and leaves; the others go on."""

    def __init__(self, scratch, threads, stack):
        """scratch: a folder; threads: of everyone's BLAS; stack: an ExitStack that ends the workers."""
        self.scratch, self.threads, self.stack = scratch, threads, stack
        self.workers, self.died = {}, {}

    def start(self, name, python, preload=True, **arguments):
        """Start a worker and let it load; its answer, or None where it died. preload: pass LD_PRELOAD on."""
        threads = str(self.threads)
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        if not preload:
            environment.pop("LD_PRELOAD", None)
        print(f"loading {name}", file=sys.stderr)
        worker = Worker(python, MODULES[name], environment, self.scratch / f"{name}.log")
        self.stack.callback(worker.end)
        self.workers[name] = worker
        return self.ask(name, "load", **arguments)

    def ask(self, name, do, **arguments):
        """A worker's answer, or None where it is dead."""
        if name not in self.workers:
            return None
        try:
            return self.workers[name].ask(do, **arguments)
        except WorkerError as error:
            print(f"{name}: {error}", flush=True)
            self.died[name] = str(error)
            del self.workers[name]
            return None

    def saved(self, part, name):
        """The array that a worker saved in a part's warm-up."""
        return np.load(self.path(part, name))

    def path(self, part, name):
        return self.scratch / f"{part}-{name}.npy"


def busy_seconds():
    """Seconds that all cores together have been busy so far, or None where Linux does not tell."""
    counters = Path("/proc/stat")
    if not counters.exists():
        return None
    ticks = [int(value) for value in counters.read_text(encoding="utf-8").split()[1:9]]
    return (sum(ticks) - sum(ticks[3:5])) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for disks


def wait_for_rest(seconds):
    """Wait until other processes leave the machine alone, at most so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and (before := busy_seconds()) is not None:
        time.sleep(0.5)
        if busy_seconds() - before < 0.1:
            return


def ask_watching(crew, name, part, wait, **arguments):
    """A worker's answer with "others", the cores that other processes kept busy meanwhile, where that is known."""
    wait_for_rest(wait)
    before, start = busy_seconds(), time.perf_counter()
    answer = crew.ask(name, part, **arguments)
    if answer:
        after, elapsed = busy_seconds(), time.perf_counter() - start
        answer["others"] = None if before is None else max(0.0, (after - before - answer["cpu"]) / elapsed)
    return answer


def find_python(name, given):
    """(the Python to run an implementation with, None), or (None, why it is left out)."""
    package, option, variable = OTHERS[name]
    python = given or os.environ.get(variable) or sys.executable
    if shutil.which(python) is None:
        return None, f"{python} is no program"
    # Isolated, so that neither the working folder nor PYTHONPATH passes for the package.
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    if subprocess.run([python, "-I", "-c", code], capture_output=True).returncode:
        return None, f"{python} has no {package}; name a Python that has it with {option} or {variable}"
    return python, None


def write_inputs(scratch, size, codec_frames, written=None):
    """Checkpoint, voice and codes for everyone; returns their paths. written: the checkpoint, if there is one."""
    folder = written or write_checkpoint(scratch / "checkpoint", size=size, eos_gain=0.0)
    mx.clear_cache()
    width = json.loads((folder / "config.json").read_text(encoding="utf-8"))["talker_config"]["hidden_size"]
    random = np.random.RandomState(0)
    vector = random.standard_normal(width)
    # As long as real vectors are at 0.6b.
    np.save(scratch / "voice.npy", (10.25 * vector / np.linalg.norm(vector)).astype(np.float32))
    # No code 0: it is a code like any other, but mlx-audio takes it for padding and cuts the sound.
    np.save(scratch / "codes.npy", random.randint(1, 2048, (codec_frames, 16)).astype(np.int32))
    return folder, scratch / "voice.npy", scratch / "codes.npy"


def measure(crew, names, part, arguments, options, between=None):
    """Runs of a part in turn, after a warm-up each: name to list of answers.

    arguments: of every request; between: called once a round, if given. A warm-up that takes longer than
    options.patience is kept as the only run.
    """
    runs, patient = {}, []
    sampled = part != "codec"
    for name in names:
        first = dict(arguments)
        if part != "speech":
            first["save"] = str(crew.path(part, name))
        answer = ask_watching(crew, name, part, options.wait, **first, **({"greedy": True} if sampled else {}))
        if answer and answer["seconds"] > options.patience:
            print(f"{part}: {name} took {answer['seconds']:.0f} s to warm up and runs no more", file=sys.stderr)
            runs[name] = [answer]
            continue
        if answer and sampled:
            # Sampling is compiled apart from greedy where anything is.
            answer = crew.ask(name, part, **{**arguments, "frames": 2})
        if answer:
            runs[name] = []
            patient.append(name)
    for i in range(options.repeats):
        print(f"{part}: run {i + 1} of {options.repeats}", file=sys.stderr)
        for name in patient:
            answer = ask_watching(crew, name, part, options.wait, **arguments, **({"seed": i} if sampled else {}))
            if answer:
                runs[name].append(answer)
        if between:
            between()
    return {name: answers for name, answers in runs.items() if answers}


def summary(answers, key):
    """What a worker's runs come to; key: the seconds to look at. Ratios go by the time per frame made."""
    seconds, frames = [answer[key] for answer in answers], [answer["frames"] for answer in answers]
    return {
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "per_frame": statistics.median(s / n for s, n in zip(seconds, frames, strict=True)),
        "seconds": seconds,
        "frames": frames,
        "others": [answer["others"] for answer in answers],
    }


def agreement(crew, part, names):
    """What the others' warm-up has in common with ours: leading frames of equal codes, or the sound's difference."""
    mine, result = crew.saved(part, "ours"), {}
    for name in names:
        theirs = crew.saved(part, name)
        length = min(len(mine), len(theirs))
        differs = mine[:length] != theirs[:length]
        if part == "frames":
            first = np.nonzero(differs.any(axis=1))[0]
            result[name] = int(first[0]) if len(first) else length
        else:
            result[name] = {
                "max_difference": float(np.abs(mine[:length] - theirs[:length]).max()),
                "peak": float(np.abs(mine).max()),
                "samples": [len(mine), len(theirs)],
            }
    return result


def compare(options, scratch, stack):
    """The whole run, printed part by part; returns what --json prints."""
    if not options.checkpoint:
        print(f"writing a random checkpoint, {options.size}", file=sys.stderr)
    folder, voice, codes = write_inputs(scratch, options.size, options.codec_frames, options.checkpoint)
    crew = Crew(scratch, options.threads, stack)
    pythons, skipped, about = {"ours": sys.executable}, {}, {}
    for name, given in (("mlx-audio", options.mlx_audio_python), ("official", options.official_python)):
        pythons[name], reason = find_python(name, given)
        if reason:
            print(f"{name}: skipped: {reason}", flush=True)
            del pythons[name]
            skipped[name] = reason
    given = {"folder": str(folder), "voice": str(voice), "threads": options.threads, "dtype": options.dtype}
    for name, python in pythons.items():
        preload = not (name == "official" and options.official_own_blas)
        more = {"device": options.official_device} if name == "official" else {}
        answer = crew.start(name, python, preload, **given, **more)
        if answer:
            about[name] = {
                "versions": answer["versions"],
                "device": answer["device"],
                "LD_PRELOAD": os.environ.get("LD_PRELOAD", "") if preload else "",
            }
    result = {
        "size": options.size,
        "dtype": options.dtype,
        "frames": options.frames,
        "codec_frames": options.codec_frames,
        "repeats": options.repeats,
        "text": TEXT,
        "threads": options.threads,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "implementations": about,
        "skipped": skipped,
        "died": crew.died,
        "parts": {},
        "ratios": {},
        "agreement": {},
    }
    print_header(result)

    bandwidths = []
    floor = "floor" in options.parts and "ours" in about
    if floor and "cpu" not in about["ours"]["device"]:
        print("floor: skipped: the read speed is measured on the CPU, and our device is another")
        floor = False
    if floor:
        crew.start("memory", sys.executable, megabytes=512)

    def read_memory():
        answer = crew.ask("memory", "read") if floor else None
        if answer:
            bandwidths.append(answer["bytes_per_second"])

    spoken = {"text": TEXT, "frames": options.frames}
    arguments = {"frames": spoken, "codec": {"codes": str(codes)}, "speech": spoken}
    for part in [part for part in PARTS if part in options.parts and part in arguments]:
        runs = measure(crew, about, part, arguments[part], options, read_memory if part == "frames" else None)
        for key in ("prefill", "seconds") if part == "frames" else ("seconds",):
            place = "prefill" if key == "prefill" else part
            by_name = {name: summary(answers, key) for name, answers in runs.items()}
            result["parts"][place] = by_name
            if "ours" in by_name:
                ours = by_name["ours"]["per_frame"]
                result["ratios"][place] = {name: of["per_frame"] / ours for name, of in by_name.items()}
            print_part(place, by_name, result["ratios"].get(place, {}))
        if part != "speech" and "ours" in runs:
            result["agreement"][part] = agreement(crew, part, [name for name in runs if name != "ours"])
    if floor:
        arrays = mx.load(str(folder / "model.safetensors"))  # headers only
        size = getattr(mx, options.dtype).size
        sizes = {name: size * array.size for name, array in arrays.items()}
        result["floor"] = {"bytes": frame_bytes(sizes), "bytes_per_second": bandwidths}
        if bandwidths and "ours" in result["parts"]["frames"]:
            seconds = result["floor"]["bytes"]["frame"] / statistics.median(bandwidths)
            share = seconds / result["parts"]["frames"]["ours"]["per_frame"]
            result["floor"] |= {"seconds": seconds, "share": share}
    print_notes(result)
    return result


def print_header(result):
    machine, what = result["machine"], f"{result['size']}, {result['dtype']}"
    print(f"\n{what}, {machine['processor']}, threads: {result['threads']} of {machine['cores']}")
    for name, about in result["implementations"].items():
        versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
        preloaded = f", with {Path(about['LD_PRELOAD']).name}" if about["LD_PRELOAD"] else ""
        print(f"{name:10} {versions}, {about['device']}{preloaded}")
    print(f"\n{'part':8} {'who':10} {'frames':>6} {'runs':>4} {'median ms':>10} {'min':>8} {'max':>8}", end="")
    print(f" {'ms/frame':>9} {'frames/s':>9} {'to ours':>8} {'others':>6}", flush=True)


def print_part(part, by_name, ratios):
    for name, of in by_name.items():
        low, median, high = (1000 * of[key] for key in ("min", "median", "max"))
        line = f"{part:8} {name:10} {'' if part == 'prefill' else of['frames'][0]:>6} {len(of['seconds']):4}"
        line += f" {median:10.1f} {low:8.1f} {high:8.1f}"
        line += " " * 20 if part == "prefill" else f" {1000 * of['per_frame']:9.1f} {1 / of['per_frame']:9.2f}"
        line += f" {ratios[name]:7.2f}×" if name in ratios else " " * 9
        print(line if None in of["others"] else f"{line} {statistics.median(of['others']):6.2f}", flush=True)


def print_notes(result):
    print("to ours: how many times our time; others: cores that other processes kept busy, the median\n")
    for part in ("frames", "speech"):
        for name, of in result["parts"].get(part, {}).items():
            if set(of["frames"]) != {result["frames"]}:
                print(f"{part}: {name} made {of['frames']} frames, not {result['frames']}; ratios go by the frame")
    for name, frames in result["agreement"].get("frames", {}).items():
        print(f"greedy codes: {name} has the same as ours in the first {frames} of {result['frames']} frames")
    for name, of in result["agreement"].get("codec", {}).items():
        print(
            f"sound: {name} differs from ours by at most {of['max_difference']:.1e} where ours peaks at "
            f"{of['peak']:.2f} (samples: {of['samples'][1]}, ours {of['samples'][0]})"
        )
    floor = result.get("floor", {})
    if "share" in floor:
        speeds = " ".join(f"{value / 1e9:.1f}" for value in floor["bytes_per_second"])
        print(
            f"floor: a frame reads {floor['bytes']['frame'] / 1e6:.1f} MB of weights, at {speeds} GB/s in "
            f"{1000 * floor['seconds']:.1f} ms, {floor['share']:.0%} of our frame's time"
        )
    if result["died"]:
        print(f"died: {', '.join(result['died'])}")


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="narrow")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="what write_checkpoint wrote of this size")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of talker and predictor")
    parser.add_argument("--official-device", default="cpu", metavar="D", help="of the official package: cpu or cuda")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--codec-frames", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["frames", "codec", "floor"])
    parser.add_argument("--mlx-audio-python", metavar="PYTHON", help="a Python that has mlx-audio")
    parser.add_argument("--official-python", metavar="PYTHON", help="a Python that has qwen-tts")
    parser.add_argument("--official-own-blas", action="store_true", help="keep LD_PRELOAD from the official package")
    parser.add_argument(
        "--threads",
        type=int,
        default=int(os.environ.get("OPENBLAS_NUM_THREADS") or os.cpu_count()),
        help="of every BLAS (default: OPENBLAS_NUM_THREADS, or the number of cores)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=30,
        metavar="SECONDS",
        help="where a warm-up takes longer, it is the only run (default: 30)",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=0,
        metavar="SECONDS",
        help="wait for other processes to rest before each run, at most so long (default: 0)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object last; its times are seconds")
    return parser


def main(arguments=None):
    parser = build_parser()
    options = parser.parse_args(arguments)
    if "floor" in options.parts and "frames" not in options.parts:
        parser.error("the part floor needs the part frames")
    for name in ("frames", "codec_frames", "repeats", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        result = compare(options, Path(scratch), stack)
    if options.json:
        print(json.dumps(result))
    if result["died"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
