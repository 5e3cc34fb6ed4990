"""uvicorn around the app: a socket that is bound before the model is loaded, signals, and a clean end."""

from __future__ import annotations

import signal
import socket
from types import FrameType
from typing import Any

import uvicorn

from ..errors import OutputError
from .engine import Engine
from .guard import CONNECTIONS, Patient

GRACE = 5.0  # seconds to finish what is being spoken


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; OutputError where the port is taken or the address is not this machine's."""
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # asyncio sends small parts at once only on sockets that say they are TCP's: else an answer's body waits 40 ms.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(where)
            made.listen(128)  # at once: until somebody listens, others may bind the same port
        except OSError:
            made.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot listen on {host} port {port}: {reason}; choose another --port") from None
    return made


def address(bound: socket.socket) -> str:
    """The URL under which a bound socket is reached."""
    host, port, *_ = bound.getsockname()
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Running(uvicorn.Server):
    """Serves until Ctrl-C or SIGTERM: what is spoken then is finished, or cut after GRACE seconds. A second Ctrl-C cuts
    at once."""

    def __init__(self, app: Any, engine: Engine) -> None:
        self.engine, self.cutting = engine, False
        super().__init__(
            uvicorn.Config(
                app,
                http=Patient,
                limit_concurrency=CONNECTIONS,
                ws="websockets-sansio",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=round(GRACE + 5),
                timeout_keep_alive=30,
                h11_max_incomplete_event_size=65536,
                ws_max_size=4 << 20,
            )
        )

    async def on_tick(self, counter: int) -> bool:
        """Whether to end; also where the worker has, as a server that cannot speak any more is of no use."""
        return await super().on_tick(counter) or not self.engine.alive

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # What is cut ends at once, and the rest of the way out is short: only a third Ctrl-C tears it off.
        again = self.should_exit and sig == signal.SIGINT
        self.should_exit, self.force_exit = True, again and self.cutting
        self.cutting = again
        self.engine.stop(0.0 if again else GRACE)
