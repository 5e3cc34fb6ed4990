"""POST /v1/audio/speech: every field, every format, every way to hear it; and what is wrong is said once, clearly."""

import base64
import io
import json
import re
import sys

import av
import numpy as np
import pytest
import soundfile

from mlx_qwen3tts.audio.reading import resample
from mlx_qwen3tts.audio.stretch import stretched
from mlx_qwen3tts.server.asking import MODEL_ALIASES

SHORT = {"input": "Hello, the weather is fine today.", "voice": "anna", "seed": 5, "max_new_tokens": 11}


def decoded(data):
    """Samples [n] and rate of any sound file."""
    with av.open(io.BytesIO(data)) as container:
        rate = container.streams.audio[0].rate
        parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    sound = np.concatenate(parts)
    return (sound / 32768 if sound.dtype == np.int16 else sound).astype(np.float32), rate


@pytest.fixture(scope="module")
def alone(model, library):
    """What the same request gives in Python."""
    tts = model("base")
    return np.array(tts.generate(SHORT["input"], library["anna"], seed=5, max_tokens=11).audio)


def test_a_whole_wav_is_what_generate_writes(client, alone):
    answer = client.post("/v1/audio/speech", json={**SHORT, "response_format": "wav"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav"
    assert answer.headers["x-seed"] == "5" and answer.headers["x-finish-reason"] == "length"
    samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    assert rate == 24000
    np.testing.assert_allclose(samples, alone, atol=2 / 32768)


def test_mp3_unless_something_else_is_asked_for(client):
    answer = client.post("/v1/audio/speech", json=SHORT)
    assert answer.headers["content-type"] == "audio/mpeg" and int(answer.headers["content-length"]) == len(
        answer.content
    )


@pytest.mark.parametrize("way", ["audio", "sse"])
@pytest.mark.parametrize("kind", ["pcm", "wav", "flac", "mp3", "opus", "aac"])
def test_every_format_flows(client, alone, kind, way):
    parts = []
    with client.stream(
        "POST", "/v1/audio/speech", json={**SHORT, "response_format": kind, "stream_format": way}
    ) as answer:
        assert answer.status_code == 200
        if way == "audio":
            parts = list(answer.iter_bytes())
            waited = re.fullmatch(r"first-sound;dur=(\d+\.\d)", answer.headers["server-timing"])
            assert waited and 0 < float(waited[1]) < 60_000
        else:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
            parts = [base64.b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta"]
            assert events[-1]["type"] == "speech.audio.done" and events[-1]["usage"]["output_tokens"] == 10
    data = b"".join(parts)
    if kind == "pcm":
        sound, rate = np.frombuffer(data, "<i2") / 32768, 24000
    else:
        sound, rate = decoded(data)
    if kind in ("pcm", "wav", "flac"):
        assert rate == 24000 and len(parts) > (2 if kind != "flac" else 1)
        np.testing.assert_allclose(sound, alone, atol=2 / 32768)
    else:
        assert abs(len(sound) / rate - len(alone) / 24000) < 0.12
    if kind == "opus":
        assert data.startswith(b"OggS")


FASTER = [({"speed": 1.5}, kind, stream) for kind in ("pcm", "wav") for stream in (None, "audio", "sse")]
OTHERS = [({"rate": 0.8}, "pcm", "audio"), ({"speed": 0.25}, "wav", "audio"), ({"sample_rate": 16000}, "wav", None)]


@pytest.mark.parametrize(("how", "kind", "stream"), [*FASTER, *OTHERS, ({"sample_rate": 16000}, "pcm", "audio")])
def test_speed_and_sample_rate(client, alone, kind, how, stream):
    """Streamed and whole they are what the whole speech becomes by the same steps."""
    body = {**SHORT, "response_format": kind, **how, **({"stream_format": stream} if stream else {})}
    answer = client.post("/v1/audio/speech", json=body)
    assert answer.status_code == 200 and "x-ignored" not in answer.headers
    data = answer.content
    if stream == "sse":
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        data = b"".join(base64.b64decode(event["audio"]) for event in events if "audio" in event)
    rate = how.get("sample_rate", 24000)
    assert answer.headers["x-sample-rate"] == str(rate)
    if kind == "wav":
        assert int.from_bytes(data[24:28], "little") == rate
        data = data[data.index(b"data") + 8 :]
    elif stream != "sse":
        assert answer.headers["content-type"] == f"audio/pcm;rate={rate};channels=1"
    sound = np.frombuffer(data, "<i2") / 32768
    speed = how.get("speed", how.get("rate", 1))
    wanted = resample(alone if speed == 1 else stretched(alone, 24000, speed), 24000, rate)
    assert abs(sound.size - wanted.size) <= (1 if rate != 24000 else 0)
    size = min(sound.size, wanted.size)
    assert np.sqrt(np.mean((sound[:size] - wanted[:size]) ** 2)) < 0.01 * np.sqrt(np.mean(wanted**2))


def test_a_sample_rate_that_a_format_does_not_have(client):
    wrong = {**SHORT, "response_format": "mp3", "sample_rate": 10000}
    answer = client.post("/v1/audio/speech", json=wrong)
    error = answer.json()["error"]
    assert answer.status_code == 400 and (error["code"], error["param"]) == ("unsupported_value", "sample_rate")
    items = [{"sample_rate": 10000}, {"sample_rate": 16000}]
    answer = client.post("/v1/audio/speech/batch", json={**SHORT, "items": items, "max_new_tokens": 4}).json()
    assert [row["status"] for row in answer["results"]] == ["error", "success"]


def test_aac_needs_an_extra(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    answer = client.post("/v1/audio/speech", json={**SHORT, "response_format": "aac"})
    assert answer.status_code == 400 and "mlx-qwen3tts[av]" in answer.json()["error"]["message"]


def test_models_that_clients_ask_for_without_asking(client):
    for name in (*MODEL_ALIASES, None, ""):
        answer = client.post("/v1/audio/speech", json={**SHORT, "model": name, "max_new_tokens": 3})
        assert answer.status_code == 200


def test_voices_of_every_kind(client, library):
    def heard(**more):
        answer = client.post("/v1/audio/speech", json={**SHORT, "response_format": "pcm", **more})
        assert answer.status_code == 200, answer.text
        return answer.content

    anna, ben = heard(), heard(voice="ben")
    assert anna != ben
    assert heard(voice={"id": "ben"}) == ben and heard(voice=None, speaker="ben") == ben
    assert heard(voice="default") == anna  # the first of the library
    vector = [float(x) for x in np.array(library["ben"].embedding)]
    answer = client.post(
        "/v1/audio/speech", json={**SHORT, "response_format": "pcm", "speaker_embedding": vector, "voice": "alloy"}
    )
    assert answer.content == ben and "x-ignored" not in answer.headers
    halves = heard(voice="anna*0.5 + ben*0.5")
    assert halves not in (anna, ben)
    assert heard(voice="alloy") == anna  # OpenAI's names, spread over the library


def test_what_is_not_understood_is_named(client):
    more = {"volume_multiplier": 2, "instructions": "softly", "frobnicate": 1, "lang_code": "a", "speed": 1}
    answer = client.post("/v1/audio/speech", json={**SHORT, **more})
    assert answer.status_code == 200
    assert answer.headers["x-ignored"] == "frobnicate, instructions, volume_multiplier"


WRONG = [
    ({"input": None}, 400, "invalid_value", "input"),
    ({"input": "  "}, 400, "invalid_value", "input"),
    ({"input": 5}, 400, "invalid_type", "input"),
    ({"input": "x" * 200_000}, 400, "text_too_long", "input"),
    ({"model": "whisper-1"}, 404, "model_not_found", "model"),
    ({"voice": "nobody"}, 400, "voice_not_found", "voice"),
    ({"voice": ""}, 400, "invalid_value", "voice"),
    ({"voice": 5}, 400, "invalid_type", "voice"),
    ({"voice": "anna*0.5 + "}, 400, "invalid_expression", "voice"),
    ({"response_format": "xyz"}, 400, "unsupported_value", "response_format"),
    ({"speed": 9}, 400, "invalid_value", "speed"),
    ({"speed": "fast"}, 400, "invalid_type", "speed"),
    ({"speed": float("nan")}, 400, "invalid_value", None),
    ({"stream_format": "video"}, 400, "invalid_value", "stream_format"),
    ({"seed": 1.5}, 400, "invalid_type", "seed"),
    ({"temperature": -1}, 400, "invalid_value", "temperature"),
    ({"top_k": "many"}, 400, "invalid_type", "top_k"),
    ({"language": "klingon"}, 400, "invalid_value", "language"),
    ({"task_type": "VoiceDesign"}, 400, "unsupported_value", "task_type"),
    ({"speaker_embedding": [1.0] * 63}, 400, "invalid_value", "speaker_embedding"),
    ({"speaker_embedding": ["a"]}, 400, "invalid_type", "speaker_embedding"),
    ({"speaker_embedding": [1e300] * 64}, 400, "invalid_value", "speaker_embedding"),
    ({"ref_audio": "file:///etc/passwd"}, 400, "unsupported_value", "ref_audio"),
    ({"ref_audio": "data:audio/wav;base64,!!"}, 400, "invalid_value", "ref_audio"),
    ({"ref_audio": "data:audio/wav;base64,AAAA"}, 400, "invalid_audio", "ref_audio"),
    ({"sample_rate": 7}, 400, "invalid_value", "sample_rate"),
    ({"morph_seconds": 2}, 400, "invalid_value", "morph_to"),
    ({"max_new_tokens": 0}, 400, "invalid_value", "max_new_tokens"),
]


@pytest.mark.parametrize(("wrong", "status", "code", "param"), WRONG, ids=[str(row[0])[:40] for row in WRONG])
def test_what_is_wrong_is_said_once(client, wrong, status, code, param):
    answer = client.post(
        "/v1/audio/speech", content=json.dumps({**SHORT, **wrong}), headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param) and error["message"] and "Traceback" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"[" * 5000, b"\xff\xfe"])
def test_what_is_not_json(client, body):
    answer = client.post("/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_a_client_that_leaves_frees_its_row(client, served):
    with client.stream(
        "POST",
        "/v1/audio/speech",
        json={**SHORT, "max_new_tokens": 4000, "response_format": "pcm", "stream_format": "audio"},
    ) as answer:
        next(answer.iter_bytes())
        assert served[1].engine.running == 1
    assert served[1].engine.call(lambda: None).result(5) is None
    for _ in range(100):
        if not served[1].engine.load:
            return
        served[1].engine.call(lambda: None).result(5)
    raise AssertionError("the row is still taken")


def test_a_lead_in_a_batch_is_refused_by_name(client):
    items = [{**SHORT, "lead": 1.0}, {**SHORT, "lead": 1.0, "stream_format": "audio"}, {**SHORT, "lead": None}]
    results = client.post("/v1/audio/speech/batch", json={"items": items}).json()["results"]
    for result in results[:2]:
        assert (result["status"], result["error"]["param"]) == ("error", "lead")
        assert result["error"]["code"] == "unsupported_value" and "POST /v1/audio/speech" in result["error"]["message"]
    assert results[2]["status"] == "success"


def test_a_batch_has_a_result_for_each(client):
    items = [{"input": "One."}, {"input": ""}, {"input": "Three.", "voice": "ben", "response_format": "wav"}]
    shared = {"voice": "anna", "max_new_tokens": 8, "response_format": "pcm"}
    answer = client.post("/v1/audio/speech/batch", json={"items": items, **shared}).json()
    assert (answer["total"], answer["succeeded"], answer["failed"]) == (3, 2, 1)
    kinds = [(row["index"], row["status"], row["media_type"]) for row in answer["results"]]
    assert kinds == [(0, "success", "audio/pcm"), (1, "error", None), (2, "success", "audio/wav")]
    assert len(base64.b64decode(answer["results"][0]["audio_data"])) == 7 * 1920 * 2
    assert answer["results"][1]["error"]["param"] == "input"
    for wrong in ({"items": []}, {"items": [{}] * 33}, {"items": ["x"]}, {}):
        assert client.post("/v1/audio/speech/batch", json=wrong).status_code == 400


def test_models_health_and_metrics(client):
    card = client.get("/v1/models").json()
    assert card["data"] == card["models"] and card["data"][0]["object"] == "model"
    assert client.get(f"/v1/models/{card['data'][0]['id']}").status_code == 200
    assert client.get("/v1/models/whisper-1").status_code == 404
    assert client.get("/health").json()["status"] == "healthy"
    text = client.get("/metrics").text
    assert "# TYPE qwen3tts_frames_total counter" in text and "qwen3tts_running 0" in text
    assert client.get("/v1/").json()["name"] == "mlx_qwen3tts"
    missing = client.get("/v1/nothing")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "not_found"
    assert client.get("/v1/audio/speech").status_code == 405
