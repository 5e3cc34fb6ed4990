"""`generate_each`: any number of Requests through one batch, none of which is kept."""

import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Request, Sampling
from mlx_qwen3tts.errors import InvalidValue


def requests(count, taken=None):
    for number in range(count):
        if taken is not None:
            taken.append(number)
        how = Sampling(max_tokens=3 + number % 3)
        yield Request(f"Text {number}.", vector(64, 1), seed=number, sampling=how, rate=2.0 if number == 1 else 1.0)


def test_each_is_as_by_itself(model):
    tts, spoken = model("base"), {}
    tts.generate_each(requests(5), spoken.__setitem__, batch_size=2)
    assert sorted(spoken) == [0, 1, 2, 3, 4]
    for number, request in enumerate(requests(5)):
        alone = tts.generate(request)
        assert np.array_equal(spoken[number].codes, alone.codes)
        assert np.allclose(spoken[number].audio, alone.audio, atol=1e-4)
        assert spoken[number].stats["seed"] == number


def test_a_request_is_taken_when_there_is_a_place(model):
    taken, ended = [], []

    def done(number, speech):
        ended.append(number)
        assert len(taken) <= len(ended) + 1

    model("base").generate_each(requests(6, taken), done, batch_size=2, numbers=range(10, 16))
    assert sorted(ended) == list(range(10, 16)) and len(taken) == 6


def test_a_request_that_is_refused_is_named(model):
    asked, ended = [Request("One.", vector(64, 1), sampling=Sampling(max_tokens=3)), Request("Two.", "nobody")], []
    with pytest.raises(KeyError, match="text 2: voice 'nobody'"):
        model("base").generate_each(asked, lambda number, speech: ended.append(number), batch_size=1)
    assert ended == [0]
    with pytest.raises(InvalidValue, match="batch_size 0"):
        model("base").generate_each(asked, print, batch_size=0)
