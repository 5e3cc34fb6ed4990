"""The map of the voices over HTTP.

What is asked of the voices runs in the engine's thread; the components are NumPy's work and are found beside it, one
map at a time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from ..errors import InvalidValue, WrongType
from ..voices.library.snapshot import Snapshot
from ..voices.maps.projection import principal
from ..voices.voice import Voice
from .asking import Body
from .speaking import called
from .speech import json_body

if TYPE_CHECKING:
    from .app import Server

MOST_MAPPED = 2000  # voices
KEPT = 8  # maps
LONGEST = 4000  # characters of an axis


class Maps:
    """The maps that were drawn of the voices of one moment. `alone` is held while one is drawn."""

    def __init__(self) -> None:
        self.alone = asyncio.Lock()
        self._of: Snapshot | None = None
        self._drawn: dict[tuple[str | None, ...], dict[str, Any]] = {}

    def get(self, snapshot: Snapshot, axes: tuple[str | None, ...]) -> dict[str, Any] | None:
        return self._drawn.get(axes) if snapshot is self._of else None

    def keep(self, snapshot: Snapshot, axes: tuple[str | None, ...], drawn: dict[str, Any]) -> None:
        if snapshot is not self._of or len(self._drawn) >= KEPT:
            self._of, self._drawn = snapshot, {}
        self._drawn[axes] = drawn


async def draw(request: HttpRequest) -> JSONResponse:
    """The voices in two dimensions: their first two principal components, or scores along two directions."""
    server: Server = request.app.state.server
    body = Body(await json_body(request))
    axes = body.text("x", most=LONGEST), body.text("y", most=LONGEST)
    if (axes[0] is None) != (axes[1] is None):
        raise InvalidValue("x and y come together", param="x" if axes[0] is None else "y")
    voices, maps = server.voices, server.maps

    def gather() -> tuple[Snapshot, list[str], np.ndarray, list[mx.array] | None]:
        searcher = voices.roster.searcher()
        names = list(searcher.snapshot.entries)
        if not names:
            raise InvalidValue("there is no voice to draw")
        columns = []
        for name, text in zip(("x", "y"), axes, strict=True):
            found = None if text is None else voices.lookup.find(text)
            if isinstance(found, Voice):
                raise WrongType(f"{name} must be a direction, @NAME; {text!r} is a voice", param=name)
            if found is not None:
                columns.append(voices.roster.scores(found)[1])
        if columns:
            mx.eval(columns)
        matrix = searcher.snapshot.matrices[voices.roster.dimension]
        # Every so many where they are too many: names that follow each other are alike in more than their names.
        chosen = np.linspace(0, len(names) - 1, min(len(names), MOST_MAPPED)).round().astype(int)
        points = np.stack([np.array(column) for column in columns], 1) if columns else np.array(matrix)
        return searcher.snapshot, [names[i] for i in chosen], points[chosen], columns or None

    async with maps.alone:
        snapshot, names, points, scored = await called(server.engine, gather)
        drawn = maps.get(snapshot, axes)
        if drawn is None:
            shares: tuple[float | None, float | None] = (None, None)
            if scored is None:
                points, shares = await asyncio.to_thread(principal, points)
            places = np.round(points.astype(np.float64), 4).tolist()
            listed = [{"name": name, "x": x, "y": y} for name, (x, y) in zip(names, places, strict=True)]
            shown = [{"direction": text, "share": share} for text, share in zip(axes, shares, strict=True)]
            drawn = {"object": "audio.map", "axes": shown, "voices": listed, "total": len(snapshot.entries)}
            maps.keep(snapshot, axes, drawn)
    return JSONResponse(drawn)
