"""Programs that exist, as they are, against a server here; and what others send, replayed."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import wave
from pathlib import Path

import httpx
import openai
import pytest
import soundfile

HERE = Path(__file__).parent / "clients"
SHORT = {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def sdk(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_openai_python(sdk):
    whole = sdk.audio.speech.create(model="tts-1", voice="anna", input="Hi.", extra_body={**SHORT, "seed": 1})
    assert whole.response.headers["content-type"] == "audio/mpeg"
    assert soundfile.info(io.BytesIO(whole.content)).format == "MP3"
    with sdk.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hi.", response_format="pcm", instructions="", extra_body=SHORT
    ) as flowing:
        assert sum(len(part) for part in flowing.iter_bytes()) == 11 * 3840
    assert [model.object for model in sdk.models.list()] == ["model"]


@pytest.mark.parametrize(
    ("wrong", "kind", "code", "param"),
    [
        ({"voice": "nobody"}, openai.BadRequestError, "voice_not_found", "voice"),
        ({"model": "whisper-1"}, openai.NotFoundError, "model_not_found", "model"),
        ({"input": ""}, openai.BadRequestError, "invalid_value", "input"),
    ],
)
def test_openai_python_shows_what_is_wrong(sdk, wrong, kind, code, param):
    with pytest.raises(kind) as refused:
        sdk.audio.speech.create(**{"model": "tts-1", "voice": "anna", "input": "Hi.", **wrong})
    assert (refused.value.code, refused.value.param) == (code, param)
    assert refused.value.type in ("invalid_request_error", "not_found_error")


def node(client, url):
    """What a client of npm prints; skipped where it is not installed."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (HERE / "node_modules").is_dir():
        pytest.skip(f"the npm clients are not installed: npm install --prefix {HERE.relative_to(Path.cwd())}")
    ran = subprocess.run(["node", HERE / "speak.mjs", client, url], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_openai_npm(ending_url):
    told = node("openai", ending_url)
    assert told["type"] == "audio/mpeg" and told["bytes"] > 500 and told["events"] >= 2
    assert told["models"] == ["model"]
    error = told["error"]
    assert (error["status"], error["code"], error["param"]) == (400, "voice_not_found", "voice")
    assert error["message"].startswith("400 voice 'nobody'")


def test_ai_sdk(ending_url):
    told = node("ai", ending_url)
    assert told["type"] in ("audio/mpeg", "audio/mp3") and told["bytes"] > 500


REPLAYS = {
    "SillyTavern": (
        {"input": "Hi.", "response_format": "mp3", "voice": "alloy", "speed": 1, "model": "tts-1"},
        {"authorization": "Bearer"},
    ),
    "LibreChat": ({"input": "Hi.", "model": "tts-1", "voice": "nova"}, {"authorization": "Bearer x"}),
    "Open WebUI": (
        {"input": "Hi.", "voice": "anna", "model": "tts-1", "split_on": "punctuation"},
        {"authorization": "Bearer x"},
    ),
    "MacPaw/OpenAI": (
        {"model": "tts-1", "input": "Hi.", "voice": "alloy", "response_format": "mp3", "speed": 1, "instructions": ""},
        {"authorization": "Bearer x", "accept": "*/*"},
    ),
    "MacPaw/OpenAI, older": (
        {"model": "tts-1", "input": "Hi.", "voice": "alloy", "response_format": "mp3", "speed": "1.0"},
        {"authorization": "Bearer x"},
    ),
}


@pytest.mark.parametrize("program", REPLAYS)
def test_what_other_programs_send(url, program):
    body, headers = REPLAYS[program]
    answer = httpx.post(f"{url}/v1/audio/speech", json={**body, **SHORT}, headers=headers, timeout=60)
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/mpeg"
    assert soundfile.info(io.BytesIO(answer.content)).frames >= 11 * 1920


def test_open_webui_lists_models_and_voices(url):
    assert httpx.get(f"{url}/v1/audio/models").json()["models"][0]["id"]
    voices = httpx.get(f"{url}/v1/audio/voices").json()["voices"]
    assert all(voice["id"] and voice["name"] for voice in voices)


def test_wyoming_openai_reads_a_wav_in_small_parts(url):
    """It asks for a streamed wav, takes it in 2,048 bytes and reads the head out of the first."""
    body = {"model": "tts-1", "input": "Hi.", "voice": "anna", "response_format": "wav", "speed": 1.0, **SHORT}
    voices = httpx.get(f"{url}/v1/audio/voices?legacy=true").json()["voices"]
    assert all(isinstance(voice, str) for voice in voices)
    with httpx.stream("POST", f"{url}/v1/audio/speech", json={**body, "stream_format": "audio"}) as answer:
        first = next(parts := answer.iter_bytes(2048))
        head = io.BytesIO(first)
        with wave.open(head) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24000, 1, 2)
        assert len(first) + sum(map(len, parts)) == head.tell() + 11 * 3840


def python(client, url):
    """What a Python client of an environment of its own prints; skipped where there is none."""
    own = Path(os.environ.get("CLIENTS_PYTHON", ".venv-clients/bin/python"))
    if not own.exists():
        pytest.skip("no environment for the clients: tests/server/clients/setup.sh, or set CLIENTS_PYTHON")
    ran = subprocess.run([own, HERE / "speak.py", client, url], capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.clients
def test_livekit(ending_url):
    told = python("livekit", ending_url)
    assert len(told) == 5 and all(samples >= 1920 for samples in told.values()), told


@pytest.mark.clients
def test_pipecat(ending_url):
    told = python("pipecat", ending_url)
    assert told["bytes"] >= 3840 and "ErrorFrame" not in told["kinds"], told


@pytest.mark.clients
def test_litellm(ending_url):
    assert python("litellm", ending_url)["bytes"] > 500


@pytest.mark.clients
def test_an_electron_app(tmp_path):
    """The program that docs/apps.md shows, as it stands there: it starts the server, speaks, and takes it along."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    page = (Path(__file__).parents[2] / "docs" / "apps.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```js\n(// speech\.mjs\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "speech.mjs").write_text(code)
    (tmp_path / "serve").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlx_qwen3tts "$@"\n')
    (tmp_path / "serve").chmod(0o755)
    options = ["serve", "--model", "miniature", "--max-batch", "1", "--library", tmp_path / "voices"]
    command = ["node", HERE / "electron.mjs", tmp_path / "speech.mjs", tmp_path / "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app:
        told = json.loads(app.stdout.readline())
        assert told["head"] == "RIFF" and told["bytes"] > 4000 and told["url"] == f"http://127.0.0.1:{told['port']}"
        assert "'nobody'" in told["error"] and told["aborted"] == "AbortError"
        assert told["failed"] == "the speech server ended with status 2"
        for _ in range(100):
            if not (health := httpx.get(f"{told['url']}/health").json())["running"]:
                break
            time.sleep(0.05)
        assert not health["running"], "it speaks on for somebody who has given up"
        app.kill()
    for _ in range(200):  # it is nobody's child any more
        try:
            httpx.get(f"{told['url']}/health")
        except httpx.TransportError:
            return
        time.sleep(0.05)
    pytest.fail("the server outlives the app")
