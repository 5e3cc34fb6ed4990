"""Train the open miniature: every stage in order, or one of them.

    python -m training.open WORK --torch-python PYTHON --texts ROOT
    python -m training.open STAGE WORK [options of the stage]

PYTHON is that of an environment with torch, safetensors, tokenizers, librosa, soundfile and scipy; this project's own
environment runs the command itself. Every stage goes on where it was stopped, at any time; `--seconds` stops it after
so many. A stage whose gate is missed ends the run.
"""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from ..__main__ import MODULES

# (stage, whether it needs torch, minutes of a stage of the closed recipe that works in WORK/codec), in order.
STAGES = (
    ("judge", True, None),
    ("ear", True, None),
    ("sound", False, None),
    ("encoder", True, 40),
    ("decoder", True, 90),
    ("codec", True, None),
    ("resynthesis", False, None),
    ("likeness", False, None),
    ("corpus", True, None),
    ("gather", False, None),
    ("talker", True, None),
    ("export", False, None),
    ("evaluate", False, None),
)
STARTED = ("encoder", "decoder")  # those that go on from the shipped codec
OTHERS = ("profile", "pack", "ship")
OWN = tuple(name for name, _, minutes in STAGES if minutes is None)
TEXTS = ("judge", "ear", "sound", "resynthesis", "likeness", "corpus", "evaluate")  # those that read the texts


def build_parser(stage):
    """The parser of one stage's options, and its module."""
    module = importlib.import_module(f"training.open.{stage}")
    options = argparse.ArgumentParser(prog=f"python -m training.open {stage}", description=module.__doc__)
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("work", type=Path)
    options.add_argument("--seconds", type=float, help="stop after so many, to go on with later (default: never)")
    module.add_options(options)
    return options, module


def command(stage, torch, minutes, options):
    """The command line of one stage."""
    python = options.torch_python if torch else sys.executable
    if minutes is None:
        line = [python, "-m", "training.open", stage, str(options.work)]
        return line + (["--texts", str(options.texts)] if stage in TEXTS else [])
    module, *more = MODULES.get(stage, (stage,))
    line = [python, "-m", f"training.{module}", str(options.work / "codec"), *more]
    if stage in STARTED:
        from .codec import FOLDER, PACKAGE  # which `pack` leaves out

        line += ["--start", str(PACKAGE / FOLDER)]
    line += ["--ear", str(options.work / "ear" / "judge.safetensors")] if stage == "decoder" else []
    line += (
        ["--threads", str(options.threads), "--cpu-time"] if options.cpu_time else ["--threads", str(options.threads)]
    )
    return line + (["--minutes", str(minutes * options.scale)] if minutes else [])


def run(options, run_one=subprocess.run):
    """All stages. A stage that is done leaves WORK/NAME.done and is not run again."""
    options.work.mkdir(parents=True, exist_ok=True)
    for stage, torch, minutes in STAGES:
        done = options.work / f"{stage}.done"
        if done.exists():
            print(f"{stage}: done before", flush=True)
            continue
        if run_one(command(stage, torch, minutes, options)).returncode:
            sys.exit(f"{stage} failed; see above")
        done.touch()


def main():
    if len(sys.argv) > 1 and sys.argv[1] in (*OWN, *OTHERS):
        options, module = build_parser(sys.argv[1])
        return module.main(options.parse_args(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m training.open", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("work", type=Path)
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--texts", default="/", help="root below which the texts' packages lie (default: /)")
    parser.add_argument("--threads", type=int, default=1, help="of the codec's stages (default: 1)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the minutes of the codec's stages")
    parser.add_argument("--cpu-time", action="store_true", help="count these minutes in CPU time, for a low priority")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
