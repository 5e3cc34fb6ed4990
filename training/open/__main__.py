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

# (stage, whether it needs torch), in order.
STAGES = (
    ("judge", True),
    ("resynthesis", False),
    ("corpus", True),
    ("gather", False),
    ("talker", True),
    ("export", False),
    ("evaluate", False),
)
OTHERS = ("profile", "pack")
TEXTS = ("judge", "resynthesis", "corpus")  # those that read the texts


def build_parser(stage):
    """The parser of one stage's options, and its module."""
    module = importlib.import_module(f"training.open.{stage}")
    options = argparse.ArgumentParser(prog=f"python -m training.open {stage}", description=module.__doc__)
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("work", type=Path)
    options.add_argument("--seconds", type=float, help="stop after so many, to go on with later (default: never)")
    module.add_options(options)
    return options, module


def run(work, torch_python, texts, run_one=subprocess.run):
    """All stages. A stage that is done leaves WORK/NAME.done and is not run again."""
    work.mkdir(parents=True, exist_ok=True)
    for stage, torch in STAGES:
        done = work / f"{stage}.done"
        if done.exists():
            print(f"{stage}: done before", flush=True)
            continue
        line = [torch_python if torch else sys.executable, "-m", "training.open", stage, str(work)]
        line += ["--texts", str(texts)] if stage in TEXTS else []
        if run_one(line).returncode:
            sys.exit(f"{stage} failed; see above")
        done.touch()


def main():
    known = [name for name, _ in STAGES] + list(OTHERS)
    if len(sys.argv) > 1 and sys.argv[1] in known:
        options, module = build_parser(sys.argv[1])
        return module.main(options.parse_args(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m training.open", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("work", type=Path)
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--texts", default="/", help="root below which the texts' packages lie (default: /)")
    options = parser.parse_args()
    run(options.work, options.torch_python, options.texts)


if __name__ == "__main__":
    main()
