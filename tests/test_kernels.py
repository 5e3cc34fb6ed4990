"""The fused kernels compute what their plain forms do: their bodies, compiled with g++, beside the plain operations."""

import json
import re
import shutil
import warnings

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.errors import InvalidValue, UnsupportedValue
from mlx_qwen3tts.networks import kernel_check, kernels, proof
from mlx_qwen3tts.networks.cache import KVCache
from mlx_qwen3tts.networks.kernel_source import FIRST_LINES, HEADERS, KERNELS
from tests import cpp_kernels

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="without a GPU kernels are compiled with g++")


@pytest.fixture
def on_cpp(monkeypatch):
    """Kernels are run by g++ as if by a GPU."""
    monkeypatch.setattr(kernels, "launch", cpp_kernels.launch)
    monkeypatch.setattr(kernels, "backend", lambda: "metal")


@needs_compiler
@pytest.mark.parametrize("name", kernels.NAMES)
@pytest.mark.parametrize("dtype", kernel_check.DTYPES, ids=kernel_check.name_of)
def test_a_kernel_computes_what_its_plain_form_does(on_cpp, name, dtype):
    assert kernel_check.check(name, [dtype]) is None


@needs_compiler
@pytest.mark.parametrize("name", kernels.NAMES)
def test_the_order_of_threads_does_not_matter(monkeypatch, name):
    monkeypatch.setattr(kernels, "launch", lambda *a: cpp_kernels.launch(*a, backwards=True))
    assert kernel_check.check(name, [mx.float32]) is None


@needs_compiler
def test_steps_of_any_shape(on_cpp):
    random = np.random.RandomState(0)
    for dim, dtype in ((64, mx.bfloat16), (128, mx.float32)):
        for _ in range(12):
            batch, length, past = (int(random.randint(*span)) for span in ((1, 10), (1, 5), (0, 20)))
            heads, kv, cosines = 3, 2, mx.random.normal((80, dim))
            qkv = mx.random.normal((batch, length, heads * kv + 2 * kv, dim)).astype(dtype)
            norms = mx.random.normal((heads * kv + kv, dim)).astype(dtype)
            places = mx.array(random.randint(-9, 70, batch), mx.int32)
            carried = mx.random.normal((2, batch, kv, past, dim)).astype(dtype) if past else None
            inputs = qkv, norms, 1e-6, cosines, mx.random.normal((80, dim)), places, carried
            for ours, plain in zip(kernels.qk_rope_write(*inputs), kernels.plain_qk_rope_write(*inputs), strict=True):
                assert ours.shape == plain.shape and ours.dtype == plain.dtype
                # Tables that are no rotation make the sum of two products small, and its error large beside it.
                bound = 8 * mx.finfo(dtype).eps * float(mx.abs(plain.astype(mx.float32)).max())
                assert float(mx.abs(ours.astype(mx.float32) - plain.astype(mx.float32)).max()) <= bound


@needs_compiler
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
@pytest.mark.parametrize("size", [100, 2048])
def test_rows_of_any_kind(on_cpp, dtype, size):
    """Codes are equal: with ties at the k-th, among the best, of minus infinity, of both zeros, and without noise."""
    random, none = np.random.RandomState(size), -np.inf
    for trial in range(40):
        logits = (random.randn(3, size) * random.choice([0.01, 1, 30])).round(int(random.randint(-1, 3)))
        if trial % 4 == 1:
            logits[:, random.rand(size) < 0.97] = none
        if trial % 4 == 2:
            logits = random.choice([0.0, -0.0, 1.0], (3, size))
        if trial % 8 == 3:
            logits[:] = none
        kept = mx.array(random.choice([-1, 0, 1, 2, 50, size - 1, size, 5000], 3), mx.int32)
        temperatures = mx.array(random.choice([0.05, 0.9, 1.0, 1.7], 3), mx.float32)
        noise = random.gumbel(size=(3, size)) * random.choice([0, 1])
        inputs = mx.array(logits, mx.float32).astype(dtype), mx.array(noise, mx.float32), temperatures, kept
        ours, plain = kernels.sample_row(*inputs), kernels.plain_sample_row(*inputs)
        assert ours.tolist() == plain.tolist(), (trial, kept.tolist())


@needs_compiler
def test_rows_that_are_cut_from_larger_ones_are_not_copied(on_cpp):
    """The sampler minds strides itself: noise of several rows lies apart, and MLX would copy it for each draw."""
    assert not KERNELS["sample_row"].packed
    whole, logits = mx.random.gumbel((2, 3, 64)), mx.random.normal((2, 2, 64))
    for i in range(3):
        inputs = logits[:, 1], whole[:, i], mx.ones(1), mx.array([9], mx.int32)
        assert kernels.sample_row(*inputs).tolist() == kernels.plain_sample_row(*inputs).tolist()


@needs_compiler
def test_what_is_next_to_a_tie_is_none(on_cpp):
    """The k-th logit's neighbours among float32's numbers are cut, however much noise favours them."""
    for top in (3.0, 1e-38, -0.0, -5.0):
        below = np.nextafter(np.float32(top), np.float32(-np.inf))
        logits, noise = np.array([[below, top, -9, top]], np.float32), np.array([[9, 1, 50, 2]], np.float32)
        inputs = mx.array(logits), mx.array(noise), mx.ones(1)
        drawn = [kernels.sample_row(*inputs, mx.array([k], mx.int32)).item() for k in (1, 2, 3, 4)]
        assert drawn == [3, 3, 0, 2]


# Words that a body must not use as names, because one of the languages keeps them.
TAKEN = {
    "thread",
    "threadgroup",
    "device",
    "constant",
    "kernel",
    "half",
    "sampler",
    "texture",
    "vertex",
    "fragment",
    "inf",
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=lambda kernel: kernel.name)
def test_a_body_is_in_what_the_languages_share(kernel):
    code = re.sub(r"//.*", "", kernel.body)
    assert not TAKEN & set(re.findall(r"\w+", code))
    assert not re.findall(r"\b(auto|std::|metal::|thread\w*|uint)\b", code)
    # MLX looks for NAME_shape in the text, so no array's name may end another's.
    arrays = (*kernel.inputs, *kernel.outputs)
    assert not [(a, b) for a in arrays for b in arrays if a != b and a.endswith(b) and f"{a}_" in code]
    macros = {name: set(re.findall(r"#define (\w+)", header)) for name, header in HEADERS.items()}
    assert macros["metal"] == macros["cuda"] == {"SHARED", "SYNC", "RSQRT", "AS_BITS", "AS_FLOAT", "EACH"}
    shared = re.findall(r"SHARED\((\w+), \w+, (\w+)\)", code)
    assert len(shared) == code.count("SHARED(") and {kind for kind, _ in shared} <= {"float", "unsigned"}
    sizes = {"THREADS": kernel.threads, "V": kernels.WIDEST}
    assert 4 * sum(sizes.get(size) or int(size) for _, size in shared) <= 32768, "a group's memory on Apple silicon"


@pytest.mark.parametrize("language", sorted(FIRST_LINES))
def test_what_mlx_is_given(monkeypatch, language):
    """On a GPU: the source of that language, whose constants, groups and outputs are the launch's."""
    made, calls = [], []

    def make(**options):
        made.append(options)
        return lambda **arguments: (
            calls.append(arguments)
            or [mx.zeros(s, d) for s, d in zip(arguments["output_shapes"], arguments["output_dtypes"], strict=True)]
        )

    kernels.compiled.cache_clear()
    monkeypatch.setattr(mx.fast, f"{language}_kernel", make)
    monkeypatch.setattr(kernels, "backend", lambda: language)
    try:
        for name in kernels.NAMES:
            _, arguments = next(kernel_check.CASES[name](kernel_check.DTYPES))
            getattr(kernels, name)(*arguments)
    finally:
        kernels.compiled.cache_clear()
    names = [options["name"] for options in made]
    assert all(
        re.fullmatch(rf"qwen3tts_{name}_[0-9a-f]{{12}}", made) for name, made in zip(KERNELS, names, strict=True)
    )
    monkeypatch.setitem(HEADERS, language, HEADERS[language] + " ")
    kernels.compiled.cache_clear()
    kernels.compiled("sample_row", language)
    kernels.compiled.cache_clear()
    assert made.pop()["name"] not in names, "other code under the same name would not be compiled"
    words = {"metal": "threadgroup_position_in_grid", "cuda": "blockIdx"}[language]
    for options, call, kernel in zip(made, calls, KERNELS.values(), strict=True):
        assert options["source"].endswith(kernel.body) and words in options["source"]
        assert (
            len(call["inputs"]) == len(options["input_names"]) and dict(call["template"])["THREADS"] == kernel.threads
        )
        assert call["threadgroup"] == (kernel.threads, 1, 1) and call["grid"][0] == kernel.threads


def test_what_mlx_compiles_differently_has_another_name(monkeypatch):
    """MLX finds a compiled kernel by its constants alone; it declares inputs by dtype, and small ones otherwise."""
    calls = []
    monkeypatch.setattr(kernels, "compiled", lambda *a: lambda **given: calls.append(given) or [None])
    monkeypatch.setattr(kernels, "backend", lambda: "cuda")
    many, single = mx.ones(9), mx.ones(1)
    for dtype in kernel_check.DTYPES:
        for values in (many, many[:3], single):
            logits = mx.zeros((9, 64), dtype)[: values.size]
            kernels.sample_row(logits, mx.zeros(logits.shape), values, values.astype(mx.int32))
    assert len({str(given["template"]) for given in calls}) == len(calls) == 9
    assert all(number < 2**31 for given in calls for _, number in given["template"] if isinstance(number, int))
    assert kernels.form([mx.zeros(1, mx.int32)] * 7) < 2**31, "as many inputs as a kernel has"


# A model


@pytest.fixture
def uncompiled():
    mx.disable_compile()
    yield
    mx.enable_compile()


def codes(tts, **options):
    return np.array(tts.generate("Hello there.", vector(64, 1), seed=3, max_tokens=8, **options).codes)


@needs_compiler
@pytest.mark.parametrize(
    "how",
    [{}, {"greedy": True}, {"top_k": 0, "subtalker_top_k": 3}, {"top_p": 0.8}, {"morph": vector(64, 2)}],
    ids=["as usual", "greedy", "top-k", "top-p", "morph"],
)
def test_a_model_speaks_the_same_with_fused_kernels(checkpoint, model, on_cpp, uncompiled, how):
    fused = Qwen3TTS.from_pretrained(checkpoint("base"), dtype="float32", kernels="fused")
    assert fused.kernels == sorted(kernels.NAMES) and model("base").kernels == []
    assert (codes(fused, **how) == codes(model("base"), **how)).all()


@needs_compiler
def test_rows_with_padding_and_settings_of_their_own_speak_the_same(checkpoint, model, on_cpp, uncompiled):
    fused = Qwen3TTS.from_pretrained(checkpoint("base"), dtype="float32", kernels="fused")
    said = []
    for tts in (fused, model("base")):
        prompts = [tts.prompt("Hello." * (i + 1), tts.voice(vector(64, i))) for i in range(3)]
        generation = tts.generation([], [], tts.sampling)
        settings = {"temperature": 0.5}, {"greedy": True}, {"top_k": 7, "repetition_penalty": 1.3}
        for prompt, values in zip(prompts, settings, strict=True):
            generation.insert(prompt, 5, tts.sampling.override(max_tokens=7, **values))
        said.append([np.array(frame.codes) for frame in generation])
    assert len(said[0]) == len(said[1]) > 4 and all((a == b).all() for a, b in zip(*said, strict=True))


@needs_compiler
def test_all_kernels_are_used_and_only_in_the_loop(checkpoint, on_cpp, uncompiled, monkeypatch):
    tts, used = Qwen3TTS.from_pretrained(checkpoint("base"), dtype="float32", kernels="fused"), []
    monkeypatch.setattr(kernels, "launch", lambda name, *a: used.append(name) or cpp_kernels.launch(name, *a))
    tts.talker(mx.zeros((1, 1, 64)), tts.talker.make_cache())
    assert not used and not any(map(kernels.in_use, kernels.NAMES))
    frames = iter(tts.generation([tts.prompt("Hello.", tts.voice(vector(64, 1)))], [1], tts.sampling))
    next(frames)
    del used[:]
    next(frames)
    config = tts.config
    steps = config.talker.num_code_groups - 1
    layers = config.talker.num_hidden_layers + steps * config.predictor.num_hidden_layers
    assert (used.count("qk_rope_write"), used.count("sample_row")) == (layers, 1 + steps)


def test_a_large_cache_is_written_in_place():
    """One slice update for keys and values, into the memory that is there."""
    cache = KVCache(step=64)
    cache.append(mx.ones((2, 1, 2, 3, 8)))
    for place in range(3, 9):
        mx.eval(cache.pair)
        before = np.asarray(memoryview(cache.pair)).ctypes.data
        keys, values = cache.append(mx.full((2, 1, 2, 1, 8), place))
        mx.eval(keys, values)
        del keys, values
        assert np.asarray(memoryview(cache.pair)).ctypes.data == before
    assert cache.offset == 9 and np.array(cache.values)[0, 0, :9, 0].tolist() == [1, 1, 1, 3, 4, 5, 6, 7, 8]


# Which kernels a model uses


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernels, "backend", lambda: "metal")
    return tmp_path / "mlx_qwen3tts"


def test_without_a_gpu_fused_kernels_are_refused(checkpoint, monkeypatch):
    monkeypatch.setattr(kernels, "backend", lambda: None)
    with pytest.raises(UnsupportedValue, match="need a GPU with Metal or CUDA; use 'plain'") as refused:
        Qwen3TTS.from_pretrained(checkpoint("base"), kernels="fused")
    assert refused.value.param == "kernels"
    with pytest.raises(UnsupportedValue, match="needs Metal or CUDA"):
        kernels.sample_row(mx.zeros((1, 8)), mx.zeros((1, 8)), mx.ones(1), mx.zeros(1, mx.int32))
    with pytest.raises(InvalidValue, match="kernels 'fast' is not one of plain, fused"):
        Qwen3TTS.from_pretrained(checkpoint("base"), kernels="fast")
    assert proof.choose(None) == proof.choose("plain") == frozenset()


def test_a_proof_counts_for_what_it_was_made_with(records, monkeypatch):
    assert not proof.proved() and proof.choose(None) == frozenset()
    assert proof.record(True, "40 frames equal").parent == records
    assert proof.proved() and proof.choose(None) == frozenset(kernels.NAMES) and proof.choose("plain") == frozenset()
    for name in proof.identity():
        with monkeypatch.context() as changed:
            other = proof.identity() | {name: "another"}
            changed.setattr(proof, "identity", lambda other=other: other)
            assert not proof.proved(), name
    with monkeypatch.context() as changed:
        changed.setattr(kernels, "backend", lambda: None)
        assert not proof.proved()
    proof.record(False, "frame 3 differs")
    assert not proof.proved()


def test_a_changed_kernel_is_another(monkeypatch):
    before = proof.identity()["kernels"]
    monkeypatch.setitem(HEADERS, "metal", HEADERS["metal"] + " ")
    assert proof.identity()["kernels"] != before


@pytest.mark.parametrize("content", ["", "[]", '{"passed": true}', "\xff"], ids=repr)
def test_a_record_that_says_nothing_proves_nothing(records, content):
    path = proof.record(True, "")
    path.write_bytes(content.encode("latin1"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert not proof.proved()
    assert [str(path) in str(warning.message) for warning in said] == ([True] if content in ("", "\xff") else [])


def test_a_record_goes_where_caches_go(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    for system, folder in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr("sys.platform", system)
        assert proof.record_path().parent == tmp_path / folder / "mlx_qwen3tts"
    path = proof.record(True, "all equal")
    assert json.loads(path.read_text())["detail"] == "all equal"


def fails(name, fault):
    """A launch of which one kernel fails: does not compile, or is wrong in one number."""

    def launch(kernel, inputs, constants, groups, outputs):
        plain = getattr(kernels, f"plain_{kernel}")
        if kernel == "qk_rope_write":
            qkv, norms, epsilon, *rest, carried = inputs
            made = list(plain(qkv, norms, epsilon.item(), *rest, carried if constants["CARRY"] else None))
        else:
            made = [plain(*inputs)]
        if kernel == name and fault == "does not compile":
            raise RuntimeError("[metal::Device] Unable to build metal library from source\nerror: expected ';'")
        if kernel == name and made[-1].dtype == mx.uint32:
            made[-1] = made[-1] + 1
        elif kernel == name:
            made[-1] = mx.where(
                mx.arange(made[-1].size).reshape(made[-1].shape) == 5, mx.array(float(fault), made[-1].dtype), made[-1]
            )
        return made

    return launch


@pytest.mark.parametrize("name", kernels.NAMES)
@pytest.mark.parametrize("fault", ["does not compile", "0.5", "nan"])
def test_a_kernel_that_fails_is_named_and_not_used(records, monkeypatch, name, fault):
    monkeypatch.setattr(kernels, "launch", fails(name, fault))
    with pytest.warns(UserWarning, match=f"kernel {name} is not used: bfloat16") as said:
        assert proof.choose("fused") == frozenset(kernels.NAMES) - {name}
    assert len(said) == 1 and ("Unable to build" in str(said[0].message)) == (fault == "does not compile")
    monkeypatch.setattr(kernels, "launch", fails(None, fault))
    assert proof.choose("fused") == frozenset(kernels.NAMES)
