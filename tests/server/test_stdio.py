"""Lines on stdin that are not messages of the protocol, lines without an end, and clients that have left."""

import asyncio
import json
import os
import threading
import tracemalloc

import pytest

from mlx_qwen3tts.server import stdio

CALL = b'{"jsonrpc":"2.0","id":%s,"method":"ping","params":{"text":"%s"}}'
NOT_READ, NOT_VALID = -32700, -32600
ANSWERED = {
    "not JSON": (b"nonsense", NOT_READ, None),
    "cut off": (b'{"jsonrpc":"2.0","id":1', NOT_READ, None),
    "UTF-16": ("{}".encode("utf-16"), NOT_READ, None),
    "deep": (b"[" * 100_000, NOT_READ, None),
    "an id of 5000 digits": (CALL % (b"9" * 5000, b""), NOT_READ, None),
    "a list": (b"[]", NOT_VALID, None),
    "a batch": (b"[%s]" % (CALL % (b"1", b"")), NOT_VALID, None),
    "a number": (b"5", NOT_VALID, None),
    "null": (b"null", NOT_VALID, None),
    "half a character": (CALL % (b"2", b"\\ud800hi"), NOT_VALID, 2),
    "not UTF-8": (CALL % (b'"a"', b"\xff\xfe"), NOT_VALID, "a"),
    "half a character for an id": (CALL % (b'"\\ud800"', b""), NOT_VALID, None),
    "no method": (b'{"jsonrpc":"2.0","id":3}', NOT_VALID, 3),
    "no version": (b'{"id":3,"method":"ping"}', NOT_VALID, 3),
    "a number for a method": (b'{"jsonrpc":"2.0","id":3,"method":5}', NOT_VALID, 3),
    "params in a list": (b'{"jsonrpc":"2.0","id":"x","method":"ping","params":[1]}', NOT_VALID, "x"),
    **{f"the id {id}": (CALL % (id.encode(), b""), NOT_VALID, None) for id in ("null", "true", "1.5", "[]", "{}")},
}


@pytest.mark.parametrize("what", ANSWERED)
def test_a_line_that_is_not_a_message_is_answered(what):
    line, code, number = ANSWERED[what]
    answer = stdio.refused(line)
    assert answer is not None and (answer.error.code, answer.id) == (code, number) and answer.error.message
    told = json.loads(answer.model_dump_json(by_alias=True, exclude_unset=True))
    assert told["id"] == number and told["jsonrpc"] == "2.0"


@pytest.mark.parametrize(
    "line",
    [
        CALL % (b"1", b"hi"),
        CALL % (b'"a"', "thrée".encode()),
        CALL % (b"1", b"\\ud83d\\ude00"),
        CALL % (b"1", b"hi") + b"\r",
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}',
    ],
)
def test_a_message_is_not(line):
    assert stdio.refused(line) is None


def read(*written):
    """The lines that are read of pieces that come one after another."""
    reading, writing = os.pipe()

    def write():
        for piece in written:
            os.write(writing, piece)
        os.close(writing)

    async def take():
        return [line async for line in stdio.lines(reading, asyncio.Event())]

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return asyncio.run(asyncio.wait_for(take(), 20))
    finally:
        writer.join()
        os.close(reading)


def test_lines_come_whole_and_the_last_one_needs_no_end():
    assert read(b"one\ntw", b"o\n\n", "thrée".encode()) == [b"one", b"two", b"", "thrée".encode()]
    assert read(b"one\n") == [b"one"] and read() == []


def test_a_line_that_is_too_long_is_named_and_passed_over(monkeypatch):
    monkeypatch.setattr(stdio, "LINE", 10)
    assert read(b"x" * 10, b"\n", b"y" * 11 + b"\nnext\n") == [b"x" * 10, None, b"next"]
    assert read(b"x" * 9, b"yyy", b"zz", b"z" * 100, b"\nnext\n" + b"u" * 11) == [None, b"next", None]
    told = stdio.refused(None)
    assert told is not None and told.id is None and "more than 10 bytes" in told.error.message


def test_an_endless_line_takes_no_more_memory_than_a_line_may(monkeypatch):
    monkeypatch.setattr(stdio, "LINE", 1 << 16)
    piece = b"x" * (1 << 16)
    tracemalloc.start()
    try:
        assert read(*[piece] * 256, b"\nnext") == [None, b"next"]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # of 16 MiB
    finally:
        tracemalloc.stop()


def test_an_answer_that_nobody_reads_ends_the_input():
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()

    async def leave():
        gone = asyncio.Event()
        wire = stdio.Wire(write_out, gone)
        await wire.write("é")
        assert os.read(read_out, 9) == "é".encode() and not gone.is_set()
        taking = asyncio.ensure_future(anext(stdio.lines(read_in, gone), "ended"))
        os.close(read_out)
        await wire.write("more")
        return await taking

    assert asyncio.run(asyncio.wait_for(leave(), 20)) == "ended"
    os.close(write_in)  # which lets the thread that reads end
    os.close(write_out)


def test_what_is_printed_meanwhile_goes_to_stderr(capfd, monkeypatch):
    os.write(1, b"before\n")
    with stdio.diverted() as descriptor:
        os.write(1, b"meanwhile\n")  # as print does, and what is written in C
        os.write(descriptor, b"an answer\n")
    os.write(1, b"behind\n")
    os.close(descriptor)
    assert capfd.readouterr() == ("before\nan answer\nbehind\n", "meanwhile\n")
    monkeypatch.setattr("sys.stdout", None)  # as it is where it was closed
    with stdio.diverted() as descriptor:
        pass
    os.close(descriptor)


def test_a_client_that_reads_nothing_holds_up_no_end():
    reading, writing = os.pipe()

    async def stop():
        task = asyncio.ensure_future(stdio.Wire(writing, asyncio.Event()).write("x" * (1 << 20)))
        await asyncio.wait({task}, timeout=0.05)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(asyncio.wait_for(stop(), 20))
    os.close(reading)  # which lets the thread that writes end
