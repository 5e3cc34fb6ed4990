"""A voice that changes while it speaks.

The speaker vector fills one position of the prompt. Its keys and values, and those of what follows it in the prompt
(two more positions in the streaming layout), are recomputed from their cached prefix with the new vector and written
into the cache. Frames that are already spoken keep the old voice in theirs. Where that is too weak, each sentence can
have a prompt of its own.
"""

import itertools
import re
from dataclasses import replace

MODES = ("live", "sentences")
FRAMES_PER_TOKEN = 3.5  # of speech, to tell how long a text will take; measured are three to four

# After the marks that end a sentence, with what closes around them; the scripts without spaces need none.
END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？])[”’」』）]*\s*|\n\s*\n")


class Morph:
    """The voice of a prompt as a function of time, written into the caches before each frame.

    prompt: with the voice of the first frame.
    """

    def __init__(self, talker, prompt, voice_at):
        """talker: Talker; prompt: Prompt with a speaker; voice_at: function from a frame's number to a vector [E]."""
        self.talker, self.voice_at = talker, voice_at
        self.prompt = replace(prompt, embeddings=prompt.spoken_by(voice_at(0)))

    def revise(self, caches, frame):
        """Put the voice of a frame into the caches of a generation of this prompt alone."""
        start = self.prompt.speaker_position
        self.talker.revise(self.prompt.spoken_by(self.voice_at(frame))[None, start:], caches, start)


class Sentences:
    """A Generation for each sentence in turn, as if they were one; each has a prompt with the voice of its time."""

    def __init__(self, count, generation, max_tokens):
        """count of sentences; generation: function (number, frames spoken so far, tokens left) -> Generation of one
        prompt; max_tokens: of them all."""
        self.count, self.generation, self.max_tokens = count, generation, max_tokens
        self.finish_reasons = [None]

    def __iter__(self):
        spoken = 0
        for number in range(self.count):
            left = self.max_tokens - spoken
            if left < 2:
                break
            generation = self.generation(number, spoken, left)
            for frame in generation:
                spoken += 1
                yield frame
            if generation.finish_reasons == ["length"]:
                break
        else:
            self.finish_reasons = ["stop"]
            return
        self.finish_reasons = ["length"]


def split_sentences(text):
    """A text's sentences, their marks included; at least one."""
    starts = [0, *(match.end() for match in END.finditer(text)), len(text)]
    parts = [text[start:end].strip() for start, end in itertools.pairwise(starts)]
    return [part for part in parts if any(c.isalnum() for c in part)] or [text]


def path(start, end, frames):
    """A function from a frame's number to a vector on the straight way from `start` to `end` [E], there at `frames`."""

    def at(frame):
        t = min(1.0, frame / frames)
        return (1 - t) * start + t * end

    return at
