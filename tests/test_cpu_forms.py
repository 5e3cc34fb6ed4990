"""The forms chosen for a CPU device give what MLX's own give, and faster where that is what they are for."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts.networks import cpu
from mlx_qwen3tts.networks.config import CodecDecoderConfig
from mlx_qwen3tts.networks.device import form
from mlx_qwen3tts.networks.transformer import Attention, SwiGLU, causal_mask


def random(*shape, seed=0, dtype=mx.float32):
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


def test_powers_of_two_are_exact_to_float32():
    x = np.linspace(-126, 126.99, 500_001).astype(np.float32)
    found = np.array(cpu.exp2(mx.array(x)), np.float64)
    assert np.abs(found / np.exp2(x.astype(np.float64)) - 1).max() < 1.3e-7
    whole = mx.arange(-126, 127).astype(mx.float32)
    assert np.array_equal(np.array(cpu.exp2(whole)), np.exp2(np.array(whole)))


def test_the_gate_is_as_close_to_the_true_value_as_the_plain_one():
    gate, up = random(1, 7, 5000, seed=1) * 20, random(1, 7, 5000, seed=2)
    exact, factor = np.array(gate, np.float64), np.array(up, np.float64)
    exact = exact / (1 + np.exp(-exact)) * factor
    ours, plain = (np.abs(np.array(y, np.float64) - exact) for y in (cpu.gated(gate, up), gate * mx.sigmoid(gate) * up))
    assert ours.max() < 1.2 * plain.max()
    ends = cpu.gated(mx.array([-1e9, -100.0, 0.0, 1e9]), mx.ones(4)).tolist()
    assert ends == [pytest.approx(0, abs=1e-28), pytest.approx(0, abs=1e-28), 0, pytest.approx(1e9)]


def masks(batch, queries, keys):
    sight = causal_mask(queries, keys, window=50)
    allowed = mx.broadcast_to((sight == 0)[None, None], (batch, 1, queries, keys))
    return {
        "causal": "causal",
        "none": None,
        "additive": sight,
        "a row each": mx.where(allowed, 0.0, float("-inf")),
        "boolean": allowed,
        "finite": sight + random(queries, keys, seed=9),
    }


@pytest.mark.parametrize("name", masks(1, 1, 1))
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "queries", "keys"),
    [(1, 4, 2, 70, 70), (2, 4, 4, 130, 200), (1, 16, 8, 64, 300), (3, 2, 1, 65, 65), (2, 2, 2, 3, 400)],
)
def test_attention_gives_what_mlx_gives(name, batch, heads, kv_heads, queries, keys):
    q, k, v = (random(batch, *shape, 32, seed=i) for i, shape in enumerate([(heads, queries), *[(kv_heads, keys)] * 2]))
    mask = masks(batch, queries, keys)[name]
    wanted = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.2, mask=mask)
    found = cpu.attention(q, k, v, scale=0.2, mask=mask)
    assert found.shape == wanted.shape and np.abs(np.array(found - wanted)).max() < 1e-5


def test_attention_keeps_the_dtype_and_large_scores():
    q, k, v = (random(1, 2, 80, 16, seed=i, dtype=mx.bfloat16) for i in range(3))
    assert cpu.attention(q, k, v, scale=0.25, mask="causal").dtype == mx.bfloat16
    q, k, v = (100 * x.astype(mx.float32) for x in (q, k, v))  # scores of tens of thousands
    wanted = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.25, mask="causal")
    assert np.abs(np.array(cpu.attention(q, k, v, scale=0.25, mask="causal") - wanted)).max() < 1e-2


def test_compiled_forgets_shapes(monkeypatch):
    monkeypatch.setattr(cpu, "SHAPES", 2)
    traced = []

    @cpu.compiled
    def double(x):
        traced.append(x.shape)
        return x + x

    for length in (1, 2, 1, 3, 2, 2):
        assert double(mx.ones(length)).tolist() == [2] * length
    assert traced == [(1,), (2,), (3,), (2,)], "the oldest of three is traced anew"


def test_the_networks_use_them_on_a_cpu_alone(monkeypatch):
    used = []
    for name in ("attention", "gated"):
        real = getattr(cpu, name)
        monkeypatch.setattr(cpu, name, lambda *a, _f=real, _n=name, **k: used.append(_n) or _f(*a, **k))
    config = CodecDecoderConfig(64, 64, 64, 64, 64, 96, 1, 4, 2, 4, head_dim=16)
    layer, mlp = Attention(config), SwiGLU(64, 96)
    layer.fuse(), mlp.fuse()
    found = {}
    for device in ("cpu", "gpu"):
        with form(device):
            x = random(1, 40, config.hidden_size)
            found[device] = layer(x, lambda y: y, "causal"), mlp(random(1, 40, 64))
            mx.eval(found[device])
        assert used == ["attention", "gated"]
    for ours, plain in zip(found["cpu"], found["gpu"], strict=True):
        assert np.abs(np.array(ours - plain)).max() < 1e-5
