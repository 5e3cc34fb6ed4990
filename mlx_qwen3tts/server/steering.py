"""POST /v1/audio/speech/{id}/steer: another voice for a speech that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from ..errors import InvalidValue
from .asking import GLIDE, LONGEST_GLIDE, Body
from .jobs import Job, Over
from .speaking import called
from .speech import json_body

if TYPE_CHECKING:
    from ..voices.voice import Voice
    from .app import Server


class Speeches:
    """The speeches that are under way, by the x-request-id that their clients were told."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    @contextmanager
    def holding(self, number: str, job: Job) -> Iterator[None]:
        """Have a job found as long as the block lasts. Where clients choose ids, a later one takes over an id."""
        self._jobs[number] = job
        try:
            yield
        finally:
            if self._jobs.get(number) is job:
                del self._jobs[number]

    def job(self, number: str) -> Job:
        """The job of an id; Over where nothing is spoken under it."""
        if number not in self._jobs:
            raise Over("no speech is under way with this x-request-id", param="id")
        return self._jobs[number]


async def steer(request: HttpRequest) -> JSONResponse:
    """Move the voice of a running speech."""
    server: Server = request.app.state.server
    body = Body(await json_body(request))
    name, vector = body.text("voice"), body.numbers("speaker_embedding", server.facts.dimension)
    seconds = body.number("seconds", 0, LONGEST_GLIDE, GLIDE)
    assert seconds is not None, "it has a default"
    if (name is None) == (vector is None):
        raise InvalidValue("give one of voice and speaker_embedding", param="voice")
    job = server.speeches.job(request.path_params["id"])

    def voice() -> Voice:
        return server.voices.of_vector(vector) if vector is not None else server.voices.named(str(name))

    target = await called(server.engine, voice)
    frame = await asyncio.wrap_future(server.engine.steer(job, target, seconds))
    told = {"object": "audio.speech.steer", "id": request.path_params["id"], "frame": frame, "seconds": seconds}
    return JSONResponse({**told, "at": round(frame * server.tts.codec.samples_per_frame / server.sample_rate, 3)})
