"""Which voices of a server are alike, which score highest, and where they lie on its map: its library's and those that
came with the model."""

import threading
import time

import httpx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Library, Voice
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.server import maps
from mlx_qwen3tts.server.roster import Roster
from mlx_qwen3tts.voices.maps.projection import project

BROUGHT = Library(hub.SHIPPED["miniature"] / "voices")


def search(url, **body):
    return httpx.post(f"{url}/v1/audio/voices/search", json=body)


def draw(url, **body):
    return httpx.post(f"{url}/v1/audio/voices/map", json=body)


def test_voices_that_came_with_the_model_are_found(speaking_url):
    found = search(speaking_url, voice="voice03*0.9 + voice05*0.1", k=3).json()
    assert found[0]["name"] == "voice03" and len(found) == 3
    scores = {name: float(BROUGHT.direction("pitch").score(BROUGHT[name])) for name in BROUGHT}
    along = [one["name"] for one in search(speaking_url, voice="@pitch", k=1000).json()]
    assert along == sorted(scores, key=scores.get, reverse=True)
    assert [one["name"] for one in search(speaking_url, voice="@pitch", k=1000, lowest=True).json()] == along[::-1]
    assert [one["name"] for one in search(speaking_url, voice="-1*@pitch", k=1000).json()] == along[::-1]
    offset = [one["name"] for one in search(speaking_url, voice="voice01 - voice02", k=20).json()]
    assert offset.index("voice01") < offset.index("voice02")
    recording = (hub.SHIPPED["miniature"] / "recordings" / "high.flac").read_bytes()
    form = {"file": ("a.flac", recording), "k": (None, "1000"), "lowest": (None, "true")}
    assert len(httpx.post(f"{speaking_url}/v1/audio/voices/search", files=form).json()) == 10
    assert search(speaking_url, voice="voice01", lowest="yes").status_code == 400


def test_the_map_is_that_of_the_command(speaking_url):
    drawn = draw(speaking_url).json()
    names = [one["name"] for one in drawn["voices"]]
    wanted = project(BROUGHT.vectors(names))
    places = np.array([[one["x"], one["y"]] for one in drawn["voices"]])
    np.testing.assert_allclose(places, np.array(wanted.points), atol=1e-3)
    assert names == BROUGHT.names and drawn["total"] == 10
    assert [axis["share"] for axis in drawn["axes"]] == pytest.approx(wanted.shares, abs=1e-4)
    scored = draw(speaking_url, x="@pitch", y="@size").json()
    scores = np.array(BROUGHT.direction("size").score(BROUGHT.vectors(names)))
    np.testing.assert_allclose([one["y"] for one in scored["voices"]], scores, atol=1e-3)
    assert scored["axes"] == [{"direction": "@pitch", "share": None}, {"direction": "@size", "share": None}]
    for wrong in ({"x": "@pitch"}, {"x": "@pitch", "y": "voice01"}, {"x": "@pitch", "y": "@no"}, {"x": 5, "y": 5}):
        assert draw(speaking_url, **wrong).status_code == 400, wrong


@pytest.fixture
def roster(tmp_path):
    """A roster of voices that a test may add to, with some that it cannot use."""
    library, brought = Library(tmp_path / "own"), Library(tmp_path / "brought")
    for i in range(9):
        brought.add(f"b{i}", vector(64, i), gender="female" if i % 2 else "male")
    library.add("other size", vector(32, 0))
    presets = {"Vivian": Voice(vector(64, 20))}
    return Roster(library, brought, list(presets), presets.get, 64)


def test_each_name_once_and_of_the_models_size(roster):
    assert sorted(roster.searcher().snapshot.entries) == ["Vivian", *(f"b{i}" for i in range(9))]
    assert roster.searcher() is roster.searcher(), "nothing is laid out anew while nothing changes"
    roster.library.add("b0", vector(64, 50), gender="female")
    found = roster.nearest(Voice(vector(64, 50)), 2, None)
    assert found[0][0] == "b0" and found[0][1] == pytest.approx(1, abs=1e-4) and len(found) == 2
    women = roster.nearest(Voice(vector(64, 1)), 20, {"gender": "female"})
    assert sorted(name for name, _ in women) == ["b0", "b1", "b3", "b5", "b7"]
    assert roster.nearest(Voice(vector(64, 1)), 5, {"gender": "none"}) == []
    assert roster.nearest(Voice(vector(64, 1)), 1, None, lowest=True)[0][1] == min(
        np.array(roster.scores(Voice(vector(64, 1)))[1])
    )


def test_a_large_library_is_thinned_and_drawn_once(shelf, monkeypatch):
    client, server = shelf
    monkeypatch.setattr(maps, "MOST_MAPPED", 2)
    drawn = client.post("/v1/audio/voices/map", json={}).json()
    assert [one["name"] for one in drawn["voices"]] == ["anna", "cleo"] and drawn["total"] == 3
    calls = []
    monkeypatch.setattr(maps, "principal", lambda X: calls.append(len(X)) or (np.zeros((len(X), 2)), (0.0, 0.0)))
    server.voices.library.add("dora", vector(64, 8))
    threads = [
        threading.Thread(target=client.post, args=("/v1/audio/voices/map",), kwargs={"json": {}}) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [2], "the others wait for it, and get the same"


def test_a_thousand_voices_cost_little(tmp_path):
    library = Library(tmp_path / "voices")
    (tmp_path / "voices").mkdir()
    X = np.random.default_rng(0).normal(size=(1000, 256)).astype(np.float32)
    for i, row in enumerate(X):
        np.save(tmp_path / "voices" / f"v{i:03}.npy", row)
    roster = Roster(library, None, [], lambda name: None, 256)
    roster.nearest(Voice(X[0]), 1000, None)
    best = min(timed(lambda: roster.nearest(Voice(X[5]), 1000, None)) for _ in range(5))
    assert best < 0.25
    assert timed(lambda: maps.principal(X)) < 3


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
