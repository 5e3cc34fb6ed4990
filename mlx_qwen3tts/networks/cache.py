"""The KV cache, written by hand: preallocated in steps and written in place.

B batch, H key/value heads, T positions, D head dimension.
"""

import mlx.core as mx


def _room(x: mx.array, more: int) -> mx.array:
    """x [B, H, T, D] with `more` positions of zeros behind; an array of its own."""
    return mx.pad(x, [(0, 0), (0, 0), (0, more), (0, 0)])


class KVCache:
    """Keys and values of one attention layer, [B, H, T, D] each.

    The buffers grow by `step` positions at a time and are written through slice updates, which MLX does in place
    while nobody else holds the old buffer. Their dtype is that of the first keys they are given.
    """

    def __init__(self, step: int = 256) -> None:
        self.step = step
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append [B, H, t, D] keys and values; return everything cached so far, [B, H, offset, D]."""
        start, end = self.offset, self.offset + keys.shape[2]
        self.offset = end
        capacity = -(-end // self.step) * self.step
        if self.keys is None or self.values is None:
            self.keys, self.values = _room(keys, capacity - end), _room(values, capacity - end)
        else:
            if end > self.keys.shape[2]:
                more = capacity - self.keys.shape[2]
                self.keys, self.values = _room(self.keys, more), _room(self.values, more)
            self.keys[..., start:end, :] = keys
            self.values[..., start:end, :] = values
        return self.keys[..., :end, :], self.values[..., :end, :]

    def keep(self, rows: mx.array) -> None:
        """Keep the batch's rows of these indices (an integer array) alone."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    @property
    def state(self) -> list[mx.array]:
        """The buffers, for `mx.eval`."""
        return [] if self.keys is None or self.values is None else [self.keys, self.values]


class SlidingKVCache:
    """The last `window - 1` keys and values; enough for queries that look back over `window` positions.

    `offset` counts every position seen, so that RoPE runs on while the memory stays constant.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append [B, H, t, D]; return what the t queries may see, the kept positions in front."""
        self.offset += keys.shape[2]
        if self.keys is not None and self.values is not None:
            keys = mx.concatenate([self.keys, keys], axis=2)
            values = mx.concatenate([self.values, values], axis=2)
        # A contiguous copy: a view would hold on to the whole chunk it was cut from.
        first = max(0, keys.shape[2] - (self.window - 1))
        self.keys = mx.contiguous(keys[:, :, first:])
        self.values = mx.contiguous(values[:, :, first:])
        return keys, values

    @property
    def state(self) -> list[mx.array]:
        """The buffers, for `mx.eval`."""
        return [] if self.keys is None or self.values is None else [self.keys, self.values]


Cache = KVCache | SlidingKVCache
