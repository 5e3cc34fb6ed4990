"""Who may ask, how much, and how slowly: everything that is decided before a request is looked at.

A server on a desk is reached by every page that its user opens. So the name under which it was asked and the page that
asks are checked first, for sockets too and before they are accepted: a foreign page cannot speak through a name of its
own that points here (DNS rebinding), nor send forms that need no permission.
"""

from __future__ import annotations

import asyncio
import hmac
import http.cookies
import ipaddress
import logging
import secrets
import time
import urllib.parse
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import QwenTTSError
from .answers import Refusal, error_response
from .settings import Settings
from .waiting import within

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "mlx_qwen3tts"
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/health",)  # needs no key: watchdogs have none

HEAD = 64 << 10  # bytes of all headers
SMALL, LARGE = 64 << 10, 12 << 20  # bytes of a body; where it may hold a recording or a long text
HEAD_SECONDS, BODY_SECONDS = 10.0, 30.0
CONNECTIONS = 256

ALWAYS = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


class Guard:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, settings: Settings, large: tuple[str, ...], anywhere: bool = False) -> None:
        """large: paths whose bodies may be large; anywhere: whether other machines reach this server."""
        self.app, self.settings, self.large, self.anywhere = app, settings, large, anywhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]
        request_id = headers.get("x-request-id", "")
        if not (request_id.isascii() and request_id.isalnum() and len(request_id) <= 64):
            request_id = secrets.token_hex(8)
        try:
            if sum(len(name) + len(value) for name, value in headers.raw) > HEAD:
                raise Refusal("head_too_large", f"the head is larger than {HEAD} bytes")
            self._check_host(headers)
            origin = self._check_origin(scope, headers)
            if scope["type"] == "http" and scope["method"] == "OPTIONS":
                await self._preflight(origin)(scope, receive, send)
                return
            token = self._check_key(scope, headers)
        except QwenTTSError as error:
            log.info("%s refused: %s", scope["type"], error.code)
            await self._refuse(error, scope, receive, send, request_id)
            return
        if token is not None:
            await token(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        scope["request_id"] = request_id
        start, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *self._headers(origin, request_id, message)]}
            await send(message)

        body = Body(receive, headers, LARGE if path.startswith(self.large) else SMALL)
        await self.app(scope, body.receive, answer)
        milliseconds = 1000 * (time.perf_counter() - start)
        # The path of a voice holds its name, which is its owner's business.
        shown = "".join(char if char.isprintable() else "?" for char in path.split("/voices/")[0][:200])
        log.info("%s %s %d %.0f ms %s", scope["method"], shown, status, milliseconds, request_id)

    def _check_host(self, headers: Headers) -> None:
        """The name in Host is one of ours: an attacker's name that was pointed at this machine is not."""
        given = headers.getlist("host")
        name = host_name(given[0]) if len(given) == 1 else ""
        if name in (*LOOPBACK, *self.settings.hosts) or (self.anywhere and is_address(name)):
            return
        raise Refusal("host_not_allowed", "this server does not go by that name; start it with --allow-host NAME")

    def _check_origin(self, scope: Scope, headers: Headers) -> str | None:
        """The foreign origin that may read the answer, or None. Refuses every other page."""
        origin = headers.get("origin")
        if origin is not None:
            if origin in self.settings.origins:
                return origin
            scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
            if origin != f"{scheme}://{headers.get('host', '')}":
                message = "pages of that origin may not use this server; start it with --allow-origin ORIGIN"
                raise Refusal("origin_not_allowed", message)
        elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and (
            scope["type"] == "websocket" or scope["method"] not in SAFE
        ):
            raise Refusal("origin_not_allowed", "a page of another site may not do that")
        return None

    def _check_key(self, scope: Scope, headers: Headers) -> Response | None:
        """Refuses whoever has not the key. A Response sets the page's cookie and leads to it."""
        key = self.settings.api_key
        if key is None or (scope["type"] == "http" and scope["path"] in OPEN):
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = [bearer.strip() if scheme.lower() == "bearer" else ""]
        if scope["type"] == "websocket":
            given += scope.get("subprotocols", [])
        cookie: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
        try:
            cookie.load(headers.get("cookie", ""))
        except http.cookies.CookieError:
            cookie.clear()
        given += [cookie[COOKIE].value] if COOKIE in cookie else []
        if any(same(one, key) for one in given):
            return None
        token = scope.get("query_string", b"").decode("latin-1")
        # As it is, or percent-encoded: keys in base64 hold + and /.
        tokens = [token[6:], urllib.parse.unquote(token[6:])] if token.startswith("token=") else []
        if scope["type"] == "http" and scope["path"] == "/" and any(same(one, key) for one in tokens):
            response = RedirectResponse("/", 303)
            response.set_cookie(COOKIE, key, httponly=True, samesite="strict", path="/")
            return response
        raise Refusal("not_authorized", "the key is missing or wrong: send it as `Authorization: Bearer KEY`")

    def _preflight(self, origin: str | None) -> Response:
        """The answer to a browser that asks whether a page may."""
        if origin is None:
            return Response(status_code=204, headers={"allow": "GET, POST, PATCH, DELETE"})
        allowed = {"access-control-allow-methods": "GET, POST, PATCH, DELETE", "access-control-max-age": "600"}
        names = {"access-control-allow-headers": "authorization, content-type", "vary": "origin"}
        return Response(status_code=204, headers={"access-control-allow-origin": origin, **allowed, **names})

    def _headers(self, origin: str | None, request_id: str, message: Message) -> list[tuple[bytes, bytes]]:
        known = {name for name, _ in message["headers"]}
        added = {**ALWAYS, "x-request-id": request_id}
        if origin is not None:
            added |= {"access-control-allow-origin": origin, "vary": "origin"}
        return [(name.encode(), value.encode()) for name, value in added.items() if name.encode() not in known]

    async def _refuse(self, error: QwenTTSError, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        if scope["type"] == "websocket":
            await receive()  # the handshake; closing before it is accepted answers 403
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {**ALWAYS, "x-request-id": request_id, "connection": "close"}
        if error.code == "not_authorized":
            headers["www-authenticate"] = "Bearer"
        await error_response(error, headers=headers)(scope, receive, send)


class Body:
    """A body that is let in as far as it is small and quick enough."""

    def __init__(self, receive: Receive, headers: Headers, most: int) -> None:
        self._receive, self.most, self._size = receive, most, 0
        length = headers.get("content-length", "")
        self._declared = int(length) if length.isdigit() and len(length) < 16 else 0
        self._deadline, self._complete = time.monotonic() + BODY_SECONDS, False

    def _too_large(self) -> Refusal:
        return Refusal("payload_too_large", f"the body is larger than {self.most} bytes")

    async def receive(self) -> Message:
        """The next message. Refuses what is too large or too slow."""
        if self._complete:
            return await self._receive()
        if self._declared > self.most:
            raise self._too_large()
        try:
            message = await within(self._receive(), self._deadline - time.monotonic())
        except asyncio.TimeoutError:
            raise Refusal("too_slow", f"the body did not come within {BODY_SECONDS:.0f} s") from None
        self._size += len(message.get("body", b""))
        if self._size > self.most:
            raise self._too_large()
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message


class Patient(H11Protocol):
    """uvicorn's protocol, which would wait for the rest of a request's head for ever: this one closes after a while."""

    head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        upgraded = self.transport.get_protocol() is not self  # to a socket, which has its own limits
        if upgraded or (self.cycle is not None and not self.cycle.response_complete):
            self.unwatch()
        elif self.head_timer is None:
            self.watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The next head may be here already, in part: then nothing else would end this connection.
        if self.head_timer is None and self.conn.trailing_data[0]:
            self.watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.unwatch()
        super().connection_lost(exc)

    def watch_head(self) -> None:
        self.head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def unwatch(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


def host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def is_address(name: str) -> bool:
    """Whether a name is a number, which no other machine can have pointed here."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def same(given: str, key: str) -> bool:
    """Whether a key is the right one, in a time that does not tell how much of it is."""
    return hmac.compare_digest(given.encode(), key.encode())
