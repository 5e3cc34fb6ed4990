"""Which voices of a server are alike, which score highest, and where they lie on its map: its library's and those that
came with the model."""

import shutil
import threading
import time

import httpx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Direction, Library, Voice
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.errors import InvalidValue
from mlx_qwen3tts.server import maps, speaking
from mlx_qwen3tts.server.roster import Roster
from mlx_qwen3tts.voices.library.memory import SETTING
from mlx_qwen3tts.voices.library.packs import Pack
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


@pytest.fixture
def crowded(shelf, tmp_path):
    """The shelf with a pack of 40,000 voices beside its own, and one of another size."""
    client, server = shelf
    crowd = np.random.default_rng(5).normal(size=(40_000, 64)).astype(np.float32)
    np.save(tmp_path / "crowd.npy", crowd)
    np.save(tmp_path / "other.npy", crowd[:20, :32])
    server.voices.library.import_pack(tmp_path / "crowd.npy", kind="many")
    server.voices.library.import_pack(tmp_path / "other.npy")
    server.voices.library.add_direction("up", Direction.fit(crowd[:50], crowd[:50, 0].tolist(), method="ridge"))
    yield client, server.voices.library, crowd
    shutil.rmtree(server.voices.library.folder / "packs")
    server.voices.library.remove_direction("up")


def test_a_search_covers_packs_as_the_command_does(crowded):
    client, library, crowd = crowded

    def found(**body):
        answer = client.post("/v1/audio/voices/search", json={"k": 30, **body})
        assert answer.status_code == 200, answer.text
        return [(one["name"], one["score"]) for one in answer.json()]

    for body, query in (
        ({"voice": "anna"}, "anna"),
        ({"voice": "crowd/00007"}, "crowd/00007"),
        ({"voice": 'anna*0.5 + "crowd/00007"*0.5', "lowest": True}, 'anna*0.5 + "crowd/00007"*0.5'),
        ({"voice": "@up"}, "@up"),
        ({"voice": "anna - ben", "lowest": True}, "anna - ben"),
        ({"speaker_embedding": crowd[5].tolist()}, crowd[5]),
    ):
        wanted = library.search(query, 30, lowest=body.get("lowest", False))
        assert [name for name, _ in found(**body)] == [name for name, _ in wanted], query
        assert [score for _, score in found(**body)] == pytest.approx([score for _, score in wanted], abs=1e-5)
    assert found(voice="anna", where={"kind": "many"}, k=1)[0][0].startswith("crowd/")
    assert found(voice="anna", where={"kind": "one"}) == []
    alone = [name for name, _ in found(voice="anna", packs=False)]
    assert set(alone) == {*library.names} - {"anna"}
    assert client.post("/v1/audio/voices/search", json={"voice": "anna", "packs": "no"}).status_code == 400
    assert len(client.post("/v1/audio/voices/map", json={}).json()["voices"]) == len(library)


def test_speech_goes_on_while_a_pack_is_searched(crowded, shelf, monkeypatch):
    """A block of a pack takes a turn of its own; what comes between two of them is done between them."""
    client, _, _ = crowded
    engine, order = shelf[1].engine, []
    blocks = Pack.blocks

    def watched(self, *size):
        for number, block in enumerate(blocks(self, *size)):
            order.append(number)
            engine.call(lambda: order.append("other"))
            yield block

    monkeypatch.setattr(Pack, "blocks", watched)
    monkeypatch.setattr(speaking, "TURN", 0)
    assert client.post("/v1/audio/voices/search", json={"voice": "@up"}).status_code == 200
    assert order == [0, "other", 1, "other", 2, "other"]


def test_a_pack_that_does_not_fit_is_refused_without_its_place(crowded, monkeypatch):
    client, library, _ = crowded
    monkeypatch.setenv(SETTING, "0.001")
    answer = client.post("/v1/audio/voices/search", json={"voice": "anna"})
    assert answer.status_code == 400 and "searches may take 0.00 GB" in answer.json()["error"]["message"]
    assert str(library.folder.parent) not in answer.text
    assert client.post("/v1/audio/voices/search", json={"voice": "anna", "packs": False}).status_code == 200


def test_packs_alone_are_searched(tmp_path):
    library = Library(tmp_path / "packs alone")
    crowd = np.random.default_rng(5).normal(size=(50, 64)).astype(np.float32)
    np.save(tmp_path / "crowd.npy", crowd)
    library.import_pack(tmp_path / "crowd.npy")
    alone = Roster(library, None, [], lambda name: None, 64)
    assert alone.nearest(Voice(crowd[9]), 1, None)[0][0] == "crowd/09"
    with pytest.raises(InvalidValue, match="there is no voice to compare with"):
        Roster(Library(tmp_path / "empty"), None, [], lambda name: None, 64).nearest(Voice(crowd[9]), 1, None)


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
