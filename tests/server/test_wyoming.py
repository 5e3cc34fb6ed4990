"""The Wyoming protocol, with its own client: what Home Assistant asks for, and what nobody should send."""

import asyncio
import contextlib
import importlib.util
import json
import time

import numpy as np
import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event, async_read_event, async_write_event
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice

from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.serve import build_parser, settings
from mlx_qwen3tts.server import wyoming
from mlx_qwen3tts.server.running import listening
from mlx_qwen3tts.server.settings import Settings

ANNA = SynthesizeVoice(name="anna")
TEXT = "Hello there."


@pytest.fixture
def port(home, ports):
    return ports["home"].getsockname()[1]


async def read(client, last):
    """The events up to the first of a type, or up to the end."""
    found = []
    while (event := await asyncio.wait_for(client.read_event(), 30)) is not None:
        found.append(event)
        if last.is_type(event.type) or Error.is_type(event.type):
            break
    return found


def sound_of(events):
    """The samples of events that must be audio-start, chunks of 24 kHz, 16 bits, mono, and audio-stop."""
    first, *chunks, last = events
    assert AudioStart.is_type(first.type) and AudioStop.is_type(last.type), [event.type for event in events]
    start = AudioStart.from_event(first)
    assert (start.rate, start.width, start.channels) == (24000, 2, 1)
    chunks = [AudioChunk.from_event(event) for event in chunks]
    assert all((one.rate, one.width, one.channels) == (24000, 2, 1) for one in chunks)
    return np.frombuffer(b"".join(one.audio for one in chunks), "<i2")


async def say(port, text=TEXT, voice=ANNA):
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Synthesize(text=text, voice=voice).event())
        return await read(client, AudioStop)


def test_it_says_what_it_has(port):
    async def ask():
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Describe().event())
            return Info.from_event(await client.read_event())

    [program] = asyncio.run(ask()).tts
    assert program.installed and program.supports_synthesize_streaming
    assert [voice.name for voice in program.voices] == ["anna", "ben"], "who refused is not offered"
    for voice in program.voices:
        assert voice.installed and voice.languages[0] == "de" and "en" in voice.languages, voice.languages


def test_several_clients_are_heard_at_once(home, port):
    before = home[1].engine.counts["steps"]

    async def ask():
        return await asyncio.gather(say(port), say(port, voice=SynthesizeVoice(name="ben")), say(port, voice=None))

    sounds = [sound_of(events) for events in asyncio.run(ask())]
    assert all(len(sound) and len(sound) % 1920 == 0 for sound in sounds)
    assert home[1].engine.counts["steps"] - before < sum(len(sound) // 1920 for sound in sounds) + 8, "one by one"


def test_a_text_that_is_still_being_written(port):
    """As Home Assistant sends it: the whole text once more before the end, for servers that know no streams."""

    async def ask():
        async with AsyncTcpClient("127.0.0.1", port) as client:
            for event in (SynthesizeStart(voice=ANNA), SynthesizeChunk("Hello, the weather "), SynthesizeChunk("is ")):
                await client.write_event(event.event())
            begun = await read(client, AudioChunk)
            assert [event.type for event in begun] == ["audio-start", "audio-chunk"], "before the text has ended"
            for event in (SynthesizeChunk("fine."), Synthesize(text="Hello, the weather is fine."), SynthesizeStop()):
                await client.write_event(event.event())
            rest = await read(client, SynthesizeStopped)
            await client.write_event(Synthesize(text=TEXT, voice=ANNA).event())  # on the same connection
            return [*begun, *rest], await read(client, AudioStop)

    streamed, whole = asyncio.run(ask())
    assert SynthesizeStopped.is_type(streamed[-1].type)
    assert len(sound_of(streamed[:-1])) and len(sound_of(whole))


def line(**values):
    return json.dumps(values).encode() + b"\n"


REFUSED = {
    "not JSON": ([b"{\n"], "invalid_value"),
    "deep JSON": ([b"[" * 60_000 + b"\n"], "invalid_value"),
    "a web page's request": (
        [b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", line(type="synthesize", data={"text": TEXT})],
        "invalid_value",
    ),
    "a list": ([b"[]\n"], "invalid_type"),
    "no type": ([line(data={})], "invalid_type"),
    "data that is a list": ([line(type="synthesize", data=[1])], "invalid_type"),
    "a long line": ([line(type="synthesize", data={"text": "x" * 70_000})], "invalid_value"),
    "much data": ([line(type="synthesize", data_length=10**12)], "invalid_value"),
    "a negative length": ([line(type="synthesize", data_length=-1)], "invalid_value"),
    "a length in words": ([line(type="synthesize", payload_length="much")], "invalid_value"),
    "a large payload": ([line(type="synthesize", data={"text": TEXT}, payload_length=1 << 20)], "invalid_value"),
    "no text": ([line(type="synthesize", data={})], "invalid_value"),
    "a number for a text": ([line(type="synthesize", data={"text": 5})], "invalid_type"),
    "an empty text": ([line(type="synthesize", data={"text": " "})], "invalid_value"),
    "a long text": ([line(type="synthesize", data={"text": "x" * 5001})], "text_too_long"),
    "half a character": ([line(type="synthesize", data={"text": "\ud800"})], "invalid_value"),
    "SSML": ([line(type="synthesize", data={"text": "<speak/>", "text_format": "ssml"})], "unsupported_value"),
    "a voice in a list": ([line(type="synthesize", data={"text": TEXT, "voice": ["anna"]})], "invalid_type"),
    "nobody": ([line(type="synthesize", data={"text": TEXT, "voice": {"name": "nobody"}})], "voice_not_found"),
    "a path": ([line(type="synthesize", data={"text": TEXT, "voice": {"name": "/etc/passwd"}})], "voice_not_found"),
    "who refused": ([line(type="synthesize", data={"text": TEXT, "voice": {"name": "no"}})], "invalid_value"),
    "an unknown language": (
        [line(type="synthesize", data={"text": TEXT, "voice": {"language": "xx"}})],
        "invalid_value",
    ),
    "a chunk alone": ([line(type="synthesize-chunk", data={"text": TEXT})], "invalid_value"),
    "an end alone": ([line(type="synthesize-stop")], "invalid_value"),
    "two beginnings": ([line(type="synthesize-start"), line(type="synthesize-start")], "invalid_value"),
    "nobody, streamed": ([line(type="synthesize-start", data={"voice": {"name": "nobody"}})], "voice_not_found"),
    "nothing, streamed": ([line(type="synthesize-start"), line(type="synthesize-stop")], "invalid_value"),
    "too much, streamed": (
        [line(type="synthesize-start"), *[line(type="synthesize-chunk", data={"text": "x " * 1500})] * 2],
        "text_too_long",
    ),
    "a number, streamed": (
        [line(type="synthesize-start"), line(type="synthesize-chunk", data={"text": 5})],
        "invalid_type",
    ),
    "too many at once": ([line(type="synthesize", data={"text": TEXT})] * 30, "invalid_value"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_mistake_is_named_and_ends_the_connection(home, port, what):
    sent, code = REFUSED[what]

    async def ask():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            writer.writelines(sent)
            await writer.drain()
        found = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        return found

    *_, last = asyncio.run(ask()).splitlines()
    assert json.loads(last[: last.rindex(b"}") + 1])["code"] == code, last
    assert not spoken_for(home[1])


def spoken_for(server):
    """Whether anybody is spoken for, or waits, a moment later: the engine has looked into its inbox twice."""
    for _ in range(100):
        if not server.engine.load:
            return False
        server.engine.call(lambda: None).result(5)
        time.sleep(0.01)
    return True


def test_who_leaves_gives_the_row_back(served, ports, monkeypatch):
    port, server = ports["served"].getsockname()[1], served[1]
    monkeypatch.setattr(server.engine, "max_batch", 1)

    async def leave():
        async with AsyncTcpClient("127.0.0.1", port) as speaking, AsyncTcpClient("127.0.0.1", port) as waiting:
            await speaking.write_event(Synthesize(text=TEXT, voice=ANNA).event())
            await read(speaking, AudioChunk)
            await waiting.write_event(Synthesize(text=TEXT, voice=ANNA).event())
            while server.engine.load < 2:
                await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert not spoken_for(server)


async def closed_after(port, *asked):
    """The events for a client that closes its side of the connection once it has asked, up to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for event in asked:
        await async_write_event(event.event(), writer)
    writer.write_eof()
    found = []
    while (event := await asyncio.wait_for(async_read_event(reader), 30)) is not None:
        found.append(event)
    writer.close()
    return found


def test_a_client_that_closes_its_side_hears_all_that_it_asked_for_in_full(port):
    whole = Synthesize(text=TEXT, voice=ANNA)
    written = SynthesizeStart(voice=ANNA), SynthesizeChunk(TEXT)
    events = asyncio.run(closed_after(port, whole, *written, SynthesizeStop()))
    end = next(number for number, event in enumerate(events) if AudioStop.is_type(event.type)) + 1
    assert len(sound_of(events[:end])) and len(sound_of(events[end:-1]))
    assert SynthesizeStopped.is_type(events[-1].type)
    events = asyncio.run(closed_after(port, whole, *written))  # and not the one that has no end
    assert len(sound_of(events[:end])) and [event.type for event in events[end:]] == ["error"]
    assert "without synthesize-stop" in Error.from_event(events[-1]).text


def test_a_text_without_an_end_is_dropped_while_it_is_spoken(served, ports):
    async def ask():
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["served"].getsockname()[1])
        for event in (SynthesizeStart(voice=ANNA), SynthesizeChunk("Hello, the weather is fine. It is")):
            await async_write_event(event.event(), writer)
        assert AudioStart.is_type((await async_read_event(reader)).type)
        writer.write_eof()
        while not Error.is_type((await asyncio.wait_for(async_read_event(reader), 30)).type):
            pass
        assert await async_read_event(reader) is None
        writer.close()

    asyncio.run(ask())
    assert not spoken_for(served[1])


def test_who_leaves_before_the_first_sound_is_not_spoken_for(served, ports, monkeypatch):
    """While it waits, too, though nothing has been written to it yet."""
    port, server = ports["served"].getsockname()[1], served[1]
    monkeypatch.setattr(server.engine, "max_batch", 1)
    monkeypatch.setattr(wyoming, "LOOK", 0.05)

    async def leave():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await async_write_event(Synthesize(text=TEXT, voice=ANNA).event(), writer)
        writer.write_eof()
        heard = asyncio.ensure_future(reader.read(-1))
        while not server.engine.running:
            await asyncio.sleep(0.01)
        async with AsyncTcpClient("127.0.0.1", port) as waiting:
            await waiting.write_event(Synthesize(text=TEXT, voice=ANNA).event())
            while server.engine.load < 2:
                await asyncio.sleep(0.01)
        while server.engine.load == 2:
            await asyncio.sleep(0.01)
        assert server.engine.running and not heard.done(), "who has closed its side alone is still heard"
        heard.cancel()
        writer.close()

    asyncio.run(asyncio.wait_for(leave(), 20))
    assert not spoken_for(server)


def test_who_has_gone_costs_two_pieces_of_sound(served, ports):
    async def leave():
        async with AsyncTcpClient("127.0.0.1", ports["served"].getsockname()[1]) as client:
            await client.write_event(Synthesize(text=TEXT, voice=ANNA).event())

    before = served[1].engine.counts["frames"]
    asyncio.run(leave())
    assert not spoken_for(served[1])
    assert served[1].engine.counts["frames"] - before < 60


def test_a_writer_that_stops_is_let_go(served, ports, monkeypatch):
    monkeypatch.setattr(wyoming, "PAUSE", 0.2)

    async def stop():
        async with AsyncTcpClient("127.0.0.1", ports["served"].getsockname()[1]) as client:
            await client.write_event(SynthesizeStart(voice=ANNA).event())
            await client.write_event(SynthesizeChunk("Hello, the weather is ").event())
            return (await read(client, SynthesizeStopped))[-1]

    assert "nothing came" in Error.from_event(asyncio.run(stop())).text
    assert not spoken_for(served[1])


def test_who_reads_nothing_is_let_go(served, monkeypatch):
    monkeypatch.setattr(wyoming, "PAUSE", 0.1)

    class Full:
        """A connection that takes nothing."""

        def write(self, data):
            pass

        writelines = write

        async def drain(self):
            await asyncio.Event().wait()

    async def listen():
        reader = asyncio.StreamReader()
        reader.feed_data(line(type="synthesize", data={"text": TEXT, "voice": {"name": "anna"}}))
        await asyncio.wait_for(wyoming.Session(served[1], reader, Full()).run(), 20)

    asyncio.run(listen())
    assert not spoken_for(served[1])


@pytest.mark.parametrize("ticks", range(4))
def test_a_mistake_in_the_moment_of_a_write_ends_the_connection_too(served, ticks):
    """Python's wait_for before 3.12 forgets a cancellation where what it waits for is done just then."""

    class Mistaken:
        """A connection whose client makes a mistake while the first sound is written, which takes so many turns."""

        def __init__(self, reader):
            self.reader, self.first = reader, True

        def write(self, data):
            pass

        writelines = write

        async def drain(self):
            if self.first:
                self.first = False
                self.reader.feed_data(b"{\n")
                for _ in range(ticks):
                    await asyncio.sleep(0)

    async def listen():
        reader = asyncio.StreamReader()
        reader.feed_data(line(type="synthesize", data={"text": TEXT, "voice": {"name": "anna"}}))
        await asyncio.wait_for(wyoming.Session(served[1], reader, Mistaken(reader)).run(), 20)

    asyncio.run(listen())
    assert not spoken_for(served[1])


def test_connections_are_counted_and_those_that_do_nothing_end(served, ports, monkeypatch):
    monkeypatch.setattr(wyoming, "CONNECTIONS", 1)
    monkeypatch.setattr(wyoming, "FIRST", 0.3)

    async def connect():
        async with AsyncTcpClient("127.0.0.1", ports["served"].getsockname()[1]) as idle:
            await asyncio.sleep(0)
            async with AsyncTcpClient("127.0.0.1", ports["served"].getsockname()[1]) as second:
                assert await second.read_event() is None
            assert "nothing came" in Error.from_event(await idle.read_event()).text
            assert await idle.read_event() is None

    asyncio.run(connect())


def test_unknown_events_are_passed_over(port):
    async def ask():
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Event("transcribe", {"language": "en"}, b"\0" * 100))
            await client.write_event(Synthesize(text=TEXT, voice=ANNA).event())
            return await read(client, AudioStop)

    assert len(sound_of(asyncio.run(ask())))


def test_a_fault_of_ours_is_logged_and_ends_one_connection(served, ports, monkeypatch, caplog):
    monkeypatch.setattr(wyoming, "info", lambda server: 1 / 0)

    async def ask():
        async with AsyncTcpClient("127.0.0.1", ports["served"].getsockname()[1]) as client:
            await client.write_event(Describe().event())
            return await asyncio.wait_for(client.read_event(), 30)

    assert asyncio.run(ask()) is None
    assert "a connection to the Wyoming port failed" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_server_that_stops_ends_what_it_says_and_who_waits(curt, library, serving, caplog):
    """Its speech is cut, its listener told the end; a connection with nothing to do holds up nobody."""

    async def listen(port, server):
        async with AsyncTcpClient("127.0.0.1", port) as speaking, AsyncTcpClient("127.0.0.1", port) as idle:
            await speaking.write_event(SynthesizeStart(voice=ANNA).event())
            await speaking.write_event(SynthesizeChunk("Hello, the weather is fine. It is").event())
            begun = await read(speaking, AudioChunk)
            server.engine.stop(0)
            rest = [begun[-1]]
            while (event := await asyncio.wait_for(speaking.read_event(), 30)) is not None:
                rest.append(event)
            return rest, await idle.read_event()

    with listening("127.0.0.1", 0) as bound:
        tts = Qwen3TTS.from_pretrained(curt, "float32")
        with serving(tts, Settings(library=library.folder, max_batch=1), wyoming=bound) as (_, server):
            rest, idle = asyncio.run(listen(bound.getsockname()[1], server))
    assert idle is None and AudioChunk.is_type(rest[-1].type), [event.type for event in rest]
    assert not caplog.records, caplog.text


def test_a_taken_port_is_named_before_a_model_is_loaded(command):
    with listening("127.0.0.1", 0) as bound:
        taken = bound.getsockname()[1]
        ran = command("serve", "--model", "nosuch", "--port", "0", "--wyoming", taken)
    assert ran.status == 2 and ran.err.startswith(f"error: cannot listen on 127.0.0.1 port {taken}"), ran.err
    assert "choose another --wyoming" in ran.err and ran.err.count("\n") == 1


def test_it_has_no_key_so_a_server_with_one_must_be_told(monkeypatch, command):
    monkeypatch.delenv("QWEN3TTS_API_KEY", raising=False)
    for options in (["--api-key", "k"], ["--host", "0.0.0.0", "--api-key", "k"]):
        with pytest.raises(ValueError, match="no keys"):
            settings(build_parser().parse_args([*options, "--wyoming", "1"]))
        settings(build_parser().parse_args([*options, "--wyoming", "1", "--wyoming-without-key"]))
    with pytest.raises(ValueError, match="--wyoming 70000 is not within"):
        settings(build_parser().parse_args(["--wyoming", "70000"]))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wyoming" else find(name))
    ran = command("serve", "--model", "nosuch", "--port", "0", "--wyoming", "0")
    assert ran.status == 2 and "--wyoming needs wyoming: pip install" in ran.err
