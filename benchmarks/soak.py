"""What takes minutes to show: nothing is lost, nothing hangs, nothing ends in a traceback, however long one tries.

    python -m benchmarks.soak kill [--quick] [--only WRITER] [--json]

`kill` kills every writer before every call by which it touches the file system (benchmarks/kills.py); with --quick, at
a few of these places. The status is 1 where anything was wrong. Results stand in benchmarks/README.md.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from mlx_qwen3tts import cli


def kill(options: argparse.Namespace) -> bool:
    """Whether everything was right."""
    from benchmarks import kills

    names = options.only or tuple(kills.WRITERS)
    start, found = time.perf_counter(), {}
    for name, count, wrong in kills.run(kills.some if options.quick else kills.every, names):
        found[name] = {"kills": count, "wrong": wrong}
        cli.note(f"{name}: killed {count} times, {len(wrong)} wrong")
        for line in wrong:
            cli.note(f"  {line}")
    cli.note(f"{sum(one['kills'] for one in found.values())} kills in {time.perf_counter() - start:.0f} s")
    if options.json:
        cli.print_json(found)
    return not any(one["wrong"] for one in found.values())


def build_parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").split("\n")[0])
    actions = options.add_subparsers(dest="action", required=True, metavar="kill")
    killing = actions.add_parser("kill", help="kill every writer before every call that touches the file system")
    killing.add_argument("--quick", action="store_true", help="at a few places only")
    killing.add_argument("--only", action="append", metavar="WRITER", help="one of them, such as import")
    cli.add_json(killing)
    killing.set_defaults(run=kill)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = build_parser().parse_args(arguments)
    sys.exit(0 if options.run(options) else 1)


if __name__ == "__main__":
    main()
