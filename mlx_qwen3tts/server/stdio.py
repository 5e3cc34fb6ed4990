"""The Model Context Protocol on stdin and stdout, where every line has an answer.

The transport of the package `mcp` passes over a line that it cannot read, and whoever asked waits. Here each line is
looked at before it gets there, and one that is not a message is answered by an error of JSON-RPC: with the id of the
request where that can be read, else with null. The session goes on. It ends with stdin, and with whoever reads stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar, cast

from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from .waiting import unless

T = TypeVar("T")
LINE = 4 << 20  # bytes of a line; the largest call of a tool has some kB
READ = 1 << 16  # bytes at once


@contextlib.asynccontextmanager
async def transport() -> AsyncIterator[tuple[Any, Any]]:
    """The streams (in, out) for a server of the protocol. What else is printed within the block goes to stderr."""
    gone = asyncio.Event()
    streams: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()

    async def messages() -> AsyncIterator[str]:
        _, out = await streams
        async for line in lines(0, gone):
            if line is not None and not line.strip():
                continue
            refusal = refused(line)
            if refusal is not None:
                await out.send(SessionMessage(refusal))
            elif line is not None:
                yield line.decode()

    with diverted() as descriptor:
        wire = cast("Any", Wire(descriptor, gone))  # of which the transport calls `write` and `flush` alone
        async with stdio_server(cast("Any", messages()), wire) as both:
            streams.set_result(both)
            yield both


def refused(line: bytes | None) -> JSONRPCError | None:
    """What answers a line that is not a message, with None for one that is too long; None for a message."""
    if line is None:
        return error(None, PARSE_ERROR, f"a line has more than {LINE} bytes")
    problem = "the id of a request must be a string or an integer"
    try:
        if not isinstance(jsonrpc_message_adapter.validate_json(line, by_name=False), JSONRPCNotification):
            return None
        if "id" not in json.loads(line):
            return None
    except ValidationError as wrong:
        first = wrong.errors(include_input=False, include_url=False)[0]
        problem = "not a message of JSON-RPC 2.0: an object with jsonrpc, id, method and, as an object, params"
        if first["type"] == "json_invalid":
            problem = first["msg"]
    try:  # which takes more than the protocol's own reader: half a character in a string, say
        values = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return error(None, PARSE_ERROR, problem)
    number = values.get("id") if isinstance(values, dict) else None
    return error(number if is_id(number) else None, INVALID_REQUEST, problem)


def is_id(value: object) -> bool:
    """Whether a request can have this id, and an answer too."""
    if isinstance(value, str):
        return not any("\ud800" <= char <= "\udfff" for char in value)
    return isinstance(value, int) and not isinstance(value, bool)


def error(number: RequestId | None, code: int, message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=code, message=message))


async def lines(descriptor: int, gone: asyncio.Event) -> AsyncIterator[bytes | None]:
    """The lines of a descriptor without their ends, until it ends or `gone` is set; None for one of more than LINE
    bytes as soon as it has them, whose rest is passed over."""

    def read() -> bytes:
        try:
            return os.read(descriptor, READ)
        except OSError:
            return b""

    line, over = bytearray(), False  # over: the line was too long
    while data := await unless(gone.wait(), aside(read)):
        for number, part in enumerate(data.split(b"\n")):
            if number:  # one has ended
                if not over:
                    yield bytes(line)
                line, over = bytearray(), False
            if not over:
                line += part
                if len(line) > LINE:
                    line, over = bytearray(), True
                    yield None
    if line:
        yield bytes(line)


class Wire:
    """A descriptor to write to, as the transport wants one. What nobody reads any more is lost, and `gone` is set."""

    def __init__(self, descriptor: int, gone: asyncio.Event) -> None:
        self.descriptor, self.gone = descriptor, gone

    async def write(self, text: str) -> None:
        data = memoryview(text.encode())

        def put() -> None:
            written = 0
            while written < len(data):
                written += os.write(self.descriptor, data[written:])

        try:
            await aside(put)
        except OSError:
            self.gone.set()

    async def flush(self) -> None:
        """Nothing is held back."""


async def aside(work: Callable[[], T]) -> T:
    """What work gives in a thread that keeps nobody from ending: a signal comes through while it reads or writes."""
    loop, given = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def finish(result: T | None, problem: OSError | None) -> None:
        if given.cancelled():
            return
        if problem is None:
            given.set_result(result)
        else:
            given.set_exception(problem)

    def run() -> None:
        result, problem = None, None
        try:
            result = work()
        except OSError as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(finish, result, problem)

    threading.Thread(target=run, name="mlx_qwen3tts stdio", daemon=True).start()
    return await given


@contextlib.contextmanager
def diverted() -> Iterator[int]:
    """A descriptor of what stdout is; within the block stdout itself is stderr. It stays open: a thread may still write
    to it."""
    descriptor = os.dup(1)
    print(end="", flush=True)  # there is no sys.stdout where it was closed, which print does not mind
    os.dup2(2, 1)
    try:
        yield descriptor
    finally:
        print(end="", flush=True)
        os.dup2(descriptor, 1)
