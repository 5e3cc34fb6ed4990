"""What the server's sound says of where it comes from: tags, headers, and the mark where its owner wants one."""

import base64
import json
from dataclasses import replace

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from mlx_qwen3tts.audio.formats import CONTENT_TYPES
from mlx_qwen3tts.audio.tag_reading import read_tags
from mlx_qwen3tts.audio.watermark import mark
from mlx_qwen3tts.provenance.origin import Origin, read_comment
from mlx_qwen3tts.provenance.seal import Seal
from mlx_qwen3tts.serve import build_parser, settings
from mlx_qwen3tts.server.settings import Settings

ASK = {"input": "Hello, the weather is fine today.", "voice": "anna", "seed": 5, "max_new_tokens": 4}
SPEECH = "/v1/audio/speech"


@pytest.fixture
def said(tmp_path):
    """What the tags of some bytes say, None where there are none."""

    def read(data):
        (tmp_path / "heard").write_bytes(data)
        return read_comment(read_tags(tmp_path / "heard").get("comment", ""))

    return read


@pytest.fixture
def brief(model, monkeypatch):
    """Speech ends soon where nobody says when."""
    planner = model("base").planner
    monkeypatch.setattr(planner, "sampling", replace(planner.sampling, max_tokens=5))


def first_bytes(client, **more):
    """(the headers, the bytes that come first) of a stream."""
    with client.stream("POST", SPEECH, json={**ASK, **more}) as answer:
        return answer.headers, next(answer.iter_raw())


@pytest.mark.parametrize("kind", CONTENT_TYPES)
def test_every_answer_has_them(client, said, kind):
    whole = client.post(SPEECH, json={**ASK, "response_format": kind})
    headers, data = first_bytes(client, response_format=kind, stream_format="audio")
    for told, sound in ((whole.headers, whole.content), (headers, data)):
        origin = Origin.from_header(told["x-origin"])
        assert (origin.seed, origin.text, origin.voices[0].voice) == (5, None, "anna") and "x-mark" not in told
        assert origin.voices[0].consent == "not-needed"
        if kind == "pcm":
            assert said(sound) is None
        else:
            assert said(sound) == read_comment(origin.tags().comment)


def test_equal_requests_give_equal_bytes(client):
    for kind in ("wav", "mp3", "flac", "aac"):
        one, other = (client.post(SPEECH, json={**ASK, "response_format": kind}) for _ in range(2))
        assert one.content == other.content


def test_the_other_ways(client, url, said, brief):
    ask = {**ASK, "response_format": "wav"}
    answer = client.post(SPEECH, json={**ask, "stream_format": "sse"})
    delta = json.loads(next(line for line in answer.text.splitlines() if "delta" in line and "data:" in line)[6:])
    assert said(base64.b64decode(delta["audio"]))["seed"] == 5
    [item] = client.post(f"{SPEECH}/batch", json={**ask, "items": [{}]}).json()["results"]
    assert said(base64.b64decode(item["audio_data"]))["voices"][0]["voice"] == "anna"
    morph = client.post(SPEECH, json={**ask, "morph_to": "ben"})
    assert [one["voice"] for one in said(morph.content)["voices"]] == ["anna", "ben"]
    steered = client.post(SPEECH, json={**ask, "steering": [{"frame": 2, "voice": "cleo"}]})
    assert [one["voice"] for one in said(steered.content)["voices"]] == ["anna", "cleo"]
    guarded = {**ask, "seed": None, "max_new_tokens": None, "guard": True, "input": "Hi.", "stream_format": "audio"}
    with client.stream("POST", SPEECH, json=guarded) as stream:
        assert said(next(stream.iter_raw()))["seed"] == int(stream.headers["x-seed"])
    script = {"input": "Hello.\n\nBEN: Hi.", "voices": {"narrator": "anna"}, "response_format": "wav", "seed": 3}
    with client.stream("POST", "/v1/audio/scripts/speech", json=script) as stream:
        told = said(next(stream.iter_raw()))
        assert [one["voice"] for one in told["voices"]] == ["anna", "ben"] and told["seed"] == 3
        assert Origin.from_header(stream.headers["x-origin"]).seed == 3
    with connect(f"{url.replace('http', 'ws')}{SPEECH}/stream") as socket:
        config = {key: value for key, value in ask.items() if key != "input"}
        for message in (
            {"type": "session.config", **config},
            {"type": "input.text", "text": "Hi."},
            {"type": "input.done"},
        ):
            socket.send(json.dumps(message))
        data = next(message for message in socket if isinstance(message, bytes))
        assert said(data)["seed"] == 5


# A server whose owner wants more


@pytest.fixture(scope="module")
def marking(model, library, serving):
    """A client of a server that marks what it speaks and writes down the text."""
    seal = Seal("own", text=True)
    settings = Settings(library=library.folder, max_batch=2, seal=seal)
    with serving(model("base"), settings) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_a_server_marks_whole_and_streamed(marking, client, said):
    ask = {**ASK, "response_format": "pcm"}
    whole = marking.post(SPEECH, json=ask)
    assert whole.headers["x-mark"] == "on" and "own" not in whole.headers["x-origin"]
    with marking.stream("POST", SPEECH, json={**ask, "stream_format": "audio"}) as stream:
        pieces = list(stream.iter_raw())
    plain = client.post(SPEECH, json=ask).content
    wanted = mark(np.frombuffer(plain, "<i2").astype(np.float32) / 32768, "own", 24000)
    for data in (whole.content, b"".join(pieces)):
        np.testing.assert_allclose(np.frombuffer(data, "<i2") / 32768, wanted, atol=3 / 32768)
    assert plain != whole.content
    # A frame is 80 ms, and of the first one all but what the marker looks ahead comes at once.
    assert len(pieces[0]) >= 2 * (1920 - 0.04 * 24000)
    told = said(marking.post(SPEECH, json={**ASK, "response_format": "mp3"}).content)
    assert told["text"] == ASK["input"]


def test_say_tells_what_the_server_told(marking, command, tmp_path, brief):
    url = str(marking.base_url)
    ran = command(
        "say", "--server", url, "-v", "anna", "--seed", "1", "-o", "a.wav", "--mark", "-r", "88", "Hello there."
    )
    assert ran.status == 0, ran.err
    [told] = read_comment(read_tags(tmp_path / "a.wav")["comment"])["voices"]
    assert (told["voice"], told["consent"]) == ("anna", "not-needed")


def test_the_options_of_serve(monkeypatch, refused):
    def seal(*options):
        return settings(build_parser().parse_args(list(options))).seal

    assert seal() == Seal() and seal("--mark", "k", "--tag-text") == Seal("k", text=True)
    monkeypatch.setenv("QWEN3TTS_MARK", "yes")
    assert seal() == Seal("mlx_qwen3tts") and seal("--no-mark") == Seal() and seal("--mark=k") == Seal("k")
    assert "which has no spaces" in refused("serve", "--mark", "two words")
