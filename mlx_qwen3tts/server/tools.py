"""The tools that language models call: a Model Context Protocol server whose tools are requests to the HTTP server.

The tools know no voices themselves. `Ask` carries each request to a server: the one in whose process they run, or
another one. So names, rights and limits are the same as over HTTP, and a name is never a path.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from .. import __version__
from ..audio.formats import CONTENT_TYPES
from ..errors import InvalidValue, OutputError, QwenTTSError, TextTooLong, UnsupportedValue, WrongType
from ..files.json_text import json_text
from ..files.output import whole_file
from ..voices.expression import Name, Sum
from .answers import Refusal
from .asking import Body, shortened_repr
from .shaping import LONGEST

MOST_TEXT = 4096  # characters of a call: clients wait for a minute or so
MOST_SOUND = 700_000  # bytes of sound in a result: clients take no message of more than 1 MiB, and this is base64
MOST_LISTED = 100  # voices, unless more are asked for
NAME = r"[a-zA-Z0-9_-]{1,64}"  # of tools, and of the voices that are kept by one
FORMATS = ("mp3", "wav", "flac", "opus")
INSTRUCTIONS = """\
Speech in voices that are vectors. A voice is a name from list_voices, or an expression over names:
"anna*0.7 + ben*0.3" mixes two, "anna + 1.5*@pitch" moves one along a direction. speak returns the sound and the path of
its file."""


class Answer(NamedTuple):
    """status, headers (lower case), body of an HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Ask(Protocol):
    """Has a request answered by a server: method, path, the JSON of its body. Cancelled, nobody wants the answer."""

    def __call__(self, method: str, path: str, values: Mapping[str, Any] | None = None) -> Awaitable[Answer]: ...


@dataclass(frozen=True)
class Described:
    """A tool: how a client calls it, and the function that answers."""

    tool: types.Tool
    call: Callable[[Tools, Body], Awaitable[tuple[list[types.ContentBlock], dict[str, Any]]]]


class Tools:
    """The tools over one server. folder: where the sound is kept, made when there is the first."""

    def __init__(self, ask: Ask, folder: Path) -> None:
        self.ask, self.folder = ask, folder.expanduser()

    async def json(self, method: str, path: str, values: Mapping[str, Any] | None = None) -> Any:
        """The JSON of an answer. What the server refuses is raised in its own words."""
        return json.loads((await self.answer(method, path, values)).body)

    async def answer(self, method: str, path: str, values: Mapping[str, Any] | None = None) -> Answer:
        given = None if values is None else {name: value for name, value in values.items() if value is not None}
        answer = await self.ask(method, path, given)
        if answer.status == 200:
            return answer
        try:
            error = json.loads(answer.body)["error"]
            code, message = str(error["code"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            code, message = "server_error", f"the server answered with status {answer.status}"
        raise Refusal(code, message)

    async def speak(self, body: Body) -> tuple[list[types.ContentBlock], dict[str, Any]]:
        text, kind = body.text("text"), body.word("format", FORMATS) or "mp3"
        if text is None:
            raise InvalidValue("text is missing: what to speak", param="text")
        if len(text) > MOST_TEXT:
            message = f"text has {len(text)} characters; a call takes {MOST_TEXT}, so speak it in parts"
            raise TextTooLong(message, param="text")
        # Models fill in what they need not: an empty string is nothing.
        values = {name: body.text(name) or None for name in ("voice", "language", "instructions")}
        more = {"speed": body.number("speed", 0.25, 4), "seed": body.whole("seed", 0, 2**32 - 1)}
        finish(body)
        asked = {"input": text, "response_format": kind, **values, **more}
        answer = await self.answer("POST", "/v1/audio/speech", asked)
        path = await asyncio.to_thread(self.keep, answer.body, "ogg" if kind == "opus" else kind)
        told = {
            "path": str(path),
            "seconds": await asyncio.to_thread(seconds, answer.body),
            "seed": int(answer.headers["x-seed"]),
            "finish_reason": answer.headers.get("x-finish-reason"),
        }
        if ignored := answer.headers.get("x-ignored"):
            told["ignored"] = ignored
        if len(answer.body) > MOST_SOUND:
            told["note"] = f"the sound has {len(answer.body)} bytes, too many for a message; it is in the file"
            return [], told
        sound = base64.b64encode(answer.body).decode()
        return [types.AudioContent(data=sound, mime_type=CONTENT_TYPES[kind])], told

    def keep(self, sound: bytes, suffix: str) -> Path:
        """The file that sound was written to, under a name of its own."""
        path = self.folder / f"speech-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}.{suffix}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self.folder}: {error.strerror or error}") from None
        with whole_file(path) as temporary:
            temporary.write_bytes(sound)
        return path.absolute()

    async def list_voices(self, body: Body) -> tuple[list[types.ContentBlock], dict[str, Any]]:
        part, most = (body.text("contains") or "").casefold(), body.whole("limit", 1, 1000) or MOST_LISTED
        finish(body)
        cards = (await self.json("GET", "/v1/audio/voices"))["data"]
        found = [one for one in cards if "alias_of" not in one and part in one["name"].casefold()]
        directions = (await self.json("GET", "/v1/audio/directions"))["data"]
        shown = [{name: one[name] for name in CARD if one.get(name)} for one in found[:most]]
        return [], {"voices": shown, "total": len(found), "directions": [one["factor"] for one in directions]}

    async def blend(self, body: Body) -> tuple[list[types.ContentBlock], dict[str, Any]]:
        expression, weights = body.text("expression", most=LONGEST), body.values.pop("voices", None)
        directions = body.values.pop("directions", None)
        finish(body)
        if (expression is None) == (weights is None):
            raise InvalidValue("give one of expression and voices", param="voices")
        if expression is None:
            terms = [*terms_of(weights, "voices", False), *terms_of(directions or {}, "directions", True)]
            if not terms:
                raise InvalidValue("voices is empty", param="voices")
            expression = str(Sum(tuple(terms)))
        elif directions is not None:
            raise InvalidValue("directions go with voices; an expression names its own", param="directions")
        read = await self.json("POST", "/v1/audio/expressions", {"expression": expression})
        if read["error"] is not None:
            raise Refusal(str(read["error"]["code"]), str(read["error"]["message"]))
        alike = await self.json("POST", "/v1/audio/voices/search", {"voice": expression, "k": 3})
        return [], {"expression": expression, "terms": read["terms"], "alike": alike}

    async def save_voice(self, body: Body) -> tuple[list[types.ContentBlock], dict[str, Any]]:
        name, voice = body.text("name") or "", body.text("voice", most=LONGEST)
        keep, overwrite = body.word("keep", ("none", "norm", "radius")), body.flag("overwrite")
        finish(body)
        if not plain(name):
            message = f"name {shortened_repr(name)} may have letters a-z, digits, _ and -, 64 at most"
            raise InvalidValue(message, param="name")
        if voice is None:
            raise InvalidValue("voice is missing: a name or an expression", param="voice")
        asked = {"expression": voice, "keep": keep, "name": name, "overwrite": overwrite}
        # First as `speak` would find it, which refuses what may not be spoken.
        read = await self.json("POST", "/v1/audio/expressions", {"expression": voice})
        if read["error"] is not None:
            raise Refusal(str(read["error"]["code"]), str(read["error"]["message"]))
        await self.json("POST", "/v1/audio/voices/combine", asked)
        card = await self.json("GET", f"/v1/audio/voices/{quote(name)}")
        return [], {name: card[name] for name in (*CARD, "recipe") if card.get(name)}

    async def search_voices(self, body: Body) -> tuple[list[types.ContentBlock], dict[str, Any]]:
        like, where = body.text("like", most=LONGEST), body.values.pop("where", None)
        k, lowest = body.whole("k", 1, 100) or 5, body.flag("lowest")
        finish(body)
        if like is None:
            raise InvalidValue("like is missing: a voice, an expression or a @direction", param="like")
        asked = {"voice": like, "k": k, "where": where, "lowest": lowest}
        return [], {"voices": await self.json("POST", "/v1/audio/voices/search", asked)}


CARD = ("name", "language", "consent", "license", "attributes", "preset")


def finish(body: Body) -> None:
    """Refuses arguments that a tool does not know."""
    if body.values:
        raise UnsupportedValue(f"there is no argument {', '.join(sorted(body.values))}", param=min(body.values))


def plain(name: str) -> bool:
    return 0 < len(name) <= 64 and all(char.isascii() and (char.isalnum() or char in "_-") for char in name)


def terms_of(weights: object, what: str, direction: bool) -> list[tuple[float, Name]]:
    """The terms of an expression, from an object of names and weights."""
    if not isinstance(weights, Mapping):
        raise WrongType(f"{what} must be an object, a weight for each name, not {shortened_repr(weights)}", param=what)
    made = []
    for name in weights:
        number = Body(weights).number(name, -1e6, 1e6)
        if number is None or not name:
            raise WrongType(f"{what}: {shortened_repr(name)} has no weight", param=what)
        made.append((number, Name(name.removeprefix("@") if direction else name, direction)))
    return made


def seconds(sound: bytes) -> float:
    """How long a sound is."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(sound)) as file:
        return round(file.frames / file.samplerate, 2)


def described(
    name: str,
    text: str,
    fields: Mapping[str, Any],
    required: tuple[str, ...],
    changes: bool = False,
    replaces: bool = False,
) -> Described:
    """A tool; changes: whether it leaves something behind; replaces: whether that may take the place of something."""
    schema = {"type": "object", "properties": dict(fields), "required": list(required), "additionalProperties": False}
    hints = {"read_only_hint": not changes, "destructive_hint": replaces, "open_world_hint": False}
    annotations = types.ToolAnnotations.model_validate(hints)
    tool = types.Tool(name=name, description=text, input_schema=schema, annotations=annotations)
    return Described(tool, getattr(Tools, name))


def words(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": text, **more}


VOICE = words("a voice's name, or an expression such as anna*0.7 + ben*0.3; unset, the usual voice")
WEIGHTS = {"type": "object", "additionalProperties": {"type": "number"}}
DESCRIBED = (
    described(
        "speak",
        "Speak a text. Returns the sound, and the path of the file that it is kept in.",
        {
            "text": words(f"what to say, {MOST_TEXT} characters at most", maxLength=MOST_TEXT),
            "voice": VOICE,
            "language": words("a name or a code, such as English or pt-BR; unset, the model finds out"),
            "instructions": words("how to speak, where the model follows instructions"),
            "speed": {"type": "number", "minimum": 0.25, "maximum": 4, "description": "1 is the voice's own pace"},
            "seed": {"type": "integer", "minimum": 0, "description": "makes the speech repeatable"},
            "format": {"type": "string", "enum": list(FORMATS), "default": "mp3"},
        },
        ("text",),
        changes=True,
    ),
    described(
        "list_voices",
        "The voices that there are, and the directions along which a voice can be moved.",
        {
            "contains": words("only names with this in them"),
            "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": MOST_LISTED},
        },
        (),
    ),
    described(
        "blend",
        "Mix voices: says what a mixture is made of and which voices it is like. Nothing is kept; give the expression "
        "that comes back to speak or save_voice.",
        {
            "voices": {**WEIGHTS, "description": "a weight for each voice's name; they need not sum to one"},
            "directions": {**WEIGHTS, "description": "how far to move along each direction"},
            "expression": words("instead of both, such as anna*0.7 + ben*0.3 - 1*@pitch"),
        },
        (),
    ),
    described(
        "save_voice",
        "Keep a voice, or a mixture of voices, in the library under a name.",
        {
            "name": words("letters a-z, digits, _ and -", pattern=f"^{NAME}$"),
            "voice": words("the expression, or a voice's name to copy"),
            "keep": {"type": "string", "enum": ["none", "norm", "radius"], "description": "what a mixture keeps"},
            "overwrite": {"type": "boolean", "default": False, "description": "replace a voice of that name"},
        },
        ("name", "voice"),
        changes=True,
        replaces=True,
    ),
    described(
        "search_voices",
        "Find the voices that are most like one, or that score highest along a direction such as @pitch.",
        {
            "like": words("a voice's name, an expression, or a @direction"),
            "k": {"type": "integer", "minimum": 1, "maximum": 100, "default": 5},
            "lowest": {"type": "boolean", "default": False, "description": "begin at the other end"},
            "where": {"type": "object", "description": "only voices with these attributes, such as {gender: female}"},
        },
        ("like",),
    ),
)


def server(tools: Tools) -> Server[Any]:
    """The Model Context Protocol server of the tools, for whatever transport."""
    known = {one.tool.name: one.call for one in DESCRIBED}

    async def list_tools(
        context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[one.tool for one in DESCRIBED])

    async def call_tool(
        context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        if params.name not in known:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {shortened_repr(params.name)}")
        try:
            content, told = await known[params.name](tools, Body(params.arguments or {}))
        except QwenTTSError as error:
            text = types.TextContent(text=" ".join(str(error).split()))
            return types.CallToolResult(content=[text], is_error=True)
        text = types.TextContent(text=json_text(told))
        return types.CallToolResult(content=[*content, text], structured_content=told)

    return Server(
        "mlx_qwen3tts",
        version=__version__,
        title="Qwen3-TTS",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
