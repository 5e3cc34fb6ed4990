"""`mlx_qwen3tts.voices`: keep, blend, move, compare and search voices as vectors."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from .. import cli
from .commands import designing, exchange, learning, library, making, viewing

GROUPS = (library, making, designing, learning, viewing, exchange)
_COMMANDS = {name: command for group in GROUPS for name, command in group.COMMANDS.items()}
# Of every command: what it does, and examples.
COMMANDS = {name: (command.help, *command.examples) for name, command in _COMMANDS.items()}


def _examples(name: str) -> str:
    return "".join(f"  mlx_qwen3tts.voices {example}\n" for example in COMMANDS[name][1:])


class Words(cli.Parser):
    """A parser that takes the words behind an option for those that were optional before it: argparse itself gives
    `add anna --model M anna.wav` no source, and then does not know what the second word is."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, rest = super().parse_known_args(args, namespace)
        words = [word for word in rest if not word.startswith("-")]
        if hasattr(found, "more") and words:
            if found.source is None:
                found.source = words.pop(0)
            found.more = [*found.more, *words]
            rest = [word for word in rest if word.startswith("-")]
        return found, rest


def build_parser() -> ArgumentParser:
    description = "keep, blend, move, compare and search voices as vectors."
    options = cli.parser("voices", description, "".join(map(_examples, COMMANDS)))
    parsers = options.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands", parser_class=Words
    )
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
