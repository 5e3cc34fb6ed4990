"""The tools for language models, by the client of the Model Context Protocol: in one process, and at /mcp."""

import asyncio
import base64
import importlib.util
import io
import json
import re
import time
from pathlib import Path

import httpx
import httpx2
import mcp
import pytest
import soundfile
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from mlx_qwen3tts.server import tools
from mlx_qwen3tts.server.guard import Guard
from mlx_qwen3tts.server.mcp import Inside, Mount
from mlx_qwen3tts.server.settings import Settings
from tests.server.leaving import given_up

TEXT = "Hello there."
JSON_RPC = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"accept": "application/json, text/event-stream"}


@pytest.fixture
def call(home, tmp_path):
    """A function that calls a tool in this process: its structured result, or with `wrong` what is wrong."""

    def run(name, arguments=None, wrong=False):
        async def ask():
            made = tools.server(tools.Tools(Inside(home[1]), tmp_path / "speech"))
            async with mcp.Client(made) as client:
                return await client.call_tool(name, arguments or {})

        result = asyncio.run(ask())
        assert result.is_error == wrong, result.content
        return result.content[-1].text if wrong else result.structured_content

    return run


def test_what_it_offers(home, tmp_path):
    async def ask():
        async with mcp.Client(tools.server(tools.Tools(Inside(home[1]), tmp_path))) as client:
            return (await client.list_tools()).tools, client.server_info

    listed, about = asyncio.run(ask())
    assert {tool.name for tool in listed} == {"speak", "list_voices", "blend", "save_voice", "search_voices"}
    for tool in listed:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name) and tool.description
        assert tool.input_schema["type"] == "object" and not tool.input_schema["additionalProperties"]
    assert about.name == "mlx_qwen3tts" and about.version


@pytest.mark.parametrize(("kind", "media"), [("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("opus", "audio/ogg")])
def test_sound_comes_as_content_and_as_a_file(home, tmp_path, kind, media):
    async def ask():
        async with mcp.Client(tools.server(tools.Tools(Inside(home[1]), tmp_path / "new" / "speech"))) as client:
            return await client.call_tool("speak", {"text": TEXT, "voice": "anna", "seed": 3, "format": kind})

    result = asyncio.run(ask())
    sound, told = result.content[0], result.structured_content
    data = base64.b64decode(sound.data)
    assert sound.type == "audio" and sound.mime_type == media
    path = Path(told["path"])
    assert path.parent == tmp_path / "new" / "speech" and path.read_bytes() == data
    assert (
        json.loads(result.content[1].text) == told and told["seed"] == 3 and told["finish_reason"] in ("stop", "length")
    )
    assert told["seconds"] == pytest.approx(soundfile.info(io.BytesIO(data)).duration, abs=0.01)
    body = {"input": TEXT, "voice": "anna", "seed": 3, "response_format": kind}
    over_http = httpx.post(f"{home[0]}/v1/audio/speech", json=body).content
    assert kind == "opus" or data == over_http, "an Ogg file has a random number"


def test_what_a_model_fills_in_with_nothing_is_nothing(call):
    told = call("speak", {"text": TEXT, "voice": "", "language": "", "instructions": "", "seed": 3})
    assert told["seed"] == 3 and "ignored" not in told


def test_a_sound_too_large_for_a_message_is_in_the_file_alone(call, home, tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "MOST_SOUND", 100)
    told = call("speak", {"text": TEXT, "voice": "anna"})
    assert "too many for a message" in told["note"] and Path(told["path"]).stat().st_size > 100


def test_voices_are_listed_mixed_kept_and_found(call, home):
    listed = call("list_voices")
    assert [one["name"] for one in listed["voices"]] == ["anna", "ben", "no"] and listed["total"] == 3
    assert listed["voices"][2]["consent"] == "refused" and listed["voices"][0]["attributes"] == {"gender": "a"}
    assert [one["name"] for one in call("list_voices", {"contains": "N", "limit": 1})["voices"]] == ["anna"]
    mixed = call("blend", {"voices": {"anna": 3, "ben": 1}})
    assert mixed["expression"] == "3*anna + ben" and mixed["alike"][0]["name"] == "anna"
    assert [(one["weight"], one["name"]) for one in mixed["terms"]] == [(3.0, "anna"), (1.0, "ben")]
    assert call("blend", {"expression": "anna*0.5 + ben*0.5"})["terms"]
    kept = call("save_voice", {"name": "mix-1", "voice": mixed["expression"]})
    assert kept["name"] == "mix-1" and "anna" in kept["recipe"]["expression"]
    call("save_voice", {"name": "mix-1", "voice": "ben", "overwrite": True})
    assert call("search_voices", {"like": "mix-1", "k": 1})["voices"][0]["name"] == "ben"
    assert [one["name"] for one in call("search_voices", {"like": "ben", "where": {"gender": "b"}})["voices"]] == [
        "mix-1"
    ]
    assert call("speak", {"text": TEXT, "voice": "mix-1"})["seconds"] > 0
    home[1].engine.call(lambda: home[1].voices.library.remove("mix-1")).result(5)


WRONG = [
    ("speak", {"text": TEXT, "voice": "nobody"}, "voice 'nobody' is not a library voice"),
    ("speak", {"text": TEXT, "voice": "../voices/anna.safetensors"}, "is not a library voice"),
    ("speak", {"text": TEXT, "voice": "/etc/passwd"}, "is not a library voice"),
    ("speak", {"text": TEXT, "voice": "no"}, "refused"),
    ("speak", {"text": TEXT, "voice": "anna*0.5 + no*0.5"}, "refused"),
    ("speak", {"text": " "}, "empty"),
    ("speak", {}, "text is missing"),
    ("speak", {"text": 5}, "text must be a string"),
    ("speak", {"text": "x" * 100_000}, "text has 100000 characters; a call takes 4096"),
    ("speak", {"text": TEXT, "format": "exe"}, "format 'exe' is not mp3"),
    ("speak", {"text": TEXT, "path": "/tmp/x.wav"}, "there is no argument path"),
    ("speak", {"text": TEXT, "seed": -1}, "seed -1 is not within"),
    ("speak", {"text": TEXT, "language": "xx"}, "language 'xx'"),
    ("save_voice", {"name": "../x", "voice": "anna"}, "letters a-z, digits"),
    ("save_voice", {"name": "x" * 65, "voice": "anna"}, "64 at most"),
    ("save_voice", {"name": "zoë", "voice": "anna"}, "letters a-z, digits"),
    ("save_voice", {"name": "", "voice": "anna"}, "letters a-z, digits"),
    ("save_voice", {"name": "x"}, "voice is missing"),
    ("save_voice", {"name": "x", "voice": "/etc/passwd"}, "is not a library voice"),
    ("save_voice", {"name": "x", "voice": "no"}, "refused"),
    ("save_voice", {"name": "anna", "voice": "ben"}, "kept already"),
    ("blend", {}, "give one of expression and voices"),
    ("blend", {"voices": ["anna"]}, "voices must be an object"),
    ("blend", {"voices": {}}, "voices is empty"),
    ("blend", {"voices": {"anna": "much"}}, "anna must be a number"),
    ("blend", {"voices": {"nobody": 1, "anna": 1}}, "nobody"),
    ("blend", {"expression": "anna +"}, "expression"),
    ("search_voices", {}, "like is missing"),
    ("search_voices", {"like": "nobody"}, "is not a library voice"),
    ("search_voices", {"like": "anna", "k": 1000}, "k 1000 is not within"),
    ("list_voices", {"limit": 0}, "limit 0 is not within"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), WRONG, ids=[f"{n} {str(a)[:60]}" for n, a, _ in WRONG])
def test_what_is_wrong_is_said_to_the_model(call, tmp_path, home, name, arguments, message):
    before = set(home[1].voices.library)
    told = call(name, arguments, wrong=True)
    assert message in told and "\n" not in told, told
    assert not (tmp_path / "speech").exists() and set(home[1].voices.library) == before


def test_folders_that_take_nothing(call, tmp_path, monkeypatch):
    (tmp_path / "speech").write_text("a file")
    assert "cannot make the folder" in call("speak", {"text": TEXT, "voice": "anna"}, wrong=True)
    (tmp_path / "speech").unlink()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in call("speak", {"text": TEXT, "voice": "anna"}, wrong=True)
    assert list((tmp_path / "speech").iterdir()) == []


def test_a_tool_that_is_not_there(home, tmp_path):
    async def ask():
        async with mcp.Client(tools.server(tools.Tools(Inside(home[1]), tmp_path))) as client:
            with pytest.raises(MCPError, match="no tool 'rm'"):
                await client.call_tool("rm", {})

    asyncio.run(ask())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_at_an_address_of_the_server(home, mode):
    async def ask():
        async with mcp.Client(f"{home[0]}/mcp", mode=mode) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            spoken = await client.call_tool("speak", {"text": TEXT, "voice": "anna", "seed": 3})
            wrong = await client.call_tool("speak", {"text": TEXT, "voice": "nobody"})
            return names, spoken, wrong

    names, spoken, wrong = asyncio.run(ask())
    assert "speak" in names and wrong.is_error and "nobody" in wrong.content[0].text
    path = Path(spoken.structured_content["path"])
    assert path.parent == home[1].settings.speech and path.read_bytes() == base64.b64decode(spoken.content[0].data)


@pytest.mark.parametrize("mode", ["auto", "legacy", "in one process"])
def test_who_leaves_gives_the_row_back(served, speech, mode):
    url, server = served
    kept = set(speech.iterdir()) if speech.exists() else set()

    async def leave():
        own = mode == "in one process"
        to = tools.server(tools.Tools(Inside(server), speech)) if own else f"{url}/mcp"
        async with mcp.Client(to, mode="legacy" if own else mode) as client:
            await given_up(client, server, TEXT)

    asyncio.run(asyncio.wait_for(leave(), 30))
    for _ in range(300):
        if not server.engine.load:
            break
        server.engine.call(lambda: None).result(5)
        time.sleep(0.01)
    else:
        raise AssertionError("the row is still taken")
    assert kept == (set(speech.iterdir()) if speech.exists() else set())


def test_pages_and_foreign_names_are_kept_out(home):
    url = f"{home[0]}/mcp"
    assert httpx.post(url, json=JSON_RPC, headers=ACCEPT).status_code == 200
    for headers, status in (
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ):
        assert httpx.post(url, json=JSON_RPC, headers={**ACCEPT, **headers}).status_code == status
    form = httpx.post(url, content=json.dumps(JSON_RPC), headers={**ACCEPT, "content-type": "text/plain"})
    assert form.status_code in (400, 415)
    large = httpx.post(url, content=b" " * (13 << 20), headers={**ACCEPT, "content-type": "application/json"})
    assert large.status_code == 413


def test_the_protocols_own_check_is_on_too(home):
    """Behind the guard, for whoever gets past it; where other machines come in, the guard alone knows their names."""

    async def ask(anywhere, guarded, **headers):
        async with Mount(home[1], anywhere) as mount:
            app = Guard(mount, home[1].settings, (), anywhere) if guarded else mount
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
                return (await client.post("/mcp", json=JSON_RPC, headers={**ACCEPT, **headers})).status_code

    for host, status in (("evil.example", 421), ("localhost:8880", 200), ("[::1]:8880", 200), ("127.0.0.1", 200)):
        assert asyncio.run(ask(False, False, host=host)) == status, host
    assert asyncio.run(ask(False, False, host="localhost", origin="http://evil.example")) == 403
    assert asyncio.run(ask(True, True, host="192.168.0.9:8880")) == 200
    assert asyncio.run(ask(True, True, host="evil.example")) == 421


def test_a_key_is_asked_for(model, library, serving, tmp_path):
    chosen = Settings(library=library.folder, max_batch=1, api_key="sesame", speech=tmp_path)
    with serving(model("base"), chosen) as (url, _):
        assert httpx.post(f"{url}/mcp", json=JSON_RPC, headers=ACCEPT).status_code == 401

        async def ask():
            headers = {"authorization": "Bearer sesame"}
            async with (
                httpx2.AsyncClient(headers=headers) as http,
                mcp.Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
            ):
                return len((await client.list_tools()).tools)

        assert asyncio.run(ask()) == 5


def test_without_the_extra_it_says_so(home, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mcp" else find(name))
    refused = httpx.post(f"{home[0]}/mcp", json=JSON_RPC, headers=ACCEPT)
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "missing_extra"
