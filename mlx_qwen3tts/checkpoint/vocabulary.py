"""The closed vocabulary of a model that was taught only some words, as the shipped miniature was."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator

from ..errors import listed


class Vocabulary:
    """Warns of what a text has beyond `words` (lower case) and the `punctuation` that may follow one."""

    def __init__(self, words: Iterable[str], punctuation: str) -> None:
        self.words, self.punctuation = tuple(words), punctuation
        self._known = {form for word in words for form in (word, word.capitalize())}

    def unknown(self, text: str) -> list[str]:
        """The words of a text that the model was not taught, each once, as they are written. Marks are not words."""
        words = {word.rstrip(self.punctuation): None for word in text.split()}
        return [word for word in words if word and word not in self._known]

    def single_marks(self, pieces: Iterable[str]) -> Iterator[str]:
        """The same text with one mark where several of the punctuation follow each other: "Hello?!" becomes "Hello?".

        The model was taught single marks; after several it ends, whatever follows.
        """
        marks, before = re.compile(f"(?<=[{re.escape(self.punctuation)}])[{re.escape(self.punctuation)}]+"), ""
        for piece in pieces:
            if isinstance(piece, str) and piece:
                end, piece = piece[-1], marks.sub("", before + piece)[len(before) :]
                before = end
            yield piece

    def check(self, text: str, warn: Callable[[str], object] = warnings.warn) -> None:
        """Warn of unknown words, naming them. warn: called with the message."""
        if unknown := self.unknown(text):
            warn(
                f"this model knows {len(self.words)} words, and speaks no others clearly; "
                f"it does not know: {listed(unknown, 8)} (mlx_qwen3tts.info lists its words)"
            )

    def watch(self, pieces: Iterable[str], warn: Callable[[str], object] = warnings.warn) -> Iterator[str]:
        """The same pieces of a text that is still being written; each word is checked once it has ended."""
        open_word = ""
        for piece in pieces:
            if isinstance(piece, str):  # anything else is refused where it is read
                text = open_word + piece
                closed = len(text.rstrip()) < len(text) or not text
                words = text.split()
                open_word = "" if closed else words.pop()
                self.check(" ".join(words), warn)
            yield piece
        self.check(open_word, warn)
