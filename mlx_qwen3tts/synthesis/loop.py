"""The one generation loop: prompts and seeds in, frames of codes out, for any number of rows that come and go.

It knows neither strings nor files. Every mode, and whatever streams, batches or serves, consumes this.

A frame is one graph: the talker's step, sampling, the predictor's steps, the sum of the code embeddings. The codes do
not visit the host on the way, and frame t + 1 is under way before frame t is read: the end of speech is noticed one
frame late, and the surplus frame is dropped.

Rows lie in one cache, each behind padding of its own on the left, so that all of them end at one position. A row that
joins is prefilled by itself and then laid beside the others; keys are stored rotated to the row's own positions, so
they may lie anywhere. What a row speaks does not depend on who is beside it.
B rows, T positions, E talker width, V codec vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from ..errors import QwenTTSError
from ..networks import kernels
from ..networks.cache import KVCache
from ..networks.process import enter
from ..networks.talker import Talker
from .frame import FrameStep, Steps
from .processing import Processing
from .prompt import Prompt
from .sampling import GenerationConfig

if TYPE_CHECKING:
    from .morph import Morph

ROOM = 256  # positions that a mask has room for beyond those that are needed


@dataclass
class Frame:
    """codes [n, codebooks] of the n `rows` that spoke it.

    ended: {row: "stop" or "length"} of the rows that turned out to be over; they speak no more. waits: the rows whose
    next frame has to wait for text, so whoever holds frames back should not.
    """

    rows: list[int]
    codes: mx.array
    ended: dict[int, str] = field(default_factory=dict)
    waits: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Row:
    """A prompt that is being spoken. tokens: how many were put under way so far, the last one is not a frame's; spoken:
    codes 0 of these [tokens], where functions of the user's look at them; paused: whether it is to wait, asked before
    each frame where rows are set aside."""

    number: int
    prompt: Prompt
    seed: int
    config: GenerationConfig
    morph: Morph | None
    paused: Callable[[], bool] | None = None
    tokens: int = 0
    over: bool = False
    spoken: mx.array = field(default_factory=lambda: mx.zeros((0,), mx.uint32))


@dataclass
class Enqueued:
    """A frame under way: its rows with the number of the token, code 0 [B], codes [B, codebooks], None if not made."""

    rows: list[tuple[Row, int]]
    first: mx.array
    codes: mx.array | None


@dataclass
class Aside:
    """A row that waits for text while others speak: its caches, the next input [1, 1, E], the history [1, V]."""

    row: Row
    caches: list[KVCache]
    embedding: mx.array
    seen: mx.array


class Generation:
    """Rows that are spoken together. Iterate, or call `step`, to get Frames; `insert` and `remove` rows in between.

    `sets_aside`: what happens where a row's text is still being written and the next word is not there. False: all
    wait. True: that row alone does, and joins again when its text has come; `step` gives None where all wait, and
    `unfinished` tells that from the end. A text that cannot be read any further then ends its row and stands in
    `failed`. Only texts that can be asked without waiting, as Feed can, are set aside.

    A row's max_tokens counts as in the official package: the last token would be spoken by a frame that is not made,
    so N tokens give at most N - 1 frames.
    """

    def __init__(self, talker: Talker, steps: Steps, end: int, sets_aside: bool = False) -> None:
        """steps: the talker's compiled steps; end: the id of end of speech."""
        self.talker, self.steps, self.end, self.sets_aside = talker, steps, end, sets_aside
        self.most: int | None = None
        self.aside: list[Aside] = []
        self.failed: dict[int, QwenTTSError] = {}  # by the number of the row
        self.rows: list[Row] = []  # in the order of the arrays' rows
        self.waiting: list[Row] = []  # inserted and not yet prefilled
        self.caches: list[KVCache] = []
        self.padding: list[int] = []  # of each row, on the left
        self._numbers = itertools.count()
        self._ahead: Enqueued | None = None
        self._mask: mx.array | None = None  # [B, 1, 1, positions]: what may be looked at
        self.embedding = self.seen = mx.zeros(0)  # next inputs [B, 1, E] and histories [B, V]
        self._step: tuple[FrameStep, Any] | None = None

    def insert(
        self,
        prompt: Prompt,
        seed: int,
        config: GenerationConfig,
        morph: Morph | None = None,
        paused: Callable[[], bool] | None = None,
    ) -> int:
        """Add a row, which speaks from the next frame that is put under way on. Returns its number.

        morph: changes the voice of the prompt while it is spoken; paused: whether the row is to wait as one does whose
        text has not come. With `sets_aside` alone.
        """
        row = Row(next(self._numbers), prompt, seed, config, morph, paused if self.sets_aside else None)
        self.waiting.append(row)
        return row.number

    def remove(self, number: int) -> None:
        """Let a row end here; nothing of it is handed out any more. One that has ended already stays so."""
        for row in (*self.rows, *self.waiting, *(aside.row for aside in self.aside)):
            if row.number == number:
                row.over = True
        self.waiting = [row for row in self.waiting if not row.over]

    @property
    def unfinished(self) -> bool:
        """Whether some row has something more to say, if only when its text has come."""
        return bool(self.waiting or self._going() or any(not aside.row.over for aside in self.aside))

    @property
    def talking(self) -> int:
        """How many rows speak or are about to, without those that wait for text."""
        return len(self.waiting) + sum(not self._waits(row) for row in self._going())

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.step()) is not None:
            yield frame

    def step(self) -> Frame | None:
        """The next frame of every row; None when no row is left. It may have ends alone and no codes."""
        enter()
        if self._ahead and all(row.over for row, _ in self._ahead.rows):
            self._ahead = None  # surplus of rows that have ended: nobody waits for it
        self._ahead = self._ahead or self.enqueue()
        if self._ahead is None:
            return None
        current, ready = self._ahead, self.sets_aside or not any(self._waits(row) for row in self._going())
        self._ahead = self.enqueue() if ready else None  # where this fails, what is under way stays
        frame = self._read(current)
        if not ready:
            frame.waits = set(frame.rows)
        elif self.sets_aside:
            waiting = [aside.row for aside in self.aside] + ([] if self._ahead else self._going())
            frame.waits = {row.number for row in waiting}
        return frame

    def _waits(self, row: Row) -> bool:
        """Whether the text of a row's next frame is not there yet, or the row is paused."""
        if row.paused and row.paused():
            return True
        try:
            return not row.prompt.text.ready(row.tokens - 1)
        except QwenTTSError as error:
            if not self.sets_aside:
                raise
            row.over, self.failed[row.number] = True, error  # this row's text alone
            return True

    def _going(self) -> list[Row]:
        """The rows that have something more to say."""
        return [row for row in self.rows if not row.over and row.tokens < row.config.max_tokens]

    def enqueue(self) -> Enqueued | None:
        """Put a frame's work under way; None where there are no rows."""
        with kernels.using(self.steps.kernels):
            return self._enqueue()

    def _enqueue(self) -> Enqueued | None:
        going = self._going()
        back = self._stand_aside(going) if self.sets_aside else []
        if self.sets_aside and not (going or back or self.waiting):
            return None  # those who wait do so where they are
        # Before anything changes, as it may wait for text, and a writer may fail.
        texts = [row.prompt.text.at(row.tokens - 1) for row in (*going, *(aside.row for aside in back))]
        self._leave(going)
        going += self._return(back)
        logits, hidden = self._talk(texts) if going else (None, None)
        if self.waiting:
            logits, hidden = self._join(logits, hidden)
        if logits is None or hidden is None:
            return None
        if self._step is None:
            self._step = self.steps.of([row.config for row in self.rows])
        step, settings = self._step
        seeds, frames = [row.seed for row in self.rows], [row.tokens for row in self.rows]
        made = any(row.tokens < row.config.max_tokens - 1 for row in self.rows)
        numbered = list(zip(self.rows, frames, strict=True))
        processing = None
        if any(row.config.processes for row in self.rows):
            processing = Processing([row.config for row in self.rows], [row.spoken for row in self.rows])
        for row in self.rows:
            row.tokens += 1
        if not made:
            first = step.first(logits, self.seen, seeds, frames, settings, processing)
            mx.async_eval(first)
            return Enqueued(numbered, first, None)
        first, codes, self.embedding, self.seen = step(logits, hidden, self.seen, seeds, frames, settings, processing)
        if processing:
            for place, row in enumerate(self.rows):
                row.spoken = mx.concatenate([row.spoken, first[place : place + 1]])
        mx.async_eval(first, codes, self.embedding, self.seen)
        return Enqueued(numbered, first, codes)

    def _leave(self, going: list[Row]) -> None:
        """Drop the rows that do not go on from everything that is computed on."""
        if len(going) == len(self.rows):
            return
        kept = [i for i, row in enumerate(self.rows) if row in going]
        self.rows, self._step, self._mask = going, None, None
        if not kept:
            self.caches, self.padding = [], []
            return
        padding = [self.padding[i] for i in kept]
        cut, places = min(padding), mx.array(kept)
        self.padding = [pad - cut for pad in padding]
        self.embedding, self.seen = self.embedding[places], self.seen[places]
        for cache in self.caches:
            cache.keep(places, cut)

    def _stand_aside(self, going: list[Row]) -> list[Aside]:
        """Take the rows that wait for text out of `going`, and where others speak out of what is computed on.

        Returns those whose text has come since.
        """
        back, self.aside = self.aside, []
        ready = {row: not row.over and not self._waits(row) for row in (*going, *(aside.row for aside in back))}
        rows = [row for row in going if not ready[row]]
        going[:] = [row for row in going if ready[row]]
        room = None if self.most is None else max(0, self.most - len(going) - len(self.waiting))
        back = [aside for aside in back if not aside.row.over]
        still = [aside for aside in back if not ready[aside.row]]
        back = [aside for aside in back if ready[aside.row]]
        self.aside = still + ([] if room is None else back[room:])
        back = back[:room]
        if going or back or self.waiting:
            self.aside += [self._own(row) for row in rows if not row.over]
        return back

    def _own(self, row: Row) -> Aside:
        """A row with arrays of its own."""
        place = self.rows.index(row)
        caches = [cache.row(place, self.padding[place]) for cache in self.caches]
        for cache in caches:
            cache.detach()
        made = Aside(row, caches, self.embedding[place : place + 1], self.seen[place : place + 1])
        mx.async_eval(made.embedding, made.seen, *(array for cache in caches for array in cache.state))
        return made

    def _return(self, back: list[Aside]) -> list[Row]:
        """Lay rows that stood aside beside those that speak. Returns them."""
        for aside in back:
            if self.rows:
                self._beside(aside.caches, [0])
                self.embedding = mx.concatenate([self.embedding, aside.embedding])
                self.seen = mx.concatenate([self.seen, aside.seen])
            else:
                self.caches, self.padding = aside.caches, [0]
                self.embedding, self.seen = aside.embedding, aside.seen
            self.rows, self._step, self._mask = [*self.rows, aside.row], None, None
        return [aside.row for aside in back]

    def _beside(self, caches: list[KVCache], padding: list[int]) -> None:
        """Lay the caches of further rows beside those there are; all of them end at one position then."""
        length, more = self.caches[0].offset, caches[0].offset
        end = max(length, more)
        self.padding = [pad + end - length for pad in self.padding] + [pad + end - more for pad in padding]
        for cache, other in zip(self.caches, caches, strict=True):
            cache.join(other)

    def _talk(self, texts: list[mx.array]) -> tuple[mx.array, mx.array]:
        """The talker's step for all rows: logits [B, V], hidden states [B, 1, E]."""
        for place, row in enumerate(self.rows):
            if row.morph and row.morph.due(row.tokens):
                self._revise(place, row, row.morph)
        offset, mask, positions = self.caches[0].offset, None, None
        if any(self.padding):
            mask, positions = self._sight(offset + 1), [offset - pad for pad in self.padding]
        return self.talker(
            self.embedding + mx.concatenate(texts).reshape(self.embedding.shape), self.caches, mask, positions
        )

    def _sight(self, positions: int) -> mx.array:
        """The mask [B, 1, 1, positions] of a single position: a row sees all but its padding."""
        if self._mask is None or self._mask.shape[-1] < positions:
            places = mx.arange(positions + ROOM)
            self._mask = (places >= mx.array(self.padding)[:, None])[:, None, None]
        return self._mask[..., :positions]

    def _revise(self, place: int, row: Row, morph: Morph) -> None:
        """Put the voice of a row's frame into its part of the caches."""
        if len(self.rows) == 1 and not self.padding[0]:
            morph.revise(self.caches, row.tokens)
            return
        own = [cache.row(place, self.padding[place]) for cache in self.caches]
        morph.revise(own, row.tokens)
        for cache, part in zip(self.caches, own, strict=True):
            cache.put_row(place, self.padding[place], part, morph.span)

    def _join(self, logits: mx.array | None, hidden: mx.array | None) -> tuple[mx.array, mx.array]:
        """Prefill the rows that wait and lay them beside those that speak, whose logits and hidden states are given.

        Returns the logits [B, V] and hidden states [B, 1, E] of all.
        """
        new, self.waiting = self.waiting, []
        caches, padding, new_logits, new_hidden = self._prefill(new)
        unseen = self.steps.unseen(len(new))
        if logits is None or hidden is None:
            self.caches, self.padding, self.seen = caches, padding, unseen
        else:
            self._beside(caches, padding)
            self.seen = mx.concatenate([self.seen, unseen])
            new_logits, new_hidden = mx.concatenate([logits, new_logits]), mx.concatenate([hidden, new_hidden])
        self.rows, self._step, self._mask = [*self.rows, *new], None, None
        return new_logits, new_hidden

    def _prefill(self, rows: list[Row]) -> tuple[list[KVCache], list[int], mx.array, mx.array]:
        """Prompts padded on the left to one length, [B, T, E]: (caches, padding of each, logits, hidden states)."""
        lengths = [row.prompt.embeddings.shape[0] for row in rows]
        longest, caches = max(lengths), self.talker.make_cache()
        padding = [longest - length for length in lengths]
        padded = [mx.pad(row.prompt.embeddings, [(pad, 0), (0, 0)]) for row, pad in zip(rows, padding, strict=True)]
        mask, positions = "causal", None
        if any(padding):
            # A padded position sees itself, or it would see nothing.
            own = mx.arange(longest)
            seen = (own >= mx.array(padding)[:, None])[:, None, None]  # [B, 1, 1, T]
            mask = (seen & (own <= own[:, None])) | (own == own[:, None])  # [B, 1, T, T]
            positions = [-pad for pad in padding]
        logits, hidden = self.talker(mx.stack(padded), caches, mask, positions)
        return caches, padding, logits, hidden

    def _read(self, current: Enqueued) -> Frame:
        """Wait for a frame's code 0 and note what ends with it."""
        spoke, ended = [], {}
        first: Any = current.first.tolist()  # a list of integers
        for place, ((row, token), code) in enumerate(zip(current.rows, first, strict=True)):
            if row.over:
                continue
            if code == self.end or token == row.config.max_tokens - 1:
                row.over = True
                ended[row.number] = "stop" if code == self.end else "length"
            else:
                spoke.append(place)
        numbers = [current.rows[place][0].number for place in spoke]
        codes = current.codes
        if codes is None or not spoke:
            codes = mx.zeros((0, self.steps.config.talker.num_code_groups), mx.uint32)
        elif len(spoke) < len(current.rows):
            codes = codes[mx.array(spoke)]
        return Frame(numbers, codes, ended)
