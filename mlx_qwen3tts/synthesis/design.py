"""A voice from words: a VoiceDesign model speaks a sentence, and a speaker encoder hears who that is.

    description → VoiceDesign → speech of a calibration text → speaker encoder → x-vector [D] → Voice

The vector is one like any other: it is spoken by Base and CustomVoice models of the encoder's dimension, blended and
moved. It keeps what the encoder hears of a speaker, not all that the description asks for.

One seed makes one voice. Speech with another seed is spoken by somebody else who fits the same description, so several
are not averaged: their mean is a voice between them, nearer to the middle of all voices. A longer text gives the
encoder more of the one speaker instead. Whoever wants a mean blends the voices of several seeds.
"""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from .. import checks
from ..audio.reading import read_audio
from ..audio.reference import check_reference, quality
from ..checkpoint.speaker import SpeakerEncoder
from ..errors import AudioError, InvalidValue, UnsupportedValue
from ..networks.codec.codec import DECODE_CHUNK
from ..networks.speaker.mel import SAMPLE_RATE
from ..voices.voice import Voice
from .decoding import Decoding, check_schedule
from .languages import AUTO, language_name
from .planning import Notes
from .request import LEAST_TOKENS, Request, Sampling
from .speech import Chunk, Speech, SpeechStream
from .text import check_text

if TYPE_CHECKING:
    from .tts import Qwen3TTS

# The beginning of "The North Wind and the Sun", which the Handbook of the International Phonetic Association uses to
# show the sounds of a language: eight to ten seconds, told calmly.
TEXTS = {
    "chinese": "有一回，北风跟太阳在那儿争论谁的本事大。说着说着，来了一个过路的，身上穿了一件厚袍子。",
    "english": "The north wind and the sun were arguing about which of them was the stronger, when a traveller came "
    "along, wrapped in a warm cloak.",
    "french": "La bise et le soleil se disputaient, chacun assurant qu'il était le plus fort, quand ils ont vu un "
    "voyageur qui s'avançait, enveloppé dans son manteau.",
    "german": "Einst stritten sich Nordwind und Sonne, wer von ihnen beiden wohl der Stärkere wäre, als ein Wanderer, "
    "der in einen warmen Mantel gehüllt war, des Weges daherkam.",
    "italian": "Si bisticciavano un giorno il vento di tramontana e il sole, l'uno pretendendo d'essere più forte "
    "dell'altro, quando videro un viaggiatore che veniva innanzi, avvolto nel mantello.",
    "japanese": "ある日、北風と太陽が、どちらが強いかで言い争っていました。"
    "そこへ、暖かい外套にくるまった旅人が通りかかりました。",
    "korean": "어느 날 북풍과 해님이 서로 자기가 더 힘이 세다고 다투고 있을 때, "
    "한 나그네가 따뜻한 외투를 입고 걸어왔습니다.",
    "portuguese": "O vento norte e o sol discutiam qual dos dois era o mais forte, quando passou um viajante envolto "
    "numa capa.",
    "russian": "Однажды северный ветер и солнце поспорили, кто из них сильнее. В это время они увидели путника, "
    "закутанного в тёплый плащ.",
    "spanish": "El viento norte y el sol discutían por saber quién era el más fuerte de los dos, cuando pasó un "
    "viajero envuelto en una ancha capa.",
}
MOST_SECONDS = 30  # of the speech; what goes on for longer does not end by itself
TRIES = 3  # seeds


@dataclass(frozen=True, eq=False)
class Designed:
    """voice: the Voice, with its recipe; speech: what the encoder heard."""

    voice: Voice
    speech: Speech


def design_voice(
    designer: Qwen3TTS,
    encoder: SpeakerEncoder | Qwen3TTS,
    prompt: str,
    language: str = AUTO,
    *,
    text: str | None = None,
    seed: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Designed:
    """The Voice that a description means to a VoiceDesign model, as a vector.

    designer: a loaded VoiceDesign model; encoder: a SpeakerEncoder, or a loaded Base model. prompt: the description.
    language: of the text, by name or code. text: what is spoken (default: a sentence in the language, English for
    "auto"). seed: None draws one. progress: called with the number of frames made so far.

    Speech that does not end, is shorter than 0.5 s or silent is made again with the next seed, twice at most. The
    recipe says with which seed it was made in the end, and all else that is needed to make it again. Warns of what
    hurts the voice. Raises QwenTTSError; AudioError where no speech was fit to be heard.
    """
    steps = designing(designer, encoder, prompt, language, text=text, seed=seed)
    frames = 0
    while True:
        try:
            frames += len(next(steps).codes)
        except StopIteration as stopped:
            made: Designed = stopped.value
            break
        if progress:
            progress(frames)
    for note in made.voice.notes:
        warnings.warn(note, stacklevel=2)
    return made


def designing(
    designer: Qwen3TTS,
    encoder: SpeakerEncoder | Qwen3TTS,
    prompt: str,
    language: str = AUTO,
    *,
    text: str | None = None,
    seed: int | None = None,
    chunks: Sequence[int] = (DECODE_CHUNK,),
) -> Generator[Chunk, None, Designed]:
    """`design_voice` a Chunk of speech at a time, for whoever has other work between them; returns the Designed.

    chunks: frames of every chunk, as for `Qwen3TTS.stream`. Does not warn: voice.notes says what there is to say.
    """
    if designer.model_type != "voice_design":
        message = f"{designer.folder.folder.name} is a {designer.model_type} model; a VoiceDesign model designs voices"
        raise UnsupportedValue(message, param="model")
    prompt = check_text(prompt, "the description", "prompt").strip()
    language = language_name(language, designer.config.languages)
    text = sentence(language) if text is None else check_text(text)
    seed = secrets.randbits(32) if seed is None else checks.whole(seed, "seed", 0, 2**32 - 1)
    schedule = check_schedule(chunks)
    alone = isinstance(encoder, SpeakerEncoder)
    network, rate = (encoder.network, encoder.sample_rate) if alone else (encoder.speaker_encoder, SAMPLE_RATE)
    source = encoder.source if alone else encoder.folder.folder.name
    frames = round(MOST_SECONDS * designer.sample_rate / designer.codec.samples_per_frame)
    sampling = Sampling(max_tokens=max(LEAST_TOKENS, min(frames, designer.sampling.max_tokens)))
    failures: list[str] = []
    for own in ((seed + number) % 2**32 for number in range(TRIES)):
        request = Request(text, language=language, instruct=prompt, seed=own, sampling=sampling)
        speech = yield from _spoken(designer, request, schedule)
        try:
            if speech.finish_reason != "stop":
                raise AudioError(f"the speech did not end within {speech.audio.shape[0] / speech.sample_rate:.0f} s")
            samples = read_audio((np.array(speech.audio), speech.sample_rate), rate)
            check_reference(samples, rate, "the speech")
        except AudioError as error:
            failures.append(f"seed {own}: {error}")
            continue
        vector = network.embed(mx.array(samples))
        recipe = {
            "prompt": prompt,
            "model": designer.folder.folder.name,
            "encoder": source,
            "language": language,
            "text": text,
            "seed": own,
            "dtype": str(designer.talker.dtype).removeprefix("mlx.core."),
        }
        told = None if language == AUTO else language
        heard = (*failures, *(f"the speech: {advice}" for advice in quality(samples, rate)))
        return Designed(Voice(vector, source_model=source, language=told, recipe=recipe, notes=heard), speech)
    raise AudioError(
        f"no speech was fit to be heard ({'; '.join(failures)}); try another description, seed or text", param="prompt"
    )


def sentence(language: str) -> str:
    """What is spoken in a language; InvalidValue where there is nothing for it."""
    known = TEXTS | {AUTO: TEXTS["english"]}
    if language not in known:
        message = f"language {language!r} has no calibration sentence: give text (--text), or one of {', '.join(known)}"
        raise InvalidValue(message, param="language")
    return known[language]


def _spoken(designer: Qwen3TTS, request: Request, schedule: Sequence[int]) -> Generator[Chunk, None, Speech]:
    """Speak a Request without a word of warning, a Chunk at a time; returns the Speech."""
    plan = designer.planner.plan(request, schedule, Notes(quiet=True))
    decoding = Decoding(designer.generation([], [], designer.sampling), designer.codec.decoder)
    made: list[Chunk] = []
    with SpeechStream(decoding, plan, designer.sample_rate, time.perf_counter()) as stream:
        for chunk in stream:
            made.append(chunk)
            yield chunk
    nothing = mx.zeros((0,)), mx.zeros((0, designer.codec.num_codebooks), mx.int32)
    audio = mx.concatenate([nothing[0], *(chunk.audio for chunk in made)])
    codes = mx.concatenate([nothing[1], *(chunk.codes for chunk in made)])
    mx.eval(audio, codes)
    told = str(stream.finish_reason), stream.stats, stream.warnings
    return Speech(audio, designer.sample_rate, codes, *told, origin=stream.origin)
