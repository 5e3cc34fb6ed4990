"""A library as one zip over HTTP: out and in again, and what somebody who means harm would send."""

import io
import json
import struct
import tracemalloc
import zipfile

import httpx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Library
from mlx_qwen3tts.server import exchange, speaking
from mlx_qwen3tts.server import shelf as routes
from mlx_qwen3tts.server.settings import Settings
from mlx_qwen3tts.voices.library import archive
from tests.server.test_hostile import JSON, VALUES, check


@pytest.fixture(scope="module")
def open_shelf(model, library, serving, tmp_path_factory):
    """A client of a server with a library of its own, which is `library` to begin with, and the Server."""
    folder = tmp_path_factory.mktemp("exchange") / "voices"
    with (
        serving(model("base"), Settings(library=folder, max_batch=2)) as (url, server),
        httpx.Client(base_url=url) as client,
    ):
        yield client, server


@pytest.fixture
def shop(open_shelf, library):
    client, server = open_shelf
    for name in server.voices.library:
        server.voices.library.remove(name)
    for name in library:
        server.voices.library.add(name, library[name])
    return client, server.voices.library


def npy(seed=0):
    file = io.BytesIO()
    np.save(file, vector(64, seed))
    return file.getvalue()


def zipped(*entries, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, content in entries:
            made.writestr(name, content)
    return file.getvalue()


def send(client, data, **fields):
    files = {"archive": ("voices.zip", data), **{key: (None, value) for key, value in fields.items()}}
    return client.post("/v1/audio/voices/import", files=files)


def test_out_and_in_again(shop, tmp_path):
    client, library = shop
    library.tag("anna", mood="calm", license="CC0-1.0")
    answer = client.post("/v1/audio/voices/export", json={})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    (tmp_path / "all.zip").write_bytes(answer.content)
    other = Library(tmp_path / "other")
    assert other.import_zip(tmp_path / "all.zip") == ["anna", "ben", "cleo"], "the command's own format"
    before = library["anna"]
    taken = send(client, answer.content)
    assert taken.status_code == 409 and taken.json()["error"]["param"] == "overwrite"
    assert send(client, answer.content, overwrite="true").json()["voices"] == ["anna", "ben", "cleo"]
    for name in ("anna", "ben"):
        library.remove(name)
    some = client.post("/v1/audio/voices/export", json={"voices": ["cleo", "cleo"]})
    assert zipfile.ZipFile(io.BytesIO(some.content)).namelist() == ["cleo.safetensors"]
    assert send(client, answer.content, overwrite="true").status_code == 200
    assert library["anna"] == before and library["anna"].attributes["mood"] == "calm"
    listed = {one["name"]: one for one in client.get("/v1/audio/voices").json()["data"]}
    assert listed["anna"]["license"] == "CC0-1.0"


@pytest.mark.parametrize(
    "body", [{"voices": ["nobody"]}, {"voices": "anna"}, {"voices": [5]}, {"voices": ["../anna"]}, {"voices": []}]
)
def test_what_cannot_be_exported(shop, body):
    answer = shop[0].post("/v1/audio/voices/export", json=body)
    assert answer.status_code == 400 and str(shop[1].folder) not in answer.text


def test_no_more_is_exported_at_once_than_is_kept(shop, monkeypatch):
    monkeypatch.setattr(exchange, "MOST_VOICES", 2)
    answer = shop[0].post("/v1/audio/voices/export", json={})
    assert answer.status_code == 400 and "voices export" in answer.json()["error"]["message"]
    assert shop[0].post("/v1/audio/voices/export", json={"voices": ["anna", "ben"]}).status_code == 200


def linked():
    """An archive with a symbolic link that points at a file of ours."""
    member = zipfile.ZipInfo("dora.json")
    member.external_attr = 0o120777 << 16
    return zipped((member, "[1.0]"))


def lying():
    """An archive whose list says that a large file is small."""
    data = bytearray(zipped(("dora.npy", npy() + bytes(1 << 20))))
    struct.pack_into("<L", data, data.rindex(exchange.ENTRY) + 24, len(npy()))
    return bytes(data)


def locked():
    data = bytearray(zipped(("dora.npy", npy())))
    data[6] |= 1
    data[data.rindex(exchange.ENTRY) + 8] |= 1
    return bytes(data)


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([print], object), allow_pickle=True)
    return file.getvalue()


ATTACKS = {
    "nothing": b"",
    "not a zip": b"x" * 1000,
    "cut": zipped(("dora.npy", npy()))[:-30],
    "out of the folder": zipped(("../dora.npy", npy())),
    "absolute": zipped(("/tmp/dora.npy", npy())),
    "backslash": zipped(("..\\dora.npy", npy())),
    "drive": zipped(("C:dora.npy", npy())),
    "nested": zipped(("directions/deep/dora.npy", npy())),
    "zip in zip": zipped(("inner.zip", zipped(("dora.npy", npy())))),
    "link": linked(),
    "the same name twice": zipped(("dora.npy", npy()), ("dora.json", "[1.0]")),
    "the same name in another case": zipped(("dora.npy", npy()), ("Dora.npy", npy(1))),
    "a name of the library in another case": zipped(("Anna.npy", npy())),
    "two spaces": zipped(("space.safetensors", b""), ("./space.safetensors", b"")),
    "device": zipped(("NUL.npy", npy())),
    "pickle": zipped(("dora.pt", b"\x80\x04N.")),
    "pickle in numpy": zipped(("dora.npy", pickled())),
    "pickle renamed": zipped(("dora.safetensors", b"\x80\x04N.")),
    "not a number": zipped(("dora.json", "[NaN, 1e400]")),
    "deep": zipped(("dora.json", "[" * 500_000)),
    "header that is too long": zipped(("dora.safetensors", struct.pack("<Q", 1 << 60) + b"{}")),
    "password": locked(),
    "list that lies": lying(),
    "packed otherwise": zipped(("dora.npy", npy()), method=zipfile.ZIP_LZMA),
    "too large a file": zipped(("dora.npy", npy() + np.random.default_rng(0).bytes(2 << 20))),
    "ratio": zipped(*((f"v{i}.npy", npy() + bytes(1_000_000)) for i in range(9))),
    "one bad among good": zipped(("dora.npy", npy()), ("eve.npy", b"no")),
    "no voice": zipped(("__MACOSX/x", b"")),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_does_not_belong_in_a_library(shop, attack):
    client, library = shop
    files = sorted(library.folder.parent.rglob("*"))
    answer = send(client, ATTACKS[attack], overwrite="true")
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["message"], answer.text
    assert str(library.folder) not in answer.text and "/tmp" not in error["message"].replace("/tmp/dora.npy", "")
    assert [path for path in sorted(library.folder.parent.rglob("*")) if path not in files] == []
    assert client.post("/v1/audio/voices/search", json={"voice": "anna", "k": 1}).status_code == 200


def test_a_bomb_is_refused_before_anything_is_unpacked(shop, monkeypatch):
    """Ten megabytes that would unpack to ten gigabytes, and a list of contents that has a hundred thousand entries."""
    client, _ = shop
    bomb = bytearray(zipped(("dora.npy", npy() + np.random.default_rng(0).bytes(8 << 20))))
    struct.pack_into("<L", bomb, bomb.rindex(exchange.ENTRY) + 24, 0xFFFFFFF0)
    many = zipped(*((f"{i}", b"") for i in range(3)))
    monkeypatch.setattr(archive.zipfile.ZipFile, "open", lambda *_: pytest.fail("it was unpacked"))
    assert "too many for a voice" in send(client, bytes(bomb)).json()["error"]["message"]
    entry = many[many.index(exchange.ENTRY) : many.index(exchange.ENTRY) + 47]
    full = many[: many.index(exchange.ENTRY)] + entry * 100_000
    full += b"PK\x05\x06" + struct.pack(
        "<4H2LH", 0, 0, 65535, 65535, len(entry) * 100_000, many.index(exchange.ENTRY), 0
    )
    monkeypatch.setattr(archive.zipfile, "ZipFile", lambda *_: pytest.fail("its list was read"))
    assert "more than 2000 files" in send(client, full).json()["error"]["message"]


def test_totals_are_bounded(shop, monkeypatch):
    client, library = shop
    monkeypatch.setattr(exchange, "LIMITS", archive.Limits(files=10, one=10_000, total=1000, methods=(8,)))
    answer = send(client, zipped(*((f"v{i}.npy", npy(i)) for i in range(3))))
    assert "would unpack to" in answer.json()["error"]["message"]
    monkeypatch.undo()
    monkeypatch.setattr(exchange, "MOST_VOICES", 4)
    answer = send(client, zipped(("v0.npy", npy()), ("v1.npy", npy(1))))
    assert "more than 4 voices" in answer.json()["error"]["message"] and len(library) == 3
    assert send(client, zipped(("v0.npy", npy()), ("anna.npy", npy(1))), overwrite="true").status_code == 200
    assert len(library) == 4
    large = send(client, bytes(routes.MOST_UPLOAD + 1))
    assert large.status_code == 413


def test_others_are_served_while_it_is_unpacked(open_shelf, shop, monkeypatch):
    """Each file takes a turn of its own; what comes between two of them is done between them."""
    client, library = shop
    engine, order = open_shelf[1].engine, []
    unpack = archive.Packed.steps

    def steps(self, *given):
        for number, _ in enumerate(unpack(self, *given)):
            order.append(number)
            engine.call(lambda: order.append("other"))
            yield

    monkeypatch.setattr(archive.Packed, "steps", steps)
    monkeypatch.setattr(speaking, "TURN", 0)
    assert send(client, zipped(*((f"v{i}.npy", npy(i)) for i in range(4)))).status_code == 200
    assert order == [0, "other", 1, "other", 2, "other", 3, "other"] and "v3" in library


def test_only_a_form_of_ours(shop):
    client, _ = shop
    data = zipped(("dora.npy", npy()))
    assert client.post("/v1/audio/voices/import", json={}).status_code == 415
    foreign = {"origin": "http://evil.example"}
    assert client.post("/v1/audio/voices/import", files={"archive": data}, headers=foreign).status_code == 403
    assert (
        client.post("/v1/audio/voices/export", content="{}", headers={"content-type": "text/plain"}).status_code == 415
    )
    assert send(client, data, overwrite="perhaps").status_code == 400
    assert client.post("/v1/audio/voices/import", files={"overwrite": (None, "true")}).status_code == 400


CHANGES = [
    ({"consent": "perhaps"}, "consent"),
    ({"consent": None}, "consent"),
    ({"license": "x" * 201}, "license"),
    ({"license": "\ud800"}, "license"),
    ({"name": "other"}, "name"),
    ({"attributes": 5}, "attributes"),
    ({"attributes": {"": "x"}}, "attributes"),
    ({"attributes": {" a": "x"}}, "attributes"),
    ({"attributes": {"a=b": "x"}}, "attributes"),
    ({"attributes": {"a\nb": "x"}}, "attributes"),
    ({"attributes": {"consent": "given"}}, "attributes"),
    ({"attributes": {"name": "x"}}, "attributes"),
    ({"attributes": {"voice": None}}, "attributes"),
    ({"attributes": {"a": 5}}, "attributes"),
    ({"attributes": {"a": "x" * 201}}, "attributes"),
    ({"attributes": {f"a{i}": "" for i in range(33)}}, "attributes"),
]


def patch(client, name, body):
    content = json.dumps(body)
    return client.patch(f"/v1/audio/voices/{name}", content=content, headers={"content-type": "application/json"})


def test_what_is_said_of_a_voice_can_be_changed(shop):
    client, library = shop
    vector_before = np.array(library["anna"].embedding)
    said = {"consent": "given", "license": "CC-BY-4.0", "attributes": {"mood": "calm", "warm": "", "gender": None}}
    answer = patch(client, "anna", said)
    assert answer.status_code == 200 and answer.json()["attributes"] == {"mood": "calm", "warm": ""}
    assert (answer.json()["consent"], answer.json()["license"]) == ("given", "CC-BY-4.0")
    assert patch(client, "anna", {"license": None, "attributes": {"warm": None}}).json()["attributes"] == {
        "mood": "calm"
    }
    kept = library["anna"]
    assert kept.license is None and kept.consent == "given" and np.array_equal(np.array(kept.embedding), vector_before)
    np.save(library.folder / "plain.npy", vector(64, 5))  # a file that can hold no tags
    assert patch(client, "plain", {"attributes": {"mood": "calm"}}).status_code == 200
    assert library.path("plain").name == "plain.safetensors" and not (library.folder / "plain.npy").exists()
    assert patch(client, "nobody", {}).status_code == 404
    assert client.patch("/v1/audio/voices/anna", content="{}").status_code == 415


@pytest.mark.parametrize(("body", "param"), CHANGES, ids=[json.dumps(body)[:40] for body, _ in CHANGES])
def test_what_cannot_be_said_of_a_voice(shop, body, param):
    client, library = shop
    before = library.path("anna").read_bytes()
    answer = patch(client, "anna", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert library.path("anna").read_bytes() == before


def test_any_value_in_any_field(shop):
    for value in VALUES:
        check(shop[0].post("/v1/audio/voices/export", content=json.dumps({"voices": [value]}), headers=JSON))
        for body in (value, {"attributes": {"mood": value}}, {"attributes": {str(value): ""}}, {"language": value}):
            check(patch(shop[0], "anna", body))


def test_a_blend_stays_as_strict_as_those_it_is_made_of(shop):
    client, library = shop
    library.tag("anna", consent="refused")
    client.post("/v1/audio/voices/combine", json={"expression": "anna + ben", "name": "both"})
    answer = patch(client, "both", {"consent": "given"})
    assert answer.status_code == 400 and "laxer" in answer.json()["error"]["message"]
    again = client.post("/v1/audio/voices/combine", json={"expression": "anna + ben", "name": "both"})
    assert again.status_code == 409 and str(library.folder) not in again.text


def test_who_refused_afterwards_is_not_spoken(shop):
    client, _ = shop
    speak = {"input": "Hi.", "voice": "ben", "max_new_tokens": 2, "response_format": "pcm"}
    assert client.post("/v1/audio/speech", json=speak).status_code == 200
    assert patch(client, "ben", {"consent": "refused"}).status_code == 200
    for body in (speak, {**speak, "voice": "anna + ben"}, {**speak, "voice": "anna", "morph_to": "ben"}):
        answer = client.post("/v1/audio/speech", json=body)
        assert answer.status_code == 400 and "refused" in answer.json()["error"]["message"], body
    del speak["voice"]
    patch(client, "anna", {"consent": "refused"})
    assert client.post("/v1/audio/speech", json=speak).status_code == 200, "the next one speaks where nobody is named"


def test_memory_stays_small(shop):
    tracemalloc.start()
    try:
        send(shop[0], ATTACKS["ratio"])
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
