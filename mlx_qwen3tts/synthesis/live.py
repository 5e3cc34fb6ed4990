"""A text that is still being written, pulled from an iterator as far as speech needs it."""

from .text_stream import TextStream


class LiveText:
    """Token ids from an iterable of pieces of text. Nothing is pulled before it is asked for."""

    def __init__(self, tokenizer, pieces, check_length):
        """tokenizer: TextTokenizer; pieces: iterable of str; check_length: called with a name and the number of ids."""
        self._stream, self._pieces, self._check_length = TextStream(tokenizer), iter(pieces), check_length
        self._count, self._over = 0, False

    def begin(self):
        """(ids of the role, first ids of the text), once the role is certain."""
        ids = []
        while self._stream.role is None:
            ids = self._pull()
        return self._stream.role, ids

    def more(self):
        """(further ids, whether they are the last); waits until there are some."""
        ids = []
        while not (ids or self._over):
            ids = self._pull()
        return ids, self._over

    def _pull(self):
        try:
            ids = self._stream.feed(next(self._pieces))
        except StopIteration:
            ids = self._stream.finish()
            self._over = True
        self._count += len(ids)
        self._check_length("text", self._count)
        return ids
