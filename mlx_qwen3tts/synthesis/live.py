"""A text that is still being written, pulled from an iterator as far as speech needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .text_stream import TextStream
from .tokenizer import TextTokenizer


class LiveText:
    """Token ids from an iterable of pieces of text. Nothing is pulled before it is asked for."""

    def __init__(
        self, tokenizer: TextTokenizer, pieces: Iterable[str], check_length: Callable[[str, int], None]
    ) -> None:
        """check_length: called with a name and the number of ids, may refuse them."""
        self._stream, self._pieces, self._check_length = TextStream(tokenizer), iter(pieces), check_length
        self._count, self._over = 0, False

    def begin(self) -> tuple[list[int], list[int]]:
        """(ids of the role, first ids of the text), once the role is certain."""
        ids: list[int] = []
        while self._stream.role is None:
            ids = self._pull()
        return self._stream.role, ids

    def more(self) -> tuple[list[int], bool]:
        """(further ids, whether they are the last); waits until there are some."""
        ids: list[int] = []
        while not (ids or self._over):
            ids = self._pull()
        return ids, self._over

    def _pull(self) -> list[int]:
        try:
            ids = self._stream.feed(next(self._pieces))
        except StopIteration:
            ids = self._stream.finish()
            self._over = True
        self._count += len(ids)
        self._check_length("text", self._count)
        return ids
