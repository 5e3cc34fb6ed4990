"""`mlx_qwen3tts.service`: keep the speech server running, from login on. Options of serve follow `--`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from . import cli
from .errors import InvalidValue

EXAMPLES = """\
  mlx_qwen3tts.service install --dry-run
  mlx_qwen3tts.service install -- --model miniature --port 8880
  mlx_qwen3tts.service status
  mlx_qwen3tts.service remove
"""
# Paths among serve's options: relative ones are of where one stands now. A model may be a hub id as well.
PATHS = ("model", "library", "api_key_file", "unix", "design", "mcp_output")
MADE = ("--unix", "--mcp-output")  # those that need not be there yet


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("service", __doc__, EXAMPLES)
    options.add_argument("what", choices=("install", "remove", "status"), help="what to do with it")
    options.add_argument("--dry-run", action="store_true", help="show the file and the commands, and do nothing")
    cli.add_json(options)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    # argparse would give what is behind -- to the first place that takes several words, and there is none.
    options = build_parser().parse_args(words[:end])
    options.serve = words[end + 1 :]
    cli.run(service, options)


def command_line(words: list[str], log: Path) -> list[str]:
    """The command that the service runs, with absolute paths; serve's own options checked."""
    from . import serve

    given = serve.build_parser().parse_args(words)
    if given.api_key:
        raise InvalidValue(
            "--api-key would stand in a file that others may read; write it to a file and give --api-key-file",
            param="api_key",
        )
    for name in ("open", "ready_fd", "log"):
        if getattr(given, name):
            raise InvalidValue(f"--{name.replace('_', '-')} is not for a service", param=name)
    serve.settings(given)
    words = [_absolute(words, number) for number in range(len(words))]
    return [os.path.abspath(sys.executable), "-m", "mlx_qwen3tts.serve", *words, "--log", str(log)]


def _absolute(words: list[str], number: int) -> str:
    """A word of serve's options; where it is a path of something that is there, the absolute one."""
    options = tuple(f"--{name.replace('_', '-')}" for name in PATHS)
    name, equals, value = words[number].partition("=")
    if equals and name in options and (os.path.exists(value) or name in MADE):
        return f"{name}={os.path.abspath(os.path.expanduser(value))}"
    if number and words[number - 1] in options and (os.path.exists(words[number]) or words[number - 1] in MADE):
        return os.path.abspath(words[number])
    return words[number]


def service(options: argparse.Namespace) -> None:
    from .desktop import launching

    home, system = Path.home(), platform.system()
    if options.serve and options.what != "install":
        raise InvalidValue(f"{options.what} takes no options of serve")
    made = launching.service(command_line(options.serve, launching.log_file(home, system)), home, system)
    told: dict[str, object] = {"file": str(made.file), "log": str(made.log)}
    if options.dry_run:
        print(made.text.decode(), end="")
        for line in {"install": made.start, "remove": made.stop, "status": (made.ask,)}[options.what]:
            cli.note(f"would run: {' '.join(line)}")
    elif options.what == "status":
        installed, running = made.file.exists(), launching.running(made)
        told |= {"installed": installed, "running": running}
        print(f"{'installed' if installed else 'not installed'}, {'running' if running else 'not running'}")
        cli.note(f"file: {made.file}\nlog: {made.log}")
    else:
        left = launching.install(made) if options.what == "install" else launching.remove(made)
        cli.note(f"{'wrote' if options.what == 'install' else 'removed'} {made.file}")
        for line in left:
            cli.note(f"type this yourself, as it did not work from here: {line}")
        if options.what == "install" and not left:
            cli.note(f"it speaks as soon as it is ready; its log is {made.log}")
        told["left"] = left
    if options.json:
        cli.print_json(told)


if __name__ == "__main__":
    main()
