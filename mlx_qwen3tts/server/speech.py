"""POST /v1/audio/speech and its batch."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from ..audio.formats import CONTENT_TYPES
from ..errors import InvalidValue, QwenTTSError, UnsupportedValue, WrongType
from ..files.json_text import json_text
from . import asking, labels
from .answers import Refusal, error_body, status_of
from .jobs import Ended
from .speaking import Flow, Listener, paced, speaking
from .waiting import unless

if TYPE_CHECKING:
    from .app import Server

MOST_ITEMS = 32  # of a batch
QUEUED_COMMENT = 10.0  # seconds; clients give up after 30 without a byte


async def json_body(request: HttpRequest, kinds: tuple[type, ...] = (dict,)) -> Any:
    """The JSON value of a body, an object unless other kinds will do; the guard has limited its size."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a form on a foreign page can send without asking is not this
        raise Refusal("media_type", "send the body as content-type: application/json")
    data = await request.body()
    try:
        body = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"the body is not JSON: {shortened(error)}") from None
    if not isinstance(body, kinds):
        raise WrongType(f"the body must be a JSON object, not {type(body).__name__}")
    return body


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def shortened(error: Exception) -> str:
    """An error's words, not too many."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 120 else f"{words[:117]}…"


async def gone(request: HttpRequest) -> None:
    """Returns once the client has left. The body has been read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def speech(request: HttpRequest) -> Response:
    """Speak a text: whole, as chunks, or as server-sent events."""
    server: Server = request.app.state.server
    asked = asking.parse(await json_body(request), server.settings, server.facts)
    server.engine.check_room()  # before its voice is looked for, which may take a frame
    prepared = await unless(gone(request), asyncio.gather(server.prepare(asked), server.turns(asked)))
    if prepared is None:
        return Response(status_code=499)  # nobody reads it
    requests, turns = prepared
    flow = Flow(asked.format, server.sample_rate, asked.sample_rate, asked.rate, server.seal)
    origin = labels.origin_of(server, requests, None, (turn.voice for turn in turns))
    headers = {"x-sample-rate": str(flow.rate), **ignored(asked.ignored)}
    kind = CONTENT_TYPES[asked.format] + (f";rate={flow.rate};channels=1" if asked.format == "pcm" else "")
    async with AsyncExitStack() as stack:
        spoken = speaking(server.engine, requests, asked.stream is not None, asked.seed, asked.lead, turns)
        listener = await stack.enter_async_context(spoken)
        stack.enter_context(server.speeches.holding(request.scope["request_id"], listener.job))
        if asked.stream is None:
            sound = await unless(gone(request), _collect(listener))
            if sound is None:
                return Response(status_code=499)
            assert listener.ended is not None, "it was heard to its end"
            headers["x-finish-reason"] = listener.ended.finish_reason
            headers["x-seed"] = str(listener.job.seed)
            origin = replace(origin, seed=listener.job.seed)
            headers |= labels.headers(server, origin)
            if listener.ended.guard is not None:
                headers["x-guard"] = listener.ended.guard
            return Response(await asyncio.to_thread(flow.whole, sound, origin), 200, headers, kind)
        if asked.guarded:
            headers["x-guard"] = "on"  # the head is sent before anybody knows
        else:  # its seed is certain
            flow.open(replace(origin, seed=listener.job.seed))
        if asked.stream == "audio":
            # A speech that fails before its first sound is an error with a status of its own.
            sounds = heard(listener, asked)
            first = await unless(gone(request), _first(sounds))
            if first is None:
                return Response(status_code=499)
            headers["x-seed"] = str(listener.job.seed)
            origin = replace(origin, seed=listener.job.seed)
            if asked.guarded:
                flow.open(origin)
            headers |= labels.headers(server, origin)
            if listener.job.first_sound is not None:
                headers["server-timing"] = f"first-sound;dur={1000 * listener.job.first_sound:.1f}"
            stream = _chunks(first, sounds, flow, stack.pop_all())
            return StreamingResponse(stream, 200, headers, kind)
        headers["x-seed"] = str(listener.job.seed)  # a guarded speech may have another one: its last event says so
        if asked.guarded:
            flow.open(origin)
        headers |= labels.headers(server, replace(origin, seed=None if asked.guarded else listener.job.seed))
        stream = _events(listener, heard(listener, asked), flow, asked.format, stack.pop_all())
        return StreamingResponse(stream, 200, headers, "text/event-stream")


def ignored(names: Iterable[str]) -> dict[str, str]:
    """The header that names the fields which were not understood, where there are any."""
    shown = ", ".join(name for name in sorted(names) if name.isascii() and name.isprintable())[:500]
    return {"x-ignored": shown} if shown else {}


def heard(listener: Listener, asked: asking.Asked) -> AsyncIterator[np.ndarray]:
    """The samples of a speech as they come, or where it has a lead as they are heard."""
    sounds = aiter(listener)
    if asked.lead is None:
        return sounds
    return paced(sounds, listener.engine.tts.sample_rate * asked.rate, asked.lead / 2)


async def _collect(listener: Listener) -> np.ndarray:
    parts = [samples async for samples in listener]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


async def _first(sounds: AsyncIterator[np.ndarray]) -> np.ndarray:
    """The first samples; none where there is no sound at all."""
    return await anext(sounds, np.zeros(0, np.float32))


async def _chunks(
    first: np.ndarray, sounds: AsyncIterator[np.ndarray], flow: Flow, stack: AsyncExitStack
) -> AsyncIterator[bytes]:
    async with stack:
        if data := flow.add(first):
            yield data
        async for samples in sounds:
            if data := flow.add(samples):
                yield data
        yield flow.finish()


async def _events(
    listener: Listener, sounds: AsyncIterator[np.ndarray], flow: Flow, kind: str, stack: AsyncExitStack
) -> AsyncIterator[str]:
    """Server-sent events as OpenAI's: deltas of one container, then its end or an error."""
    async with stack:
        waiting: asyncio.Future[np.ndarray | None] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(sounds, None))
                done, _ = await asyncio.wait({waiting}, timeout=QUEUED_COMMENT)
                if not done:
                    yield ": queued\n\n"
                    continue
                samples, waiting = waiting.result(), None
                data = flow.finish() if samples is None else flow.add(samples)
                if data:
                    delta = base64.b64encode(data).decode()
                    yield event("speech.audio.delta", audio=delta, response_format=kind)
                if samples is None:
                    break
        except (QwenTTSError, RuntimeError) as error:
            yield event("speech.audio.error", **error_body(error, status_of(error)))
            return
        finally:
            if waiting is not None:
                waiting.cancel()
        assert listener.ended is not None, "it was heard to its end"
        yield event("speech.audio.done", usage=usage(listener.ended), **guarded(listener))


def event(kind: str, **values: Any) -> str:
    """A server-sent event. Some clients read its first line, others the data alone."""
    return f"event: {kind}\ndata: {json_text({'type': kind, **values})}\n\n"


def usage(ended: Ended) -> dict[str, Any]:
    """What a speech took: positions of the prompt, frames of sound."""
    return {
        "input_tokens": ended.tokens,
        "output_tokens": ended.frames,
        "total_tokens": ended.tokens + ended.frames,
        "input_token_details": {"text_tokens": ended.tokens, "audio_tokens": 0},
    }


def guarded(listener: Listener) -> dict[str, Any]:
    """What a guarded speech is told of in addition: "passed" or what is wrong, and the seed of its first piece."""
    ended = listener.ended
    return {} if ended is None or ended.guard is None else {"guard": ended.guard, "seed": listener.job.seed}


async def batch(request: HttpRequest) -> JSONResponse:
    """Several texts at once; each succeeds or fails by itself."""
    server: Server = request.app.state.server
    body = await json_body(request)
    items = body.pop("items", None)
    if not isinstance(items, list) or not 1 <= len(items) <= MOST_ITEMS:
        raise InvalidValue(f"items must be a list of 1 to {MOST_ITEMS} speech requests", param="items")
    if not all(isinstance(item, dict) for item in items):
        raise WrongType("items must be JSON objects", param="items")
    work = asyncio.gather(*(_item(server, {**body, **item}, number) for number, item in enumerate(items)))
    results = await unless(gone(request), work)
    if results is None:
        return JSONResponse({}, 499)
    done = sum(result["status"] == "success" for result in results)
    counts = {"total": len(results), "succeeded": done, "failed": len(results) - done}
    return JSONResponse({"id": f"batch-{secrets.token_hex(8)}", "results": results, **counts})


async def _item(server: Server, values: dict[str, Any], number: int) -> dict[str, Any]:
    """One result of a batch."""
    result: dict[str, Any] = {"index": number, "status": "error", "audio_data": None, "media_type": None}
    try:
        if values.get("lead") is not None:  # nothing of a batch is heard before all of it is there
            raise UnsupportedValue("lead belongs to POST /v1/audio/speech", param="lead")
        asked = asking.parse(values, server.settings, server.facts)
        flow = Flow(asked.format, server.sample_rate, asked.sample_rate, asked.rate, server.seal)
        requests, turns = await asyncio.gather(server.prepare(asked), server.turns(asked))
        async with server.turn, speaking(server.engine, requests, False, asked.seed, turns=turns) as listener:
            sound = await _collect(listener)
    except (QwenTTSError, RuntimeError) as error:
        return {**result, "usage": None, **error_body(error, status_of(error))}
    origin = labels.origin_of(server, requests, listener.job.seed, (turn.voice for turn in turns))
    data = await asyncio.to_thread(flow.whole, sound, origin)
    assert listener.ended is not None, "it was heard to its end"
    media = {"audio_data": base64.b64encode(data).decode(), "media_type": CONTENT_TYPES[asked.format]}
    more = {"usage": usage(listener.ended), **guarded(listener)}
    return {**result, "status": "success", **media, **more, "error": None}
