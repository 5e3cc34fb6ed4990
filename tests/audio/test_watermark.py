"""The keyed mark: the stream is the whole, what it changes, what it survives, and what has none."""

import hashlib
import io

import numpy as np
import pytest
import soundfile
import soxr

from mlx_qwen3tts.audio import watermark
from mlx_qwen3tts.audio.reading import read_audio
from mlx_qwen3tts.audio.watermark import DEFAULT_KEY, LEAST, THRESHOLD, Marker, detect, mark
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.errors import AudioError, InvalidValue, WrongType

RATE, KEY = 24000, "Anna's own"
RECORDINGS = hub.SHIPPED["miniature"] / "recordings"


@pytest.fixture(scope="module")
def spoken():
    """Five seconds of speech."""
    return read_audio(RECORDINGS / "low.flac", RATE)[: 5 * RATE]


@pytest.fixture(scope="module")
def marked(spoken):
    return mark(spoken, KEY)


def found(samples, rate=RATE, key=KEY):
    return detect(np.asarray(samples, np.float32), rate, [key])[0]


def stored(samples, rate, form, subtype):
    """A sound as libsndfile reads back what it wrote."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    file.seek(0)
    return soundfile.read(file, dtype="float32")


# Marking


def test_the_stream_is_the_whole(spoken):
    draw = np.random.default_rng(0)
    for length in (0, 1, 100, 191, 192, 767, 768, 5000, 48001):
        marker, parts, place = Marker(KEY), [], 0
        while place < length:
            size = int(draw.integers(0, 2500))
            parts.append(marker(spoken[place : min(place + size, length)]))
            place = min(place + size, length)
            assert place - sum(part.size for part in parts) <= 0.040 * RATE  # what it holds back
        parts.append(marker.finish())
        joined, whole = np.concatenate(parts), mark(spoken[:length], KEY)
        assert joined.dtype == np.float32 and joined.size == length
        np.testing.assert_array_equal(joined, whole)


def test_silence_and_what_lies_outside_the_bands_stay(spoken):
    assert not mark(np.zeros(9000, np.float32), KEY).any()
    time = np.arange(RATE) / RATE
    outside = (0.2 * np.sin(2 * np.pi * 100 * time) + 0.2 * np.sin(2 * np.pi * 9000 * time)).astype(np.float32)
    assert np.abs(mark(outside, KEY) - outside)[2000:-2000].max() < 1e-3
    paused = np.concatenate([spoken[:RATE], np.zeros(RATE, np.float32), spoken[:RATE]])
    made = mark(paused, KEY)
    assert not made[RATE + 1000 : 2 * RATE - 1000].any() and made[2 * RATE + 1000 :].any()


def test_the_change_is_small(spoken, marked):
    added = marked - spoken
    ratio = 10 * np.log10(np.square(spoken).sum() / np.square(added).sum())
    assert 19 < ratio < 30
    frames = [np.abs(np.fft.rfft(part[: 768 * 156].reshape(-1, 768) * np.hanning(768))) for part in (spoken, marked)]
    loud = frames[0] > 0.05 * frames[0].max()
    change = 20 * np.log10(frames[1][loud] / frames[0][loud])
    assert 0.2 < np.abs(change).mean() < 1.0 and np.percentile(np.abs(change), 99) < 2.5
    levels = [20 * np.log10(np.linalg.norm(part, axis=1) + 1e-9) for part in frames]
    loud = levels[0] > levels[0].max() - 40
    assert np.abs(levels[1] - levels[0])[loud].max() < 1.5


def test_loud_sound_stays_within_full_scale(spoken):
    made = mark(spoken / np.abs(spoken).max(), KEY)
    assert np.isfinite(made).all() and np.abs(made).max() <= 1


def test_a_key_has_the_signs_that_it_always_had():
    """Files that were marked once are to be found by every later version."""
    signs = watermark.pattern(DEFAULT_KEY)
    assert signs.shape == (40, 43) and set(np.unique(signs)) == {-1.0, 1.0}
    assert hashlib.sha256(signs.astype(np.int8).tobytes()).hexdigest()[:16] == "fd687fe7f5a8d170"
    np.testing.assert_array_equal(watermark.pattern("é"), watermark.pattern("e\N{COMBINING ACUTE ACCENT}"))
    assert (watermark.pattern("other") != signs).mean() > 0.4


# Finding


def noisy(samples):
    power = np.square(samples, dtype=np.float64).mean() / 100
    return samples + np.sqrt(power) * np.random.default_rng(0).standard_normal(samples.size)


HANDLED = {
    "nothing": lambda sound: (sound, RATE),
    "cut to 3 s": lambda sound: (sound[30011:][: 3 * RATE], RATE),
    "mp3": lambda sound: stored(sound, RATE, "MP3", "MPEG_LAYER_III"),
    "opus": lambda sound: stored(sound, RATE, "OGG", "OPUS"),
    "telephone": lambda sound: stored(soxr.resample(sound, RATE, 8000), 8000, "WAV", "ULAW"),
    "stereo at 44.1 kHz": lambda sound: (soxr.resample(np.stack([sound, sound / 2], 1), RATE, 44100), 44100),
    "softly": lambda sound: (sound / 30, RATE),
    "noise at 20 dB": lambda sound: (noisy(sound), RATE),
    "2 % faster": lambda sound: (soxr.resample(sound, RATE * 1.02, RATE), RATE),
    "2 % slower": lambda sound: (soxr.resample(sound, RATE * 0.98, RATE), RATE),
}


@pytest.mark.parametrize("name", HANDLED)
def test_it_is_found_after(name, marked, spoken):
    one = found(*HANDLED[name](marked))
    assert one.present and one.p_false < THRESHOLD and one.key == KEY
    if name in ("mp3", "2 % faster"):
        assert not found(*HANDLED[name](spoken)).present


def test_other_keys_and_unmarked_sound_are_not_found(spoken, marked):
    one, other, ours = detect(marked, RATE, [KEY, "anna's own", DEFAULT_KEY])
    assert one.present and not other.present and not ours.present
    assert other.score < one.score and 0 < one.p_false < 1e-9 < other.p_false <= 1
    assert one.seconds == 5.0
    assert not found(spoken).present
    assert detect(marked, RATE, []) == []


def test_two_keys_on_one_sound(marked):
    assert all(one.present for one in detect(mark(marked, DEFAULT_KEY), RATE, [KEY, DEFAULT_KEY]))


def test_a_marked_part_of_a_long_sound_and_another_rate(spoken):
    draw = np.random.default_rng(1)
    hum = (0.05 * draw.standard_normal(18 * 48000)).astype(np.float32)
    part = mark(soxr.resample(spoken, RATE, 48000), KEY, rate=48000)
    hum[12 * 48000 :][: part.size] = part
    assert found(hum, 48000).present


def test_false_alarms_stay_below_what_p_false_allows(spoken, marked):
    keys = [f"wrong {number}" for number in range(80)]
    for sound in (spoken, marked):
        scores = detect(sound[:72000], RATE, keys)
        assert not any(one.present for one in scores)
        assert sum(one.p_false <= 0.1 for one in scores) <= 8
    assert watermark.false_alarm(0.0, 10) == 1 and watermark.false_alarm(6.0, 2000) < THRESHOLD


def test_a_file_that_is_too_short_says_how_long_it_must_be(marked):
    with pytest.raises(AudioError, match=r"lasts 1\.50 s; a mark needs at least 2 s"):
        found(marked[: 3 * RATE // 2])
    assert found(marked[: int(LEAST * RATE)]).seconds == LEAST


def test_sound_without_anything_in_it_has_no_mark():
    assert found(np.zeros(3 * RATE)) == watermark.Found(KEY, 0.0, 1.0, False, 3.0)


def test_bad_inputs(spoken):
    broken = np.where(np.arange(spoken.size) == 9000, np.nan, spoken).astype(np.float32)
    with pytest.raises(AudioError, match="NaN"):
        mark(broken, KEY)
    with pytest.raises(AudioError, match="NaN"):
        found(broken)
    with pytest.raises(WrongType, match="key must be a text"):
        Marker(7)
    with pytest.raises(InvalidValue, match="key is empty"):
        Marker("")
    with pytest.raises(InvalidValue, match="rate"):
        Marker(KEY, 4000)
    with pytest.raises(WrongType, match="expected floats"):
        mark((spoken * 32767).astype(np.int16), KEY)
    with pytest.raises(WrongType, match="list of texts"):
        detect(spoken, RATE, KEY)
    marker = Marker(KEY)
    marker.finish()
    with pytest.raises(InvalidValue, match="has finished"):
        marker(spoken)
