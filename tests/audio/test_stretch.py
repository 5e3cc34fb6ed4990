"""Speech at another speed: pitch, length, level, and pieces that join to the whole; and the rate of a Request."""

import tracemalloc
import warnings

import numpy as np
import pytest
import soundfile

from mlx_qwen3tts import Qwen3TTS, Request, Voice
from mlx_qwen3tts.audio.measures import f0_track
from mlx_qwen3tts.audio.stretch import FASTEST, SLOWEST, Stretch, stretched
from mlx_qwen3tts.errors import InvalidValue, WrongType

RATE, PIECE = 24000, 1920
SPEEDS = (SLOWEST, 0.5, 0.8, 1.3, 2.0, 3.3, FASTEST)


@pytest.fixture(scope="module")
def tts():
    return Qwen3TTS.from_pretrained("miniature", dtype="float32")


@pytest.fixture(scope="module")
def vector(tts):
    """One of the miniature's voices."""
    return np.array(Voice.load(tts.folder.folder / "voices" / "voice01.safetensors").embedding)


@pytest.fixture(scope="module")
def spoken(tts, vector):
    """Two seconds of the miniature's speech."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = "Hello, this is my voice. Good morning. One two three four five."
        return np.array(tts.generate(text, vector, language="English", seed=1, max_tokens=28).audio)


def vowel(f0, seconds=1.0):
    """Harmonics of f0 [Hz] that glide up by a tenth."""
    time = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * f0 * (time + 0.05 * time**2 / seconds)
    sound = sum(np.sin(k * phase) / k for k in range(1, int(4000 / f0)))
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def pieces(samples, speed, size):
    stretch, parts = Stretch(RATE, speed), []
    for start in range(0, samples.size, size):
        parts.append(stretch.step(samples[start : start + size], last=start + size >= samples.size))
    assert stretch.made == sum(part.size for part in parts)
    return parts


@pytest.mark.parametrize("speed", SPEEDS)
def test_pieces_join_to_the_whole(spoken, speed):
    whole = stretched(spoken, RATE, speed)
    assert whole.dtype == np.float32 and whole.size == round(spoken.size / speed)
    for size in (PIECE, 313, 7000, spoken.size - 1):
        np.testing.assert_array_equal(np.concatenate(pieces(spoken, speed, size)), whole)


def test_an_end_that_comes_by_itself(spoken):
    """As a stream learns that there is no more only after its last samples."""
    stretch = Stretch(RATE, 3.9)
    parts = [stretch.step(spoken), stretch.step(spoken[:0], last=True), stretch.step(spoken[:0], last=True)]
    np.testing.assert_array_equal(np.concatenate(parts), stretched(spoken, RATE, 3.9))
    assert parts[2].size == 0


def test_the_first_piece_gives_sound_at_once(spoken):
    for speed in SPEEDS:
        first = Stretch(RATE, speed).step(spoken[:PIECE])
        assert first.size >= 240
        np.testing.assert_array_equal(first[:240], spoken[:240])  # nothing is put in front


@pytest.mark.parametrize(("f0", "speed"), [(75, 0.5), (130, 1.5), (220, 0.75), (400, 2.0)])
def test_pitch_level_and_waveform_are_kept(f0, speed):
    sound = vowel(f0)
    made = stretched(sound, RATE, speed)
    before, after = f0_track(sound), f0_track(made)
    here = np.round(np.arange(2, after.size - 2) * speed).astype(int)
    cents = 1200 * np.log2(after[2:-2] / before[np.minimum(here, before.size - 1)])
    assert np.isfinite(cents).mean() > 0.95 and np.nanmedian(np.abs(cents)) <= 20
    assert abs(10 * np.log10(np.mean(made**2) / np.mean(sound**2))) < 0.5  # dB
    # No step at a border of pieces or windows is larger than the sound's own.
    assert np.abs(np.diff(made)).max() < 1.3 * np.abs(np.diff(sound)).max()


def test_noise_keeps_its_level_and_silence_stays_silent():
    noise = (0.1 * np.random.RandomState(0).randn(RATE)).astype(np.float32)
    for speed in (0.5, 0.9, 1.1, 2.0):
        assert -1.3 < 10 * np.log10(np.mean(stretched(noise, RATE, speed) ** 2) / np.mean(noise**2)) < 0.2
        assert not stretched(np.zeros(RATE, np.float32), RATE, speed).any()


def test_speed_1_changes_nothing(spoken):
    quiet = np.concatenate([spoken, np.zeros(PIECE, np.float32), spoken * 1e-5])
    np.testing.assert_array_equal(stretched(quiet, RATE, 1.0), quiet)


@pytest.mark.parametrize("samples", [0, 1, 100, 683])
def test_short_sounds(samples):
    sound = np.linspace(-0.5, 0.5, samples, dtype=np.float32)
    for speed in SPEEDS:
        made = stretched(sound, RATE, speed)
        assert made.size == round(samples / speed) and np.isfinite(made).all()


def test_what_is_held_does_not_grow(spoken):
    stretch, held = Stretch(RATE, 1.7), []
    tracemalloc.start()
    try:
        for _ in range(60):
            stretch.step(spoken[:PIECE])
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(held[10:]) < held[9] + 4 * PIECE  # bytes: less than one piece


@pytest.mark.parametrize("speed", [0.1, 5, float("nan")])
def test_speeds_that_are_refused(speed):
    with pytest.raises(InvalidValue, match="speed"):
        Stretch(RATE, speed)


# The rate of a Request


def test_a_request_checks_its_rate():
    assert Request("One.").rate == 1.0 and Request("One.", rate=2).rate == 2.0
    for rate in (0.4, 2.1, float("nan")):
        with pytest.raises(InvalidValue, match="rate") as caught:
            Request("One.", rate=rate)
        assert caught.value.param == "rate"
    with pytest.raises(WrongType, match="rate must be a number"):
        Request("One.", rate="fast")  # pyright: ignore[reportArgumentType]


def test_generate_stream_and_batch_have_one_sound(tts, vector):
    rate = 1.6
    how = {"language": "English", "seed": 1, "max_tokens": 14}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = tts.generate("One two three.", vector, **how)
        speech = tts.generate("One two three.", vector, rate=rate, **how)
        np.testing.assert_array_equal(speech.codes, plain.codes)
        # In float32 alone generate decodes other chunks than stream, whose samples differ by rounding.
        np.testing.assert_allclose(speech.audio, stretched(np.array(plain.audio), RATE, rate), atol=1e-4)
        assert speech.audio.shape[0] == round(plain.audio.shape[0] / rate)
        assert speech.stats["seconds"] == pytest.approx(speech.audio.shape[0] / RATE)

        stream = tts.stream("One two three.", vector, rate=rate, **how)
        chunks = list(stream)
        assert [chunk.codes.shape[0] for chunk in chunks][-1] == 0 and chunks[0].audio.size > 240
        audio = np.concatenate([chunk.audio for chunk in chunks])
        np.testing.assert_array_equal(np.concatenate([chunk.codes for chunk in chunks]), plain.codes)
        assert audio.size == speech.audio.size and stream.stats["seconds"] == pytest.approx(audio.size / RATE)
        assert np.corrcoef(audio, speech.audio)[0, 1] > 0.999

        heard = []
        whole = tts.stream("One two three.", vector, rate=rate, **how).speech(heard.append)
        np.testing.assert_array_equal(np.concatenate([chunk.audio for chunk in heard]), whole.audio)
        np.testing.assert_array_equal(audio, whole.audio)
        assert whole.stats["seconds"] == pytest.approx(audio.size / RATE)

        batch = tts.generate_batch(
            ["One two three.", "One two three."], vector, rates=[1.0, rate], seeds=1, max_tokens=14
        )
        assert [one.audio.shape[0] for one in batch] == [
            round(one.codes.shape[0] * PIECE / r) for one, r in zip(batch, (1.0, rate), strict=True)
        ]
        assert batch[1].stats["seconds"] == pytest.approx(batch[1].audio.shape[0] / RATE)


def test_a_stream_that_is_left_counts_what_was_heard(tts, vector):
    stream = tts.stream("One two three.", vector, rate=0.5, seed=1)
    chunk = next(stream)
    stream.close()
    assert stream.stats["seconds"] == pytest.approx(chunk.audio.shape[0] / RATE)


def test_ctrl_c_keeps_what_was_spoken_at_its_rate(tts, vector):
    from mlx_qwen3tts.synthesis.speech import Interrupted

    heard = []

    def stop(frames):
        if frames == 9:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        tts.stream("One two three.", vector, rate=2.0, seed=1, progress=stop).speech(heard.append)
    speech = caught.value.speech
    assert speech.audio.shape[0] == round(speech.codes.shape[0] * PIECE / 2) > 0
    np.testing.assert_array_equal(np.concatenate([chunk.audio for chunk in heard]), speech.audio)
    assert speech.stats["seconds"] == pytest.approx(speech.audio.shape[0] / RATE)


def test_the_command_has_a_rate(command, refused, tmp_path, vector):
    np.save(tmp_path / "v.npy", vector)
    how = ("--model", "miniature", "--dtype", "float32", "--embedding", "v.npy", "--seed", 1, "--max-tokens", 5)
    (tmp_path / "lines.txt").write_text("Hello.\nZebra.\n")
    batch = ("--text-file", "lines.txt", "--batch-size", 2, "--output", "out", "--codes-output", "codes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = command("generate", *how, "--rate", 1.5, "--codes-output", "a.npy", "--output", "a.wav", "Hello.")
        assert made.status == command("generate", *how, "--rate", 0.5, *batch).status == 0
    pairs = [("a.wav", "a.npy", 1.5), ("out/0001.wav", "codes/0001.npy", 0.5), ("out/0002.wav", "codes/0002.npy", 0.5)]
    for sound, codes, rate in pairs:
        assert soundfile.info(tmp_path / sound).frames == round(len(np.load(tmp_path / codes)) * PIECE / rate) > 0
    assert "rate 3" in refused("generate", *how, "--rate", 3, "Hello.")
