"""The sampling chain beyond its parity with the official processors: drawing, seeds, settings."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts.errors import InvalidValue, WrongType
from mlx_qwen3tts.networks.config import TalkerConfig, TransformerConfig
from mlx_qwen3tts.synthesis.sampling import (
    GenerationConfig,
    MixedSampler,
    Sampler,
    filter_logits,
    noise_keys,
    unseen,
)

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


def sampler(**settings):
    return Sampler(GenerationConfig(**{"repetition_penalty": 1.0, "top_k": 0, **settings}), TALKER, PREDICTOR)


class Drawing:
    """One utterance's draws: the noise of a frame in, the history kept."""

    def __init__(self, seed=0, **settings):
        self.sampler, self.seed = sampler(**settings), seed
        self.seen = unseen(1, TALKER.vocab_size)

    def first(self, frame, row):
        noise, _ = self.sampler.noise(noise_keys([self.seed], [frame]))
        code, self.seen = self.sampler.first(row, self.seen, self.sampler.mask([frame]), noise)
        return code.item()

    def rest(self, step, row):
        _, noise = self.sampler.noise(noise_keys([self.seed], [0]))
        return self.sampler.rest(row, noise[step]).item()


def logits(values):
    """Given logits for the codes, high ones for the control tokens, none for the end of speech."""
    row = mx.array([list(values) + [9.0] * (TALKER.vocab_size - len(values))])
    row[0, TALKER.codec_eos_token_id] = float("-inf")
    return row


def test_draws_follow_the_probabilities():
    wanted = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625, 0, 0, 0])
    row, counts = logits(np.log(np.maximum(wanted, 1e-30))), np.zeros(8)
    drawing = Drawing(seed=5, temperature=1.0)
    draws = 4000
    for frame in range(draws):
        counts[drawing.first(frame, row)] += 1
    expected = wanted * draws
    assert counts[5:].sum() == 0
    assert (((counts - expected)[:5] ** 2 / expected[:5]).sum()) < 18.5  # chi square, 4 degrees: p = 0.001


def noise(seed, frame):
    return [np.array(part) for part in sampler().noise(noise_keys([seed], [frame]))]


def test_noise_is_a_function_of_seed_and_frame():
    first, rest = noise(7, 3)
    assert first.shape == (1, TALKER.vocab_size) and rest.shape == (15, 1, PREDICTOR.vocab_size)
    for part, other in zip((first, rest), noise(7, 3), strict=True):
        assert (part == other).all()
    # (seed, frame) and (frame, seed) are different keys
    for other in ((7, 4), (8, 3), (3, 7)):
        assert not (noise(*other)[0] == first).any()


def test_rows_have_the_noise_of_their_seeds():
    together = [np.array(part) for part in sampler().noise(noise_keys([7, 9, 7], [3, 3, 3]))]
    for row, seed in enumerate((7, 9, 7)):
        first, rest = noise(seed, 3)
        assert (together[0][row] == first[0]).all() and (together[1][:, row] == rest[:, 0]).all()


def test_end_of_speech_is_barred_for_two_tokens_and_control_tokens_always():
    row = mx.full((1, TALKER.vocab_size), 1.0)
    row[0, 1000] = 50.0
    row[0, 1001] = 60.0
    row[0, 3] = 2.0
    drawn = []
    greedy = Drawing(do_sample=False)
    for frame in range(3):
        drawn.append(greedy.first(frame, row))
    assert drawn == [3, 3, 1000]


def test_penalty_counts_a_code_once_over_the_whole_history():
    greedy = Drawing(do_sample=False, repetition_penalty=2.0)
    row = logits([4.0, 3.0, -1.0, 0, 0, 0, 0, 0])
    assert [greedy.first(frame, row) for frame in range(4)] == [0, 1, 0, 0]
    processed = np.array(greedy.sampler.processed(row, greedy.seen, greedy.sampler.mask([4])))[0, :3]
    assert processed.tolist() == [2.0, 1.5, -1.0]


def test_a_seen_negative_logit_is_multiplied():
    greedy, row = Drawing(do_sample=False, repetition_penalty=2.0), logits([-1.0] + [-5.0] * 7)
    greedy.first(0, row)
    processed = greedy.sampler.processed(row, greedy.seen, greedy.sampler.mask([1]))
    assert np.array(processed)[0, :2].tolist() == [-2.0, -5.0]


def test_predictor_has_values_of_its_own():
    one = Drawing(seed=1, temperature=1.0, subtalker_temperature=0.0)
    row = mx.array([[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]])
    assert all(one.rest(step, row) == 7 for step in range(15))
    other = Drawing(seed=1, temperature=1.0, subtalker_temperature=1.0, subtalker_top_k=0)
    assert len({other.rest(step, row) for step in range(15)}) > 2


def test_top_k_keeps_ties_and_top_p_keeps_at_least_one():
    kept = np.isfinite(np.array(filter_logits(mx.array([[3.0, 2.0, 2.0, 2.0, 1.0]]), 1.0, 2, 1.0)))
    assert kept.tolist() == [[True, True, True, True, False]]
    kept = np.isfinite(np.array(filter_logits(mx.array([[3.0, 2.9, 2.0]]), 1.0, 0, 1e-6)))
    assert kept.tolist() == [[True, False, False]]


def test_settings_come_from_the_config_then_from_the_official_defaults():
    config = {"temperature": 0.5, "max_new_tokens": 99, "subtalker_dosample": False, "eos_token_id": 3, "top_p": None}
    found = GenerationConfig.from_config(config)
    assert (found.temperature, found.max_tokens, found.subtalker_dosample) == (0.5, 99, False)
    assert (found.top_k, found.top_p, found.repetition_penalty) == (50, 1.0, 1.05)
    assert GenerationConfig.from_config({}) == GenerationConfig()


@pytest.mark.parametrize("values", [{"greedy": True}, {"temperature": 0}, {"temperature": 0.0}])
def test_greedy_and_temperature_zero_make_both_samplers_argmax(values):
    found = GenerationConfig().override(**values)
    assert not found.do_sample and not found.subtalker_dosample
    assert found.repetition_penalty == 1.05


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"temperature": 1e-9}, InvalidValue, "temperature 1e-09 is too small; 0 is greedy"),
        ({"repetition_penalty": 101}, InvalidValue, "repetition_penalty 101 is not between 0 and 100"),
        ({"do_sample": "yes"}, WrongType, "do_sample must be true or false, not 'yes'"),
    ],
)
def test_values_that_would_give_wrong_codes_are_refused(values, error, message):
    with pytest.raises(error, match=message):
        GenerationConfig.from_config(values)


CONFIGS = [
    {},
    {"temperature": 1.0, "top_k": 3},
    {"temperature": 0.3, "top_k": 0, "top_p": 0.6, "repetition_penalty": 1.3},
    {"do_sample": False, "subtalker_dosample": False, "repetition_penalty": 2.0},
    {"subtalker_temperature": 0.0, "top_k": 5000, "subtalker_top_p": 0.7},
    {"subtalker_top_k": 2, "subtalker_temperature": 1.4},
]


@pytest.mark.parametrize("chosen", [CONFIGS, CONFIGS[3:4] * 2, CONFIGS[:2]], ids=["all", "greedy", "without tails"])
def test_rows_with_values_of_their_own_draw_what_they_draw_alone(chosen):
    """Equal to the last bit, ties in the logits included."""
    configs = [GenerationConfig(**values) for values in chosen]
    mixed, random = MixedSampler(configs, TALKER, PREDICTOR), np.random.default_rng(1)
    count, settings = len(configs), mixed.settings()
    seeds, frames = list(range(count)), [frame % 4 for frame in range(count)]
    noises = mixed.noise(noise_keys(seeds, frames))
    for _ in range(20):
        first, rest = (np.round(random.normal(0, 3, (count, size)), 1) for size in (TALKER.vocab_size, 8))
        first, rest, seen = mx.array(first), mx.array(rest), mx.array(random.random(first.shape) < 0.3)
        codes, history = mixed.first(first, seen, mixed.mask(frames), noises[0], settings)
        later = mixed.rest(rest, noises[1] if noises[1] is None else noises[1][4], settings)
        for i, config in enumerate(configs):
            alone = Sampler(config, TALKER, PREDICTOR)
            own = alone.noise(noise_keys(seeds[i : i + 1], frames[i : i + 1]))
            code, seen_alone = alone.first(first[i : i + 1], seen[i : i + 1], alone.mask(frames[i : i + 1]), own[0])
            assert codes[i].item() == code.item() and (history[i] == seen_alone[0]).all().item()
            assert later[i].item() == alone.rest(rest[i : i + 1], own[1] if own[1] is None else own[1][4]).item()
