"""Scripts over HTTP: read with their cast, and spoken as one sound."""

import io

import httpx
import numpy as np
import pytest
import soundfile

from mlx_qwen3tts.audio.reference import trimmed
from mlx_qwen3tts.server.settings import Settings

PLAY = "# One\n\nHello. [pause: 1s] You.\n\nANNA: [rate: 0.8] Hello.\n\nThe Man: No.\n"


def ask(client, **body):
    return client.post("/v1/audio/scripts", json=body)


def test_a_script_is_read(client):
    body = ask(client, input=PLAY, voices={"the man": {"voice": "ben*0.5 + cleo*0.5", "rate": 1.5}}).json()
    assert [(one["name"], one["voice"], one["pieces"], one["error"]) for one in body["cast"]] == [
        ("narrator", "anna", 3, None),
        ("ANNA", "anna", 1, None),
        ("The Man", "ben*0.5 + cleo*0.5", 1, None),
    ]
    assert [(line["line"], line["name"], line["heading"], len(line["pieces"])) for line in body["lines"]] == [
        (1, None, 1, 1),
        (3, None, 0, 2),
        (5, "ANNA", 0, 1),
        (7, "The Man", 0, 1),
    ]
    pieces = [piece for line in body["lines"] for piece in line["pieces"]]
    assert [piece["rate"] for piece in pieces] == [1, 1, 1, 0.8, 1.5]
    assert [piece["pause"] for piece in pieces] == [0, 1.0, 1.0, 0.6, 0.6]
    assert len({piece["seed"] for piece in pieces}) == 5 and body["doubts"] == []
    seeds = {pieces[1]["key"]: 7}
    again = ask(client, input=PLAY, voices={"the man": "ben"}, seeds=seeds).json()["lines"][1]["pieces"][0]
    assert again["seed"] == 7


def test_who_has_no_voice_is_told(client):
    body = ask(client, input="Hi [laughs].\n\nCARL: Hello.\n\nANNA: [voice: dora] Hello.").json()
    assert [one["error"] is None for one in body["cast"]] == [True, False, True]
    assert "'CARL' is not a library voice" in body["cast"][1]["error"]
    assert [line["pieces"][0]["error"] is None for line in body["lines"]] == [True, False, False]
    assert [(one["line"], one["doubt"]) for one in body["doubts"]] == [(1, "'[laughs]' is read out: it is not a tag")]
    [one] = ask(client, input=f"[voice: {'a+' * 2001}] Hi.").json()["lines"]
    assert one["pieces"][0]["error"] == "a voice of 4002 characters; at most 4000 are taken"
    answer = client.post("/v1/audio/scripts/speech", json={"input": "Hi.\n\nCARL: Hello."})
    assert answer.status_code == 400 and answer.json()["error"]["message"].startswith("line 3: voice 'CARL' is not")


def test_names_are_names(client, library):
    """Nothing is opened as a path, whether it is there or not."""
    there = str(library.folder / "anna.safetensors")
    for voice in (there, "/no/such.safetensors"):
        [one] = ask(client, input="BEN: Hi.", voices={"BEN": voice}).json()["cast"]
        assert (
            one["error"]
            == f"voice {voice!r} is not a library voice or a preset of this model; library voices: anna, ben, cleo"
        )


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({}, "input is missing", "input"),
        ({"input": "a", "kind": "epub"}, "kind 'epub' is not text or markdown or json", "kind"),
        ({"input": "a", "voices": []}, "not an object of names and voices", "voices"),
        ({"input": "a", "voices": {"A": "anna", "a": "ben"}}, "'a' twice", "voices"),
        ({"input": "a", "voices": {str(i): "anna" for i in range(201)}}, "201 names; at most 200", "voices"),
        ({"input": "a", "voices": {"A": "a+" * 2001}}, "A has 4002 characters; at most 4000", "voices"),
        ({"input": "a", "voices": {"A": {"instruct": "a" * 501}}}, "A has 501 characters; at most 500", "voices"),
        ({"input": "a", "seeds": {"x": -1}}, "seeds must be an object", "seeds"),
        ({"input": "a", "seed": 2**32}, "seed 4294967296 is not within", "seed"),
        ({"input": "a" * 1001}, "1001 characters; this server takes 1000", "input"),
    ],
)
def test_what_is_refused(shelf, monkeypatch, body, message, param):
    client, server = shelf
    monkeypatch.setattr(server, "settings", Settings(library=server.settings.library, max_characters=1000))
    for path in ("/v1/audio/scripts", "/v1/audio/scripts/speech"):
        answer = client.post(path, json=body)
        error = answer.json()["error"]
        assert answer.status_code == 400 and message in error["message"] and error["param"] == param, error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": " "}, "has nothing to speak"),
        ({"input": "[pause: 1s three"}, "line 1: the tag [pause: 1s three is not closed"),
        ({"input": "{", "kind": "json"}, "the script is not JSON"),
        ({"input": "\n\n".join(f"Name {i}: Hi." for i in range(400))}, "more than 200 voices are named"),
    ],
)
def test_a_script_that_cannot_be_read(client, body, message):
    answer = ask(client, **body)
    assert answer.status_code == 200 and message in answer.json()["error"]["message"] and not answer.json()["lines"]
    answer = client.post("/v1/audio/scripts/speech", json=body)
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]


def test_a_script_is_spoken(speaking_url):
    """Piece by piece what /v1/audio/speech says to each, with the pauses between."""
    script = {"input": "Hello. [pause: 1s] You.\n\nVOICE02: [rate: 0.8] Hello.", "seeds": {}}
    with httpx.Client(base_url=speaking_url, timeout=60) as client:
        read = client.post("/v1/audio/scripts", json=script).json()
        pieces = [piece for line in read["lines"] for piece in line["pieces"]]
        script["seeds"] = {pieces[1]["key"]: 5}
        found = client.post("/v1/audio/scripts/speech", json={**script, "response_format": "wav"})
        assert found.status_code == 200 and found.headers["content-type"] == "audio/wav"
        whole, rate = soundfile.read(io.BytesIO(found.content), dtype="float32")
        expected = []
        for piece in pieces:
            asked = {"input": piece["text"], "voice": piece["voice"], "rate": piece["rate"], "text_mode": "full"}
            asked |= {"seed": script["seeds"].get(piece["key"], piece["seed"]), "response_format": "wav"}
            one, _ = soundfile.read(io.BytesIO(client.post("/v1/audio/speech", json=asked).content), dtype="float32")
            expected += [np.zeros(round(piece["pause"] * rate), np.float32), trimmed(one, rate)]
        assert [piece["pause"] for piece in pieces] == [0, 1, 0.6]
        np.testing.assert_allclose(whole, np.concatenate(expected), atol=1e-4)
        mp3 = client.post("/v1/audio/scripts/speech", json=script)
        assert mp3.headers["content-type"] == "audio/mpeg"
        assert abs(soundfile.read(io.BytesIO(mp3.content))[0].size - whole.size) < 3000
