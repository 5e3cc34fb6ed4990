"""Make what docs/voices.md starts from: recordings of a dozen made-up people and tables, or a library of real vectors.

    python docs/material.py FOLDER
    python docs/material.py FOLDER --real DIR

The people are espeak-ng with voices of our own, so what they are is known: a pitch, a vocal tract and a pace each, and
three manners of speaking. The shipped miniature knows the words of PEOPLE_SAY, TWO_SAY and LINES. With --real, FOLDER
gets the library `real` and the table `real.csv` instead: DIR holds real x-vectors, NAME.npy, and labels.json with the
attributes of each. None of it belongs into the repository.
"""

import argparse
import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np

RATE = 24000

# Lowest F0 in Hz; how much higher the formants are than espeak-ng's own; words a minute.
PEOPLE = {
    "ben": (82, 0.90, 133),
    "dan": (85, 0.87, 141),
    "finn": (93, 0.97, 147),
    "hugo": (101, 0.92, 136),
    "jon": (110, 1.00, 129),
    "leo": (120, 0.95, 145),
    "kim": (131, 1.06, 139),
    "iris": (142, 1.01, 132),
    "gita": (155, 1.12, 143),
    "eva": (169, 1.05, 148),
    "cleo": (184, 1.14, 130),
    "anna": (200, 1.10, 137),
}
# Factors of the lowest F0 and the pace, how far F0 rises above its lowest, and the peak of the recording. `robotic` has
# the median F0 of `plain`. `angry` is a synthesizer's stand-in: louder, faster, higher, livelier.
MANNERS = {
    "plain": (1.0, 1.0, 0.35, 0.6),
    "robotic": (1.26, 1.0, 0.0, 0.6),
    "angry": (1.15, 1.15, 0.8, 0.95),
}
TWO = ("anna", "ben")  # whose recordings the walk begins with
PEOPLE_SAY = "Hello, this is my voice. One two three four five. The red car is big. I want to speak to you."
TWO_SAY = "Good morning, world. You are small and blue. Can you hear my voice now?"
MEETING = ("anna", "ben", "kim", "anna", "ben", "kim", "anna")  # who speaks in turn, half a second between them
LINES = (
    "Hello, this is my voice.",
    "One two three four five.",
    "The red car is big.",
    "I want to speak to you.",
    "Good morning, world.",
    "You are small and blue.",
    "Nine black cat today.",
    "Can you hear my voice now?",
)
# A cell that is empty leaves its row out: each of the two is compared with `plain` alone.
YES_NO = {"plain": ("no", "no"), "robotic": ("yes", ""), "angry": ("", "yes")}


def names():
    """(name of a recording, person, manner) of everybody in every manner."""
    return [(f"{person}-{manner}", person, manner) for person in sorted(PEOPLE) for manner in MANNERS]


def files():
    """What `make` and `make_real` put into their folder, but for the voices of `real`."""
    recordings = [f"people/{name}.wav" for name, *_ in names()] + [f"{name}.wav" for name in TWO]
    return [*recordings, "meeting.wav", "manners.csv", "lines.txt", "real", "real.csv"]


def make(folder):
    """Make the people's recordings and tables in an empty folder."""
    espeak = Espeak(folder / "espeak")
    (folder / "people").mkdir()
    for name, person, manner in names():
        espeak.record(folder / "people" / f"{name}.wav", PEOPLE_SAY, PEOPLE[person], MANNERS[manner])
    for person in TWO:
        espeak.record(folder / f"{person}.wav", TWO_SAY, PEOPLE[person], MANNERS["plain"])
    shutil.rmtree(folder / "espeak")
    join(folder / "meeting.wav", [folder / "people" / f"{person}-plain.wav" for person in MEETING])
    rows = [(f"people/{name}.wav", name, person, manner, *YES_NO[manner]) for name, person, manner in names()]
    write_csv(folder / "manners.csv", ("file", "name", "speaker", "manner", "robotic", "angry"), rows)
    (folder / "lines.txt").write_text("".join(f"{line}\n" for line in LINES))


def join(path, recordings):
    """Write recordings one after the other, with pauses."""
    import soundfile

    pause = np.zeros(RATE // 2, np.float32)
    parts = [part for file in recordings for part in (soundfile.read(file, dtype="float32")[0], pause)]
    soundfile.write(path, np.concatenate(parts[:-1]), RATE)


def make_real(folder, source):
    """Make the library of real voices and the table of their labels. Returns how many there are."""
    from mlx_qwen3tts import Library

    labels = json.loads((source / "labels.json").read_text())
    library = Library(folder / "real")
    for name, own in labels.items():
        library.add(name, np.load(source / f"{name}.npy"), license="MIT", **own)
    columns = list(next(iter(labels.values())))
    write_csv(folder / "real.csv", ("name", *columns), [(name, *own.values()) for name, own in labels.items()])
    return len(labels)


def write_csv(path, columns, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


class Espeak:
    """espeak-ng with voices made here. Its own are not touched: `folder` gets links to its data and the new voices."""

    def __init__(self, folder):
        told = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True).stdout
        data = Path(told.split("Data at:")[1].strip())
        self.folder, self.voices = folder, folder / "espeak-ng-data" / "voices" / "!v"
        self.voices.mkdir(parents=True)
        for part in data.iterdir():
            if part.name != "voices":
                (folder / "espeak-ng-data" / part.name).symlink_to(part)

    def record(self, path, text, person, manner):
        """Write what a person says in a manner as WAV: 24 kHz, mono."""
        import soundfile
        import soxr

        (lowest, tract, pace), (higher, faster, rise, peak) = person, manner
        lowest, pace = lowest * higher, round(pace * faster)
        lines = ["language variant", "name own", f"pitch {lowest:.0f} {lowest * (1 + rise):.0f}"]
        lines += [f"formant {i} {100 * tract:.0f} 100 100" for i in range(9)]
        (self.voices / "own").write_text("\n".join(lines) + "\n")
        command = ["espeak-ng", f"--path={self.folder}", "-v", "en-us+own", "-s", str(pace), "--stdout", text]
        sound = subprocess.run(command, capture_output=True, check=True).stdout
        samples, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
        samples = soxr.resample(samples, rate, RATE)
        soundfile.write(path, samples * (peak / np.abs(samples).max()), RATE)


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("folder", type=Path, help="made, or empty; with --real it may have files")
    options.add_argument("--real", type=Path, help="folder of real x-vectors with labels.json")
    given = options.parse_args(arguments)
    folder, real = given.folder, given.real
    if real is not None:
        if not (real / "labels.json").is_file():
            options.error(f"{real} has no labels.json")
        if (folder / "real").exists():
            options.error(f"{folder / 'real'} is there already")
        folder.mkdir(exist_ok=True)
        print(f"real, real.csv: {make_real(folder, real)} voices")
        return
    if shutil.which("espeak-ng") is None:
        options.error("espeak-ng is not installed (brew install espeak-ng, or apt install espeak-ng)")
    folder.mkdir(exist_ok=True)
    if any(folder.iterdir()):
        options.error(f"{folder} is not empty")
    make(folder)
    two = ", ".join(f"{name}.wav" for name in TWO)
    print(f"{folder}: {len(names())} recordings in people, {two}, meeting.wav, manners.csv, lines.txt")


if __name__ == "__main__":
    main()
