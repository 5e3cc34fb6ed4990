"""What happens between two talker steps, as one compiled function: sampling, the predictor's steps, the next input."""

import mlx.core as mx


class FrameStep:
    """Make frames from the talker's output. Compiled once for a batch size; the weights must not change afterwards.

    B batch, E talker width, V codec vocabulary.
    """

    def __init__(self, talker, sampler):
        """talker: Talker; sampler: Sampler."""
        self.talker, self.sampler = talker, sampler
        self.noise = mx.compile(sampler.noise)
        self.make = mx.compile(self._make)

    def _make(self, logits, hidden, seen, mask, first_noise, rest_noise):
        sampler = self.sampler
        first, seen = sampler.first(logits, seen, mask, first_noise)
        codes = self.talker.predict(
            hidden,
            first,
            lambda step, row: sampler.rest(row, None if rest_noise is None else rest_noise[step]),
        )
        return first, codes, self.talker.embed_frames(codes)[:, None], seen

    def __call__(self, logits, hidden, seen, frame, keys):
        """A frame from the talker's logits [B, V] and hidden state [B, 1, E].

        seen: the history [B, V]; frame: its number; keys: from `noise_keys`. Returns (code 0 [B], codes [B, 16], their
        summed embeddings [B, 1, E], the new history).
        """
        return self.make(logits, hidden, seen, self.sampler.mask(frame), *self.noise(keys))

    def first(self, logits, seen, frame, keys):
        """Code 0 [B] of a frame that is not made."""
        return self.sampler.first(logits, seen, self.sampler.mask(frame), self.noise(keys)[0])[0]
