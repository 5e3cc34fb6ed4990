"""The KV cache, written by hand: preallocated in steps and written in place.

B batch, H key/value heads, T positions, D head dimension.
"""

import mlx.core as mx


def _room(x, more):
    """x [B, H, T, D] with `more` positions of zeros behind; an array of its own."""
    return mx.pad(x, ((0, 0), (0, 0), (0, more), (0, 0)))


class KVCache:
    """Keys and values of one attention layer, [B, H, T, D] each.

    The buffers grow by `step` positions at a time and are written through slice updates, which MLX does in place
    while nobody else holds the old buffer. Their dtype is that of the first keys they are given.
    """

    def __init__(self, step=256):
        self.step = step
        self.keys = self.values = None
        self.offset = 0

    def update(self, keys, values):
        """Append [B, H, t, D] keys and values; return everything cached so far, [B, H, offset, D]."""
        start, end = self.offset, self.offset + keys.shape[2]
        self.offset = end
        capacity = -(-end // self.step) * self.step
        if self.keys is None:
            self.keys, self.values = _room(keys, capacity - end), _room(values, capacity - end)
        else:
            if end > self.keys.shape[2]:
                more = capacity - self.keys.shape[2]
                self.keys, self.values = _room(self.keys, more), _room(self.values, more)
            self.keys[..., start:end, :] = keys
            self.values[..., start:end, :] = values
        return self.keys[..., :end, :], self.values[..., :end, :]

    def keep(self, rows, start=0):
        """Keep the batch's rows of these indices (an integer array) alone, from position `start` on."""
        self.keys, self.values = self.keys[rows][:, :, start:], self.values[rows][:, :, start:]
        self.offset -= start

    def join(self, other):
        """Add the rows of another cache below; the shorter of the two gets zeros in front, so that both end alike."""
        end = max(self.offset, other.offset)
        capacity = -(-end // self.step) * self.step

        def both(ours, theirs):
            parts = []
            for buffer, length in ((ours, self.offset), (theirs, other.offset)):
                parts.append(mx.pad(buffer[:, :, :length], ((0, 0), (0, 0), (end - length, capacity - end), (0, 0))))
            return mx.concatenate(parts)

        self.keys, self.values = both(self.keys, other.keys), both(self.values, other.values)
        self.offset = end

    def row(self, place, start):
        """A cache of one row from a position on; what is written to it does not show here."""
        part = KVCache(self.step)
        part.keys = self.keys[place : place + 1, :, start:]
        part.values = self.values[place : place + 1, :, start:]
        part.offset = self.offset - start
        return part

    def put_row(self, place, start, part, span):
        """Take over the positions `span` (first, end) of what `row` gave."""
        first, end = span
        where = slice(place, place + 1), slice(None), slice(start + first, start + end)
        self.keys[where] = part.keys[:, :, first:end]
        self.values[where] = part.values[:, :, first:end]

    @property
    def state(self):
        """The buffers, for `mx.eval`."""
        return [] if self.keys is None else [self.keys, self.values]


class SlidingKVCache:
    """The last `window - 1` keys and values; enough for queries that look back over `window` positions.

    `offset` counts every position seen, so that RoPE runs on while the memory stays constant. It is an integer, or in a
    cache that `stack` made of rows of different ages a list with one for each; the younger ones then have zeros in
    front of what they hold.
    """

    def __init__(self, window):
        self.window = window
        self.keys = self.values = None
        self.offset = 0

    def update(self, keys, values):
        """Append [B, H, t, D]; return what the t queries may see, the kept positions in front."""
        length = keys.shape[2]
        self.offset = self.offset + length if isinstance(self.offset, int) else [age + length for age in self.offset]
        if self.keys is not None:
            keys = mx.concatenate([self.keys, keys], axis=2)
            values = mx.concatenate([self.values, values], axis=2)
        # A contiguous copy: a view would hold on to the whole chunk it was cut from.
        first = max(0, keys.shape[2] - (self.window - 1))
        self.keys = mx.contiguous(keys[:, :, first:])
        self.values = mx.contiguous(values[:, :, first:])
        return keys, values

    @classmethod
    def stack(cls, caches):
        """One cache of several rows from caches of one row each."""
        made = cls(caches[0].window)
        held = [cache.keys.shape[2] if cache.keys is not None else 0 for cache in caches]
        ages = [cache.offset for cache in caches]
        made.offset = ages[0] if len(set(ages)) == 1 else ages
        if max(held) == 0:
            return made
        filled = next(cache for cache in caches if cache.keys is not None)

        def rows(name):
            parts = []
            for cache, length in zip(caches, held, strict=True):
                buffer = getattr(cache, name)
                buffer = getattr(filled, name)[:, :, :0] if buffer is None else buffer
                parts.append(mx.pad(buffer, ((0, 0), (0, 0), (max(held) - length, 0), (0, 0))))
            return mx.concatenate(parts)

        made.keys, made.values = rows("keys"), rows("values")
        return made

    def rows(self, count):
        """The caches of its `count` rows, each by itself."""
        made = []
        for place in range(count):
            own = SlidingKVCache(self.window)
            own.offset = self.offset if isinstance(self.offset, int) else self.offset[place]
            if self.keys is not None:
                first = self.keys.shape[2] - min(own.offset, self.window - 1)
                own.keys = mx.contiguous(self.keys[place : place + 1, :, first:])
                own.values = mx.contiguous(self.values[place : place + 1, :, first:])
            made.append(own)
        return made

    @property
    def state(self):
        """The buffers, for `mx.eval`."""
        return [] if self.keys is None else [self.keys, self.values]
