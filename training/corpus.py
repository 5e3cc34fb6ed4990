"""Stage 1: the corpus. Voices drawn, checked by measurement, and what they say, as 16-bit samples in one file.

    python -m training.corpus WORK

writes WORK/corpus/sound.npy (int16, utterances one after the other) and index.json. Voices of the splits `valid` and
`test` say sentences that no voice of `train` says. A third as many voices again lie between two of `train`: from them
the talker learns what a blend should sound like.
"""

import json
import multiprocessing
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from . import acoustics
from .espeak import LONGEST, SAMPLES_PER_FRAME, Espeak, Speaker
from .language import FIXED, plain, sentence

VOICES = {"train": (1000, 16), "between": (320, 16), "valid": (40, 8), "test": (40, 10)}
MEASURED = 60  # voices measured by the gate
LINE = "Hello, this is my voice. One two three four five."


def draw(seed):
    """All speakers: dicts of split, the four attributes and, for those in between, the parents and t."""
    generator = random.Random(seed)
    speakers = []
    for split, (number, _) in VOICES.items():
        for _ in range(number):
            if split == "between":
                one, other = generator.sample(range(VOICES["train"][0]), 2)
                t = generator.uniform(0.15, 0.85)
                speaker = Speaker.between(speakers[one]["speaker"], speakers[other]["speaker"], t)
                speakers.append({"split": split, "speaker": speaker, "parents": [one, other], "t": t})
            else:
                speakers.append({"split": split, "speaker": Speaker.draw(generator)})
    return speakers


def texts(speakers, seed):
    """What each says. The held-out splits say sentences of three words or more that nobody else says."""
    generator = random.Random(seed)
    held_out = set()
    said = [None] * len(speakers)
    for index in sorted(range(len(speakers)), key=lambda i: speakers[i]["split"] in ("train", "between")):
        split = speakers[index]["split"]
        lines = []
        while len(lines) < VOICES[split][1]:
            line = sentence(generator)
            bare = plain(line)
            if split in ("valid", "test"):
                if len(bare.split()) < 3 or bare in FIXED:
                    continue
                held_out.add(bare)
            elif bare in held_out:
                continue
            lines.append(line)
        said[index] = lines
    return said


_espeak = None


def _start(folder):
    global _espeak
    _espeak = Espeak(tempfile.mkdtemp(dir=folder))


def _record(task):
    speaker, lines = task
    _espeak.use(speaker)
    sounds = [_espeak.say(line) for line in lines]
    return [(line, (sound * 32767).astype(np.int16)) for line, sound in zip(lines, sounds, strict=True)]


def _measure(speaker):
    _espeak.use(speaker)
    sound = _espeak.say(LINE)
    _espeak.use(Speaker(speaker.f0, 1.0, speaker.tilt, speaker.pace))
    shift = acoustics.formant_shift(sound, _espeak.say(LINE))
    return acoustics.f0(sound), shift, acoustics.brightness(sound), len(sound)


def check(speakers, pool):
    """Rows of the gate: attribute, correlation of attribute and measure; the largest between two attributes."""
    chosen = [s["speaker"] for s in speakers if s["split"] == "train"]
    drawn = np.array([s.features() for s in chosen])
    measured = np.array(pool.map(_measure, chosen[:MEASURED]))
    measured[:, :2] = np.log(measured[:, :2])
    measured[:, 3] = 1 / measured[:, 3]
    names = ("F0", "formants", "tilt", "pace")
    rows = []
    for column, name in enumerate(names):
        values = measured[:, column]
        if name == "tilt":  # brightness also rises with the formants and the pitch: what they explain is taken out
            known = np.c_[drawn[:MEASURED, :2], np.ones(MEASURED)]
            values = values - known @ np.linalg.lstsq(known, values, rcond=None)[0]
        rows.append((name, float(np.corrcoef(drawn[:MEASURED, column], values)[0, 1])))
    between = np.abs(np.corrcoef(drawn.T) - np.eye(4)).max()
    return rows, float(between)


def main():
    work = Path(sys.argv[1])
    folder = work / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    speakers = draw(seed=1)
    said = texts(speakers, seed=2)
    with tempfile.TemporaryDirectory() as data, multiprocessing.Pool(initializer=_start, initargs=(data,)) as pool:
        rows, between = check(speakers, pool)
        for name, correlation in rows:
            print(f"{name}: measured against drawn, r = {correlation:.3f}")
        print(f"largest correlation between two attributes as drawn: {between:.3f}", flush=True)
        if min(correlation for _, correlation in rows) < 0.9 or between > 0.1:
            sys.exit("corpus: the voices are not what was drawn; does this espeak-ng read variants?")
        tasks = [(s["speaker"], lines) for s, lines in zip(speakers, said, strict=True)]
        recorded = pool.map(_record, tasks, chunksize=8)
    utterances, sounds, start = [], [], 0
    for index, lines in enumerate(recorded):
        for line, sound in lines:
            if len(sound) > LONGEST * SAMPLES_PER_FRAME:
                continue
            utterances.append([index, line, start, len(sound)])
            sounds.append(sound)
            start += len(sound)
    np.save(folder / "sound.npy", np.concatenate(sounds))
    rows = [{**{k: v for k, v in s.items() if k != "speaker"}, **asdict(s["speaker"])} for s in speakers]
    (folder / "index.json").write_text(json.dumps({"speakers": rows, "utterances": utterances}))
    print(f"{len(speakers)} voices, {len(utterances)} utterances, {start / 24000 / 3600:.1f} hours")


class Corpus:
    """The corpus as the other stages read it."""

    def __init__(self, work, locked=False):
        """locked: the sounds that `lock.py` made of them."""
        folder = Path(work) / "corpus"
        self.sound = np.load(folder / ("locked.npy" if locked else "sound.npy"), mmap_mode="r")
        if locked:
            self.periods = np.load(folder / "periods.npy")
        phones = folder / "phones.npy"  # where the corpus was made with them, two a frame
        self.phones = np.load(phones).reshape(-1, 2) if phones.is_file() else None
        index = json.loads((folder / "index.json").read_text())
        self.speakers, self.utterances = index["speakers"], index["utterances"]
        names = ("f0", "formants", "tilt", "pace")
        frames = [length // SAMPLES_PER_FRAME for *_, length in self.utterances]
        self.starts = np.concatenate([[0], np.cumsum(frames)])  # of each utterance, in frames
        self.features = np.array([Speaker(*(s[n] for n in names)).features() for s in self.speakers], np.float32)

    def of(self, *splits):
        """Indices of the utterances of these splits."""
        return [i for i, u in enumerate(self.utterances) if self.speakers[u[0]]["split"] in splits]

    def novel(self, split):
        """Utterances of a held-out split whose sentence nobody else says."""
        return [u for u in self.of(split) if plain(self.utterances[u][1]) not in FIXED]

    def by_speaker(self, utterances):
        """{speaker: its utterances among these}, in their order."""
        of = {}
        for utterance in utterances:
            of.setdefault(self.utterances[utterance][0], []).append(utterance)
        return of

    def pitch(self, utterance):
        """Periods in each frame, int64 [frames]; of a corpus with locked pitch."""
        return self.periods[self.starts[utterance] : self.starts[utterance + 1]].astype(np.int64)

    def phones_of(self, utterance):
        """Numbers of the phones of both halves of each frame, uint8 [frames, 2]."""
        return self.phones[self.starts[utterance] : self.starts[utterance + 1]]

    def samples(self, utterance):
        """float32 [samples]."""
        _, _, start, length = self.utterances[utterance]
        return self.sound[start : start + length].astype(np.float32) / 32767


if __name__ == "__main__":
    main()
