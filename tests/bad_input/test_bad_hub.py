"""Hub ids that cannot be fetched."""

import importlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

ROOT = Path(__file__).parent.parent.parent


def answer(status):
    """A response of the HTTP client that the hub's client uses, whichever that is."""
    client = importlib.import_module(HTTPError.__module__.partition(".")[0])
    return client.Response(status, request=client.Request("GET", "https://huggingface.co/api/models/a/b"))


def transport_error(name):
    return getattr(importlib.import_module(HTTPError.__module__.partition(".")[0]), name)("nobody there")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RepositoryNotFoundError("401\n\nmore", response=answer(401)), "it has no such repository, or a private one"),
        (RepositoryNotFoundError("404", response=answer(404)), "see the spelling, or log in with `hf auth login`"),
        (GatedRepoError("403", response=answer(403)), "its owner grants access on its page there"),
        (RevisionNotFoundError("404", response=answer(404)), "it has no revision 'main'"),
        (HfHubHTTPError("503 down\nfor now", response=answer(503)), "from the hub: 503 down"),
        (LocalEntryNotFoundError("not in the cache"), "not in the cache"),
        (json.JSONDecodeError("Expecting value", "<html>", 0), "what answers is not the hub"),
        (transport_error("ReadError"), "nobody there"),
    ],
)
def test_what_the_hub_answers(error, message, refused, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=lambda *_, **__: None))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    told = refused("info", "--model", "a/b")
    assert told.startswith("model 'a/b' is not a folder here and could not be fetched from the hub: ")
    assert message in told


@pytest.mark.parametrize("kind", ["ConnectError", "ConnectTimeout", "ReadTimeout", "ProxyError", None])
def test_a_hub_out_of_reach_and_a_cache(kind, refused, command, checkpoint, monkeypatch):
    """Without an answer the cache serves; without a cache the reason is told."""

    def fail(*_, **__):
        raise transport_error(kind) if kind else OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=fail))
    told = refused("info", "--model", "nobody/mlx-qwen3tts-test")
    assert ("no answer (nobody there)" if kind else "HF_HUB_OFFLINE is set") in told

    def cached(repo, local_files_only, **_):
        assert local_files_only
        return checkpoint("base")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    assert command("info", "--model", "a/b").status == 0


def test_offline_mode(refused, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = refused("info", "--model", "nobody/mlx-qwen3tts-test")
    assert told.endswith("HF_HUB_OFFLINE is set, and the files are not in the cache")


@pytest.mark.parametrize("name", ["a/b/c", "../a", "~nobody/x", "https://huggingface.co/a/b", "a b", "/"])
def test_names_that_are_no_hub_ids(name, refused, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)  # is not called
    assert "no such folder" in (told := refused("info", "--model", name)) or told == "/ has no config.json"


def test_names_that_the_hub_refuses(refused):
    assert "a/b--c" in refused("info", "--model", "a/b--c")


@pytest.mark.parametrize("silent", [False, True])
def test_a_server_that_does_not_answer(silent, tmp_path):
    """Over real sockets: nobody listens, or somebody listens and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if silent:
            server.listen()
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}", "HF_HOME": str(tmp_path)}
        environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
        code = "from mlx_qwen3tts import info; from mlx_qwen3tts.checkpoint import hub; hub.PATIENCE = 0.3; info.main()"
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, "--model", "a/b"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(
        "error: model 'a/b' is not a folder here and could not be fetched from the hub: no answer"
    )
    assert done.stderr.count("\n") == 1 and time.monotonic() - start < 20
