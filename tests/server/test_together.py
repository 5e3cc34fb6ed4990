"""What two features of the server do together: scripts, guard, consent, packs, directions, and a library that others
use at the same time."""

import io
import json
import warnings
import zipfile

import httpx
import numpy as np
import pytest

from mlx_qwen3tts import Library
from mlx_qwen3tts.errors import QwenTTSError
from mlx_qwen3tts.server.jobs import Job
from mlx_qwen3tts.server.settings import Settings
from mlx_qwen3tts.voices.lookup import Lookup
from tests.dictation import FAULTS, TEXT, dictated
from tests.server.test_shaping import fitted

pytestmark = pytest.mark.thorough  # a server each

SAMPLES = 1920  # of a frame


@pytest.fixture(scope="module")
def faulty(model, library, serving):
    """(client, Server, Dictation, piece): a script of TEXT is one piece, which is too short with its own seed."""
    with (
        dictated(model("base"), {}) as dictation,
        serving(model("base"), Settings(library=library.folder)) as (url, server),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for seed in (3, 0):  # 0 is what a request without one has
            read = client.post("/v1/audio/scripts", json={"input": TEXT, "seed": seed}).json()
            [piece] = read["lines"][0]["pieces"]
            dictation.codes[piece["seed"]] = FAULTS["too short"][1]
        yield client, server, dictation, piece


@pytest.fixture
def scripted(faulty, monkeypatch):
    """A function from Settings, and fields of a request, to (the answer, how many attempts there were)."""
    client, server, dictation, piece = faulty

    def speak(settings, **fields):
        monkeypatch.setattr(server, "settings", Settings(library=server.settings.library, **settings))
        dictation.begun.clear()
        if "seeds" in fields:
            fields["seeds"] = {piece["key"]: piece["seed"]}
        body = {"input": TEXT, "response_format": "pcm", **fields}
        return client.post("/v1/audio/scripts/speech", json=body), len(dictation.begun)

    return speak


@pytest.mark.parametrize(
    ("settings", "fields", "begun"),
    [
        ({"guard": True}, {}, 2),
        ({}, {"guard": True}, 2),
        ({}, {}, 1),
        ({"guard": True}, {"guard": False}, 1),
        ({"guard": True}, {"seed": 3}, 1),
        ({"guard": True}, {"seeds": True}, 1),
    ],
)
def test_a_piece_of_a_script_is_spoken_again_as_any_speech_is(scripted, settings, fields, begun):
    answer, attempts = scripted(settings, **fields)
    assert answer.status_code == 200 and attempts == begun
    assert answer.headers.get("x-guard") == ("on" if begun > 1 else None)


def test_what_a_script_says_in_vain_is_named(scripted, shelf):
    answer, _ = scripted({}, lead=1, normalize=True)
    assert answer.status_code == 200 and answer.headers["x-ignored"] == "lead, normalize"
    refused = shelf[0].post("/v1/audio/scripts/speech", json={"input": "Hello.", "guard": 1})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "guard"


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
    begin = Job.begin

    def begun(job, *more):
        begin(job, *more)
        server.voices.library.remove_direction("brief")

    monkeypatch.setattr(Job, "begin", begun)
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


def test_no_voice_takes_the_place_of_the_aliases(shelf):
    """Whoever could replace that file would silence every voice, or say which one an alias means."""
    client, server = shelf
    own = server.voices.library
    listed = json.dumps([float(x) for x in np.array(own["anna"].embedding)])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("Aliases.json", listed)
    fields = {"name": "aliases", "consent": "given", "overwrite": "true", "speaker_embedding": listed}
    (own.folder / "aliases.json").write_text('{"alloy": "ben"}')
    for path, files in (
        ("voices/import", {"overwrite": (None, "true"), "archive": ("x.zip", packed.getvalue())}),
        ("voices", {name: (None, value) for name, value in fields.items()}),
    ):
        refused = client.post(f"/v1/audio/{path}", files=files)
        assert refused.status_code == 400 and "is taken by the server's aliases" in refused.json()["error"]["message"]
    blend = client.post("/v1/audio/voices/combine", json={"expression": "anna", "name": "aliases", "overwrite": True})
    assert blend.status_code == 400 and server.voices.aliases()["alloy"] == "ben"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "aliases" not in Library(own.folder).names, "and nothing is said of that file"
    (own.folder / "aliases.json").unlink()


@pytest.mark.parametrize("stream", [None, "audio"])
def test_a_steered_speech_that_is_spoken_again_turns_where_it_was_to_turn(faulty, monkeypatch, stream):
    """As the same turns with the seed that was kept: nothing of the first attempt's way is left."""
    client, _, dictation, _ = faulty
    dictation.codes[40] = [next(iter(faulty[1].tts.planner.silent))] * 6 + FAULTS["too short"][1]
    monkeypatch.setattr("mlx_qwen3tts.server.engine.secrets.randbits", lambda bits: 40)
    turns = [{"frame": 1, "voice": "ben", "seconds": 0.3}, {"frame": 6, "voice": "cleo", "seconds": 0}]
    body = {"input": TEXT, "voice": "anna", "response_format": "pcm", "steering": turns}
    if stream:
        body |= {"stream_format": stream, "lead": 1}
    again = client.post("/v1/audio/speech", json={**body, "guard": True})
    alone = client.post("/v1/audio/speech", json={**body, "seed": 41})
    still = client.post("/v1/audio/speech", json={**body, "seed": 41, "steering": []})
    assert again.status_code == 200 and again.headers["x-seed"] == "41", again.headers
    assert again.content == alone.content != still.content
