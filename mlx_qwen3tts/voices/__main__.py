"""`mlx_qwen3tts.voices`: keep, blend, move, compare and search voices as vectors."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from .. import cli
from .commands import designing, exchange, learning, library, making, viewing

GROUPS = (library, making, designing, learning, viewing, exchange)
_COMMANDS = {name: command for group in GROUPS for name, command in group.COMMANDS.items()}
# Of every command: what it does, and examples.
COMMANDS = {name: (command.help, *command.examples) for name, command in _COMMANDS.items()}


def _examples(name: str) -> str:
    return "".join(f"  mlx_qwen3tts.voices {example}\n" for example in COMMANDS[name][1:])


def build_parser() -> ArgumentParser:
    description = "keep, blend, move, compare and search voices as vectors."
    options = cli.parser("voices", description, "".join(map(_examples, COMMANDS)))
    parsers = options.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name, command in _COMMANDS.items():
        parser = parsers.add_parser(
            name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:],
            epilog=f"examples:\n{_examples(name)}",
        )
        command.options(parser)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(run, build_parser().parse_args(arguments))


def run(options: Namespace) -> None:
    """The body of the command that was given."""
    _COMMANDS[options.command].run(options)


if __name__ == "__main__":
    main()
