"""The page /browser, on which the speaker encoder runs in the browser: the encoder as ONNX, its runtime, and voices to
compare with.

A recording stays in the page: all that is served here is only read. The same files make a folder for any web server.
"""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, JSONResponse, Response

from ..checkpoint.speaker_onnx import build
from ..networks.speaker.encoder import SpeakerEncoder
from ..voices.lookup import fingerprint
from ..voices.space import FEWEST, VoiceSpace
from ..voices.voice import Voice
from .answers import Refusal
from .pages import TYPES, file_response
from .speaking import called

if TYPE_CHECKING:
    from .app import Server

RUNTIME = Path(__file__).parent / "runtime"  # `make browser` puts onnxruntime-web there
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
RUNTIME_TYPES = {".mjs": TYPES[".js"], ".wasm": "application/wasm"}
ENCODER, ABOUT = "encoder.onnx", "about.json"
PAGE = "browser.html"


def has_runtime() -> bool:
    return all((RUNTIME / name).is_file() for name in RUNTIME_FILES)


def missing(encoder: bool) -> list[str]:
    """What the page lacks, in words that it knows; encoder: whether the model has one."""
    there = {"encoder": encoder, "onnx": importlib.util.find_spec("onnx") is not None, "runtime": has_runtime()}
    return [name for name, found in there.items() if not found]


def about(model: str, source: str, encoder: SpeakerEncoder, voices: Iterable[Voice]) -> dict[str, Any]:
    """What the page is told: what the encoder takes, the voices, and the space to compare them in, where there are
    enough of them.

    model: its name for people; source: its name in a voice's metadata. Voices of another dimension, and of somebody who
    refused, are left out.
    """
    fitting = [one for one in voices if one.dimension == encoder.dimension and one.consent != "refused"]
    space = None
    if len(fitting) >= FEWEST:
        vectors = mx.stack([one.embedding for one in fitting])
        if np.ptp(np.array(vectors), axis=0).any():
            space = VoiceSpace.fit(vectors)
    return {
        "model": model,
        "source_model": source,
        "dimension": encoder.dimension,
        "bands": encoder.bands,
        "least_samples": encoder.shortest[1],
        "space": None if space is None else {"mean": encoded(space.mean), "count": space.count},
        "fewest": FEWEST,
        "voices": [card(one) for one in fitting],
    }


def card(voice: Voice) -> dict[str, Any]:
    """What the page is told of a voice."""
    return {
        "name": voice.name,
        "vector": encoded(voice.embedding),
        "fingerprint": fingerprint(voice.embedding),
        "source_model": voice.source_model,
        "consent": voice.consent,
        "license": voice.license,
    }


def encoded(vector: mx.array) -> str:
    """Its float32 numbers, little-endian, in base64: exact, and a third of what JSON makes of them."""
    return base64.b64encode(np.array(vector).astype("<f4").tobytes()).decode()


class Browser:
    """The page's files that a server makes of its model."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._model: bytes | None = None

    def about(self) -> dict[str, Any]:
        """about.json. In the engine's thread."""
        tts, voices = self.server.tts, self.server.voices
        lacks = missing(tts.folder.speaker_encoder is not None)
        told = {"model": self.server.model, "missing": lacks, "studio": True}
        if lacks:
            return told
        found = {name: voices.lookup.named(name) for name in voices.names}
        named = [one.replace(name=name) for name, one in found.items() if one is not None]
        return {**about(self.server.model, tts.folder.folder.name, tts.speaker_encoder, named), **told}

    def model(self) -> bytes:
        """encoder.onnx, made when it is first asked for. In the engine's thread."""
        if self._model is None:
            source = self.server.tts.folder.folder.name
            self._model = build(self.server.tts.speaker_encoder, source, from_mel=True).SerializeToString()
        return self._model


async def page(request: HttpRequest) -> Response:
    """The page."""
    return file_response(request, PAGE)


async def part(request: HttpRequest) -> Response:
    """What the page computes with."""
    server: Server = request.app.state.server
    name = request.path_params["name"]
    if name == ABOUT:
        return JSONResponse(await called(server.engine, server.browser.about))
    if name == ENCODER:
        return Response(await called(server.engine, server.browser.model), media_type="application/octet-stream")
    if name in RUNTIME_FILES and (RUNTIME / name).is_file():
        return FileResponse(RUNTIME / name, media_type=RUNTIME_TYPES[Path(name).suffix])
    raise Refusal("not_found", f"there is no {name!r} here")
