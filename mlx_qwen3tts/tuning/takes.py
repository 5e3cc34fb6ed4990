"""Clips listened to: checked, encoded, embedded. Nothing of a recording is kept but its codes and vectors.

Codes are kept in the user's folder for caches, by what was encoded and by which codec, so that a second run over the
same recordings need not encode them again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..audio.reading import read_audio
from ..audio.reference import check_reference, speech_seconds
from ..checkpoint.codec import Codec
from ..errors import AudioError, InvalidValue, OutputError, QwenTTSError, listed
from ..files.caches import cache_folder
from ..files.npy import read_npy
from ..files.output import whole_file
from ..synthesis.text import check_text
from ..synthesis.transcript import mismatch
from .data import Clip, Data

RATE = 24000  # Hz
SHORTEST, LONGEST = 0.5, 30.0  # seconds of a clip


@dataclass(frozen=True, eq=False)
class Take:
    """A Clip that was listened to: codes [F, codebooks] int32; vector [D] of the recording; seconds; doubt: why its
    text may not be what is said, or None."""

    clip: Clip
    codes: mx.array
    vector: mx.array
    seconds: float
    doubt: str | None


@dataclass(frozen=True)
class Takes:
    """The Takes of Data, part by part."""

    train: list[Take]
    valid: list[Take]
    test: list[Take]

    @property
    def all(self) -> list[Take]:
        return [*self.train, *self.valid, *self.test]

    @property
    def spoken(self) -> list[Take]:
        """Those whose texts are spoken at the end."""
        return self.test or self.valid


def read_clip(clip: Clip) -> np.ndarray:
    """A clip's samples [n] float32 at RATE, or AudioError or InvalidValue for what cannot be learnt from."""
    check_text(clip.text, "its text", "data")
    samples = read_audio(clip.audio, RATE)
    seconds = samples.size / RATE
    if not SHORTEST <= seconds <= LONGEST:
        raise AudioError(f"audio {clip.audio} lasts {seconds:.2f} s; clips of {SHORTEST} to {LONGEST:.0f} s are taken")
    check_reference(samples, RATE, f"audio {clip.audio}")
    return samples


def usable(data: Data, skip: bool, progress: Callable[[int], object] = lambda _: None) -> tuple[Data, dict[str, str]]:
    """(the Data whose clips can all be learnt from, {a clip's name: why it was left out}).

    skip: leave the others out; else they are an error that names them. progress: called for every clip.
    """
    wrong: dict[str, str] = {}
    for clip in data.clips:
        try:
            read_clip(clip)
        except QwenTTSError as error:
            wrong[clip.where] = str(error).removeprefix("audio ")
        progress(1)
    if wrong and not skip:
        count = f"{len(wrong)} of {len(data.clips)} clips cannot be used; --skip leaves them out"
        raise InvalidValue(f"{count}: {listed(list(wrong.values()), 3)}", param="data")
    left = data.without(set(wrong))
    if not left.train:
        raise InvalidValue(f"data: no clip can be used: {listed(list(wrong.values()), 3)}", param="data")
    return left, wrong


class Codes:
    """Codes of recordings by a codec, kept in the folder `kept`."""

    def __init__(self, codec: Codec, kept: Path | None = None) -> None:
        """kept: by default in the user's folder for caches."""
        self.codec = codec
        self.kept = cache_folder() / "codes" if kept is None else kept
        self.made = 0  # how many were not there
        files = sorted({tensor.path for tensor in codec.part.tensors.values()})
        stats = [(str(path.resolve()), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
        self.identity = repr((stats, codec.num_codebooks)).encode()

    def of(self, samples: np.ndarray) -> mx.array:
        """The codes [F, codebooks] int32 of samples [n] at RATE."""
        digest = hashlib.sha256(self.identity + np.ascontiguousarray(samples, np.float32).tobytes()).hexdigest()
        file = self.kept / f"{digest[:32]}.npy"
        with contextlib.suppress(OSError, QwenTTSError):  # not there, or half a file of a broken disk
            return self.codec.check_codes(mx.array(read_npy(file)))
        codes = self.codec.encode((samples, RATE))
        self.made += 1
        with contextlib.suppress(OSError, OutputError):  # a cache that cannot be written is none
            self.kept.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as temporary:
                np.save(temporary, np.array(codes).astype(np.int16))
        return codes


def listen(
    data: Data,
    codes: Codes,
    embed: Callable[[mx.array], mx.array],
    progress: Callable[[int], object] = lambda _: None,
) -> Takes:
    """The Takes of Data that is `usable`. embed: samples [n] at RATE to the speaker's vector [D]; progress: called for
    every clip."""

    def take(clip: Clip) -> Take:
        samples = read_clip(clip)
        own = codes.of(samples) if clip.codes is None else _given(clip, clip.codes, codes.codec)
        vector = embed(mx.array(samples))
        mx.eval(own, vector)
        seconds = samples.size / RATE
        progress(1)
        return Take(clip, own, vector, seconds, mismatch(clip.text, seconds, speech_seconds(samples, RATE)))

    return Takes(*([take(clip) for clip in part] for part in (data.train, data.valid, data.test)))


def _given(clip: Clip, given: np.ndarray, codec: Codec) -> mx.array:
    """The codes [F][books] that a clip came with, checked."""
    try:
        return codec.check_codes(given)
    except QwenTTSError as error:
        raise InvalidValue(f"data {clip.where}: {error}", param="data") from None


def together(clips: Iterable[Clip], pause: float = 0.4) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """(the samples of clips one after the other, with pauses; the seconds at which each begins and ends)."""
    parts, spans, at = [], [], 0
    silence = np.zeros(round(pause * RATE), np.float32)
    for clip in clips:
        samples = read_clip(clip)
        spans.append((at / RATE, (at + samples.size) / RATE))
        parts += [samples, silence]
        at += samples.size + silence.size
    return np.concatenate(parts), spans
