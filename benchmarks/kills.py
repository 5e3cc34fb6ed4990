"""Kill whatever writes files, before every call by which it touches the file system, and see what is left.

Each writer runs in a forked process, which kills itself before its n-th such call, for every n. Then a user's view of
what it writes (the model's folder, the archive, the library, the sound) must be whole: the old one or the new one.
And the writer, run again, must not be hindered, give the new one, and leave nothing else behind.

The calls are those that Python's audit hooks report (open, rename, remove, mkdir, chmod, lock, …) and, of files,
`write` and `close`. MLX is used in the forked processes alone, which it does not survive otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from convert.random_checkpoint import write_checkpoint
from mlx_qwen3tts import Library, Speech, Voice, generate
from mlx_qwen3tts.checkpoint import hub, writer
from mlx_qwen3tts.convert import convert
from mlx_qwen3tts.provenance.seal import Seal
from mlx_qwen3tts.voices import Direction

AUDITED = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.truncate", "os.link")
AUDITED += ("os.symlink", "os.scandir", "os.listdir", "fcntl.flock", "ctypes.dlsym", "open")
PROFILED = ("write", "close", "tofile", "truncate", "flush")
NAMES, DIMENSION = ("anna", "ben", "carl"), 8
SPARE = 16  # calls that a run may need less than the one that was counted: a library's index depends on the clock

State = dict[str, str | None]  # a part of what a user sees, and a digest of it; None where it is not there


class Writer(NamedTuple):
    """prepare: makes what is there before; write: what is killed; look: what a user sees then. Each takes the folder.
    A part of what `look` gives is whole by itself."""

    prepare: Callable[[Path], object]
    write: Callable[[Path], object]
    look: Callable[[Path], State]


# What is killed, and what is looked at


def digest(path: Path) -> str | None:
    """Of a file's bytes, or of all files of a folder with their names."""
    if not path.exists():
        return None
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    total = hashlib.sha256()
    for file in files:
        total.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return total.hexdigest()


def _vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)


def _fill(folder: Path, seed: int) -> Library:
    library = Library(folder / "voices")
    for number, name in enumerate(NAMES):
        library.add(name, _vector(seed + number), overwrite=True)
    return library


def _library(folder: Path) -> State:
    """Every voice and direction by itself."""
    library = Library(folder / "voices")
    seen = {name: np.array(library[name].embedding).tobytes() for name in library.names}
    seen |= {f"@{name}": np.array(library.direction(name).vector).tobytes() for name in library.directions}
    return {name: hashlib.sha256(data).hexdigest() for name, data in seen.items()}


def _together(folder: Path) -> State:
    """All of a library as one part."""
    return {"library": json.dumps(sorted(_library(folder).items()))}


def _source(folder: Path) -> Path:
    return folder.parent / "source" / "speech_tokenizer"


def _convert(folder: Path, **options: Any) -> None:
    convert(_source(folder), folder / "model", overwrite=True, **options)


def _convert_in_two_steps(folder: Path) -> None:
    """As on a file system that cannot exchange two names."""
    writer.exchange = lambda *_: False  # of this process alone
    _convert(folder, max_shard_size="1MB")


def _model(folder: Path) -> State:
    """The model as whoever loads it by its name finds it."""
    try:
        return {"model": digest(hub.resolve(folder / "model"))}
    except ValueError:
        return {"model": None}


def _archive(folder: Path, seed: int) -> None:
    """An archive of three voices and a direction, and a library that has one of them."""
    library = _fill(folder, seed)
    library.add_direction("low", _direction(seed))
    library.export(folder / "all.zip")
    shutil.rmtree(folder / "voices")
    Library(folder / "voices").add("anna", _vector(50))


def _direction(seed: int) -> Direction:
    voices = np.stack([_vector(seed + i) for i in range(6)])
    return Direction.fit(voices, [0, 1, 0, 1, 0, 1])


def _bare(folder: Path) -> None:
    """A library with a voice in a .npy, which a .safetensors is to replace."""
    _fill(folder, 10).remove("anna")
    np.save(folder / "voices" / "anna.npy", _vector(60))


def _speak(folder: Path, level: float) -> None:
    """The files that `generate` writes."""
    import mlx.core as mx

    speech = Speech(mx.full((4800,), level), 24000, mx.full((3, 16), round(100 * level), mx.int32), "stop")
    generate.write(speech, Namespace(output=str(folder / "out.wav")), Seal())
    generate.write_codes(folder / "codes.npy", speech)


def _files(*names: str) -> Callable[[Path], State]:
    return lambda folder: {name: digest(folder / name) for name in names}


WRITERS = {
    "convert": Writer(lambda folder: None, _convert, _model),
    "convert --overwrite": Writer(_convert, lambda folder: _convert(folder, max_shard_size="1MB"), _model),
    "convert --overwrite in two steps": Writer(_convert, _convert_in_two_steps, _model),
    "export": Writer(
        lambda folder: _fill(folder, 1).export(folder / "all.zip", ["anna"]),
        lambda folder: Library(folder / "voices").export(folder / "all.zip"),
        _files("all.zip"),
    ),
    "import": Writer(
        lambda folder: _archive(folder, 20),
        lambda folder: Library(folder / "voices").import_zip(folder / "all.zip", overwrite=True),
        _together,
    ),
    "add": Writer(
        lambda folder: _fill(folder, 1),
        lambda folder: Library(folder / "voices").add("ben", Voice(_vector(30)), overwrite=True, gender="male"),
        _library,
    ),
    "add over another kind of file": Writer(
        _bare,
        lambda folder: Library(folder / "voices").add("anna", Voice(_vector(30)), overwrite=True),
        _library,
    ),
    "direction": Writer(
        lambda folder: _fill(folder, 1).add_direction("low", _direction(1)),
        lambda folder: Library(folder / "voices").add_direction("low", _direction(2), overwrite=True),
        _library,
    ),
    "generate": Writer(
        lambda folder: _speak(folder, 0.1), lambda folder: _speak(folder, 0.2), _files("out.wav", "codes.npy")
    ),
}


# Killing


def in_child(body: Callable[..., object], *arguments: object) -> tuple[int, Any]:
    """Call a function in a forked process: (exit status, negative for a signal; what it returned, through JSON)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            warnings.simplefilter("ignore")
            data = json.dumps(body(*arguments), default=str).encode()
            while data:
                data = data[os.write(writing, data) :]
            status = 0
        finally:  # whatever it was, nothing of the parent's may run here; a traceback is for stderr
            if status:
                sys.excepthook(*sys.exc_info())  # pyright: ignore[reportArgumentType] there is an exception
                sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, json.loads(data) if data else None


def watched(body: Callable[[Path], object], folder: Path, kill_at: int | None = None) -> list[str]:
    """Run a writer, killed before its `kill_at`-th call, counted from 1. Returns the names of its calls."""
    calls: list[str] = []
    inside = str(folder)

    def count(call: str) -> None:
        calls.append(call)
        if len(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        # Python's own modules are opened too.
        if event in AUDITED and (event != "open" or str(arguments[0]).startswith(inside)):
            count(event)

    def profile(_: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in PROFILED:
            count(called.__name__)

    sys.addaudithook(audit)
    sys.setprofile(profile)
    body(folder)
    sys.setprofile(None)
    return calls


def _listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _finished(one: Writer, folder: Path) -> tuple[State, list[str]]:
    """What is there after a run that nothing stops: (what a user sees, the names of all files)."""
    one.write(folder)
    return one.look(folder), _listing(folder)


def torment(one: Writer, root: Path, choose: Callable[[Sequence[str]], Iterable[int]]) -> tuple[int, list[str]]:
    """Kill a writer before those of its calls that `choose` picks of their number. Returns (kills, what was wrong)."""
    before, folder = root / "before", root / "folder"
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir()
    assert in_child(one.prepare, before)[0] == 0

    def fresh() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder, symlinks=True)
        return folder

    _, old = in_child(one.look, fresh())
    status, calls = in_child(watched, one.write, fresh())
    assert status == 0, "the writer fails by itself"
    _, (new, names) = in_child(_finished, one, fresh())
    wrong, kills = [], 0
    for number in choose(calls):
        status, _ = in_child(watched, one.write, fresh(), number)
        if status == 0 and number > len(calls) - SPARE:
            break
        if status != -signal.SIGKILL:
            wrong.append(f"call {number} of {len(calls)} was not reached: status {status}")
            continue
        kills += 1
        status, seen = in_child(one.look, folder)
        if status:
            wrong.append(f"killed before call {number} of {len(calls)}: what is there cannot be read")
        elif strange := [part for part in {*seen, *old, *new} if seen.get(part) not in (old.get(part), new.get(part))]:
            wrong.append(f"killed before call {number} of {len(calls)}: {', '.join(strange)} neither old nor new")
        status, again = in_child(_finished, one, folder)
        if status:
            wrong.append(f"killed before call {number} of {len(calls)}: the next run fails")
        elif again != [new, names]:
            more = sorted(set(again[1]) ^ set(names))
            wrong.append(
                f"killed before call {number} of {len(calls)}: the next run leaves {', '.join(more) or 'another'}"
            )
    return kills, wrong


def every(calls: Sequence[str]) -> range:
    """All calls; they are counted from 1."""
    return range(1, len(calls) + 1)


def some(calls: Sequence[str]) -> list[int]:
    """Each call by which names change hands and the one after it, and one in the middle of the writing."""
    handing = [number for number, call in enumerate(calls, 1) if call in ("os.rename", "ctypes.dlsym")]
    return sorted({1 + len(calls) // 2, *(place for number in handing[-4:] for place in (number, number + 1))})


def run(
    choose: Callable[[Sequence[str]], Iterable[int]] = every, names: Iterable[str] = tuple(WRITERS)
) -> Iterator[tuple[str, int, list[str]]]:
    """(writer, kills, what was wrong) of one after the other."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        assert in_child(write_checkpoint, folder / "source")[0] == 0
        for name in names:
            yield name, *torment(WRITERS[name], folder, choose)
