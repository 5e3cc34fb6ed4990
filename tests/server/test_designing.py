"""A voice from words over HTTP: spoken by a VoiceDesign model beside the one that serves, a frame in turn."""

import socket
import threading

import httpx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import design_voice
from mlx_qwen3tts.errors import UnsupportedValue
from mlx_qwen3tts.server import designing as beside
from mlx_qwen3tts.server.app import Server
from mlx_qwen3tts.server.settings import Settings
from mlx_qwen3tts.synthesis import design

PROMPT = "a warm, low voice"


@pytest.fixture(scope="module")
def designing(model, serving, tmp_path_factory):
    """(client, Server) of a server with a VoiceDesign model, whose sentence is short."""
    folder = tmp_path_factory.mktemp("designed") / "voices"
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(model("base"), Settings(library=folder, max_batch=2), design=model("voice-design")) as (url, server),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        patch.setitem(design.TEXTS, "english", "Hi.")
        server.voices.library.add("anna", vector(64, 0), consent="not-needed")
        yield client, server


def ask(client, name, **fields):
    fields = {"name": name, "prompt": PROMPT, "consent": "not-needed", "seed": "1", **fields}
    return client.post("/v1/audio/voices", files={key: (None, value) for key, value in fields.items()})


def test_a_voice_from_words_is_kept_and_speaks(designing, model):
    client, server = designing
    answer = ask(client, "warm", language="english")
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert made["recipe"]["prompt"] == PROMPT and made["recipe"]["seed"] == 1 and made["language"] == "english"
    assert made["consent"] == "not-needed" and made["dimension"] == 64
    wanted = design_voice(model("voice-design"), model("base"), PROMPT, "english", seed=1).voice
    np.testing.assert_allclose(np.array(server.voices.library["warm"].embedding), np.array(wanted.embedding), atol=1e-4)
    blend = {"input": "Hi.", "voice": "warm*0.5 + anna*0.5", "max_new_tokens": 4}
    assert client.post("/v1/audio/speech", json=blend).status_code == 200


def test_what_is_wrong_is_said_before_a_model_speaks(designing, monkeypatch):
    client, _ = designing
    monkeypatch.setattr(beside, "designing", None)  # nobody gets that far
    taken = ask(client, "anna")
    assert taken.status_code == 409 and taken.json()["error"]["param"] == "name"
    assert taken.headers["x-should-retry"] == "false"
    for wrong in ("-1", "x", "4294967296", "٣"):
        answer = ask(client, "other", seed=wrong)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "seed"), wrong


def test_wrong_words(designing):
    client, server = designing
    for fields, param in (({"prompt": " "}, "prompt"), ({"language": "klingon"}, "language")):
        answer = ask(client, "other", **fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert "other" not in server.voices.library


class Held:
    """A voice whose designing goes on, a step at a time, until it may end."""

    def __init__(self):
        self.begun, self.may_end, self.closed, self.steps = threading.Event(), threading.Event(), threading.Event(), 0
        self.designing = beside.designing

    def __call__(self, *arguments, **options):
        steps = self.designing(*arguments, **options)
        try:
            chunk = next(steps)
            while not self.may_end.is_set():
                self.steps += 1
                yield chunk
                self.begun.set()
            return (yield from steps)
        finally:
            self.closed.set()


@pytest.fixture
def held(monkeypatch):
    made = Held()
    monkeypatch.setattr(beside, "designing", made)
    yield made
    made.may_end.set()


def test_one_at_a_time_and_others_speak_meanwhile(designing, held):
    client, server = designing
    answers = []
    first = threading.Thread(target=lambda: answers.append(ask(client, "one")))
    first.start()
    try:
        assert held.begun.wait(30)
        with httpx.Client(base_url=client.base_url, timeout=60) as other:
            busy = ask(other, "two")
            before = held.steps
            spoken = other.post("/v1/audio/speech", json={"input": "Hi.", "voice": "anna", "max_new_tokens": 12})
        assert spoken.status_code == 200 and server.designer.turn.locked()
        assert held.steps - before > 5  # and it went on between the frames
    finally:
        held.may_end.set()
        first.join(60)
    assert (busy.status_code, busy.json()["error"]["code"]) == (429, "queue_full")
    assert int(busy.headers["retry-after"]) > 0
    assert answers[0].status_code == 200 and "two" not in server.voices.library


def test_a_client_that_leaves_ends_it(designing, held):
    client, server = designing
    fields = {"name": "gone", "prompt": PROMPT, "consent": "not-needed"}
    request = client.build_request("POST", "/v1/audio/voices", files={k: (None, v) for k, v in fields.items()})
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(f"POST /v1/audio/voices HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        assert held.begun.wait(30)
        assert not held.closed.is_set()
    assert held.closed.wait(30)
    held.may_end.set()
    assert ask(client, "next").status_code in (200, 429)  # nothing is stuck
    assert "gone" not in server.voices.library


def test_models_of_another_kind_are_refused(model, tmp_path):
    settings = Settings(library=tmp_path / "voices")
    with pytest.raises(UnsupportedValue, match="--design base: a base model; give a VoiceDesign one"):
        Server(model("base"), settings, design=model("base"))
    with pytest.raises(UnsupportedValue, match="no speaker encoder"):
        Server(model("custom-voice"), settings, design=model("voice-design"))


def test_serve_refuses_them_too(refused, checkpoint):
    line = ["serve", "--model", checkpoint("base"), "--port", "0", "--dtype", "float32"]
    assert "--design base: a base model" in refused(*line, "--design", checkpoint("base"))
