"""The talker's prompt: token ids and a voice in, embeddings out.

Every position adds a text side and a codec side:

    text   role  pad … pad  pad      bos  t0         t1 …                    (streaming: one text token a frame)
    codec        tags …     speaker  pad  bos        the frame before

In the full layout the text and its end stand in the prompt, over codec pad, before codec bos. In context (ICL) the
reference's text and codes come first. Text that is not in the prompt trails: one embedding is added a step, then pad.
T positions, E talker width.
"""

from dataclasses import dataclass

import mlx.core as mx

LAYOUTS = ("streaming", "full")


@dataclass
class Prompt:
    """embeddings [T, E]; trailing [N, E], added one a step; pad [E], added when those are used up.

    `speaker_position` is the place of the speaker vector in the prompt, or None.
    """

    embeddings: mx.array
    trailing: mx.array
    pad: mx.array
    speaker_position: int | None


def language_tags(config, language, dialect=None):
    """Codec control tokens for a language name. A dialect preset overrides Chinese and auto.

    config: TalkerConfig; language: lower-case name; dialect: a key of `codec_language_id` or None.
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


def build_prompt(talker, config, role, text, tags, layout, speaker=None, instruct=None, reference=None):
    """Assemble a prompt.

    talker: Talker; config: ModelConfig; role, text, instruct: token ids; tags: from `language_tags`; layout: one of
    LAYOUTS; speaker: [E] vector of any float dtype or None (VoiceDesign); reference: (text ids, codes [frames, 16]) or
    None. Everything is in the talker's dtype.
    """
    pad, bos, eos = talker.embed_text(
        mx.array([config.tts_pad_token_id, config.tts_bos_token_id, config.tts_eos_token_id])
    )[:, None]  # [1, E] each
    codec_pad, codec_bos = talker.embed_codec(mx.array([config.talker.codec_pad_id, config.talker.codec_bos_id]))[
        :, None
    ]

    parts = [talker.embed_text(mx.array(instruct))] if instruct else []
    parts += [talker.embed_text(mx.array(role)), talker.embed_codec(mx.array(tags)) + pad]
    position = None
    if speaker is not None:
        position = sum(part.shape[0] for part in parts)
        parts.append(speaker.astype(talker.dtype)[None] + pad)
    parts.append(codec_pad + bos)

    words = talker.embed_text(mx.array([*(reference[0] if reference else ()), *text]))
    words = mx.concatenate([words, eos])
    # What speech continues from: codec bos, in context followed by the reference's frames.
    spoken = mx.concatenate([codec_bos, talker.embed_frames(reference[1])]) if reference else codec_bos
    if layout == "full":
        parts += [words + codec_pad, spoken + pad]
        trailing = words[:0]
    else:
        together, trailing = words[: spoken.shape[0]], words[spoken.shape[0] :]
        filler = mx.broadcast_to(pad, (spoken.shape[0] - together.shape[0], pad.shape[1]))
        parts.append(mx.concatenate([together, filler]) + spoken)
    return Prompt(mx.concatenate(parts), trailing, pad[0], position)
