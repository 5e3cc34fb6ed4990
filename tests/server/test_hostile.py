"""What somebody who means harm, or does not know better, sends: the right refusal, and the next request served."""

import json
import logging
import threading
import time
from contextlib import ExitStack
from socket import create_connection
from urllib.parse import quote

import httpx
import pytest
from websockets.sync.client import connect

from mlx_qwen3tts.server import written
from mlx_qwen3tts.server.settings import Settings
from mlx_qwen3tts.server.written import whole_characters
from tests.server.test_live import CONFIG, heard, send

SPEAK = {"input": "Hi.", "voice": "anna", "max_new_tokens": 2, "response_format": "pcm"}
JSON = {"content-type": "application/json"}
FIELDS = (
    "input", "model", "voice", "speaker", "instructions", "response_format", "rate", "stream_format", "stream", "seed",
    "temperature", "top_k", "top_p", "repetition_penalty", "subtalker_temperature", "greedy", "max_new_tokens",
    "language", "task_type", "ref_audio", "ref_text", "x_vector_only_mode", "speaker_embedding", "sample_rate",
    "morph_to", "morph_seconds", "morph_mode", "non_streaming_mode", "text_mode", "unknown",
)  # fmt: skip
VALUES = (
    "", " ", "\ud800", "\x00", "😀", "a" * 3000, "(" * 2000, "../../etc/passwd", "anna*1e400", "1*@x", 0, -1, 1.5,
    10**400, -(10**400), 2**64, 1e308, 1e-320, float("inf"), float("nan"), True, [], ["a"], {}, {"id": 5}, [[[]]],
)  # fmt: skip


def check(answer):
    """A refusal has one clear message, and is never a fault of the server."""
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["message"] and error["code"] and len(error["message"]) <= 600


@pytest.mark.parametrize("field", FIELDS)
def test_any_value_in_any_field(client, field):
    more = {"morph_to": "ben"} if field.startswith("morph_") else {}
    for value in VALUES[FIELDS.index(field) % 3 :: 3]:  # a third of them for each, another for its neighbours
        if isinstance(value, int | float) and field in ("rate", "morph_seconds") and value == 1.5:
            continue  # a value that is right
        check(client.post("/v1/audio/speech", content=json.dumps({**SPEAK, **more, field: value}), headers=JSON))


@pytest.mark.parametrize("path", ["combine", "search", "map"])
def test_any_value_about_voices(client, path):
    for value in VALUES:
        for body in (value, [value, "anna"], {"expression": value}, {"voice": value}, {"voice": "anna", "where": value},
                     {"voice": "anna", "k": value}, {"voice": "anna", "where": {"gender": value}},
                     {"x": value, "y": "@no"}):  # fmt: skip
            check(client.post(f"/v1/audio/voices/{path}", content=json.dumps(body), headers=JSON))


def test_names_that_no_header_and_no_file_can_have(client, served):
    for name in ("\ud800", "a\r\nset-cookie: x", "ü", "x" * 2000):
        answer = client.post("/v1/audio/speech", content=json.dumps({**SPEAK, name: 1}), headers=JSON)
        assert answer.status_code == 200 and "set-cookie" not in answer.headers
    for path in ("/static/", "/v1/audio/voices/", "/v1/models/"):
        for name in ("a" * 300 + ".js", "%00.js", "%ff%fe.js", "..%2f..%2fapp.js", "%0aINFO forged"):
            assert client.get(path + name).status_code in (400, 404)
    strict = Settings(**{**vars(served[1].settings), "strict": True})
    settings, served[1].settings = served[1].settings, strict
    try:
        answer = client.post("/v1/audio/speech", content=json.dumps({**SPEAK, "\ud800": 1}), headers=JSON)
    finally:
        served[1].settings = settings
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "unsupported_value"


def test_a_path_cannot_forge_a_line_of_the_log(client, caplog):
    with caplog.at_level(logging.INFO, "mlx_qwen3tts"):
        assert client.get("/x%0AINFO%20forged").status_code == 404
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_a_small_answer_comes_at_once(client):
    """Head and body of an answer are two writes; the second one does not wait for the first to be acknowledged."""
    times = []
    for _ in range(12):
        start = time.perf_counter()
        client.get("/v1/models")
        times.append(time.perf_counter() - start)
    assert sorted(times)[3] < 0.03


def test_a_key_of_any_marks(model, library, serving):
    key = "a+b/c=%20;d"
    with serving(model("base"), Settings(library=library.folder, max_batch=1, api_key=key)) as (url, _):
        for given in (key, quote(key, safe="")):
            with httpx.Client(base_url=url) as browser:
                assert browser.get(f"/?token={given}").status_code == 303
                assert browser.get("/v1/models").status_code == 200
        for given in (f"bearer {key}", f"Bearer  {key}"):
            assert httpx.get(f"{url}/v1/models", headers={"authorization": given}).status_code == 200
        for given in ("Bearer schlüssel".encode(), f"Basic {key}".encode(), key.encode()):
            assert httpx.get(f"{url}/v1/models", headers={b"authorization": given}).status_code == 401


def test_a_browser_gets_one_of_the_protocols_it_offers(model, library, serving):
    with serving(model("base"), Settings(library=library.folder, max_batch=1, api_key="key")) as (url, _):
        address = f"{url.replace('http', 'ws')}/v1/audio/speech/stream"
        for offered, chosen in ((["key"], "key"), (["key", "speech"], "speech")):
            with connect(address, subprotocols=offered, proxy=None) as socket:
                assert socket.subprotocol == chosen


def test_a_full_server_refuses_before_it_looks_for_a_voice(client, served, monkeypatch):
    engine, held = served[1].engine, threading.Event()
    monkeypatch.setattr(engine, "load", engine.max_batch + engine.max_queue)
    engine.call(lambda: held.wait(20))  # a frame that takes long
    try:
        answer = client.post("/v1/audio/speech", json=SPEAK, timeout=5)
    finally:
        held.set()
    assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 600


@pytest.fixture
def socket(url):
    with connect(f"{url.replace('http', 'ws')}/v1/audio/speech/stream", proxy=None) as made:
        yield made


def test_a_config_is_that_of_the_texts_that_follow_it(socket):
    """A second one, sent while the first text is still spoken, does not change that text's later sentences."""
    text = "One two three four. Five six seven. Eight nine ten."
    ended = {"type": "input.done"}
    messages = [{"type": "input.text", "text": text}, ended]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written, "LIMIT", 20)
        send(socket, {**CONFIG, "max_new_tokens": 3}, *messages, {**CONFIG, "max_new_tokens": 6}, *messages)
        first, second = heard(socket), heard(socket)
    count = first[1][-1]["total_sentences"]
    assert count == second[1][-1]["total_sentences"] > 1
    assert (len(first[0]), len(second[0])) == (2 * 1920 * count, 5 * 1920 * count)


def test_characters_that_come_in_halves(socket):
    send(
        socket, CONFIG, *({"type": "input.text", "text": part} for part in ("Hi ", "\ud83d", "\ude00", " e", "\u0301."))
    )
    send(socket, {"type": "input.done"})
    assert heard(socket)[1][1]["sentence_text"] == "Hi 😀 e\u0301."
    send(socket, {"type": "input.text", "text": "Hi \ud83d"}, {"type": "input.done"})
    messages = heard(socket)[1]
    assert messages[-1]["type"] == "error" and "U+D83D" in messages[-1]["message"]
    assert whole_characters("\ude00\ud83d\ude00\ud83d") == ("\ude00😀", "\ud83d")


@pytest.mark.parametrize("text", ["word " * 1000, "字" * 1300, "One. Two! " * 300, "x" * 3000, "a\n\n" * 700])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_segments_are_bounded_and_lose_nothing(text, step):
    """Whatever the text and however it comes, it is cut into segments that add up to it, none of them long."""
    made, before = [], ""
    for start in range(0, len(text), step):
        rest = text[start : start + step]
        while rest:
            cut = written.cut(before, rest)
            before += rest[:cut]
            if cut is None:
                break
            made.append(before)
            before, rest = "", rest[cut:]
    made.append(before)
    assert "".join(made) == text
    assert max(map(written.weight, made)) <= 2 * written.LIMIT + 3
    assert len(made) > 1


def test_sockets_that_wait_keep_nobody_out(url, served, client):
    """As many texts are being written as there are places, and somebody else is served all the same."""
    address = f"{url.replace('http', 'ws')}/v1/audio/speech/stream"
    engine = served[1].engine
    with ExitStack() as stack:
        for _ in range(engine.max_batch + engine.max_queue):
            one = stack.enter_context(connect(address, proxy=None))
            send(one, CONFIG, {"type": "input.text", "text": "Hello, the weather is "})
            assert json.loads(one.recv(timeout=30))["type"] == "audio.start"
        assert client.post("/v1/audio/speech", json=SPEAK).status_code == 200


def raw(url, sent):
    """What comes back for bytes on a connection of their own, to its end."""
    host, port = url.removeprefix("http://").split(":")
    with create_connection((host, int(port)), 20) as connection:
        connection.sendall(sent)
        got = b""
        while data := connection.recv(65536):
            got += data
    return got


def test_old_and_hasty_clients(url):
    short = json.dumps({"input": "Hi.", "voice": "anna", "response_format": "pcm", "max_new_tokens": 4}).encode()
    head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(short)
    old = raw(url, b"POST /v1/audio/speech HTTP/1.0\r\nhost: localhost\r\n" + head + b"\r\n" + short)
    assert b" 200 " in old.splitlines()[0] and len(old.partition(b"\r\n\r\n")[2]) == 3 * 3840
    assert b" 421 " in raw(url, b"GET /health HTTP/1.0\r\n\r\n").splitlines()[0]  # says no host
    one = b"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\n" + head
    both = raw(url, one + b"\r\n" + short + one + b"connection: close\r\n\r\n" + short)  # without waiting for the first
    assert both.count(b"HTTP/1.1 200") == 2 and both.count(b"x-seed") == 2


def test_who_never_reads_gives_the_row_back_by_leaving(url, served, client):
    body = json.dumps(
        {"input": "Hi. " * 40, "voice": "anna", "response_format": "pcm", "stream_format": "audio"}
    ).encode()
    host, port = url.removeprefix("http://").split(":")
    with create_connection((host, int(port)), 20) as connection:
        connection.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body) + body
        )
        while not served[1].engine.running:
            client.get("/health")
    for _ in range(200):
        if client.get("/health").json()["running"] == 0:
            break
    else:
        pytest.fail("the row is still taken")
