"""A server on a free port of this machine, in a thread, as clients meet it."""

import contextlib
import json
import threading
import time

import httpx
import pytest

from convert.parity import vector
from convert.random_checkpoint import write_checkpoint
from mlx_qwen3tts import Library, Qwen3TTS
from mlx_qwen3tts.server.app import Server, build
from mlx_qwen3tts.server.running import Running, address, listening
from mlx_qwen3tts.server.settings import Settings


@contextlib.contextmanager
def running(tts, settings, model=None, anywhere=False, design=None, wyoming=None):
    """Run a server as long as the block lasts. Yields (url, Server). wyoming: a socket for that protocol."""
    server = Server(tts, settings, model, design)
    with listening("127.0.0.1", 0) as bound:
        uvicorn = Running(build(server, anywhere, wyoming), server.engine)
        thread = threading.Thread(target=uvicorn.run, kwargs={"sockets": [bound]})
        thread.start()
        url = address(bound)
        try:
            assert server.engine.ready.wait(60)
            for _ in range(100):
                with contextlib.suppress(httpx.ConnectError):
                    httpx.get(f"{url}/health")
                    break
                time.sleep(0.05)
            yield url, server
        finally:
            server.engine.stop(1)
            uvicorn.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def serving():
    """A context manager: (model, Settings) to the (url, Server) that runs meanwhile."""
    return running


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """A library of three voices for the suite's `base`."""
    made = Library(tmp_path_factory.mktemp("served") / "voices")
    for number, name in enumerate(("anna", "ben", "cleo")):
        made.add(name, vector(64, number), consent="not-needed", gender="female" if number != 1 else "male")
    return made


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    """The folder in which servers keep the speech that is made by a tool."""
    return tmp_path_factory.mktemp("tools") / "new" / "speech"


@pytest.fixture(scope="session")
def ports():
    """The Wyoming ports of `served` and `home`, by these names."""
    with listening("127.0.0.1", 0) as served, listening("127.0.0.1", 0) as home:
        yield {"served": served, "home": home}


@pytest.fixture(scope="session")
def served(model, library, speech, ports):
    """(url, Server) of a server with random weights and a library of three voices."""
    chosen = Settings(library=library.folder, max_batch=4, max_queue=8, speech=speech)
    with running(model("base"), chosen, wyoming=ports["served"]) as made:
        yield made


@pytest.fixture(scope="session")
def curt(tmp_path_factory):
    """A model whose speech has few frames."""
    folder = write_checkpoint(tmp_path_factory.mktemp("curt") / "curt", eos_gain=4)
    sampling = folder / "generation_config.json"
    sampling.write_text(json.dumps(json.loads(sampling.read_text()) | {"max_new_tokens": 7}))
    return folder


@pytest.fixture(scope="session")
def home(curt, tmp_path_factory, speech, ports):
    """(url, Server) of a server whose speech has few frames, with a voice whose owner has refused."""
    voices = Library(tmp_path_factory.mktemp("home") / "voices")
    for number, (name, consent) in enumerate((("anna", "given"), ("ben", "not-needed"), ("no", "refused"))):
        voices.add(name, vector(64, number), consent=consent, language="German", gender="ab"[number % 2])
    chosen = Settings(library=voices.folder, max_batch=2, max_queue=2, max_characters=5000, speech=speech)
    with running(Qwen3TTS.from_pretrained(curt, "float32"), chosen, "home", wyoming=ports["home"]) as made:
        yield made


@pytest.fixture(scope="module")
def shelf(model, library, serving, tmp_path_factory):
    """A client of a server with a library of its own, which has the three voices, and the Server."""
    folder = tmp_path_factory.mktemp("shelf") / "voices"
    with (
        serving(model("base"), Settings(library=folder, max_batch=2)) as (url, server),
        httpx.Client(base_url=url) as client,
    ):
        for name in library:
            server.voices.library.add(name, library[name])
        yield client, server


@pytest.fixture(scope="session")
def url(served):
    return served[0]


@pytest.fixture
def client(url):
    with httpx.Client(base_url=url, timeout=60) as made:
        yield made


@pytest.fixture(scope="session")
def ending_url(model, tmp_path_factory):
    """The address of a server whose random weights end by themselves, for clients that cannot say how long."""
    voices = Library(tmp_path_factory.mktemp("ending") / "voices")
    voices.add("anna", vector(model("base-ends").embedding_dim, 0), consent="not-needed")
    with running(model("base-ends"), Settings(library=voices.folder, max_batch=2)) as (address, _):
        yield address


@pytest.fixture(scope="session")
def speaking_url(tmp_path_factory):
    """The address of a server that speaks: the miniature."""
    settings = Settings(library=tmp_path_factory.mktemp("speaking") / "voices", max_batch=2)
    with running(Qwen3TTS.from_pretrained("miniature", dtype="float32"), settings, "miniature") as (address, _):
        yield address
