"""A text that is still being written, pulled from an iterator as far as speech needs it."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable, Iterator

from .text import check_characters
from .text_stream import TextStream
from .tokenizer import TextTokenizer


class Feed:
    """A text to speak that another thread is still writing: `write` pieces, then `close`; iterating waits for them."""

    def __init__(self, wake: Callable[[], object] | None = None) -> None:
        """wake: called, in the writer's thread, whenever something has come."""
        self._pieces: collections.deque[str] = collections.deque()
        self._changed, self._closed, self._wake = threading.Condition(), False, wake
        self._length = 0

    def write(self, piece: str) -> None:
        """Add a piece. InvalidValue where it holds what cannot be spoken; RuntimeError after `close`."""
        check_characters(piece, start=self._length)
        with self._changed:
            if self._closed:
                raise RuntimeError("the text is closed")
            self._length += len(piece)
            self._pieces.append(piece)
            self._changed.notify()
        if self._wake:
            self._wake()

    def close(self) -> None:
        """The text is complete."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._wake:
            self._wake()

    @property
    def ready(self) -> bool:
        """Whether the next piece, or the end, can be had without waiting."""
        return bool(self._pieces) or self._closed

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._changed:
            self._changed.wait_for(lambda: self.ready)
            if self._pieces:
                return self._pieces.popleft()
            raise StopIteration


class LiveText:
    """Token ids from an iterable of pieces of text. Nothing is pulled before it is asked for."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        pieces: Iterable[str],
        check_length: Callable[[str, int], None],
        ready: Callable[[], bool] | None = None,
    ) -> None:
        """check_length: called with a name and the number of ids, may refuse them; ready: whether the next piece can be
        had without waiting, None where nobody knows."""
        self._ready = ready
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

    @property
    def poll(self) -> Callable[[], tuple[list[int], bool]] | None:
        """`more` that does not wait and may give no ids; None where the pieces cannot be asked."""
        return self._poll if self._ready else None

    def _poll(self) -> tuple[list[int], bool]:
        assert self._ready is not None, "asked where nobody knows"
        ids: list[int] = []
        while not (ids or self._over) and self._ready():
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
