"""The command: what it refuses before a model is loaded, and how it ends."""

import asyncio
import signal
import socket
import threading
import time

import httpx
import pytest

from mlx_qwen3tts.errors import OutputError, QwenTTSError
from mlx_qwen3tts.serve import build_parser, settings
from mlx_qwen3tts.server.app import Server, build
from mlx_qwen3tts.server.running import Running, address, listening
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
