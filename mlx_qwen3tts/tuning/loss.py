"""The loss: how well the model foresees the codes of recordings, teacher-forced in the layout that will be spoken.

Every position of the talker foresees what comes next: the last one of the prompt the first frame, each frame the one
after it, the last frame the end of speech. The code predictor foresees the other codebooks of a frame from the hidden
state before that frame, as it does when it speaks. Labels are put beside the positions that foresee them here, once.

The official recipe (sft_12hz.py of QwenLM/Qwen3-TTS) weighs the two the same. In November 2026 it still shifted the
labels of both a second time, gave the predictor the hidden state that has seen the frame, and left out the projection
of the text; `convert/parity.py` measures what each of these does.
B rows, T positions, F frames of a row, N of all rows together, E talker width, D = E dimensions of a voice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..networks.device import form
from ..networks.talker import Talker
from ..synthesis.prompt import Prompt

REST = 0.3  # the weight of codebooks 1 and up, as in the official recipe


@dataclass(frozen=True, eq=False)
class Example:
    """One utterance as the talker hears itself speak it.

    inputs [T, E]: the prompt, at whose speaker position `speaker` the voice is left out, then the F frames, each with
    the text of the step that follows it; codes [F, codebooks] int32.
    """

    inputs: mx.array
    speaker: int
    codes: mx.array

    @property
    def frames(self) -> int:
        return self.codes.shape[0]


def example(talker: Talker, prompt: Prompt, codes: mx.array) -> Example:
    """The Example of a Prompt, whoever is to speak it, and the codes [F, codebooks] of the recording of its text."""
    assert prompt.speaker_position is not None, "the prompt has no speaker"
    frames, width = codes.shape[0], prompt.embeddings.shape[1]
    nobody = prompt.spoken_by(mx.zeros(width))
    text = prompt.text.known[:frames]
    text = mx.concatenate([text, mx.broadcast_to(prompt.text.pad, (frames - text.shape[0], width))])
    inputs = mx.concatenate([nobody, talker.embed_frames(codes) + text])
    mx.eval(inputs)  # the prompt's graph is not kept
    return Example(inputs, prompt.speaker_position, codes.astype(mx.int32))


@dataclass(frozen=True, eq=False)
class Batch:
    """Several Examples, padded behind.

    inputs [B, T, E]; speaker [B, T, 1]: whether the voice is spoken in at a position; places [N + B]: those of the
    B * T positions that foresee something, and labels [N + B] what that is, a code 0 or the end of speech; frames [N]:
    which of `places` foresee a frame; codes [N, codebooks]: of these frames.
    """

    inputs: mx.array
    speaker: mx.array
    places: mx.array
    labels: mx.array
    frames: mx.array
    codes: mx.array


def batch(examples: Sequence[Example], end: int) -> Batch:
    """The Batch of Examples; end: the id of end of speech."""
    longest = max(one.inputs.shape[0] for one in examples)
    inputs = mx.stack([mx.pad(one.inputs, [(0, longest - one.inputs.shape[0]), (0, 0)]) for one in examples])
    speaker = np.zeros((len(examples), longest, 1), bool)
    places, frames, count = [], [], 0
    for row, one in enumerate(examples):
        speaker[row, one.speaker] = True
        first = one.inputs.shape[0] - one.frames - 1  # the last position of the prompt
        places.append(np.arange(one.frames + 1) + row * longest + first)
        frames.append(np.arange(one.frames) + count)
        count += one.frames + 1
    labels = [mx.concatenate([one.codes[:, 0], mx.array([end], mx.int32)]) for one in examples]
    return Batch(
        inputs,
        mx.array(speaker),
        mx.array(np.concatenate(places)),
        mx.concatenate(labels),
        mx.array(np.concatenate(frames)),
        mx.concatenate([one.codes for one in examples]),
    )


def voiced(given: Batch, vectors: mx.array) -> mx.array:
    """The inputs [B, T, E] of a Batch with the voice of every row, [B, D] or one for all [D], spoken in."""
    return given.inputs + mx.where(given.speaker, vectors.astype(given.inputs.dtype)[..., None, :], 0)


def losses(
    talker: Talker, given: Batch, vectors: mx.array, sample: mx.array | None = None, recompute: bool = False
) -> tuple[mx.array, mx.array]:
    """(mean cross entropy of codebook 0 and the ends of speech, mean cross entropy of the other codebooks), float32.

    vectors: the voice of every row [B, D], or one for all [D]; sample: which of the N frames the code predictor is
    asked about (default: all); recompute: the activations of every layer where the gradient needs them, instead of
    keeping them, as for `Talker.foresee`.
    """
    frames = given.frames if sample is None else given.frames[sample]
    codes = given.codes if sample is None else given.codes[sample]
    with form("gpu"):  # the forms for a CPU take floats for integers here and there, which have no gradient
        logits, hidden = talker.foresee(voiced(given, vectors), given.places, recompute)
        first = nn.losses.cross_entropy(logits.astype(mx.float32), given.labels, reduction="mean")
        rest = talker.foresee_rest(hidden[frames], codes, recompute).astype(mx.float32)
        return first, nn.losses.cross_entropy(rest, codes[:, 1:], reduction="mean")
