"""The WebSocket: text that is still being written, spoken as it comes."""

import contextlib
import json

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from mlx_qwen3tts.server import live, written

TEXT = "Hello, the weather is fine today."
CONFIG = {"type": "session.config", "voice": "anna", "seed": 5, "max_new_tokens": 16}


@pytest.fixture
def socket(url):
    with connect(f"{url.replace('http', 'ws')}/v1/audio/speech/stream", proxy=None) as made:
        yield made


def send(socket, *messages):
    for message in messages:
        socket.send(json.dumps(message))


def heard(socket, last="session.done"):
    """(samples, the messages) up to the last one."""
    sound, messages = b"", []
    while not messages or messages[-1]["type"] not in (last, "error"):
        data = socket.recv(timeout=30)
        if isinstance(data, bytes):
            sound += data
        else:
            messages.append(json.loads(data))
    return np.frombuffer(sound, "<i2") / 32768, messages


def test_word_by_word_is_what_it_is_in_one_go(socket, model, library):
    tts = model("base")
    wanted = np.array(tts.generate(TEXT, library["anna"], seed=5, max_tokens=16).audio)
    words = [{"type": "input.text", "text": word} for word in TEXT.replace(" ", " \0").split("\0")]
    for _ in range(2):  # a second one on the same socket
        send(socket, CONFIG, *words, {"type": "input.done"})
        sound, messages = heard(socket)
        kinds = [message["type"] for message in messages]
        assert kinds == ["audio.start", "audio.done", "session.done"], messages
        np.testing.assert_allclose(sound, wanted, atol=2 / 32768)
        assert messages[1]["sentence_text"] == TEXT and messages[2]["total_sentences"] == 1


def test_sound_comes_before_the_text_has_ended(socket):
    send(socket, CONFIG, {"type": "input.text", "text": "Hello, the weather is "})
    assert json.loads(socket.recv(timeout=30))["type"] == "audio.start"
    assert len(socket.recv(timeout=30)) == 3840
    send(socket, {"type": "input.text", "text": "fine today."}, {"type": "input.done"})
    assert heard(socket)[1][-1]["type"] == "session.done"


def test_a_text_that_grows_is_cut_at_sentences(socket, monkeypatch):
    monkeypatch.setattr(written, "LIMIT", 40)
    text = "One two three four five. Six seven eight nine. Ten eleven twelve. The end."
    send(socket, {**CONFIG, "max_new_tokens": 6}, *({"type": "input.text", "text": char} for char in text))
    send(socket, {"type": "input.done"})
    messages = heard(socket)[1]
    spoken = [message["sentence_text"] for message in messages if message["type"] == "audio.done"]
    assert "".join(spoken) == text and len(spoken) == messages[-1]["total_sentences"] == 3


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (["{"], "invalid_value"),
        ([[]], "invalid_type"),
        ([{"type": "input.done"}], "invalid_value"),
        ([{"type": "what"}], "invalid_value"),
        ([{**CONFIG, "voice": 5}], "invalid_type"),
        ([{**CONFIG, "response_format": "xyz"}], "unsupported_value"),
        ([CONFIG, {"type": "input.text", "text": 5}], "invalid_type"),
        ([CONFIG, {"type": "input.text", "text": "a\x00"}], "invalid_value"),
        ([CONFIG, {"type": "input.text", "text": "Hello "}, CONFIG], "invalid_value"),
        ([CONFIG, {"type": "input.text", "text": " "}, {"type": "input.done"}], "invalid_value"),
        (
            [{**CONFIG, "voice": "nobody"}, {"type": "input.text", "text": "Hi."}, {"type": "input.done"}],
            "voice_not_found",
        ),
    ],
)
def test_what_is_wrong_is_said_and_the_socket_closed(socket, messages, code):
    with contextlib.suppress(ConnectionClosed):  # it may be refused before all is sent
        for message in messages:
            socket.send(message if isinstance(message, str) else json.dumps(message))
    last = heard(socket, "error")[1][-1]
    assert last["error"]["code"] == code, last
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=10)
    assert closed.value.rcvd.code == 1008


def test_a_writer_that_stops_is_let_go(socket, served, monkeypatch):
    monkeypatch.setattr(live, "IDLE", 0.2)
    send(socket, CONFIG, {"type": "input.text", "text": "Hello, the weather is "})
    assert "nothing came" in heard(socket, "error")[1][-1]["message"]


def test_closing_in_the_middle_frees_the_row(url, served):
    with connect(f"{url.replace('http', 'ws')}/v1/audio/speech/stream", proxy=None) as socket:
        send(socket, {**CONFIG, "max_new_tokens": 4000}, {"type": "input.text", "text": TEXT}, {"type": "input.done"})
        socket.recv(timeout=30)
    for _ in range(200):
        if not served[1].engine.load:
            return
        served[1].engine.call(lambda: None).result(5)
    raise AssertionError("the row is still taken")
