"""The codec streams exactly: for any cutting of its input it gives what one pass gives."""

import itertools

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import codes, recording
from mlx_qwen3tts import Codec
from mlx_qwen3tts.audio.reading import read_audio
from mlx_qwen3tts.errors import InvalidValue, WrongType
from mlx_qwen3tts.networks import cpu
from mlx_qwen3tts.networks.cache import KVCache, SlidingKVCache
from mlx_qwen3tts.networks.codec import codec as networks
from mlx_qwen3tts.networks.conv import CausalConv, CausalConvTranspose, conv1d


@pytest.fixture(scope="module")
def codec(checkpoint):
    return Codec(checkpoint("base") / "speech_tokenizer")


def one_pass(decoder, given):
    return np.array(decoder.step(given[None], decoder.make_state())[0])


@pytest.mark.parametrize("cuts", [(1,) * 9, (1, 2, 4, 8, 12), (3, 100), (80, 1, 80), (300, 5)], ids=str)
def test_decoding_in_chunks_equals_one_pass(codec, cuts):
    given = mx.array(codes(sum(cuts), seed=sum(cuts)).astype(np.int32))
    state, parts = codec.decoder.make_state(), []
    for start, stop in itertools.pairwise(itertools.accumulate(cuts, initial=0)):
        parts.append(np.array(codec.decoder.step(given[None, start:stop], state)[0]))
    assert np.abs(np.concatenate(parts) - one_pass(codec.decoder, given)).max() <= 1e-5


def test_two_streams_share_one_decoder(codec):
    first, second = (mx.array(codes(6, seed).astype(np.int32)) for seed in (1, 2))
    states, parts = [codec.decoder.make_state() for _ in range(2)], ([], [])
    for i in range(6):
        for state, given, heard in zip(states, (first, second), parts, strict=True):
            heard.append(np.array(codec.decoder.step(given[None, i : i + 1], state)[0]))
    for given, heard in zip((first, second), parts, strict=True):
        assert np.abs(np.concatenate(heard) - one_pass(codec.decoder, given)).max() <= 1e-5


@pytest.mark.thorough
def test_the_state_of_a_stream_does_not_grow(codec):
    state, sizes = codec.decoder.make_state(), {}
    for start in range(0, 3000, 100):
        given = mx.array(codes(100, seed=start).astype(np.int32))
        mx.eval(codec.decoder.step(given[None], state), state.arrays)
        sizes[start + 100] = sum(array.nbytes for array in state.arrays)
    assert sizes[100] == sizes[3000]


def test_code_zero_is_a_code(codec):
    assert codec.decode(np.zeros((5, 16), np.int32)).shape == (5 * 1920,)


def test_decode_clips_to_one(codec):
    loud = codec.decoder.decoder[-1].conv
    quiet = loud.weight
    try:
        loud.weight = quiet * 1e4
        assert np.abs(np.array(codec.decode(codes(3, 0)))).max() == 1
    finally:
        loud.weight = quiet


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_encoding_in_chunks_equals_one_pass(codec, chunk, tmp_path):
    audio = mx.array(read_audio(recording(tmp_path / "a.wav", 5, 2.2), 24000))[None]
    whole = np.array(codec.encoder.latents(audio, 1920 * 1000))
    assert whole.shape[1] == -(-audio.shape[1] // 1920)
    assert np.abs(np.array(codec.encoder.latents(audio, 1920 * chunk)) - whole).max() <= 1e-5


@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 3841])
def test_every_started_frame_is_encoded(codec, samples):
    assert codec.encode(np.full(samples, 0.1, np.float32)).shape == (-(-samples // 1920), 16)


def test_round_trip_through_a_path_a_pair_and_an_array(codec, tmp_path):
    path = recording(tmp_path / "a.wav", 6, 0.6)
    samples = read_audio(path, 24000)
    a, b, c = (np.array(codec.encode(audio)) for audio in (path, (samples, 24000), mx.array(samples)))
    assert (a == b).all() and (b == c).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 15), np.int32), r"shape \[3, 15\]; expected \[frames, 16\]"),
        (np.zeros((0, 16), np.int32), "shape"),
        (np.full((1, 16), 2048), "range from 2048 to 2048; expected 0 to 2047"),
        (np.full((1, 16), -1), "expected 0 to 2047"),
    ],
)
def test_bad_codes_are_refused(codec, given, message):
    with pytest.raises(InvalidValue, match=message) as raised:
        codec.decode(given)
    assert raised.value.param == "codes"


def test_codes_are_integers(codec):
    with pytest.raises(WrongType, match="codes must be integers"):
        codec.decode(np.zeros((1, 16), np.float32))


def test_transposed_convolution_adds_its_bias_once():
    conv = CausalConvTranspose(2, 3, kernel=8, stride=4)
    conv.conv.weight, conv.conv.bias = mx.zeros_like(conv.conv.weight), mx.array([1.0, 2.0, 3.0])
    state = None
    for _ in range(3):
        y, state = conv.step(mx.ones((1, 2, 2)), state)
        assert (np.array(y) == [1, 2, 3]).all()


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups"), [(7, 1, 9, 1), (8, 4, 1, 1), (7, 1, 1, 2), (1, 1, 1, 1)]
)
@pytest.mark.parametrize("channels", [6, 24])
@pytest.mark.parametrize("biased", [False, True])
def test_convolution_forms_agree(kernel, stride, dilation, groups, channels, biased):
    """The form for CPU devices against MLX's own convolution."""
    groups = min(groups * channels, channels) if groups > 1 else 1
    x, weight = mx.random.normal((2, 80, channels)), mx.random.normal((channels, kernel, channels // groups))
    bias = mx.random.normal((channels,)) if biased else None
    ours = conv1d(x, weight, bias, stride, dilation, groups)
    theirs = mx.conv1d(x, weight, stride=stride, dilation=dilation, groups=groups) + (bias if biased else 0)
    assert np.abs(np.array(ours) - np.array(theirs)).max() < 1e-4


def test_transposed_convolution_equals_mlx():
    conv = CausalConvTranspose(5, 4, kernel=6, stride=3)
    x = mx.random.normal((2, 9, 5))
    ours, _ = conv.step(x, None)
    theirs = mx.conv_transpose1d(x, conv.conv.weight, stride=3)[:, :-3] + conv.conv.bias
    assert np.abs(np.array(ours) - np.array(theirs)).max() < 1e-4


def test_edge_padding_repeats_the_first_input():
    conv = CausalConv(1, 1, kernel=4, stride=2, bias=False)
    conv.conv.weight = mx.ones((1, 4, 1))
    y, _ = conv.step(mx.array([3.0, 1.0])[None, :, None], None, edge=True)
    assert y.item() == 3 + 3 + 3 + 1


def test_cache_returns_what_was_put_in():
    """Growth over several steps against plain concatenation, keys and values apart."""
    cache, seen = KVCache(step=4), []
    for i in range(11):
        keys, values = mx.full((1, 2, 1 + i % 3, 3), float(i)), mx.full((1, 2, 1 + i % 3, 3), -float(i))
        seen.append((keys, values))
        got = cache.update(keys, values)
        for part, ours in enumerate(got):
            assert (np.array(ours) == np.array(mx.concatenate([pair[part] for pair in seen], axis=2))).all()
    assert cache.offset == sum(1 + i % 3 for i in range(11))


def test_sliding_cache_keeps_one_less_than_its_window():
    cache = SlidingKVCache(5)
    for i in range(9):
        keys, _ = cache.update(mx.full((1, 1, 1, 2), float(i)), mx.zeros((1, 1, 1, 2)))
        assert np.array(keys)[0, 0, :, 0].tolist() == list(range(max(0, i - 4), i + 1))
    assert cache.offset == 9 and cache.keys.shape[2] == 4


def test_decoding_needs_no_more_memory_for_longer_codes(codec):
    peaks = []
    for frames in (3 * networks.DECODE_CHUNK, 9 * networks.DECODE_CHUNK):
        mx.clear_cache()
        mx.reset_peak_memory()
        audio = codec.decode(codes(frames, 1))
        mx.eval(audio)
        # the samples themselves are what may grow: held as parts, joined, clipped
        peaks.append(mx.get_peak_memory() - 3 * audio.nbytes)
    assert peaks[1] <= peaks[0] * 1.05


def test_sine_squared_is_exact_over_many_periods():
    x = np.concatenate([np.linspace(-50, 50, 20001), np.linspace(-3000, 3000, 20001)]).astype(np.float32)
    wanted = np.sin(x.astype(np.float64)) ** 2
    assert np.abs(np.array(cpu.sine_squared(mx.array(x))) - wanted).max() < 5e-7
