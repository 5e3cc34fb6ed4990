"""The Wyoming protocol, by which Home Assistant has speech made: a port of its own, on the same engine.

    client                            server
    describe                          info
    synthesize {text, voice}          audio-start, audio-chunk …, audio-stop
    synthesize-start {voice}
    synthesize-chunk {text} …         audio-start, audio-chunk …
    synthesize-stop                   audio-stop, synthesize-stopped

An event is a line of JSON, behind it as many bytes of further JSON and of a payload as the line says. A mistake is
answered by the event `error`, then the connection is closed: clients wait for the end of the sound otherwise. The
protocol has no keys. What is not an event ends the connection, so no web page can speak through it with a request.

A client may close its side once it has asked: what it has asked for in full is spoken to the end. To a reader, one that
has left looks the same. Only a write tells the two apart, because the machine of who has left answers it with a reset.
Sound is such a write; where none comes, for a text that waits, `ping` is sent every LOOK seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.info import Attribution, Info, TtsProgram, TtsVoice
from wyoming.ping import Ping
from wyoming.tts import SynthesizeStopped

from .. import __version__
from ..errors import InvalidValue, QwenTTSError, UnsupportedValue, WrongType
from ..synthesis.languages import language_code
from . import asking, shelf
from .answers import error_body, status_of
from .speaking import Flow, called, speaking
from .waiting import first_ended, unless, within
from .written import Written

if TYPE_CHECKING:
    from ..synthesis.request import Request
    from .app import Server

log = logging.getLogger(__name__)

LINE, DATA, PAYLOAD = 64 << 10, 1 << 20, 64 << 10  # bytes of an event's line, of the JSON behind it, of its payload
# Seconds to wait for the first event, within a text or for who does not read, and with nothing to do.
FIRST, PAUSE, IDLE = 10.0, 120.0, 600.0
CONNECTIONS, WAITING = 64, 16  # at once; texts of one connection that wait
LOOK = 1.0  # seconds without sound after which a client that sends no more is looked for
GRACE = 1.0  # seconds to send the rest of what was spoken when the server stops
WIDTH, CHANNELS = 2, 1  # bytes of a sample
SOURCE = Attribution("Qwen3-TTS", "https://github.com/QwenLM/Qwen3-TTS")


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """The next event; None where no more come. QwenTTSError for what is not one, or is too large."""
    try:
        line = await reader.readline()
    except ValueError:
        raise InvalidValue(f"the line of an event is longer than {LINE} bytes") from None
    if not line.endswith(b"\n"):
        return None
    head = _object(line)
    if not isinstance(head.get("type"), str):
        raise WrongType("an event must have a type")
    values = head.get("data") or {}
    data, size = _length(head, "data_length", DATA), _length(head, "payload_length", PAYLOAD)
    if not isinstance(values, dict):
        raise WrongType("the data of an event must be a JSON object")
    try:
        if data:
            values = {**values, **_object(await reader.readexactly(data))}
        payload = await reader.readexactly(size) if size else None
    except asyncio.IncompleteReadError:
        return None
    return Event(head["type"], values, payload)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidValue("an event is a line of JSON, and this is not JSON") from None
    if not isinstance(value, dict):
        raise WrongType("an event must be a JSON object")
    return value


def _length(head: Mapping[str, Any], name: str, most: int) -> int:
    value = head.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InvalidValue(f"{name} {asking.shortened_repr(value)} is not within 0 to {most}")
    return value


class Session:
    """One connection: a reader that takes events in, a speaker that speaks what they ask for in their order."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.todo = asyncio.Queue[Callable[[], Awaitable[None]] | None]()  # None: the client sends no more
        self.written: Written | None = None  # between synthesize-start and synthesize-stop
        self.unended = asyncio.Event()  # set where the client sends no more, and `written` has no end
        self.busy, self.turn, self.sent = False, asyncio.Lock(), 0.0  # turn: to write; sent: when, on the loop's clock

    async def run(self) -> None:
        """Answer until all is said, or the client leaves, which gives its row back, or makes a mistake."""
        done = await first_ended(self._read(), self._speak())
        with contextlib.suppress(OSError):  # it has left
            try:
                for task in done:
                    task.result()
            except (QwenTTSError, RuntimeError) as error:
                told = error_body(error, status_of(error))["error"]
                await self._send(Error(text=str(told["message"]), code=told["code"]))

    # In

    async def _read(self) -> None:
        """Take events in until no more come, then see to it that there is somebody to hear what was asked for."""
        patience = FIRST
        while True:
            reading = asyncio.ensure_future(read_event(self.reader))
            try:
                while not (await asyncio.wait({reading}, timeout=patience))[0]:
                    if self.written is not None or not (self.busy or self.todo.qsize()):
                        raise InvalidValue(f"nothing came for {patience:.0f} s")
            finally:
                reading.cancel()
            event = reading.result()
            if event is None:
                break
            if event.type == "describe":  # at once, while others are being spoken for
                await self._send(await info(self.server))
            else:
                self._take(event)
            patience = IDLE if self.written is None else PAUSE
        if self.written is not None:
            self.unended.set()
        self.todo.put_nowait(None)
        while True:  # until all is said
            await asyncio.sleep(LOOK)
            if asyncio.get_running_loop().time() - self.sent >= LOOK:
                await self._send(Ping())

    def _take(self, event: Event) -> None:
        """Have spoken what an event asks for. Other types are passed over, as servers of this protocol do."""
        if event.type == "synthesize":
            if self.written is None:  # else it repeats the whole text, for servers that know no streams
                self._later(partial(self._whole, self._asked(event.data, event.data.get("text"))))
        elif event.type == "synthesize-start":
            if self.written is not None:
                raise InvalidValue("synthesize-start came in the middle of a text; send synthesize-stop first")
            asked = self._asked(event.data, "text")
            self.written, self.unended = Written(self.server, lambda: asked), asyncio.Event()
            self._later(partial(self._stream, self.written, asked, self.unended))
        elif event.type in ("synthesize-chunk", "synthesize-stop"):
            if self.written is None:
                raise InvalidValue(f"{event.type} came without synthesize-start")
            if event.type == "synthesize-stop":
                self.written.finish()
                self.written = None
                return
            text = event.data.get("text")
            if not isinstance(text, str):
                raise WrongType(f"text must be a string, not {asking.shortened_repr(text)}", param="text")
            self.written.take(text)

    def _later(self, answer: Callable[[], Awaitable[None]]) -> None:
        if self.todo.qsize() >= WAITING:
            raise InvalidValue(f"more than {WAITING} events wait to be answered")
        self.todo.put_nowait(answer)

    def _asked(self, data: Mapping[str, Any], text: object) -> asking.Asked:
        """What an event asks for."""
        voice = data.get("voice") or {}
        if not isinstance(voice, Mapping):
            raise WrongType(f"voice must be an object, not {asking.shortened_repr(voice)}", param="voice")
        if data.get("text_format") == "ssml":
            raise UnsupportedValue("SSML is not understood; send plain text", param="text_format")
        values = {"input": text, "voice": voice.get("name"), "language": voice.get("language")}
        return asking.parse({**values, "response_format": "pcm"}, self.server.settings, self.server.facts)

    # Out

    async def _speak(self) -> None:
        while (answer := await self.todo.get()) is not None:
            self.busy = True
            await answer()
            self.busy = False

    async def _send(self, event: Eventable) -> None:
        async with self.turn:
            try:
                await within(async_write_event(event.event(), self.writer), PAUSE)
            except asyncio.TimeoutError:
                raise ConnectionAbortedError("it reads nothing any more") from None
            self.sent = asyncio.get_running_loop().time()

    async def _whole(self, asked: asking.Asked) -> None:
        self.server.engine.check_room()
        await self._utter(await self.server.prepare(asked), None, first=True)
        await self._send(AudioStop())

    async def _stream(self, written: Written, asked: asking.Asked, unended: asyncio.Event) -> None:
        if not await unless(unended.wait(), self._segments(written, asked)):
            raise InvalidValue("the text ended without synthesize-stop", param="text")

    async def _segments(self, written: Written, asked: asking.Asked) -> bool:
        """Speak a text as it is written; True at its end."""
        self.server.engine.check_room()
        await self.server.prepare(asked)  # so that a voice that is not there is refused before the first word
        async for segment, number, seed in written.segments():
            if segment is None:
                break
            await self._utter([await written.request(segment)], seed, first=number == 0)
        await self._send(AudioStop())
        await self._send(SynthesizeStopped())
        return True

    async def _utter(self, requests: list[Request], seed: int | None, first: bool) -> None:
        """Send the sound of Requests; first: with a beginning, once there is sound and no more error to expect."""
        rate = self.server.sample_rate
        flow = Flow("pcm", rate, seal=self.server.seal)
        async with speaking(self.server.engine, requests, True, seed) as listener:
            async for samples in listener:
                if first:
                    await self._send(AudioStart(rate, WIDTH, CHANNELS))
                    first = False
                await self._chunk(flow.add(samples))
            await self._chunk(flow.finish())

    async def _chunk(self, data: bytes) -> None:
        if data:
            await self._send(AudioChunk(self.server.sample_rate, WIDTH, CHANNELS, data))


async def info(server: Server) -> Info:
    """What there is to speak with. A voice whose owner has refused is left out."""
    listed = await called(server.engine, lambda: shelf.shelf(server, False)["voices"])
    own = [one for one in listed if "alias_of" not in one and one["consent"] != "refused"]
    codes = [code for code in map(language_code, server.tts.languages) if code is not None]
    languages = list(dict.fromkeys(codes))

    def voice(name: str, spoken: str | None = None) -> TtsVoice:
        first = language_code(spoken)  # of the voice itself, which speaks the others too
        known = sorted(languages, key=lambda code: code != first)
        return TtsVoice(name=name, attribution=SOURCE, installed=True, description=None, version=None, languages=known)

    voices = [voice(one["name"], one["language"]) for one in own]
    if server.tts.model_type == "voice_design":  # which makes one for every speech
        voices = [voice("default")]
    program = TtsProgram(
        name="mlx_qwen3tts",
        attribution=SOURCE,
        installed=True,
        description=f"Qwen3-TTS in MLX ({server.model})",
        version=__version__,
        voices=voices,
        supports_synthesize_streaming=True,
    )
    return Info(tts=[program])


@contextlib.asynccontextmanager
async def serving(server: Server, bound: socket.socket) -> AsyncIterator[None]:
    """Answer on a socket that listens as long as the block lasts; what is being said at its end may end."""
    sessions: dict[asyncio.Task[None], Session] = {}

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(sessions) >= CONNECTIONS:
            log.warning("more than %d connections to the Wyoming port; one is refused", CONNECTIONS)
            writer.close()
            return
        session = Session(server, reader, writer)
        task = asyncio.create_task(session.run(), name="mlx_qwen3tts wyoming")
        sessions[task] = session
        task.add_done_callback(left)

    def left(task: asyncio.Task[None]) -> None:
        sessions.pop(task).writer.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection to the Wyoming port failed", exc_info=error)

    listening = await asyncio.start_server(connected, sock=bound, limit=LINE)
    try:
        yield
    finally:
        listening.close()
        if speaking := [task for task, session in sessions.items() if session.busy]:
            await asyncio.wait(speaking, timeout=GRACE)
        for task in list(sessions):
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
