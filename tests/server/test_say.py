"""say: through a running server and by itself, aloud and to a file."""

import http.server
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile

from convert.random_checkpoint import write_checkpoint
from mlx_qwen3tts import Library, Qwen3TTS, say
from mlx_qwen3tts.audio import player
from mlx_qwen3tts.desktop.client import Client, ServerError
from mlx_qwen3tts.errors import InvalidValue
from mlx_qwen3tts.server.settings import Settings
from mlx_qwen3tts.synthesis.pieces import LIMIT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose speech has few frames."""
    made = write_checkpoint(tmp_path_factory.mktemp("short") / "short", eos_gain=2.6)
    sampling = made / "generation_config.json"
    sampling.write_text(json.dumps(json.loads(sampling.read_text()) | {"max_new_tokens": 12}))
    return made


@pytest.fixture(scope="module")
def served(folder, library, serving):
    with serving(Qwen3TTS.from_pretrained(folder, "float32"), Settings(library=library.folder, max_batch=2)) as made:
        yield made


@pytest.fixture(scope="module")
def url(served):
    return served[0]


@pytest.fixture
def aloud(monkeypatch):
    """What was played, as arrays."""

    class Loudspeaker(list):
        def __init__(self, rate, asked):
            played.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def play(self, samples):
            self.append(samples)

        def wait(self):
            self.append(None)

    played = []
    monkeypatch.setattr(player, "Player", Loudspeaker)
    return played


def test_it_speaks_through_the_server_that_runs(command, url, served, aloud, tmp_path, monkeypatch):
    before = served[1].engine.counts["frames"]
    ran = command("say", "--server", url, "-v", "anna", "--seed", "1", "-o", "said.wav", "Hello", "there.")
    assert ran.status == 0 and ran.out == "" and not aloud, ran.err
    sound, rate = soundfile.read(tmp_path / "said.wav")
    assert rate == 24000 and len(sound) == 1920 * (served[1].engine.counts["frames"] - before)
    monkeypatch.setenv("QWEN3TTS_SERVER", url)
    assert command("say", "-v", "anna", "--seed", "1", "Hello there.").status == 0
    np.testing.assert_allclose(np.concatenate(aloud[0]), sound, atol=1e-4)
    fast = command("say", "-v", "anna", "--seed", "1", "-r", "350", "-o", "fast.flac", "Hello there.")
    assert fast.status == 0 and len(soundfile.read(tmp_path / "fast.flac")[0]) == pytest.approx(len(sound) / 2, abs=2)


def test_voices_are_listed(command, url):
    ran = command("say", "--server", url, "-v", "?")
    assert ran.status == 0 and [line.split()[0] for line in ran.out.splitlines()][:3] == ["anna", "ben", "cleo"]
    assert "# as " in ran.out


def test_sentences_are_shown_as_they_begin(command, url, aloud, monkeypatch):
    ran = command("say", "--server", url, "-v", "anna", "-i", "One is here. Two is there.")
    assert ran.status == 0 and ran.out.splitlines() == ["One is here.", "Two is there."]
    assert sum(part is None for part in aloud[0]) == 2  # each waits until the one before has been heard


def test_stdin_flows(command, url, aloud, monkeypatch):
    order = []

    def read_stdin():
        for piece in ("First sentence. Sec", "ond sentence. Third"):
            order.append("read")
            yield piece

    monkeypatch.setattr("mlx_qwen3tts.files.text.read_stdin", read_stdin)
    monkeypatch.setattr(say.Served, "speak", lambda self, text, *_: order.append(text.strip()) or iter([np.zeros(9)]))
    assert command("say", "--server", url).status == 0
    assert order == ["read", "First sentence.", "read", "Second sentence.", "Third"]
    monkeypatch.setattr("mlx_qwen3tts.files.text.read_stdin", lambda: iter(["", " "]))
    assert command("say", "--server", url).lines == ["error: text is empty"]


def test_stdin_that_never_ends_a_sentence_is_spoken_in_parts(command, url, aloud, monkeypatch):
    """Two pieces of it are held at most, or its end would be looked for again in all of it with whatever comes."""
    order, text, word = [], "one two\nthree " * 2000, "x" * 5000

    def read_stdin():
        for start in range(0, len(text), 1000):
            order.append("")
            yield text[start : start + 1000]
        yield f". {word}. The end."

    monkeypatch.setattr("mlx_qwen3tts.files.text.read_stdin", read_stdin)
    monkeypatch.setattr(say.Served, "speak", lambda self, text, *_: order.append(text) or iter([np.zeros(9)]))
    assert command("say", "--server", url).status == 0
    while_it_came = [part for part in order[:30] if part]
    assert len("".join(while_it_came)) > 15_000 and max(map(len, order)) <= LIMIT
    assert all(part.split()[-1] in ("one", "two", "three") for part in while_it_came)
    assert "".join("".join(order).split()) == "".join(f"{text}.{word}.Theend.".split())


def test_without_a_server_it_speaks_by_itself(command, folder, tmp_path, served):
    library = Library(served[1].settings.library)
    model = ["--model", folder, "--library", library.folder, "--dtype", "float32"]
    nobody = ["--server", "http://127.0.0.1:9"]
    ran = command("say", *nobody, *model, "-v", "anna", "--seed", "1", "-o", "own.wav", "Hello there.")
    assert ran.status == 0, ran.err
    speech = served[1].tts.generate("Hello there.", library["anna"], seed=1)
    np.testing.assert_allclose(soundfile.read(tmp_path / "own.wav")[0], np.array(speech.audio), atol=1e-4)
    assert "anna" in command("say", "--server", "none", *model, "-v", "?").out


def test_the_configured_voice_is_asked_for_where_the_server_has_the_configured_model(
    command, url, served, aloud, monkeypatch
):
    asked = []
    monkeypatch.setattr(Client, "speak", lambda self, text, **more: asked.append(more.get("voice")) or iter([b"\0\0"]))
    monkeypatch.setenv("QWEN3TTS_VOICE", "ben")
    for model in (served[1].model, "miniature"):
        monkeypatch.setenv("QWEN3TTS_MODEL", model)
        assert command("say", "--server", url, "Hello.").status == 0
        assert command("say", "--server", url, "-v", "anna", "Hello.").status == 0
    assert asked == ["ben", "anna", None, "anna"]


def test_a_configured_voice_that_is_a_file_is_not_asked_of_a_server(command, url, served, aloud, tmp_path, monkeypatch):
    np.save(tmp_path / "ben.npy", np.array(Library(served[1].settings.library)["ben"].embedding))
    asked = []
    monkeypatch.setattr(Client, "speak", lambda self, text, **more: asked.append(more.get("voice")) or iter([b"\0\0"]))
    monkeypatch.setenv("QWEN3TTS_VOICE", "ben.npy")
    monkeypatch.setenv("QWEN3TTS_MODEL", served[1].model)
    ran = command("say", "--server", url, "Hello.")
    assert ran.status == 0 and asked == [None] and ran.err.startswith("QWEN3TTS_VOICE: voice 'ben.npy' is a file")


def test_without_a_loudspeaker_it_names_itself(refused, url, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert refused("say", "--server", url, "-v", "anna", "Hello.").startswith("say without -o needs sounddevice: pip")


def test_by_itself_it_takes_the_first_who_has_not_refused(command, folder, library, tmp_path, monkeypatch):
    own = Library(tmp_path / "own")
    own.add("aaron", library["anna"], consent="refused")
    own.add("berta", library["ben"], consent="given", language="German")
    asked = []
    monkeypatch.setattr(
        Qwen3TTS, "stream", lambda self, request: asked.append(request.voice) or self.generate("x", "no")
    )
    model = ["--model", folder, "--library", own.folder, "--server", "none"]
    assert "no" in command("say", *model, "Hello.").err and asked == ["berta"]
    assert command("say", *model, "-v", "?").out.splitlines()[1].split() == ["berta", "German"]


def test_voices_that_came_with_the_model_speak_without_a_server(command, tmp_path):
    """Every voice that is listed can be used, in an expression too, and the first one speaks where none is named."""
    model = ["--server", "none", "--model", "miniature", "--dtype", "float32", "--seed", "1"]
    listed = command("say", *model, "-v", "?").out.split()
    for number, voice in enumerate(([], ["-v", listed[0]], ["-v", f"{listed[1]}*0.5 + {listed[2]}*0.5 + 1*@pitch"])):
        ran = command("say", *model, *voice, "-o", f"{number}.wav", "two")
        assert ran.status == 0, ran.err
    sounds = [soundfile.read(tmp_path / f"{number}.wav")[0] for number in range(3)]
    np.testing.assert_array_equal(sounds[0], sounds[1])
    assert len(sounds[1]) != len(sounds[2]) or np.abs(sounds[1] - sounds[2]).max() > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-r", "20", "Hi."], "-r 20 is not within 88 to 350"),
        (["-f", "text", "Hi."], "give the text once"),
        (["-o", "out.xyz", "Hi."], "out.xyz"),
        (["-v", " ", "Hi."], "-v is empty"),
        ([" "], "text is empty"),
        (["-v", "nobody", "Hi."], "refused: voice 'nobody' is not"),
        (["--server", "https://x", "Hi."], "neither http://HOST:PORT nor unix:PATH"),
        (["--server", "http://[x", "Hi."], "neither http://HOST:PORT nor unix:PATH"),
    ],
)
def test_what_is_refused(command, url, options, message):
    ran = command("say", *([] if "--server" in options else ["--server", url]), *options)
    assert ran.status == 2 and message in ran.err and len(ran.lines) == 1


class Dying(http.server.BaseHTTPRequestHandler):
    """Is healthy, begins to speak and breaks off."""

    def do_GET(self):
        self.answer(json.dumps({"status": "healthy"}).encode())

    def do_POST(self):
        self.answer(b"\0" * 1001, 5000)

    def answer(self, data, length=None):
        self.send_response(200)
        self.send_header("content-length", str(length or len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_a_server_that_dies_while_it_speaks_leaves_what_was_heard(command, tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dying) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        ran = command("say", "--server", url, "-o", "kept.wav", "Hi.")
        server.shutdown()
    assert ran.status == 2 and f"error: {url} broke off while speaking" in ran.err
    assert len(soundfile.read(tmp_path / "kept.wav")[0]) == 500
    assert not Client(url).healthy()
    with pytest.raises(ServerError, match="does not answer"):
        Client(url).voices()
    with pytest.raises(InvalidValue):
        Client("ftp://x")


def test_nothing_slow_is_loaded_before_the_request():
    code = "import sys, mlx_qwen3tts.say, mlx_qwen3tts.desktop.client, mlx_qwen3tts.files.json_text\n"
    heavy = subprocess.run(
        [sys.executable, "-c", code + "print(*{'numpy', 'mlx', 'soundfile', 'sentencex'} & set(sys.modules))"],
        capture_output=True,
        text=True,
    )
    assert heavy.stdout.strip() == "" and heavy.returncode == 0, heavy.stderr
