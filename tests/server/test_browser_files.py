"""/browser: what it is made of, what it is told, and the folder of it for any web server."""

import base64
import hashlib
import io
import json
import sys
import tarfile

import httpx
import numpy as np
import onnxruntime
import pytest

from convert import browser as packing
from convert.parity import vector
from mlx_qwen3tts import Library, Qwen3TTS, Voice, VoiceSpace
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.speaker_onnx import build
from mlx_qwen3tts.errors import MissingExtra
from mlx_qwen3tts.server import browser, pages
from mlx_qwen3tts.server.app import Server
from mlx_qwen3tts.server.settings import Settings
from mlx_qwen3tts.voices.lookup import fingerprint


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A runtime of two empty modules."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in browser.RUNTIME_FILES:
        (folder / name).write_bytes(b"//")
    monkeypatch.setattr(browser, "RUNTIME", folder)
    return folder


def vectors(told):
    return {one["name"]: np.frombuffer(base64.b64decode(one["vector"]), "<f4") for one in told["voices"]}


def test_it_is_told_the_voices_and_their_space(speaking_url, runtime):
    told = httpx.get(f"{speaking_url}/browser/about.json").json()
    shipped = Library(hub.SHIPPED["miniature"] / "voices")
    assert told["missing"] == [] and told["model"] == "miniature" and told["studio"]
    assert (told["bands"], told["dimension"], told["least_samples"]) == (128, 192, 1280)
    found = vectors(told)
    assert list(found) == list(shipped.names)
    for one in told["voices"]:
        voice = shipped[one["name"]]
        assert np.array_equal(found[one["name"]], np.array(voice.embedding))
        assert one["fingerprint"] == fingerprint(voice.embedding) and one["consent"] == voice.consent
    space = VoiceSpace.fit([shipped[name] for name in shipped.names])
    mean = np.frombuffer(base64.b64decode(told["space"]["mean"]), "<f4")
    assert np.allclose(mean, np.array(space.mean), atol=1e-6) and told["space"]["count"] == 10


def test_the_encoder_is_the_loaded_one(client, served, runtime):
    tts = served[1].tts
    data = client.get("/browser/encoder.onnx").content
    assert data == build(tts.speaker_encoder, tts.folder.folder.name, from_mel=True).SerializeToString()
    opened = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [given.name for given in opened.get_inputs()] == ["mel"]


def test_who_refused_and_who_does_not_fit_is_left_out(model):
    voices = [Voice(vector(64, 1), name="anna"), Voice(vector(64, 2), name="ben", consent="refused")]
    told = browser.about("m", "m", model("base").speaker_encoder, [*voices, Voice(vector(32, 1), name="cleo")])
    assert list(vectors(told)) == ["anna"] and told["space"] is None


def test_what_is_missing_is_named(model, tmp_path, monkeypatch, runtime):
    def lacks(name):
        return Server(model(name), Settings(library=tmp_path / "voices")).browser.about()["missing"]

    assert lacks("base") == []
    assert lacks("custom-voice") == ["encoder"]
    (runtime / browser.RUNTIME_FILES[1]).unlink()
    assert lacks("base") == ["runtime"]
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert lacks("base") == ["onnx", "runtime"]
    with pytest.raises(MissingExtra, match=r"an ONNX model needs onnx: pip install .*\[onnx\]"):
        build(model("base").speaker_encoder, "base")


def test_only_its_worker_may_run_webassembly(client):
    parts = [path.name for path in pages.STATIC.iterdir() if path.suffix in pages.TYPES]
    policies = {name: client.get(f"/static/{name}").headers["content-security-policy"] for name in parts}
    assert [name for name, policy in policies.items() if "wasm-unsafe-eval" in policy] == ["embedder.js"]
    for path in ("/", "/browser"):
        policy = client.get(path).headers["content-security-policy"]
        assert "script-src 'self';" in policy and "unsafe" not in policy
    assert "connect-src 'self'" in (pages.STATIC / "browser.html").read_text("utf-8")


def test_the_runtime_is_served_by_name_alone(client, runtime):
    (runtime / "more.mjs").write_bytes(b"//")
    for name, kind in zip(browser.RUNTIME_FILES, ("text/javascript", "application/wasm"), strict=True):
        answer = client.get(f"/browser/{name}")
        assert answer.content == b"//" and answer.headers["content-type"].startswith(kind)
    for name in ("more.mjs", "..%2fapp.py", "%2e%2e", "voices.json"):
        assert client.get(f"/browser/{name}").status_code == 404
    (runtime / browser.RUNTIME_FILES[0]).unlink()
    assert client.get(f"/browser/{browser.RUNTIME_FILES[0]}").status_code == 404


def test_pages_have_their_parts_and_no_others():
    studio, encoder = pages.parts("index.html"), pages.parts("browser.html")
    assert {"page.js", "player.js", "recorder.js", "en.json", "zh.json", "page.css"} <= {*studio}
    assert {"browser.js", "embedder.js", "mel.js", "recorder.js", "en.json", "browser.css"} <= {*encoder}
    assert "browser.js" not in studio and "page.js" not in encoder


# Packing


def archive(files):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return made.getvalue()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A function that makes `npm pack` write an archive of these files, or fail with these words."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def set_up(outcome):
        packed = tmp_path / "packed"
        if isinstance(outcome, dict):
            packed.write_bytes(archive(outcome))
            work = f'while [ "$1" != --pack-destination ]; do shift; done; cp {packed} "$2/onnxruntime-web.tgz"'
        else:
            work = f"echo '{outcome}' >&2; exit 1"
        (folder / "npm").write_text(f"#!/bin/sh\n{work}\n")
        (folder / "npm").chmod(0o755)

    return set_up


@pytest.fixture
def refused(capfd):
    """A function that runs the command and returns its error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            packing.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert stopped.value.code == 2 and out == "" and err.count("\n") == 1
        return err.removeprefix("error: ").strip()

    return run


FAKE = {"ort.wasm.bundle.min.mjs": b"a", "ort-wasm-simd-threaded.wasm": b"b"}
SHA256_OF_FAKE = {name: hashlib.sha256(data).hexdigest() for name, data in FAKE.items()}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the runtime is packed to."""
    monkeypatch.setattr(browser, "RUNTIME", tmp_path / "runtime")
    return tmp_path / "runtime"


def test_npm_packs_the_runtime_once(npm, place, monkeypatch, capfd):
    monkeypatch.setattr(packing, "SHA256", SHA256_OF_FAKE)
    npm({**FAKE, "ort.min.mjs": b"c"})
    packing.main([])
    assert {path.name: path.read_bytes() for path in place.iterdir()} == FAKE
    assert "onnxruntime-web@1.30.0" in capfd.readouterr().err
    npm("no network")
    packing.main([])
    assert capfd.readouterr().err == ""
    (place / "ort.wasm.bundle.min.mjs").write_bytes(b"x")  # another version, or half of it
    npm(FAKE)
    packing.main([])
    assert (place / "ort.wasm.bundle.min.mjs").read_bytes() == b"a"


def test_what_cannot_be_packed_is_refused(npm, place, refused, monkeypatch, tmp_path):
    npm(FAKE)
    assert refused().endswith("ort.wasm.bundle.min.mjs is not the file that was tried here; nothing is kept")
    npm("npm error code E404")
    assert refused() == "npm pack onnxruntime-web@1.30.0 failed: npm error code E404"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused().startswith("npm is not installed")
    assert not place.exists()
    assert refused("--output", tmp_path / "page", "--library", tmp_path / "gone").endswith("is not a folder")
    assert "no such folder" in refused("--output", tmp_path / "page", "--model", "nowhere")
    assert not (tmp_path / "page").exists()


def test_a_folder_of_it_for_any_web_server(npm, place, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(packing, "SHA256", SHA256_OF_FAKE)
    npm(FAKE)
    library = Library(tmp_path / "voices")
    for number, consent in enumerate(("given", "refused", None)):
        library.add(f"own{number}", vector(192, number), **({"consent": consent} if consent else {}))
    packing.main(["--output", str(tmp_path / "page"), "--library", str(tmp_path / "voices")])
    told = json.loads((tmp_path / "page" / "browser" / "about.json").read_text())
    names = [f"voice{number:02}" for number in range(1, 11)]
    assert list(vectors(told)) == ["own0", *names] and told["missing"] == [] and not told["studio"]
    assert "2 voices are left out" in capfd.readouterr().err
    written = {str(path.relative_to(tmp_path / "page")) for path in (tmp_path / "page").rglob("*") if path.is_file()}
    parts = {f"static/{name}" for name in pages.parts("browser.html")} - {"static/browser.html"}
    made = {f"browser/{name}" for name in (*FAKE, "about.json", "encoder.onnx")}
    assert written == {"index.html", "static/htm-LICENSE.txt", *parts, *made}
    encoder = Qwen3TTS.from_pretrained("miniature", dtype="float32").speaker_encoder
    wanted = build(encoder, "miniature", from_mel=True).SerializeToString()
    assert (tmp_path / "page" / "browser" / "encoder.onnx").read_bytes() == wanted
