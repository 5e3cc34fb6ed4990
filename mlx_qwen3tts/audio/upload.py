"""A recording that came as bytes from somebody who may mean harm."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np

from ..errors import AudioError
from .encoding import libav
from .reading import read_audio, too_long
from .tags import ID3_HEAD, id3_size

BLOCK = 1 << 16  # frames
MOST_CHANNELS, MOST_RATE = 32, 768_000
# Containers that libsndfile does not know: (first bytes, how many bytes come before them, PyAV's name). It reads these
# alone: among its formats are playlists, which name other files.
CONTAINERS = ((b"ftyp", 4, "mov"), (b"\x1aE\xdf\xa3", 0, "matroska"), (b"\xff\xf1", 0, "aac"), (b"\xff\xf9", 0, "aac"))


def read_upload(data: bytes, rate: int, longest: float) -> np.ndarray:
    """The bytes of a sound file as mono float32 samples [n] at `rate`. AudioError for whatever is not one.

    It is decoded block by block and given up after `longest` seconds, whatever its head says of its length: a kilobyte
    can unpack to hours.
    """
    sound = data[id3_size(data[:ID3_HEAD]) :]  # aac may have tags in front, as mp3 has
    kind = next((name for first, place, name in CONTAINERS if sound[place : place + 8].startswith(first)), None)
    blocks, parts, frames, original = _libav(sound, kind) if kind else _sndfile(data), [], 0, 0
    for block, original in blocks:
        if block.shape[1] > MOST_CHANNELS or not 0 < original <= MOST_RATE:
            raise AudioError(f"the recording has {block.shape[1]} channels at {original} Hz")
        parts.append(block.mean(axis=1, dtype=np.float32))
        frames += len(block)
        if frames > longest * original:
            raise too_long("the recording", frames / original)
    if not frames:
        raise AudioError("the recording is empty")
    return read_audio((np.concatenate(parts), original), rate)


def _sndfile(data: bytes) -> Iterator[tuple[np.ndarray, int]]:
    """(samples [n, channels], rate), again and again."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            while len(block := file.read(BLOCK // file.channels + 1, dtype="float32", always_2d=True)):
                yield block, file.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"the recording cannot be read: {error.error_string}") from None


def _libav(data: bytes, kind: str) -> Iterator[tuple[np.ndarray, int]]:
    """The same of a container of PyAV."""
    av = libav()
    if av is None:
        raise AudioError("m4a, mp4, aac and webm need av: pip install 'mlx-qwen3tts[av]', or send a wav, flac or mp3")
    how = {"protocol_whitelist": "none"}  # a container may name other files too
    try:
        with av.open(io.BytesIO(data), format=kind, options=how, metadata_errors="ignore") as file:
            if not file.streams.audio:
                raise AudioError("the recording has no sound in it")
            plain, rate = av.AudioResampler("fltp"), 0
            for frame in file.decode(audio=0):
                rate = rate or frame.sample_rate
                for part in plain.resample(frame):
                    yield part.to_ndarray().T, rate
    except (av.FFmpegError, ValueError) as error:  # a ValueError where the format changes on the way
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"the recording cannot be read: {getattr(error, 'strerror', None) or error}") from None
