"""uvicorn around the app: a socket that is bound before the model is loaded, signals, and a clean end."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from ..errors import OutputError
from .engine import Engine
from .guard import CONNECTIONS, Patient

GRACE = 4.0  # seconds to finish what is being spoken, so that all is over within five


def listening(host: str, port: int, option: str = "port") -> socket.socket:
    """A socket that listens; OutputError where the port is taken or the address is not this machine's. option: the one
    that another port is given with."""
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
        message = f"cannot listen on {host} port {port}: {reason}; choose another --{option}"
        raise OutputError(message, param=option) from None
    return made


def listening_at(path: Path) -> socket.socket:
    """A socket in the file system, for this user alone; OutputError where something else is there.

    One that a server which is gone has left behind is replaced.
    """
    made = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket():
            if made.connect_ex(str(path)) == 0:
                raise OutputError(f"a server listens at {path} already; choose another --unix")
            made.close()
            path.unlink()
            made = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)  # from its first moment on
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen(128)
    except OSError as error:
        made.close()
        raise OutputError(f"cannot listen at {path}: {error.strerror or error}; choose another --unix") from None
    except OutputError:
        made.close()
        raise
    return made


def address(bound: socket.socket, scheme: str = "http") -> str:
    """The URL under which a bound socket is reached; of one in the file system, its path behind `unix:`."""
    if bound.family == socket.AF_UNIX:
        return f"unix:{bound.getsockname()}"
    host, port, *_ = bound.getsockname()
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


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
                timeout_graceful_shutdown=round(GRACE + 6),
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


class Parent:
    """Watches the process that started this one, and calls a function once it is gone. A context manager."""

    def __init__(self, gone: Callable[[], object], seconds: float = 0.5) -> None:
        """seconds: between two looks."""
        self.gone, self.seconds, self._over, self._first = gone, seconds, threading.Event(), os.getppid()
        self._thread = threading.Thread(target=self._watch, name="mlx_qwen3tts parent", daemon=True)

    def __enter__(self) -> Parent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        # An orphan is given to another process at once, so its parent's number changes.
        while not self._over.wait(self.seconds):
            if os.getppid() != self._first:
                self.gone()
                return
