"""What docs/metal.md says is settled without a Mac: rules that Metal has, held where they can be seen anywhere."""

import ast
import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts.networks.cache import KVCache
from mlx_qwen3tts.networks.device import form
from mlx_qwen3tts.synthesis.speech import wired_limit

ROOT = Path(__file__).parents[1]
SOURCES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "mlx_qwen3tts").rglob("*.py")}
ON_GPU = {"norm"}  # of mx.linalg; everything else of it runs on the CPU alone


def attributes(tree, *names):
    """Nodes that read one of these attributes of `mx`, such as mx.linalg.svd for "linalg"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "mx":
            yield node


def test_nothing_asks_mlx_for_float64():
    found = [
        f"{path}:{node.lineno}" for path, tree in SOURCES.items() for node in attributes(tree, "float64", "complex128")
    ]
    assert found == []
    # Nor does NumPy's float64 bring it in.
    made = mx.array(np.zeros(2)), mx.array(np.float64(1)), mx.zeros(2) * np.float64(2), mx.array([np.float64(1)])
    assert [array.dtype for array in made] == [mx.float32] * 4


def test_factorisations_run_on_the_cpu():
    calls = 0
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            func = getattr(node, "func", None)
            if isinstance(func, ast.Attribute) and ast.unparse(func.value) == "mx.linalg" and func.attr not in ON_GPU:
                calls += 1
                streams = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "stream"]
                assert streams == ["mx.cpu"], f"{path}:{node.lineno}"
    assert calls >= 2


def address(x: mx.array) -> int:
    """Where an array lies in memory."""
    mx.eval(x)
    return np.array(x, copy=False).__array_interface__["data"][0]


def buffer(cache: KVCache) -> mx.array:
    return cache.state[0]


def test_a_cache_is_written_in_place():
    cache, x = KVCache(16), mx.random.normal((1, 2, 1, 8))
    cache.update(x, x)
    where = address(buffer(cache))
    for _ in range(10):
        keys, values = cache.update(x, x)
        mx.eval(keys, values)
        del keys, values
        assert address(buffer(cache)) == where
    held = buffer(cache)[:, 0]  # whoever holds a view of the buffer has it copied, and keeps what was in it
    mx.eval(held)
    before = np.array(held)
    cache.update(x, x)
    assert address(buffer(cache)) != where and (np.array(held) == before).all()


def test_a_cache_inside_a_compiled_function_is_the_functions_own():
    """Nothing of it outlives a call, so nobody can hold it; and what it computes is what one uncompiled computes."""

    def steps(x):
        cache = KVCache(8)
        for place in range(6):
            keys, values = cache.update(x[:, :, place : place + 1], 2 * x[:, :, place : place + 1])
        return keys.sum(axis=2) + values.sum(axis=2)

    compiled, x = mx.compile(steps), mx.random.normal((1, 2, 6, 8), key=mx.random.key(1))
    for factor in (1, 2, 1):
        assert mx.allclose(compiled(factor * x), 3 * factor * x.sum(axis=2), atol=1e-5)


def taken_as_they_lie(x: mx.array, queries: bool) -> bool:
    """Whether Metal's attention of a single position takes queries, or keys and values, [B, H, T, D] without a copy."""
    strides, shape = [stride // x.itemsize for stride in memoryview(x).strides], x.shape
    if strides[3] != 1:
        return False
    if not queries:
        return shape[0] == 1 or shape[1] == 1 or strides[0] == strides[1] * shape[1]
    packed = (int(np.prod(shape[i + 1 :])) for i in range(4))
    return all(n == 1 or own == wanted for n, own, wanted in zip(shape, strides, packed, strict=True))


@pytest.mark.parametrize("rows", [1, 3])
def test_attention_copies_no_cache(model, monkeypatch, rows):
    """With several rows q is copied, [rows, heads, 1, D], as it is cut from q and k; keys and values never are."""
    tts, seen = model("base"), []
    attention = mx.fast.scaled_dot_product_attention
    monkeypatch.setattr(
        mx.fast, "scaled_dot_product_attention", lambda q, k, v, **o: seen.append((q, k, v)) or attention(q, k, v, **o)
    )
    prompts = [tts.prompt("Hello." * (i + 1), tts.voice(vector(64, 1))) for i in range(rows)]
    mx.disable_compile()  # or what is seen is what is traced
    try:
        with form("gpu"):
            frames = iter(tts.generation(prompts, range(rows), tts.sampling.override(max_tokens=9)))
            next(frames)
            seen.clear()
            next(frames)
    finally:
        mx.enable_compile()
    mx.eval(seen)
    single = [(q, k, v) for q, k, v in seen if q.shape[2] == 1]
    assert len(single) == tts.config.talker.num_hidden_layers + 14 * tts.config.predictor.num_hidden_layers
    assert all(taken_as_they_lie(x, False) for _, k, v in single for x in (k, v))
    if rows == 1:
        assert all(taken_as_they_lie(q, True) for q, _, _ in single)


@pytest.fixture
def mac(monkeypatch):
    """A Mac of 10 GB working set, of which `held` bytes are in use; the limits that were set, in order."""
    limits = []
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 10 * 10**9})
    monkeypatch.setattr(mx, "set_wired_limit", lambda limit: limits.append(limit) or 7)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 10**9)
    return limits


def test_weights_are_wired_while_speaking_and_the_limit_comes_back(mac):
    with pytest.raises(KeyboardInterrupt), wired_limit():
        assert mac == [10 * 10**9]
        raise KeyboardInterrupt
    assert mac == [10 * 10**9, 7]


def test_a_model_too_large_for_the_working_set_is_said(mac, monkeypatch):
    monkeypatch.setattr(mx, "get_active_memory", lambda: 95 * 10**8)
    with pytest.warns(UserWarning, match=r"9\.5 GB, close to the 10\.0 GB"), wired_limit():
        pass


def test_every_test_that_the_document_names_is_there():
    text = (ROOT / "docs" / "metal.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    assert named
    for name, test in re.findall(r"`(tests/[\w/]+\.py)`(?: \(`(test_\w+)`\))?", text):
        source = (ROOT / name).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in source, f"{name}: {test}"
    for path, name in re.findall(r"`([\w/]+\.py):(\w+)`", text):
        source = (ROOT / "mlx_qwen3tts" / path).read_text(encoding="utf-8")
        assert re.search(rf"\b{name}\b", source), f"{path}: {name}"
