"""The sampling chain beyond its parity with the official processors: drawing, seeds, settings."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts.networks.config import TalkerConfig, TransformerConfig
from mlx_qwen3tts.synthesis.sampling import Sampler, Sampling, filter_logits

SHAPE = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
TALKER = TalkerConfig(vocab_size=1024 + 8, codec_eos_token_id=1000, **SHAPE)
PREDICTOR = TransformerConfig(vocab_size=8, **SHAPE)


def sampler(seed=0, **settings):
    return Sampler(Sampling(**{"repetition_penalty": 1.0, "top_k": 0, **settings}), TALKER, PREDICTOR, seed)


def logits(values):
    """Given logits for the codes, high ones for the control tokens, none for the end of speech."""
    row = mx.array([list(values) + [9.0] * (TALKER.vocab_size - len(values))])
    row[0, TALKER.codec_eos_token_id] = float("-inf")
    return row


def test_draws_follow_the_probabilities():
    wanted = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625, 0, 0, 0])
    row, counts = logits(np.log(np.maximum(wanted, 1e-30))), np.zeros(8)
    drawing = sampler(seed=5, temperature=1.0)
    draws = 4000
    for frame in range(draws):
        drawing.start_frame(frame)
        counts[drawing.first(row).item()] += 1
    expected = wanted * draws
    assert counts[5:].sum() == 0
    assert (((counts - expected)[:5] ** 2 / expected[:5]).sum()) < 18.5  # chi square, 4 degrees: p = 0.001


def test_noise_is_a_function_of_seed_and_frame():
    first = sampler(seed=7).noise(3)
    for part, other in zip(first, sampler(seed=7).noise(3), strict=True):
        assert (np.array(part) == np.array(other)).all()
    assert not (np.array(first[0]) == np.array(sampler(seed=7).noise(4)[0])).any()
    assert not (np.array(first[0]) == np.array(sampler(seed=8).noise(3)[0])).any()
    # (seed, frame) and (frame, seed) are different keys
    assert not (np.array(sampler(seed=3).noise(7)[0]) == np.array(first[0])).any()


def test_end_of_speech_is_barred_for_two_tokens_and_control_tokens_always():
    row = mx.full((1, TALKER.vocab_size), 1.0)
    row[0, 1000] = 50.0
    row[0, 1001] = 60.0
    row[0, 3] = 2.0
    drawn = []
    greedy = sampler(do_sample=False)
    for frame in range(3):
        greedy.start_frame(frame)
        drawn.append(greedy.first(row).item())
    assert drawn == [3, 3, 1000]


def test_penalty_counts_a_code_once_over_the_whole_history():
    greedy = sampler(do_sample=False, repetition_penalty=2.0)
    row = logits([4.0, 3.0, -1.0, 0, 0, 0, 0, 0])
    drawn = []
    for frame in range(4):
        greedy.start_frame(frame)
        drawn.append(greedy.first(row).item())
    assert drawn == [0, 1, 0, 0]
    processed = np.array(greedy.processed(row))[0, :3]
    assert processed.tolist() == [2.0, 1.5, -1.0]


def test_a_seen_negative_logit_is_multiplied():
    greedy = sampler(do_sample=False, repetition_penalty=2.0)
    greedy.start_frame(0)
    greedy.first(logits([-1.0] + [-5.0] * 7))
    assert np.array(greedy.processed(logits([-1.0] + [-5.0] * 7)))[0, :2].tolist() == [-2.0, -5.0]


def test_predictor_has_values_of_its_own():
    one = sampler(seed=1, temperature=1.0, subtalker_temperature=0.0)
    one.start_frame(0)
    row = mx.array([[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]])
    assert all(one.rest(step, row).item() == 7 for step in range(15))
    other = sampler(seed=1, temperature=1.0, subtalker_temperature=1.0, subtalker_top_k=0)
    other.start_frame(0)
    assert len({other.rest(step, row).item() for step in range(15)}) > 2


def test_top_k_keeps_ties_and_top_p_keeps_at_least_one():
    kept = np.isfinite(np.array(filter_logits(mx.array([[3.0, 2.0, 2.0, 2.0, 1.0]]), 1.0, 2, 1.0)))
    assert kept.tolist() == [[True, True, True, True, False]]
    kept = np.isfinite(np.array(filter_logits(mx.array([[3.0, 2.9, 2.0]]), 1.0, 0, 1e-6)))
    assert kept.tolist() == [[True, False, False]]


def test_settings_come_from_the_config_then_from_the_official_defaults():
    config = {"temperature": 0.5, "max_new_tokens": 99, "subtalker_dosample": False, "eos_token_id": 3, "top_p": None}
    found = Sampling.from_config(config)
    assert (found.temperature, found.max_tokens, found.subtalker_dosample) == (0.5, 99, False)
    assert (found.top_k, found.top_p, found.repetition_penalty) == (50, 1.0, 1.05)
    assert Sampling.from_config({}) == Sampling()


@pytest.mark.parametrize("values", [{"greedy": True}, {"temperature": 0}, {"temperature": 0.0}])
def test_greedy_and_temperature_zero_make_both_samplers_argmax(values):
    found = Sampling().override(**values)
    assert not found.do_sample and not found.subtalker_dosample
    assert found.repetition_penalty == 1.05


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"temperature": 1e-9}, ValueError, "temperature 1e-09 is too small; 0 is greedy"),
        ({"repetition_penalty": 101}, ValueError, "repetition_penalty 101 is not between 0 and 100"),
        ({"do_sample": "yes"}, TypeError, "do_sample must be true or false, not 'yes'"),
    ],
)
def test_values_that_would_give_wrong_codes_are_refused(values, error, message):
    with pytest.raises(error, match=message):
        Sampling.from_config(values)
