"""`mlx_qwen3tts.mcp`: tools for language models on stdin and stdout, by the Model Context Protocol."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli
from .errors import MissingExtra, QwenTTSError, install_hint
from .server.settings import Settings, check_speech

if TYPE_CHECKING:
    from .desktop.client import Client
    from .server.app import Server
    from .server.mcp import Inside
    from .server.tools import Answer

EXAMPLES = """\
  mlx_qwen3tts.mcp --model miniature
  mlx_qwen3tts.mcp --server none --library voices --voice anna
"""
NEEDED = ("mcp", "starlette", "uvicorn", "h11", "websockets", "python_multipart")


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("mcp", __doc__, EXAMPLES)
    add = options.add_argument
    add(
        "--output",
        type=Path,
        default=Settings.speech,
        metavar="DIR",
        help=f"where speech is kept (default: {Settings.speech})",
    )
    cli.configurable(
        add("--server", default="http://127.0.0.1:8880", metavar="URL", help="a running server, or `none`"), "server"
    )
    cli.add_model(options, dtype=True)
    cli.add_library(options)
    add("--voice", metavar="V", help="who speaks where a call names nobody (default: the first voice)")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(mcp, build_parser().parse_args(arguments))


class Asking:
    """Asks the server that runs, else one of this process, whose model is loaded when the first tool is called."""

    def __init__(self, options: argparse.Namespace, client: Client | None) -> None:
        self.options, self.client = options, client
        self.loading: asyncio.Future[Inside] | None = None
        self.stack = contextlib.ExitStack()

    async def __call__(self, method: str, path: str, values: Mapping[str, Any] | None = None) -> Answer:
        if self.loading is None and self.client is not None and await asyncio.to_thread(self.client.healthy):
            return await self.outside(method, path, values)
        if self.loading is None:
            self.loading = asyncio.ensure_future(asyncio.to_thread(self.load))
        try:
            inside = await asyncio.shield(self.loading)  # a call that is given up leaves it to the next one
        except QwenTTSError:
            self.loading = None  # what was wrong may be mended by then
            raise
        return await inside(method, path, values)

    async def close(self) -> None:
        """End what was started; called when no more tools are called."""
        if self.loading is not None:
            await asyncio.wait({self.loading})
        await asyncio.to_thread(self.stack.close)

    async def outside(self, method: str, path: str, values: Mapping[str, Any] | None) -> Answer:
        from .server.tools import Answer

        assert self.client is not None, "it answered"
        call = self.client.call()
        try:
            return Answer(*await asyncio.to_thread(call.ask, method, path, values))
        except asyncio.CancelledError:
            call.give_up()
            raise

    def load(self) -> Inside:
        """A server without a socket. Returns once it can speak."""
        from .provenance.choosing import mark_key
        from .provenance.seal import Seal
        from .server.app import Server, build
        from .server.mcp import Inside
        from .synthesis.tts import Qwen3TTS

        options = self.options
        voice = cli.usual_voice(options.model) if options.voice is None else options.voice
        seal = Seal(mark_key(cli.usual_mark()))  # as a server of this configuration puts on
        settings = Settings(library=Path(options.library), voice=voice, max_batch=1, seal=seal)
        tts = Qwen3TTS.from_pretrained(options.model, options.dtype, settings.library)
        server: Server = Server(tts, settings, options.model)
        build(server)
        self.stack.enter_context(server.engine)
        while not server.engine.ready.wait(0.1):
            if not server.engine.alive:
                raise RuntimeError("the engine has not started; its traceback is above")
        return Inside(server)


def mcp(options: argparse.Namespace) -> None:
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(f"mcp needs {name}: {install_hint('mcp')}")
    check_speech(options.output, "output")
    from .desktop.client import Client

    client = None
    if options.server != "none":
        client = Client(options.server, os.environ.get("QWEN3TTS_API_KEY"))
    asyncio.run(on_stdio(options, client))


async def on_stdio(options: argparse.Namespace, client: Client | None) -> None:
    """Answer on stdin and stdout until stdin ends. Whatever else is printed meanwhile goes to stderr."""
    from .server import stdio, tools

    asking = Asking(options, client)
    server = tools.server(tools.Tools(asking, options.output))
    try:
        cli.note(f"ready: tools on stdin and stdout; speech is kept in {options.output}")
        async with stdio.transport() as streams:
            await server.run(*streams, server.create_initialization_options())
    finally:
        await asking.close()
    cli.note("stopped")


if __name__ == "__main__":
    main()
