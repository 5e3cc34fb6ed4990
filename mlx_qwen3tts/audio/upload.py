"""A recording that came as bytes from somebody who may mean harm."""

from __future__ import annotations

import io

import numpy as np

from ..errors import AudioError
from .reading import read_audio, too_long

BLOCK = 1 << 16  # frames


def read_upload(data: bytes, rate: int, longest: float) -> np.ndarray:
    """The bytes of a sound file as mono float32 samples [n] at `rate`.

    It is decoded block by block and given up after `longest` seconds, whatever its head says of its length: a kilobyte
    can unpack to hours.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.channels > 32:
                raise AudioError(f"the recording has {file.channels} channels")
            most, blocks, frames = int(longest * file.samplerate) + 1, [], 0
            while frames < most and len(block := file.read(min(BLOCK, most - frames), dtype="float32")):
                blocks.append(block)
                frames += len(block)
            if frames >= most:
                raise too_long("the recording", frames / file.samplerate)
            if not blocks:
                raise AudioError("the recording is empty")
            return read_audio((np.concatenate(blocks), file.samplerate), rate)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"the recording cannot be read: {error.error_string}") from None
