"""The pages / and /browser and what they are made of: plain files of the package, served under a strict policy."""

from __future__ import annotations

import functools
import gzip
import re
from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, Response

from .answers import Refusal

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'self'; script-src 'self'; connect-src 'self'; media-src 'self' blob:; "
    "img-src 'self' data:; frame-ancestors 'none'; object-src 'none'; base-uri 'none'; form-action 'self'"
)
# The worker of /browser runs WebAssembly; a worker has the policy of its own file.
WASM_POLICY = POLICY.replace("script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'")
WASM = ("embedder.js",)
WORDS, WORDS_OF = re.compile(r"(?:(\w+)-)?[a-z]{2}\.json"), "words.js"
NAMED = re.compile(r"[\w-]+\.(?:js|css)")  # a file that another one names
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
}


def file_response(request: HttpRequest, name: str) -> Response:
    """A file of the static folder by its plain name, compressed where the client takes that; nothing else of this
    machine has one."""
    path = STATIC / name
    if path not in STATIC.iterdir() or path.suffix not in TYPES:
        raise Refusal("not_found", f"there is no page {name!r}")
    headers = {"content-security-policy": WASM_POLICY if name in WASM else POLICY}
    headers["vary"] = "accept-encoding"
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return FileResponse(path, media_type=TYPES[path.suffix], headers=headers)
    headers["content-encoding"] = "gzip"
    return Response(packed(path, path.stat().st_mtime_ns), media_type=TYPES[path.suffix], headers=headers)


@functools.lru_cache(maxsize=100)
def packed(path: Path, changed: int) -> bytes:
    """A file, compressed. changed: when it was."""
    return gzip.compress(path.read_bytes(), mtime=0)


def parts(name: str) -> list[str]:
    """The files of the static folder that a page is made of, itself first: what it names, what these name, and its
    words in every language."""
    there = {path.name for path in STATIC.iterdir()}
    found, waiting = [], [name]
    while waiting:
        part = waiting.pop(0)
        if part in there and part not in found:
            found.append(part)
            waiting += NAMED.findall((STATIC / part).read_text("utf-8"))
    words = [(file, said) for file in sorted(there) if (said := WORDS.fullmatch(file))]
    return found + [file for file, said in words if WORDS_OF in found and (not said[1] or f"{said[1]}.js" in found)]


async def page(request: HttpRequest) -> Response:
    """The page."""
    return file_response(request, "index.html")


async def static(request: HttpRequest) -> Response:
    """A part of the page."""
    return file_response(request, request.path_params["name"])


async def openapi(request: HttpRequest) -> Response:
    """The OpenAPI document."""
    return file_response(request, "openapi.json")
