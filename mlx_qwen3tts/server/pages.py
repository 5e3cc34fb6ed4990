"""The page at / and what it is made of: plain files of the package, served under a strict policy."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, Response

from .answers import Refusal

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; media-src 'self' blob:; "
    "img-src 'self' data:; frame-ancestors 'none'; object-src 'none'; base-uri 'none'; form-action 'self'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
}


def file_response(name: str) -> Response:
    """A file of the static folder by its plain name; nothing else of this machine has one."""
    path = STATIC / name
    if path.parent != STATIC or path.suffix not in TYPES or not path.is_file():
        raise Refusal("not_found", f"there is no page {name!r}")
    return FileResponse(path, media_type=TYPES[path.suffix], headers={"content-security-policy": POLICY})


async def page(request: HttpRequest) -> Response:
    """The page."""
    return file_response("index.html")


async def static(request: HttpRequest) -> Response:
    """A part of the page."""
    return file_response(request.path_params["name"])


async def openapi(request: HttpRequest) -> Response:
    """The OpenAPI document."""
    return file_response("openapi.json")
