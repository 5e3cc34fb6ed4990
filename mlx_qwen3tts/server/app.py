"""The server's routes, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute

from .. import __version__
from ..errors import QwenTTSError, UnsupportedValue
from ..files.json_text import json_text
from ..provenance.seal import Seal
from . import asking, browser, exchange, live, maps, mcp, pages, scripts, shaping, shelf, speech, steering
from .answers import Refusal, error_response
from .designing import Designer
from .engine import Engine
from .guard import Guard
from .jobs import Turn
from .settings import Settings
from .speaking import called
from .voices import Recording, Voices, open_library

if TYPE_CHECKING:
    from ..synthesis.request import Request
    from ..synthesis.tts import Qwen3TTS
    from ..voices.voice import Voice


class Server:
    """A loaded model with its engine and voices."""

    def __init__(
        self, tts: Qwen3TTS, settings: Settings, model: str | None = None, design: Qwen3TTS | None = None
    ) -> None:
        """model: its id for clients, as it was asked for; None for its folder's name; design: a VoiceDesign model that
        makes voices from words."""
        self.tts, self.settings = tts, settings
        self.model = model or tts.folder.folder.name
        self.sample_rate = tts.sample_rate
        self.seal = Seal() if settings.seal is None else settings.seal
        self.designer = None if design is None else Designer(design, tts)
        self.engine = Engine(tts, settings.max_batch, settings.max_queue, warm=self._warm_up)
        self.speeches = steering.Speeches()
        self.voices = Voices(tts, open_library(settings.library), settings.voice)
        self.maps = maps.Maps()
        languages = tuple(name.lower() for name in tts.languages)
        self.facts = asking.Facts(self.model, tts.model_type, tts.embedding_dim, tts.takes_instruct, languages)
        self.started = time.time()
        self.app: Starlette | None = None
        self.browser = browser.Browser(self)
        self.turn = asyncio.Semaphore(settings.max_batch)  # of a batch's items: they do not fill the queue

    def greeting(self, url: str) -> str:
        """What somebody who starts it wants to know. url: as `running.address` gives it."""
        curl = "curl"
        if url.startswith("unix:"):
            curl, url = f"curl --unix-socket {url.removeprefix('unix:')}", "http://localhost"
        names, shown = self.voices.names, 8
        voices = ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
        lines = [f"ready: {self.model} speaks at {url}/v1", f"voices: {voices or 'none yet'}"]
        body = json_text({"input": "Hello.", **({"voice": names[0]} if names else {})})
        key = ' -H "authorization: Bearer $QWEN3TTS_API_KEY"' if self.settings.api_key else ""
        line = f"{curl} {url}/v1/audio/speech{key} -H content-type:application/json -d '{body}' -o hello.mp3"
        return "\n".join([*lines, line])

    def _warm_up(self) -> None:
        """What only some servers need compiled or measured before they speak."""
        if self.designer is not None:
            self.designer.warm_up()
        if self.settings.guard:
            self.tts.planner.silent  # noqa: B018 (found once)

    async def prepare(self, asked: asking.Asked) -> list[Request]:
        """The Requests of what is asked for, with its voices found."""
        data = asked.source.recording
        recording = None if data is None else await asyncio.to_thread(Recording.read, data)
        return await called(self.engine, lambda: self._requests(asked, recording))

    def _requests(self, asked: asking.Asked, recording: Recording | None) -> list[Request]:
        morph = None if asked.morph_to is None else self.voices.named(asked.morph_to)
        return asked.requests(self._voice(asked.source, recording), morph)

    async def turns(self, asked: asking.Asked) -> list[Turn]:
        """The turns of a voice that are known from the start."""

        def found() -> list[Turn]:
            return [Turn(one.frame, self.voices.named(one.voice), one.seconds) for one in asked.steering]

        return await called(self.engine, found) if asked.steering else []

    def _voice(self, source: asking.Source, recording: Recording | None) -> Voice | None:
        if source.vector is not None:
            return self.voices.of_vector(source.vector)
        if recording is not None:
            return self.voices.of_recording(recording, source.ref_text)
        if source.url is not None:
            message = "ref_audio must be a data: URI; this server fetches nothing"
            raise UnsupportedValue(message, param="ref_audio")
        if source.name is not None and self.tts.model_type != "voice_design":
            return self.voices.named(source.name)
        return self.voices.usual()


async def health(request: HttpRequest) -> JSONResponse:
    """Whether it can speak: healthy, loading, or stopped."""
    server: Server = request.app.state.server
    engine = server.engine
    status = "healthy" if engine.ready.is_set() and engine.alive else "loading" if engine.alive else "stopped"
    body = {"status": status, "model": server.model, "queue": engine.queued, "running": engine.running}
    return JSONResponse({**body, "version": __version__}, 200 if status == "healthy" else 503)


async def models(request: HttpRequest) -> JSONResponse:
    """The one model, in OpenAI's shape and in Open WebUI's."""
    listed = [model_card(request.app.state.server)]
    return JSONResponse({"object": "list", "data": listed, "models": listed})


async def model(request: HttpRequest) -> JSONResponse:
    server: Server = request.app.state.server
    asking.check_model(request.path_params["name"], server.facts)
    return JSONResponse(model_card(server))


def model_card(server: Server) -> dict[str, Any]:
    card = {"id": server.model, "object": "model", "created": int(server.started), "owned_by": "mlx_qwen3tts"}
    return {
        **card,
        "name": server.model,
        "type": server.tts.model_type,
        "languages": list(server.tts.languages),
        "takes_instruct": server.tts.takes_instruct,
    }


async def metrics(request: HttpRequest) -> PlainTextResponse:
    """Totals and states in Prometheus' text form."""
    engine = request.app.state.server.engine
    lines = []
    gauges = {"queued": engine.queued, "running": engine.running, "ready": int(engine.ready.is_set())}
    for name, value in gauges.items():
        lines += [f"# TYPE qwen3tts_{name} gauge", f"qwen3tts_{name} {value}"]
    for name in COUNTED:
        lines += [f"# TYPE qwen3tts_{name}_total counter", f"qwen3tts_{name}_total {engine.counts[name]}"]
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


COUNTED = (
    "steps", "rows", "frames", "stop", "length", "interrupted", "failed", "cancelled",
    "first_sounds", "first_sound_milliseconds", "guard", "guard_failures", "retries",
)  # fmt: skip


async def base(request: HttpRequest) -> JSONResponse:
    """What clients look at before they speak."""
    server: Server = request.app.state.server
    return JSONResponse({"name": "mlx_qwen3tts", "version": __version__, "model": server.model})


async def refused(request: HttpRequest, error: Exception) -> Response:
    """The response to whatever an endpoint raised of ours."""
    return error_response(error)


async def http_error(request: HttpRequest, error: Exception) -> Response:
    """Unknown paths and methods, in the shape of all other errors."""
    assert isinstance(error, HTTPException)
    code = "not_found" if error.status_code == 404 else "invalid_value"
    message = f"{request.method} {request.url.path}: {error.detail.lower()}"
    return error_response(Refusal(code, message), error.status_code, error.headers)


LARGE_BODIES = ("/v1/audio/speech", "/v1/audio/scripts", "/v1/audio/voices", "/v1/embeddings/voice", "/mcp")


def build(server: Server, anywhere: bool = False, wyoming: socket.socket | None = None) -> Guard:
    """The ASGI app of a server, whose engine runs as long as the app does; anywhere: other machines reach it; wyoming:
    a socket that listens for clients of that protocol, which takes the extra."""
    tools = mcp.Mount(server, anywhere)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(server.engine)
            if wyoming is not None:
                from .wyoming import serving

                await stack.enter_async_context(serving(server, wyoming))
            await stack.enter_async_context(tools)
            try:
                yield
            finally:
                await asyncio.to_thread(server.engine.close)

    routes = [
        Route("/v1/audio/speech", speech.speech, methods=["POST"]),
        Route("/v1/audio/speech/batch", speech.batch, methods=["POST"]),
        Route("/v1/audio/speech/{id}/steer", steering.steer, methods=["POST"]),
        WebSocketRoute("/v1/audio/speech/stream", live.stream),
        Route("/v1/audio/scripts", scripts.scripts, methods=["POST"]),
        Route("/v1/audio/scripts/speech", scripts.speech, methods=["POST"]),
        Route("/v1/audio/voices", shelf.voices, methods=["GET", "POST"]),
        Route("/v1/audio/voices/combine", shelf.combine, methods=["POST"]),
        Route("/v1/audio/voices/search", shelf.search, methods=["POST"]),
        Route("/v1/audio/voices/map", maps.draw, methods=["POST"]),
        Route("/v1/audio/voices/export", exchange.export, methods=["POST"]),
        Route("/v1/audio/voices/import", exchange.take_in, methods=["POST"]),
        Route("/v1/audio/voices/{name:path}", shelf.voice, methods=["GET", "PATCH", "DELETE"]),
        Route("/v1/audio/directions", shaping.directions, methods=["GET", "POST"]),
        Route("/v1/audio/directions/{name:path}", shaping.forget, methods=["DELETE"]),
        Route("/v1/audio/expressions", shaping.expressions, methods=["POST"]),
        Route("/v1/embeddings/voice", shelf.embedding, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/audio/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/", pages.page),
        Route("/static/{name}", pages.static),
        Route("/browser", browser.page),
        Route("/browser/{name}", browser.part),
        Route("/openapi.json", pages.openapi),
        Route("/mcp", tools),
        Route("/v1", base),
        Route("/v1/", base),
    ]
    handlers: dict[Any, Any] = {QwenTTSError: refused, HTTPException: http_error, Exception: refused}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.state.server, server.app = server, app
    return Guard(app, server.settings, LARGE_BODIES, anywhere)
