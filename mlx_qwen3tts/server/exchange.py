"""A library as one zip over HTTP, out and in. What comes in is looked through before anything of it is unpacked."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ..errors import InvalidValue, NameTaken, WrongType, shortened
from ..voices.library.archive import Limits, unpacking
from .asking import Body
from .shelf import MOST_VOICES, flag, form, known, placeless
from .speaking import called, in_turns
from .speech import json_body

if TYPE_CHECKING:
    from .app import Server

# A voice with a minute of reference codes has 50 kB.
LIMITS = Limits(2 * MOST_VOICES, 1 << 20, 64 << 20, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
ENTRY = b"PK\x01\x02"  # before every entry of an archive's list of contents
MOST_DIRECTIONS = 200


async def export(request: HttpRequest) -> Response:
    """The library as `voices export` writes it: all of it, or the voices that are named."""
    server: Server = request.app.state.server
    body = Body(await json_body(request))
    names = body.values.pop("voices", None)
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise WrongType("voices must be a list of names", param="voices")
    library = server.voices.library

    def pack() -> bytes:
        with placeless(library):
            chosen = library.names if names is None else [known(server, n, "exported") for n in dict.fromkeys(names)]
        if not chosen:
            raise InvalidValue("there is no voice to export: the library has none of its own", param="voices")
        if len(chosen) > MOST_VOICES:
            message = f"{len(chosen)} voices are more than the {MOST_VOICES} that are exported at once; name fewer of"
            raise InvalidValue(f"{message} them, or use `voices export` where the library is", param="voices")
        with tempfile.TemporaryDirectory() as folder, placeless(library):
            path = Path(folder) / "voices.zip"
            library.export(path, names and chosen)
            return path.read_bytes()

    return Response(await called(server.engine, pack), media_type="application/zip")


async def take_in(request: HttpRequest) -> JSONResponse:
    """Take in what `export` gave: all of it or, where something in it does not belong there, nothing."""
    server: Server = request.app.state.server
    async with form(request) as (body, data):
        overwrite = flag(body, "overwrite")
    if data is None:
        raise InvalidValue("the form has no file", param="archive")
    # The list of contents is read as a whole when the archive is opened, whatever it says of its length.
    if data.count(ENTRY) > LIMITS.files:
        raise InvalidValue(f"the archive has more than {LIMITS.files} files", param="archive")
    library = server.voices.library

    done: dict[str, Any] = {}

    def unpack() -> Generator[None, None, None]:
        with placeless(library), unpacking(io.BytesIO(data), "the archive", LIMITS) as packed:
            taken = [name for name in packed.names if name in library]
            if taken and not overwrite:
                message = f"the library has {shortened(taken, 5)} already; send overwrite=true to replace what it has"
                raise NameTaken(message, param="overwrite")
            if len(library) + len(packed.names) - len(taken) > MOST_VOICES:
                raise InvalidValue(f"the library would have more than {MOST_VOICES} voices", param="archive")
            if len({*library.directions, *packed.directions}) > MOST_DIRECTIONS:
                raise InvalidValue(f"the library would have more than {MOST_DIRECTIONS} directions", param="archive")
            yield from packed.steps(library, overwrite)
            done.update(success=True, voices=packed.names, directions=packed.directions)

    await in_turns(server.engine, unpack())
    return JSONResponse(done)
