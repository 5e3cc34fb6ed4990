"""What takes minutes to show: nothing is lost, nothing hangs, nothing ends in a traceback, however long one tries.

    python -m benchmarks.soak kill [--quick] [--only WRITER] [--json]
    python -m benchmarks.soak library [--processes 8] [--seconds 90] [--json]
    python -m benchmarks.soak corrupt [--count 4500] [--seed 0] [--json]
    python -m benchmarks.soak script [--count 50] [--seed 0] [--json]

`library` lets processes write to and read one library at once; `corrupt` reads files with random damage
(benchmarks/attacks.py). `script` kills `script render` at random moments until it is done (benchmarks/interrupted.py).
`kill` kills every writer before every call by which it touches the file system (benchmarks/kills.py); with --quick, at
a few of these places. The status is 1 where anything was wrong. Results stand in benchmarks/README.md.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence

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


def library(options: argparse.Namespace) -> bool:
    """Whether everything was right."""
    from benchmarks.attacks import crowd

    return _report(options, *crowd(options.processes, options.seconds))


def corrupt(options: argparse.Namespace) -> bool:
    """Whether everything was right."""
    from benchmarks import attacks

    with cli.bar("damaging", "file", total=options.count) as advance:
        return _report(options, *attacks.corrupt(options.count, options.seed, lambda done: advance(1)))


def script(options: argparse.Namespace) -> bool:
    """Whether everything was right."""
    from benchmarks.interrupted import interrupted

    with cli.bar("killing", "kill", total=options.count) as advance:
        return _report(options, *interrupted(options.count, options.seed, lambda done: advance(1)))


def _report(options: argparse.Namespace, counts: Mapping[str, int], wrong: Sequence[str]) -> bool:
    for line in wrong:
        cli.note(line)
    cli.note(", ".join(f"{count} {what}" for what, count in counts.items()))
    if options.json:
        cli.print_json(dict(counts))
    return not wrong and not any(counts[what] for what in ("refused", "tracebacks", "hangs", "wrong") if what in counts)


def build_parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").split("\n")[0])
    actions = options.add_subparsers(dest="action", required=True, metavar="kill|library|corrupt|script")
    killing = actions.add_parser("kill", help="kill every writer before every call that touches the file system")
    killing.add_argument("--quick", action="store_true", help="at a few places only")
    killing.add_argument("--only", action="append", metavar="WRITER", help="one of them, such as import")
    cli.add_json(killing)
    killing.set_defaults(run=kill)
    crowd = actions.add_parser("library", help="processes that write to and read one library at once")
    crowd.add_argument("--processes", type=int, default=8, metavar="N")
    crowd.add_argument("--seconds", type=float, default=90, metavar="S")
    crowd.set_defaults(run=library)
    damage = actions.add_parser("corrupt", help="voices, arrays, archives, indices and codes with random damage")
    damage.add_argument("--count", type=int, default=4500, metavar="N")
    damage.add_argument("--seed", type=int, default=0, metavar="N")
    damage.set_defaults(run=corrupt)
    killed = actions.add_parser("script", help="script render, killed at random moments until it is done")
    killed.add_argument("--count", type=int, default=50, metavar="N")
    killed.add_argument("--seed", type=int, default=0, metavar="N")
    killed.set_defaults(run=script)
    for attack in (crowd, damage, killed):
        cli.add_json(attack)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = build_parser().parse_args(arguments)
    sys.exit(0 if options.run(options) else 1)


if __name__ == "__main__":
    main()
