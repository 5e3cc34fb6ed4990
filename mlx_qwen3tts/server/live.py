"""WS /v1/audio/speech/stream: text that is still being written, spoken as it comes.

    client                          server
    session.config {voice, …}
    input.text {text}  …            audio.start {sentence_index, format, sample_rate}
                                    binary …
    input.done                      audio.done {sentence_index, finish_reason, usage; guarded: guard, seed}
                                    session.done {total_sentences, seed}
    (another input.text, or a new session.config, begins the next one)
    session.close

Text that is cut into several utterances (see `written`) has an audio.start and an audio.done for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ..errors import InvalidValue, QwenTTSError, TextTooLong, UnsupportedValue, WrongType
from ..files.json_text import json_text
from . import asking, labels
from .answers import error_body, status_of
from .jobs import Busy
from .speaking import Flow, speaking
from .speech import guarded, usage
from .waiting import first_ended, within
from .written import Segment, Written

if TYPE_CHECKING:
    from .app import Server

FIRST_CONFIG, IDLE = 10.0, 30.0  # seconds to wait for the first message, and for each that follows
MOST_TEXT, MOST_CONFIG = 128 << 10, 4 << 20  # characters of a message


class Session:
    """One socket: a reader that takes text in, a speaker that sends sound out."""

    def __init__(self, socket: WebSocket, server: Server) -> None:
        self.socket, self.server = socket, server
        self.config: dict[str, Any] = {}
        self.written = Written(server, lambda: self._asked("text"))

    async def run(self) -> None:
        # Browsers give up where none of the protocols that they offer is chosen; a key among them is not sent back
        # where there is another.
        offered = self.socket.scope.get("subprotocols", [])
        key = self.server.settings.api_key
        await self.socket.accept(next((name for name in offered if name != key), offered[0] if offered else None))
        done = await first_ended(self._read(), self._speak())
        try:
            for task in done:
                task.result()
        except WebSocketDisconnect:
            return
        except (QwenTTSError, RuntimeError) as error:
            await self._refuse(error)
        await self._close(1000)

    # In

    async def _message(self, seconds: float | None) -> dict[str, Any]:
        """The next message of the client's."""
        try:
            text = await within(self.socket.receive_text(), seconds)
        except asyncio.TimeoutError:
            raise InvalidValue(f"nothing came for {seconds:.0f} s; send text, input.done or session.close") from None
        except KeyError:
            raise WrongType("messages must be JSON text; audio goes the other way") from None
        if len(text) > MOST_CONFIG:
            raise InvalidValue("the message is too long")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidValue("the message is not JSON") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise WrongType("a message must be a JSON object with a type")
        return message

    async def _read(self) -> None:
        """Take messages in until the client closes."""
        first = True
        while True:
            waiting = FIRST_CONFIG if first else IDLE if self.written.open else None
            message, first = await self._message(waiting), False
            kind = message.pop("type")
            if kind == "session.close":
                return
            if kind == "session.config":
                if self.written.open:
                    raise InvalidValue("session.config came in the middle of a text; send input.done first")
                self.config = message
                self._asked("text")  # so that what is wrong with it is said now
            elif kind == "input.text":
                self._take(message.get("text"))
            elif kind == "input.done":
                self.written.finish()
            else:
                raise InvalidValue(f"message type {asking.shortened_repr(kind)} is not known", param="type")

    def _take(self, text: object) -> None:
        if not isinstance(text, str):
            raise WrongType("input.text needs a string text", param="text")
        if len(text) > MOST_TEXT:
            raise TextTooLong(f"the message has {len(text)} characters; at most {MOST_TEXT} are taken", param="text")
        self.written.take(text)

    # Out

    def _asked(self, text: str) -> asking.Asked:
        values = {"response_format": "pcm", **self.config, "input": text}
        for name in ("lead", "steering"):
            if values.get(name) is not None:
                raise UnsupportedValue(f"{name} belongs to POST /v1/audio/speech", param=name)
        return asking.parse(values, self.server.settings, self.server.facts)

    async def _speak(self) -> None:
        """Speak the segments in their order."""
        async for segment, number, seed in self.written.segments():
            if segment is None:
                await self._send("session.done", total_sentences=number, seed=seed)
            else:
                await self._utter(segment, number, seed)

    async def _utter(self, segment: Segment, number: int, seed: int | None) -> None:
        server, asked = self.server, segment.asked
        request = await self.written.request(segment)
        flow = Flow(asked.format, server.sample_rate, asked.sample_rate, asked.rate, server.seal)
        async with speaking(server.engine, [request], True, seed) as listener:
            begun = False
            async for samples in listener:
                if not begun:
                    begun = True
                    flow.open(labels.origin_of(server, [request], listener.job.seed))
                    more = {"format": asked.format, "sample_rate": flow.rate, "ignored": list(asked.ignored)}
                    await self._send("audio.start", sentence_index=number, **more)
                if data := flow.add(samples):
                    await self.socket.send_bytes(data)
            if data := flow.finish():
                await self.socket.send_bytes(data)
        ended = listener.ended
        assert ended is not None, "it was heard to its end"
        told = {"finish_reason": ended.finish_reason, "usage": usage(ended), "error": False}
        await self._send("audio.done", sentence_index=number, sentence_text=segment.text, **told, **guarded(listener))

    async def _send(self, kind: str, **values: Any) -> None:
        await self.socket.send_text(json_text({"type": kind, **values}))

    async def _refuse(self, error: Exception) -> None:
        """Tell what is wrong, and close."""
        body = error_body(error, status_of(error))["error"]
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it may have gone already
            await self._send("error", message=body["message"], error=body)
        await self._close(1013 if isinstance(error, Busy) else 1008 if isinstance(error, QwenTTSError) else 1011)

    async def _close(self, code: int) -> None:
        if self.socket.application_state == WebSocketState.CONNECTED:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await self.socket.close(code)


async def stream(socket: WebSocket) -> None:
    """Speak text as it is written."""
    await Session(socket, socket.app.state.server).run()
