"""What is put on a sound besides the tags that all have: a mark in its samples, the text in its tags, a signature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..audio.tags import Tags
from ..audio.watermark import Marker, pattern

if TYPE_CHECKING:
    from .origin import Origin
    from .signature import Signer

SIGNED = ("wav", "mp3", "flac", "m4b")  # formats that can hold a signature


@dataclass(frozen=True)
class Seal:
    """mark: the key of an inaudible mark, None for none; text: whether tags have what is spoken; signer: who signs the
    file, None for nobody. WrongType or InvalidValue for what is not a key."""

    mark: str | None = None
    text: bool = False
    signer: Signer | None = None

    def __post_init__(self) -> None:
        if self.mark is not None:
            pattern(self.mark)  # which says what is wrong with it
        checks.flag(self.text, "text")

    def marked(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """A whole sound [n] float32 within ±1 with the mark, where there is one."""
        return samples if self.mark is None else self.marking(rate)(samples, True)

    def marking(self, rate: int) -> Marking:
        """What puts the mark on one sound while it comes."""
        return Marking(self.mark, rate)

    def tags(self, origin: Origin | None) -> Tags | None:
        """The tags of a sound that comes from there."""
        return None if origin is None else origin.tags(self.text)

    def signing(self, origin: Origin | None) -> Callable[[bytes, str], bytes] | None:
        """What signs the bytes of a file of a format, where somebody signs."""
        signer = self.signer
        return None if signer is None else lambda data, kind: signer.signed(data, kind, origin)

    def signing_file(self, origin: Origin | None) -> Callable[[Path, str], object] | None:
        """What signs a file of a format where it lies, where somebody signs."""
        signer = self.signer
        return None if signer is None else lambda path, kind: signer.sign(path, kind, origin)


class Marking:
    """A sound in pieces to the same with a mark, some milliseconds later; without a key it passes through."""

    def __init__(self, key: str | None, rate: int) -> None:
        self._marker = None if key is None else Marker(key, rate)

    def __call__(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """The samples that are certain with further ones [n] float32 within ±1; with `last` all the remaining ones."""
        if self._marker is None:
            return samples
        made = self._marker(samples)
        return np.concatenate([made, self._marker.finish()]) if last else made

    def blocks(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """A whole sound that comes block by block."""
        for block in blocks:
            yield self(block)
        yield self(np.zeros(0, np.float32), last=True)
