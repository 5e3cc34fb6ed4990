"""What `benchmarks.self_check` computes once in the forms for a GPU and once in those for a CPU, without a model.

Each is a function of nothing that gives arrays by name. Inputs come from NumPy, so that both sides are given the same.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from benchmarks.gpu_proof import normal
from mlx_qwen3tts.networks.cache import KVCache
from mlx_qwen3tts.networks.codec.decoder import SnakeBeta
from mlx_qwen3tts.networks.config import TransformerConfig
from mlx_qwen3tts.networks.conv import conv1d
from mlx_qwen3tts.networks.linear import Linear, add_product
from mlx_qwen3tts.networks.transformer import Attention, RMSNorm, Rope, SwiGLU
from mlx_qwen3tts.synthesis.sampling import GenerationConfig, MixedSampler, Sampler, noise_keys, unseen

Answers = dict[str, np.ndarray]
FAR = 2000  # a position whose angles a GPU's fast sine has to fold often
PAST = 90  # positions that attention looks over
HEADS = {"talker": (128, 1e6), "codec": (64, 1e4)}  # head size, base


def arrays(values: dict[str, mx.array]) -> Answers:
    """NumPy's, which waits for them; bfloat16 as float32."""
    mx.eval(*values.values())
    return {
        name: np.array(value.astype(mx.float32) if value.dtype in (mx.bfloat16, mx.float16) else value)
        for name, value in values.items()
    }


def convolution() -> Answers:
    """Every kind of convolution that the networks have."""
    kinds = {  # inputs, outputs, kernel, and how
        "one input": (1, 16, 7, {}),
        "plain": (32, 24, 7, {}),
        "dilated": (32, 24, 7, {"dilation": 9}),
        "strided": (32, 24, 8, {"stride": 4}),
        "pointwise": (32, 24, 1, {}),
        "depthwise": (32, 32, 7, {"groups": 32}),
    }
    made = {}
    for seed, (name, (inputs, outputs, kernel, how)) in enumerate(kinds.items()):
        x, weight = normal(2, 80, inputs, seed=seed), normal(outputs, kernel, inputs // how.get("groups", 1), seed=9)
        for bias in (None, normal(outputs, seed=8)):
            made[f"{name}{'' if bias is None else ', bias'}"] = conv1d(x, weight / kernel, bias, **how)
    return arrays(made)


def snake() -> Answers:
    """The codec's activation, for arguments as large as occur."""
    layer = SnakeBeta(24)
    layer.alpha, layer.beta = normal(24, seed=1), normal(24, seed=2)
    layer.fuse()
    return arrays({"small": layer(normal(2, 50, 24, seed=3)), "large": layer(normal(2, 50, 24, seed=4) * 40)})


def norm() -> Answers:
    """RMSNorm of a single row and of more."""
    layer = RMSNorm(1024, eps=1e-6)
    layer.weight = normal(1024, seed=1)
    return arrays({"a row": layer(normal(1, 1, 1024, seed=2)), "rows": layer(normal(2, 5, 1024, seed=3))})


def rotated(offsets: dict[str, int | list[int]]) -> Answers:
    made = {}
    for kind, (size, base) in HEADS.items():
        rope = Rope(size, base)
        for name, offset in offsets.items():
            for length in (1, 9):
                x = normal(2, 4, length, size, seed=length)
                made[f"{kind} {name}, {length}"] = rope(length, offset, mx.float32)(x)
    return arrays(made)


def rope() -> Answers:
    """Rotation near the beginning, of rows at one position and at positions of their own."""
    return rotated({"at 0": 0, "at 30": 30, "by row": [0, 17]})


def far_rope() -> Answers:
    """Rotation far from the beginning."""
    return rotated({f"at {FAR}": FAR})


def products() -> Answers:
    """Linear layers as they are laid out, for a row and for more, with a bias and with a residual; the gated MLP."""
    made = {}
    for bias in (False, True):
        layer = Linear(1024, 3072, bias=bias)
        layer.weight = normal(3072, 1024, seed=1) / 32
        if bias:
            layer.bias = normal(3072, seed=2)
        layer.lay_out()
        for rows in (1, 5):
            x, residual = normal(1, rows, 1024, seed=3), normal(1, rows, 3072, seed=4)
            made[f"{rows} rows, bias {bias}"] = layer(x)
            made[f"{rows} rows, bias {bias}, residual"] = add_product(residual, x, layer)
    gated = SwiGLU(256, 768)
    for seed, layer in enumerate((gated.gate_proj, gated.up_proj, gated.down_proj)):
        layer.weight = normal(*layer.weight.shape, seed=seed) / 16
    gated.fuse()
    return arrays(
        made | {f"gated, {rows}": gated(normal(1, rows, 256, seed=7), normal(1, rows, 256)) for rows in (1, 5)}
    )


def attention() -> Answers:
    """One position, a few and many at the published head sizes: causal, in a window, and with rows of other lengths."""
    made = {}
    for kind, (kv_heads, norm_eps) in {"talker": (8, 1e-6), "codec": (16, None)}.items():
        size, base = HEADS[kind]
        config = TransformerConfig(256, 512, 1, 16, kv_heads, size, 2048)
        layer, rope = Attention(config, norm_eps), Rope(size, base)
        shapes = tree_flatten(layer.parameters())
        layer.update(tree_unflatten([(name, normal(*x.shape, seed=i) / 16) for i, (name, x) in enumerate(shapes)]))
        layer.fuse()
        for length in (1, 2, 12):
            past = PAST - length
            place = mx.arange(past, PAST)[:, None]
            masks = {
                "causal": "causal" if length > 1 else None,
                "in a window": mx.where(mx.abs(place - mx.arange(PAST)[None]) < 72, 0.0, float("-inf")),
                "by row": (mx.arange(PAST)[None] >= mx.array([[0], [40]]))[:, None, None],
            }
            x, rotate = normal(2, length, 256, seed=length), rope(length, past, mx.float32)
            for name, mask in masks.items():
                cache = KVCache()
                cache.update(normal(2, kv_heads, past, size, seed=1), normal(2, kv_heads, past, size, seed=2))
                made[f"{kind} {name}, {length}"] = layer(x, rotate, mask, cache)
    return arrays(made)


def samplers(config) -> list[tuple[str, Sampler, Any]]:
    """Every kind of sampler for a model's sizes, each with its settings."""
    kinds = {
        "default": GenerationConfig(),
        "greedy": GenerationConfig(do_sample=False, subtalker_dosample=False),
        "top-p": GenerationConfig(top_k=0, top_p=0.8, subtalker_top_k=0, subtalker_top_p=0.8),
        "few": GenerationConfig(top_k=5, temperature=1.3, repetition_penalty=1.5, subtalker_top_k=3),
    }
    made: list[tuple[str, Sampler, Any]] = [
        (name, Sampler(kind, config.talker, config.predictor), None) for name, kind in kinds.items()
    ]
    mixed = MixedSampler(list(kinds.values()), config.talker, config.predictor)
    return [*made, ("each its own", mixed, mixed.settings())]


def sampling(config) -> Answers:
    """Codes drawn from the same logits, ties among them, with the same noise: all steps of the chain."""
    rows, made = 4, {}
    for name, sampler, settings in samplers(config):
        logits = mx.round(normal(rows, sampler.size, seed=1) * 4, 1)
        seen = unseen(rows, sampler.size) | (mx.arange(sampler.size)[None] % 7 == 0)
        noise = gumbel(rows, sampler.size, seed=2)
        codes, after = sampler.first(logits, seen, sampler.mask([0, 1, 2, 9]), noise, settings)
        rest = sampler.rest(logits[:, : sampler.rest_size], noise[:, : sampler.rest_size], settings)
        made |= {f"{name}, codebook 0": codes, f"{name}, history": after, f"{name}, others": rest}
    return arrays(made)


def gumbel(*shape: int, seed: int) -> mx.array:
    """The same noise on every device."""
    return mx.array(np.random.RandomState(seed).gumbel(size=shape).astype(np.float32))


def noise(config) -> Answers:
    """The noise of frames by seed, which makes a seed's speech the same on both."""
    first, rest = Sampler(GenerationConfig(), config.talker, config.predictor).noise(noise_keys([1, 2**31], [3, 70]))
    return arrays({"codebook 0": first, "others": rest})


FORMS: dict[str, Callable[[], Answers]] = {
    "convolutions": convolution,
    "snake": snake,
    "norms": norm,
    "rotation": rope,
    f"rotation at {FAR}": far_rope,
    "products": products,
    "attention": attention,
}
