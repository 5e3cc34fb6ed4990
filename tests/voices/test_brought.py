"""The directions that come with the package, and what they were learnt from."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts import Direction, Library, Voice
from mlx_qwen3tts.errors import DirectionNotFound
from mlx_qwen3tts.server.shaping import proven
from mlx_qwen3tts.server.voices import Voices
from mlx_qwen3tts.voices.brought import FOLDER, brought, everything
from mlx_qwen3tts.voices.expression import ExpressionError
from mlx_qwen3tts.voices.lookup import Lookup
from training.emotions import directions

NAMES = ["anger", "disgust", "fear", "gender", "joy", "sadness", "surprise"]


def test_there_are_directions_for_the_published_dimension_alone():
    assert brought(1024).directions == NAMES and len(brought(1024)) == 0, "and no voices"
    assert brought(2048) is None and brought(192) is None
    assert [library.folder for library in everything()] == [FOLDER / "1024"]


def test_they_are_what_the_vectors_teach(shared):
    refitted = directions(shared / "voices")
    assert sorted(refitted) == NAMES
    for name, one in refitted.items():
        kept = brought(1024).direction(name)
        assert np.allclose(np.array(kept.vector), np.array(one.vector), atol=1e-5)
        assert np.allclose(np.array(kept.centre), np.array(one.centre), atol=1e-5)
        assert kept.radius == pytest.approx(one.radius, rel=1e-5)
        assert str(kept.report) == str(one.report) and (kept.positive, kept.negative) == (one.positive, one.negative)


def test_each_does_better_than_guessing():
    for name in NAMES:
        direction = brought(1024).direction(name)
        assert proven(direction), name
        first = direction.report.first
        assert first is None or first[0] >= 5


def test_they_hold_none_of_the_vectors(shared):
    kept = [
        np.array(array)
        for name in NAMES
        for array in mx.load(str(FOLDER / f"1024/directions/{name}.safetensors")).values()
    ]
    for file in (shared / "voices").glob("*.npy"):
        vector = np.load(file)
        assert not any(np.allclose(vector, array, atol=1e-3) for array in kept)


def test_they_are_found_where_the_library_has_none_of_that_name(tmp_path):
    library = Library(tmp_path / "voices")
    library.add("anna", Voice(mx.ones(1024)))
    library.add("small", Voice(mx.ones(64)))
    lookup = Lookup(library, brought=everything())
    gender = brought(1024).direction("gender")
    moved = np.array(lookup.voice("anna + 1*@gender").embedding) - 1
    assert np.allclose(moved, np.array(gender.step), atol=1e-5)
    with pytest.raises(DirectionNotFound):
        Lookup(library).direction("gender")
    with pytest.raises(ExpressionError, match="'gender' is not a file or in the library"):
        lookup.voice("small + 1*@gender")
    X = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    library.add_direction("gender", Direction.fit(X, ["f", "m"] * 4))
    assert lookup.direction("gender").dimension == 64
    assert lookup.voice("small + 1*@gender").dimension == 64


@pytest.mark.parametrize(("dimension", "offered"), [(1024, NAMES), (2048, [])])
def test_a_server_offers_them_to_models_of_that_dimension(tmp_path, dimension, offered):
    library = Library(tmp_path / "voices")
    folder = SimpleNamespace(folder=tmp_path / "model")
    voices = Voices(SimpleNamespace(folder=folder, embedding_dim=dimension, speakers=[]), library)
    assert voices.directions == offered
    own = Direction.fit(np.eye(8, dimension, dtype=np.float32), ["sad", "glad"] * 4)
    library.add_direction("joy", own)
    assert sorted(voices.directions) == sorted({*offered, "joy"}) and voices.directions[0] == "joy"
    assert voices.lookup.direction("joy").positive == "sad"


def test_the_command_shows_them(command, tmp_path):
    ran = command("voices", "direction", "show", "gender", "@anger", "--library", tmp_path / "none")
    assert ran.status == 0 and "right for 34 of 36" in ran.out and "cosine of @gender and @anger: -0.36" in ran.out
