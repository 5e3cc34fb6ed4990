"""Measures of recordings, against sounds whose pitch, rate, level and brightness are known; and the CSV of labels."""

import sys
import time
import warnings

import numpy as np
import pytest
import soundfile
from scipy.signal import lfilter

from mlx_qwen3tts.audio.measures import MEASURES, check_csv, measure, read_csv, row, write_csv
from mlx_qwen3tts.errors import AudioError, InvalidValue, MissingExtra, OutputError

RATE = 24000


def voice(f0, seconds=2.0, vibrato=0.0, syllables=0.0, slope=1.0, gain=0.3):
    """Harmonics of f0 [Hz] that fall with their number to the power of `slope`.

    vibrato: semitones to either side, once a second; syllables: a second, each a swell and fall of the level.
    """
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = f0 * 2 ** (vibrato / 12 * np.sin(2 * np.pi * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = sum(np.sin(k * phase) / k**slope for k in range(1, int(5000 / f0)))
    if syllables:
        sound = sound * (0.02 + np.sin(np.pi * syllables * time) ** 2)
    return (gain * sound / np.abs(sound).max()).astype(np.float32)


def noise(seconds=2.0, gain=0.1, seed=0):
    return (gain * np.random.RandomState(seed).randn(int(seconds * RATE))).astype(np.float32)


def whisper(seconds=2.0):
    """Noise through three narrow formants, in syllables: a frame here and there looks periodic."""
    sound = noise(seconds)
    for formant, width in ((400, 80), (1800, 120), (2700, 150)):
        radius = np.exp(-np.pi * width / RATE)
        sound = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2], sound)
    swell = 0.1 + np.sin(2 * np.pi * 2 * np.arange(sound.size) / RATE) ** 2
    return (0.3 * sound * swell / np.abs(sound * swell).max()).astype(np.float32)


@pytest.mark.parametrize("f0", [80, 120, 210, 300, 480])
def test_pitch(f0):
    values = measure(voice(f0))
    assert list(values) == list(MEASURES)
    assert values["f0_median"] == pytest.approx(f0, rel=0.005)
    assert values["f0_range"] < 0.3 and values["voiced"] > 0.95 and values["seconds"] == 2


@pytest.mark.parametrize("extent", [1.0, 4.0])
def test_pitch_range(extent):
    """A sine is within 0.988 of its extent for nine tenths of the time."""
    values = measure(voice(150, vibrato=extent))
    assert values["f0_range"] == pytest.approx(2 * 0.988 * extent, rel=0.06)
    assert values["f0_median"] == pytest.approx(150, rel=0.01)


@pytest.mark.parametrize("syllables", [2, 3.5, 6])
def test_speaking_rate(syllables):
    assert measure(voice(140, 4.0, syllables=syllables))["speaking_rate"] == pytest.approx(syllables, rel=0.05)


def test_silence_and_hissing_are_no_syllables():
    speech, gap = voice(140, 2.0, syllables=2), np.zeros(RATE, np.float32)
    plain, parted = measure(speech), measure(np.concatenate([gap, speech, gap, speech, gap]))
    assert parted["speaking_rate"] == pytest.approx(plain["speaking_rate"], rel=0.05)
    for name in ("energy", "f0_median", "voiced", "brightness"):
        assert parted[name] == pytest.approx(plain[name], rel=0.03)
    between = np.sin(np.pi * 2 * np.arange(speech.size) / RATE) ** 2 < 0.15  # an eighth of a second
    mixed = measure(np.where(between, noise(2.0, 0.1), speech))
    assert mixed["speaking_rate"] == pytest.approx(plain["speaking_rate"], rel=0.15)
    assert mixed["brightness"] > 1.3 * plain["brightness"]


def test_a_hum_in_the_pauses_is_not_the_voice():
    hum = voice(65, 2.0, slope=2.0, gain=0.003)
    assert measure(np.concatenate([hum, voice(200, 1.0), hum]))["f0_median"] == pytest.approx(200, rel=0.01)


def test_level_and_what_does_not_depend_on_it():
    loud, quiet = measure(voice(160, syllables=4)), measure(voice(160, syllables=4, gain=0.03))
    assert loud["energy"] - quiet["energy"] == pytest.approx(20, abs=0.01)
    for name in ("f0_median", "f0_range", "voiced", "speaking_rate", "brightness"):
        assert quiet[name] == pytest.approx(loud[name], rel=0.01)
    full = np.sin(2 * np.pi * 200 * np.arange(2 * RATE) / RATE)
    with pytest.warns(UserWarning, match="clipped"):
        assert measure(full)["energy"] == pytest.approx(-3.01, abs=0.05)


def test_brightness():
    dark, bright = (measure(voice(150, slope=slope))["brightness"] for slope in (2.0, 0.5))
    assert dark < 0.6 * bright
    tone = 0.3 * np.sin(2 * np.pi * 500 * np.arange(2 * RATE) / RATE)
    assert measure(tone)["brightness"] == pytest.approx(500, rel=0.1)


@pytest.mark.parametrize("sound", [noise(), whisper(), np.cumsum(noise(gain=0.001)).astype(np.float32)])
def test_what_has_no_voice_has_no_pitch(sound, tmp_path):
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    with pytest.warns(UserWarning, match=r"audio .*a\.wav has no voice that could be measured: F0 and speaking rate"):
        values = measure(tmp_path / "a.wav")
    assert (values["f0_median"], values["f0_range"], values["speaking_rate"]) == (None, None, None)
    assert values["voiced"] == 0 and values["brightness"] > 0 and values["energy"] < 0
    told = row(tmp_path / "a.wav", values)
    assert (told["f0_median"], told["voiced"], told["seconds"]) == ("", "0.000", "2.00")


def test_other_rates_and_channels(tmp_path):
    import soxr

    sound = voice(130, syllables=4)
    reference = measure(sound)
    other = soxr.resample(sound, RATE, 44100)
    soundfile.write(tmp_path / "a.wav", np.stack([other, other], axis=1), 44100)
    for source in (tmp_path / "a.wav", str(tmp_path / "a.wav"), (other, 44100)):
        values = measure(source)
        for name in MEASURES:
            assert values[name] == pytest.approx(reference[name], rel=0.02), name
    assert measure(soxr.resample(sound, RATE, 22050), 22050)["speaking_rate"] == pytest.approx(4, rel=0.05)


def test_what_cannot_be_measured(tmp_path, monkeypatch):
    with pytest.raises(AudioError, match=r"lasts 0\.20 s"):
        measure(voice(120, 0.2))
    with pytest.raises(AudioError, match="is silent"):
        measure(np.zeros(RATE, np.float32))
    with pytest.raises(AudioError, match="no such file"):
        measure(tmp_path / "nothing.wav")
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(MissingExtra, match=r"needs librosa: pip install .*\[voices\]'$"):
        measure(voice(120))


def test_real_recordings(shared):
    measure(voice(120, 1.0))  # numba compiles at the first call
    values = {}
    for name in ("english_ryan", "italian_vivian"):
        started = time.perf_counter()
        values[name] = measure(shared / "audio" / f"{name}.wav")
        assert time.perf_counter() - started < 0.5 * values[name]["seconds"]
    man, woman = values["english_ryan"], values["italian_vivian"]
    assert 95 < man["f0_median"] < 135 and 220 < woman["f0_median"] < 320
    for measured in values.values():
        assert 2 < measured["speaking_rate"] < 7 and 0.4 < measured["voiced"] <= 1
        assert 4 < measured["f0_range"] < 24 and -40 < measured["energy"] < -10
        assert 1000 < measured["brightness"] < 5000


# The CSV of labels


def test_a_name_that_a_table_cannot_hold_is_refused(tmp_path):
    path = tmp_path / "labels.csv"
    with pytest.raises(InvalidValue, match=r"labels\.csv: 'rec/\\udcff\.wav' is not UTF-8; rename the file"):
        write_csv(path, [ANNA, row("rec/\udcff.wav", dict.fromkeys(MEASURES, 1.0))])
    assert not path.exists()


ANNA = row("rec/anna.wav", dict.fromkeys(MEASURES, 1.0))
BEN = row("rec/ben.wav", dict.fromkeys(MEASURES, 2.0) | {"f0_median": None})


def test_writing_and_reading_labels(tmp_path):
    path = tmp_path / "labels.csv"
    check_csv(path)
    write_csv(path, [ANNA, BEN])
    assert path.read_text().splitlines() == [
        "file,name,f0_median,f0_range,voiced,speaking_rate,energy,brightness,seconds",
        "rec/anna.wav,anna,1.0,1.00,1.000,1.00,1.0,1,1.00",
        "rec/ben.wav,ben,,2.00,2.000,2.00,2.0,2,2.00",
    ]
    assert read_csv(path) == [ANNA, BEN]
    write_csv(path, [ANNA])  # again: nothing doubles, nothing goes
    assert read_csv(path) == [ANNA, BEN]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("key", ["name,gender,note\nanna", "gender,file,note\nrec/../rec/anna.wav"])
def test_own_labels_are_kept(mark, key, tmp_path):
    path = tmp_path / "labels.csv"
    if key.startswith("name"):
        text = 'name,gender,note\nanna,female,"höher, ""klar"""\nclara,female,\n'
    else:
        text = 'name,gender,file,note\nAnna K.,female,./rec/anna.wav,"höher, ""klar"""\nclara,female,c.wav,\n'
    path.write_text(mark + text, encoding="utf-8")
    write_csv(path, [{**ANNA, "energy": "-9.0"}, BEN])
    anna, clara, ben = read_csv(path)
    assert (anna["gender"], anna["note"], anna["energy"]) == ("female", 'höher, "klar"', "-9.0")
    assert anna["name"] == ("anna" if key.startswith("name") else "Anna K.")
    assert (clara["name"], clara["gender"], clara["energy"]) == ("clara", "female", "")
    assert (ben["name"], ben["gender"], ben["energy"]) == ("ben", "", "2.0")
    assert path.read_text(encoding="utf-8").startswith(mark + text.splitlines()[0] + ",")  # own columns first
    before = path.read_bytes()
    write_csv(path, [{**ANNA, "energy": "-9.0"}, BEN])
    assert path.read_bytes() == before


def test_recordings_of_one_name_in_two_folders(tmp_path):
    path = tmp_path / "labels.csv"
    write_csv(path, [ANNA, {**ANNA, "file": "more/anna.wav", "energy": "5.0"}])
    assert [(line["file"], line["energy"]) for line in read_csv(path)] == [
        ("rec/anna.wav", "1.0"),
        ("more/anna.wav", "5.0"),
    ]
    path.write_text("name,gender\nanna,f\nanna,m\n")
    with pytest.raises(InvalidValue, match=r"2 rows match rec/anna\.wav; fill in their 'file'"):
        write_csv(path, [ANNA])
    assert path.read_text() == "name,gender\nanna,f\nanna,m\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "needs a column 'file' or 'name', separated by commas; it is empty"),
        (b"name;gender\nanna;f\n", "separated by commas; its columns are 'name;gender'"),
        (b"speaker,gender\nanna,f\n", "its columns are 'speaker', 'gender'"),
        (b"name,gender,gender\nanna,f,f\n", "the column name 'gender' is empty or occurs twice"),
        (b"name,,gender\nanna,,f\n", "the column name '' is empty or occurs twice"),
        (b"name,gender\nanna,f\nben\n", "row 3 has 1 cells, the first 2"),
        (b'name,gender\n"anna"x,f\n', "not a CSV file"),
        (b"name,gender\nann\xe4,f\n", "not UTF-8 text; save it as CSV UTF-8"),
    ],
)
def test_what_is_no_file_of_labels(data, message, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(data)
    for refuse in (lambda: read_csv(path), lambda: check_csv(path), lambda: write_csv(path, [ANNA])):
        with pytest.raises(InvalidValue) as raised:
            refuse()
        assert message in str(raised.value)
    assert path.read_bytes() == data and list(tmp_path.iterdir()) == [path]


def test_places_that_labels_cannot_have(tmp_path):
    with pytest.raises(InvalidValue, match="no such file"):
        read_csv(tmp_path / "labels.csv")
    with pytest.raises(OutputError, match=r"the extension must be \.csv"):
        check_csv(tmp_path / "labels.txt")
    with pytest.raises(OutputError, match="does not exist"):
        check_csv(tmp_path / "nowhere" / "labels.csv")


@pytest.fixture(autouse=True)
def quiet():
    """Two seconds are short for a reference, and some are quiet, which is not what is tested here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is short; ", UserWarning)
        warnings.filterwarnings("ignore", ".* of silence in one piece", UserWarning)
        warnings.filterwarnings("ignore", ".* level is low", UserWarning)
        yield
