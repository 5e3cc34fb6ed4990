"""/mcp: the tools of `tools` at an address of the server, for language models' programs. Needs the extra `mcp`.

The package that speaks the protocol is loaded with the first request. Each request stands for itself: no session is
kept, and who leaves gives the row back.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.types import Message, Receive, Scope, Send

from ..errors import MissingExtra, install_hint
from ..files.json_text import json_text
from .guard import LOOPBACK
from .jobs import EngineFault

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings

    from .app import Server
    from .settings import Settings
    from .tools import Answer

HOST = "localhost"  # in requests that never leave the process


class Inside:
    """Asks a server from within its own process: requests to its app, without a socket."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def __call__(self, method: str, path: str, values: Mapping[str, Any] | None = None) -> Answer:
        from .tools import Answer

        assert self.server.app is not None, "it was built"
        start: dict[str, Any] = {}
        sound: list[bytes] = []
        body: list[Message] = [
            {"type": "http.request", "body": b"" if values is None else json_text(values).encode(), "more_body": False}
        ]

        async def receive() -> Message:
            if body:
                return body.pop()
            return await asyncio.get_running_loop().create_future()  # it leaves by being cancelled

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                sound.append(message.get("body", b""))

        headers = [(b"host", HOST.encode()), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
            "client": None, "server": (HOST, None), "request_id": f"mcp-{id(body):x}",
        }  # fmt: skip
        with contextlib.suppress(EngineFault):  # it has been answered with 500
            await self.server.app(scope, receive, send)
        return Answer(
            start["status"],
            {name.decode(): value.decode("latin-1") for name, value in start["headers"]},
            b"".join(sound),
        )


class Mount:
    """The ASGI app of the path. An async context manager, whose end ends what is under way."""

    def __init__(self, server: Server, anywhere: bool) -> None:
        """anywhere: whether other machines reach the server."""
        self.server, self.anywhere = server, anywhere
        self._manager: StreamableHTTPSessionManager | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Mount:
        self._turn, self._ready, self._over = asyncio.Lock(), asyncio.Event(), asyncio.Event()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        if self._task is not None:
            await self._task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if importlib.util.find_spec("mcp") is None:
            raise MissingExtra(f"/mcp needs mcp: {install_hint('mcp')}")
        async with self._turn:
            if self._task is None:
                # Takes a second, in which others' speech goes on.
                tools = await asyncio.to_thread(importlib.import_module, f"{__package__}.tools")
                self._manager = self._made(tools)
                self._task = asyncio.create_task(self._run(self._manager), name="mlx_qwen3tts mcp")
                await self._ready.wait()
        assert self._manager is not None, "it was made"
        await self._manager.handle_request(scope, receive, send)

    def _made(self, tools: Any) -> StreamableHTTPSessionManager:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        made = tools.server(tools.Tools(Inside(self.server), self.server.settings.speech))
        security = security_settings(self.server.settings, self.anywhere)
        return StreamableHTTPSessionManager(made, stateless=True, security_settings=security)

    async def _run(self, manager: StreamableHTTPSessionManager) -> None:
        async with manager.run():  # which wants to be left by the task that entered it
            self._ready.set()
            await self._over.wait()


def security_settings(settings: Settings, anywhere: bool) -> TransportSecuritySettings:
    """The hosts and origins that the protocol's own check lets in, behind the guard's, which is stricter."""
    from mcp.server.transport_security import TransportSecuritySettings

    if anywhere:  # the guard takes every address then, which this list has no way to say
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    names = [f"[{name}]" if ":" in name else name for name in (*LOOPBACK, *settings.hosts)]
    return TransportSecuritySettings(
        allowed_hosts=[*names, *(f"{name}:*" for name in names)],
        allowed_origins=[*(f"http://{name}{port}" for name in names for port in ("", ":*")), *settings.origins],
    )
