"""The loss against what speaks: the same codes, layouts, quantisation. Its parity is in test_parity.py."""

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.convert import convert
from mlx_qwen3tts.tuning.loss import REST, batch, example, losses, voiced
from mlx_qwen3tts.voices.voice import Voice

TEXTS = ("Hello there, this is a longer text.", "Hello.")
END = 2150


def spoken(tts, text, layout, frames=12):
    """(the Prompt of a text, the codes that are spoken greedily, the voice)."""
    voice = Voice(vector(tts.embedding_dim, 3))
    speech = tts.generate(
        text, voice, language="english", text_mode=layout, greedy=True, repetition_penalty=1.0, max_tokens=frames + 1
    )
    return tts.prompt(text, voice, "english", None, layout), speech.codes, voice.embedding


@pytest.mark.parametrize("layout", ["streaming", "full"])
@pytest.mark.parametrize("name", ["tune-0b6", "tune-1b7"])
def test_what_is_spoken_is_what_is_foreseen(model, name, layout):
    """Teacher-forced on its own greedy speech, the most likely code is the spoken one, in every book of every frame."""
    tts = model(name)
    prompt, codes, voice = spoken(tts, TEXTS[0], layout)
    given = batch([example(tts.talker, prompt, codes)], END)
    assert given.labels.tolist() == [*codes[:, 0].tolist(), END]
    logits, hidden = tts.talker.foresee(voiced(given, voice), given.places)
    logits = logits[given.frames]
    barred = (mx.arange(logits.shape[1]) >= 2048) & (mx.arange(logits.shape[1]) != END)
    early = (mx.arange(len(codes))[:, None] < 2) & (mx.arange(logits.shape[1]) == END)
    first = mx.argmax(mx.where(barred | early, -mx.inf, logits), axis=1)
    rest = mx.argmax(tts.talker.foresee_rest(hidden[given.frames], given.codes), axis=2)
    assert mx.concatenate([first[:, None], rest], axis=1).tolist() == codes.tolist()


@pytest.fixture(scope="module")
def examples(model):
    tts = model("tune-1b7")
    rows = [spoken(tts, text, "streaming", frames) for text, frames in zip(TEXTS, (9, 4), strict=True)]
    return tts, [example(tts.talker, prompt, codes) for prompt, codes, _ in rows], rows[0][2]


def test_padding_changes_nothing(examples):
    tts, rows, voice = examples
    together = [loss.item() for loss in losses(tts.talker, batch(rows, END), voice)]
    alone = [[loss.item() for loss in losses(tts.talker, batch([row], END), voice)] for row in rows]
    weights = [(row.frames + 1, row.frames) for row in rows]
    for kind in range(2):
        mean = np.average([one[kind] for one in alone], weights=[weight[kind] for weight in weights])
        assert together[kind] == pytest.approx(mean, abs=1e-5)


def test_every_row_may_have_its_own_voice(examples):
    tts, rows, voice = examples
    other = -voice
    own = losses(tts.talker, batch(rows, END), mx.stack([voice, other]))
    alone = [losses(tts.talker, batch([row], END), v)[1].item() for row, v in zip(rows, (voice, other), strict=True)]
    assert own[1].item() == pytest.approx(np.average(alone, weights=[row.frames for row in rows]), abs=1e-5)


def test_some_frames_alone(examples):
    tts, rows, voice = examples
    given = batch(rows, END)
    whole, some, others = (
        losses(tts.talker, given, voice, sample)[1].item() for sample in (None, mx.arange(5), mx.arange(5, 13))
    )
    assert whole == pytest.approx((5 * some + 8 * others) / 13, abs=1e-5) and some != pytest.approx(others, abs=1e-3)


def gradient(talker, given, voice, recompute=False):
    def total(v):
        first, rest = losses(talker, given, v, recompute=recompute)
        return first + REST * rest

    return mx.value_and_grad(total)(voice)


def test_recomputed_activations_give_the_same_gradient(examples):
    tts, rows, voice = examples
    (plain, one), (again, other) = (gradient(tts.talker, batch(rows, END), voice, flag) for flag in (False, True))
    assert plain.item() == again.item()
    assert np.abs(np.array(one - other)).max() <= 1e-6 * np.abs(np.array(one)).max()


def test_the_gradient_through_quantised_layers(checkpoint, tmp_path):
    """Against a finite difference along it, which the forms for a CPU would not pass."""
    convert(checkpoint("tune-1b7"), tmp_path / "q", dtype="float32", quantize=True, q_bits=6, q_group_size=32)
    tts = Qwen3TTS.from_pretrained(tmp_path / "q")
    assert type(tts.talker.model.layers[0].self_attn.qkv_proj).__name__ == "QuantizedLinear"
    prompt, codes, voice = spoken(tts, TEXTS[1], "full", 5)
    given = batch([example(tts.talker, prompt, codes)], END)
    _, slope = gradient(tts.talker, given, voice)
    along = slope / mx.linalg.norm(slope)
    step = 0.02
    ends = [gradient(tts.talker, given, voice + sign * step * along)[0].item() for sign in (1, -1)]
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(mx.linalg.norm(slope)), rel=0.02)
