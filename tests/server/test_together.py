"""What two features of the server do together: scripts, guard, consent, packs, directions, and a library that others
use at the same time."""

import httpx
import numpy as np
import pytest

from mlx_qwen3tts import Library
from mlx_qwen3tts.errors import QwenTTSError
from mlx_qwen3tts.server import engine as engines
from mlx_qwen3tts.server.settings import Settings
from mlx_qwen3tts.voices.lookup import Lookup
from tests.dictation import FAULTS, TEXT, dictated
from tests.server.test_shaping import fitted

SAMPLES = 1920  # of a frame


@pytest.fixture
def scripted(model, library, serving):
    """A function from what seeds say, and Settings, to (a client's answer to a script, its pieces, the Dictation)."""

    def speak(said, settings, **fields):
        tts = model("base")
        with serving(tts, Settings(library=library.folder)) as (url, _), httpx.Client(base_url=url) as client:
            read = client.post("/v1/audio/scripts", json={"input": TEXT, "seed": fields.get("seed", 0)}).json()
        [piece] = read["lines"][0]["pieces"]
        by_seed = {piece["seed"] + number: codes for number, codes in said.items()}
        with (
            dictated(tts, by_seed) as dictation,
            serving(tts, Settings(library=library.folder, **settings)) as (url, server),
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            dictation.begun.clear()
            body = {"input": TEXT, "response_format": "pcm", **fields}
            if "seeds" in body:
                body["seeds"] = {piece["key"]: piece["seed"]}
            answer = client.post("/v1/audio/scripts/speech", json=body)
            return answer, [seed - piece["seed"] for seed in dictation.begun], server.engine.counts["retries"]

    return speak


@pytest.mark.parametrize(
    ("settings", "fields", "begun"),
    [
        ({"guard": True}, {}, [0, 1]),
        ({}, {"guard": True}, [0, 1]),
        ({}, {}, [0]),
        ({"guard": True}, {"guard": False}, [0]),
        ({"guard": True}, {"seed": 3}, [0]),
        ({"guard": True}, {"seeds": True}, [0]),
    ],
)
def test_a_piece_of_a_script_is_spoken_again_as_any_speech_is(scripted, settings, fields, begun):
    answer, seeds, retries = scripted({0: FAULTS["too short"][1]}, settings, **fields)
    assert answer.status_code == 200 and (seeds, retries) == (begun, len(begun) - 1), answer.text
    assert answer.headers.get("x-guard") == ("on" if len(begun) > 1 else None)


def test_what_a_script_says_in_vain_is_named(shelf, monkeypatch):
    client, _ = shelf
    body = {"input": "Hello.", "lead": 1, "normalize": True}
    monkeypatch.setattr("mlx_qwen3tts.server.scripts._sounds", silent)
    answer = client.post("/v1/audio/scripts/speech", json=body)
    assert answer.status_code == 200 and answer.headers["x-ignored"] == "lead, normalize"
    assert client.post("/v1/audio/scripts/speech", json={"input": "Hello.", "guard": 1}).status_code == 400


async def silent(*_):
    yield np.zeros(SAMPLES, np.float32)


def test_the_usual_voice_of_a_script_is_that_of_all_speech(model, library, serving, tmp_path):
    own = Library(tmp_path / "voices")
    own.add("aaron", library["anna"], consent="refused")
    own.add("berta", library["ben"], consent="given")
    with serving(model("base"), Settings(library=own.folder)) as (url, server), httpx.Client(base_url=url) as client:
        read = client.post("/v1/audio/scripts", json={"input": "Hello."}).json()
        assert [(one["voice"], one["error"]) for one in read["cast"]] == [("berta", None)]
        assert server.voices.usual().name == "berta"
        client.delete("/v1/audio/voices/berta")
        read = client.post("/v1/audio/scripts", json={"input": "AARON: Hello."}).json()
        assert "refused" in read["cast"][0]["error"] and read["error"] is None
        [narrator] = client.post("/v1/audio/scripts", json={"input": "Hello."}).json()["cast"]
        spoken = client.post("/v1/audio/scripts/speech", json={"input": "Hello."})
    assert narrator["error"] == "no voice is named, and the server has none; add one to its library"
    assert spoken.status_code == 400 and spoken.json()["error"]["message"] == f"line 1: {narrator['error']}"


@pytest.mark.parametrize("after", ["kept_in", "info", "path"])
def test_a_voice_that_another_server_deletes_while_all_are_listed(shelf, library, monkeypatch, after):
    client, server = shelf
    own = server.voices.library
    own.add("fleeting", library["anna"])
    asked = server.voices if after == "kept_in" else own
    ask = getattr(asked, after)

    def late(name):
        found = ask(name)
        if name == "fleeting":
            (own.folder / "fleeting.safetensors").unlink()
        return found

    monkeypatch.setattr(asked, after, late)
    answer = client.get("/v1/audio/voices")
    assert answer.status_code == 200 and "anna" in answer.json()["names"], answer.text
    assert "fleeting" not in answer.text


def test_a_damaged_direction_keeps_nobody_from_the_others(shelf, model, caplog):
    client, server = shelf
    own = server.voices.library
    for name in ("height", "torn", "width"):
        own.add_direction(name, fitted(np.arange(24.0)))
    file = own.folder / "directions" / "torn.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    for _ in range(2):
        listed = client.get("/v1/audio/directions")
        assert listed.status_code == 200 and [one["name"] for one in listed.json()["data"]] == ["height", "width"]
    assert [record.message for record in caplog.records if "passed over" in record.message] == [
        "passed over: direction 'torn' of the library cannot be read"
    ]
    assert client.delete("/v1/audio/directions/torn").json()["deleted"]
    own.add_direction("torn", fitted(np.arange(24.0)))
    assert len(client.get("/v1/audio/directions").json()["data"]) == 3


def test_a_direction_that_is_deleted_while_its_speech_goes_on(shelf, monkeypatch):
    client, server = shelf
    server.voices.library.add_direction("brief", fitted(np.arange(24.0)))
    hear = engines.Engine._hear

    def heard(engine, *more):
        if "brief" in server.voices.library.directions:
            server.voices.library.remove_direction("brief")
        hear(engine, *more)

    monkeypatch.setattr(engines.Engine, "_hear", heard)
    body = {"input": TEXT, "voice": "anna + 0.5*@brief", "seed": 1, "max_new_tokens": 6, "response_format": "pcm"}
    spoken = client.post("/v1/audio/speech", json=body)
    assert spoken.status_code == 200 and len(spoken.content) == 5 * 2 * SAMPLES
    again = client.post("/v1/audio/speech", json=body)
    assert again.status_code == 400 and "'brief' is not in the library" in again.json()["error"]["message"]


PACKED = (
    "crowd/../anna",
    "crowd/../../secret",
    "../packs/crowd/a",
    "packs/crowd/a",
    "crowd/vectors.npy",
    "crowd/",
    "/",
)


def test_voices_of_packs_are_names_too(shelf, tmp_path):
    """They speak and steer, and what looks like a way out of the pack is a name that is not there."""
    client, server = shelf
    own = server.voices.library
    np.save(tmp_path / "crowd.npy", np.stack([np.array(own["anna"].embedding), np.array(own["ben"].embedding)]))
    (tmp_path / "crowd.txt").write_text("a\nb\n")
    own.import_pack(tmp_path / "crowd.npy", tmp_path / "crowd.txt", name="crowd", consent="given")
    own.import_pack(tmp_path / "crowd.npy", name="nobody", consent="refused")
    body = {"input": "Hi.", "seed": 1, "max_new_tokens": 4, "response_format": "pcm"}
    turns = [{"frame": 1, "voice": "crowd/b", "seconds": 0}]
    assert client.post("/v1/audio/speech", json={**body, "voice": "crowd/a", "steering": turns}).status_code == 200
    [one] = client.post("/v1/audio/scripts", json={"input": "[voice: crowd/b] Hi.", "voices": {}}).json()["lines"]
    assert one["pieces"][0]["error"] is None
    for voice in ("nobody/0", '"nobody/0" + anna'):
        refused = client.post("/v1/audio/speech", json={**body, "voice": voice})
        assert refused.status_code == 400 and "who refused" in refused.json()["error"]["message"]
    for voice in PACKED:
        for path, asked in (("speech", {**body, "voice": voice}), ("voices/search", {"voice": voice})):
            answer = client.post(f"/v1/audio/{path}", json=asked)
            assert answer.status_code == 400 and str(own.folder) not in answer.text, (voice, path, answer.text)
    for ask in (client.delete, lambda url: client.patch(url, json={"license": "CC0-1.0"})):
        answer = ask("/v1/audio/voices/crowd/a")
        assert answer.status_code == 400 and "is in a pack" in answer.json()["error"]["message"]


@pytest.mark.parametrize("damage", ["short", "away", "binary"])
def test_a_damaged_pack_names_no_folder(shelf, tmp_path, damage):
    client, server = shelf
    own = server.voices.library
    np.save(tmp_path / "torn.npy", np.stack([np.array(own["anna"].embedding)] * 2))
    own.import_pack(tmp_path / "torn.npy", name="torn", overwrite=True)
    names = own.folder / "packs" / "torn" / "names.txt"
    if damage == "away":
        names.unlink()
    else:
        names.write_bytes(b"a\n" if damage == "short" else b"\xff\xfe\xff\n\x00")
    body = {"input": "Hi.", "max_new_tokens": 4}
    for voice in ("torn/a", "anna + torn/a", 'anna*0.5 + "torn/a"*0.5'):
        answer = client.post("/v1/audio/speech", json={**body, "voice": voice})
        assert answer.status_code == 400 and str(own.folder) not in answer.text, answer.text
    for ask in (client.get, client.delete, lambda url: client.patch(url, json={"license": "x"})):
        answer = ask("/v1/audio/voices/torn/a")
        assert answer.status_code in (400, 404) and str(own.folder) not in answer.text, answer.text
    assert client.post("/v1/audio/speech", json={**body, "voice": "anna"}).status_code == 200
    with pytest.raises(QwenTTSError, match=r"names\.txt|names for"):
        Lookup(own).voice("torn/a")
