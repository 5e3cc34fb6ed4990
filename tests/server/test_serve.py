"""The command: what it refuses before a model is loaded, and how it ends."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import httpx
import pytest

from mlx_qwen3tts.errors import OutputError, QwenTTSError
from mlx_qwen3tts.serve import build_parser, settings
from mlx_qwen3tts.server.app import Server, build
from mlx_qwen3tts.server.running import Running, address, listening, listening_at
from mlx_qwen3tts.server.settings import Settings


@pytest.mark.parametrize(
    ("options", "param"),
    [
        (["--max-batch", "0"], "max_batch"),
        (["--max-queue", "-1"], "max_queue"),
        (["--port", "70000"], "port"),
        (["--host", "0.0.0.0"], "api_key"),
        (["--host", ""], "api_key"),
        (["--api-key", "schlüssel"], "api_key"),
        (["--api-key", "two words"], "api_key"),
        (["--api-key", "\udcff"], "api_key"),
        (["--allow-origin", "*"], "allow_origin"),
    ],
)
def test_options_that_are_refused(options, param, monkeypatch):
    monkeypatch.delenv("QWEN3TTS_API_KEY", raising=False)
    with pytest.raises(QwenTTSError) as refused:
        settings(build_parser().parse_args(options))
    assert refused.value.param == param


def test_a_port_that_is_taken_and_a_host_that_is_not_ours():
    with listening("127.0.0.1", 0) as bound:
        with pytest.raises(OutputError, match=r"(?i)already in use"):
            listening("127.0.0.1", bound.getsockname()[1])
        assert bound.proto == socket.IPPROTO_TCP  # or asyncio would leave Nagle's algorithm on
    with pytest.raises(OutputError, match=r"cannot listen on nosuch\.invalid"):
        listening("nosuch.invalid", 0)


def test_a_server_whose_worker_has_failed_ends(model, tmp_path, monkeypatch, caplog):
    server = Server(model("base"), Settings(library=tmp_path / "voices"))
    monkeypatch.setattr(server.engine, "warm_up", lambda: 1 / 0)
    with listening("127.0.0.1", 0) as bound:
        running = Running(build(server), server.engine)
        asyncio.run(asyncio.wait_for(running.serve(sockets=[bound]), 20))
    assert isinstance(server.engine.fault, ZeroDivisionError) and "ends with a fault" in caplog.text


def test_a_second_ctrl_c_cuts_what_is_spoken_at_once(model, tmp_path):
    server = Server(model("base"), Settings(library=tmp_path / "voices"))
    body = {"input": "Long.", "voice": "nobody", "response_format": "pcm", "stream_format": "audio"}
    with listening("127.0.0.1", 0) as bound:
        running = Running(build(server), server.engine)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        assert server.engine.ready.wait(60)
        body |= {"speaker_embedding": [0.1] * server.tts.embedding_dim, "max_new_tokens": 5000}
        with httpx.stream("POST", f"{address(bound)}/v1/audio/speech", json=body, timeout=30) as answer:
            sound = answer.iter_bytes()
            heard = len(next(sound))
            running.handle_exit(signal.SIGINT, None)
            heard += len(next(sound))  # it is spoken on
            running.handle_exit(signal.SIGINT, None)
            cut = time.perf_counter()
            heard += sum(map(len, sound))  # and the answer has an end, or httpx would raise
        assert time.perf_counter() - cut < 3 and heard % 3840 == 0  # where it has 5 s otherwise
        thread.join(10)
        assert not thread.is_alive()


APP = """
import json, os, subprocess, sys
read, write = os.pipe()
command = [sys.executable, "-m", "mlx_qwen3tts.serve", "--port", "0", "--ready-fd", str(write), *sys.argv[1:]]
server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
os.close(write)
print(json.dumps({**json.loads(os.read(read, 1000)), "pid": server.pid}), flush=True)
server.wait()
"""


def test_a_child_of_an_app_says_its_port_and_ends_with_the_app(checkpoint, tmp_path):
    key, log = tmp_path / "key", tmp_path / "log"
    key.write_text("sesame\n")
    options = ["--model", checkpoint("base"), "--library", tmp_path / "voices", "--api-key-file", key, "--log", log]
    app = subprocess.Popen(
        [sys.executable, "-c", APP, *map(str, options), "--max-batch", "1", "--wyoming", "0", "--wyoming-without-key"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with app:
        told = json.loads(app.stdout.readline())
        assert told["url"] == f"http://127.0.0.1:{told['port']}"
        socket.create_connection(("127.0.0.1", told["wyoming"])).close()
        assert httpx.get(f"{told['url']}/v1/models").status_code == 401
        assert httpx.get(f"{told['url']}/v1/models", headers={"authorization": "Bearer sesame"}).status_code == 200
        app.kill()
    for _ in range(200):  # there is nothing else to wait by: the server is nobody's child any more
        try:
            os.kill(told["pid"], 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the server outlives the app")
    assert f"at {told['url']}" in log.read_text() and "sesame" not in log.read_text()


def test_a_socket_in_the_file_system(model, tmp_path):
    path = tmp_path / "socket"
    server = Server(model("base"), Settings(library=tmp_path / "voices"))
    with listening_at(path) as bound:
        running = Running(build(server), server.engine)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            assert address(bound) == f"unix:{path}" and stat.S_IMODE(path.stat().st_mode) == 0o600
            assert f"curl --unix-socket {path} http://localhost/v1" in server.greeting(address(bound))
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
                assert server.engine.ready.wait(60)
                assert client.get("/health").json()["status"] == "healthy"
            with pytest.raises(OutputError, match="a server listens"):
                listening_at(path)
        finally:
            running.should_exit = True
            server.engine.stop(0)
            thread.join(20)
    listening_at(path).close()  # what the first has left behind is replaced
    path.unlink()
    path.write_text("a file")
    with pytest.raises(OutputError, match="cannot listen at"):
        listening_at(path)
    assert path.read_text() == "a file"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ready-fd", "1"], "is stdin, stdout or stderr"),
        (["--ready-fd", "999"], "999 is not open for writing"),
        (["--log", "nowhere/log"], "cannot write --log nowhere/log"),
        (["--api-key-file", "none"], "cannot read the key in none"),
    ],
)
def test_descriptors_and_files_that_do_not_serve(command, options, message):
    ran = command("serve", "--model", "miniature", *options)
    assert ran.status == 2 and message in ran.err and ran.err.count("\n") == 1
