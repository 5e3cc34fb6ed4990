"""Sound to the bytes of a format while it is being made, and whole.

A stream cannot be gone back to, so what an encoder would write into its head at the end (lengths, checksums) stays as
it was: decoders take such files for endless ones and play them to their end.

aac, and opus in pages of 20 ms, come from PyAV (the extra `av`); the other formats, and without it opus in pages of a
second, from libsndfile.
"""

from __future__ import annotations

import importlib
import io
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..errors import UnsupportedValue
from .formats import CONTENT_TYPES
from .reading import Samples
from .tags import STREAMED, Tags, id3, libav_metadata, put_strings
from .writing import audio_bytes, wav_head, wav_samples

# The rates in Hz that a format has; of the others every one.
MPEG_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
FORMAT_RATES = {"mp3": MPEG_RATES, "aac": MPEG_RATES, "opus": OPUS_RATES}
# What libsndfile is asked for: (format, subtype, further options).
SNDFILE = {
    "mp3": ("MP3", None, {"bitrate_mode": "CONSTANT", "compression_level": 0.5}),  # some 75 kb/s, no head to patch
    "flac": ("FLAC", "PCM_16", {}),
    "opus": ("OGG", "OPUS", {}),  # pages of a second
}
# What PyAV is asked for: (container, codec, its samples, its options, those of the container).
LIBAV = {
    "aac": ("adts", "aac", "fltp", {"b": "64000"}, {}),
    "opus": ("ogg", "libopus", "flt", {"b": "48000"}, {"page_duration": "20000"}),
}


class Encoder(Protocol):
    """Turns samples into bytes, some at once and the rest at the end."""

    def add(self, samples: Samples) -> bytes:
        """The bytes that are certain with further samples [n] within ±1; there may be none yet."""
        ...

    def finish(self) -> bytes:
        """The bytes that are left. Nothing can be added afterwards."""
        ...


def encoder(kind: str, rate: int, tags: Tags | None = None) -> Encoder:
    """The Encoder of a format of CONTENT_TYPES for mono sound of a rate in Hz; its first bytes have the tags, which pcm
    alone has none of. UnsupportedValue where a format has no such rate."""
    check_rate(kind, rate)
    if kind == "pcm":
        return PcmEncoder(rate)
    if kind == "wav":
        return PcmEncoder(rate, wav_head(rate, None, tags and tags.within(STREAMED)))
    if kind in LIBAV and libav():
        return LibavEncoder(kind, rate, tags)
    return SndfileEncoder(kind, rate, tags)


def check_rate(kind: str, rate: int) -> None:
    """UnsupportedValue where a format is not one, or has no such rate in Hz."""
    check_format(kind)
    rates = FORMAT_RATES.get(kind, (rate,))
    if rate not in rates:
        known = ", ".join(map(str, rates))
        raise UnsupportedValue(f"{kind} has no sample rate of {rate} Hz; it has {known}", param="sample_rate")


def encoded(kind: str, samples: Samples, rate: int, tags: Tags | None = None) -> bytes:
    """A whole sound [n] in a format of CONTENT_TYPES, its head complete."""
    check_format(kind)
    if kind in ("wav", "pcm"):
        return audio_bytes(samples, rate, "WAV" if kind == "wav" else "RAW", tags)
    if kind in ("mp3", "flac"):
        return audio_bytes(samples, rate, kind.upper(), tags)
    made = encoder(kind, rate, tags)
    return made.add(samples) + made.finish()


def check_format(kind: str) -> str:
    """The format itself; UnsupportedValue for what is not one, or needs an extra that is missing."""
    if kind not in CONTENT_TYPES:
        raise UnsupportedValue(f"format {kind!r} is not one of {', '.join(CONTENT_TYPES)}", param="response_format")
    if kind == "aac" and not libav():
        raise UnsupportedValue("aac needs av: pip install 'mlx-qwen3tts[av]'", param="response_format")
    return kind


def libav() -> ModuleType | None:
    """PyAV, or None where it is not installed."""
    try:
        return importlib.import_module("av")
    except ModuleNotFoundError:
        return None


class PcmEncoder:
    """16-bit samples, with a head of unknown length in front for a WAV."""

    def __init__(self, rate: int, head: bytes = b"") -> None:
        self.rate, self.head = rate, head

    def add(self, samples: Samples) -> bytes:
        head, self.head = self.head, b""
        return head + wav_samples(samples, self.rate)

    def finish(self) -> bytes:
        return self.head


class SndfileEncoder:
    """A format of libsndfile, written to a sink from which the bytes are taken as they come."""

    def __init__(self, kind: str, rate: int, tags: Tags | None = None) -> None:
        import soundfile

        self.sink = Sink()
        form, subtype, options = SNDFILE[kind]
        sink: Any = self.sink  # its type asks for more than it uses
        self.file = soundfile.SoundFile(sink, "w", rate, 1, subtype, format=form, **options)
        self.blank = kind == "mp3"  # its first frame is kept free for a head, and is 24 to 72 ms of silence
        self.head = id3(tags) if kind == "mp3" else b""
        if kind != "mp3":
            put_strings(self.file, tags)

    def add(self, samples: Samples) -> bytes:
        self.file.write(np.asarray(samples, np.float32))
        self.file.flush()
        return self._take()

    def finish(self) -> bytes:
        self.file.close()
        return self._take()

    def _take(self) -> bytes:
        data = self.sink.take()
        if self.blank and data:
            self.blank = False
            if not any(data[4:17]):  # behind a frame's four bytes of head, where the file's would begin
                data = data[4:].lstrip(b"\0")
        if data:
            data, self.head = self.head + data, b""
        return data


class LibavEncoder:
    """A format of PyAV, packet by packet."""

    def __init__(self, kind: str, rate: int, tags: Tags | None = None) -> None:
        av = libav()
        assert av is not None, "asked for by its name"
        container, codec, self.form, options, how = LIBAV[kind]
        self.sink, self.rate, self.av = Sink(), rate, av
        self.file = av.open(self.sink, "w", format=container, options={"flush_packets": "1", **how})
        self.stream = self.file.add_stream(codec, rate, options, layout="mono")
        self.head = id3(tags) if container == "adts" else b""
        if not self.head:
            self.file.metadata.update(libav_metadata(tags))
        self.file.start_encoding()

    def add(self, samples: Samples) -> bytes:
        if not len(samples):
            return b""
        frame = self.av.AudioFrame.from_ndarray(np.asarray(samples, np.float32)[None], self.form, "mono")
        frame.sample_rate = self.rate
        self.file.mux(self.stream.encode(frame))
        return self._take()

    def finish(self) -> bytes:
        self.file.mux(self.stream.encode(None))
        self.file.close()
        return self._take()

    def _take(self) -> bytes:
        data = self.sink.take()
        if data:
            data, self.head = self.head + data, b""
        return data


class Sink(io.RawIOBase):
    """A file whose beginning has been sent already: what is written there later is lost."""

    def __init__(self) -> None:
        self.sent, self.kept, self.place = 0, bytearray(), 0

    def take(self) -> bytes:
        """The bytes since the last time, which are out of reach from now on."""
        data = bytes(self.kept)
        self.sent += len(data)
        self.kept.clear()
        return data

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]  (libsndfile's bytes)
        end = self.place + len(data)
        start = max(self.place, self.sent)
        if end > start:
            self.kept[start - self.sent : end - self.sent] = data[start - self.place :]
        self.place = end
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self.place = (0, self.place, self.sent + len(self.kept))[whence] + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, size: int = -1, /) -> bytes:
        return b""
