"""WS /v1/audio/speech/stream: text that is still being written, spoken as it comes.

    client                          server
    session.config {voice, …}
    input.text {text}  …            audio.start {sentence_index, format, sample_rate}
                                    binary …
    input.done                      audio.done {sentence_index, finish_reason, usage; guarded: guard, seed}
                                    session.done {total_sentences, seed}
    (another input.text, or a new session.config, begins the next one)
    session.close

One utterance speaks on while its text is written; a text that grows beyond a piece (see `pieces`) goes on in the next
one, from the end of a sentence on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ..errors import InvalidValue, QwenTTSError, TextTooLong, UnsupportedValue, WrongType
from ..files.json_text import json_text
from ..synthesis.live import Feed
from ..synthesis.pieces import LIMIT, weight
from ..synthesis.text import END, check_text
from ..synthesis.text_stream import TextStream
from . import asking, labels
from .answers import error_body, status_of
from .jobs import Busy
from .speaking import Flow, speaking
from .speech import guarded, usage

if TYPE_CHECKING:
    from ..synthesis.request import Request
    from ..synthesis.tokenizer import TextTokenizer
    from .app import Server

FIRST_CONFIG, IDLE = 10.0, 30.0  # seconds to wait for the first message, and for each that follows
MOST_MARKS = 16  # characters, of the marks around the end of a sentence that came in pieces
MOST_TEXT, MOST_CONFIG = 128 << 10, 4 << 20  # characters of a message


class Segment:
    """A stretch of text that is spoken as one utterance, as `asked`. `begun` is set once there is enough to begin with,
    or all."""

    def __init__(self, tokenizer: TextTokenizer, server: Server, asked: asking.Asked) -> None:
        self.asked, self.feed, self.text = asked, Feed(server.engine.wake), ""
        self.begun, self.complete = asyncio.Event(), asyncio.Event()
        self._probe = TextStream(tokenizer)

    def write(self, piece: str) -> None:
        """Add text. Raises QwenTTSError for what cannot be spoken."""
        if not self.begun.is_set() and self._probe.feed(piece) and self._probe.role is not None:
            self.begun.set()
        self.feed.write(piece)
        self.text += piece

    def close(self) -> None:
        self.feed.close()
        self.complete.set()
        self.begun.set()


def cut(before: str, text: str) -> int | None:
    """How much of a further text belongs to the segment that it fills; None where all of it does, and more.

    A segment ends with a sentence; where none does, between words once it is full, and where there are none either,
    between characters.
    """
    size = weight(before)
    together = before + text[: 2 * LIMIT]  # which is more than a segment takes
    ends = {match.end() for match in END.finditer(together, max(0, len(before) - MOST_MARKS))}
    for place, char in enumerate(text[: 2 * LIMIT], 1):
        size += weight(char)
        if len(before) + place in ends and size >= LIMIT // 2:
            return place
        if size >= 2 * LIMIT or (size >= LIMIT and char.isspace()):
            return place
    return None


class Session:
    """One socket: a reader that takes text in, a speaker that sends sound out."""

    def __init__(self, socket: WebSocket, server: Server) -> None:
        self.socket, self.server = socket, server
        self.config: dict[str, Any] = {}
        self.segments: asyncio.Queue[Segment | None] = asyncio.Queue()
        self.segment: Segment | None = None
        self.characters = 0
        self.half = ""  # the first half of a character whose second one has not come yet

    async def run(self) -> None:
        # Browsers give up where none of the protocols that they offer is chosen; a key among them is not sent back
        # where there is another.
        offered = self.socket.scope.get("subprotocols", [])
        key = self.server.settings.api_key
        await self.socket.accept(next((name for name in offered if name != key), offered[0] if offered else None))
        tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._speak())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
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
            text = await asyncio.wait_for(self.socket.receive_text(), seconds)
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
            waiting = FIRST_CONFIG if first else IDLE if self._open() else None
            message, first = await self._message(waiting), False
            kind = message.pop("type")
            if kind == "session.close":
                return
            if kind == "session.config":
                if self._open():
                    raise InvalidValue("session.config came in the middle of a text; send input.done first")
                self.config = message
                self._asked("text")  # so that what is wrong with it is said now
            elif kind == "input.text":
                self._take(message.get("text"))
            elif kind == "input.done":
                self._finish()
            else:
                raise InvalidValue(f"message type {asking.shortened_repr(kind)} is not known", param="type")

    def _open(self) -> bool:
        """Whether a text has been begun and not ended."""
        return self.segment is not None

    def _take(self, text: object) -> None:
        if not isinstance(text, str):
            raise WrongType("input.text needs a string text", param="text")
        if len(text) > MOST_TEXT:
            raise TextTooLong(f"the message has {len(text)} characters; at most {MOST_TEXT} are taken", param="text")
        text, self.half = whole_characters(self.half + text)
        self.characters += len(text)
        if self.characters > self.server.settings.max_characters:
            most = self.server.settings.max_characters
            raise TextTooLong(f"the text has more than {most} characters (--max-characters)", param="text")
        while text:
            segment = self.segment or self._begin()
            end = cut(segment.text, text)
            segment.write(text[:end])
            if end is None:
                return
            segment.close()
            self.segment, text = None, text[end:]

    def _begin(self) -> Segment:
        self.segment = Segment(self.server.tts.tokenizer, self.server, self._asked("text"))
        self.segments.put_nowait(self.segment)
        return self.segment

    def _finish(self) -> None:
        if self.half:
            check_text(self.half)  # which says what is wrong with half a character
        if self.segment is None:
            raise InvalidValue("input.done came without any text", param="text")
        self.segment.close()
        self.segment, self.characters = None, 0
        self.segments.put_nowait(None)

    # Out

    def _asked(self, text: str) -> asking.Asked:
        values = {"response_format": "pcm", **self.config, "input": text}
        for name in ("lead", "steering"):
            if values.get(name) is not None:
                raise UnsupportedValue(f"{name} belongs to POST /v1/audio/speech", param=name)
        return asking.parse(values, self.server.settings, self.server.facts)

    async def _speak(self) -> None:
        """Speak the segments in their order; None among them ends an utterance."""
        number, seed = 0, None
        while True:
            segment = await self.segments.get()
            if segment is None:
                await self._send("session.done", total_sentences=number, seed=seed)
                number, seed = 0, None
                continue
            asked = segment.asked
            if seed is None:
                seed = secrets.randbits(32) if asked.seed is None else asked.seed
            await segment.begun.wait()
            if number and segment.complete.is_set() and not any(c.isalnum() for c in segment.text):
                continue  # what is left behind the last sentence
            await self._utter(segment, number, (seed + number) % 2**32)
            number += 1

    async def _utter(self, segment: Segment, number: int, seed: int) -> None:
        server, asked = self.server, segment.asked
        request = await self._request(segment)
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

    async def _request(self, segment: Segment) -> Request:
        """The Request of a segment: with its Feed where words are spoken as they come, else with all of its text."""
        server = self.server
        requests = await server.prepare(segment.asked)
        request = requests[0]
        voice: Any = request.voice
        in_context = voice is not None and voice.ref_codes is not None
        layout = request.text_mode or ("full" if voice is None or "preset" in voice.other else "streaming")
        changing = request.morph is not None and request.morph_seconds is None
        text: Any = segment.feed
        if in_context or layout == "full" or changing or segment.complete.is_set():
            await segment.complete.wait()
            text = check_text(segment.text)
        return replace(request, text=text)

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


def whole_characters(text: str) -> tuple[str, str]:
    """(a text, the half character at its end): programs that cut their text between UTF-16's units send halves."""
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    text = text[: len(text) - len(half)]
    if any("\ud800" <= char <= "\udfff" for char in text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text, half


async def stream(socket: WebSocket) -> None:
    """Speak text as it is written."""
    await Session(socket, socket.app.state.server).run()
