"""The KV cache, written by hand: preallocated in steps and written in place.

B batch, H key/value heads, T positions, D head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx


def _room(x: mx.array, before: int, after: int) -> mx.array:
    """x [..., T, D] with positions of zeros in front and behind; an array of its own."""
    return mx.pad(x, [(0, 0)] * (x.ndim - 2) + [(before, after), (0, 0)])


def _filled(buffer: mx.array | None) -> mx.array:
    assert buffer is not None, "the cache is empty"
    return buffer


class KVCache:
    """Keys and values of one attention layer, [B, H, T, D] each, in one buffer, `pair` [2, B, H, T, D].

    The buffer grows by `step` positions at a time and is written through slice updates, which MLX does in place while
    nobody else holds the old buffer. Its dtype is that of the first keys it is given.
    """

    def __init__(self, step: int = 256) -> None:
        self.step = step
        self.pair: mx.array | None = None
        self.offset = 0

    @property
    def keys(self) -> mx.array:
        """The buffer's keys."""
        return _filled(self.pair)[0, :]  # a slice is a view, where an index alone would be a kernel

    @property
    def values(self) -> mx.array:
        """The buffer's values."""
        return _filled(self.pair)[1, :]

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append [B, H, t, D] keys and values; return everything cached so far, [B, H, offset, D]."""
        if self.pair is None:
            return self.append(mx.stack([keys, values]))
        start = self.offset
        self._grow(start + keys.shape[2])
        self.pair[0, :, :, start : self.offset] = keys
        self.pair[1, :, :, start : self.offset] = values
        return self._seen(self.pair)

    def append(self, pair: mx.array) -> tuple[mx.array, mx.array]:
        """`update` for keys and values in one array [2, B, H, t, D], written at once."""
        if self.pair is None:
            self.pair, self.offset = _room(pair, 0, -pair.shape[3] % self.step), pair.shape[3]
        else:
            start = self.offset
            self._grow(start + pair.shape[3])
            self.pair[..., start : self.offset, :] = pair
        return self._seen(self.pair)

    def replace(self, pair: mx.array) -> tuple[mx.array, mx.array]:
        """Hold these keys and values [2, B, H, offset, D] and nothing else."""
        self.pair, self.offset = pair, pair.shape[3]
        return self._seen(pair)

    def _grow(self, end: int) -> None:
        """Make room up to position `end` and stand there."""
        room = _filled(self.pair).shape[3]
        if end > room:
            self.pair = _room(_filled(self.pair), 0, -(-end // self.step) * self.step - room)
        self.offset = end

    def _seen(self, pair: mx.array) -> tuple[mx.array, mx.array]:
        return pair[0, :, :, : self.offset], pair[1, :, :, : self.offset]

    def keep(self, rows: mx.array, start: int = 0) -> None:
        """Keep the batch's rows of these indices (an integer array) alone, from position `start` on."""
        self.pair = _filled(self.pair)[:, rows][..., start:, :]
        self.offset -= start

    def join(self, other: KVCache) -> None:
        """Add the rows of another cache below; the shorter of the two gets zeros in front, so that both end alike."""
        end = max(self.offset, other.offset)
        capacity = -(-end // self.step) * self.step
        parts = [
            _room(_filled(cache.pair)[..., : cache.offset, :], end - cache.offset, capacity - end)
            for cache in (self, other)
        ]
        self.pair, self.offset = mx.concatenate(parts, axis=1), end

    def row(self, place: int, start: int) -> KVCache:
        """A cache of one row from a position on; what is written to it does not show here."""
        part = KVCache(self.step)
        part.pair, part.offset = _filled(self.pair)[:, place : place + 1, :, start:], self.offset - start
        return part

    def detach(self) -> None:
        """Hold a buffer of its own, not a view of a larger one."""
        self.pair = mx.contiguous(_filled(self.pair))

    def put_row(self, place: int, start: int, part: KVCache, span: tuple[int, int]) -> None:
        """Take over the positions `span` (first, end) of what `row` gave."""
        first, end = span
        new = _filled(part.pair)[..., first:end, :]
        _filled(self.pair)[:, place : place + 1, :, start + first : start + end] = new

    @property
    def state(self) -> list[mx.array]:
        """The buffer, for `mx.eval`."""
        return [] if self.pair is None else [self.pair]


class SlidingKVCache:
    """The last `window - 1` keys and values; enough for queries that look back over `window` positions.

    `ages` counts every position that each row has seen, so that RoPE runs on while the memory stays constant: one
    number for all rows of one age, which `offset` is then too. Rows that `stack` put together may differ in age; the
    younger ones then have zeros in front of what they hold, and `offset` is a list.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.ages = [0]

    @property
    def offset(self) -> int | list[int]:
        """The position that comes next: of all rows, or a list where they differ."""
        return self.ages[0] if len(self.ages) == 1 else self.ages

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append [B, H, t, D]; return what the t queries may see, the kept positions in front."""
        self.ages = [age + keys.shape[2] for age in self.ages]
        if self.keys is not None and self.values is not None:
            keys = mx.concatenate([self.keys, keys], axis=2)
            values = mx.concatenate([self.values, values], axis=2)
        # A contiguous copy: a view would hold on to the whole chunk it was cut from.
        first = max(0, keys.shape[2] - (self.window - 1))
        self.keys = mx.contiguous(keys[:, :, first:])
        self.values = mx.contiguous(values[:, :, first:])
        return keys, values

    @property
    def held(self) -> list[int]:
        """How many positions each row holds, one number for all where they are of one age."""
        return [min(age, self.window - 1) for age in self.ages]

    @classmethod
    def stack(cls, caches: Sequence[SlidingKVCache]) -> SlidingKVCache:
        """One cache of several rows from caches of one row each."""
        made = cls(caches[0].window)
        ages = [cache.ages[0] for cache in caches]
        made.ages = ages if len(set(ages)) > 1 else ages[:1]
        longest = max(made.held)

        def rows(buffers: list[mx.array | None]) -> mx.array | None:
            filled = next((buffer for buffer in buffers if buffer is not None), None)
            if filled is None:
                return None
            nothing = filled[:, :, :0]
            parts = [nothing if buffer is None else buffer for buffer in buffers]
            return mx.concatenate([_room(part, longest - part.shape[2], 0) for part in parts])

        made.keys, made.values = rows([cache.keys for cache in caches]), rows([cache.values for cache in caches])
        return made

    def rows(self, count: int) -> list[SlidingKVCache]:
        """The caches of its `count` rows, each by itself."""
        made = []
        ages, held = (values * count if len(values) == 1 else values for values in (self.ages, self.held))
        for place in range(count):
            own = SlidingKVCache(self.window)
            own.ages = [ages[place]]
            if self.keys is not None and self.values is not None:
                first = self.keys.shape[2] - held[place]
                own.keys = mx.contiguous(self.keys[place : place + 1, :, first:])
                own.values = mx.contiguous(self.values[place : place + 1, :, first:])
            made.append(own)
        return made

    @property
    def state(self) -> list[mx.array]:
        """The buffers, for `mx.eval`."""
        return [] if self.keys is None or self.values is None else [self.keys, self.values]


Cache = KVCache | SlidingKVCache
