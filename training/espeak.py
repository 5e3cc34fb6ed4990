"""Voices of our own for espeak-ng: a pitch, a vocal-tract length, a tilt and a pace each, and what they say as
samples."""

import io
import math
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

RATE = 24000
SAMPLES_PER_FRAME = 1920
LEVEL = 0.08  # RMS of the spoken part, full scale 1
LONGEST = 64  # frames of an utterance


@dataclass(frozen=True)
class Speaker:
    """What makes a voice: each attribute has a range of its own and is drawn alone."""

    f0: float  # Hz, the lowest of its intonation
    formants: float  # factor on every formant: below 1 a longer vocal tract
    tilt: float  # -1 dark to 1 bright
    pace: float  # words a minute

    def features(self):
        """The four attributes, each about of mean 0 and deviation 1."""
        return (
            math.log(self.f0 / 138.6) / 0.317,
            (self.formants - 1.02) / 0.0924,
            self.tilt / 0.577,
            (self.pace - 145) / 11.5,
        )

    @classmethod
    def draw(cls, random):
        return cls(
            80 * 3 ** random.random(), random.uniform(0.86, 1.18), random.uniform(-1, 1), random.uniform(125, 165)
        )

    @classmethod
    def between(cls, one, other, t):
        """The voice at t on the way from `one` to `other`: pitch in logarithms, the rest linear."""
        mixed = {name: (1 - t) * value + t * asdict(other)[name] for name, value in asdict(one).items()}
        mixed["f0"] = one.f0 ** (1 - t) * other.f0**t
        return cls(**mixed)


class Espeak:
    """espeak-ng with a data folder of its own, in which one voice file is written over for each speaker.

    espeak-ng reads at most some 350 variants of a voice and says nothing of those beyond, so there is never more than
    one.
    """

    def __init__(self, folder):
        self.data = Path(folder) / "espeak-ng-data"
        if not self.data.is_dir():
            shutil.copytree(self._installed(), self.data)

    @staticmethod
    def _installed():
        version = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True).stdout
        return Path(version.split("Data at:")[1].strip())

    def use(self, speaker):
        lines = ["language variant", "name miniature", f"pitch {speaker.f0:.0f} {speaker.f0 * 1.3:.0f}"]
        for formant in range(9):
            strength = 100 * (1 + 0.5 * speaker.tilt * (min(formant, 6) - 2) / 4)
            lines.append(f"formant {formant} {speaker.formants * 100:.0f} {max(30, strength):.0f} 100")
        (self.data / "voices" / "!v" / "miniature").write_text("\n".join(lines) + "\n")
        self.pace = speaker.pace

    def say(self, text):
        """float32 [samples] at 24 kHz, whole frames, 30 ms before the first sound and 60 ms after the last."""
        command = [
            "espeak-ng",
            f"--path={self.data.parent}",
            "-v",
            "en-us+miniature",
            "-s",
            f"{self.pace:.0f}",
            "--stdout",
        ]
        wav = subprocess.run([*command, text], capture_output=True, check=True).stdout
        sound, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
        sound = resample_poly(sound, RATE // 150, rate // 150).astype(np.float32)
        heard = np.flatnonzero(np.abs(sound) > 0.01)
        sound = sound[max(0, heard[0] - RATE * 30 // 1000) : heard[-1] + RATE * 60 // 1000]
        loud = sound[np.abs(sound) > 0.01]
        sound = sound * min(LEVEL / np.sqrt((loud**2).mean()), 0.98 / np.abs(sound).max())
        return np.pad(sound, (0, -len(sound) % SAMPLES_PER_FRAME))
