"""Rows whose text is still being written stand aside, and speak what they would have spoken in one go."""

import random
import threading

import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts.errors import InvalidValue
from mlx_qwen3tts.synthesis.live import Feed

TEXTS = [
    "You and I will walk to the old harbour.",
    "Hello, the weather is fine today.",
    "The user, as is, in the assistant; hello hello hello.",
]
HOWS = [{}, {"greedy": True}, {"temperature": 0.7}]


def codes(tts, prompt, seed, config):
    return np.concatenate([np.array(frame.codes) for frame in tts.generation([prompt], [seed], config)])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (1, 2))])
@pytest.mark.parametrize("name", ["base", "base-ends"])
def test_written_word_by_word_beside_others(model, name, seed):
    tts, chosen = model(name), random.Random(seed)
    voice = tts.voice(vector(tts.embedding_dim, seed))
    configs = [tts.sampling.override(**how, max_tokens=chosen.randrange(20, 40)) for how in HOWS]
    wanted = [
        codes(tts, tts.prompt(text, voice), row, config)
        for row, (text, config) in enumerate(zip(TEXTS, configs, strict=True))
    ]
    generation = tts.generation([], [], tts.sampling)
    generation.sets_aside = True
    pieces = [[text[i : i + 3] for i in range(0, len(text), 3)] for text in TEXTS]
    feeds, numbers = [], {}
    for row, text in enumerate(TEXTS):
        feeds.append(Feed())
        for piece in pieces[row][:5]:  # enough for the prompt
            feeds[row].write(piece)
        del pieces[row][:5]
        numbers[generation.insert(tts.prompt(feeds[row] if row < 2 else text, voice), row, configs[row])] = row
    spoken, stood_aside = [[], [], []], 0
    while generation.unfinished or any(pieces[:2]):
        frame = generation.step()
        stood_aside = max(stood_aside, len(generation.aside))
        if frame is not None:
            for place, row in enumerate(frame.rows):
                spoken[numbers[row]].append(np.array(frame.codes[place]))
        if frame is None or chosen.random() < 0.4:
            row = chosen.randrange(2)
            if pieces[row]:
                feeds[row].write(pieces[row].pop(0))
            else:
                feeds[row].close()
    while (frame := generation.step()) is not None:  # the last one under way
        for place, row in enumerate(frame.rows):
            spoken[numbers[row]].append(np.array(frame.codes[place]))
    assert stood_aside or name != "base"
    for got, expected in zip(spoken, wanted, strict=True):
        assert np.array_equal(np.array(got).reshape(-1, expected.shape[1]), expected)


def test_all_wait_where_they_are(model):
    """Nothing is copied, nothing is computed, until the next word."""
    tts = model("base")
    feed = Feed()
    feed.write("Hello there, the ")
    generation = tts.generation([], [], tts.sampling)
    generation.sets_aside = True
    generation.insert(tts.prompt(feed, tts.voice(vector(64, 1))), 1, tts.sampling.override(max_tokens=12))
    frames = 0
    while (frame := generation.step()) is not None:
        frames += len(frame.rows)
    caches = generation.caches
    assert generation.step() is None and generation.unfinished and not generation.aside
    feed.write("weather is fine")
    feed.close()
    while (frame := generation.step()) is not None:
        frames += len(frame.rows)
    assert frames == 11 and not generation.unfinished and generation.caches is caches


def test_a_text_that_cannot_be_read_ends_its_row_alone(model):
    tts = model("base")
    feed, voice = Feed(), tts.voice(vector(64, 1))
    feed.write("Hello there, the ")
    config = tts.sampling.override(max_tokens=12)
    generation = tts.generation([], [], config)
    generation.sets_aside = True
    live = generation.insert(tts.prompt(feed, voice), 1, config)
    other = generation.insert(tts.prompt(TEXTS[0], voice), 2, config)
    generation.step()
    with pytest.raises(InvalidValue, match=r"U\+0000 at position 18"):
        feed.write("a\x00")
    feed.write("word " * 10_000)  # longer than the model's context
    spoken = []
    while (frame := generation.step()) is not None:
        spoken += frame.rows
    assert generation.failed[live].code == "text_too_long" and spoken.count(other) == 10
    assert not generation.unfinished


def test_a_feed_is_an_iterator_that_waits():
    feed, woken = Feed(lambda: woken.append(1)), []
    threading.Timer(0.05, lambda: (feed.write("Hello."), feed.close())).start()
    assert list(feed) == ["Hello."] and len(woken) == 2
    with pytest.raises(RuntimeError, match="closed"):
        feed.write("more")
