"""Recordings that cannot serve as a voice."""

import io

import numpy as np
import pytest
import soundfile

from mlx_qwen3tts.audio.writing import audio_bytes
from mlx_qwen3tts.errors import AudioError


def wav(samples, rate=24000, subtype="PCM_16", kind="WAV"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def tone(seconds, rate=24000, loudness=0.3):
    time = np.arange(int(seconds * rate)) / rate
    return loudness * np.sin(2 * np.pi * 150 * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))


def with_nan(samples):
    samples[100] = np.nan
    return samples


TONE = tone(3.5)
RECORDINGS = [
    ("silent.wav", wav(TONE * 0), "is silent"),
    ("faint.wav", wav(TONE * 1e-4, subtype="FLOAT"), "is silent"),
    ("constant.wav", wav(TONE * 0 + 0.5), "is silent"),
    ("empty.wav", wav(TONE[:0]), "is empty"),
    ("short.wav", wav(tone(0.4)), "lasts 0.40 s; at least 0.5 s are needed"),
    ("short-8k.wav", wav(tone(0.49, 8000), 8000), "lasts 0.49 s; at least 0.5 s are needed"),
    ("long.wav", wav(tone(61)), "lasts 61.0 s; at most 60 s are taken, cut it"),
    ("nan.wav", wav(with_nan(tone(1)), subtype="FLOAT"), "has samples that are NaN or infinite"),
    ("inf.wav", wav(tone(1) * 1e300, subtype="DOUBLE"), "has samples that are NaN or infinite"),
    ("absurd.wav", wav(tone(1) * 1e30, subtype="FLOAT"), "expected them within ±1"),
    ("words.wav", b"I am a text file with a nice name.", "cannot be read: "),
    ("nothing.wav", b"", "cannot be read: "),
    ("header.wav", wav(TONE)[:20], "cannot be read: "),
    ("cut.wav", wav(TONE)[:2000], "at least 0.5 s are needed"),
    ("image.png", b"\x89PNG\r\n\x1a\n" + bytes(100), "cannot be read: "),
    ("samples.raw", bytes(48000), "raw samples have no header; convert it to .wav"),
]


@pytest.mark.parametrize(("name", "content", "message"), RECORDINGS, ids=[name for name, *_ in RECORDINGS])
def test_recordings_that_are_no_reference(name, content, message, refused, checkpoint, tmp_path):
    (tmp_path / name).write_bytes(content)
    model = ("--model", checkpoint("base"))
    for prepare in ((), ("--prepare",)):
        for run in (
            ("embed", *model, name, "--output", "v.npy"),
            ("generate", *model, "--ref-audio", name, "Hello."),
            ("generate", *model, "--ref-audio", name, "--ref-text", "Hi.", "Hello."),
        ):
            told = refused(*run, *prepare)
            assert told.startswith(f"audio {name}") and message in told


def test_recordings_that_are_no_files(refused, checkpoint, tmp_path):
    (tmp_path / "folder.wav").mkdir()
    for name, message in (("folder.wav", "not a regular file"), ("nowhere.wav", "no such file")):
        for run in (("embed", name, "--output", "v.npy"), ("generate", "--ref-audio", name, "Hello.")):
            assert refused(*run, "--model", checkpoint("base")) == f"audio {name}: {message}"


def test_little_speech_in_much_silence(refused, command, checkpoint, tmp_path):
    (tmp_path / "click.wav").write_bytes(wav(np.concatenate([np.zeros(48000), tone(0.1), np.zeros(48000)])))
    run = ("embed", "--model", checkpoint("base"), "click.wav", "--output", "v.npy")
    assert "s without its silence; 0.5 s are needed" in refused(*run, "--prepare")
    assert "silence in one piece (--prepare trims the ends)" in command(*run).err


TAKEN = [
    ("stereo.wav", wav(np.stack([TONE, TONE], axis=1))),
    ("six-channels.wav", wav(np.stack([TONE] * 6, axis=1))),
    ("8k.wav", wav(tone(3.5, 8000), 8000)),
    ("44k1.wav", wav(tone(3.5, 44100), 44100)),
    ("96k.wav", wav(tone(3.5, 96000), 96000)),
    ("float64.wav", wav(TONE, subtype="DOUBLE")),
    ("24-bit.wav", wav(TONE, subtype="PCM_24")),
    ("8-bit.wav", wav(TONE, subtype="PCM_U8")),
    ("speech.flac", wav(TONE, kind="FLAC")),
    ("speech.mp3", audio_bytes(TONE, 24000, "MP3")),
    ("speech.ogg", audio_bytes(TONE, 24000, "OGG")),
    ("an mp3 by the name of.wav", audio_bytes(TONE, 24000, "MP3")),
]


def test_recordings_that_are_taken(command, checkpoint, tmp_path):
    """Rate, channels and coding hardly change the vector."""
    run = ("embed", "--model", checkpoint("base"), "--output", "v.npy")
    (tmp_path / "plain.wav").write_bytes(wav(TONE))
    assert command(*run, "plain.wav").status == 0
    plain = np.load("v.npy")
    for name, content in TAKEN:
        (tmp_path / name).write_bytes(content)
        ran = command(*run, name)
        assert ran.status == 0 and "warning" not in ran.err, name
        assert np.linalg.norm(np.load("v.npy") - plain) < 0.5 * np.linalg.norm(plain), name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((np.zeros(24000, np.float32), "24000"), "sample rate '24000' is not a positive integer"),
        ((np.zeros(24000, np.float32), 0), "sample rate 0 is not a positive integer"),
        (
            (np.zeros((4, 4, 4), np.float32), 24000),
            r"audio has shape \[4, 4, 4\]; expected \[samples\] or \[samples, channels\]",
        ),
        (np.zeros(24000, np.int64), "audio samples have dtype int64"),
        (np.zeros(0, np.float32), "audio is empty"),
        (np.zeros(24000, np.float32), "audio is silent"),
        (None, "audio samples have dtype object"),
    ],
)
def test_bad_recordings_in_python(given, message, model):
    with pytest.raises(AudioError, match=message):
        model("base").embed(given)
