"""The body of a speech request, in OpenAI's words, vLLM's, Kokoro's and ours, to what is to be spoken.

Every field is checked here or by Request and Sampling; what is not understood is named, not refused, as clients add
fields of their own and set some for all servers alike. Runs anywhere: needs no MLX.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..audio.encoding import check_format
from ..errors import InvalidValue, TextTooLong, UnsupportedValue, WrongType
from ..synthesis.pieces import pieces
from ..synthesis.request import NUMBERS, Request, Sampling
from ..voices.voice import Voice
from .answers import Refusal
from .settings import Settings
from .voices import ALIASES

# Names under which clients ask for whatever is there. A request never loads a model.
MODEL_ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15", "kokoro")
SYNONYMS = {
    "speaker": "voice",
    "instruct": "instructions",
    "max_tokens": "max_new_tokens",
    "lang_code": "language",
}
TASKS = {"CustomVoice": "custom_voice", "VoiceDesign": "voice_design", "Base": "base"}
LONGEST_INSTRUCTION = 500  # characters
GLIDE, LONGEST_GLIDE = 0.4, 60.0  # seconds in which a steered voice is there; at most
MOST_TURNS = 100  # of a voice
LEAST_LEAD, MOST_LEAD = 0.2, 60.0  # seconds
SAMPLING = {"greedy", *(f.name for f in NUMBERS)} - {"max_tokens"}


@dataclass(frozen=True)
class Facts:
    """What checking needs to know of the model: its id and kind, how long its vectors are, whether it follows
    instructions, in lower case the languages it knows."""

    model: str
    model_type: str
    dimension: int
    takes_instruct: bool
    languages: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Whose voice, as far as a request says. One of them, or none: the server's usual voice."""

    name: str | None = None
    vector: list[float] | None = None
    recording: bytes | None = None
    url: str | None = None  # of a recording
    ref_text: str | None = None


@dataclass(frozen=True)
class Steer:
    """From a frame of the speech on move to the voice of a name, within so many seconds."""

    frame: int
    voice: str
    seconds: float


@dataclass(frozen=True)
class Asked:
    """A speech request, understood. stream: None, "audio" or "sse"; lead: seconds by which the sound may be ahead of
    its listener, None for any; steering: known from the start; ignored: fields that change nothing."""

    text: str
    source: Source
    format: str
    stream: str | None
    rate: float
    sample_rate: int | None
    seed: int | None
    morph_to: str | None
    options: dict[str, Any] = field(default_factory=dict)
    lead: float | None = None
    steering: tuple[Steer, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def guarded(self) -> bool:
        return bool(self.options.get("guard"))

    def requests(self, voice: Voice | None, morph: Voice | None) -> list[Request]:
        """The Requests, one for each piece of a long text. A voice that changes needs it in one."""
        parts = [self.text] if morph is not None else pieces(self.text, language=self.options.get("language"))
        return [Request(part, voice, morph=morph, **self.options) for part in parts]


class Body:
    """A JSON object whose fields are taken one by one; what is left was not understood."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = {name: value for name, value in values.items() if value is not None}
        for synonym, name in SYNONYMS.items():
            if synonym in self.values:
                self.values.setdefault(name, self.values.pop(synonym))

    def text(self, name: str, default: str | None = None, most: int | None = None) -> str | None:
        value = self.values.pop(name, default)
        if value is not None and not isinstance(value, str):
            raise WrongType(f"{name} must be a string, not {shortened_repr(value)}", param=name)
        if value is not None and most is not None and len(value) > most:
            raise InvalidValue(f"{name} has {len(value)} characters; at most {most} are taken", param=name)
        return value

    def word(self, name: str, known: tuple[str, ...]) -> str | None:
        value = self.text(name)
        if value is not None and value not in known:
            raise InvalidValue(f"{name} {shortened_repr(value)} is not {' or '.join(known)}", param=name)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.pop(name, default)
        if not isinstance(value, bool):
            raise WrongType(f"{name} must be true or false, not {shortened_repr(value)}", param=name)
        return value

    def number(self, name: str, least: float, most: float, default: float | None = None) -> float | None:
        value = self.values.pop(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WrongType(f"{name} must be a number, not {shortened_repr(value)}", param=name)
        if not least <= value <= most:  # false for NaN too
            raise InvalidValue(f"{name} {shortened_repr(value)} is not within {least:g} to {most:g}", param=name)
        return value

    def spelled(self, name: str) -> None:
        """Take a number that comes as a string for one."""
        value = self.values.get(name)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):  # else it is refused as what it is
                self.values[name] = float(value)

    def whole(self, name: str, least: int, most: int) -> int | None:
        value = self.number(name, least, most)
        if value is not None and value != int(value):
            raise WrongType(f"{name} must be an integer, not {value!r}", param=name)
        return None if value is None else int(value)

    def numbers(self, name: str, most: int) -> list[float] | None:
        value = self.values.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, list) or not all(
            isinstance(x, int | float) and not isinstance(x, bool) for x in value
        ):
            raise WrongType(f"{name} must be a list of numbers", param=name)
        if len(value) > most:
            raise InvalidValue(f"{name} has {len(value)} numbers; at most {most} are taken", param=name)
        if not all(-3e38 < x < 3e38 for x in value):  # float32's range; false for NaN too
            raise InvalidValue(f"{name} holds what is not a finite number", param=name)
        return [float(x) for x in value]


def shortened_repr(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def parse(values: Mapping[str, Any], settings: Settings, facts: Facts) -> Asked:
    """What a body asks for. Raises QwenTTSError with the field as `param`."""
    body = Body(values)
    text = body.text("input")
    if text is None:
        raise InvalidValue("input is missing: the text to speak", param="input")
    if len(text) > settings.max_characters:
        message = f"input has {len(text)} characters; this server takes {settings.max_characters} (--max-characters)"
        raise TextTooLong(message, param="input")
    if model := body.text("model"):
        check_model(model, facts, "model")
    ignored: list[str] = []
    source = _source(body, settings, facts, ignored)
    options = _options(body, settings, facts, ignored)
    stream = body.word("stream_format", ("audio", "sse")) or ("sse" if body.flag("stream") else None)
    body.values.pop("stream", None)
    kind = check_format(body.text("response_format", settings.default_format) or settings.default_format)
    body.spelled("speed")  # which older versions of MacPaw/OpenAI send
    rate = body.number("speed", 0.25, 4, 1.0)
    own_rate = body.number("rate", 0.5, 2)
    seed = body.whole("seed", -(2**63), 2**64 - 1)
    asked = Asked(
        text,
        source,
        kind,
        stream,
        (rate or 1.0) if own_rate is None else own_rate,
        body.whole("sample_rate", 8000, 48000),
        None if seed is None else seed % 2**32,
        body.text("morph_to"),
        options,
        body.number("lead", LEAST_LEAD, MOST_LEAD),
        _steering(body),
    )
    if asked.lead is not None and stream is None:
        raise InvalidValue("lead belongs to a stream: send stream_format too", param="lead")
    if asked.steering and asked.morph_to is not None:
        raise InvalidValue("steering and morph_to both move the voice; give one", param="steering")
    _check_morph(body, asked)
    _guard(body, asked, settings)
    ignored += body.values
    if ignored and settings.strict:
        raise UnsupportedValue(f"not understood: {', '.join(sorted(ignored))} (the server is strict)", param=ignored[0])
    return Asked(**{**vars(asked), "ignored": tuple(sorted(ignored))})


def check_model(model: str, facts: Facts, param: str | None = None) -> None:
    """Refuses a name that is not the loaded model's, nor one that means whatever is loaded."""
    if model not in (facts.model, facts.model.rsplit("/", 1)[-1], *MODEL_ALIASES):
        message = f"model {shortened_repr(model)} is not loaded; this server speaks with {facts.model!r}"
        raise Refusal("model_not_found", message, param)


def _source(body: Body, settings: Settings, facts: Facts, ignored: list[str]) -> Source:
    """Vector before recording before a name; a name beside one of them is passed over, as SDKs must send one."""
    vector = body.numbers("speaker_embedding", 8192)
    audio, ref_text = body.text("ref_audio"), body.text("ref_text", most=settings.max_characters)
    only_vector = body.flag("x_vector_only_mode")
    name = body.values.pop("voice", None)
    if isinstance(name, Mapping):
        name = name.get("id")
    if name is not None and not isinstance(name, str):
        raise WrongType(f"voice must be a name or an object with an id, not {shortened_repr(name)}", param="voice")
    if vector is not None and audio is not None:
        raise InvalidValue("speaker_embedding and ref_audio name two voices; give one", param="speaker_embedding")
    if vector is not None and len(vector) != facts.dimension:
        message = f"speaker_embedding has {len(vector)} numbers; {facts.model} takes {facts.dimension}"
        raise InvalidValue(message, param="speaker_embedding")
    if (vector is not None or audio is not None) and name and name not in (*ALIASES, "default"):
        ignored.append("voice")
    if ref_text is not None and audio is None:
        ignored.append("ref_text")
    if vector is not None:
        return Source(vector=vector)
    if audio is not None:
        words = None if only_vector else ref_text or None
        if audio.startswith("data:"):
            return Source(recording=_data_uri(audio), ref_text=words)
        return Source(url=audio, ref_text=words)
    if name is not None and not name.strip():
        raise InvalidValue("voice is empty", param="voice")
    return Source(name=None if name == "default" else name)


def _data_uri(uri: str) -> bytes:
    """The bytes of a data: URI."""
    head, comma, data = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InvalidValue("ref_audio is not a data: URI in base64", param="ref_audio")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise InvalidValue("ref_audio is not valid base64", param="ref_audio") from None


def _options(body: Body, settings: Settings, facts: Facts, ignored: list[str]) -> dict[str, Any]:
    """The other fields of a Request."""
    options: dict[str, Any] = {}
    instruct = body.text("instructions", most=LONGEST_INSTRUCTION)
    if instruct:  # an empty one is none: some clients always send it
        if facts.takes_instruct:
            options["instruct"] = instruct
        else:
            ignored.append("instructions")
    language = body.text("language")
    if language:
        # Kokoro's clients send letters of its own.
        letter = len(language) == 1
        options["language"] = "auto" if letter else language
    layout = body.word("text_mode", ("streaming", "full"))
    if body.flag("non_streaming_mode"):
        layout = "full"
    options["text_mode"] = layout
    task = body.text("task_type")
    if task is not None and TASKS.get(task) != facts.model_type:
        kinds = {kind: name for name, kind in TASKS.items()}
        message = f"task_type {shortened_repr(task)} is not what {facts.model} does, which is {kinds[facts.model_type]}"
        raise UnsupportedValue(message, param="task_type")
    chosen = {name: body.values.pop(name) for name in list(body.values) if name in SAMPLING}
    if (most := body.whole("max_new_tokens", 1, 2**31)) is not None:
        chosen["max_tokens"] = max(2, most)
    options["sampling"] = Sampling(**chosen)
    return options


def _check_morph(body: Body, asked: Asked) -> None:
    seconds, mode = body.number("morph_seconds", 0, 86_400), body.word("morph_mode", ("live", "sentences"))
    if asked.morph_to is None and (seconds is not None or mode is not None):
        raise InvalidValue("morph_seconds and morph_mode belong to morph_to, which is not given", param="morph_to")
    if seconds is not None:
        asked.options["morph_seconds"] = seconds
    if mode is not None:
        asked.options["morph_mode"] = mode


def _guard(body: Body, asked: Asked, settings: Settings) -> None:
    """A speech is guarded where that is asked for, and nothing is that a retry would break."""
    fixed = asked.seed is not None or asked.options["sampling"].max_tokens is not None
    if body.flag("guard", settings.guard) and not fixed and asked.options.get("morph_mode") != "sentences":
        asked.options["guard"] = True


def _steering(body: Body) -> tuple[Steer, ...]:
    """The turns of a voice, each no earlier than the one before."""
    values = body.values.pop("steering", None)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise WrongType("steering must be a list of objects with frame, voice and seconds", param="steering")
    if len(values) > MOST_TURNS:
        raise InvalidValue(f"steering has {len(values)} turns; at most {MOST_TURNS} are taken", param="steering")
    turns: list[Steer] = []
    for value in values:
        turn = Body(value)
        frame, voice = turn.whole("frame", turns[-1].frame if turns else 0, 2**31), turn.text("voice")
        seconds = turn.number("seconds", 0, LONGEST_GLIDE, GLIDE)
        if frame is None or not voice or seconds is None:
            raise InvalidValue("each turn of steering needs a frame and a voice", param="steering")
        turns.append(Steer(frame, voice, seconds))
    return tuple(turns)
