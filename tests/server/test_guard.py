"""Who may ask, how much and how slowly."""

import json
import socket
from contextlib import ExitStack, closing, suppress

import httpx
import pytest
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

from mlx_qwen3tts.server import guard
from mlx_qwen3tts.server.settings import Settings

SPEAK = {"input": "Hello.", "voice": "anna", "max_new_tokens": 3}
KEY = "a-long-key"


@pytest.fixture(scope="module")
def locked(model, library, serving):
    """The address of a server with a key, a further name and a page that may use it."""
    settings = Settings(
        library=library.folder,
        api_key=KEY,
        max_batch=1,
        hosts=("studio.local",),
        origins=("http://app.example:3000",),
    )
    with serving(model("base"), settings) as (url, _):
        yield url


def asked(url, method="GET", path="/v1/models", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(SPEAK) if method == "POST" else None
    more = {"content-type": "application/json"} if method == "POST" and "content-type" not in names else {}
    return httpx.request(method, f"{url}{path}", headers={**more, **names}, content=body)


@pytest.mark.parametrize("path", ["/", "/v1/models", "/static/page.js", "/health", "/nothing"])
def test_only_our_own_names(url, path):
    port = url.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "192.168.1.5"):
        answer = asked(url, path=path, host=host)
        assert answer.status_code in (400, 421), host
        if answer.status_code == 421:
            assert answer.json()["error"]["code"] == "host_not_allowed"
    for host in ("localhost", "localhost:9", "127.0.0.1", "[::1]:5", "LOCALHOST"):
        assert asked(url, path=path, host=host).status_code in (200, 404), host


def test_speech_is_refused_under_another_name(url):
    assert asked(url, "POST", "/v1/audio/speech", host="evil.example").status_code == 421


def test_a_request_without_a_name_is_refused(url):
    host, port = url.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), 5)) as raw:
        raw.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert b" 421 " in raw.recv(4096)


def test_pages_of_others_may_not(url):
    for origin in ("http://evil.example", "null", "http://localhost:1", "file://"):
        for method, path in (("POST", "/v1/audio/speech"), ("GET", "/v1/models"), ("DELETE", "/v1/audio/voices/anna")):
            answer = asked(url, method, path, origin=origin)
            assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    preflight = asked(url, "OPTIONS", "/v1/audio/speech", origin="http://evil.example")
    assert preflight.status_code == 403 and "access-control-allow-origin" not in preflight.headers
    assert asked(url, "POST", "/v1/audio/speech", origin=url).status_code == 200
    cross = asked(url, "POST", "/v1/audio/speech", sec_fetch_site="cross-site")
    assert cross.status_code == 403
    assert asked(url, sec_fetch_site="cross-site").status_code == 200  # a link to the page


def test_a_form_is_not_json(url):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = asked(url, "POST", "/v1/audio/speech", content_type=kind)
        assert answer.status_code == 415 and answer.json()["error"]["code"] == "media_type"
    assert asked(url, "POST", "/v1/audio/speech", content_type="application/json; charset=utf-8").status_code == 200


def test_sockets_are_checked_before_they_are_accepted(url):
    address = f"{url.replace('http', 'ws')}/v1/audio/speech/stream"
    for origin in ("http://evil.example", "null"):
        with pytest.raises(InvalidStatus, match="403"), connect(address, origin=origin, proxy=None):
            pass
    with (
        pytest.raises(InvalidStatus, match=r"40[03]"),  # two names are no name
        connect(address, additional_headers={"Host": "evil.example"}, proxy=None),
    ):
        pass
    with connect(address, origin=url, proxy=None), connect(address, proxy=None):
        pass


def test_every_answer_has_the_headers_that_browsers_heed(url):
    for path in ("/", "/v1/models", "/nothing"):
        headers = asked(url, path=path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert headers["x-request-id"]
    assert "script-src 'self'" in asked(url, path="/").headers["content-security-policy"]
    assert asked(url, x_request_id="abc123").headers["x-request-id"] == "abc123"
    assert asked(url, x_request_id="a b").headers["x-request-id"] != "a b"
    for path in ("/static/../app.py", "/static/%2e%2e%2fapp.py", "/static/", "/static/x.py"):
        assert asked(url, path=path).status_code == 404


def test_a_key_is_asked_for(locked):
    bearer = {"authorization": f"Bearer {KEY}"}
    for headers in ({}, {"authorization": "Bearer"}, {"authorization": "Bearer none"}, {"authorization": KEY[:-1]}):
        answer = asked(locked, **headers)
        assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
    assert asked(locked, **bearer).status_code == 200
    assert asked(locked, path="/health").status_code == 200
    address = f"{locked.replace('http', 'ws')}/v1/audio/speech/stream"
    with pytest.raises(InvalidStatus, match="403"), connect(address, proxy=None):
        pass
    with connect(address, additional_headers=bearer, proxy=None):
        pass
    with httpx.Client(base_url=locked) as browser:
        assert browser.get("/").status_code == 401 and browser.get("/?token=wrong").status_code == 401
        led = browser.get(f"/?token={KEY}")
        assert led.status_code == 303 and "samesite=strict" in led.headers["set-cookie"].lower()
        assert browser.get("/").status_code == 200 and browser.get("/v1/models").status_code == 200


def test_a_page_that_is_named_may(locked):
    page = "http://app.example:3000"
    preflight = asked(locked, "OPTIONS", "/v1/audio/speech", origin=page)
    assert preflight.status_code == 204 and preflight.headers["access-control-allow-origin"] == page
    answer = asked(locked, origin=page, authorization=f"Bearer {KEY}", host="studio.local:80")
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == page
    assert "access-control-allow-credentials" not in answer.headers


def test_without_a_key_any_is_taken(url):
    for given in ("Bearer", "Bearer none", "Basic x"):
        assert asked(url, authorization=given).status_code == 200


def chunked(url, path, pieces, kind=b"application/json"):
    """The status of a request whose body comes in chunks, of a length that nobody has said."""
    host, port = url.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), 30)) as raw:
        head = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"
        raw.sendall(head % (path.encode(), kind))
        try:
            for piece in pieces:
                raw.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            raw.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered already
        return int(raw.recv(4096).split(b" ")[1])


def test_bodies_have_a_size(url):
    host, port = url.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), 10)) as raw:
        head = "POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        raw.sendall(f"{head}content-length: {guard.LARGE + 1}\r\n\r\n{{".encode())
        assert b" 413 " in raw.recv(4096)
    assert chunked(url, "/v1/audio/speech", [b" " * (1 << 20)] * 13) == 413
    fields = {f"f{number}": (None, "x") for number in range(2000)}
    many = httpx.post(f"{url}/v1/audio/voices", files=fields)
    assert many.status_code == 400 and "cannot be read" in many.json()["error"]["message"]
    assert httpx.get(f"{url}/v1/models", headers={"x-long": "x" * 100_000}).status_code == 431


BEGUN = (b"", b"GET /v1/models HTTP/1.1\r\nhost: loc")  # of a head
HALF = (
    b"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: 100\r\n\r\n{"
)


@pytest.fixture
def slow(url):
    """A function that opens a connection on which a part of a request has come, and no more."""
    host, port = url.removeprefix("http://").split(":")
    with ExitStack() as stack:

        def begin(part):
            raw = stack.enter_context(closing(socket.create_connection((host, int(port)), 60)))
            with suppress(BrokenPipeError, ConnectionResetError):  # it was let go before all of this was sent
                raw.sendall(part)
            return raw

        yield begin


def test_nobody_waits_for_slow_senders(url, slow, monkeypatch):
    """Whoever waited for them here would wait for an hour."""
    monkeypatch.setattr(guard, "HEAD_SECONDS", 3600)
    monkeypatch.setattr(guard, "BODY_SECONDS", 3600)
    waiting = [slow(part) for part in (*BEGUN, HALF) for _ in range(17)]
    assert httpx.get(f"{url}/health", timeout=60).status_code == 200
    for raw in waiting:
        raw.setblocking(False)
        with pytest.raises(BlockingIOError):  # nothing was said to it, and it is still open
            raw.recv(1)


def test_slow_senders_are_let_go(slow, monkeypatch):
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.2)
    waiting = [slow(part) for part in BEGUN for _ in range(10)]
    for raw in waiting:
        with suppress(ConnectionResetError):
            assert raw.recv(4096) == b""
    monkeypatch.setattr(guard, "HEAD_SECONDS", 3600)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    for raw in [slow(HALF) for _ in range(10)]:
        assert b" 408 " in raw.recv(4096)


def test_a_socket_lives_longer_than_a_head_may_take(url, monkeypatch):
    """The time for its head ends with the head."""
    watch, timers = guard.Patient.watch_head, []

    def watched(self):
        watch(self)
        timers.append(self.head_timer)

    monkeypatch.setattr(guard.Patient, "watch_head", watched)
    with connect(f"{url.replace('http', 'ws')}/v1/audio/speech/stream", proxy=None) as socket:
        assert [timer.cancelled() for timer in timers] == [True]
        socket.send('{"type": "session.close"}')
        with pytest.raises(ConnectionClosedOK):
            socket.recv(timeout=60)


def test_logs_hold_no_texts_and_no_keys(locked, caplog):
    caplog.set_level("DEBUG", "mlx_qwen3tts")
    secret = "The patient has a secret.\nINFO forged"
    body = json.dumps({**SPEAK, "input": secret})
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "x-request-id": "a\tb"}
    assert httpx.post(f"{locked}/v1/audio/speech", content=body, headers=headers).status_code == 200
    httpx.get(f"{locked}/v1/audio/voices/anna-secret", headers=headers)
    assert "/v1/audio/speech 200" in caplog.text
    assert "secret" not in caplog.text and KEY not in caplog.text and "forged" not in caplog.text
