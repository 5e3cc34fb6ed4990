"""The voices over HTTP: list, keep, read, describe, delete, combine, search, embed. MLX runs in the engine's thread."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ..errors import InvalidValue, NameTaken, QwenTTSError, VoiceNotFound, WrongType
from ..voices.library.library import Library
from ..voices.library.names import check_attribute, check_name
from ..voices.library.rights import CONSENT
from ..voices.lookup import Offset
from ..voices.metadata import STRINGS
from ..voices.voice import Voice
from .answers import Refusal, error_response
from .asking import Body, shortened_repr
from .designing import designed
from .speaking import called, in_turns
from .speech import gone, json_body
from .voices import Recording
from .waiting import unless

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .app import Server

MOST_VOICES = 1000  # that clients may keep
MOST_UPLOAD = 10 << 20  # bytes
FIELDS = 12
MOST_TAGS, LONGEST_TAG = 32, 200  # attributes of a voice; characters of one's name, and of its value
FORMATS = {"safetensors": "application/octet-stream", "npy": "application/octet-stream", "json": "application/json"}


def card(server: Server, name: str) -> dict[str, Any]:
    """What a client is told of a voice."""
    voices, made = server.voices, server.started
    holder = voices.kept_in(name)
    own = holder is voices.library
    if holder is not None:
        info = holder.info(name)
        if own:
            made = holder.path(name).stat().st_mtime
    else:
        voice = voices.named(name)
        info = {"dimension": voice.dimension, "in_context": voice.ref_codes is not None, "metadata": voice.metadata}
        info["attributes"] = dict(voice.attributes)
    told = info.get("metadata", {})
    found: dict[str, Any] = {
        "id": name,
        "object": "audio.voice",
        "name": name,
        "type": "custom" if own else "preset",
        "created_at": int(made),
        "language": told.get("language"),
        "consent": told.get("consent"),
        "license": told.get("license"),
        "attributes": info.get("attributes", {}),
        "dimension": info["dimension"],
        "has_reference": bool(info.get("in_context")),
        "preset": not own,
    }
    if info.get("recipe"):
        found["recipe"] = info["recipe"]
    return found


def shelf(server: Server, as_strings: bool) -> dict[str, Any]:
    """All voices, in the shapes that the clients of four servers look for."""
    cards = []
    for name in server.voices.names:
        with suppress(VoiceNotFound, FileNotFoundError):  # another program has deleted it since
            cards.append(card(server, name))
    names = [one["name"] for one in cards]
    aliases = [{"id": alias, "name": alias, "alias_of": voice} for alias, voice in server.voices.aliases().items()]
    listed: list[Any] = [*names, *(alias["id"] for alias in aliases)] if as_strings else [*cards, *aliases]
    more = {"names": names, "uploaded_voices": [one for one in cards if not one["preset"]]}
    return {"object": "list", "voices": listed, "data": [*cards, *aliases], **more}


async def voices(request: HttpRequest) -> Response:
    """List the voices, or keep one."""
    server: Server = request.app.state.server
    if request.method == "POST":
        return await keep(request)
    as_strings = server.settings.voices_as_strings or request.query_params.get("legacy") == "true"
    return JSONResponse(await called(server.engine, lambda: shelf(server, as_strings)))


@asynccontextmanager
async def form(request: HttpRequest) -> AsyncIterator[tuple[Body, bytes | None]]:
    """The fields of a multipart form, and the one file in it."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refusal("media_type", "send a multipart/form-data body")
    try:
        async with request.form(max_files=1, max_fields=FIELDS, max_part_size=1 << 20) as fields:
            texts: dict[str, Any] = {}
            data: bytes | None = None
            for name, value in fields.multi_items():
                if isinstance(value, UploadFile):
                    data = await value.read(MOST_UPLOAD + 1)
                    if len(data) > MOST_UPLOAD:
                        raise Refusal("payload_too_large", f"the file is larger than {MOST_UPLOAD >> 20} MB", name)
                elif name in texts:
                    raise InvalidValue(f"{name} is given twice", param=name)
                else:
                    texts[name] = value
            yield Body(texts), data
    except HTTPException as error:  # how Starlette says that a form is malformed or too large
        raise InvalidValue(f"the form cannot be read: {error.detail}") from None


async def decoded(data: bytes | None) -> Recording | None:
    """The recording in a form, decoded where nobody waits for it."""
    return None if data is None else await asyncio.to_thread(Recording.read, data)


async def keep(request: HttpRequest) -> JSONResponse:
    """Keep a voice made of a recording, a vector or words."""
    server: Server = request.app.state.server
    async with form(request) as (body, data):
        name = check_name(body.text("name") or "")
        consent, consent_id = body.text("consent"), None
        if consent is None:
            raise InvalidValue(f"consent is missing: one of {', '.join(CONSENT)}", param="consent")
        if consent not in CONSENT:
            consent, consent_id = "given", consent
        vector, prompt = body.text("speaker_embedding"), body.text("prompt", most=2000)
        if sum(given is not None for given in (data, vector, prompt)) != 1:
            raise InvalidValue("give one of audio_sample, speaker_embedding and prompt", param="audio_sample")
        ref_text, language = body.text("ref_text"), body.text("language")
        told = {"language": language, "license": body.text("license"), "description": body.text("speaker_description")}
        seed = whole(body, "seed")
        overwrite = flag(body, "overwrite")
        attributes = {"consent": consent, "consent_id": consent_id, **told}
    library = server.voices.library
    recording = await decoded(data)

    def make(designed: Voice | None = None) -> dict[str, Any]:
        check_room(server, name, overwrite)
        if designed is not None:
            voice = designed
        elif recording is not None:
            voice = server.voices.of_recording(recording, ref_text or None)
        else:
            voice = server.voices.of_vector(numbers(str(vector), server.tts.embedding_dim))
        entered = {key: value for key, value in attributes.items() if value is not None}
        with placeless(library):
            library.add(name, voice, overwrite=overwrite, **entered)
        return {**card(server, name), "warnings": list(voice.notes)}

    if prompt is None:
        made = await called(server.engine, make)
    else:
        await called(server.engine, lambda: check_room(server, name, overwrite))  # before a model speaks for it
        voice = await unless(gone(request), designed(server, prompt, language or "auto", seed))
        if voice is None:
            return JSONResponse({}, 499)  # nobody reads it
        made = await called(server.engine, lambda: make(voice))
    return JSONResponse({"success": True, "voice": made, **made})


def check_room(server: Server, name: str, overwrite: bool) -> None:
    """Refuses a voice too many, and a name that is taken."""
    library = server.voices.library
    if len(library) >= MOST_VOICES and name not in library:
        raise InvalidValue(f"the library has {MOST_VOICES} voices, which is all it takes this way", param="name")
    if name in library and not overwrite:
        raise NameTaken(f"voice {name!r} is kept already; send overwrite=true to replace it", param="name")


def whole(body: Body, name: str) -> int | None:
    """A field of a form that is a seed."""
    value = body.text(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 10 and int(value) < 2**32):
        raise InvalidValue(f"{name} must be an integer of 0 to 4294967295, not {shortened_repr(value)}", param=name)
    return int(value)


def flag(body: Body, name: str, default: str = "false") -> bool:
    """A field of a form that is true or false."""
    value = body.text(name, default)
    if value not in ("true", "false"):
        raise WrongType(f"{name} must be true or false, not {value!r}", param=name)
    return value == "true"


def numbers(text: str, dimension: int) -> list[float]:
    """The list of numbers of a form's field, as many as the model's vectors have."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidValue("speaker_embedding is not a JSON list", param="speaker_embedding") from None
    vector = Body({"speaker_embedding": values}).numbers("speaker_embedding", 8192)
    if vector is None or len(vector) != dimension:
        count = 0 if vector is None else len(vector)
        raise InvalidValue(
            f"speaker_embedding has {count} numbers; the model takes {dimension}", param="speaker_embedding"
        )
    return vector


@contextmanager
def placeless(library: Library) -> Iterator[None]:
    """Errors of a library without the folder that it is in, which is nobody's business."""
    try:
        yield
    except QwenTTSError as error:
        error.args = tuple(str(part).replace(f"library {library.folder}", "the library") for part in error.args)
        error.args = tuple(part.replace(str(library.folder), library.folder.name) for part in error.args)
        raise


async def voice(request: HttpRequest) -> Response:
    """Read a voice, as metadata or as its file, change what is said of it, or delete it."""
    server: Server = request.app.state.server
    name = request.path_params["name"]
    try:
        with placeless(server.voices.library):
            return await one_voice(request, name)
    except VoiceNotFound as error:
        response = error_response(error, 404)
        if request.method != "DELETE":
            return response
        return JSONResponse({"success": False, **json.loads(bytes(response.body))}, 404)


async def one_voice(request: HttpRequest, name: str) -> Response:
    server: Server = request.app.state.server
    if request.method == "PATCH":
        return await describe(request, name)
    if request.method == "DELETE":
        await called(server.engine, lambda: server.voices.library.remove(known(server, name)))
        done = {"message": f"voice {name!r} is deleted", "id": name, "object": "audio.voice", "deleted": True}
        return JSONResponse({"success": True, **done})
    kind = request.query_params.get("format")
    if kind is None:
        return JSONResponse(await called(server.engine, lambda: card(server, found(server, name))))
    return await called(server.engine, lambda: voice_file(server.voices.named(found(server, name)), kind))


async def describe(request: HttpRequest, name: str) -> JSONResponse:
    """Enter consent, licence, language and attributes of a voice; null takes one away, and what is not named stays."""
    server: Server = request.app.state.server
    given = await json_body(request)
    body, entered = Body(given), dict[str, str | None]()
    for key in ("consent", "license", "language"):
        if key in given:
            entered[key] = value = body.text(key, most=LONGEST_TAG)
            if value is not None and not (value.strip() and value.isprintable()):
                raise InvalidValue(f"{key} {shortened_repr(value)} is not text", param=key)
    if "consent" in entered and entered["consent"] not in CONSENT:
        raise InvalidValue(f"consent must be one of {', '.join(CONSENT)}", param="consent")
    tags = check_tags(body.values.pop("attributes", {}))
    if unknown := sorted(body.values):
        raise InvalidValue(f"{unknown[0]} cannot be changed this way", param=unknown[0])
    library = server.voices.library

    def enter() -> dict[str, Any]:
        known(server, name, "changed")
        after = {**library.info(name)["attributes"], **tags}
        if sum(value is not None for value in after.values()) > MOST_TAGS:
            raise InvalidValue(f"a voice has at most {MOST_TAGS} attributes", param="attributes")
        with placeless(library):
            if library.path(name).suffix == ".safetensors":
                library.tag(name, **entered, **tags)
            else:  # a file that holds a vector alone
                library.add(name, library[name], overwrite=True, **entered, **tags)
        return card(server, name)

    return JSONResponse(await called(server.engine, enter))


def check_tags(values: object) -> dict[str, str | None]:
    """{attribute: its value, None to take it away}, of names and values that are plain text."""
    if not isinstance(values, Mapping):
        raise WrongType(f"attributes must be an object, not {shortened_repr(values)}", param="attributes")
    for key, value in values.items():
        if not key or key != key.strip() or not key.isprintable() or len(key) > LONGEST_TAG or set(key) & set("=,"):
            message = f"attribute {shortened_repr(key)}: its name may not be empty, have more than {LONGEST_TAG}"
            raise InvalidValue(f"{message} characters, nor have = , or spaces around it", param="attributes")
        check_attribute(key)
        if key in STRINGS:
            raise InvalidValue(f"{key} is not an attribute: it has a field of its own", param="attributes")
        if value is not None and not (isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_TAG):
            message = f"attribute {key} must be a text of at most {LONGEST_TAG} characters or null"
            raise WrongType(f"{message}, not {shortened_repr(value)}", param="attributes")
    return dict(values)


def known(server: Server, name: str, done: str = "deleted") -> str:
    """A name of the library; what the model brings along cannot be deleted, or whatever else is `done`."""
    if name in server.voices.library:
        return name
    if name in server.voices.names:
        raise InvalidValue(f"voice {name!r} comes with the model and cannot be {done}", param="name")
    raise VoiceNotFound(f"voice {name!r} is not here", param="name")


def found(server: Server, name: str) -> str:
    """A name that is a voice's, not an expression or an alias."""
    if name not in server.voices.names:
        raise VoiceNotFound(f"voice {name!r} is not here", param="name")
    return name


def voice_file(voice: Voice, kind: str) -> Response:
    """A voice as a file. Rights and recipe go along in a .safetensors alone."""
    if kind not in FORMATS:
        raise InvalidValue(f"format {kind!r} is not one of {', '.join(FORMATS)}", param="format")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"voice.{kind}"
        voice.save(path)
        return Response(path.read_bytes(), media_type=FORMATS[kind])


async def combine(request: HttpRequest) -> Response:
    """A blend: "a+b" or ["a", "b"] in equal parts, or {"expression", "keep", "name"}. With a name it is kept."""
    server: Server = request.app.state.server
    values = await json_body(request, (str, list, dict))
    if isinstance(values, list):
        if not values or not all(isinstance(name, str) for name in values):
            raise WrongType("the voices must be a list of names")
        values = {"expression": " + ".join(quoted(name) for name in values)}
    elif isinstance(values, str):
        values = {"expression": values if "*" in values or "@" in values else " + ".join(values.split("+"))}
    body = Body(values)
    expression, keep, name = body.text("expression"), body.word("keep", ("none", "norm", "radius")), body.text("name")
    overwrite = body.flag("overwrite")
    if not expression:
        raise InvalidValue("expression is missing", param="expression")

    def make() -> Response:
        made = server.voices.blend(expression, keep or "none")
        if name is None:
            return voice_file(made, "safetensors")
        check_room(server, check_name(name), overwrite)
        with placeless(server.voices.library):
            server.voices.library.add(name, made, overwrite=overwrite)
        return JSONResponse({"success": True, "voice": card(server, name)})

    return await called(server.engine, make)


def quoted(name: str) -> str:
    """A name as an expression takes it."""
    return '"' + name + '"'


async def search(request: HttpRequest) -> JSONResponse:
    """The voices that are most like a voice, a vector or a recording, or that score highest along a direction."""
    server: Server = request.app.state.server
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        async with form(request) as (body, data):
            pass
    else:
        body, data = Body(await json_body(request)), None
    name, k = body.text("voice"), body.values.pop("k", 5)
    if isinstance(k, str) and k.isdigit() and len(k) < 6:
        k = int(k)
    k = Body({"k": k}).whole("k", 1, 1000) or 5
    where, lowest = body.values.pop("where", None), flag(body, "lowest") if data else body.flag("lowest")
    if where is not None and not isinstance(where, Mapping):
        raise WrongType("where must be an object of attributes", param="where")
    packs = flag(body, "packs", "true") if data else body.flag("packs", True)
    vector = body.numbers("speaker_embedding", 8192)
    if sum(given is not None for given in (data, vector, name)) != 1:
        raise InvalidValue("give one of voice, speaker_embedding and a recording", param="voice")
    recording = await decoded(data)

    def find() -> Generator[None, None, list[dict[str, Any]]]:
        voices, own = server.voices, None  # own: a kept voice's name, which is no news
        query: Voice | Offset
        if recording is not None:
            query = voices.of_recording(recording)
        elif vector is not None:
            query = voices.of_vector(vector)
        else:
            own = voices.aliases().get(str(name), str(name))
            query = voices.lookup.find(own)
        with placeless(voices.library):
            found = yield from voices.roster.searching(query, k + 1, where, lowest, packs)
        return [{"name": name, "score": score} for name, score in found if name != own][:k]

    return JSONResponse(await in_turns(server.engine, find()))


async def embedding(request: HttpRequest) -> JSONResponse:
    """The vector of a recording."""
    server: Server = request.app.state.server
    async with form(request) as (_, data):
        if data is None:
            raise InvalidValue("the form has no file", param="file")
    recording = await asyncio.to_thread(Recording.read, data)

    def embed() -> dict[str, Any]:
        vector = np.array(server.voices.of_recording(recording).embedding)
        norm = float(np.linalg.norm(vector))
        return {"embedding": [float(x) for x in vector], "dim": vector.size, "norm": norm}

    return JSONResponse(await called(server.engine, embed))
