"""Recordings of every kind: files that libsndfile cannot read, files with a wrong name, samples of every type."""

import io
import os
import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mlx_qwen3tts.audio.reading import LOUDEST, read_audio
from mlx_qwen3tts.audio.regions import blocks
from mlx_qwen3tts.audio.writing import audio_bytes, wav_samples
from mlx_qwen3tts.errors import AudioError

RATE = 24000
SOUND = (0.4 * np.sin(np.arange(RATE) / 25)).astype(np.float32)
# The first bytes of what libsndfile does not read, and the converters that do, in their order.
KINDS = {
    "speech.m4a": (b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom", ["afconvert", "ffmpeg"]),
    "clip.mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", ["afconvert", "ffmpeg"]),
    "speech.aac": (b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(20), ["afconvert", "ffmpeg"]),
    "speech.webm": (b"\x1aE\xdf\xa3\x9fB\x86\x81\1" + bytes(20), ["ffmpeg"]),
    "speech.wma": (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa\0b\xcel" + bytes(20), ["ffmpeg"]),
    "an m4a by the name of.wav": (b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom", ["afconvert", "ffmpeg"]),
}


def test_a_name_that_is_not_utf_8(tmp_path):
    path = tmp_path / "a\udcff.wav"
    try:
        path.write_bytes(audio_bytes(SOUND, RATE))
    except OSError:
        pytest.skip("this file system has names of UTF-8 alone")
    np.testing.assert_allclose(read_audio(path, RATE), SOUND, atol=1e-4)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A function that puts stand-ins for converters on the PATH, alone, and returns what they were called with.

    Each writes SOUND to its last argument, or fails with a word where it is in `broken`.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "made.wav").write_bytes(audio_bytes(SOUND, RATE))
    monkeypatch.setenv("PATH", str(folder))

    def install(*names, broken=()):
        for name in names:
            last = f"echo '{name} has no idea' >&2; exit 3"
            if name not in broken:
                last = f'for last; do :; done; {shutil.which("cat", path=os.defpath)} {tmp_path}/made.wav > "$last"'
            (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/called\n{last}\n')
            (folder / name).chmod(stat.S_IRWXU)

        def called():
            return (tmp_path / "called").read_text().splitlines() if (tmp_path / "called").exists() else []

        return called

    return install


@pytest.mark.parametrize("name", KINDS)
def test_what_libsndfile_cannot_read_is_converted(name, programs, tmp_path):
    head, readers = KINDS[name]
    (tmp_path / name).write_bytes(head)
    called = programs("ffmpeg", "afconvert")
    assert np.abs(read_audio(tmp_path / name, RATE) - SOUND).max() < 1e-4
    assert np.abs(read_audio(head, RATE) - SOUND).max() < 1e-4  # the bytes of the file do as well
    assert np.abs(np.concatenate(list(blocks(tmp_path / name))) - SOUND).max() < 1e-4
    assert [line.split()[0] for line in called()] == readers[:1] * 3
    assert str(tmp_path / name) in called()[0]


def test_the_other_converter_is_tried_too(programs, tmp_path):
    (tmp_path / "a.m4a").write_bytes(KINDS["speech.m4a"][0])
    called = programs("afconvert", "ffmpeg", broken=["afconvert"])
    assert len(read_audio(tmp_path / "a.m4a", RATE)) == RATE
    assert [line.split()[0] for line in called()] == ["afconvert", "ffmpeg"]
    programs("ffmpeg", broken=["ffmpeg"])
    message = r"a.m4a is MPEG-4 sound \(m4a, mp4\) and could not be converted: afconvert: afconvert has no idea; ffmpeg"
    with pytest.raises(AudioError, match=message):
        read_audio(tmp_path / "a.m4a", RATE)


def test_without_a_converter_the_command_is_named(programs, tmp_path):
    (tmp_path / "my voice.webm").write_bytes(KINDS["speech.webm"][0])
    programs("afconvert")  # which does not read it
    with pytest.raises(AudioError) as refused:
        read_audio(tmp_path / "my voice.webm", RATE)
    assert str(refused.value) == (
        f"audio {tmp_path}/my voice.webm is WebM or Matroska, which needs ffmpeg to be read; install ffmpeg, or "
        f"convert it elsewhere: ffmpeg -i '{tmp_path}/my voice.webm' 'my voice.wav'"
    )


def test_no_converter_is_asked_about_what_is_not_sound(programs, tmp_path):
    called = programs("afconvert", "ffmpeg")
    for content in (b"I am a text file", b"\x89PNG\r\n\x1a\n" + bytes(100), b"", b"\xff", b"#EXTM3U\n/etc/passwd"):
        (tmp_path / "a.m4a").write_bytes(content)
        with pytest.raises(AudioError, match="cannot be read"):
            read_audio(tmp_path / "a.m4a", RATE)
    assert called() == []


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.m4a", "aac"), ("a.aac", "aac"), ("a.webm", "libopus"), ("a.wma", "wmav2"), ("-a.wav", "m4a")],
)
def test_ffmpeg_itself(name, codec, tmp_path):
    (tmp_path / "in.wav").write_bytes(audio_bytes(SOUND, RATE))
    how = ["-c:a", "aac", "-f", "ipod"] if codec == "m4a" else ["-c:a", codec]
    run = ["ffmpeg", "-v", "error", "-i", "in.wav", *how, f"./{name}"]
    if subprocess.run(run, cwd=tmp_path, capture_output=True).returncode:
        pytest.skip(f"this ffmpeg has no encoder {codec}")
    heard = read_audio(tmp_path / name, RATE)
    assert abs(len(heard) - RATE) < 3000  # encoders pad
    spectrum = np.abs(np.fft.rfft(heard[4000:20000] * np.hanning(16000)))
    assert abs(spectrum.argmax() * RATE / 16000 - RATE / 25 / (2 * np.pi)) < 3


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".ogg", ".m4a", ".raw", ".txt", ""])
def test_a_file_is_what_it_holds(kind, suffix, tmp_path):
    (tmp_path / f"speech{suffix}").write_bytes(data := audio_bytes(SOUND, RATE, kind))
    heard = read_audio(tmp_path / f"speech{suffix}", RATE)
    assert np.array_equal(heard, read_audio(data, RATE)) and abs(len(heard) - RATE) < 2400


# Samples


def test_integers_have_the_full_scale_of_their_type():
    for kind, scale in ((np.int8, 2**7), (np.int16, 2**15), (np.int32, 2**31)):
        given = (SOUND.astype(np.float64) * (scale - 1)).astype(kind)
        assert np.abs(read_audio(given, RATE) - SOUND).max() < 2 / scale + 1e-6, kind
    assert np.abs(read_audio(np.round(SOUND * 127 + 128).astype(np.uint8), RATE) - SOUND).max() < 0.01
    assert np.abs(read_audio((wav_samples(SOUND, RATE), RATE), RATE) - SOUND).max() < 1e-4
    assert len(read_audio((wav_samples(SOUND, RATE), 2 * RATE), RATE)) == RATE // 2


@pytest.mark.parametrize("shape", [(1, -1), (-1, 1)])
def test_one_channel_on_either_side(shape):
    assert np.array_equal(read_audio(SOUND.reshape(shape), RATE), SOUND)


def test_channels_on_either_side():
    both = np.stack([SOUND, SOUND * 0.5])
    assert np.array_equal(read_audio((both, RATE), RATE), read_audio((both.T, RATE), RATE))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (SOUND * 32768, r"samples up to 1\.311e\+04; expected them within ±1 \(16-bit integers as floats"),
        (SOUND * 100, r"samples up to 40; expected them within ±1"),
        ((SOUND * 32767).astype(np.int32), "int32 samples of at most 16 bits.*give 16-bit samples as int16"),
        ((SOUND * 32767).astype(np.int64), "dtype int64; expected floats within ±1, or int16, int32, int8 or uint8"),
        ((b"abc", RATE), "audio has 3 bytes; 16-bit samples have an even number"),
        (b"not a sound file at all", "audio cannot be read"),
        (np.zeros((64, 65), np.float32), r"audio has shape \[64, 65\]"),
    ],
)
def test_samples_of_another_scale_are_refused(samples, message):
    with pytest.raises(AudioError, match=message):
        read_audio(samples, RATE)


def test_a_little_over_full_scale_is_sound(tmp_path):
    """As lossy decoders give; files of floats are held to the same."""
    assert np.abs(read_audio(SOUND * 3, RATE)).max() > 1
    buffer = io.BytesIO()
    soundfile.write(buffer, SOUND * 2 * LOUDEST / 0.4, RATE, format="WAV", subtype="FLOAT")
    Path(tmp_path / "a.wav").write_bytes(buffer.getvalue())
    for read in (lambda: read_audio(tmp_path / "a.wav", RATE), lambda: list(blocks(tmp_path / "a.wav"))):
        with pytest.raises(AudioError, match=r"a\.wav has samples up to 32"):
            read()
