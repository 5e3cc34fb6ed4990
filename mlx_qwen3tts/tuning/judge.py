"""Voices compared by what they speak: sentences that were held out, spoken by each and held against the recordings.

A lower loss alone does not say that a voice has become better, so the loss alone decides nothing.
D dimensions of a voice.
"""

from __future__ import annotations

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
from .lessons import Form
from .takes import Take

SPEECHES = 4  # of each voice at least, where there are that many sentences or seeds
MOST = 8  # sentences
HEARD = 60.0  # seconds of the recordings that speech is held against
ROOM = 3  # times the frames of the recording, after which speech is cut
NOISE = 0.005  # of the held-out loss, within which it speaks for nobody
OFF = 0.3  # of the length, beyond which it counts against a voice
PITCH = 0.5  # semitones, beyond which it counts against a voice
LONGER = 0.3  # of the norm, beyond which it counts against a voice


@dataclass(frozen=True)
class Figures:
    """How a voice did. loss: of the clips held out; distance, cosine: of its speech's vector to the recordings', as
    the codec gives them back; pitch: semitones its F0 lies off theirs, None where there is no pitch or no librosa;
    length: how far its speech is off the recordings' length, 0.1 for 10 % longer; ended, of: speeches."""

    loss: float
    norm: float
    distance: float
    cosine: float
    pitch: float | None
    length: float
    ended: int
    of: int

    def as_dict(self) -> dict[str, Any]:
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}


class Judge:
    """Compares voices on Takes that none of them was fitted to."""

    def __init__(self, tts: Qwen3TTS, spoken: Sequence[Take], takes: Sequence[Take], form: Form, seed: int) -> None:
        """spoken: whose texts are spoken; takes: all there are, which the speech is held against."""
        self.tts, self.form, self.seed = tts, form, seed
        self.spoken = list(spoken[:MOST])
        self.times = -(-SPEECHES // len(self.spoken))
        sounds, seconds = list[np.ndarray](), 0.0
        for take in [*self.spoken, *(take for take in takes if take not in self.spoken)]:
            if seconds < HEARD:
                sounds.append(np.array(tts.codec.decode(take.codes)))
                seconds += take.seconds
        self.heard = self._embed(sounds)
        self.pitch = pitch(sounds[: len(self.spoken)])

    def _embed(self, sounds: Sequence[np.ndarray]) -> mx.array:
        """The vector [D] of sounds [n], heard as one."""
        whole = np.concatenate(sounds)[: round(HEARD * self.tts.sample_rate)]
        shortest = self.tts.speaker_encoder.shortest[1]
        vector = self.tts.speaker_encoder.embed(mx.array(np.pad(whole, (0, max(0, shortest - whole.size)))))
        mx.eval(vector)
        return vector

    def speak(self, vectors: Sequence[mx.array], progress: Callable[[int], object] | None = None) -> list[list[Speech]]:
        """Every sentence in every voice [D], as often as there are seeds; the same seeds for all voices."""
        requests = [
            Request(
                take.clip.text,
                vector,
                language=take.clip.language or self.form.language,
                text_mode=self.form.layout,
                seed=self.seed + time,
                sampling=Sampling(max_tokens=ROOM * take.codes.shape[0] + 8),
            )
            for vector in vectors
            for take in self.spoken
            for time in range(self.times)
        ]
        speeches = self.tts.generate_batch(requests, batch_size=8, progress=progress)
        count = len(self.spoken) * self.times
        return [speeches[place : place + count] for place in range(0, len(speeches), count)]

    def corrected(self, vector: mx.array, progress: Callable[[int], object] | None = None) -> mx.array:
        """A voice [D] moved by what its speech lacks of the recordings: the difference of their vectors."""
        [speeches] = self.speak([vector], progress)
        moved = vector + self.heard - self._embed([np.array(speech.audio) for speech in speeches])
        mx.eval(moved)
        return moved

    def compare(
        self,
        vectors: Mapping[str, mx.array],
        losses: Mapping[str, float],
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, Figures]:
        """The Figures of each voice [D] by name; losses: of the clips held out."""
        found = {}
        meant = self.times * sum(take.codes.shape[0] for take in self.spoken)
        for (name, vector), own in zip(vectors.items(), self.speak(list(vectors.values()), progress), strict=True):
            sounds = [np.array(speech.audio) for speech in own]
            spoken, heard = self._embed(sounds), pitch(sounds)
            found[name] = Figures(
                loss=losses[name],
                norm=float(mx.linalg.norm(vector)),
                distance=float(mx.linalg.norm(spoken - self.heard)),
                cosine=_cosine(spoken, self.heard),
                pitch=None if heard is None or self.pitch is None else 12 * math.log2(heard / self.pitch),
                length=sum(speech.codes.shape[0] for speech in own) / meant - 1,
                ended=sum(speech.finish_reason == "stop" for speech in own),
                of=len(own),
            )
        return found


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
