"""The talker's prompt: token ids and a voice in, embeddings out.

Every position adds a text side and a codec side:

    text   role  pad … pad  pad      bos  t0         t1 …                    (streaming: one text token a frame)
    codec        tags …     speaker  pad  bos        the frame before

In the full layout the text and its end stand in the prompt, over codec pad, before codec bos. In context (ICL) the
reference's text and codes come first. Text that is not in the prompt trails: one embedding is added a step, then pad.
T positions, E talker width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..networks.config import ModelConfig, TalkerConfig
from ..networks.talker import Talker


class Text:
    """The text side of what comes: one embedding [E] a step, in order, then pad for ever.

    `more` gives the next embeddings [N, E] and whether they are the last; it may wait for text that is being written.
    None: everything is here. `poll` does the same without waiting, and gives none where there are none yet; None where
    the writer cannot be asked.
    """

    def __init__(
        self,
        known: mx.array,
        pad: mx.array,
        more: Callable[[], tuple[mx.array, bool]] | None = None,
        poll: Callable[[], tuple[mx.array, bool]] | None = None,
    ) -> None:
        """known: [N, E]; pad: [E]."""
        self.tokens = 0  # of the text itself that have come so far
        self.known, self.pad, self.more, self.poll = known, pad, more, poll

    def ready(self, step: int) -> bool:
        """Whether the embedding of a step is known without waiting for text."""
        while self.poll and self.more and step >= self.known.shape[0]:
            embeddings, last = self.poll()
            if not (last or embeddings.shape[0]):
                break
            self._add(embeddings, last)
        return step < self.known.shape[0] or self.more is None

    def at(self, step: int) -> mx.array:
        """The embedding [E] of a step, waiting for it if need be."""
        while not self.ready(step):
            self._wait()
        # A slice is a view, where an index would be a kernel.
        return self.known[step : step + 1].reshape(-1) if step < self.known.shape[0] else self.pad

    def take(self, count: int | None = None) -> mx.array:
        """Remove and return the first `count` embeddings, or all if there are fewer or no count is given, [N, E]."""
        while self.more and (count is None or self.known.shape[0] < count):
            self._wait()
        count = self.known.shape[0] if count is None else count
        taken, self.known = self.known[:count], self.known[count:]
        return taken

    def _wait(self) -> None:
        assert self.more is not None, "there is nothing to wait for"
        self._add(*self.more())

    def _add(self, embeddings: mx.array, last: bool) -> None:
        self.known = mx.concatenate([self.known, embeddings])
        if last:
            self.more = None


@dataclass
class Prompt:
    """embeddings [T, E]; text: what is added to the steps that follow, one embedding a step.

    `speaker_position` is the place of the speaker vector in the prompt, or None.
    """

    embeddings: mx.array
    text: Text
    speaker_position: int | None

    @property
    def arrays(self) -> list[mx.array]:
        """Everything that is held, for `mx.eval`."""
        return [self.embeddings, self.text.known, self.text.pad]

    def spoken_by(self, speaker: mx.array) -> mx.array:
        """The embeddings [T, E] with another speaker vector [E]."""
        assert self.speaker_position is not None, "the prompt has no speaker"
        place, dtype = self.speaker_position, self.embeddings.dtype
        row = speaker.astype(dtype)[None] + self.text.pad
        return mx.concatenate([self.embeddings[:place], row, self.embeddings[place + 1 :]])


def language_tags(config: TalkerConfig, language: str, dialect: str | None = None) -> list[int]:
    """Codec control tokens for a language name. A dialect preset overrides Chinese and auto.

    language: lower-case name; dialect: a key of `codec_language_id` or None.
    """
    if dialect and language in ("chinese", "auto"):
        language = dialect
    if language == "auto":
        return [config.codec_nothink_id, config.codec_think_bos_id, config.codec_think_eos_id]
    return [
        config.codec_think_id,
        config.codec_think_bos_id,
        config.codec_language_id[language],
        config.codec_think_eos_id,
    ]


def build_prompt(
    talker: Talker,
    config: ModelConfig,
    role: Sequence[int],
    text: Sequence[int],
    tags: Sequence[int],
    layout: str,
    speaker: mx.array | None = None,
    instruct: Sequence[int] | None = None,
    reference: tuple[Sequence[int], mx.array] | None = None,
    more: Callable[[], tuple[list[int], bool]] | None = None,
    poll: Callable[[], tuple[list[int], bool]] | None = None,
) -> Prompt:
    """Assemble a prompt.

    role, text, instruct: token ids; tags: from `language_tags`; layout: one of LAYOUTS; speaker: [E] vector of any
    float dtype or None (VoiceDesign); reference: (text ids, codes [frames, codebooks]) or None; more: for a text that
    is still being written, a function that waits for (further ids, whether they are the last). Everything is in the
    talker's dtype.
    """
    pad, bos, eos = talker.embed_text(
        mx.array([config.tts_pad_token_id, config.tts_bos_token_id, config.tts_eos_token_id])
    )[:, None]  # [1, E] each
    codec_pad, codec_bos = talker.embed_codec(mx.array([config.talker.codec_pad_id, config.talker.codec_bos_id]))[
        :, None
    ]

    def embed(ids: Sequence[int], last: bool) -> mx.array:
        words = talker.embed_text(mx.array(list(ids))) if ids else eos[:0]
        return mx.concatenate([words, eos]) if last else words

    def embedded(source: Callable[[], tuple[list[int], bool]]) -> Callable[[], tuple[mx.array, bool]]:
        def following() -> tuple[mx.array, bool]:
            ids, last = source()
            words.tokens += len(ids)
            return embed(ids, last), last

        return following

    parts = [talker.embed_text(mx.array(list(instruct)))] if instruct else []
    parts += [talker.embed_text(mx.array(list(role))), talker.embed_codec(mx.array(list(tags))) + pad]
    position = None
    if speaker is not None:
        position = sum(part.shape[0] for part in parts)
        parts.append(speaker.astype(talker.dtype)[None] + pad)
    parts.append(codec_pad + bos)

    known = embed([*(reference[0] if reference else ()), *text], last=more is None)
    words = Text(known, pad[0], embedded(more) if more else None, embedded(poll) if poll else None)
    words.tokens = len(text)
    # What speech continues from: codec bos, in context followed by the reference's frames.
    spoken = mx.concatenate([codec_bos, talker.embed_frames(reference[1])]) if reference else codec_bos
    if layout == "full":
        parts += [words.take() + codec_pad, spoken + pad]
    else:
        together = words.take(spoken.shape[0])
        filler = mx.broadcast_to(pad, (spoken.shape[0] - together.shape[0], pad.shape[1]))
        parts.append(mx.concatenate([together, filler]) + spoken)
    return Prompt(mx.concatenate(parts), words, position)
