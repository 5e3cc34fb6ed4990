"""Text that is still being written, cut into segments that are spoken one after another.

One utterance speaks on while its text is written; a text that grows beyond a piece (see `pieces`) goes on in the next
one, from the end of a sentence on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, TextTooLong
from ..synthesis.live import Feed
from ..synthesis.pieces import LIMIT, weight
from ..synthesis.text import END, check_text
from ..synthesis.text_stream import TextStream
from . import asking

if TYPE_CHECKING:
    from ..synthesis.request import Request
    from ..synthesis.tokenizer import TextTokenizer
    from .app import Server

MOST_MARKS = 16  # characters, of the marks around the end of a sentence that came in pieces


class Segment:
    """A stretch of text that is spoken as one utterance, as `asked`. `begun` is set once there is enough to begin with,
    or all."""

    def __init__(self, tokenizer: TextTokenizer, server: Server, asked: asking.Asked) -> None:
        self.asked, self.feed, self.text = asked, Feed(server.engine.wake), ""
        self.begun, self.complete = asyncio.Event(), asyncio.Event()
        self._probe = TextStream(tokenizer)

    def write(self, piece: str) -> None:
        """Add text. Raises QwenTTSError for what cannot be spoken."""
        if not self.begun.is_set() and self._probe.feed(piece) and self._probe.role is not None:
            self.begun.set()
        self.feed.write(piece)
        self.text += piece

    def close(self) -> None:
        self.feed.close()
        self.complete.set()
        self.begun.set()


class Written:
    """Takes text in as it is written, and says what is to be spoken of it. asked: makes the Asked of a segment."""

    def __init__(self, server: Server, asked: Callable[[], asking.Asked]) -> None:
        self.server, self.asked = server, asked
        self._segments: asyncio.Queue[Segment | None] = asyncio.Queue()
        self._segment: Segment | None = None
        self._characters = 0
        self._half = ""  # the first half of a character whose second one has not come yet

    @property
    def open(self) -> bool:
        """Whether a text has been begun and not ended."""
        return self._segment is not None

    def take(self, text: str) -> None:
        """Add text. Raises QwenTTSError for what cannot be spoken, and where it is too much."""
        text, self._half = whole_characters(self._half + text)
        self._characters += len(text)
        most = self.server.settings.max_characters
        if self._characters > most:
            raise TextTooLong(f"the text has more than {most} characters (--max-characters)", param="text")
        while text:
            segment = self._segment or self._begin()
            end = cut(segment.text, text)
            segment.write(text[:end])
            if end is None:
                return
            segment.close()
            self._segment, text = None, text[end:]

    def _begin(self) -> Segment:
        self._segment = Segment(self.server.tts.tokenizer, self.server, self.asked())
        self._segments.put_nowait(self._segment)
        return self._segment

    def finish(self) -> None:
        """No more comes of this text; the next one may begin. InvalidValue where there was none."""
        if self._half:
            check_text(self._half)  # which says what is wrong with half a character
        if self._segment is None:
            raise InvalidValue("the text ended before it had begun", param="text")
        self._segment.close()
        self._segment, self._characters = None, 0
        self._segments.put_nowait(None)

    async def segments(self) -> AsyncIterator[tuple[Segment | None, int, int | None]]:
        """(segment, its number, its seed) of what is to be spoken, as soon as it can begin; at the end of each text
        (None, how many segments it had, the seed of the first)."""
        number, seed = 0, None
        while True:
            segment = await self._segments.get()
            if segment is None:
                yield None, number, seed
                number, seed = 0, None
                continue
            if seed is None:
                seed = secrets.randbits(32) if segment.asked.seed is None else segment.asked.seed
            await segment.begun.wait()
            if number and segment.complete.is_set() and not any(c.isalnum() for c in segment.text):
                continue  # what is left behind the last sentence
            yield segment, number, (seed + number) % 2**32
            number += 1

    async def request(self, segment: Segment) -> Request:
        """The Request of a segment: with its Feed where words are spoken as they come, else with all of its text."""
        requests = await self.server.prepare(segment.asked)
        request = requests[0]
        voice: Any = request.voice
        in_context = voice is not None and voice.ref_codes is not None
        layout = request.text_mode or ("full" if voice is None or "preset" in voice.other else "streaming")
        changing = request.morph is not None and request.morph_seconds is None
        text: Any = segment.feed
        if in_context or layout == "full" or changing or segment.complete.is_set():
            await segment.complete.wait()
            text = check_text(segment.text)
        return replace(request, text=text)


def cut(before: str, text: str) -> int | None:
    """How much of a further text belongs to the segment that it fills; None where all of it does, and more.

    A segment ends with a sentence; where none does, between words once it is full, and where there are none either,
    between characters.
    """
    size = weight(before)
    together = before + text[: 2 * LIMIT]  # which is more than a segment takes
    ends = {match.end() for match in END.finditer(together, max(0, len(before) - MOST_MARKS))}
    for place, char in enumerate(text[: 2 * LIMIT], 1):
        size += weight(char)
        if len(before) + place in ends and size >= LIMIT // 2:
            return place
        if size >= 2 * LIMIT or (size >= LIMIT and char.isspace()):
            return place
    return None


def whole_characters(text: str) -> tuple[str, str]:
    """(a text, the half character at its end): programs that cut their text between UTF-16's units send halves."""
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    text = text[: len(text) - len(half)]
    if any("\ud800" <= char <= "\udfff" for char in text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text, half
