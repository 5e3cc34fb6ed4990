"""What is asked for: a Request, checked when it is made.

A command line, a line of a script, a JSON body and keyword arguments all become one. What depends on the model (its
languages, its context, whether it takes instructions) is checked when the Request meets it, in `prompting`. This
module imports nothing slow, as the commands take their options and help from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypedDict

from .. import checks
from ..errors import InvalidValue, WrongType, naming
from .languages import AUTO
from .text import check_text

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TypeAlias

    import mlx.core as mx
    import numpy as np
    from typing_extensions import Unpack

    from ..voices.voice import Voice

    Vector: TypeAlias = mx.array | np.ndarray
    AudioLike: TypeAlias = str | Path | bytes | tuple[Vector | bytes, int] | Vector
    VoiceLike: TypeAlias = Voice | Vector | str | Path | None
    LogitsProcessor: TypeAlias = Callable[[mx.array, mx.array], mx.array]
    MorphLike: TypeAlias = VoiceLike | Callable[[float], Voice | Vector]

LAYOUTS = ("streaming", "full")  # of the text: a token a frame, or all of it first
MORPH_MODES = ("live", "sentences")
KEEPS = ("none", "norm", "radius")  # what of its parents a blend keeps
RATES = (0.5, 2.0)  # of speaking
LEAST_TOKENS = 2  # for a frame: the last token is never spoken
RETRIES = 2  # of a speech that fails the guard


def _option(kind: type, least: float, most: float | None, explained: str) -> Any:
    return field(default=None, metadata={"kind": kind, "least": least, "most": most, "help": explained})


@dataclass(frozen=True, repr=False)
class Sampling:
    """How codes are drawn. What is None the checkpoint's generation_config.json decides, then the official defaults.

    `greedy`, or temperature 0, takes the most likely code everywhere; the repetition penalty still applies.

    logits_processors: functions f(tokens, logits) -> logits, as in mlx-lm, called in turn in every frame before
    anything else is done to the logits of codebook 0. tokens [frames so far]: the codes 0; logits [1, V] float32.
    subtalker_logits_processors: the same for the code predictor. tokens [1 to codebooks - 1]: the frame's codes so far,
    as many as the number of the codebook to come; logits [1, codebook size]. With either, frames are not compiled.
    """

    greedy: bool = False
    temperature: float | None = _option(float, 0, 100, "of codebook 0; 0 is greedy")
    top_k: int | None = _option(int, 0, None, "0 keeps all")
    top_p: float | None = _option(float, 0, 1, "1 keeps all")
    repetition_penalty: float | None = _option(float, 0, 100, "1 does nothing")
    subtalker_temperature: float | None = _option(float, 0, 100, "of the code predictor; 0 makes it alone greedy")
    subtalker_top_k: int | None = _option(int, 0, None, "0 keeps all")
    subtalker_top_p: float | None = _option(float, 0, 1, "1 keeps all")
    max_tokens: int | None = _option(int, LEAST_TOKENS, None, "N tokens give at most N - 1 frames of 80 ms")
    logits_processors: Sequence[LogitsProcessor] | None = ()
    subtalker_logits_processors: Sequence[LogitsProcessor] | None = ()

    def __repr__(self) -> str:
        given = [f.name for f in fields(self) if getattr(self, f.name) not in (None, f.default)]
        return f"Sampling({', '.join(f'{name}={getattr(self, name)!r}' for name in given)})"

    def __post_init__(self) -> None:
        checks.flag(self.greedy, "greedy")
        for name in PROCESSORS:
            object.__setattr__(self, name, _check_processors(getattr(self, name), name))
        for f in NUMBERS:
            value = getattr(self, f.name)
            if value is not None:
                check = checks.whole if f.metadata["kind"] is int else checks.number
                object.__setattr__(self, f.name, check(value, f.name, f.metadata["least"], f.metadata["most"]))
        for name in ("temperature", "subtalker_temperature"):
            value = getattr(self, name)
            if value and value < 1e-6:  # logits divided by it would overflow float32
                raise InvalidValue(f"{name} {value} is too small; 0 is greedy", param=name)
        for name in ("top_p", "subtalker_top_p", "repetition_penalty"):
            if getattr(self, name) == 0:
                raise InvalidValue(f"{name} must be above 0", param=name)


PROCESSORS = ("logits_processors", "subtalker_logits_processors")
NUMBERS = tuple(f for f in fields(Sampling) if f.metadata)  # with their type, range and help, as the command has them


def _check_processors(functions: Any, name: str) -> tuple[LogitsProcessor, ...]:
    """A list of functions as a tuple; None is an empty one, as in mlx-lm."""
    functions = () if functions is None else functions
    if not isinstance(functions, list | tuple) or not all(callable(function) for function in functions):
        raise WrongType(f"{name} must be a list of functions f(tokens, logits), not {functions!r}", param=name)
    return tuple(functions)


class SamplingOptions(TypedDict, total=False):
    """Sampling as keyword arguments."""

    greedy: bool
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    subtalker_temperature: float | None
    subtalker_top_k: int | None
    subtalker_top_p: float | None
    max_tokens: int | None
    logits_processors: Sequence[LogitsProcessor] | None
    subtalker_logits_processors: Sequence[LogitsProcessor] | None


class Options(SamplingOptions, total=False):
    """The keyword arguments of `generate` and `stream`: a Request's fields, with Sampling's beside them."""

    language: str | None
    instruct: str | None
    text_mode: str | None
    seed: int | None
    sampling: Sampling
    keep: str
    rate: float
    guard: bool | Sequence[int]
    morph: MorphLike
    morph_seconds: float | None
    morph_mode: str


class BatchOptions(SamplingOptions, total=False):
    """The keyword arguments of `generate_batch`: one value for every text, or a list with one for each."""

    languages: str | list[str] | list[str | None] | None
    instructs: str | list[str | None] | None
    text_modes: str | list[str | None] | None
    seeds: int | list[int] | list[int | None] | None
    sampling: Sampling
    keep: str
    rates: float | list[float]
    guard: bool


@dataclass(frozen=True)
class Request:
    """One speech, asked for. Raises WrongType or InvalidValue for what no model could do.

    text: a string, or an iterable of strings that are its pieces, of a text that may still be written. voice: a Voice,
    a vector [D], the name of a file, library voice or preset, a blend expression of these, or None for VoiceDesign.
    language: one of the model's, by name or by code ("en", "zh-CN"); None, "" or "auto" leave it to the model.
    instruct: how to speak, where the model takes it. text_mode: "streaming" (one text token a frame; the default for
    clones and vectors) or "full" (the whole text first; the default for presets and designed voices). seed: 0 to
    2**32 - 1, which makes the speech repeatable; None draws one. keep: what a blend expression keeps of its parents,
    "none", "norm" or "radius" (of the library's voice space).

    rate: how fast it is spoken, 0.5 to 2, at the same pitch. The sound is stretched; the codes stay as they are.

    guard: whether speech that has gone wrong (see `watch`) is spoken again, with the two seeds that follow. It is off
    where a seed or max_tokens is given. A list of seeds turns it on beside a seed: these are the retries'.

    morph: a voice to change into while speaking, evenly over `morph_seconds` (default: what the text should take), or
    a function from the seconds spoken to a vector [D]; `voice` is where it starts. morph_mode: "live" rewrites the
    voice in the talker's cache before every frame; "sentences" begins every sentence anew with the voice of its time,
    which is the stronger way.
    """

    text: str | Iterable[str]
    voice: VoiceLike = None
    language: str | None = AUTO
    instruct: str | None = None
    text_mode: str | None = None
    seed: int | None = None
    sampling: Sampling = Sampling()
    keep: str = KEEPS[0]
    rate: float = 1.0
    guard: bool | Sequence[int] = False
    morph: MorphLike = None
    morph_seconds: float | None = None
    morph_mode: str = MORPH_MODES[0]

    def __post_init__(self) -> None:
        if not self.live:
            check_text(self.text)
        if not isinstance(self.language, str | None):
            raise WrongType(f"language must be a string, not {self.language!r}", param="language")
        if not (self.language and self.language.strip()):
            object.__setattr__(self, "language", AUTO)
        if not isinstance(self.instruct, str | None) or self.instruct:
            check_text(self.instruct, "instruction", "instruct")
        if self.text_mode is not None:
            checks.word(self.text_mode, "text_mode", LAYOUTS)
        if self.seed is not None:
            object.__setattr__(self, "seed", check_seed(self.seed))
        if not isinstance(self.sampling, Sampling):
            raise WrongType(f"sampling must be a Sampling, not {self.sampling!r}", param="sampling")
        checks.word(self.keep, "keep", KEEPS)
        if self.keep != KEEPS[0] and not any(isinstance(voice, str) for voice in (self.voice, self.morph)):
            raise InvalidValue("keep belongs to a blend expression, and the voice is not one", param="keep")
        object.__setattr__(self, "rate", checks.number(self.rate, "rate", *RATES))
        self._check_morph()
        if isinstance(self.guard, list | tuple):
            object.__setattr__(self, "guard", tuple(map(check_seed, self.guard)))
        elif not isinstance(self.guard, bool):
            raise WrongType(f"guard must be true, false or a list of seeds, not {self.guard!r}", param="guard")
        if self.guard and self.morph_mode == "sentences":
            raise InvalidValue("guard cannot retry morph_mode 'sentences'; leave one of the two out", param="guard")

    def _check_morph(self) -> None:
        checks.word(self.morph_mode, "morph_mode", MORPH_MODES)
        if self.morph is None:
            if self.morph_seconds is not None or self.morph_mode != MORPH_MODES[0]:
                raise InvalidValue("morph_seconds and morph_mode belong to morph, which is not given", param="morph")
            return
        if self.live and self.morph_mode == "sentences":
            raise InvalidValue("morph_mode 'sentences' needs the whole text at once, not in pieces", param="morph_mode")
        if callable(self.morph):
            if self.morph_seconds is not None:
                message = "morph_seconds belongs to a morph into a voice; a function knows its own times"
                raise InvalidValue(message, param="morph_seconds")
        elif self.morph_seconds is not None:
            object.__setattr__(self, "morph_seconds", checks.number(self.morph_seconds, "morph_seconds", above=0))
        elif self.live:
            message = "the length of a text in pieces is not known: give morph_seconds"
            raise InvalidValue(message, param="morph_seconds")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Request):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def retries(self, seed: int) -> tuple[int, ...] | None:
        """The seeds of further attempts after one with `seed`; None where the guard is off."""
        if not self.guard or self.sampling.max_tokens is not None:
            return None
        if isinstance(self.guard, bool):
            return None if self.seed is not None else following_seeds(seed)
        return tuple(self.guard)

    @property
    def live(self) -> bool:
        """Whether the text comes in pieces."""
        pieces = isinstance(self.text, Iterable) and not isinstance(self.text, str | bytes | bytearray | Mapping)
        return pieces and not hasattr(self.text, "shape")  # which an array has


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; arrays are where all their elements are."""
    if not hasattr(one, "shape") and not hasattr(other, "shape"):
        return one == other
    alike = type(one) is type(other) and one.shape == other.shape
    return alike and bool((one == other).all())


def check_seed(seed: object) -> int:
    """Seeds are the first word of the noise's key: integers of 32 bits."""
    return checks.whole(seed, "seed", 0, 2**32 - 1)


def following_seeds(seed: int) -> tuple[int, ...]:
    """The seeds of retries."""
    return tuple((seed + number) % 2**32 for number in range(1, RETRIES + 1))


def as_request(text: str | Iterable[str] | Request, voice: VoiceLike = None, **options: Unpack[Options]) -> Request:
    """The Request of keyword arguments, or the one that is given as `text`, to which nothing can be added."""
    if isinstance(text, Request):
        if voice is not None or options:
            raise InvalidValue("a Request has its voice and options already; give them when making it", param="text")
        return text
    own: dict[str, Any] = dict(options)
    return Request(text, voice, sampling=_take_sampling(own), **own)


def as_requests(
    texts: list[str] | list[Request], voices: object = None, **options: Unpack[BatchOptions]
) -> list[Request]:
    """The Requests of `generate_batch`; an error names the text it is about."""
    if isinstance(texts, str) or not isinstance(texts, list | tuple | range):
        raise WrongType(f"texts must be a list, not {type(texts).__name__}", param="texts")
    if not texts:
        raise InvalidValue("texts is empty", param="texts")
    if any(isinstance(text, Request) for text in texts):
        if voices is not None or options or not all(isinstance(text, Request) for text in texts):
            raise InvalidValue("texts are strings with options, or Requests, which have theirs already", param="texts")
        return list(texts)  # pyright: ignore[reportReturnType]  (all are Requests)
    own: dict[str, Any] = dict(options)
    sampling = _take_sampling(own)
    names = {"voices": "voice", "languages": "language", "instructs": "instruct", "text_modes": "text_mode"}
    names |= {"seeds": "seed", "rates": "rate"}
    shared = {name: own.pop(name) for name in ("keep", "guard") if name in own}
    columns = {"voices": voices, **own}
    for name in columns:
        if name not in names:
            raise TypeError(f"generate_batch() got an unexpected keyword argument {name!r}")
    rows = {names[name]: _each(values, name, len(texts)) for name, values in columns.items()}
    requests = []
    for number, text in enumerate(texts):
        with naming(f"text {number + 1}"):
            own = {**shared, **{name: values[number] for name, values in rows.items()}}
            requests.append(Request(text, sampling=sampling, **own))  # pyright: ignore[reportArgumentType]  (a string)
    return requests


def _take_sampling(options: dict[str, Any]) -> Sampling:
    """Take the sampling values out of keyword arguments."""
    given = {f.name: options.pop(f.name) for f in fields(Sampling) if f.name in options}
    whole = options.pop("sampling", None)
    if whole is not None and given:
        raise InvalidValue(f"sampling and {next(iter(given))} are both given; give one", param="sampling")
    return Sampling(**given) if whole is None else whole


def _each(values: object, name: str, count: int) -> list[Any]:
    """A list of `count` values from a list, or from one value for all."""
    if not isinstance(values, list | tuple | range):
        return [values] * count
    checks.length(values, count, name, "texts")
    return list(values)
