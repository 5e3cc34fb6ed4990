"""Voices compared by what they speak: held-out sentences, spoken by each and held against the recordings.

A lower loss alone does not say that a voice has become better, so the loss alone decides nothing. The vectors of single
sentences of one voice scatter widely, and no less if the sentence is the same: so several are spoken, and all
recordings are what they are held against.
D dimensions of a voice.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..audio.measures import f0_track
from ..errors import MissingExtra
from ..synthesis.request import Request, Sampling
from ..synthesis.speech import Speech
from ..synthesis.tts import Qwen3TTS
from .lessons import Form, foreseen
from .takes import Take

SPEECHES = 8  # of each voice at least, where there are that many sentences or seeds
MOST = 8  # sentences
HEARD = 300.0  # seconds of the recordings that speech is held against
CHUNK = 60.0  # seconds that are heard at once
ROOM = 3  # times the frames of the recording, after which speech is cut
NOISE = 0.005  # of the held-out loss, within which it speaks for nobody
OFF = 0.3  # of the length, beyond which it counts against a voice
PITCH = 0.5  # semitones, beyond which it counts against a voice
LONGER = 0.3  # of the norm, beyond which it counts against a voice
CLEAR = 0.9  # of the x-vector's clarity, below which it counts against a voice


@dataclass(frozen=True)
class Figures:
    """How a voice did. loss: of the clips held out; distance, cosine: of its speech's vector to the recordings', as
    the codec gives them back; pitch: semitones its F0 lies off theirs, None where there is no pitch or no librosa;
    length: how far its speech is off the recordings' length, 0.1 for 10 % longer; ended, of: speeches; clarity: by how
    much worse the model foresees its speech under a text that is not its own, None where there is no other text."""

    loss: float
    norm: float
    distance: float
    cosine: float
    pitch: float | None
    length: float
    ended: int
    of: int
    clarity: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}


def within(takes: Sequence[Take], seconds: float) -> list[Take]:
    """The first takes that together last no longer than so many seconds, but one at least."""
    ends = itertools.accumulate(take.seconds for take in takes)
    return [take for i, (take, end) in enumerate(zip(takes, ends, strict=True)) if i == 0 or end <= seconds]


class Judge:
    """Compares voices by what they speak, which is held against the recordings."""

    def __init__(self, tts: Qwen3TTS, spoken: Sequence[Take], takes: Sequence[Take], form: Form, seed: int) -> None:
        """spoken: whose texts are spoken, MOST at most; takes: all there are, which the speech is held against."""
        self.tts, self.form, self.seed, self.takes = tts, form, seed, within(takes, HEARD)
        self.say(spoken)

    def say(self, spoken: Sequence[Take]) -> None:
        """Speak the texts of the first of these from now on."""
        self.spoken = within(spoken[:MOST], CHUNK)
        self.times = -(-SPEECHES // len(self.spoken))

    @functools.cached_property
    def heard(self) -> mx.array:
        """The vector [D] of the recordings, as the codec gives them back."""
        return self.embed([np.array(self.tts.codec.decode(take.codes)) for take in self.takes])

    def embed(self, sounds: Sequence[np.ndarray]) -> mx.array:
        """The vector [D] of sounds [n], heard one behind the other, a chunk at a time."""
        whole, encoder = np.concatenate(sounds), self.tts.speaker_encoder
        count = max(1, round(whole.size / self.tts.sample_rate / CHUNK))
        chunks = [
            np.pad(chunk, (0, max(0, encoder.shortest[1] - chunk.size))) for chunk in np.array_split(whole, count)
        ]
        vector = mx.stack([encoder.embed(mx.array(chunk)) for chunk in chunks]).mean(axis=0)
        mx.eval(vector)
        return vector

    def speak(
        self, vectors: Sequence[mx.array], seed: int, progress: Callable[[int], object] | None = None
    ) -> list[list[Speech]]:
        """Every sentence in every voice [D], as often as there are seeds; the same seeds for all voices."""
        requests = [
            Request(
                take.clip.text,
                vector,
                language=take.clip.language or self.form.language,
                text_mode=self.form.layout,
                seed=(seed + time) % 2**32,
                sampling=Sampling(max_tokens=ROOM * take.codes.shape[0] + 8),
            )
            for vector in vectors
            for time in range(self.times)
            for take in self.spoken
        ]
        speeches = self.tts.generate_batch(requests, batch_size=8, progress=progress)
        count = len(self.spoken) * self.times
        return [speeches[place : place + count] for place in range(0, len(speeches), count)]

    def lacking(self, vector: mx.array, turn: int, progress: Callable[[int], object] | None = None) -> mx.array:
        """What the speech of a voice [D] lacks of the recordings, the difference [D] of their vectors. turn: every one
        has seeds of its own."""
        [speeches] = self.speak([vector], self.seed + turn * self.times, progress)
        lacks = self.heard - self.embed([np.array(speech.audio) for speech in speeches])
        mx.eval(lacks)
        return lacks

    def compare(
        self,
        vectors: Mapping[str, mx.array],
        losses: Mapping[str, float],
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, Figures]:
        """The Figures of each voice [D] by name; losses: of the clips held out. The first voice listens to all, where
        it is asked how well the model foresees a speech."""
        found, listener = {}, next(iter(vectors.values()))
        high = pitch([np.array(self.tts.codec.decode(take.codes)) for take in self.spoken])
        meant = self.times * sum(take.codes.shape[0] for take in self.spoken)
        spoken = self.speak(list(vectors.values()), self.seed, progress)
        for (name, vector), own in zip(vectors.items(), spoken, strict=True):
            sounds = [np.array(speech.audio) for speech in own]
            vocal, heard = self.embed(sounds), pitch(sounds)
            found[name] = Figures(
                loss=losses[name],
                norm=float(mx.linalg.norm(vector)),
                distance=float(mx.linalg.norm(vocal - self.heard)),
                cosine=_cosine(vocal, self.heard),
                pitch=None if heard is None or high is None else 12 * math.log2(heard / high),
                length=sum(speech.codes.shape[0] for speech in own) / meant - 1,
                ended=sum(speech.finish_reason == "stop" for speech in own),
                of=len(own),
                clarity=self.clarity(own, listener),
            )
        return found

    def clarity(self, speeches: Sequence[Speech], listener: mx.array) -> float | None:
        """The mean difference of a speech's loss under another text and under its own, asked of a voice [D]."""
        differences = []
        for place, speech in enumerate(speeches):
            take = self.spoken[place % len(self.spoken)]
            other = other_text(take, self.takes)
            if other is not None and speech.codes.shape[0]:
                own, wrong = (
                    foreseen(self.tts, text, take.clip.language, speech.codes, listener, self.form)
                    for text in (take.clip.text, other)
                )
                differences.append(wrong - own)
        return float(np.mean(differences)) if differences else None


def other_text(take: Take, others: Sequence[Take]) -> str | None:
    """The text nearest in length that a take does not say; None where all say the same."""
    own = take.clip.text
    texts = [other.clip.text for other in others if other.clip.text != own]
    return min(texts, key=lambda text: (abs(len(text) - len(own)), text), default=None)


def _cosine(a: mx.array, b: mx.array) -> float:
    return float((a * b).sum() / (mx.linalg.norm(a) * mx.linalg.norm(b)))


def against(new: Figures, old: Figures) -> list[str]:
    """What speaks against keeping the new voice in place of the old one; nothing where it is better."""
    found = []
    if not new.loss < old.loss * (1 + NOISE):
        found.append(f"its held-out loss is {new.loss:.3f}, that of the x-vector {old.loss:.3f}")
    if not new.distance < old.distance:
        found.append(f"its speech lies {new.distance:.2f} from the recordings, not nearer than {old.distance:.2f}")
    if new.ended < old.ended:
        found.append(f"{new.of - new.ended} of {new.of} speeches did not end")
    if abs(new.length) > max(OFF, abs(old.length)):
        found.append(f"its speech is {abs(new.length):.0%} too {'long' if new.length > 0 else 'short'}")
    if new.pitch is not None and old.pitch is not None and abs(new.pitch) > max(PITCH, abs(old.pitch)):
        found.append(f"its pitch is {new.pitch:+.1f} semitones off")
    if new.clarity is not None and old.clarity is not None and new.clarity < CLEAR * old.clarity:
        found.append(f"its words are less clear, {new.clarity:.2f} where the x-vector has {old.clarity:.2f}")
    if abs(new.norm / old.norm - 1) > LONGER:
        found.append(f"its norm is {new.norm:.1f}, not within {LONGER:.0%} of {old.norm:.1f}")
    return found


def pitch(sounds: Sequence[np.ndarray]) -> float | None:
    """F0 in Hz of sounds [n] at 24 kHz: the geometric mean of the middle 80 % of the voiced frames; None without ten
    such frames or without librosa."""
    try:
        track = np.concatenate([f0_track(sound) for sound in sounds])
    except MissingExtra:
        return None
    track = np.sort(np.log(track[np.isfinite(track)]))
    if track.size < 10:
        return None
    cut = track.size // 10
    return float(np.exp(track[cut : track.size - cut].mean()))
