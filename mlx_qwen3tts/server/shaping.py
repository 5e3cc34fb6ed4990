"""What a page needs to shape a voice: directions with what they were shown to do, new ones from labelled voices, and
the terms of an expression."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ..errors import DirectionNotFound, InvalidValue, NameTaken, QwenTTSError, VoiceNotFound, WrongType
from ..voices.directions.direction import Direction
from ..voices.directions.report import Report
from ..voices.expression import ExpressionError, Name, Sum, parse
from ..voices.library.names import check_name
from .answers import error_body, error_response
from .asking import Body, shortened_repr
from .speaking import called
from .speech import json_body

if TYPE_CHECKING:
    from .app import Server

LONGEST = 4000  # characters of an expression
WEAKEST = 0.3  # correlation on voices left out; with less a direction hardly predicts its label
TWO_LABELS = 1.5  # radii either way where the labels have no sizes
FURTHEST = 3.0  # radii
CHANCE = 0.05  # that guessing does as well, at most
FEWEST, MOST = 4, 100  # voices of a fit: with fewer nothing is left to be left out; more keep speech waiting
FEWEST_EACH = 2  # of two labels, or one that is left out leaves none
LONGEST_LABEL = 40  # characters
MOST_DIRECTIONS = 200  # that clients may keep


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
    better = report.accuracy is not None and report.accuracy > (report.chance or 0.0)
    return better or ranks(report)


def ranks(report: Report) -> bool:
    """Whether it finds the one positive voice of a group that it was not learnt from better than guessing: no single
    threshold may fit all speakers, and yet each is moved the right way."""
    if report.first is None or not report.groups:
        return False
    (won, tried), guess = report.first, report.groups / report.n
    ways = (math.comb(tried, k) * guess**k * (1 - guess) ** (tried - k) for k in range(won, tried + 1))
    return sum(ways) <= CHANCE


def direction_card(name: str, direction: Direction, own: bool) -> dict[str, Any]:
    """What a client is told of a direction; own: whether the library has it, so that it can be deleted."""
    report, limit = direction.report, reach(direction)
    return {
        "id": name,
        "object": "audio.direction",
        "name": name,
        "own": own,
        "factor": str(Name(name, direction=True)),
        "positive": direction.positive,
        "negative": direction.negative,
        "method": direction.method,
        "range": [-limit, limit],
        "proven": proven(direction),
        "n": report.n,
        "labels": report.labels,
        "groups": report.groups,
        "scored": report.scored,
        "right": report.right,
        "accuracy": report.accuracy,
        "chance": report.chance,
        "correlation": report.correlation,
        "first": report.first,
        "failures": report.failures,
        "split_half": report.split_half,
        "per_radius": report.per_radius,
        "report": str(report),
    }


async def directions(request: HttpRequest) -> JSONResponse:
    """The directions that move a voice here, with their reports, or a new one."""
    if request.method == "POST":
        return await fit(request)
    server: Server = request.app.state.server

    def listed() -> list[dict[str, Any]]:
        own, found = server.voices.library.directions, server.voices.read_directions()
        return [
            direction_card(name, direction, name in own)
            for name, direction in found.items()
            if direction.dimension == server.tts.embedding_dim
        ]

    return JSONResponse({"object": "list", "data": await called(server.engine, listed)})


async def fit(request: HttpRequest) -> JSONResponse:
    """Learn a direction from voices and a label each. With a name it is kept."""
    server: Server = request.app.state.server
    body = Body(await json_body(request))
    labels = check_labels(body.values.pop("labels", None))
    groups = check_groups(body.values.pop("groups", None), labels)
    positive, name = body.text("positive", most=LONGEST_LABEL), body.text("name")
    overwrite = body.flag("overwrite")
    numeric = not isinstance(next(iter(labels.values())), str)
    if positive is not None and numeric:
        raise InvalidValue("positive is one of two labels, and these are numbers", param="positive")
    if not numeric:
        check_sides(list(labels.values()), positive)
    name = None if name is None else check_name(name)

    def make() -> dict[str, Any]:
        library, known = server.voices.library, set(server.voices.names)
        if unknown := [one for one in labels if one not in known]:
            raise VoiceNotFound(f"voice {shortened_repr(unknown[0])} is not here", param="labels")
        if name is not None and name in library.directions and not overwrite:
            raise NameTaken(f"direction {name!r} is kept already; send overwrite=true to replace it", param="name")
        if name is not None and len(library.directions) >= MOST_DIRECTIONS:
            message = f"the library has {MOST_DIRECTIONS} directions, which is all it takes this way"
            raise InvalidValue(message, param="name")
        method = "correlation" if numeric and len(set(labels.values())) > 2 else "mean"
        voices = [server.voices.named(one) for one in labels]
        try:
            direction = Direction.fit(
                voices, list(labels.values()), method=method, positive=positive, groups=groups, names=list(labels)
            )
        except QwenTTSError as error:
            error.param = error.param if error.param == "positive" else "labels"
            raise
        if direction.dimension != server.tts.embedding_dim:
            message = f"the voices have {direction.dimension} dimensions, this model takes {server.tts.embedding_dim}"
            raise InvalidValue(message, param="labels")
        if name is not None:
            library.add_direction(name, direction, overwrite)
        return {**direction_card(name or "new", direction, name is not None), "kept": name is not None}

    return JSONResponse(await called(server.engine, make))


async def forget(request: HttpRequest) -> Response:
    """Delete a direction of the library."""
    server: Server = request.app.state.server
    name = request.path_params["name"]

    def remove() -> Response:
        voices = server.voices
        if name in voices.library.directions:
            voices.library.remove_direction(name)
            return JSONResponse({"id": name, "object": "audio.direction", "deleted": True})
        if name in voices.directions:
            message = f"direction {shortened_repr(name)} comes with the model and cannot be deleted"
            return error_response(InvalidValue(message, param="name"))
        return error_response(DirectionNotFound(f"direction {shortened_repr(name)} is not here", param="name"), 404)

    return await called(server.engine, remove)


def check_labels(value: object) -> dict[str, Any]:
    """{a voice's name: its label}, words or numbers, as many as a fit takes."""
    if not isinstance(value, Mapping):
        raise WrongType("labels must be an object: a label for each voice's name", param="labels")
    labels = {str(name): label for name, label in value.items() if label is not None}
    numbers = [isinstance(label, int | float) and not isinstance(label, bool) for label in labels.values()]
    if not (all(numbers) or all(isinstance(label, str) and label.strip() for label in labels.values())):
        raise WrongType("labels must be all words or all numbers", param="labels")
    if not FEWEST <= len(labels) <= MOST:
        raise InvalidValue(f"{len(labels)} voices have a label; {FEWEST} to {MOST} are taken", param="labels")
    if all(numbers):
        return {name: Body({"label": label}).number("label", -1e9, 1e9) for name, label in labels.items()}
    labels = {name: label.strip() for name, label in labels.items()}
    if long := next((label for label in labels.values() if len(label) > LONGEST_LABEL), None):
        message = f"label {shortened_repr(long)} has {len(long)} characters; at most {LONGEST_LABEL} are taken"
        raise InvalidValue(message, param="labels")
    return labels


def check_groups(value: object, labels: Mapping[str, Any]) -> list[str | tuple[str]] | None:
    """The group of each labelled voice, from {a voice's name: a group}, or None where nobody has one. A voice that is
    not named there is a group of its own."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise WrongType("groups must be an object: a group for each voice's name", param="groups")
    groups: dict[str, str] = {}
    for name, group in value.items():
        if name not in labels:
            raise InvalidValue(f"voice {shortened_repr(name)} has a group and no label", param="groups")
        if not isinstance(group, str) or not group.strip():
            raise WrongType(f"groups must be words, not {shortened_repr(group)}", param="groups")
        if len(group) > LONGEST_LABEL:
            message = f"group {shortened_repr(group)} has {len(group)} characters; at most {LONGEST_LABEL} are taken"
            raise InvalidValue(message, param="groups")
        groups[name] = group.strip()
    return [groups.get(name, (name,)) for name in labels] if groups else None


def check_sides(labels: list[str], positive: str | None) -> None:
    """Enough voices on both sides; a side that has none is the fit's own to refuse."""
    sides = labels if positive is None else [label if label == positive else f"not {positive}" for label in labels]
    for side in sorted(set(sides)) if len(set(sides)) == 2 else ():
        if sides.count(side) < FEWEST_EACH:
            message = f"label {side!r} has {sides.count(side)} voice; {FEWEST_EACH} are needed on each side"
            raise InvalidValue(message, param="labels")


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
