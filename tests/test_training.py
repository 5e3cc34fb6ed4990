"""The recipe's parts that need no torch: what is said, voices, pitch locked to frames, the measures of the gates."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from training import __main__ as recipe
from training import acoustics, ctc, lock
from training.corpus import VOICES, draw, texts
from training.espeak import Speaker
from training.language import FIXED, PUNCTUATION, WORDS, errors, sentence, words


def hum(f0, seconds=2.0, formants=1.0):
    """Samples of a voice that rises by a tenth: harmonics with two resonances."""
    time = np.arange(int(24000 * seconds)) / 24000
    pitch = f0 * (1 + 0.1 * time / seconds)
    phase = 2 * np.pi * np.cumsum(pitch) / 24000
    sound = np.zeros_like(time)
    for k in range(1, int(5000 / f0)):
        gain = sum(1 / (1 + ((k * pitch - formants * peak) / 150) ** 2) for peak in (600, 1500, 2600))
        sound += gain * np.cos(k * phase)
    return (0.1 * sound / np.abs(sound).max()).astype(np.float32)


def test_sentences_are_of_the_vocabulary():
    generator = random.Random(0)
    said = [sentence(generator) for _ in range(2000)]
    assert {word for line in said for word in words(line)} == set(WORDS)
    assert {c for line in said for c in line if not c.isalnum() and c != " "} == set(PUNCTUATION)


def test_errors():
    assert errors(["a", "b", "c"], ["a", "c"]) == 1 and errors([], ["a"]) == 1 and errors(["a"], ["b"]) == 1
    assert errors(["a", "b"], ["a", "b"]) == 0


def test_nobody_else_says_what_the_held_out_voices_say():
    speakers = draw(seed=1)
    said = texts(speakers, seed=2)
    lines = {}
    for speaker, own in zip(speakers, said, strict=True):
        assert len(own) == VOICES[speaker["split"]][1]
        kind = "held" if speaker["split"] in ("valid", "test") else "taught"
        lines.setdefault(kind, set()).update(line.lower().strip(".?!") for line in own)
    assert not lines["held"] & (lines["taught"] | FIXED) and lines["taught"] >= FIXED


def test_attributes_are_drawn_independently_and_voices_lie_between():
    speakers = draw(seed=1)
    features = np.array([s["speaker"].features() for s in speakers if s["split"] == "train"])
    assert np.abs(features.mean(0)).max() < 0.1 and np.abs(features.std(0) - 1).max() < 0.1
    assert np.abs(np.corrcoef(features.T) - np.eye(4)).max() < 0.1
    one, other = Speaker(100, 0.9, -1, 130), Speaker(200, 1.1, 1, 150)
    middle = Speaker.between(one, other, 0.5)
    assert np.allclose(np.mean([one.features(), other.features()], 0), middle.features())


@pytest.mark.parametrize("f0", [90, 147, 230])
def test_a_locked_voice_has_whole_periods_in_a_frame(f0):
    sound = hum(f0)
    locked, periods = lock.locked(sound, 0.9 * f0, 1.4 * f0)
    assert len(locked) == len(sound) and (periods[1:-1] > 0).all()
    spectra = np.fft.rfft(locked.reshape(-1, lock.FRAME))[2:-2]
    power = np.abs(spectra[:, 1:400]) ** 2
    for row, count in zip(power, periods[2:-2], strict=True):
        assert row[count - 1 :: count].sum() > 0.85 * row.sum()
    assert abs(np.mean(periods[1:-1]) - f0 * 1.05 * lock.FRAME / lock.RATE) < 0.3  # the mean pitch is where it was
    # every frame begins where the fundamental peaks
    inner = range(2, len(periods) - 2)
    starts = [np.fft.rfft(locked[n * lock.FRAME : (n + 1) * lock.FRAME])[periods[n]] for n in inner]
    assert np.abs(np.angle(starts)).max() < 1.0


def test_what_has_no_voice_stays_as_it_is():
    noise = np.random.default_rng(0).normal(0, 0.05, 19200).astype(np.float32)
    locked, periods = lock.locked(noise, 90, 140)
    assert np.array_equal(locked, noise) and not periods.any()


def test_measures():
    assert acoustics.f0(hum(150)) == pytest.approx(150 * 1.05, rel=0.02)
    assert np.isnan(acoustics.f0(np.random.default_rng(0).normal(0, 0.05, 24000)))
    plain = hum(120)
    assert acoustics.formant_shift(hum(120, formants=1.1), plain) == pytest.approx(1.1, rel=0.03)
    assert acoustics.formant_shift(hum(170), plain) == pytest.approx(1.0, abs=0.03)  # pitch is no formant


def test_words_are_placed_in_time():
    scores = np.log(np.full((12, 4), 0.05))
    for step, label in ((1, 2), (4, 1), (5, 1), (9, 1)):  # word 2, then word 1 twice
        scores[step] = np.log([0.05, 0.05, 0.05, 0.05])
        scores[step, label] = np.log(0.85)
    for step in (0, 2, 3, 6, 7, 8, 10, 11):
        scores[step, 0] = np.log(0.85)
    heard = ctc.place_words(scores, [2, 1, 1])
    assert heard.tolist() == [1, 4.5, 9]
    assert ctc.of_frames(heard, 12).tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    with pytest.raises(ValueError, match="too few"):
        ctc.place_words(scores[:4], [1, 1, 1])


def test_the_likeliest_path_is_found():
    generator = np.random.default_rng(0)
    scores = np.log(generator.dirichlet(np.ones(4), 7))
    for labels in ([1], [2, 2], [3, 1, 2]):
        best, where = -np.inf, None
        for path in itertools.product(range(4), repeat=7):  # every one that reads as the labels
            if ctc.read(path, [1, 2, 3]) == labels and (score := scores[range(7), path].sum()) > best:
                best, where = score, path
        runs = [[t for t, _ in run] for k, run in itertools.groupby(enumerate(where), lambda pair: pair[1]) if k]
        assert np.allclose(ctc.place_words(scores, labels), [np.mean(run) for run in runs])


@pytest.fixture
def torch_python(tmp_path):
    """A stand-in for the python of the stages: notes what it is given, and fails for `mels` while FAILS exists."""
    path = tmp_path / "python"
    path.write_text(
        f'#!/bin/sh\ncd "{tmp_path}"\necho "$@" >> ran\ncase "$*" in *mels*) test ! -e fails || '
        "{ echo the gate is missed; exit 1; } ;; esac\n"
    )
    path.chmod(0o755)
    return str(path)


def test_the_plan_runs_in_order_once_and_stops_at_a_gate(tmp_path, torch_python, monkeypatch):
    monkeypatch.setattr(recipe, "WAIT", 0.02)
    plan, work = recipe.PLAN[:2] + recipe.PLAN[4:6], tmp_path / "work"
    work.mkdir()
    (tmp_path / "fails").touch()
    with pytest.raises(SystemExit, match=r"mels failed after .* s: the gate is missed"):
        for chains in plan:
            recipe.run_together(chains, torch_python, work, 0.5)
    assert (work / "corpus.done").exists() and not (work / "mels.done").exists()
    (tmp_path / "fails").unlink()
    (tmp_path / "ran").write_text("")
    (work / "lock.done").touch()
    for chains in plan:
        recipe.run_together(chains, torch_python, work, 0.5)
    ran = (tmp_path / "ran").read_text().splitlines()
    assert ran[:2] == [f"-m training.mels {work}", f"-m training.echoes {work}"]
    assert ran[2:] == [f"-m training.speaker {work} --minutes 10.0 --threads 2"]


def test_every_stage_of_the_plan_is_there():
    folder = Path(recipe.__file__).parent
    names = [name for chains in recipe.PLAN for chain in chains for name, _ in chain]
    assert len(set(names)) == len(names)
    for name in names:
        assert (folder / f"{recipe.MODULES.get(name, (name,))[0]}.py").is_file()
    assert all(len(chains) <= 2 for chains in recipe.PLAN)
    told = (folder / "README.md").read_text()
    assert all(f"\n| {name} | `" in told for name in names)
