"""The KV cache, written by hand: preallocated in steps and written in place.

B batch, H key/value heads, T positions, D head dimension.
"""

import mlx.core as mx


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
        start, self.offset = self.offset, self.offset + keys.shape[2]
        if self.keys is None or self.offset > self.keys.shape[2]:
            self._grow(keys)
        self.keys[..., start : self.offset, :] = keys
        self.values[..., start : self.offset, :] = values
        return self.keys[..., : self.offset, :], self.values[..., : self.offset, :]

    def _grow(self, like):
        batch, heads, _, dim = like.shape
        have = 0 if self.keys is None else self.keys.shape[2]
        capacity = -(-self.offset // self.step) * self.step
        for name in ("keys", "values"):
            # An array each: item assignment changes the array object itself.
            room = mx.zeros((batch, heads, capacity - have, dim), like.dtype)
            setattr(self, name, room if have == 0 else mx.concatenate([getattr(self, name), room], axis=2))

    @property
    def state(self):
        """The buffers, for `mx.eval`."""
        return [] if self.keys is None else [self.keys, self.values]


class SlidingKVCache:
    """The last `window - 1` keys and values; enough for queries that look back over `window` positions.

    `offset` counts every position seen, so that RoPE runs on while the memory stays constant.
    """

    def __init__(self, window):
        self.window = window
        self.keys = self.values = None
        self.offset = 0

    def update(self, keys, values):
        """Append [B, H, t, D]; return what the t queries may see, the kept positions in front."""
        self.offset += keys.shape[2]
        if self.keys is not None:
            keys = mx.concatenate([self.keys, keys], axis=2)
            values = mx.concatenate([self.values, values], axis=2)
        # A contiguous copy: a view would hold on to the whole chunk it was cut from.
        first = max(0, keys.shape[2] - (self.window - 1))
        self.keys = mx.contiguous(keys[:, :, first:])
        self.values = mx.contiguous(values[:, :, first:])
        return keys, values

    @property
    def state(self):
        """The buffers, for `mx.eval`."""
        return [] if self.keys is None else [self.keys, self.values]
