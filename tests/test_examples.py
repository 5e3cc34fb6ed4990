"""Every example that a command's help shows runs as it stands, in a folder that has what it names."""

import glob
import os
import re
import shlex
import shutil
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert.parity import codes, recording
from convert.random_checkpoint import write_checkpoint
from mlx_qwen3tts import Direction, Library, Voice, VoiceSpace, cli
from mlx_qwen3tts.audio.watermark import DEFAULT_KEY, mark
from mlx_qwen3tts.audio.writing import write_audio
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.desktop import launching
from tests.test_adapters import adapter_for
from tests.test_generate_modes import FakeDevice
from tests.voices.real import made

HUB = ("Qwen/Qwen3-TTS-12Hz-0.6B-Base", "Qwen/Qwen3-TTS-12Hz-1.7B-Base")


def examples():
    """(door whose help shows it, command, its arguments, the example before) of all that the helps show."""
    for door in cli.COMMANDS:
        before = None
        for line in (import_module(f"mlx_qwen3tts.{door}").build_parser().epilog or "").splitlines():
            if line.startswith("  mlx_qwen3tts."):
                name, _, arguments = line.removeprefix("  mlx_qwen3tts.").partition(" ")
                yield door, name, arguments, before
                before = name, arguments


def test_every_command_has_an_example():
    told = [door for door, *_ in examples()]
    assert set(told) == set(cli.COMMANDS) - {"demo"}
    inner = import_module("mlx_qwen3tts.voices.__main__").COMMANDS
    assert all(len(entry) > 1 for entry in inner.values()) and told.count("voices") == sum(
        map(len, inner.values())
    ) - len(inner)


def write_book(path):
    """An EPUB of one chapter."""
    package = (
        '<package><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="a"/></spine></package>'
    )
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("mimetype", "application/epub+zip")
        book.writestr(
            "META-INF/container.xml", '<container><rootfiles><rootfile full-path="p.opf"/></rootfiles></container>'
        )
        book.writestr("p.opf", package)
        book.writestr("a.xhtml", "<html><body><h1>One</h1><p>Hello.</p></body></html>")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Random checkpoints that end their speech, by the names that the examples give them."""
    folder = tmp_path_factory.mktemp("models")
    base = write_checkpoint(folder / "base", "base", seed=3, eos_gain=2.6)
    custom = write_checkpoint(folder / "custom", "custom_voice", seed=4, eos_gain=2.6)
    design = write_checkpoint(folder / "design", "voice_design", seed=6, eos_gain=2.6, model_size="1b7")
    return {"mlx_model": base, "base": base, "custom": custom, "design": design, **dict.fromkeys(HUB, base)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the recordings, texts, voices, labels and directions that the examples name."""
    folder = tmp_path_factory.mktemp("prepared")
    X, names, labels = made()
    for i, name in enumerate(("speaker", "anna", "ben", "dora", "a", "b", "c", "clip", "speech", "meeting")):
        recording(folder / f"{name}.wav", i, 2.0)
    parts = [soundfile.read(folder / f"{name}.wav")[0] for name in ("anna", "ben") * 4]
    for name in ("interview.wav", "meeting.mp3"):
        write_audio(folder / name, np.concatenate(parts).astype(np.float32), 24000)
    for name, key in (("out.wav", DEFAULT_KEY), ("talk.flac", "my-key")):
        write_audio(folder / name, mark(np.concatenate(parts).astype(np.float32), key), 24000)
    (folder / "recordings").mkdir()
    for name in ("anna", "ben"):
        shutil.copy(folder / f"{name}.wav", folder / "recordings")
    (folder / "clips").mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(folder / f"{name}.wav", folder / "clips")
        (folder / "clips" / f"{name}.txt").write_text("Hello there.\n")
    for name in ("poem.txt", "lines.txt"):
        (folder / name).write_text("One.\nTwo.\n")
    (folder / "play.txt").write_text("# One\n\nANNA: Hello.\n\nBEN: Hi.\n\nANNA: Bye.\n")
    (folder / "voices.json").write_text('{"ANNA": "anna", "BEN": "anna*0.5 + ben*0.5", "narrator": "ben"}')
    cues = (f"{i}\n00:00:0{i},000 --> 00:00:0{i},900\nANNA: Hello.\n" for i in (1, 2, 3))
    (folder / "film.srt").write_text("\n".join(cues))
    write_book(folder / "book.epub")
    np.save(folder / "blend.npy", np.array(X[0]))
    np.save(folder / "crowd.npy", np.array(X))
    (folder / "crowd.txt").write_text("\n".join(names) + "\n")
    np.save(folder / "codes.npy", codes(3, 1))
    library = Library(folder / "voices")
    for i, name in enumerate(("anna", "ben", "carl", *names)):
        library.add(name, X[i % len(names)] + 0.01 * i, gender="female" if i % 2 else "male")
    labels["emotion"] = ["anger" if label == "e1" else label for label in labels["emotion"]]
    pitch = [100 + 10 * i for i in range(len(names))]
    rows = zip(names, pitch, *labels.values(), strict=True)
    lines = ["name,f0_median," + ",".join(labels), *(",".join(map(str, row)) for row in rows)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    for name, d in (
        ("gender", Direction.fit(X, labels["gender"])),
        ("anger", Direction.fit(X, labels["emotion"], positive="anger")),
        ("deep", Direction.fit(X, pitch, method="ridge")),
        ("pitch", Direction.fit(X, pitch, method="ridge")),
    ):
        d.save(folder / f"{name}.safetensors")
    VoiceSpace.fit(X).save(folder / "space.safetensors")
    other = Library(folder / "others")
    other.add("zoe", X[3])
    other.export(folder / "other.zip")
    return folder


def words(line):
    """The arguments as a shell hands them on, and the file that stdout goes to, or None."""
    line, _, file = line.partition(" > ")
    found = []
    for word in shlex.split(line):
        found += sorted(glob.glob(word)) if "*" in word and " " not in word else [word]
    return found, file or None


@pytest.fixture
def serves_shortly(monkeypatch):
    """A server listens on a free port and ends as soon as it would wait for requests; tests/server has the rest."""
    from mlx_qwen3tts.server import running

    listening = running.listening
    monkeypatch.setattr(running, "listening", lambda host, port, *option: listening(host, 0))
    monkeypatch.setattr(running.Running, "run", lambda self, sockets: self.engine.told())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("door", "name", "line", "earlier"), list(examples()), ids=[f"{name} {line}" for _, name, line, _ in examples()]
)
@pytest.mark.thorough
def test_example(door, name, line, earlier, prepared, models, command, tmp_path, monkeypatch, serves_shortly):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    for place, model in models.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        if not (name == "convert" and place == "mlx_model"):
            os.symlink(model, tmp_path / place)
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevice())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(launching.shutil, "which", lambda name: None)  # nothing is started on this machine
    if name != door:  # what another command makes of the example before
        assert command(earlier[0], *words(earlier[1])[0]).status == 0
    arguments, stdout = words(line)
    if "--again" in arguments:  # after it was done once
        assert command(name, *words(re.split(" --(?:lines|cues) ", line)[0])[0]).status == 0
    if line == "remove":
        assert command("service", "install").status == 0
    if name == "fuse":  # of the model in this run
        (tmp_path / "anna-lora").mkdir()
        adapter_for(ModelFolder(models["base"])).save(tmp_path / "anna-lora")
        Voice(made()[0][0]).save(tmp_path / "anna-lora" / "voice.safetensors")
    if name == "tune":
        arguments += ["--iters", "2"]  # a random checkpoint learns nothing in fifty either
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    ran = command(name, *arguments)
    assert ran.status == 0, ran.err
    assert not any(text.startswith("error") for text in ran.err.splitlines())
    written = [file for file in tmp_path.rglob("*") if file.is_file() and before.get(file) != file.stat().st_mtime_ns]
    removed = [file for file in before if not file.exists()]
    assert written or removed or ran.out or "\nstopped\n" in ran.err, "the example did nothing"
    assert stdout is None or ran.out
    for word in ("--output", "-o"):
        if word in arguments:
            assert Path(arguments[arguments.index(word) + 1]).exists()
    mx.clear_cache()
