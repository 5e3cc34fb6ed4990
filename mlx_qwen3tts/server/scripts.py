"""Scripts over HTTP: who says what with which voice and seed, and all of it as one sound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from ..audio.encoding import check_format
from ..audio.formats import CONTENT_TYPES
from ..audio.reference import SILENT, trimmed
from ..audio.stretch import Stretch
from ..errors import InvalidValue, QwenTTSError, TextTooLong, UnsupportedValue, VoiceNotFound, WrongType
from ..scripts.cast import NARRATOR, Cast, Part, parts_of
from ..scripts.doubts import doubtful
from ..scripts.script import Script
from ..scripts.timeline import Piece, lay_out, seconds_of
from ..synthesis.request import Request, Sampling
from . import labels
from .answers import error_body
from .asking import LONGEST_INSTRUCTION, Body
from .shaping import LONGEST
from .speaking import Flow, called, speaking
from .speech import gone, ignored, json_body
from .waiting import unless

if TYPE_CHECKING:
    from .app import Server

KINDS = ("text", "markdown", "json")
MOST_PARTS = 200  # of a cast
MOST_SEEDS = 20_000  # pieces whose seed is chosen


@dataclass(frozen=True)
class Asked:
    """A script as a request has it. parts: {name: Part}; seed: None where it is not given; seeds: {key of a piece: its
    seed}."""

    text: str
    kind: str
    parts: dict[str, Part]
    language: str
    seed: int | None
    seeds: dict[str, int]


@dataclass(frozen=True)
class Understood:
    """A script that was read: with its cast, whose names have Parts, and its Pieces; wrong: {voice: why there is
    none}."""

    script: Script
    cast: Cast
    pieces: list[Piece]
    language: str
    wrong: dict[str, str]


def asked_for(server: Server, body: Body) -> Asked:
    """The fields of a body that have to do with a script."""
    text = body.text("input")
    if text is None:
        raise InvalidValue("input is missing: the script", param="input")
    if len(text) > server.settings.max_characters:
        message = f"input has {len(text)} characters; this server takes {server.settings.max_characters}"
        raise TextTooLong(f"{message} (--max-characters)", param="input")
    kind = body.word("kind", KINDS) or "text"
    parts = parts_of(body.values.pop("voices", {}))
    if len(parts) > MOST_PARTS:
        raise InvalidValue(f"voices has {len(parts)} names; at most {MOST_PARTS} are taken", param="voices")
    for name, part in parts.items():
        for what, most in ((part.voice, LONGEST), (part.instruct, LONGEST_INSTRUCTION)):
            if len(what or "") > most:
                raise InvalidValue(
                    f"voices: {name[:40]} has {len(what or '')} characters; at most {most}", param="voices"
                )
    language, seed = body.text("language", "auto") or "auto", body.whole("seed", 0, 2**32 - 1)
    return Asked(text, kind, parts, language, seed, _seeds(body))


async def understand(server: Server, asked: Asked) -> Understood:
    """Read a script. Names without a voice are told, not refused; QwenTTSError for what cannot be read."""
    script = await asyncio.to_thread(Script.parse_text, asked.text, asked.kind, list(asked.parts), "the script")
    parts, wrong = await _find(server, script, asked.parts)
    cast = Cast(parts, lambda name: None)  # who has a voice has been found out

    def laid() -> list[Piece]:
        made = lay_out(script, cast, asked.seed or 0, language=asked.language)
        return [replace(piece, seed=asked.seeds.get(piece.key, piece.seed)) for piece in made]

    return Understood(script, cast, await asyncio.to_thread(laid), asked.language, wrong)


def _seeds(body: Body) -> dict[str, int]:
    """{key of a piece: its seed}."""
    seeds = body.values.pop("seeds", {})
    if not isinstance(seeds, dict) or not all(
        isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32 for seed in seeds.values()
    ):
        raise WrongType("seeds must be an object of keys and whole numbers from 0 to 4294967295", param="seeds")
    if len(seeds) > MOST_SEEDS:
        raise InvalidValue(f"seeds has {len(seeds)} keys; at most {MOST_SEEDS} are taken", param="seeds")
    return seeds


async def _find(server: Server, script: Script, given: dict[str, Part]) -> tuple[dict[str, Part], dict[str, str]]:
    """(parts of everybody who speaks, {voice: why there is none}). One voice at a time, so that speech goes on."""
    asked: dict[str, QwenTTSError | None] = {}

    async def why_not(voice: str) -> QwenTTSError | None:
        if voice not in asked:
            if len(asked) >= 2 * MOST_PARTS:
                raise InvalidValue(f"more than {MOST_PARTS} voices are named", param="input")
            asked[voice] = await called(server.engine, lambda: _why_not(server, voice))
        return asked[voice]

    parts = {name.casefold(): part for name, part in given.items()}
    if NARRATOR not in parts:
        try:
            parts[NARRATOR] = Part(await called(server.engine, lambda: server.voices.usual_name))
        except VoiceNotFound as error:  # which matters where somebody narrates
            parts[NARRATOR], asked[""] = Part(""), error
    for line in script.lines:
        if line.name is not None and line.name.casefold() not in parts:
            spelt = [line.name, line.name.lower()]
            found = [one for one in spelt if not isinstance(await why_not(one), VoiceNotFound)]
            parts[line.name.casefold()] = Part((found or spelt)[0])
    used = {parts[NARRATOR if line.name is None else line.name.casefold()].voice for line in script.lines}
    used |= {
        span.voice for line in script.lines for span in line.spans if span.voice and span.voice.casefold() not in parts
    }
    wrong = {voice: why for voice in used if voice is not None and (why := await why_not(voice)) is not None}
    return parts, {voice: " ".join(str(why).split()) for voice, why in wrong.items()}


def _why_not(server: Server, voice: str) -> QwenTTSError | None:
    """Why a name or an expression is not a voice that speaks here; None where it is."""
    if len(voice) > LONGEST:
        return InvalidValue(f"a voice of {len(voice)} characters; at most {LONGEST} are taken", param="voice")
    try:
        server.voices.named(voice)
    except QwenTTSError as error:
        return error
    return None


async def scripts(request: HttpRequest) -> JSONResponse:
    """Read a script: the cast, the pieces to speak with voice, seed and pause, and what looks wrong."""
    server: Server = request.app.state.server
    asked = asked_for(server, Body(await json_body(request)))
    try:
        read = await understand(server, asked)
    except QwenTTSError as error:  # the request is answered all the same: somebody is still writing the script
        wrong = error_body(error, 400)["error"]
        return JSONResponse(
            {"object": "audio.script", "error": wrong, "seconds": 0, "cast": [], "lines": [], "doubts": []}
        )
    known = server.tts.planner.vocabulary

    def doubts() -> list[tuple[int, str]]:
        unknown = None if known is None else known.unknown
        return doubtful(read.script, read.cast, read.pieces, read.language, server.tts.languages, unknown)

    told = [{"line": line, "doubt": doubt} for line, doubt in await asyncio.to_thread(doubts)]
    seconds = round(seconds_of(read.pieces), 1)
    cast = _cast(read)
    answer = {"object": "audio.script", "error": None, "seconds": seconds, "cast": cast}
    return JSONResponse({**answer, "lines": _lines(read), "doubts": told})


def _cast(read: Understood) -> list[dict[str, Any]]:
    """Who speaks, in the order of their first line."""
    rows: dict[str, dict[str, Any]] = {}
    for piece in read.pieces:
        key = (piece.name or NARRATOR).casefold()
        part = read.cast.parts[key]
        new = {"name": piece.name or NARRATOR, "voice": part.voice, "pieces": 0, "seconds": 0.0}
        row = rows.setdefault(key, {**new, "error": read.wrong.get(part.voice or "")})
        row["pieces"] += 1
        row["seconds"] = round(row["seconds"] + piece.seconds, 1)
    return list(rows.values())


def _lines(read: Understood) -> list[dict[str, Any]]:
    pieces: dict[int, list[dict[str, Any]]] = {}
    for piece in read.pieces:
        one = {"key": piece.key, "text": piece.text, "voice": piece.part.voice, "instructions": piece.part.instruct}
        one |= {
            "error": read.wrong.get(piece.part.voice or ""),
            "rate": piece.part.rate,
            "language": piece.part.language or read.language,
            "seed": piece.seed,
        }
        pieces.setdefault(piece.line, []).append({**one, "pause": piece.pause, "seconds": round(piece.seconds, 1)})
    return [
        {
            "line": line.number,
            "name": line.name,
            "text": line.text,
            "heading": line.heading,
            "pieces": pieces[line.number],
        }
        for line in read.script.lines
    ]


async def speech(request: HttpRequest) -> Response:
    """Speak a script: piece by piece, each in its voice and with the pause in front of it, as one sound."""
    server: Server = request.app.state.server
    body = Body(await json_body(request))
    kind = check_format(body.text("response_format", server.settings.default_format) or server.settings.default_format)
    rate = body.whole("sample_rate", 8000, 48000)
    guard = body.flag("guard", server.settings.guard)
    server.engine.check_room()
    asked = asked_for(server, body)
    read = await understand(server, asked)
    if read.wrong:
        piece = next(piece for piece in read.pieces if piece.part.voice in read.wrong)
        raise VoiceNotFound(f"line {piece.line}: {read.wrong[piece.part.voice or '']}", param="voices")
    if body.values and server.settings.strict:
        raise UnsupportedValue(f"not understood: {', '.join(sorted(body.values))} (the server is strict)")
    read.cast.check_model(read.script, server.tts, read.language)
    guarded = [guard and asked.seed is None and piece.key not in asked.seeds for piece in read.pieces]
    requests = await called(server.engine, lambda: _requests(server, read, guarded))
    flow = Flow(kind, server.sample_rate, rate, seal=server.seal)
    origin = labels.origin_of(server, requests, None if asked.seeds else asked.seed or 0)
    flow.open(origin)
    sounds = _sounds(server, read.pieces, requests)
    first = await unless(gone(request), anext(sounds))
    if first is None:
        await sounds.aclose()
        return Response(status_code=499)
    media = CONTENT_TYPES[kind] + (f";rate={flow.rate};channels=1" if kind == "pcm" else "")
    headers = {"x-sample-rate": str(flow.rate), **ignored(body.values), **labels.headers(server, origin)}
    if any(guarded):
        headers["x-guard"] = "on"  # the head is sent before anybody knows
    return StreamingResponse(_encoded(first, sounds, flow), 200, headers, media)


def _requests(server: Server, read: Understood, guarded: list[bool]) -> list[Request]:
    """In the engine's thread. guarded: for each piece, whether what goes wrong in it is spoken again."""
    design = server.tts.model_type == "voice_design"
    voices = Cast(read.cast.parts, lambda name: None if design or name is None else server.voices.named(name))
    plain = Sampling()
    return [
        replace(piece.request(voices, read.language, plain, guard), rate=1.0)
        for piece, guard in zip(read.pieces, guarded, strict=True)
    ]


async def _sounds(server: Server, pieces: list[Piece], requests: list[Request]) -> AsyncGenerator[np.ndarray, None]:
    """The samples of each piece with the pause in front of it, without the silence that it was spoken with."""
    rate = server.sample_rate
    for piece, request in zip(pieces, requests, strict=True):
        async with server.turn, speaking(server.engine, [request], False, piece.seed) as listener:
            parts = [samples async for samples in listener]
        samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        if piece.part.rate != 1.0:
            samples = np.clip(Stretch(rate, piece.part.rate).step(samples, True), -1, 1)
        if samples.size and np.abs(samples).max() >= SILENT:
            samples = trimmed(samples, rate)
        yield np.concatenate([np.zeros(round(piece.pause * rate), np.float32), samples])


async def _encoded(first: np.ndarray, sounds: AsyncIterator[np.ndarray], flow: Flow) -> AsyncIterator[bytes]:
    if data := flow.add(first):
        yield data
    async for samples in sounds:
        if data := flow.add(samples):
            yield data
    yield flow.finish()
