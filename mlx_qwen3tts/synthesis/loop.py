"""The one generation loop: prompts and seeds in, frames of codes out, for one utterance or a batch.

It knows neither strings nor files. Every mode, and whatever streams, batches or serves, consumes this generator.

A frame is one graph: the talker's step, sampling, the predictor's steps, the sum of the code embeddings. The codes do
not visit the host on the way, and frame t + 1 is under way before frame t is read: the end of speech is noticed one
frame late, and the surplus frame is dropped.
"""

from dataclasses import dataclass

import mlx.core as mx

from .sampling import noise_keys


@dataclass
class Frame:
    """codes [B, 16] of the rows (indices of prompts) that spoke it.

    waits: the loop has to wait for text before it can make another frame, so whoever holds frames back should not.
    """

    rows: list
    codes: mx.array
    waits: bool = False


class Generation:
    """Iterate to get Frames. `finish_reasons` has "stop" or "length" for each prompt once its frames are over."""

    def __init__(self, talker, prompts, step, seeds, max_tokens, end, morph=None):
        """talker: Talker; prompts: list of Prompt; step: FrameStep; seeds: one a prompt; end: id of end of speech;
        morph: Morph that changes the voice of the prompt, which is the only one then.

        max_tokens counts as in the official package: the last token would be spoken by a frame that is not made, so N
        tokens give at most N - 1 frames.
        """
        self.talker, self.prompts, self.step, self.seeds = talker, prompts, step, seeds
        self.max_tokens, self.end, self.morph = max_tokens, end, morph
        self.finish_reasons = [None] * len(prompts)

    def __iter__(self):
        self._start()
        frames = self.max_tokens - 1
        following = self._enqueue(0)
        for frame in range(frames):
            first, codes, rows = following
            ready = all(self.prompts[row].text.ready(frame) for row in self.rows)
            following = self._enqueue(frame + 1, made=frame + 1 < frames) if ready else None
            spoke = self._read(rows, first)
            if spoke:
                yield Frame(
                    [rows[i] for i in spoke], codes if len(spoke) == len(rows) else codes[mx.array(spoke)], not ready
                )
            if None not in self.finish_reasons:
                return
            if following is None:
                following = self._enqueue(frame + 1, made=frame + 1 < frames)
        # One token is left. It has no frame of its own, but it may be the end of speech.
        first, _, rows = following
        for row in [rows[i] for i in self._read(rows, first)]:
            self.finish_reasons[row] = "length"

    def _start(self):
        """Prefill: prompts padded on the left to one length, [B, T, E]."""
        lengths = [prompt.embeddings.shape[0] for prompt in self.prompts]
        longest = max(lengths)
        self.rows = list(range(len(lengths)))
        self.padding = [longest - length for length in lengths]
        self.caches = self.talker.make_cache()
        self.seen = self.step.sampler.unseen(len(lengths))
        padded = [
            mx.pad(prompt.embeddings, ((padding, 0), (0, 0)))
            for prompt, padding in zip(self.prompts, self.padding, strict=True)
        ]
        self.mask, mask, positions = None, "causal", None
        if any(self.padding):
            # What may be looked at, for all steps to come. A padded position sees itself, or it would see nothing.
            places = mx.arange(longest + self.max_tokens)
            self.mask = (places >= mx.array(self.padding)[:, None])[:, None, None]  # [B, 1, 1, positions]
            own = places[:longest]
            mask = (self.mask[..., :longest] & (own <= own[:, None])) | (own == own[:, None])  # [B, 1, T, T]
            positions = [-padding for padding in self.padding]
        self.logits, self.hidden = self.talker(mx.stack(padded), self.caches, mask, positions)

    def _enqueue(self, frame, made=True):
        """Put a frame's work under way: (code 0 [B], codes [B, 16] or None if the frame is not `made`, rows)."""
        if frame:
            self._leave()
            if self.morph:
                self.morph.revise(self.caches, frame)
            text = [self.prompts[row].text.at(frame - 1) for row in self.rows]
            offset, mask, positions = self.caches[0].offset, None, None
            if self.mask is not None:
                mask, positions = self.mask[..., : offset + 1], [offset - padding for padding in self.padding]
            self.logits, self.hidden = self.talker(
                self.embedding + mx.stack(text)[:, None], self.caches, mask, positions
            )
        keys = noise_keys([self.seeds[row] for row in self.rows], frame)
        if not made:
            first = self.step.first(self.logits, self.seen, frame, keys)
            mx.async_eval(first)
            return first, None, list(self.rows)
        first, codes, self.embedding, self.seen = self.step(self.logits, self.hidden, self.seen, frame, keys)
        mx.async_eval(first, codes, self.embedding, self.seen)
        return first, codes, list(self.rows)

    def _leave(self):
        """Drop the rows that have ended from everything that is computed on."""
        alive = [i for i, row in enumerate(self.rows) if self.finish_reasons[row] is None]
        if len(alive) == len(self.rows):
            return
        self.rows, self.padding = ([values[i] for i in alive] for values in (self.rows, self.padding))
        kept = mx.array(alive)
        self.embedding, self.seen = self.embedding[kept], self.seen[kept]
        self.mask = None if self.mask is None else self.mask[kept]
        for cache in self.caches:
            cache.keep(kept)

    def _read(self, rows, first):
        """Wait for a frame's code 0 and note what ends with it; the indices of the rows that speak."""
        spoke = []
        for i, code in enumerate(first.tolist()):
            if self.finish_reasons[rows[i]] is not None:
                continue
            if code == self.end:
                self.finish_reasons[rows[i]] = "stop"
            else:
                spoke.append(i)
        return spoke
