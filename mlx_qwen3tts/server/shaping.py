"""What a page needs to shape a voice: directions with what they were shown to do, and the terms of an expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from ..errors import InvalidValue, QwenTTSError
from ..voices.directions.direction import Direction
from ..voices.expression import ExpressionError, Name, Sum, parse
from .answers import error_body
from .asking import Body
from .speaking import called
from .speech import json_body

if TYPE_CHECKING:
    from .app import Server

LONGEST = 4000  # characters of an expression
WEAKEST = 0.3  # correlation on voices left out; with less a direction hardly predicts its label
TWO_LABELS = 1.5  # radii either way where the labels have no sizes
FURTHEST = 3.0  # radii


def reach(direction: Direction) -> float:
    """How far a slider goes either way, in radii: as far as the voices lie apart that the direction was learnt from."""
    report = direction.report
    if not report.per_radius or "most" not in report.labels:
        return TWO_LABELS
    span = (report.labels["most"] - report.labels["least"]) / abs(report.per_radius)
    return round(min(FURTHEST, max(0.05, span)), 2)


def proven(direction: Direction) -> bool:
    """Whether it told voices apart that it was not learnt from, better than guessing."""
    report = direction.report
    if report.correlation is not None:
        return report.correlation >= WEAKEST
    return report.accuracy is not None and report.accuracy > (report.chance or 0.0)


def direction_card(name: str, direction: Direction) -> dict[str, Any]:
    """What a client is told of a direction."""
    report, limit = direction.report, reach(direction)
    return {
        "id": name,
        "object": "audio.direction",
        "name": name,
        "factor": str(Name(name, direction=True)),
        "positive": direction.positive,
        "negative": direction.negative,
        "method": direction.method,
        "range": [-limit, limit],
        "proven": proven(direction),
        "n": report.n,
        "groups": report.groups,
        "scored": report.scored,
        "right": report.right,
        "accuracy": report.accuracy,
        "chance": report.chance,
        "correlation": report.correlation,
        "split_half": report.split_half,
        "per_radius": report.per_radius,
        "report": str(report),
    }


async def directions(request: HttpRequest) -> JSONResponse:
    """The directions that move a voice here, with their reports."""
    server: Server = request.app.state.server

    def listed() -> list[dict[str, Any]]:
        made = []
        for name in server.voices.directions:
            direction = server.voices.lookup.direction(name)
            if direction.dimension == server.tts.embedding_dim:
                made.append(direction_card(name, direction))
        return made

    return JSONResponse({"object": "list", "data": await called(server.engine, listed)})


def terms(text: str, names: list[str]) -> list[dict[str, Any]]:
    """The terms of an expression, or the one voice that it names; names: of all voices."""
    found = Sum(((1.0, Name(text)),)) if text in names else parse(text)
    listed = []
    for weight, what in found.terms:
        voice = isinstance(what, Name)
        card = {"weight": weight, "factor": str(what) if voice else f"({what})", "name": what.name if voice else None}
        listed.append({**card, "kind": "group" if not voice else "direction" if what.direction else "voice"})
    return listed


async def expressions(request: HttpRequest) -> JSONResponse:
    """Read an expression: its terms, or what is wrong with it and where."""
    server: Server = request.app.state.server
    text = Body(await json_body(request)).text("expression", most=LONGEST)
    if text is None:
        raise InvalidValue("expression is missing", param="expression")

    def read() -> JSONResponse:
        try:
            server.voices.named(text)
            known = [*server.voices.names, *server.voices.aliases()]
            return JSONResponse({"expression": text, "terms": terms(text, known), "error": None})
        except QwenTTSError as error:  # what was asked is answered all the same: nothing is wrong with the request
            place = error.place if isinstance(error, ExpressionError) else 0
            wrong = {**error_body(error, 400)["error"], "place": place}
            return JSONResponse({"expression": text, "terms": None, "error": wrong})

    return await called(server.engine, read)
