"""Formats while they are being made: equal to the files' sound, soon there, and what cannot be had is said."""

import io
import struct
import sys

import av
import numpy as np
import pytest
import soundfile
import soxr

from mlx_qwen3tts.audio.encoding import CONTENT_TYPES, FORMAT_RATES, LibavEncoder, SndfileEncoder, encoded, encoder
from mlx_qwen3tts.audio.writing import write_audio
from mlx_qwen3tts.errors import UnsupportedValue

RATE, PIECE = 24000, 1920
LOSSY = ("mp3", "opus", "aac")


@pytest.fixture(scope="module")
def sound():
    """Two seconds that change all the time: two voices' harmonics in syllables, after a beginning at full level."""
    time = np.arange(2 * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(140 * (1 + 0.2 * np.sin(2 * np.pi * 1.3 * time))) / RATE
    voice = sum(np.sin(k * phase + k * k) / k for k in range(1, 22)) * (0.3 + np.sin(np.pi * 3 * time + 1.2) ** 2)
    return (0.4 * voice / np.abs(voice).max()).astype(np.float32)


def decoded(data, rate=RATE):
    """Samples [n] at `rate` of any sound file."""
    with av.open(io.BytesIO(data)) as file:
        original = file.streams.audio[0].rate
        parts = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
    made = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    made = made / 2.0 ** (8 * made.dtype.itemsize - 1) if made.dtype.kind == "i" else made
    return soxr.resample(made.astype(np.float32), original, rate)


def streamed(kind, samples, rate=RATE, made=None):
    """The bytes after every piece of 80 ms, the last those of `finish`."""
    made = made or encoder(kind, rate)
    parts = [made.add(samples[start : start + PIECE]) for start in range(0, samples.size, PIECE)]
    return [*parts, made.finish()]


def likeness(found, wanted):
    """(delay in samples, correlation) of what was decoded with the sound that it should be."""
    piece = wanted[PIECE : 9 * PIECE]
    searched = np.pad(found, (0, piece.size))[: piece.size + PIECE + 2 * PIECE]
    delay = int(np.correlate(searched, piece, "valid").argmax())
    return delay - PIECE, np.corrcoef(searched[delay : delay + piece.size], piece)[0, 1]


@pytest.mark.parametrize("kind", CONTENT_TYPES)
def test_a_stream_has_the_sound_of_the_file(sound, kind, tmp_path):
    stream = b"".join(streamed(kind, sound))
    found = np.frombuffer(stream, "<i2") / 32768 if kind == "pcm" else decoded(stream)
    if kind in LOSSY:
        delay, correlation = likeness(found, sound)
        assert 0 <= delay <= 1200 and correlation > 0.99, (delay, correlation)
        assert 0 <= found.size - sound.size <= 3 * 1152
    if kind in ("wav", "flac", "mp3"):
        write_audio(tmp_path / f"a.{kind}", sound, RATE)
        file = decoded((tmp_path / f"a.{kind}").read_bytes())
    else:
        data = encoded(kind, sound, RATE)
        file = np.frombuffer(data, "<i2") / 32768 if kind == "pcm" else decoded(data)
    if kind in LOSSY:
        delay, correlation = likeness(file, sound)
        assert correlation > 0.99 and likeness(found, sound)[0] - delay in range(-1, 1200)
    else:
        np.testing.assert_array_equal(found, file)
        np.testing.assert_allclose(found, sound, atol=1 / 32768)


@pytest.mark.parametrize("kind", ["pcm", "wav", "mp3", "aac", "opus"])
def test_every_piece_gives_bytes(sound, kind):
    """No bytes wait for a second of sound; a coder of frames may keep one piece back."""
    parts = streamed(kind, sound)
    sizes = np.array([len(part) for part in parts[:-1]])
    assert (sizes == 0).sum() <= (kind == "aac") + (kind == "mp3"), sizes
    assert sizes.max() < 4 * np.median(sizes)


def test_the_first_piece_of_an_mp3_is_heard_soon(sound):
    """libsndfile writes no head that would hold it back, and a decoder gets sound from the first bytes alone."""
    parts = streamed("mp3", sound)
    assert 400 < len(parts[0]) < 1500
    heard = decoded(parts[0] + parts[1])
    assert heard.size >= PIECE
    delay, correlation = likeness(decoded(b"".join(parts)), sound)
    assert delay <= 1105 + 1 and correlation > 0.99  # 46 ms: the encoder's 576 and the decoder's 529 samples


def test_opus_without_av_comes_in_pages_of_a_second(sound, monkeypatch):
    assert isinstance(encoder("opus", RATE), LibavEncoder)
    monkeypatch.setitem(sys.modules, "av", None)
    made = encoder("opus", RATE)
    monkeypatch.undo()
    assert isinstance(made, SndfileEncoder)
    delay, correlation = likeness(decoded(b"".join(streamed("opus", sound, made=made))), sound)
    assert abs(delay) < 200 and correlation > 0.99


def test_aac_without_av_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for ask in (lambda: encoder("aac", RATE), lambda: encoded("aac", np.zeros(9, np.float32), RATE)):
        with pytest.raises(UnsupportedValue, match=r"aac needs av: pip install 'mlx-qwen3tts\[av\]'") as caught:
            ask()
        assert caught.value.param == "response_format"


def test_a_format_that_is_not_known():
    with pytest.raises(UnsupportedValue, match="format 'ogg' is not one of mp3, opus, aac, flac, wav, pcm"):
        encoder("ogg", RATE)


@pytest.mark.parametrize("kind", FORMAT_RATES)
def test_every_rate_that_a_format_has(sound, kind):
    for rate in FORMAT_RATES[kind]:
        data = b"".join(streamed(kind, sound[:rate], rate))
        assert decoded(data, rate).size >= min(rate, sound.size) - 1
    with pytest.raises(UnsupportedValue, match=f"{kind} has no sample rate of 9000 Hz") as caught:
        encoder(kind, 9000)
    assert caught.value.param == "sample_rate"


@pytest.mark.parametrize("kind", CONTENT_TYPES)
@pytest.mark.parametrize("samples", [0, 1, 100])
def test_next_to_nothing(kind, samples):
    for data in (
        b"".join(streamed(kind, np.zeros(samples, np.float32))),
        encoded(kind, np.zeros(samples, np.float32), RATE),
    ):
        assert data or not samples or kind == "flac", "a FLAC of a stream needs a block"
        assert encoder(kind, RATE).finish() is not None


def test_the_head_of_a_streamed_wav_says_that_the_length_is_not_known(sound):
    stream = b"".join(streamed("wav", sound))
    assert struct.unpack_from("<I", stream, 4)[0] == struct.unpack_from("<I", stream, 40)[0] == 0xFFFFFFFF
    whole = encoded("wav", sound, RATE)
    assert struct.unpack_from("<I", whole, 40)[0] == 2 * sound.size == len(whole) - 44
    assert soundfile.info(io.BytesIO(encoded("flac", sound, RATE))).frames == sound.size


def test_samples_beyond_full_scale_are_cut():
    loud = np.array([1.5, -1.5, 1.0, -1.0], np.float32)
    found = np.frombuffer(encoder("pcm", RATE).add(loud), "<i2")
    np.testing.assert_array_equal(found, [32767, -32768, 32767, -32768])
