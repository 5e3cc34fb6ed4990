"""One frame: what it costs a GPU, that it is compiled without changing anything, and that the host waits once."""

import shutil

import mlx.core as mx
import numpy as np
import pytest

from benchmarks import nodes
from benchmarks.waits import watched
from convert.parity import vector
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.networks import kernels
from mlx_qwen3tts.synthesis.frame import KEPT, Steps
from mlx_qwen3tts.synthesis.loop import Generation

# Kernels a frame; mlx-audio asks for some 2,800. 1.7B has a projection in front of the predictor; quantised products
# add their residuals apart.
BUDGET = {("0.6b", None): 1460, ("1.7b", None): 1475, ("0.6b", 8): 1666, ("1.7b", 8): 1696}
FUSED_BUDGET = {
    ("0.6b", None): 1029,
    ("1.7b", None): 1044,
    ("0.6b", 8): 1235,
    ("1.7b", 8): 1265,
}  # 1050 was the aim at 0.6b
needs_fusing = pytest.mark.skipif(not shutil.which("g++"), reason="on Linux MLX fuses with g++")


@needs_fusing
@pytest.mark.parametrize(("fused", "budget"), [((), BUDGET), (kernels.NAMES, FUSED_BUDGET)], ids=["plain", "fused"])
@pytest.mark.parametrize(("size", "bits"), BUDGET)
def test_a_frame_stays_within_the_budget(size, bits, fused, budget):
    totals, _, _ = nodes.measure(size, bits, repeats=1, fused=fused)
    assert totals["frame"] <= budget[size, bits]
    assert totals["frame"] == totals["talker"] + totals["predictor"] + totals["sampling"]
    assert min(totals.values()) > 0


@needs_fusing
def test_one_more_operation_is_counted_as_one(monkeypatch):
    with nodes.for_gpu():
        talker, config = nodes.blank_talker("tiny")
        before = nodes.count(*nodes.FrameGraph(talker, config).frame()[0]).total()
        head = talker.codec_head
        monkeypatch.setattr(talker, "codec_head", lambda x: mx.sin(head(x)))
        assert nodes.count(*nodes.FrameGraph(talker, config).frame()[0]).total() == before + 1
        monkeypatch.setattr(talker, "codec_head", lambda x: head(x).reshape(1, -1, 1).transpose(0, 2, 1))
        assert nodes.count(*nodes.FrameGraph(talker, config).frame()[0]).total() == before, "views are free"


@needs_fusing
@pytest.mark.parametrize(
    ("fused", "own"),
    [
        ((), {"rms_norm": 3, "Multiply": 1, "rope": 1, "SliceUpdate": 2}),
        (kernels.NAMES, {"rms_norm": 2, "qk_rope_write": 1, "SliceUpdate": 1}),
    ],
    ids=["plain", "fused"],
)
def test_every_layer_costs_the_same(fused, own):
    """The count is made of layers, so a wrong stand-in or a view taken for work would show."""
    with nodes.for_gpu():
        talker, config = nodes.blank_talker("tiny")
        graph = nodes.FrameGraph(talker, config, fused=fused)
        three = nodes.count(*graph.talker_step())
        talker.model.layers = talker.model.layers[:2]
        two = nodes.count(*graph.talker_step())
    layer = three - two
    gate = next(name for name in layer if name.startswith("Compiled"))
    assert layer == {"Matmul": 2, "AddMM": 2, "scaled_dot_product_attention": 1, gate: 1, **own}


@needs_fusing
def test_five_operations_become_one_in_the_predictor():
    """Its cache is written anew by the kernel, so not even the slice update is left, nor the first step's padding."""
    with nodes.for_gpu():
        talker, config = nodes.blank_talker("0.6b")
        found = nodes.count(*nodes.FrameGraph(talker, config, fused=kernels.NAMES).predictor())
    steps = 15 * config.predictor.num_hidden_layers
    assert found["qk_rope_write"] == steps and found["rms_norm"] == 2 * steps + 15
    assert not {"SliceUpdate", "Pad", "rope", "Multiply"} & set(found)
    assert found["Concatenate"] == 2, "the first step's two inputs, and the codes of the frame"


@pytest.mark.parametrize("how", [{"greedy": True}, {}, {"top_p": 0.7, "subtalker_top_p": 0.8}], ids=str)
def test_compiled_and_uncompiled_give_the_same_codes(checkpoint, how):
    def speak():
        tts = Qwen3TTS.from_pretrained(checkpoint("base"), dtype="float32")
        return np.array(tts.generate("Hello.", vector(64, 1), seed=3, max_tokens=16, **how).codes)

    compiled = speak()
    mx.disable_compile()
    try:
        assert (speak() == compiled).all()
    finally:
        mx.enable_compile()


@pytest.fixture
def log():
    with watched() as events:
        yield events


def test_the_watch_sees_every_way_to_the_host(log):
    x = mx.array([1, 2])
    for read in (x[0].item, x.tolist, lambda: bool(x[0]), lambda: float(x[0]), lambda: int(x[0]), lambda: np.array(x)):
        del log[:]
        read()
        assert log, read


@pytest.mark.parametrize("rows", [1, 3])
def test_the_host_waits_once_a_frame_and_never_before_the_next_is_under_way(model, log, rows):
    tts = model("base")
    prompts = [tts.prompt("Hello." * (i + 1), tts.voice(vector(64, 1))) for i in range(rows)]
    generation = tts.generation(prompts, range(rows), tts.sampling.override(max_tokens=9))
    frames = iter(generation)
    next(frames)
    assert log.count("enqueue") == 2, "the first frame is read when the second is under way"
    del log[:]
    for _ in frames:
        pass
    assert log == ["enqueue", "tolist"] * 7 + ["tolist"], "then one more is enqueued, and one read, at a time"


def test_speaking_as_a_whole_waits_once_a_frame(model, log):
    """With decoding. At the end, codes and sound are waited for together."""
    tts = model("base")
    tts.generate("Hello.", vector(64, 1), seed=1, max_tokens=6)  # loads the codec
    voice = tts.voice(vector(64, 1))
    prompt = tts.prompt("Hello.", voice)
    del log[:]
    speech = tts.generate("Hello.", voice, seed=1, max_tokens=61)
    waits = [event for event in log if event != "enqueue"]
    frames = speech.stats["frames"]
    assert frames == 60 and prompt.text.known.shape[0] < 60
    assert waits.count("tolist") == frames + 1 and len(waits) <= frames + 5


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_a_consumer_that_stops_has_caused_at_most_one_frame_more(model, monkeypatch, taken):
    tts, made = model("base"), []
    enqueue = Generation.enqueue
    monkeypatch.setattr(Generation, "enqueue", lambda self: made.append(1) or enqueue(self))
    generation = tts.generation([tts.prompt("Hello.", tts.voice(vector(64, 1)))], [1], tts.sampling)
    frames = iter(generation)
    for _ in range(taken):
        next(frames)
    frames.close()
    assert len(made) == taken + 1


def test_the_steps_that_are_used_are_kept(model):
    """One more kind of settings than are kept: what was used last stays compiled."""
    tts = model("base")
    steps = Steps(tts.talker, tts.config)
    usual = steps.of([tts.sampling])[0]
    for top_k in range(2, 2 * KEPT):
        steps.of([tts.sampling.override(top_k=top_k)])
        assert steps.of([tts.sampling])[0] is usual
