"""The one generation loop: a prompt and a sampler in, frames of codes out.

It knows neither strings nor files. Every mode, and whatever streams, batches or serves, consumes this generator.
"""

import mlx.core as mx


class Generation:
    """Iterate to get frames, [1, 16] code arrays. `finish_reason` is "stop" or "length" once the frames are over."""

    def __init__(self, talker, prompt, sampler, max_tokens, end):
        """talker: Talker; prompt: Prompt; sampler: Sampler; end: the id of end of speech.

        max_tokens counts as in the official package: the last token would be spoken by a frame that is not made, so N
        tokens give at most N - 1 frames.
        """
        self.talker, self.prompt, self.sampler = talker, prompt, sampler
        self.max_tokens, self.end = max_tokens, end
        self.finish_reason = None

    def __iter__(self):
        talker, prompt, sampler = self.talker, self.prompt, self.sampler
        caches = talker.make_cache()
        logits, hidden = talker(prompt.embeddings[None], caches)
        for frame in range(self.max_tokens - 1):
            sampler.start_frame(frame)
            first = sampler.first(logits)
            embedding = talker.embed_codec(first)[:, None]
            rest, total = talker.code_predictor(hidden, embedding, sampler.rest)
            text = prompt.trailing[frame] if frame < prompt.trailing.shape[0] else prompt.pad
            codes = mx.concatenate([first[:, None], rest], axis=1)
            logits, hidden = talker(embedding + total + text, caches)
            # The next step is under way before this one is read; after the end of speech it was for nothing.
            mx.async_eval(codes, logits, hidden, sampler.seen)
            if first.item() == self.end:
                self.finish_reason = "stop"
                return
            yield codes
        # One token is left. It has no frame of its own, but it may be the end of speech.
        sampler.start_frame(self.max_tokens - 1)
        self.finish_reason = "stop" if sampler.first(logits).item() == self.end else "length"
