"""`mlx_qwen3tts.completion`: print what makes a shell complete `mlx_qwen3tts` and its options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from . import cli

SHELLS = ("zsh", "bash", "fish")
# What an option's value is, by the word that stands for it in its help.
FILES = ("FILE", "F", "WAV", "NPY", "JSON", "CSV")
FOLDERS = ("DIR",)
EXAMPLES = """\
  mlx_qwen3tts.completion zsh > ~/.zfunc/_mlx_qwen3tts      (with fpath+=~/.zfunc before compinit in ~/.zshrc)
  mlx_qwen3tts.completion bash > ~/.local/share/bash-completion/completions/mlx_qwen3tts
  mlx_qwen3tts.completion fish > ~/.config/fish/completions/mlx_qwen3tts.fish
"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("completion", __doc__, EXAMPLES)
    options.add_argument("shell", choices=SHELLS, help="zsh, bash or fish")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(completion, build_parser().parse_args(arguments))


def completion(options: argparse.Namespace) -> None:
    import shtab

    print(shtab.complete(everything(), options.shell))


def everything() -> argparse.ArgumentParser:
    """One parser with every command's own below it."""

    def own(prog: str, **_: Any) -> argparse.ArgumentParser:
        parser = import_module(f".{prog.split()[-1]}", __package__).build_parser()
        parser.prog = prog
        _say_files(parser)
        return parser

    top = argparse.ArgumentParser(prog="mlx_qwen3tts")
    names = top.add_subparsers(dest="command", parser_class=own)  # pyright: ignore[reportArgumentType]
    for name in cli.COMMANDS:
        names.add_parser(name, help=cli.COMMANDS[name])
    return top


def _say_files(parser: argparse.ArgumentParser) -> None:
    """Let files and folders be completed where an option takes one, in the commands below too."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _say_files(below)
        elif action.metavar in FILES:
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]
        elif action.metavar in FOLDERS:
            action.complete = shtab.DIRECTORY  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    main()
