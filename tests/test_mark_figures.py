"""benchmarks.watermark: what it calls loud, and what its tables count."""

import numpy as np
import pytest

from benchmarks import watermark as bench
from mlx_qwen3tts.audio.watermark import THRESHOLD

pytestmark = pytest.mark.benchmarks


@pytest.fixture(scope="module")
def noise():
    return bench.levelled(next(bench.noise_clips(1, np.random.default_rng(0))))


def test_noise_to_mask_follows_the_level_of_what_is_added(noise):
    draw = np.random.default_rng(1)
    added = bench.levelled(np.fft.irfft(np.fft.rfft(noise) * np.exp(2j * np.pi * draw.random(noise.size // 2 + 1))))
    levels = [bench.noise_to_mask(noise, noise + added * 10 ** (db / 20)) for db in (-40, -20, 0)]
    means = [mean for mean, _, _ in levels]
    np.testing.assert_allclose(np.diff(means), 20, atol=0.5)
    assert levels[0][1] == 0 and levels[2][1] > 0.8  # a part in the dark, then most of it above
    time = np.arange(noise.size) / bench.RATE
    tone = (0.1 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    near = tone + (0.01 * np.sin(2 * np.pi * 1040 * time)).astype(np.float32)
    assert bench.noise_to_mask(tone, near)[2] > means[1] + 5  # tones mask less than noise does


def test_a_clip_is_found_and_the_tables_count_it(noise):
    row = bench.figures("noise", 1, noise, codec=None)
    assert set(row["found"]) == set(bench.ORDINARY)
    assert all(p_false <= THRESHOLD for _, p_false in row["found"].values())
    assert row["wrong"][0] == row["wrong_tried"] == 2 * (bench.WRONG + 1) and row["wrong"][-1] == 0
    lost = {**row, "kind": "tones", "found": dict.fromkeys(row["found"], (1.0, 1.0))}
    lines = bench.table([row, lost])
    assert "| nothing else | 1 of 2, 1.0 | 1 of 1, " in lines[2] and lines[2].endswith("| 0 of 1, 1.0 |")
    assert f"| 1 | {4 * (bench.WRONG + 1):.1f} | {4 * (bench.WRONG + 1)} |" in lines


def test_what_it_costs(noise):
    share, found, held = bench.cost(noise[: bench.RATE * 3], repeats=1)
    assert 0 < share < 1 and 0 < found < 2 and 0 < held <= 40
