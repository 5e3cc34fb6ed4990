"""Token ids of a text that is still being written, each released as soon as nothing that follows can change it.

    pieces → _raw     a mark to come could still compose with it or sort into it
           → _tail    normalised; its pre-tokens could still end elsewhere
           → ids

BPE treats pre-tokens alone, so a closed one is encoded and forgotten; only the undecided end is kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ..errors import InvalidValue, WrongType
from .text import check_characters, one_newline, says_nothing
from .tokenizer import ASSISTANT, ROLE_IDS, TextTokenizer

# The pattern's matches tile the text; each starts where the last one ended and looks back at nothing. Their runs stop
# at the first character that does not fit, so a match that ends before the text does is decided and one that ends with
# it is not, each with an exception:
# - Whitespace that ends the text is open from its first character on, even where it makes several matches: a newline to
#   come draws all of it into one (`\s*[\r\n]+`), a word to come takes the last space away (`\s+(?!\S)`).
# - Contractions and digits do not grow. Of the digits these are the ones that every version of Unicode has. A
#   contraction cut short needs no rule: what is there of it, a quotation mark or a word, ends with the text.
FIXED = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[0-9]", re.IGNORECASE)
# Characters that no mark composes with are settled at once, be the next one a mark or not. The usual ends of a piece.
SETTLED = frozenset(" \t\r\n0123456789.,:;!?…'\"’”()[]-–—*、。，：；！？（）「」『』《》")


def joins_before(char: str) -> bool:
    """Whether normalisation may join a character to those before it, by composing or by reordering.

    Marks, conjoining Hangul and, since Unicode 16, two Kirat Rai vowels do. A character that is not assigned may: the
    normaliser's Unicode may be newer than Python's.
    """
    kind = unicodedata.category(char)
    return kind[0] == "M" or kind == "Cn" or "\u1100" <= char <= "\u11ff" or char in "\U00016d67\U00016d68"


class TextStream:
    """`TextTokenizer.assistant` for a text that comes in pieces: the ids add up to those of the whole text.

    A word is certain once something follows that is no letter; punctuation waits for what follows, which it may belong
    to. Text without spaces is one word to the tokenizer: Chinese without punctuation is held, and its speech waits,
    until some comes.

    `role`: ids of the role, None until they are certain (leading newlines of the text change the last one).
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        bpe = tokenizer.bpe
        self._normalise, self._split = tokenizer.normaliser.normalize_str, tokenizer.splitter.pre_tokenize_str
        self._encode = bpe.model.tokenize
        self._raw, self._tail = ASSISTANT, ""  # the template's part, tokenised with the text as `assistant` does
        self._turn = [tokenizer.start]  # the first ids, until the role is certain
        self.role: list[int] | None = None
        self._length, self._empty, self._finished = 0, True, False

    def feed(self, piece: str) -> list[int]:
        """The ids of the text that became certain with its next piece. A piece that is refused changes nothing."""
        self._check(piece)
        self._length += len(piece)
        self._empty = self._empty and says_nothing(piece)
        piece = one_newline(piece)
        # Nothing joins across the last character that joins nothing before it; it may still change itself.
        last = next((place for place in reversed(range(len(piece))) if not joins_before(piece[place])), None)
        if last is None:
            self._raw += piece
            return []
        cut = last + (piece[last] in SETTLED)
        settled, self._raw = self._normalise(self._raw + piece[:cut]), piece[cut:]
        # Letters only lengthen a word that is no contraction; to look each time would cost its length squared.
        growing = len(self._tail) > 2 and self._tail[-1].isalpha() and settled.isalpha()
        self._tail += settled
        return [] if growing else self._release(self._closed())

    def finish(self) -> list[int]:
        """The ids that were left. ValueError if there was nothing to speak."""
        self._check("")
        if self._empty:
            raise InvalidValue("text is empty", param="text")
        self._finished = True
        return self._release(pretoken for pretoken, _ in self._split(self._tail + self._normalise(self._raw)))

    def _check(self, piece: str) -> None:
        """`check_text` for a piece, which may be empty; places count from the start of the text."""
        if self._finished:
            raise RuntimeError("the text is finished; another one needs a TextStream of its own")
        if not isinstance(piece, str):
            raise WrongType(f"text pieces must be strings, not {type(piece).__name__}", param="text")
        check_characters(piece, start=self._length)

    def _closed(self) -> list[str]:
        """Cut the closed pre-tokens off the tail and return them, in byte-level form."""
        end, spaces = len(self._tail), len(self._tail.rstrip())
        closed, cut = [], 0
        for pretoken, (start, stop) in self._split(self._tail):
            if start >= spaces or (stop == end and not FIXED.fullmatch(self._tail, start)):
                break
            closed.append(pretoken)
            cut = stop
        self._tail = self._tail[cut:]
        return closed

    def _release(self, pretokens: Iterable[str]) -> list[int]:
        """The text's ids among those of the pre-tokens: the turn's first three are the role."""
        ids = [token.id for pretoken in pretokens for token in self._encode(pretoken)]
        if self.role is not None:
            return ids
        self._turn += ids
        if len(self._turn) < ROLE_IDS:
            return []
        self.role = self._turn[:ROLE_IDS]
        return self._turn[ROLE_IDS:]
