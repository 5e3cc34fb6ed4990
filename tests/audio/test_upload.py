"""Recordings that come as bytes: what is read, how far, and that what is damaged is an AudioError, nothing else."""

import io
import sys

import av
import numpy as np
import pytest
import soundfile

from mlx_qwen3tts.audio.upload import read_upload
from mlx_qwen3tts.errors import AudioError

RATE = 24000
# name: (container, codec, form of its samples)
MADE = {"m4a": ("ipod", "aac", "fltp"), "mp4": ("mp4", "aac", "fltp"), "webm": ("webm", "libopus", "flt")}
MADE["aac"] = ("adts", "aac", "fltp")


@pytest.fixture(scope="module")
def tone():
    return (0.3 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tone):
    """{name: bytes} of a second of sound; mp4 has two channels, the second at half the level."""
    made = {}
    for name, (container, codec, form) in MADE.items():
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container) as file:
            layout = "stereo" if name == "mp4" else "mono"
            stream = file.add_stream(codec, RATE, layout=layout)
            channels = np.stack([tone, tone / 2]) if name == "mp4" else tone[None]
            frame = av.AudioFrame.from_ndarray(channels, form, layout)
            frame.sample_rate = RATE
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        made[name] = buffer.getvalue()
    for name in ("wav", "flac", "mp3", "ogg"):
        buffer = io.BytesIO()
        soundfile.write(buffer, tone, RATE, format=name)
        made[name] = buffer.getvalue()
    return made


NAMES = [*MADE, "wav", "flac", "mp3", "ogg"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read(files, tone, name):
    found = read_upload(files[name], RATE, 60)
    assert found.dtype == np.float32 and 0 <= found.size - tone.size <= 3 * 1024
    level = np.sqrt(np.mean(found[RATE // 4 : RATE // 2] ** 2)) / np.sqrt(np.mean(tone**2))
    assert level == pytest.approx(0.75 if name == "mp4" else 1, rel=0.05)
    assert read_upload(files[name], 16000, 60).size == pytest.approx(found.size * 2 / 3, abs=2)


@pytest.mark.parametrize("name", NAMES)
def test_no_more_is_decoded_than_is_taken(files, name, monkeypatch):
    with pytest.raises(AudioError, match="lasts"):
        read_upload(files[name], RATE, 0.5)
    if name in MADE:  # an hour in a file is given up as soon as it is known to be too long
        decoded, plain = 0, av.AudioResampler

        class Counting:
            def __init__(self, form):
                self.inner = plain(form)

            def resample(self, frame):
                nonlocal decoded
                decoded += frame.samples
                return self.inner.resample(frame)

        monkeypatch.setattr(av, "AudioResampler", Counting)
        with pytest.raises(AudioError, match="lasts"):
            read_upload(files[name], RATE, 0.25)
        assert decoded < RATE / 2 + 2048  # opus comes at 48 kHz


@pytest.mark.parametrize("name", MADE)
def test_without_av_the_extra_is_named(files, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"need av: pip install 'mlx-qwen3tts\[av\]'"):
        read_upload(files[name], RATE, 60)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(files, name):
    """300 truncations and flipped bits over all kinds: read as far as it goes, or an AudioError."""
    random, whole, refused = np.random.RandomState(len(name)), files[name], 0
    for number in range(38):
        data = bytearray(whole)
        if number % 2:
            del data[random.randint(len(data)) :]
        else:
            within = len(data) if number % 4 else min(len(data), 500)
            for place in random.randint(within, size=random.randint(1, 12)):
                data[place] ^= 1 << random.randint(8)
        try:
            assert read_upload(bytes(data), RATE, 60).size < 61 * RATE
        except AudioError as error:
            assert "Traceback" not in str(error) and "<none>" not in str(error)
            refused += 1
    assert refused > 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        b"\0\0\0\x18ftypM4A ",
        b"\x1aE\xdf\xa3",
        b"\xff\xf1",
    ],
)
def test_what_is_no_recording(data):
    with pytest.raises(AudioError, match="the recording"):
        read_upload(data, RATE, 60)
