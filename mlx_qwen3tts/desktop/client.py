"""A client of the server that runs on this machine. It imports little: whoever types `say` waits for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..errors import InvalidValue, QwenTTSError
from ..files.json_text import json_text

LOOK = 0.5  # seconds in which a server that runs has said that it does
PATIENCE = 120.0  # seconds without a byte
WHOLE = 1800.0  # seconds for an answer that comes all at once, when a long text has been spoken


class ServerError(QwenTTSError):
    """The running server refused, or went away."""

    code = "server_error"


class _Unix(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Client:
    """One server, by its URL: http://HOST:PORT, or unix:PATH."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """key: what `serve --api-key` asks for. InvalidValue for another kind of URL."""
        self.url, self.headers = url, {"content-type": "application/json"}
        self.model: str | None = None  # not known yet
        self.told: dict[str, str] = {}  # the head of the last answer, its names in lower case
        if key:
            self.headers["authorization"] = f"Bearer {key}"
        self._unix = url.removeprefix("unix:") if url.startswith("unix:") else None
        if self._unix is not None:
            return
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname, parts.port or 80
        except ValueError:
            parts, self._host = None, None
        if parts is None or parts.scheme != "http" or not self._host:
            raise InvalidValue(f"server {url!r} is neither http://HOST:PORT nor unix:PATH", param="server")

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._unix is not None:
            return _Unix(self._unix, timeout)
        assert self._host is not None, "checked when it was made"
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)

    def healthy(self) -> bool:
        """Whether a server of ours is there and can speak; then `model` is the one that it has."""
        try:
            with contextlib.closing(self._connect(LOOK)) as connection:
                connection.request("GET", "/health")
                answer = json.loads(connection.getresponse().read(65536))
        except (OSError, http.client.HTTPException, ValueError, RecursionError):  # the last of JSON made to hurt
            return False
        told = answer if isinstance(answer, dict) else {}
        self.model = str(told["model"]) if "model" in told else None
        return told.get("status") == "healthy"

    def voices(self) -> list[dict[str, Any]]:
        """Every voice that it has, aliases too, as the server describes them."""
        with self._asked("GET", "/v1/audio/voices") as answer:
            return json.loads(answer.read())["voices"]

    def speak(self, text: str, **more: Any) -> Iterator[bytes]:
        """The sound as 16-bit mono samples at 24 kHz, as it comes; more: fields of the request."""
        body = {"input": text, "response_format": "pcm", "stream_format": "audio", **more}
        with self._asked("POST", "/v1/audio/speech", json_text(body)) as answer:
            half = b""
            while data := self._read(answer):
                data = half + data
                whole = len(data) & ~1
                half = data[whole:]
                yield data[:whole]

    def call(self) -> Call:
        """A request that may be given up."""
        return Call(self, self._connect(WHOLE))

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            data = answer.read1(65536)
            if not data and answer.length:  # read1 itself does not mind
                raise http.client.IncompleteRead(data, answer.length)
            return data
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"{self.url} broke off while speaking: {error}") from None

    @contextlib.contextmanager
    def _asked(self, method: str, path: str, body: str | None = None) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request. ServerError where there is none, or a refusal, in the server's own words."""
        with contextlib.closing(self._connect(PATIENCE)) as connection:
            try:
                connection.request(method, path, body and body.encode(), self.headers)
                answer = connection.getresponse()
                refused = answer.read(65536) if answer.status != 200 else None
            except (OSError, http.client.HTTPException) as error:
                raise ServerError(f"{self.url} does not answer: {error or type(error).__name__}") from None
            self.told = {name.lower(): value for name, value in answer.getheaders()}
            if refused is not None:
                raise ServerError(f"{self.url} refused: {_reason(refused, answer.status)}")
            yield answer


class Call:
    """One request, which another thread may give up: the server then hears that nobody waits, and speaks no further."""

    def __init__(self, client: Client, connection: http.client.HTTPConnection) -> None:
        self.client, self._connection = client, connection
        self._given_up = False

    def ask(self, method: str, path: str, values: Mapping[str, Any] | None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of the answer. ServerError where there is none."""
        url, body = self.client.url, None if values is None else json_text(values).encode()
        with contextlib.closing(self._connection) as connection:
            try:
                connection.connect()
                if self._given_up:  # before there was anything to shut
                    raise OSError("given up")
                connection.request(method, path, body, self.client.headers)
                answer = connection.getresponse()
                return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise ServerError(f"{url} does not answer: {error or type(error).__name__}") from None

    def give_up(self) -> None:
        """Called in another thread."""
        self._given_up = True
        if (sock := self._connection.sock) is not None:
            with contextlib.suppress(OSError):  # it is over already
                sock.shutdown(socket.SHUT_RDWR)


def _reason(body: bytes, status: int) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"]["message"])
    return f"status {status}"
