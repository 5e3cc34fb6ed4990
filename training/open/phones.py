"""espeak-ng as a library: what a voice says, which phones these are, and when each of them begins.

The library tells in its events which phone begins at which sample and to which word of the text it belongs, so that no
recogniser has to find it out again. It takes some 3 ms for 5 seconds of speech, without a process of its own.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import firwin, resample_poly

from ..espeak import LEVEL, RATE, SAMPLES_PER_FRAME, Espeak
from .inventory import NUMBER, PAUSE, named

SYNCHRONOUS, PHONE_EVENTS, IPA = 2, 1, 2
PHONE, PACE, UTF8 = 7, 1, 1
MOST = 120  # frames of an utterance
FRAME = SAMPLES_PER_FRAME / RATE  # seconds


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass
class Said:
    """sound: float32 [whole frames of samples] at 24 kHz; phones: names; starts: when each begins, in seconds; places:
    the character of the text that each is of."""

    sound: np.ndarray
    phones: list[str]
    starts: np.ndarray
    places: np.ndarray

    @property
    def frames(self):
        return len(self.sound) // SAMPLES_PER_FRAME

    def at(self, seconds):
        """(phone names, characters) at times, an array [N]."""
        which = np.searchsorted(self.starts, seconds, side="right") - 1
        names = [self.phones[k] if k >= 0 else PAUSE for k in which]
        return names, self.places[which.clip(0)]

    def halves(self):
        """The phones' numbers in the middle of both halves of every frame, uint8 [frames, 2]."""
        times = np.arange(2 * self.frames) * (FRAME / 2) + FRAME / 4
        return np.array([NUMBER[name] for name in self.at(times)[0]], np.uint8).reshape(-1, 2)

    def spoken(self):
        """The phones without the pauses."""
        return [phone for phone in self.phones if phone != PAUSE]


class Talking:
    """One espeak-ng in this process, with a data folder of its own in which one voice file is written over."""

    def __init__(self, folder):
        self.files = Espeak(folder)
        self.library = ctypes.CDLL("libespeak-ng.so.1")
        data = str(self.files.data.parent).encode()
        self.rate = self.library.espeak_Initialize(SYNCHRONOUS, 0, data, PHONE_EVENTS | IPA)
        if self.rate <= 0:
            raise OSError(f"espeak-ng cannot use the data in {self.files.data}")
        up, down = RATE // 150, self.rate // 150
        # that of resample_poly, which makes it anew for every call
        self.filter = firwin(20 * max(up, down) + 1, 1 / max(up, down), window=("kaiser", 5.0)).astype(np.float32)
        self.callback = _Callback(self._heard)  # kept: the library holds no reference
        self.library.espeak_SetSynthCallback(self.callback)
        self.chunks, self.events = [], []

    def _heard(self, samples, count, events):
        if count:
            self.chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        number = 0
        while events[number].type:
            event = events[number]
            if event.type == PHONE:
                self.events.append((event.sample, event.text_position, event.id.string.decode("utf-8", "ignore")))
            number += 1
        return 0

    def use(self, speaker):
        self.files.use(speaker)
        if self.library.espeak_SetVoiceByName(b"en-us+miniature"):
            raise OSError("espeak-ng does not read its voice file")
        self.library.espeak_SetParameter(PACE, round(speaker.pace), 0)

    def say(self, text):
        """Said, cut and levelled as `espeak.Espeak.say` does; None where nothing is heard, a phone is
        of another language, or it is longer than MOST."""
        self.chunks, self.events = [], []
        written = text.encode()
        if self.library.espeak_Synth(written, len(written) + 1, 0, 1, 0, UTF8, None, None):
            raise OSError(f"espeak-ng does not say {text!r}")
        if not self.chunks:
            return None
        sound = np.concatenate(self.chunks).astype(np.float32) / 32768
        up, down = RATE // 150, self.rate // 150
        sound = resample_poly(sound, up, down, window=self.filter).astype(np.float32)
        heard = np.flatnonzero(np.abs(sound) > 0.01)
        if not len(heard):
            return None
        first = max(0, heard[0] - RATE * 30 // 1000)
        sound = sound[first : heard[-1] + RATE * 60 // 1000]
        loud = sound[np.abs(sound) > 0.01]
        sound = sound * min(LEVEL / np.sqrt((loud**2).mean()), 0.98 / np.abs(sound).max())
        sound = np.pad(sound, (0, -len(sound) % SAMPLES_PER_FRAME))
        if len(sound) > MOST * SAMPLES_PER_FRAME:
            return None
        phones, starts, characters = zip(*spread(self.events, text), strict=True)
        if not NUMBER.keys() >= {*phones}:  # of another language, as of a name
            return None
        starts = np.array(starts) / self.rate - first / RATE
        return Said(sound, list(phones), starts, np.array(characters))


def spread(events, text):
    """(phone, its first sample, character of the text) of events (sample, position of the word from 1, phone's name).

    A word's phones are spread evenly over it, and a pause belongs to the character before.
    """
    groups = []
    for sample, position, phone in ((sample, position, named(phone)) for sample, position, phone in events):
        if phone != PAUSE and groups and groups[-1][0][1] == position and groups[-1][0][2] != PAUSE:
            groups[-1].append((sample, position, phone))
        else:
            groups.append([(sample, position, phone)])
    last = 0
    for group in groups:
        sample, position, phone = group[0]
        if phone == PAUSE:
            yield PAUSE, sample, last
            continue
        start = end = min(max(last, position - 1), len(text) - 1)
        while end < len(text) and text[end] not in " ,.;:?!":
            end += 1
        for number, (sample, _, phone) in enumerate(group):
            last = min(start + int((number + 0.5) / len(group) * max(1, end - start)), len(text) - 1)
            yield phone, sample, last


def data_folder(work):
    """WORK/espeak, made where it is not there."""
    folder = Path(work) / "espeak"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
