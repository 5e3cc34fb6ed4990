"""Speech of open texts as the closed recipe's codec stages read it: WORK/codec/corpus, with natural and locked pitch.

    python -m training.open sound WORK --texts ROOT [--each 2]

The codec that is shipped has heard 103 words, and does not know all phones (`resynthesis` says how far). All voices say
`each` sentences of at most 64 frames. 40 voices are made at a time and appended to sound.npy, locked.npy, periods.npy
and phones.npy (two a frame, which `encoder` learns to tell); index.json, written after them, says how much of these
counts, so a run that was stopped goes on.
"""

import json
import struct
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..corpus import draw
from ..espeak import LONGEST
from ..lock import locked
from .corpus import SEED, SPLITS
from .phones import Talking, data_folder
from .texts import Decks

PART, EACH, HELD = 40, 2, 4  # voices of a part; utterances of a voice, and of one that is held out
FIRST = 30_000_000  # of the texts' numbers
HEADER = 128


def header(dtype, count):
    """Of an .npy file of version 1.0 with `count` numbers, HEADER bytes whatever the count."""
    text = repr({"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (count,)})
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER - 10) + text.ljust(HEADER - 11).encode() + b"\n"


class Growing:
    """A flat .npy file that grows; it is whole after every `add`."""

    def __init__(self, path, dtype, count):
        """count: numbers that are kept of what is there."""
        self.path, self.dtype, self.count = path, np.dtype(dtype), count
        if not path.is_file():
            path.write_bytes(header(dtype, 0))
        with path.open("r+b") as file:
            file.truncate(HEADER + count * self.dtype.itemsize)
            file.write(header(dtype, count))

    def add(self, values):
        with self.path.open("r+b") as file:
            file.seek(0, 2)
            file.write(np.ascontiguousarray(values, self.dtype).tobytes())
            self.count += len(values)
            file.seek(0)
            file.write(header(self.dtype, self.count))


def numbers(speaker, split, each):
    """The numbers of the texts that a voice tries, more than it needs: some are too long."""
    count = HELD if split in SPLITS else each
    return count, range(FIRST + speaker * 64, FIRST + speaker * 64 + 64)


def add_options(options):
    options.add_argument("--texts", default="/", help="root below which the texts' packages lie")
    options.add_argument("--each", type=int, default=EACH, help=f"utterances of a voice (default: {EACH})")


def main(options):
    folder = Path(options.work) / "codec" / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    speakers, index = draw(SEED), folder / "index.json"
    rows = [{**{k: v for k, v in s.items() if k != "speaker"}, **asdict(s["speaker"])} for s in speakers]
    known = json.loads(index.read_text()) if index.is_file() else {"utterances": [], "voices": 0, "frames": 0}
    samples = sum(row[3] for row in known["utterances"])
    files = [Growing(folder / name, np.int16, samples) for name in ("sound.npy", "locked.npy")]
    files.append(Growing(folder / "periods.npy", np.uint8, known["frames"]))
    files.append(Growing(folder / "phones.npy", np.uint8, 2 * known["frames"]))
    decks, started = Decks.kept(options.work, options.texts), time.monotonic()
    with tempfile.TemporaryDirectory() as data:
        talking = Talking(data_folder(data))
        while known["voices"] < len(speakers):
            if options.seconds is not None and time.monotonic() - started > options.seconds:
                return print(f"sound: {known['voices']} of {len(speakers)} voices, to be gone on with")
            part = range(known["voices"], min(known["voices"] + PART, len(speakers)))
            made = [row for number in part for row in say(number, speakers[number], decks, talking, options.each)]
            start = files[0].count
            for number, text, sound, *_ in made:
                known["utterances"].append([number, text, start, len(sound)])
                start += len(sound)
            for file, column in zip(files, (2, 3, 4, 5), strict=True):
                file.add(np.concatenate([row[column] for row in made]))
            known |= {"voices": part.stop, "frames": files[2].count}
            partial = index.with_suffix(".partial")
            partial.write_text(json.dumps({"speakers": rows, **known}))
            partial.replace(index)
    print(f"sound: {len(speakers)} voices, {len(known['utterances'])} utterances, {known['frames'] / 45000:.1f} hours")


def say(number, about, decks, talking, each):
    """Rows (voice, text, samples, samples with locked pitch, periods, phones) of one voice; samples in 16 bits."""
    speaker, split = about["speaker"], about["split"]
    talking.use(speaker)
    count, tries = numbers(number, split, each)
    found = []
    for text in (decks.text(n, held=split in SPLITS) for n in tries):
        said = talking.say(text) if len(found) < count else None
        if said is not None and said.spoken() and said.frames <= LONGEST:
            fixed, periods = locked(said.sound, 0.9 * speaker.f0, 1.4 * speaker.f0)
            sounds = [(sound.clip(-1, 1) * 32767).astype(np.int16) for sound in (said.sound, fixed)]
            found.append((number, text, *sounds, periods.astype(np.uint8), said.halves().ravel()))
    return found
