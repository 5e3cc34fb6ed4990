"""What a frame multiplies and normalises lies in memory as its shape says; a GPU would copy it first otherwise.

An axis of one may have any stride, as nobody steps along it, but MLX's kernels compare strides with shapes. The forms
for a GPU are run here on whatever device there is: strides are the same everywhere.
"""

import mlx.core as mx
import pytest

from convert.parity import vector
from mlx_qwen3tts.networks import linear, transformer
from mlx_qwen3tts.networks.device import form

FRAMES = 4


def is_packed(x):
    """Whether the last two axes lie as a product and a norm take them without a copy."""
    x = x.reshape(-1, *x.shape) if x.ndim == 1 else x
    strides = [stride // x.itemsize for stride in memoryview(x).strides]
    return strides[-1] == 1 and strides[-2] in (x.shape[-1], 0)


@pytest.fixture
def inputs(monkeypatch):
    """{what takes it: its inputs} of everything computed from here on."""
    taken = {"product": [], "norm": []}
    norm, product, added = mx.fast.rms_norm, linear.Linear.__call__, mx.addmm
    monkeypatch.setattr(mx.fast, "rms_norm", lambda x, *a: taken["norm"].append(x) or norm(x, *a))
    monkeypatch.setattr(linear.Linear, "__call__", lambda self, x: taken["product"].append(x) or product(self, x))
    monkeypatch.setattr(mx, "addmm", lambda c, x, w, **k: taken["product"].extend([c, x]) or added(c, x, w, **k))
    return taken


def speak(tts):
    prompt = tts.prompt("Hello.", tts.voice(vector(64, 1)))
    frames = iter(tts.generation([prompt], [1], tts.sampling.override(max_tokens=FRAMES + 3)))
    for _ in range(FRAMES):
        yield next(frames)


def test_no_frame_asks_a_gpu_for_a_copy(model, inputs):
    tts = model("base")
    mx.disable_compile()  # or what is seen is what is traced
    try:
        with form("gpu"):
            frames = speak(tts)
            next(frames)  # the prompt, and one frame ahead
            for values in inputs.values():
                values.clear()
            for _ in frames:
                pass
    finally:
        mx.enable_compile()
    mx.eval(inputs)
    config = tts.config
    layers = config.talker.num_hidden_layers + 15 * config.predictor.num_hidden_layers
    assert len(inputs["product"]) >= (FRAMES - 1) * 6 * layers and len(inputs["norm"]) >= (FRAMES - 1) * 3 * layers
    # q and k are cut from q, k and v where there is more than one position: in the predictor's first step.
    rows = [x for x in inputs["norm"] if not (x.ndim == 4 and x.shape[1] > 1)]
    copied = [
        (what, x.shape, memoryview(x).strides)
        for what, values in (("norm", rows), ("product", inputs["product"]))
        for x in values
        if not is_packed(x)
    ]
    assert not copied, copied[:4]


@pytest.mark.parametrize("shape", [(1, 1, 8), (2, 1, 8), (1, 3, 8)], ids=str)
def test_the_gate_is_packed(shape):
    made = transformer.SwiGLU(shape[-1], 4)
    made.fuse()
    seen = []
    made.down_proj = lambda x: seen.append(x) or x
    with form("gpu"):
        made(mx.ones(shape))
    mx.eval(seen)
    assert is_packed(seen[0])


def test_packing_is_a_view():
    x = mx.split(mx.arange(16.0).reshape(1, 16), 2, axis=-1)[0]
    packed = linear.packed(x)
    mx.eval(x, packed)
    assert not is_packed(x) and is_packed(packed) and mx.array_equal(x, packed)
