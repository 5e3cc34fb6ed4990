"""Qwen3TTS, the one object behind the commands, benchmarks and apps."""

import functools
import secrets
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from ..audio.reference import read_reference
from ..checkpoint import hub
from ..checkpoint.folder import ModelFolder
from ..checkpoint.part import check_dtype
from ..checkpoint.vocabulary import Vocabulary
from ..checkpoint.weights import read_json
from ..errors import InvalidValue, VoiceError, WrongType
from ..networks.codec.codec import DECODE_CHUNK
from ..networks.device import on_gpu
from ..voices import FOLDER
from ..voices.fit import KNOWN_NORMS, check_fit
from ..voices.library.library import Library
from ..voices.lookup import Lookup
from ..voices.voice import Voice
from .decoding import SCHEDULE, Decoding, check_schedule
from .frame import FrameStep
from .live import LiveText
from .loop import Generation
from .morphing import Change
from .prompt import LAYOUTS, build_prompt, language_tags
from .sampling import Sampler, Sampling, check_seed
from .speech import Interrupted, SpeechStream, speak_batch
from .tokenizer import TextTokenizer, check_text


def read_sampling(path):
    """The Sampling of a generation_config.json, or the official defaults where there is none."""
    values = read_json(path) if path.exists() else {}
    try:
        return Sampling.from_config(values)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{path}: {error}") from None


def each(values, name, count=None):
    """A list of `count` values from a list, or from one value for all; without a count only a list will do."""
    if not isinstance(values, list | tuple | range):
        if count is None:
            raise WrongType(f"{name} must be a list, not {type(values).__name__}")
        return [values] * count
    if count is not None and len(values) != count:
        raise InvalidValue(f"{name} has {len(values)} entries for {count} texts")
    return list(values)


class Qwen3TTS:
    """A loaded model. Make one with `from_pretrained`.

    model_type: "base", "custom_voice" or "voice_design"; speakers: preset names; languages: names to ask for;
    sample_rate: of the speech; embedding_dim: of its voices; codec: a Codec; sampling: its default Sampling.
    """

    def __init__(self, folder, dtype=None, library=FOLDER):
        """folder: a local model folder; dtype: "bfloat16", "float16", "float32" or None for the checkpoint's own;
        library: the folder of the voices library, in which voices are found by name."""
        dtype = check_dtype(dtype)
        self.folder = ModelFolder(folder)
        self.config = self.folder.config
        self.codec = self.folder.codec
        self.tokenizer = TextTokenizer(self.folder.folder, self.config)
        self.sampling = read_sampling(self.folder.folder / "generation_config.json")
        self.talker = self.folder.load_talker(dtype)
        if self.talker.dtype == mx.float16:
            warnings.warn(
                "float16 is known to make the talker collapse and never end; use bfloat16 or float32", stacklevel=2
            )
        self.model_type = self.config.model_type
        self.speakers = list(self.config.talker.spk_id)
        self.languages = self.config.languages
        self.sample_rate = self.codec.sample_rate
        self.embedding_dim = self.config.talker.hidden_size
        self.library = Library(library)
        self._steps = {}

    @classmethod
    def from_pretrained(cls, model="mlx_model", dtype=None, library=FOLDER):
        """model: a folder or hub id of an official checkpoint, one that `convert` wrote, or a community MLX copy;
        library: the folder of the voices library."""
        check_dtype(dtype)
        return cls(hub.resolve(model), dtype, library)

    @property
    def takes_instruct(self):
        """Whether the model follows instructions: VoiceDesign and 1.7B CustomVoice do."""
        # The official test is `size in "0b6"`, true for an empty size too.
        return self.model_type == "voice_design" or (
            self.model_type == "custom_voice" and self.config.model_size not in "0b6"
        )

    @functools.cached_property
    def _speaker_encoder(self):
        return self.folder.load_speaker_encoder()

    def embed(self, audio, prepare=False):
        """The speaker's vector [D] float32 of a recording: a path, (samples, rate) or samples at 24 kHz. Base only.

        `prepare` trims silence and brings the recording to a common level first.
        """
        return self._listen(audio, prepare)[0]

    def _listen(self, audio, prepare):
        """(vector [D], samples, their rate) of a recording, which is read once."""
        encoder = self._speaker_encoder
        rate = self.config.speaker_encoder.sample_rate
        samples = read_reference(audio, rate, prepare)
        return encoder.embed(mx.array(samples)), samples, rate

    def clone(self, audio, ref_text=None, prepare=False):
        """A Voice from a recording: its x-vector, and with its transcript `ref_text` its codes, to clone in context."""
        if ref_text is not None:
            check_text(ref_text, "reference text")
            self._check_in_context()
        embedding, samples, rate = self._listen(audio, prepare)
        codes = None if ref_text is None else self.codec.encode((samples, rate))
        return Voice(embedding, codes, ref_text, {"source_model": self.folder.folder.name})

    def preset(self, name):
        """A Voice from a preset's row of the codec embedding. Names are matched without regard to case."""
        if not isinstance(name, str):
            raise WrongType(f"a preset's name must be a string, not {name!r}")
        if not self.speakers:
            raise InvalidValue(f"voice {name!r}: a {self.model_type} model has no presets")
        if self._preset_name(name) is None:
            raise InvalidValue(f"voice {name!r} is not one of {', '.join(self.speakers)}")
        name = self._preset_name(name)
        row = self.talker.embed_codec(mx.array([self.config.talker.spk_id[name]]))[0]
        dialect = self.config.talker.spk_is_dialect.get(name)
        metadata = {"source_model": self.folder.folder.name, "preset": name}
        return Voice(row, metadata={**metadata, "dialect": dialect} if dialect else metadata)

    def generate(
        self,
        text,
        voice=None,
        *,
        language="auto",
        instruct=None,
        text_mode=None,
        temperature=None,
        top_k=None,
        top_p=None,
        repetition_penalty=None,
        subtalker_temperature=None,
        subtalker_top_k=None,
        subtalker_top_p=None,
        greedy=False,
        max_tokens=None,
        seed=None,
        morph=None,
        morph_seconds=None,
        morph_mode="live",
        progress=None,
    ):
        """Speak a text. Returns Speech.

        text: a string, or an iterable of strings that are its pieces. voice: a Voice, a vector [D], the name of a file,
        library voice or preset, a blend expression of these, or None for VoiceDesign. language: one of `languages`.
        instruct: how to speak, where `takes_instruct`. text_mode: "streaming" (one text token a frame; the default for
        clones and vectors) or "full" (the whole text first; the default for presets and designed voices). The sampling
        values left None come from the checkpoint's generation_config.json. progress: called with the number of frames
        made so far.

        morph: a voice to change into while speaking, evenly over `morph_seconds` (default: what the text should take),
        or a function from the seconds spoken to a vector [D]; `voice` is where it starts. morph_mode: "live" rewrites
        the voice in the talker's cache before every frame; "sentences" begins every sentence anew with the voice of its
        time, which is the stronger way.

        Raises ValueError or TypeError with the command line's message, Interrupted on Ctrl-C.
        """
        sampling = self.sampling.override(
            greedy=greedy,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            subtalker_temperature=subtalker_temperature,
            subtalker_top_k=subtalker_top_k,
            subtalker_top_p=subtalker_top_p,
            max_tokens=max_tokens,
        )
        how, schedule = (language, instruct, text_mode), (DECODE_CHUNK,)
        change = Change(morph, morph_seconds, morph_mode)
        return self._speak(text, voice, how, sampling, seed, change, schedule, progress).speech()

    def stream(
        self,
        text,
        voice=None,
        *,
        chunks=SCHEDULE,
        language="auto",
        instruct=None,
        text_mode=None,
        temperature=None,
        top_k=None,
        top_p=None,
        repetition_penalty=None,
        subtalker_temperature=None,
        subtalker_top_k=None,
        subtalker_top_p=None,
        greedy=False,
        max_tokens=None,
        seed=None,
        morph=None,
        morph_seconds=None,
        morph_mode="live",
        progress=None,
    ):
        """Speak a text while it is being made. Returns a SpeechStream: iterate to get Chunks.

        chunks: frames (80 ms each) of every chunk, the last number for all that follow. The rest as for `generate`, and
        so is the speech. A text in pieces is pulled as it is needed: in the streaming layout a word
        is spoken once it is certain that it has ended, and speech waits for text; the full layout needs it all at once.
        """
        sampling = self.sampling.override(
            greedy=greedy,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            subtalker_temperature=subtalker_temperature,
            subtalker_top_k=subtalker_top_k,
            subtalker_top_p=subtalker_top_p,
            max_tokens=max_tokens,
        )
        how, schedule = (language, instruct, text_mode), check_schedule(chunks)
        change = Change(morph, morph_seconds, morph_mode)
        return self._speak(text, voice, how, sampling, seed, change, schedule, progress)

    def generate_batch(
        self,
        texts,
        voices=None,
        *,
        languages="auto",
        instructs=None,
        text_modes=None,
        temperature=None,
        top_k=None,
        top_p=None,
        repetition_penalty=None,
        subtalker_temperature=None,
        subtalker_top_k=None,
        subtalker_top_p=None,
        greedy=False,
        max_tokens=None,
        seeds=None,
        batch_size=None,
        progress=None,
        done=None,
    ):
        """Speak several texts at once. Returns a list of Speech, each as `generate` with its seed would give it.

        voices, languages, instructs, text_modes, seeds: one for every text, or a list with one for each. batch_size: at
        most so many at once, in order (default: all). progress: called with the number of steps made so far. done:
        called with each text's number (from 0) and Speech once its batch is spoken. The rest as for `generate`. What
        has ended leaves the batch. Interrupted has what was spoken so far, in the texts' order.
        """
        sampling = self.sampling.override(
            greedy=greedy,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            subtalker_temperature=subtalker_temperature,
            subtalker_top_k=subtalker_top_k,
            subtalker_top_p=subtalker_top_p,
            max_tokens=max_tokens,
        )
        texts = each(texts, "texts")
        if not texts:
            raise InvalidValue("texts is empty")
        count = len(texts)
        given = zip(
            texts,
            [self.voice(voice) for voice in each(voices, "voices", count)],
            each(languages, "languages", count),
            each(instructs, "instructs", count),
            each(text_modes, "text_modes", count),
            strict=True,
        )
        size = count if batch_size is None else batch_size
        if isinstance(size, bool) or not isinstance(size, int):
            raise WrongType(f"batch_size must be an integer, not {batch_size!r}")
        if size < 1:
            raise InvalidValue(f"batch_size {size} is not 1 or more")
        seeds = [secrets.randbits(32) if seed is None else check_seed(seed) for seed in each(seeds, "seeds", count)]
        # All are checked before the first is spoken.
        rows = []
        for number, (text, voice, *how) in enumerate(given):
            try:
                rows.append((self.prompt(text, voice, *how, sampling.max_tokens), voice, seeds[number]))
            except ValueError as error:
                raise InvalidValue(f"text {number + 1}: {error}") from None
        speeches = []
        for first in range(0, count, size):
            prompts, voices, own = zip(*rows[first : first + size], strict=True)
            generation = self.generation(prompts, own, sampling)
            contexts = [self._context(voice) for voice in voices]
            try:
                batch = speak_batch(generation, self.codec, contexts, sampling, first, progress)
                speeches += batch
                for number, speech in enumerate(batch, first):
                    if done:
                        done(number, speech)
            except KeyboardInterrupt as stopped:
                speeches += stopped.speeches if isinstance(stopped, Interrupted) else []
                if not speeches:
                    raise
                raise Interrupted(speeches) from None
        return speeches

    def _speak(self, text, voice, how, sampling, seed, change, schedule, progress=None):
        """A SpeechStream of checked arguments; nothing is computed before it is iterated over.

        how: (language, instruct, text_mode); change: Change.
        """
        start = time.perf_counter()
        seed = secrets.randbits(32) if seed is None else check_seed(seed)
        voice = self.voice(voice)
        prompt = self.prompt(text, voice, *how, sampling.max_tokens)
        mx.reset_peak_memory()
        if change.morph is None:
            generation = self.generation([prompt], [seed], sampling)
        else:
            generation = change.generation(self, text, voice, prompt, how, sampling, seed)
        decoding = Decoding(generation, self.codec.decoder, schedule, self._context(voice), progress)
        return SpeechStream(decoding, self.sample_rate, sampling, seed, start)

    @staticmethod
    def _context(voice):
        """Codes of what the sound continues: those of a reference that is cloned in context."""
        return None if voice is None or voice.ref_codes is None else voice.ref_codes.astype(mx.int32)

    def generation(self, prompts, seeds, sampling, morph=None):
        """The loop over prompts of checked texts and voices: a Generation; morph: Morph or None."""
        # Compiled functions are kept, by what they depend on.
        key = replace(sampling, max_tokens=2), on_gpu()
        if key not in self._steps:
            if len(self._steps) == 8:
                self._steps.pop(next(iter(self._steps)))
            self._steps[key] = FrameStep(self.talker, Sampler(sampling, self.config.talker, self.config.predictor))
        end = self.config.talker.codec_eos_token_id
        return Generation(self.talker, prompts, self._steps[key], seeds, sampling.max_tokens, end, morph)

    def voice(self, voice):
        """What `generate` takes as a voice as a Voice that fits this model, or None where the model designs it."""
        if self.model_type == "voice_design":
            if voice is not None:
                raise InvalidValue("a voice_design model has no speaker slot; describe the voice with instruct")
            return None
        if isinstance(voice, str | Path):
            voice = self.lookup.voice(voice)
        elif voice is not None and not isinstance(voice, Voice):
            try:
                voice = Voice(voice)
            except VoiceError as error:
                raise VoiceError(f"embedding {error}") from None
        if voice is None:
            raise InvalidValue(
                "no voice given: name a recording, an embedding or a voice"
                if self.model_type == "base"
                else f"no voice given: name one of {', '.join(self.speakers)} or an embedding"
            )
        check_fit(voice, self.embedding_dim, self.model_type, self._usual_norm)
        return voice

    def _preset_name(self, name):
        """The preset that a user means, or None; fine-tunes may have capitals in theirs."""
        return next((speaker for speaker in self.speakers if speaker.lower() == name.lower()), None)

    @property
    def lookup(self):
        """Finds voices by name: files, the library's, this model's presets, and blends of them."""
        return Lookup(self.library, lambda name: self.preset(name) if self._preset_name(name) else None, self.speakers)

    @functools.cached_property
    def _usual_norm(self):
        if self.speakers:
            rows = self.talker.embed_codec(mx.array(list(self.config.talker.spk_id.values())))
            return mx.linalg.norm(rows.astype(mx.float32), axis=-1).mean().item()
        return KNOWN_NORMS.get(self.embedding_dim)

    def prompt(self, text, voice, language="auto", instruct=None, text_mode=None, max_tokens=0):
        """The talker's Prompt for a text and a checked voice; ValueError for what the model cannot be asked.

        text: a string, or an iterable of pieces, of which as many are pulled as the prompt needs.
        """
        live = isinstance(text, Iterable) and not isinstance(text, str | bytes | Mapping)
        known = self.config.vocabulary
        vocabulary = known and Vocabulary(known.words, known.punctuation)
        if not live:
            check_text(text)
            if vocabulary:
                vocabulary.check(text)
        if not isinstance(language, str) or language.lower() not in self.languages:
            raise InvalidValue(f"language {language!r} is not one of {', '.join(self.languages)}")
        if instruct and not self.takes_instruct:
            raise InvalidValue(
                f"this {self.model_type} model ({self.config.model_size}) takes no instruction; "
                "use VoiceDesign or 1.7B CustomVoice"
            )
        preset = voice is not None and "preset" in voice.metadata
        dialect = voice.metadata.get("dialect") if preset else None
        if dialect and dialect not in self.config.talker.codec_language_id:
            raise InvalidValue(f"the voice speaks {dialect!r}, which this model does not know; name another voice")
        if text_mode is None:
            text_mode = "full" if voice is None or preset else "streaming"
        if text_mode not in LAYOUTS:
            raise InvalidValue(f"text_mode {text_mode!r} is not one of {', '.join(LAYOUTS)}")
        if live:
            pieces = vocabulary.watch(text) if vocabulary else text
            text = LiveText(self.tokenizer, pieces, self._check_length)
            role, ids = text.begin()
        else:
            role, ids = self.tokenizer.assistant(text)
            self._check_length("text", len(ids))
        reference = None
        if voice is not None and voice.ref_codes is not None:
            self._check_in_context()
            codes = self.codec.check_codes(voice.ref_codes, "reference codes")
            words = self.tokenizer.assistant(check_text(voice.ref_text, "reference text"))[1]
            self._check_length("reference text", len(words))
            reference = (words, codes)
        prompt = build_prompt(
            self.talker,
            self.config,
            role,
            ids,
            language_tags(self.config.talker, language.lower(), dialect),
            text_mode,
            speaker=None if voice is None else voice.embedding,
            instruct=self.tokenizer.instruct(check_text(instruct, "instruction")) if instruct else None,
            reference=reference,
            more=text.more if live else None,
        )
        context = self.config.talker.max_position_embeddings
        needed = prompt.embeddings.shape[0] + max_tokens
        if needed > context:
            raise InvalidValue(
                f"prompt and max_tokens need {needed} positions, the model has {context}; shorten either"
            )
        return prompt

    def _check_in_context(self):
        if "in_context" in self.config.untrained:
            raise InvalidValue(
                f"{self.folder.folder.name} was not trained to clone in context; leave the reference text out, and it "
                "clones by the recording's vector"
            )

    def _check_length(self, what, tokens):
        context = self.config.talker.max_position_embeddings
        if tokens > context // 4:
            raise InvalidValue(
                f"the {what} has {tokens} tokens; at most {context // 4} fit, as speech takes three to four frames a "
                "token; split it"
            )
