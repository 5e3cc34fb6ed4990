"""Sound on its way to listeners while it is made: marked, then sent to stdout with its tags in front, and played."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..audio.piping import Piped
from .origin import Origin
from .seal import Seal


class Outlet:
    """Takes a speech piece by piece, and then its end. origin: where it comes from, asked before its first sound is
    sent; left: why stdout takes no more, None where it does."""

    def __init__(self, seal: Seal, rate: int, pipe: bool, play: Callable[[np.ndarray], object] | None) -> None:
        """pipe: whether it goes to stdout; play: called with samples [n] that are to be heard."""
        self.origin: Callable[[], Origin | None] = lambda: None
        self.left: BrokenPipeError | None = None
        self._seal, self._play, self._marking = seal, play, seal.marking(rate)
        self._piped = Piped(rate) if pipe else None

    def add(self, samples: np.ndarray) -> None:
        """Samples [n] float32 within ±1. KeyboardInterrupt where stdout has just been closed."""
        there = self.left is None
        if self._piped or self._play:
            self._give(self._marking(samples))
        if there and self.left is not None:
            raise KeyboardInterrupt

    def finish(self) -> None:
        """What is held back comes, and the end."""
        self._give(self._marking(np.zeros(0, np.float32), last=True))
        if self._piped and self.left is None:
            self._piped.close()

    def _give(self, samples: np.ndarray) -> None:
        if self._piped and self.left is None and samples.size:
            try:
                self._piped.write(samples, None if self._piped.size else self._seal.tags(self.origin()))
            except BrokenPipeError as error:  # nobody listens any more
                self.left = error
        if self._play and samples.size:
            self._play(samples)
