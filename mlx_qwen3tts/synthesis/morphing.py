"""A voice that changes while it speaks, as users ask for it."""

from dataclasses import dataclass, replace

from ..errors import InvalidValue
from ..voices.algebra import as_vectors, check_number
from .morph import FRAMES_PER_TOKEN, MODES, Morph, Sentences, path, split_sentences


@dataclass
class Change:
    """morph: what `Qwen3TTS.voice` takes, or a function from seconds to a vector [D]; None: the voice stays.

    seconds: how long it takes, None for as long as the text should; mode: one of MODES.
    """

    morph: object
    seconds: float | None
    mode: str

    def __post_init__(self):
        if self.mode not in MODES:
            raise InvalidValue(f"morph_mode {self.mode!r} is not one of {', '.join(MODES)}")
        if self.morph is None and (self.seconds is not None or self.mode != MODES[0]):
            raise InvalidValue("morph_seconds and morph_mode belong to morph, which is not given")

    def generation(self, tts, text, voice, prompt, how, sampling, seed):
        """What iterates over the Frames: a Generation or Sentences.

        tts: Qwen3TTS; voice: the Voice to start from; prompt: of the whole text; how: (language, instruct, text_mode).
        ValueError for what cannot change.
        """
        if voice is None:
            raise InvalidValue("a voice_design model has no speaker slot, so there is nothing to change")
        if voice.ref_codes is not None:
            raise InvalidValue("a voice that changes must be a vector: reference codes keep their speaker")
        voice_at = self._trajectory(tts, text, voice)
        if self.mode == "live":
            morph = Morph(tts.talker, prompt, voice_at)
            return tts.generation([morph.prompt], [seed], sampling, morph)
        if not isinstance(text, str):
            raise InvalidValue("morph_mode 'sentences' needs the whole text at once, not in pieces")
        parts = split_sentences(text)

        def generation(number, frames, left):
            own = replace(voice, embedding=voice_at(frames))
            sentence = tts.prompt(parts[number], own, *how, left)
            return tts.generation([sentence], [(seed + number) % 2**32], replace(sampling, max_tokens=left))

        return Sentences(len(parts), generation, sampling.max_tokens)

    def _trajectory(self, tts, text, voice):
        """A function from a frame's number to the voice's vector [D] at its time."""
        frame = tts.codec.samples_per_frame / tts.sample_rate
        if callable(self.morph):
            if self.seconds is not None:
                raise InvalidValue("morph_seconds belongs to a morph into a voice; a function knows its own times")
            return lambda number: _vector(self.morph(number * frame), tts.embedding_dim)
        end, seconds = tts.voice(self.morph), self.seconds
        if seconds is None:
            if not isinstance(text, str):
                raise InvalidValue("how long a text in pieces will take is not known: give morph_seconds")
            seconds = FRAMES_PER_TOKEN * len(tts.tokenizer.assistant(text)[1]) * frame
        elif check_number(seconds, "morph_seconds") <= 0:
            raise InvalidValue(f"morph_seconds {seconds} is not above 0")
        return path(voice.embedding, end.embedding, seconds / frame)


def _vector(value, dimension):
    """The vector [D] that a function of the time gave."""
    vector = as_vectors(value, "morph: the vector")
    if vector.ndim != 1 or vector.shape[0] != dimension:
        raise InvalidValue(f"morph: the vector has shape {list(vector.shape)}, this model takes [{dimension}]")
    return vector
