"""Train the miniature: every stage in order, two at a time where they do not need one another.

    python -m training WORK --torch-python PYTHON

PYTHON is that of an environment with torch, the official package `qwen-tts` and espeak-ng at hand (see README.md); this
project's own environment runs the command itself, the conversion and the evaluation. Each stage leaves WORK/NAME.log, a
CSV of its losses, and a checkpoint from which the next run goes on; a stage whose gate is missed ends the run.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

# Stages that run side by side, a core each, with their minutes; one that runs alone has both. A chain runs in order.
PLAN = (
    [[("corpus", 0)]],
    [[("lock", 0)], [("mels", 0)]],
    [[("encoder", 30)], [("vocoder", 30)]],
    [[("decoder", 90)], [("recogniser", 8), ("alignment", 0)]],
    [[("echoes", 0)]],
    [[("speaker", 20)]],
    [[("talker", 60)]],
    [[("export", 0)]],
)
MODULES = {"vocoder": ("decoder", "--from", "spectra"), "decoder": ("decoder", "--from", "codes")}
WAIT = 1  # seconds between two looks at what runs
CONVERSION = ("--quantize", "--q-bits", "6", "--q-predictor-bits", "8", "--q-group-size", "64")


def command(python, name, work, minutes, threads):
    module, *options = MODULES.get(name, (name,))
    line = [python, "-m", f"training.{module}", str(work), *options]
    return [*line, "--minutes", str(minutes), "--threads", str(threads)] if minutes else line


def run_chain(chain, python, work, scale, threads):
    """Generator that starts each stage of a chain in turn and yields while one runs."""
    for name, minutes in chain:
        done = work / f"{name}.done"
        if done.exists():
            print(f"{name}: done before", flush=True)
            continue
        start = time.monotonic()
        print(f"{name}: running, see {work / name}.log", flush=True)
        with (work / f"{name}.log").open("a") as log:
            process = subprocess.Popen(command(python, name, work, minutes * scale, threads), stdout=log, stderr=log)
            while process.poll() is None:
                yield process
        if process.returncode:
            last = (work / f"{name}.log").read_text().strip().splitlines()[-1]
            raise SystemExit(f"{name} failed after {time.monotonic() - start:.0f} s: {last}")
        done.touch()
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


def run_together(chains, python, work, scale):
    threads = 2 if len(chains) == 1 else 1
    running = {id(chain): run_chain(chain, python, work, scale, threads) for chain in chains}
    processes = {}
    try:
        while running:
            for key, steps in list(running.items()):
                try:
                    processes[key] = next(steps)
                except StopIteration:
                    running.pop(key)
                    processes.pop(key, None)
            time.sleep(WAIT)
    finally:
        for process in processes.values():
            process.terminate()


def main():
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.split("\n\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--torch-python", required=True, help="python of the environment with torch and qwen-tts")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every stage's minutes (default: 1)")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for chains in PLAN:
        run_together(chains, options.torch_python, options.work, options.scale)
    official, converted = options.work / "official", options.work / "converted"
    paths = ["--hf-path", str(official), "--mlx-path", str(converted)]
    subprocess.run([sys.executable, "-m", "mlx_qwen3tts.convert", *paths, *CONVERSION, "--overwrite"], check=True)
    done = subprocess.run([sys.executable, "-m", "training.evaluate", str(options.work), str(converted)])
    if done.returncode:
        sys.exit(
            "some gates are missed; `python -m training.ship WORK` would ship it all the same, with them in its card"
        )
    subprocess.run([sys.executable, "-m", "training.ship", str(options.work)], check=True)
    subprocess.run([sys.executable, "-m", "training.directions"], check=True)
    golden = ["-m", "training.golden", str(options.work), "--torch-python", options.torch_python]
    subprocess.run([sys.executable, *golden], check=True)


if __name__ == "__main__":
    main()
