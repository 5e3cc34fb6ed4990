"""Qwen3TTS, the one object behind the commands, benchmarks and apps."""

import functools
import secrets
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np

from .checkpoint import ModelFolder, check_dtype
from .files import hub
from .files.audio import read_reference, write_audio
from .files.weights import read_json
from .networks.codec import codec as codec_networks
from .synthesis.loop import Generation
from .synthesis.prompt import LAYOUTS, build_prompt, language_tags
from .synthesis.sampling import Sampler, Sampling, check_seed
from .synthesis.tokenizer import TextTokenizer, check_text
from .voices.voice import SUFFIXES, Voice, VoiceError

# Mean norm of real x-vectors by dimension (0.6B and 1.7B); tiny models have none to compare with.
KNOWN_NORMS = {1024: 10.25, 2048: 17.0}


@dataclass
class Speech:
    """audio [samples] float32 within ±1; codes [frames, 16] int32; finish_reason "stop" or "length".

    stats: seconds of audio, frames, elapsed seconds, rtf, frames_per_second, peak_memory (bytes), seed.
    """

    audio: mx.array
    sample_rate: int
    codes: mx.array
    finish_reason: str
    stats: dict = field(default_factory=dict)

    def save(self, path):
        """Write .wav, .flac, .mp3 or .ogg by extension; the file appears whole or not at all."""
        write_audio(path, np.array(self.audio), self.sample_rate)


def read_sampling(path):
    """The Sampling of a generation_config.json, or the official defaults where there is none."""
    values = read_json(path) if path.exists() else {}
    try:
        return Sampling.from_config(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while speaking; `speech` is what was made so far."""

    def __init__(self, speech):
        super().__init__("interrupted")
        self.speech = speech


class Qwen3TTS:
    """A loaded model. Make one with `from_pretrained`.

    model_type: "base", "custom_voice" or "voice_design"; speakers: preset names; languages: names to ask for;
    sample_rate: of the speech; embedding_dim: of its voices; codec: a Codec; sampling: its default Sampling.
    """

    def __init__(self, folder, dtype=None):
        """folder: a local model folder; dtype: "bfloat16", "float16", "float32" or None for the checkpoint's own."""
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

    @classmethod
    def from_pretrained(cls, model="mlx_model", dtype=None):
        """model: a folder or hub id of an official checkpoint, one that `convert` wrote, or a community MLX copy."""
        check_dtype(dtype)
        return cls(hub.resolve(model), dtype)

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
        embedding, samples, rate = self._listen(audio, prepare)
        codes = None if ref_text is None else self.codec.encode((samples, rate))
        return Voice(embedding, codes, ref_text, {"source_model": self.folder.folder.name})

    def preset(self, name):
        """A Voice from a preset's row of the codec embedding. Names are matched without regard to case."""
        if not isinstance(name, str):
            raise TypeError(f"a preset's name must be a string, not {name!r}")
        if not self.speakers:
            raise ValueError(f"voice {name!r}: a {self.model_type} model has no presets")
        if self._preset_name(name) is None:
            raise ValueError(f"voice {name!r} is not one of {', '.join(self.speakers)}")
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
        progress=None,
    ):
        """Speak a text. Returns Speech.

        voice: a Voice, a preset's name, a file, a vector [D], or None for VoiceDesign. language: one of `languages`.
        instruct: how to speak, where `takes_instruct`. text_mode: "streaming" (one text token a frame; the default for
        clones and vectors) or "full" (the whole text first; the default for presets and designed voices). The sampling
        values left None come from the checkpoint's generation_config.json. progress: called with the number of frames
        made so far. Raises ValueError or TypeError with the command line's message, Interrupted on Ctrl-C.
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
        seed = secrets.randbits(32) if seed is None else check_seed(seed)
        voice = self.voice(voice)
        prompt = self.prompt(text, voice, language, instruct, text_mode, sampling.max_tokens)

        mx.reset_peak_memory()
        start = time.perf_counter()
        sampler = Sampler(sampling, self.config.talker, self.config.predictor, seed)
        generation = Generation(
            self.talker, prompt, sampler, sampling.max_tokens, self.config.talker.codec_eos_token_id
        )
        frames = []
        try:
            for codes in generation:
                frames.append(codes)
                if progress:
                    progress(len(frames))
            speech = self._speech(frames, voice, generation.finish_reason, start, seed)
        except KeyboardInterrupt:
            if not frames:
                raise
            raise Interrupted(self._speech(frames, voice, "interrupted", start, seed)) from None
        if speech.finish_reason == "length":
            way_out = "raise max_tokens or try another seed" if sampling.do_sample else "raise max_tokens"
            warnings.warn(
                f"the speech did not end within {sampling.max_tokens} tokens and was cut; {way_out}", stacklevel=2
            )
        return speech

    def voice(self, voice):
        """What `generate` takes as a voice as a Voice that fits this model, or None where the model designs it."""
        if self.model_type == "voice_design":
            if voice is not None:
                raise ValueError("a voice_design model has no speaker slot; describe the voice with instruct")
            return None
        if isinstance(voice, str | Path):
            voice = self._named(voice)
        elif voice is not None and not isinstance(voice, Voice):
            try:
                voice = Voice(voice)
            except VoiceError as error:
                raise VoiceError(f"embedding {error}") from None
        if voice is None:
            raise ValueError(
                "no voice given: name a recording, an embedding or a voice"
                if self.model_type == "base"
                else f"no voice given: name one of {', '.join(self.speakers)} or an embedding"
            )
        self._check_fit(voice)
        return voice

    def _preset_name(self, name):
        """The preset that a user means, or None; fine-tunes may have capitals in theirs."""
        return next((speaker for speaker in self.speakers if speaker.lower() == name.lower()), None)

    def _named(self, name):
        """A voice by file, then by preset."""
        if Path(name).suffix in SUFFIXES or Path(name).is_file():
            return Voice.load(name)
        if self._preset_name(str(name)):
            return self.preset(str(name))
        known = f"; presets: {', '.join(self.speakers)}" if self.speakers else ""
        raise ValueError(f"voice {str(name)!r} is no file and no preset of this model{known}")

    def _check_fit(self, voice):
        if voice.dimension != self.embedding_dim:
            raise ValueError(
                f"the voice has {voice.dimension} dimensions, this model takes {self.embedding_dim}; voices do not "
                "transfer between model sizes"
            )
        if voice.ref_codes is not None and self.model_type != "base":
            raise ValueError("cloning in context needs a Base model; leave out the reference text")
        usual = self._usual_norm
        norm = mx.linalg.norm(voice.embedding).item()
        if usual and not usual / 2 <= norm <= usual * 2:
            warnings.warn(
                f"the voice's norm {norm:.2f} is far from {usual:.2f}, that of this model's voices; vectors go in raw, "
                "not normalised",
                stacklevel=3,
            )

    @functools.cached_property
    def _usual_norm(self):
        if self.speakers:
            rows = self.talker.embed_codec(mx.array(list(self.config.talker.spk_id.values())))
            return mx.linalg.norm(rows.astype(mx.float32), axis=-1).mean().item()
        return KNOWN_NORMS.get(self.embedding_dim)

    def prompt(self, text, voice, language="auto", instruct=None, text_mode=None, max_tokens=0):
        """The talker's Prompt for a text and a checked voice; ValueError for what the model cannot be asked."""
        check_text(text)
        if not isinstance(language, str) or language.lower() not in self.languages:
            raise ValueError(f"language {language!r} is not one of {', '.join(self.languages)}")
        if instruct and not self.takes_instruct:
            raise ValueError(
                f"this {self.model_type} model ({self.config.model_size}) takes no instruction; "
                "use VoiceDesign or 1.7B CustomVoice"
            )
        preset = voice is not None and "preset" in voice.metadata
        dialect = voice.metadata.get("dialect") if preset else None
        if dialect and dialect not in self.config.talker.codec_language_id:
            raise ValueError(f"the voice speaks {dialect!r}, which this model does not know; name another voice")
        if text_mode is None:
            text_mode = "full" if voice is None or preset else "streaming"
        if text_mode not in LAYOUTS:
            raise ValueError(f"text_mode {text_mode!r} is not one of {', '.join(LAYOUTS)}")
        role, ids = self.tokenizer.assistant(text)
        texts, reference = {"text": ids}, None
        if voice is not None and voice.ref_codes is not None:
            codes = self.codec.check_codes(voice.ref_codes, "reference codes")
            texts["reference text"] = self.tokenizer.assistant(check_text(voice.ref_text, "reference text"))[1]
            reference = (texts["reference text"], codes)
        context = self.config.talker.max_position_embeddings
        for what, tokens in texts.items():
            if len(tokens) > context // 4:
                raise ValueError(
                    f"the {what} has {len(tokens)} tokens; at most {context // 4} fit, as speech takes three to four "
                    "frames a token; split it"
                )
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
        )
        needed = prompt.embeddings.shape[0] + max_tokens
        if needed > context:
            raise ValueError(f"prompt and max_tokens need {needed} positions, the model has {context}; shorten either")
        return prompt

    def _speech(self, frames, voice, reason, start, seed):
        codes = mx.concatenate(frames).astype(mx.int32)
        # Reference codes are decoded as context and cut off by exact frame count.
        context = voice.ref_codes.shape[0] if voice is not None and voice.ref_codes is not None else 0
        heard = mx.concatenate([voice.ref_codes.astype(mx.int32), codes]) if context else codes
        audio = codec_networks.decode(self.codec.decoder, heard)[context * self.codec.samples_per_frame :]
        mx.eval(audio, codes)
        elapsed = time.perf_counter() - start
        seconds = audio.shape[0] / self.sample_rate
        stats = {
            "seconds": seconds,
            "frames": len(frames),
            "elapsed": elapsed,
            "rtf": elapsed / seconds,
            "frames_per_second": len(frames) / elapsed,
            "peak_memory": mx.get_peak_memory(),
            "seed": seed,
        }
        return Speech(audio, self.sample_rate, codes, reason, stats)
