"""mlx_qwen3tts mcp: on stdio, with a model of its own and through a running server."""

import asyncio
import base64
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import mcp as protocol
import numpy as np
import pytest

from mlx_qwen3tts import Library, mcp
from mlx_qwen3tts.desktop.client import Client
from mlx_qwen3tts.server import stdio, tools
from tests.server.leaving import given_up

TEXT = "Hello there."
START = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    library = Library(tmp_path_factory.mktemp("kept") / "voices")
    for number, (name, consent) in enumerate((("anna", "given"), ("no", "refused"))):
        library.add(name, np.random.default_rng(number).normal(size=64), consent=consent)
    return library


@pytest.fixture
def options(curt, voices, tmp_path):
    """A function from further arguments to the parsed options of the command."""

    def parse(*more):
        given = ["--model", curt, "--library", voices.folder, "--dtype", "float32"]
        return mcp.build_parser().parse_args([*map(str, [*given, "--output", tmp_path / "speech", *more])])

    return parse


async def calls(asking, folder, *asked):
    """The results of calls, in a process that then ends as the command does."""
    try:
        async with protocol.Client(tools.server(tools.Tools(asking, folder))) as client:
            return [await client.call_tool(name, arguments) for name, arguments in asked]
    finally:
        await asking.close()


def test_by_itself_it_loads_the_model_for_the_first_tool(options, tmp_path, monkeypatch):
    asking = mcp.Asking(options("--server", "none", "--voice", "anna"), None)
    loads, load = [], asking.load
    monkeypatch.setattr(asking, "load", lambda: loads.append(1) or load())

    async def ask():
        try:
            async with protocol.Client(tools.server(tools.Tools(asking, tmp_path / "speech"))) as client:
                await client.list_tools()
                assert not loads and asking.loading is None
                both = (client.call_tool("speak", {"text": TEXT, "seed": 1}) for _ in range(2))
                return *await asyncio.gather(*both), await client.call_tool("speak", {"text": TEXT, "voice": "no"})
        finally:
            await asking.close()

    first, second, refused = asyncio.run(ask())
    assert loads == [1] and first.content[0].data == second.content[0].data
    assert first.structured_content["path"] != second.structured_content["path"]
    assert refused.is_error and "refused" in refused.content[0].text
    assert asking.loading is not None and not asking.loading.result().server.engine.alive, "it was closed"


def test_a_model_that_is_not_there_is_named_and_looked_for_again(options, curt, tmp_path):
    asking = mcp.Asking(options("--server", "none", "--model", tmp_path / "later", "--voice", "anna"), None)
    asked = ("speak", {"text": TEXT})

    async def ask():
        try:
            async with protocol.Client(tools.server(tools.Tools(asking, tmp_path / "speech"))) as client:
                before = await client.call_tool(*asked)
                (tmp_path / "later").symlink_to(curt)
                return before, await client.call_tool(*asked)
        finally:
            await asking.close()

    before, after = asyncio.run(ask())
    assert before.is_error and "later" in before.content[0].text and not after.is_error


def test_through_the_server_that_runs(options, home, tmp_path, monkeypatch):
    url, server = home
    asking = mcp.Asking(options(), Client(url))
    monkeypatch.setattr(asking, "load", lambda: 1 / 0)
    before = server.engine.counts["frames"]
    asked = [
        ("speak", {"text": TEXT, "voice": "anna", "seed": 1}),
        ("list_voices", {}),
        ("save_voice", {"name": "copy", "voice": "anna"}),
        ("speak", {"text": TEXT, "voice": "nobody"}),
    ]
    spoken, listed, kept, wrong = asyncio.run(calls(asking, tmp_path / "speech", *asked))
    assert server.engine.counts["frames"] > before and "copy" in server.voices.library
    path = Path(spoken.structured_content["path"])
    assert path.parent == tmp_path / "speech" and path.read_bytes() == base64.b64decode(spoken.content[0].data)
    assert [one["name"] for one in listed.structured_content["voices"]] == ["anna", "ben", "no"]
    assert kept.structured_content["name"] == "copy"
    assert wrong.is_error and wrong.content[0].text.startswith("voice 'nobody' is not")
    server.engine.call(lambda: server.voices.library.remove("copy")).result(5)


def test_a_call_that_is_given_up_frees_the_servers_row(options, served, tmp_path):
    url, server = served
    asking = mcp.Asking(options(), Client(url))

    async def leave():
        async with protocol.Client(tools.server(tools.Tools(asking, tmp_path))) as client:
            await given_up(client, server, TEXT)
            while server.engine.load:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), 20))


def line(number, method, params):
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


def started(folder):
    """The command in a process of its own, without a model."""
    command = [sys.executable, "-m", "mlx_qwen3tts.mcp", "--model", "nowhere", "--server", "none", "--output", folder]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_on_stdio_it_answers_every_line_at_once_and_prints_nothing_else(tmp_path):
    with started(tmp_path) as process:
        half = b'{"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"text": "\\ud800"}}\n'
        endless = b"x" * (stdio.LINE + 1)
        wrong = (b"not JSON\n", b"\n", half, endless, b"\n")
        for sent in (line(1, "initialize", START), *wrong, line(2, "tools/list", {})):
            process.stdin.write(sent)
        process.stdin.flush()
        told = [json.loads(process.stdout.readline()) for _ in range(5)]
        answers = {answer["id"]: answer for answer in told if "result" in answer}
        assert answers[1]["result"]["serverInfo"]["name"] == "mlx_qwen3tts"
        assert len(answers[2]["result"]["tools"]) == 5
        errors = [(answer["id"], answer["error"]["code"]) for answer in told if "error" in answer]
        assert errors == [(None, -32700), (3, -32600), (None, -32700)]
        process.send_signal(signal.SIGTERM)  # with stdin still open
        out, err = process.communicate(timeout=20)
        assert process.returncode == 143 and out == b"", err


def test_it_ends_with_who_reads_it(tmp_path):
    with started(tmp_path) as process:
        process.stdin.write(line(1, "initialize", START))
        process.stdin.flush()
        assert process.stdout.readline()
        process.stdout.close()
        process.stdin.write(line(2, "tools/list", {}))
        process.stdin.flush()  # and stays open
        assert process.wait(20) == 0
        err = process.stderr.read().decode().splitlines()
        assert err == [f"ready: tools on stdin and stdout; speech is kept in {tmp_path}", "stopped"]


def test_what_it_refuses_before_it_starts(command, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    ran = command("mcp", "--output", "file")
    assert ran.status == 2 and ran.lines == ["error: --output file is not a folder"]
    ran = command("mcp", "--output", "speech\udcff")
    assert ran.status == 2 and ran.err.startswith("error: ") and "is not UTF-8, as the answers are" in ran.err
    ran = command("mcp", "--output", "~nobody-of-that-name/x")
    assert ran.status == 2 and ran.lines == ["error: --output ~nobody-of-that-name/x: there is no such user"]
    ran = command("mcp", "--server", "ftp://x")
    assert ran.status == 2 and "neither http://HOST:PORT nor unix:PATH" in ran.err
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mcp" else find(name))
    ran = command("mcp")
    assert ran.status == 2 and "mcp needs mcp: pip install" in ran.err and len(ran.lines) == 1


def test_by_itself_it_marks_where_the_configuration_says_so(options, monkeypatch):
    monkeypatch.setenv("QWEN3TTS_MARK", "mine")
    asking = mcp.Asking(options("--server", "none", "--voice", "anna"), None)
    with asking.stack:
        seal = asking.load().server.seal
        assert seal is not None and seal.mark == "mine"
