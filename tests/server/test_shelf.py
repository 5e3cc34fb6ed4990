"""The voices over HTTP: kept with consent, found, blended, deleted; names and never paths."""

import builtins
import io
import json

import numpy as np
import pytest
import soundfile

from convert.parity import recording, vector
from mlx_qwen3tts import Voice
from mlx_qwen3tts.voices.directions.direction import Direction

PATHS = ["/etc/passwd", "../secret", "..%2fsecret", "secret.npy", "./secret", "~/x.npy", "\\\\host\\x", "a\x00b"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return recording(tmp_path_factory.mktemp("sound") / "a.wav", 1, 3.5).read_bytes()


def keep(client, name, files=None, **fields):
    files = {key: (None, value) for key, value in fields.items()} | (files or {}) | {"name": (None, name)}
    return client.post("/v1/audio/voices", files=files)


def test_the_list_has_the_shapes_of_four_servers(shelf):
    client, _ = shelf
    listed = client.get("/v1/audio/voices").json()
    assert listed["names"][:3] == ["anna", "ben", "cleo"] and listed["object"] == "list"
    assert listed["data"] == listed["voices"] and {"id", "name", "dimension"} <= set(listed["data"][0])
    assert {"id": "alloy", "name": "alloy", "alias_of": "anna"} in listed["data"]
    assert client.get("/v1/audio/voices?legacy=true").json()["voices"][:3] == ["anna", "ben", "cleo"]


def test_a_recording_is_kept_and_speaks(shelf, model, sound):
    client, server = shelf
    answer = keep(client, "dora", {"audio_sample": ("d.wav", sound)}, consent="given", license="CC0-1.0")
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert made["success"] and made["id"] == "dora" and made["object"] == "audio.voice" and made["consent"] == "given"
    wanted = np.array(model("base").embed((soundfile.read(io.BytesIO(sound), dtype="float32")[0], 24000)))
    np.testing.assert_allclose(np.array(server.voices.library["dora"].embedding), wanted, atol=1e-5)
    taken = keep(client, "dora", {"audio_sample": ("d.wav", sound)}, consent="given")
    assert taken.status_code == 409 and taken.headers["x-should-retry"] == "false"
    again = keep(client, "dora", {"audio_sample": ("d.wav", sound)}, consent="cons_123", overwrite="true")
    assert again.json()["consent"] == "given" and again.json()["attributes"]["consent_id"] == "cons_123"
    gone = client.delete("/v1/audio/voices/dora")
    assert gone.json()["deleted"] is True and gone.json()["success"] is True
    missing = client.delete("/v1/audio/voices/dora")
    assert missing.status_code == 404 and missing.json()["success"] is False and missing.json()["error"]["code"]


def test_a_vector_is_kept_and_read_in_three_formats(shelf, tmp_path):
    client, _ = shelf
    values = [float(x) for x in vector(64, 7)]
    made = keep(client, "vec", speaker_embedding=json.dumps(values), consent="not-needed")
    assert made.status_code == 200, made.text
    for kind in ("safetensors", "npy", "json"):
        answer = client.get(f"/v1/audio/voices/vec?format={kind}")
        path = tmp_path / f"v.{kind}"
        path.write_bytes(answer.content)
        np.testing.assert_allclose(np.array(Voice.load(path).embedding), vector(64, 7), rtol=1e-6)
    assert client.get("/v1/audio/voices/vec").json()["dimension"] == 64
    assert client.get("/v1/audio/voices/vec?format=pt").status_code == 400


def test_blends(shelf, tmp_path):
    client, server = shelf
    half = client.post("/v1/audio/voices/combine", json="anna+ben")
    (tmp_path / "half.safetensors").write_bytes(half.content)
    voices = server.voices.library
    wanted = (np.array(voices["anna"].embedding) + np.array(voices["ben"].embedding)) / 2
    made = Voice.load(tmp_path / "half.safetensors")
    np.testing.assert_allclose(np.array(made.embedding), wanted, rtol=1e-5)
    assert made.recipe["parents"][0]["name"] == "anna"
    assert client.post("/v1/audio/voices/combine", json=["anna", "ben"]).content == half.content
    kept = client.post("/v1/audio/voices/combine", json={"expression": "anna*0.7 + ben*0.3", "name": "mix"})
    assert kept.json()["voice"]["recipe"]["expression"] and "mix" in voices
    for wrong in ({}, {"expression": "anna*"}, {"expression": "anna", "keep": "x"}, ["anna", 5], []):
        assert client.post("/v1/audio/voices/combine", json=wrong).status_code == 400, wrong


def test_search_by_voice_vector_recording_and_direction(shelf, sound):
    client, server = shelf
    listed = client.post("/v1/audio/voices/search", json={"voice": "anna*0.9 + ben*0.1", "k": 2}).json()
    assert listed[0]["name"] == "anna" and len(listed) == 2
    for name in ("anna", "alloy"):  # its alias
        others = client.post("/v1/audio/voices/search", json={"voice": name, "k": 20}).json()
        assert len(others) == len(server.voices.library) - 1 and "anna" not in [one["name"] for one in others]
    values = [float(x) for x in vector(64, 1)]
    assert client.post("/v1/audio/voices/search", json={"speaker_embedding": values}).json()[0]["name"] == "ben"
    heard = client.post("/v1/audio/voices/search", files={"file": ("d.wav", sound), "k": (None, "1")})
    assert heard.status_code == 200 and len(heard.json()) == 1
    names = ["anna", "ben", "cleo"]
    direction = Direction.fit([server.voices.library[name] for name in names], [0.0, 1.0, 2.0], method="ridge")
    server.voices.library.add_direction("height", direction)
    along = client.post("/v1/audio/voices/search", json={"voice": "@height", "k": 3}).json()
    assert along[0]["score"] >= along[1]["score"]
    for wrong in ({}, {"voice": "anna", "k": 0}, {"voice": "nobody"}, {"voice": "anna", "where": 5}):
        assert client.post("/v1/audio/voices/search", json=wrong).status_code == 400, wrong


def test_the_vector_of_a_recording(shelf, sound):
    answer = shelf[0].post("/v1/embeddings/voice", files={"file": ("d.wav", sound)}).json()
    assert answer["dim"] == 64 == len(answer["embedding"])
    assert answer["norm"] == pytest.approx(np.linalg.norm(answer["embedding"]), rel=1e-6)
    assert shelf[0].post("/v1/embeddings/voice", json={}).status_code == 415


WRONG = [
    ({}, 400, "name"),
    ({"name": "x"}, 400, "consent"),
    ({"name": "x", "consent": "given"}, 400, "audio_sample"),
    ({"name": "x", "consent": "given", "speaker_embedding": "[1,2]"}, 400, "speaker_embedding"),
    ({"name": "x", "consent": "given", "speaker_embedding": "[NaN"}, 400, "speaker_embedding"),
    ({"name": "x", "consent": "given", "prompt": "a warm voice"}, 400, "prompt"),
    ({"name": "../x", "consent": "given", "speaker_embedding": "[]"}, 400, "name"),
    ({"name": "x", "consent": "given", "speaker_embedding": "[]", "overwrite": "perhaps"}, 400, "overwrite"),
]


@pytest.mark.parametrize(("fields", "status", "param"), WRONG, ids=[str(row[0])[:50] for row in WRONG])
def test_what_cannot_be_kept(shelf, fields, status, param):
    client, server = shelf
    before = server.voices.library.names
    answer = client.post(
        "/v1/audio/voices", files={key: (None, value) for key, value in fields.items()} or {"x": ("", b"")}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    assert server.voices.library.names == before


def test_names_and_never_paths(shelf, tmp_path, monkeypatch):
    """A path is refused with the words for any unknown name, and nothing is opened, whether there is a file or not."""
    client, server = shelf
    outside = server.voices.library.folder.parent
    Voice(vector(64, 3)).save(outside / "secret.npy")
    opened = []
    original = builtins.open
    monkeypatch.setattr(builtins, "open", lambda file, *a, **k: (opened.append(str(file)), original(file, *a, **k))[1])
    monkeypatch.setattr(io, "open", lambda file, *a, **k: (opened.append(str(file)), original(file, *a, **k))[1])
    for name in [
        *PATHS,
        str(outside / "secret.npy"),
        f'anna*0.5 + "{outside / "secret.npy"}"*0.5',
        "anna + 1*@../secret",
    ]:
        answer = client.post("/v1/audio/speech", json={"input": "Hi.", "voice": name})
        assert answer.status_code == 400, name
        told = answer.json()["error"]["message"].replace(name, "").replace(str(outside / "secret.npy"), "")
        assert str(outside) not in told, name  # but for what the client sent itself
    one, other = (
        client.post("/v1/audio/speech", json={"input": "Hi.", "voice": str(outside / f"{name}.npy")}).json()["error"]
        for name in ("secret", "absent")
    )
    assert one["message"].replace("secret", "absent") == other["message"]
    assert not [file for file in opened if "secret" in file or "passwd" in file]


def test_nobody_speaks_who_refused(shelf):
    client, _ = shelf
    values = json.dumps([float(x) for x in vector(64, 9)])
    assert keep(client, "no", speaker_embedding=values, consent="refused").status_code == 200
    answer = client.post("/v1/audio/speech", json={"input": "Hi.", "voice": "no"})
    assert answer.status_code == 400 and "refused" in answer.json()["error"]["message"]
    blend = client.post("/v1/audio/speech", json={"input": "Hi.", "voice": "no*0.5 + anna*0.5"})
    assert blend.status_code == 400 and "refused" in blend.json()["error"]["message"]
