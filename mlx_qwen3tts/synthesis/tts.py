"""Qwen3TTS, the one object behind the commands, benchmarks and apps."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx

from .. import checks
from ..audio.reference import MOST_SILENCE, read_reference, silence_behind, speech_seconds
from ..checkpoint import adapters, hub
from ..checkpoint.adapters import Adapter, read_adapter, strength
from ..checkpoint.folder import ModelFolder
from ..checkpoint.part import check_dtype
from ..checkpoint.weights import read_json
from ..errors import InvalidValue, QwenTTSError, naming
from ..networks import proof
from ..networks.codec.codec import DECODE_CHUNK
from ..networks.speaker.encoder import SpeakerEncoder
from ..networks.speaker.mel import SAMPLE_RATE
from ..voices import FOLDER
from ..voices.library.library import Library
from ..voices.lookup import Lookup
from ..voices.voice import Voice
from .casting import Casting
from .decoding import SCHEDULE, Decoding, check_schedule
from .frame import Steps
from .loop import Generation
from .morph import Morph
from .planning import Notes, Plan, Planner
from .prompt import Prompt
from .request import Request, as_request, as_requests
from .sampling import GenerationConfig
from .series import speak_batch, speak_each
from .speech import Speech, SpeechStream
from .text import check_text
from .tokenizer import TextTokenizer
from .transcript import mismatch

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .request import AudioLike, BatchOptions, Options, VoiceLike


def read_sampling(path: Path) -> GenerationConfig:
    """The GenerationConfig of a generation_config.json, or the official defaults where there is none."""
    values = read_json(path) if path.exists() else {}
    try:
        return GenerationConfig.from_config(values)
    except QwenTTSError as error:
        raise InvalidValue(f"{path}: {error}") from None


class Qwen3TTS:
    """A loaded model. Make one with `from_pretrained`.

    model_type: "base", "custom_voice" or "voice_design"; speakers: preset names; languages: names to ask for;
    sample_rate: of the speech; embedding_dim: of its voices; codec: a Codec; sampling: its default GenerationConfig.
    """

    def __init__(
        self,
        folder: str | Path,
        dtype: str | None = None,
        library: str | Path = FOLDER,
        kernels: str | None = None,
    ) -> None:
        """folder: a local model folder; dtype: "bfloat16", "float16", "float32" or None for the checkpoint's own;
        library: the folder of the voices library, in which voices are found by name; kernels: "plain", "fused", or
        None for fused ones where `benchmarks.bench --self-check` has proved them on this machine."""
        chosen = check_dtype(dtype)
        proof.check_choice(kernels)
        self.folder = ModelFolder(folder)
        self.config, self.codec = self.folder.config, self.folder.codec
        self.tokenizer = TextTokenizer(self.folder.folder, self.config)
        self.sampling = read_sampling(self.folder.folder / "generation_config.json")
        self.talker = self.folder.load_talker(chosen)
        if self.talker.dtype == mx.float16:
            message = "float16 is known to make the talker collapse and never end; use bfloat16 or float32"
            warnings.warn(message, stacklevel=2)
        self.model_type = self.config.model_type
        self.speakers = list(self.config.talker.spk_id)
        self.languages = self.config.languages
        self.sample_rate = self.codec.sample_rate
        self.embedding_dim = self.config.talker.hidden_size
        self.library = Library(library)
        self.steps = Steps(self.talker, self.config, proof.choose(kernels, self.talker.dtype))
        self.casting = Casting(self.folder, self.talker.dtype, self.library)
        resolve, name = self.casting.resolve, self.folder.title
        self.planner = Planner(self.talker, self.config, self.tokenizer, self.codec, self.sampling, resolve, name)
        self.adapter: Adapter | None = None
        self.adapter_scale = 1.0

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "mlx_model",
        dtype: str | None = None,
        library: str | Path = FOLDER,
        kernels: str | None = None,
        *,
        adapter_path: str | Path | None = None,
        adapter_scale: float = 1.0,
    ) -> Qwen3TTS:
        """model: a folder or hub id of an official checkpoint, one that `convert` wrote, or a community MLX copy;
        library: the folder of the voices library; kernels: "plain", "fused", or None for fused ones where
        `benchmarks.bench --self-check` has proved them on this machine; adapter_path, adapter_scale: as for `adapt`."""
        check_dtype(dtype)
        proof.check_choice(kernels)
        adapter = None if adapter_path is None else read_adapter(adapter_path)
        strength(adapter_scale)
        made = cls(hub.resolve(model), dtype, library, kernels)
        if adapter is not None:
            made.adapt(adapter, adapter_scale)
        return made

    def adapt(self, adapter: str | Path | Adapter | None, scale: float = 1.0) -> None:
        """Speak with an adapter, in place of any other, from now on; None: without one.

        adapter: the folder that `tune lora` made; scale: how much of it, 1 as it was trained, 0 not at all, which is
        the model as it was loaded. What is being spoken must have ended. AdapterError for one of another model.
        """
        scale = strength(scale)
        if adapter is not None:
            adapter = adapter if isinstance(adapter, Adapter) else read_adapter(adapter)
            adapter.check(self.folder)
        adapters.remove(self.talker)
        if adapter is not None and scale:
            adapters.put(self.talker, adapter.matrices, scale * adapter.scale, self.talker.dtype)
            mx.eval(self.talker.parameters())  # here, as another thread may be the one that speaks
        self.adapter, self.adapter_scale = adapter, scale
        self.steps = Steps(self.talker, self.config, self.steps.kernels)  # the old ones keep the old weights

    @property
    def adapted(self) -> str | None:
        """A word for the adapter that is spoken with and how much of it; None where the model is as it was loaded."""
        return f"{self.adapter.digest} {self.adapter_scale:g}" if self.adapter and self.adapter_scale else None

    @property
    def title(self) -> str:
        """What tags call the model: its folder's name or hub id, and what its card names as its base."""
        return self.folder.title

    @property
    def kernels(self) -> list[str]:
        """The names of the fused kernels that frames are made with; none where all are plain."""
        return sorted(self.steps.kernels)

    @property
    def takes_instruct(self) -> bool:
        """Whether the model follows instructions: VoiceDesign and 1.7B CustomVoice do."""
        return self.planner.takes_instruct

    # Voices

    @functools.cached_property
    def speaker_encoder(self) -> SpeakerEncoder:
        """The network that `embed` and `clone` listen with, loaded when it is first used."""
        return self.folder.load_speaker_encoder()

    def embed(self, audio: AudioLike, prepare: bool = False) -> mx.array:
        """The speaker's vector [D] float32 of a recording: a path, (samples, rate) or samples at 24 kHz. Base only.

        `prepare` trims silence and brings the recording to a common level first.
        """
        return self.clone(audio, prepare=prepare).embedding

    def clone(
        self, audio: AudioLike, ref_text: str | None = None, prepare: bool = False, ref_silence: float = 0.0
    ) -> Voice:
        """A Voice from a recording: its x-vector, and with its transcript `ref_text` its codes, to clone in context.

        `prepare` trims silence and brings the recording to a common level first. ref_silence: seconds of silence
        that are put behind the recording where it is cloned in context, against echoes of its tail (the official
        package puts none there).
        """
        checks.number(ref_silence, "ref_silence", 0, MOST_SILENCE)
        if ref_text is not None:
            check_text(ref_text, "reference text", "ref_text")
            self.planner.check_in_context()
        elif ref_silence:
            raise InvalidValue("ref_silence belongs to ref_text, which is not given", param="ref_silence")
        encoder, rate = self.speaker_encoder, SAMPLE_RATE
        notes, codes = Notes(), None
        samples = read_reference(audio, rate, prepare, notes.warn, ref_silence)  # once for both
        if ref_text is not None:
            if wrong := mismatch(ref_text, samples.size / rate, speech_seconds(samples, rate)):
                notes.warn(wrong)
            codes = self.codec.encode((silence_behind(samples, rate, ref_silence), rate))
        vector, source = encoder.embed(mx.array(samples)), self.folder.folder.name
        return Voice(vector, codes, ref_text, source_model=source, notes=notes)

    def preset(self, name: str) -> Voice:
        """A Voice from a preset's row of the codec embedding. Names are matched without regard to case."""
        return self.casting.preset(name)

    @property
    def lookup(self) -> Lookup:
        """Finds voices by name: files, the library's, this model's presets, and blends of them."""
        return self.casting.lookup

    def voice(self, voice: VoiceLike) -> Voice | None:
        """What `generate` takes as a voice as a Voice that fits this model, or None where the model designs it."""
        return self.casting.resolve(voice, Notes())

    # Speaking

    def generate(
        self,
        text: str | Iterable[str] | Request,
        voice: VoiceLike = None,
        *,
        progress: Callable[[int], object] | None = None,
        **options: Unpack[Options],
    ) -> Speech:
        """Speak a Request, or a text in a voice; `options` are the other fields of Request and of Sampling.

        progress: called with the number of frames made so far. Raises QwenTTSError with the command line's message,
        Interrupted on Ctrl-C.
        """
        return self._speak(as_request(text, voice, **options), (DECODE_CHUNK,), progress).speech()

    def stream(
        self,
        text: str | Iterable[str] | Request,
        voice: VoiceLike = None,
        *,
        chunks: Sequence[int] = SCHEDULE,
        progress: Callable[[int], object] | None = None,
        **options: Unpack[Options],
    ) -> SpeechStream:
        """Speak while it is being made. Returns a SpeechStream: iterate to get Chunks.

        chunks: frames (80 ms each) of every chunk, the last number for all that follow. The rest as for `generate`, and
        so is the speech. A text in pieces is pulled as it is needed: in the streaming layout a word is spoken once it
        is certain that it has ended, and speech waits for text; the full layout needs it all at once.
        """
        return self._speak(as_request(text, voice, **options), check_schedule(chunks), progress)

    def generate_batch(
        self,
        texts: list[str] | list[Request],
        voices: VoiceLike | list[VoiceLike] = None,
        *,
        batch_size: int | None = None,
        numbers: Sequence[int] | None = None,
        progress: Callable[[int], object] | None = None,
        done: Callable[[int, Speech], object] | None = None,
        **options: Unpack[BatchOptions],
    ) -> list[Speech]:
        """Speak several Requests, or texts, at once. Returns a list of Speech, each as `generate` would give it.

        voices, languages, instructs, text_modes, seeds, rates: one for every text, or a list with one for each.
        batch_size: at most so many at once; when one has ended the next one joins (default: all). numbers: of the
        texts, for `done`, Interrupted and messages (default: from 0). progress: called with the number of steps made
        so far. done: called with each text's number and Speech once it has ended. Interrupted has what was spoken so
        far, in the texts' order. All are checked before the first is spoken.
        """
        requests = as_requests(texts, voices, **options)
        size = len(requests) if batch_size is None else checks.whole(batch_size, "batch_size", 1)
        numbers = range(len(requests)) if numbers is None else numbers
        checks.length(numbers, len(requests), "numbers", "texts")
        plans = list(self._plans(zip(numbers, requests, strict=True)))
        return speak_batch(self._decoding(), plans, self.sample_rate, size, progress, done)

    def generate_each(
        self,
        requests: Iterable[Request],
        done: Callable[[int, Speech], object],
        *,
        batch_size: int = 8,
        numbers: Iterable[int] | None = None,
    ) -> None:
        """Speak any number of Requests, each as `generate` would, `batch_size` at once, and keep none of them.

        done: called with a Request's number and Speech once it has ended, in the order of their ends. numbers: of the
        requests, for `done` and messages (default: from 0). A Request is taken, and checked, when there is a place for
        it: memory does not grow with their number.
        """
        numbered = enumerate(requests) if numbers is None else zip(numbers, requests, strict=True)
        size = checks.whole(batch_size, "batch_size", 1)
        speak_each(self._decoding(), self._plans(numbered), self.sample_rate, size, done)

    def _plans(self, requests: Iterable[tuple[int, Request]]) -> Iterator[tuple[int, Plan]]:
        """(number, Plan) of numbered Requests, one after the other; errors name the number."""
        for number, request in requests:
            with naming(f"text {number + 1}"):
                plan = self.planner.plan(request, (DECODE_CHUNK,))
            yield number, plan

    def _speak(
        self, request: Request, schedule: Sequence[int], progress: Callable[[int], object] | None
    ) -> SpeechStream:
        start = time.perf_counter()
        plan = self.planner.plan(request, schedule)
        mx.reset_peak_memory()
        return SpeechStream(self._decoding(), plan, self.sample_rate, start, progress)

    def _decoding(self) -> Decoding:
        return Decoding(self.generation([], [], self.sampling), self.codec.decoder)

    # Single steps, for benchmarks, tests and whoever builds on the loop

    def prompt(
        self,
        text: str | Iterable[str],
        voice: Voice | None,
        language: str = "auto",
        instruct: str | None = None,
        text_mode: str | None = None,
        max_tokens: int = 0,
    ) -> Prompt:
        """The talker's Prompt for a text and a Voice that `voice` gave; max_tokens: positions to be free behind it."""
        request = Request(text, voice, language=language, instruct=instruct, text_mode=text_mode)
        return self.planner.prompt(request, voice, max_tokens)

    def generation(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], config: GenerationConfig, morph: Morph | None = None
    ) -> Generation:
        """The loop over prompts, to which more can be added; morph: of the one prompt there is."""
        made = Generation(self.talker, self.steps, self.config.talker.codec_eos_token_id)
        for prompt, seed in zip(prompts, seeds, strict=True):
            made.insert(prompt, seed, config, morph)
        return made
