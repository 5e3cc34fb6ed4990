"""The guard on the server: spoken again before the first sound, ended after it, and told to the client."""

import json

import httpx
import pytest
from websockets.sync.client import connect

from mlx_qwen3tts import Request
from mlx_qwen3tts.server import engine as engines
from mlx_qwen3tts.server.settings import Settings
from tests.dictation import FAULTS, TEXT, dictated

SHORT, INSIDE, LATE = (FAULTS[name][1] for name in ("too short", "silence inside", "silence at the start"))
SAID = {10: SHORT, 20: SHORT, 21: SHORT, 22: SHORT, 30: INSIDE, 40: LATE, 50: INSIDE, 51: INSIDE, 52: INSIDE}
ASK = {"input": TEXT, "voice": "anna", "response_format": "pcm"}


@pytest.fixture(scope="module")
def guarded(model, library, serving):
    """(client, Server) of a server that guards, and whose speech is dictated by its seed."""
    with (
        dictated(model("base"), SAID),
        serving(model("base"), Settings(library=library.folder, guard=True, max_batch=2)) as (url, server),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        assert "silent" in vars(server.tts.planner), "it was found before the first request"
        yield client, server


@pytest.fixture
def speak(guarded, monkeypatch):
    """A function from the seed that is drawn, and fields of a request, to its answer."""

    def ask(drawn, path="/v1/audio/speech", **fields):
        monkeypatch.setattr(engines.secrets, "randbits", lambda bits: drawn)
        return guarded[0].post(path, json={**ASK, **fields})

    return ask


def told(answer, *names):
    return tuple(answer.headers.get(name) for name in names or ("x-guard", "x-seed", "x-finish-reason"))


def last_event(answer):
    return json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))


def test_a_whole_answer_says_how_it_went(speak, guarded):
    before = guarded[1].engine.counts["retries"]
    assert told(speak(5)) == ("passed", "5", "stop")
    again = speak(10)
    assert told(again) == ("passed", "11", "stop") and len(again.content) == 12 * 1920 * 2
    failed = speak(20)
    assert failed.status_code == 200 and told(failed) == ("too_short", "20", "stop")
    assert told(speak(50)) == ("silence_inside", "50", "guard")
    assert guarded[1].engine.counts["retries"] == before + 5
    assert "qwen3tts_retries_total" in guarded[0].get("/metrics").text


def test_it_is_off_where_a_request_says_so_or_fixes_what_it_would_change(speak):
    for fields in ({"guard": False}, {"seed": 20}, {"max_new_tokens": 30}):
        assert told(speak(20, **fields), "x-guard") == (None,)
    refused = speak(20, guard="yes")
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "guard"


def test_a_stream_is_spoken_again_until_it_is_heard(speak):
    late = last_event(speak(40, stream_format="sse"))
    assert (late["guard"], late["seed"]) == ("passed", 41)
    heard = speak(30, stream_format="sse")
    assert (last_event(heard)["guard"], last_event(heard)["seed"]) == ("silence_inside", 30)
    assert told(heard, "x-guard") == ("on",)
    audio = speak(40, stream_format="audio")
    assert told(audio, "x-guard", "x-seed") == ("on", "41")


def test_a_batch_and_a_socket_say_it_too(speak, guarded, monkeypatch):
    results = speak(20, "/v1/audio/speech/batch", items=[{"input": TEXT}]).json()["results"]
    assert [(one["guard"], one["seed"]) for one in results] == [("too_short", 20)]
    monkeypatch.setattr("mlx_qwen3tts.server.written.secrets.randbits", lambda bits: 30)
    url = str(guarded[0].base_url).replace("http", "ws")
    with connect(f"{url}/v1/audio/speech/stream") as socket:
        for message in ({"type": "input.text", "text": TEXT}, {"type": "input.done"}):
            socket.send(json.dumps(message))
        messages = (json.loads(one) for one in socket if isinstance(one, str))
        done = next(one for one in messages if one["type"] == "audio.done")
    assert (done["guard"], done["finish_reason"]) == ("silence_inside", "guard")


@pytest.mark.parametrize("stream", [False, True])
def test_the_rest_of_a_long_text_is_spoken_where_nobody_has_heard_the_fault(guarded, library, stream):
    server, events = guarded[1], []
    finished = engines.threading.Event()

    def deliver(event):
        events.append(event)
        if not hasattr(event, "samples"):
            finished.set()

    pieces = [Request(TEXT, library["anna"], guard=True) for _ in range(2)]
    server.engine.submit(pieces, deliver, stream, seed=50)
    assert finished.wait(60)
    ended = events[-1]
    assert ended.guard == "silence_inside" and ended.finish_reason == ("guard" if stream else "stop")
    assert (ended.frames > 24) != stream
