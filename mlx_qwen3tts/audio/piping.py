"""Sound on stdout: whole, or as a WAV whose samples leave while they are made."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

from ..errors import OutputError
from .reading import Samples
from .tags import STREAMED, Tags
from .writing import wav_head, wav_samples


def write_stdout(data: bytes) -> None:
    """Write bytes to stdout at once. OutputError where they cannot be written, BrokenPipeError where nobody listens."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write stdout: {error.strerror}") from None


class Piped:
    """A WAV that goes to stdout while it is made. Where stdout is a file, its head gets its length at the end."""

    def __init__(self, rate: int) -> None:
        out = sys.stdout.buffer
        self.rate, self.size, self.tags = rate, 0, None
        self.start = out.tell() if out.seekable() and not _appends(out) else None

    def write(self, samples: Samples, tags: Tags | None = None) -> None:
        """Samples [n] within ±1; the head goes before the first, with the tags that are given then."""
        data = wav_samples(samples, self.rate)
        if not self.size:
            self.tags = tags and tags.within(STREAMED)
        write_stdout(data if self.size else wav_head(self.rate, None, self.tags) + data)
        self.size += len(data)

    def close(self) -> None:
        out = sys.stdout.buffer
        head = wav_head(self.rate, self.size, self.tags)
        if self.start is None or not self.size or out.tell() != self.start + len(head) + self.size:
            return
        out.seek(self.start)
        write_stdout(head)
        out.seek(0, os.SEEK_END)


def _appends(file: BinaryIO) -> bool:
    """Whether a file takes everything at its end, wherever it is sought (>> of a shell)."""
    import fcntl

    try:
        return bool(fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_APPEND)
    except OSError:  # one in memory has no descriptor
        return False
