"""logits_processors: functions of the user's on both samplers, each row with its own, and nothing changed without."""

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Request, Sampling
from mlx_qwen3tts.errors import InvalidValue, WrongType
from mlx_qwen3tts.synthesis.frame import FrameStep
from mlx_qwen3tts.synthesis.sampling import GenerationConfig

A = vector(64, 1)
HOW = {"seed": 3, "max_tokens": 8}


def codes(speech):
    return np.array(speech.codes)


def same(tokens, logits):
    return logits + 0.0


def only(code):
    """A function that leaves nothing but one code."""
    return lambda tokens, logits: mx.where(mx.arange(logits.shape[-1]) == code, logits, float("-inf"))


class Watch:
    """Keeps what it is called with."""

    def __init__(self):
        self.tokens, self.logits = [], []

    def __call__(self, tokens, logits):
        self.tokens.append(tokens.tolist())
        self.logits.append(logits)
        return logits


def test_functions_that_change_nothing_change_nothing(model):
    tts = model("base")
    plain = codes(tts.generate("Hello.", A, **HOW))
    for names in (["logits_processors"], ["subtalker_logits_processors"]):
        given = {name: [same, same] for name in names}
        assert (codes(tts.generate("Hello.", A, **HOW, **given)) == plain).all()


def test_they_get_the_codes_and_the_raw_logits(model):
    tts, first, rest = model("base"), Watch(), Watch()
    how = {"logits_processors": [first], "subtalker_logits_processors": [rest]}
    spoken = codes(tts.generate("Hello.", A, repetition_penalty=2.0, **HOW, **how))
    assert len(spoken) == 7
    assert first.tokens == [spoken[:frame, 0].tolist() for frame in range(8)]  # the last decides on a frame not made
    assert rest.tokens == [row[:count].tolist() for row in spoken for count in range(1, 16)]
    assert {(row.shape, row.dtype) for row in first.logits} == {((1, tts.config.talker.vocab_size), mx.float32)}
    assert {row.shape for row in rest.logits} == {(1, tts.config.predictor.vocab_size)}
    prompt = tts.prompt("Hello.", tts.voice(A))
    logits, _ = tts.talker(prompt.embeddings[None], tts.talker.make_cache())
    assert np.allclose(np.array(first.logits[0]), np.array(logits), atol=1e-5)  # nothing was penalised or barred


def test_they_decide_what_is_spoken(model):
    tts = model("base")
    spoken = codes(tts.generate("Hello.", A, **HOW, logits_processors=[only(7)], subtalker_logits_processors=[only(9)]))
    assert (spoken == [7] + [9] * 15).all() and len(spoken) == 7
    end = tts.config.talker.codec_eos_token_id

    def stop(tokens, logits):
        return only(end)(tokens, logits) if tokens.size >= 4 else logits

    speech = tts.generate("Hello.", A, seed=3, max_tokens=30, logits_processors=[stop])
    assert len(speech.codes) == 4 and speech.finish_reason == "stop"
    # Control tokens stay barred, whatever a function says.
    control = only(tts.config.talker.vocab_size - 1)
    assert (codes(tts.generate("Hi.", A, **HOW, logits_processors=[control]))[:, 0] < 2048).all()


def test_rows_of_a_batch_have_their_own(model):
    """Rows with functions and rows without, with equal and with other values, as each is alone."""
    tts, watch = model("base"), Watch()
    requests = [
        Request("One.", A, seed=1, sampling=Sampling(max_tokens=9)),
        Request("Two, three.", A, seed=2, sampling=Sampling(max_tokens=6, logits_processors=[only(5)])),
        Request("Four.", A, seed=3, sampling=Sampling(max_tokens=8, top_k=3, subtalker_logits_processors=[only(4)])),
        Request("Five.", A, seed=4, sampling=Sampling(max_tokens=7, logits_processors=[watch])),
    ]
    together = [codes(speech) for speech in tts.generate_batch(requests, batch_size=3)]
    assert watch.tokens[:7] == [together[3][:frame, 0].tolist() for frame in range(7)]
    for request, spoken in zip(requests, together, strict=True):
        assert (codes(tts.generate(request)) == spoken).all()
    assert (together[1][:, 0] == 5).all() and (together[2][:, 1:] == 4).all()
    shared = tts.generate_batch(["One.", "Two."], A, seeds=1, max_tokens=4, logits_processors=[only(5)])
    assert all((codes(speech)[:, 0] == 5).all() for speech in shared)


def test_without_them_frames_are_compiled(model, monkeypatch):
    """Compiled, a frame is traced once for its shape; with functions every frame runs as Python. Neither disturbs the
    other."""
    tts, traced, trace = model("base"), [], FrameStep.trace
    monkeypatch.setattr(FrameStep, "trace", lambda self, *inputs: traced.append(0) or trace(self, *inputs))
    counts = []
    for given in ({}, {}, {"logits_processors": [same]}, {}):
        traced.clear()
        tts.generate("Hello.", A, top_k=17, **HOW, **given)
        counts.append(len(traced))
    assert counts == [1, 0, 7, 0]


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"logits_processors": same}, WrongType, "logits_processors must be a list of functions f"),
        ({"logits_processors": [None]}, WrongType, r"must be a list of functions f\(tokens, logits\), not \[None\]"),
        ({"subtalker_logits_processors": "x"}, WrongType, "subtalker_logits_processors must be a list"),
        ({"logits_processors": [lambda t, x: x[0]]}, InvalidValue, r"gave logits of shape \[\d+\], not \[1, \d+\]"),
        ({"subtalker_logits_processors": [lambda t, x: None]}, WrongType, "gave NoneType, not an mx.array of logits"),
    ],
)
def test_what_is_not_a_function_of_logits(model, given, kind, message):
    with pytest.raises(kind, match=message) as refused:
        model("base").generate("Hi.", A, **HOW, **given)
    assert refused.value.param == next(iter(given))


def test_an_error_in_a_function_is_the_users_own(model):
    def fails(tokens, logits):
        return {}["missing"]

    tts = model("base")
    with pytest.raises(KeyError, match="missing"):
        tts.generate("Hi.", A, **HOW, logits_processors=[fails])
    assert len(tts.generate("Hi.", A, **HOW).codes) == 7  # and nothing is left of it


def test_functions_are_part_of_a_sampling():
    one, other = Sampling(logits_processors=[same]), Sampling(logits_processors=(same,))
    assert one == other != Sampling() and repr(one).startswith("Sampling(logits_processors=(<function same")
    assert Sampling(logits_processors=None) == Sampling() and not GenerationConfig().processes
    watch = Watch()
    assert GenerationConfig().sampled(Sampling(logits_processors=[watch])).logits_processors == (watch,)  # not a copy
    assert GenerationConfig.from_config({"logits_processors": ["x"], "top_k": 3}).logits_processors == ()
