"""Playing speech while it is made, through sounddevice (an optional extra)."""

import threading
from typing import Any

import numpy as np

from ..errors import MissingExtra, PlayError, install_hint
from .reading import Samples


class Player:
    """Plays samples in the order they are given; a context manager that waits for the end when it closes well.

    `underruns`: how many times the device wanted samples, after the first ones, that were not there yet.
    """

    def __init__(self, rate: int, asked: str = "--play") -> None:
        """rate: in Hz; asked: what had it played, for messages.

        MissingExtra without sounddevice, PlayError without PortAudio or an output device.
        """
        try:
            import sounddevice  # pyright: ignore[reportMissingImports]  # of the extra `play`
        except ModuleNotFoundError:
            raise MissingExtra(f"{asked} needs sounddevice: {install_hint('play')}") from None
        except OSError as error:  # its library, PortAudio
            raise PlayError(f"{asked}: {error}; install PortAudio") from None
        self._waiting, self._lock = np.zeros(0, np.float32), threading.Condition()
        self._begun = self._over = self._short = False
        self._played = threading.Event()
        self.underruns = 0
        try:
            self._stream = sounddevice.OutputStream(
                samplerate=rate, channels=1, dtype="float32", callback=self._fill, finished_callback=self._played.set
            )
        except sounddevice.PortAudioError as error:
            raise PlayError(f"{asked}: no sound can be played here: {error}") from None
        self._stop = sounddevice.CallbackStop

    def __enter__(self) -> "Player":
        self._stream.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over = True
        if kind is None:
            self._played.wait()
        self._stream.close()

    def play(self, samples: Samples) -> None:
        """Samples [n] float32 within ±1 to be played next."""
        with self._lock:
            self._waiting = np.concatenate([self._waiting, np.asarray(samples, np.float32)])
            self._begun = True

    def wait(self) -> None:
        """Return once what was given has been handed to the device."""
        with self._lock:
            while self._waiting.size and not self._played.is_set():  # a device that is pulled out plays nothing more
                self._lock.wait(0.5)

    def _fill(self, out: np.ndarray, count: int, *_: Any) -> None:
        """Called by the device for `count` samples, in a thread of its own."""
        with self._lock:
            ready, self._waiting = self._waiting[:count], self._waiting[count:]
            out[: ready.size, 0] = ready
            out[ready.size :] = 0
            if ready.size < count:
                if self._over:
                    raise self._stop
                # A pause counts once, however often the device asks in it.
                self.underruns += self._begun and not self._short
            self._short = ready.size < count
            if not self._waiting.size:
                self._lock.notify_all()
