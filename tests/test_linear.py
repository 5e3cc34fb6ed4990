"""Layers are fused and laid out at load, and compute what they computed as published."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.networks import cpu
from mlx_qwen3tts.networks.device import form
from mlx_qwen3tts.networks.linear import Linear, Rows, add_product, stack, table


def layer(outputs, inputs=256, bias=False, dtype=mx.float32):
    made = Linear(inputs, outputs, bias=bias)
    made.weight = mx.random.normal((outputs, inputs), dtype=dtype, key=mx.random.key(outputs))
    if bias:
        made.bias = mx.random.normal((outputs,), key=mx.random.key(1))
    return made


@pytest.fixture(params=["as published", "transposed", "in blocks"])
def layout(request, monkeypatch):
    """Lays a layer out in one of the forms."""
    monkeypatch.setattr(cpu, "multiplies_in_place", lambda: request.param == "in blocks")
    monkeypatch.setattr(cpu, "BLOCK", 256 * 128)

    def lay_out(made):
        with form("gpu" if request.param == "as published" else "cpu"):
            made.lay_out()
        contiguous = made.weight.shape[1] * made.weight.itemsize
        strides = memoryview(made.weight).strides if made.weight.dtype == mx.float32 else None
        if request.param == "transposed":
            assert strides[0] < strides[1], "the inputs lie together"
        else:
            assert strides == (contiguous, made.weight.itemsize)
        assert (made.block(mx.ones(made.weight.shape[1])) is not None) == (request.param == "in blocks")
        return made

    return lay_out


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(256,), (1, 256), (1, 1, 256), (3, 256), (1, 5, 256), (2, 1, 256)], ids=str)
def test_every_layout_gives_the_same(layout, bias, shape):
    x, residual = mx.random.normal(shape, key=mx.random.key(2)), mx.random.normal((*shape[:-1], 512))
    plain, made = layer(512, bias=bias), layout(layer(512, bias=bias))
    wanted = np.array(x, np.float64) @ np.array(plain.weight, np.float64).T + (np.array(plain.bias) if bias else 0)
    for ours in (made(x), add_product(residual, x, made) - residual):
        assert ours.shape == wanted.shape and np.abs(np.array(ours) - wanted).max() < 1e-3


def test_what_cannot_be_cut_into_blocks_of_use_is_left_whole(monkeypatch):
    monkeypatch.setattr(cpu, "multiplies_in_place", lambda: True)
    for outputs, inputs, rows, block in (
        (2048, 1024, 1, 512),
        (2048, 1024, 3, 256),
        (2048, 1024, 16, 32),
        (2048, 1024, 17, None),
        (1024, 3072, 1, 256),
        (1024, 3072, 16, 16),
        (1024, 6144, 16, None),
        (512, 256, 1, None),
        (512, 256, 16, 128),
        (2 * 977, 10**4, 1, None),
    ):
        made = Linear(inputs, outputs, bias=False)
        made.weight = mx.zeros((outputs, inputs))
        with form("cpu"):
            made.lay_out()
        assert made.block(mx.ones((rows, 1, inputs))) == block
    half = layer(512, dtype=mx.bfloat16)
    with form("cpu"):
        half.lay_out()
    assert half.block(mx.ones(256)) is None, "only float32 goes through BLAS"


def quantised(outputs, bits, group_size=64):
    return nn.QuantizedLinear.from_linear(layer(outputs), group_size, bits)


@pytest.mark.parametrize(
    ("parts", "products"),
    [
        ((lambda: layer(64), lambda: layer(32), lambda: layer(16)), 1),
        ((lambda: layer(64, bias=True), lambda: layer(32, bias=True)), 1),
        ((lambda: quantised(64, 4), lambda: quantised(32, 4)), 1),
        ((lambda: quantised(64, 4), lambda: quantised(32, 4), lambda: quantised(16, 6)), 2),
        ((lambda: quantised(64, 4), lambda: quantised(32, 6), lambda: quantised(16, 4)), 3),
        ((lambda: quantised(64, 4, 64), lambda: quantised(32, 4, 32)), 2),
        ((lambda: layer(64), lambda: quantised(32, 8)), 2),
        ((lambda: layer(64), lambda: layer(32, bias=True)), 2),
    ],
)
def test_projections_become_as_few_products_as_can_be(parts, products):
    x = mx.random.normal((1, 3, 256))
    apart = mx.concatenate([make()(x) for make in parts], axis=-1)
    together = stack([make() for make in parts])
    assert (len(together.layers) if isinstance(together, Rows) else 1) == products
    assert np.abs(np.array(together(x)) - np.array(apart)).max() < 1e-3


def test_tables_of_quantised_embeddings_are_plain():
    made = nn.Embedding(32, 64)
    packed = nn.QuantizedEmbedding.from_embedding(made, 64, 8)
    ids = mx.arange(32)
    assert np.array_equal(np.array(table(made)), np.array(made.weight))
    assert np.abs(np.array(table(packed)) - np.array(packed(ids))).max() < 1e-6


def test_a_model_in_blocks_speaks_the_same(checkpoint, model, monkeypatch):
    monkeypatch.setattr(cpu, "multiplies_in_place", lambda: True)
    monkeypatch.setattr(cpu, "BLOCK", 64 * 64)
    tts = Qwen3TTS.from_pretrained(checkpoint("base"), dtype="float32")
    assert tts.talker.model.layers[0].self_attn.qkv_proj.block(mx.ones(64)) == 64
    ours, theirs = (
        np.array(m.generate("Hello.", vector(64, 1), greedy=True, max_tokens=20).codes) for m in (tts, model("base"))
    )
    assert (ours == theirs).all()
