"""From a Request to an Utterance: what this model can be asked, and the prompts of what it is asked."""

from __future__ import annotations

import functools
import secrets
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import mlx.core as mx

from ..checkpoint.codec import Codec
from ..checkpoint.vocabulary import Vocabulary
from ..errors import QwenTTSError, TextTooLong, UnsupportedValue
from ..networks.config import ModelConfig
from ..networks.process import enter
from ..networks.talker import Talker
from ..provenance.origin import Origin
from ..voices.voice import Voice
from .decoding import Part, Utterance
from .languages import language_name
from .live import Feed, LiveText
from .morph import FRAMES_PER_TOKEN, Morph, path, timed
from .prompt import Prompt, Text, build_prompt, language_tags
from .request import LEAST_TOKENS, Request
from .sampling import GenerationConfig
from .text import check_text, split_sentences
from .tokenizer import TextTokenizer
from .watch import Attempt, Attempts, Letters, Watch, silent_codes

if TYPE_CHECKING:
    from .morph import VoiceAt
    from .request import VoiceLike


class Notes(list[str]):
    """What was said about one speech, each thing once. `warn` adds to it and, unless they are quiet, warns as Python
    does."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__()
        self.quiet = quiet

    def warn(self, message: str) -> None:
        if message in self:
            return
        self.append(message)
        if not self.quiet:
            warnings.warn(message, stacklevel=4)


@dataclass
class Plan:
    """A Request that this model has accepted. drawn: the seed it begins with; codebooks: of its frames; notes: grow
    while it is spoken; text: all of it, as far as it has come; voice: that was meant, None where the model designs it;
    positions: of its prompt; rate: of speaking; model: its name; heard: the voices, each with the instruction that
    designs it where it is None; said: the text, None where it comes in pieces."""

    utterance: Utterance
    drawn: int
    config: GenerationConfig
    notes: Notes
    codebooks: int
    text: Text
    voice: Voice | None = None
    rate: float = 1.0
    model: str = ""
    heard: tuple[tuple[Voice | None, str | None], ...] = ()
    said: str | None = None

    @property
    def origin(self) -> Origin:
        """Where its speech comes from. The seed is certain from the first sound on."""
        return Origin.of(self.model, self.heard, self.seed, self.said)

    @property
    def seed(self) -> int:
        """The seed it is spoken with, which a retry changes."""
        return self.utterance.part.seed if self.utterance.attempts else self.drawn

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Those of a guarded speech that are over."""
        return tuple(self.utterance.attempts.made) if self.utterance.attempts else ()

    @property
    def failed(self) -> str | None:
        """What the guard found wrong with what is heard, a key of `watch.CHECKS`."""
        return self.utterance.attempts.failed if self.utterance.attempts else None

    @property
    def positions(self) -> int:
        return self.utterance.part.prompt.embeddings.shape[0]


class Planner:
    """Makes Utterances of Requests. Refuses what the model cannot be asked."""

    def __init__(
        self,
        talker: Talker,
        config: ModelConfig,
        tokenizer: TextTokenizer,
        codec: Codec,
        sampling: GenerationConfig,
        resolve: Callable[[VoiceLike, Notes, str], Voice | None],
        name: str,
    ) -> None:
        """sampling: the model's defaults; resolve: from what a Request has as its voice, and its `keep`, to the Voice;
        name: the model's, for messages and tags."""
        self.talker, self.config, self.tokenizer, self.codec = talker, config, tokenizer, codec
        self.sampling, self.resolve, self.name = sampling, resolve, name
        known = config.vocabulary
        self.vocabulary = known and Vocabulary(known.words, known.punctuation)

    @property
    def takes_instruct(self) -> bool:
        """Whether the model follows instructions: VoiceDesign and 1.7B CustomVoice do."""
        return self.config.takes_instruct

    def plan(self, request: Request, schedule: Sequence[int], notes: Notes | None = None, capped: bool = False) -> Plan:
        """The Plan of a Request. schedule: as of Utterance; notes: what is said about it is added there; capped: where
        max_tokens are more than the model has positions for, take what there are instead of refusing them."""
        enter()
        config, notes = self.sampling.sampled(request.sampling), Notes() if notes is None else notes
        seed = secrets.randbits(32) if request.seed is None else request.seed
        voice, letters = self._voice(request, "voice", notes), Letters()
        room = LEAST_TOKENS if capped else config.max_tokens
        prompt = self.prompt(request, voice, room, notes, letters)
        if capped:
            room = self.config.talker.max_position_embeddings - prompt.embeddings.shape[0]
            config = replace(config, max_tokens=min(config.max_tokens, room))
        context = None if voice is None or voice.ref_codes is None else voice.ref_codes.astype(mx.int32)
        part, following = Part(prompt, seed, config), None
        heard: list[Voice | None] = [voice]
        if request.morph is not None:
            part, following = self._changing(request, voice, part, notes, heard)
        utterance = Utterance(part, following, schedule, context)
        retries = request.retries(seed)
        if retries is not None:
            silent = self.silent
            utterance.attempts = Attempts(lambda last: Watch(prompt.text, letters, silent, last), retries)
            utterance.part = part._replace(watch=utterance.attempts.watch())
        elif request.guard:
            given = "seed" if request.sampling.max_tokens is None else "max_tokens"
            notes.warn(f"the guard is off, as {given} is given")
        return Plan(
            utterance,
            seed,
            config,
            notes,
            self.codec.num_codebooks,
            prompt.text,
            voice,
            request.rate,
            self.name,
            tuple((one, request.instruct) for one in heard),
            request.text if isinstance(request.text, str) else None,
        )

    def _voice(self, request: Request, param: str, notes: Notes) -> Voice | None:
        """The Voice that the parameter `param` means."""
        try:
            return self.resolve(getattr(request, param), notes, request.keep)
        except QwenTTSError as error:
            if error.param in (None, "voice"):
                error.param = param
            raise

    @functools.cached_property
    def silent(self) -> frozenset[int]:
        """The codes 0 of silence."""
        return silent_codes(self.codec)

    def prompt(
        self,
        request: Request,
        voice: Voice | None,
        max_tokens: int = 0,
        notes: Notes | None = None,
        letters: Letters | None = None,
    ) -> Prompt:
        """The talker's Prompt for a Request and the Voice that it means.

        Of a text in pieces as many are pulled as the prompt needs. max_tokens: positions that must be free behind it;
        letters: counts those of the text.
        """
        enter()
        notes, letters = Notes() if notes is None else notes, Letters() if letters is None else letters
        language = self._check(request)
        told = {} if voice is None else voice.other
        preset, dialect = "preset" in told, told.get("dialect") if "preset" in told else None
        if dialect and dialect not in self.config.talker.codec_language_id:
            message = f"the voice speaks {dialect!r}, which this model does not know; name another voice"
            raise UnsupportedValue(message, param="voice")
        role, ids, live = self._text(request, notes, letters)
        layout = request.text_mode or ("full" if voice is None or preset else "streaming")
        prompt = build_prompt(
            self.talker,
            self.config,
            role,
            ids,
            language_tags(self.config.talker, language, dialect),
            layout,
            speaker=None if voice is None else voice.embedding,
            instruct=self.tokenizer.instruct(request.instruct) if request.instruct else None,
            reference=self._reference(voice),
            more=live and live.more,
            poll=live and live.poll,
        )
        context = self.config.talker.max_position_embeddings
        needed = prompt.embeddings.shape[0] + max_tokens
        if needed > context:
            message = f"prompt and max_tokens need {needed} positions, the model has {context}; shorten either"
            raise TextTooLong(message, param="max_tokens")
        mx.eval(prompt.arrays)  # it may be spoken in another thread than this one
        return prompt

    def check_in_context(self) -> None:
        """UnsupportedValue where the model was not trained to clone in context."""
        if "in_context" in self.config.untrained:
            raise UnsupportedValue(
                f"{self.name} was not trained to clone in context; leave the reference text out, and it clones by the "
                "recording's vector",
                param="ref_text",
            )

    def _check(self, request: Request) -> str:
        """The name of the language that is asked for."""
        language = language_name(request.language, self.config.languages)
        if request.instruct and not self.takes_instruct:
            raise UnsupportedValue(
                f"this {self.config.model_type} model ({self.config.model_size}) takes no instruction; "
                "use VoiceDesign or 1.7B CustomVoice",
                param="instruct",
            )
        return language

    def _text(self, request: Request, notes: Notes, letters: Letters) -> tuple[list[int], list[int], LiveText | None]:
        """(ids of the role, first ids of the text, where more of them come from or None)."""
        known = self.vocabulary
        if isinstance(request.text, str):
            whole = request.text
            if known:
                known.check(whole, notes.warn)
                whole = "".join(known.single_marks([whole]))
            letters.add(whole)
            role, ids = self.tokenizer.assistant(whole)
            self._check_length("text", len(ids))
            return role, ids, None
        pieces = known.single_marks(known.watch(request.text, notes.warn)) if known else request.text
        pieces, feed = letters.counted(pieces), request.text
        ready = (lambda: feed.ready) if isinstance(feed, Feed) else None
        text = LiveText(self.tokenizer, pieces, self._check_length, ready)
        role, ids = text.begin()
        return role, ids, text

    def _reference(self, voice: Voice | None) -> tuple[list[int], mx.array] | None:
        """(text ids, codes [frames, codebooks]) of a voice that is cloned in context."""
        if voice is None or voice.ref_codes is None:
            return None
        self.check_in_context()
        codes = self.codec.check_codes(voice.ref_codes, "reference codes")
        words = self.tokenizer.assistant(check_text(voice.ref_text, "reference text", "ref_text"))[1]
        self._check_length("reference text", len(words))
        return words, codes

    def _check_length(self, what: str, tokens: int) -> None:
        context = self.config.talker.max_position_embeddings
        if tokens > context // 4:
            raise TextTooLong(
                f"the {what} has {tokens} tokens; at most {context // 4} fit, as speech takes three to four frames a "
                "token; split it",
                param="text",
            )

    def _changing(
        self, request: Request, voice: Voice | None, part: Part, notes: Notes, heard: list[Voice | None]
    ) -> tuple[Part, Callable[[int], Part | str] | None]:
        """The first Part of a voice that changes, and the function to what follows it, if anything does. heard: the
        voice that it changes into is added there."""
        if voice is None:
            raise UnsupportedValue(
                "a voice_design model has no speaker slot, so there is nothing to change", param="morph"
            )
        if voice.ref_codes is not None:
            message = "a voice that changes must be a vector: reference codes keep their speaker"
            raise UnsupportedValue(message, param="morph")
        voice_at = self._trajectory(request, voice, notes, heard)
        if request.morph_mode == "live":
            morph = Morph(self.talker, part.prompt, voice_at)
            return part._replace(prompt=morph.prompt, morph=morph), None
        sentences = enumerate(split_sentences(str(request.text)))

        def following(spoken: int) -> Part | str:
            """Each sentence in turn, with a prompt that has the voice of its time, as long as tokens are left."""
            number, sentence = next(sentences, (0, None))
            left = part.config.max_tokens - spoken
            if sentence is None or left < LEAST_TOKENS:
                return "stop" if sentence is None else "length"
            own = replace(request, text=sentence)
            now = voice.replace(embedding=voice_at(spoken))
            prompt = self.prompt(own, now, left, Notes(quiet=True))  # all of it was said of the whole text
            return Part(prompt, (part.seed + number) % 2**32, replace(part.config, max_tokens=left))

        first = following(0)
        assert isinstance(first, Part), "a text has a sentence at least"
        return first, following

    def _trajectory(self, request: Request, voice: Voice, notes: Notes, heard: list[Voice | None]) -> VoiceAt:
        """A function from a frame's number to the voice's vector [D] at its time."""
        frame = self.codec.samples_per_frame / self.codec.sample_rate
        if callable(request.morph):
            return timed(request.morph, frame, voice.embedding.shape[0])
        end, seconds = self._voice(request, "morph", notes), request.morph_seconds
        assert end is not None, "a model with a speaker slot has a voice for whatever is resolved"
        heard.append(end)
        if seconds is None:
            seconds = FRAMES_PER_TOKEN * len(self.tokenizer.assistant(str(request.text))[1]) * frame
        return path(voice.embedding, end.embedding, seconds / frame)
