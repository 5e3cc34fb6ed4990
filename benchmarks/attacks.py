"""Attacks on the library of voices: many processes at once, and files with random damage.

`crowd` lets processes write to, read, export and search one library. Nobody may be refused or end in a traceback, and
in the end the library holds what the writers say that it holds. `corrupt` damages voices, arrays, archives, indices,
directions, spaces and codes at random. Reading them must give what was there before or an error of this package, within
seconds; where a checksum stands over the bytes, it must never give anything else.
"""

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import Direction, Library, Voice, VoiceSpace
from mlx_qwen3tts.codec import load_codes
from mlx_qwen3tts.errors import NameTaken, QwenTTSError, VoiceNotFound
from mlx_qwen3tts.voices.library.index import INDEX

ROOT = Path(__file__).parents[1]
DIMENSION = 64
SLOW = 10.0  # seconds that a call on a few small files may take, on a machine that does other things too
KINDS = ("voice", "array", "codes", "direction", "space", "index", "archive")


# Many processes


def writer(library: Library, number: int, chance: random.Random) -> None:
    """One thing that a writer does; its own voices are w<number>_<i>, whose vectors begin with its number."""
    name, action = f"w{number}_{chance.randrange(12)}", chance.random()
    vector = np.random.RandomState(chance.randrange(1 << 30)).standard_normal(DIMENSION).astype(np.float32)
    vector[0] = number + 1
    if action < 0.55:
        library.add(name, vector, overwrite=True, mine=str(number))
    elif action < 0.8:
        with contextlib.suppress(VoiceNotFound):
            library.remove(name)
    elif action < 0.9:
        with contextlib.suppress(VoiceNotFound):
            library.tag(name, mood=str(action))
    else:
        with contextlib.suppress(VoiceNotFound, NameTaken):
            library.rename(name, f"{name}x", overwrite=True)


def reader(library: Library, number: int, chance: random.Random) -> None:
    """One thing that a reader does, checked."""
    action, zipped = chance.randrange(4), Path(f"{library.folder}-{number}.zip")
    if action == 0:
        names = library.export(zipped)
        with tempfile.TemporaryDirectory() as folder:
            if sorted(Library(Path(folder) / "new").import_zip(zipped)) != sorted(names):
                raise AssertionError("an export has other voices than it says")
    elif action == 1:
        if not library.search("fixed", 5):
            raise AssertionError("nothing was found")
    else:
        snapshot = Library(library.folder).snapshot() if action == 2 else library.snapshot()
        for name, row in zip(snapshot.names, np.array(snapshot.vectors()), strict=True):
            owner = snapshot.info(name)["attributes"].get("mine", "-1")
            if row[0] != int(owner) + 1:
                raise AssertionError(f"{name} of {owner} has the vector of {row[0] - 1}")


def one_of_them(folder: str, number: int, seconds: float) -> None:
    """What one of the processes does: the even ones write, the odd ones read. Prints how often, and what went wrong."""
    warnings.simplefilter("ignore")
    library, chance, counts = Library(folder), random.Random(number), Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            (reader if number % 2 else writer)(library, number, chance)
            counts["done"] += 1
        except QwenTTSError as error:
            counts["refused"] += 1
            print(f"refused: {error}")
        except Exception:  # noqa: BLE001, what is not ours is what the attack looks for
            counts["tracebacks"] += 1
            print(traceback.format_exc())
    print("counts", *(counts[name] for name in ("done", "refused", "tracebacks")))


def crowd(processes: int, seconds: float) -> tuple[Counter, list[str]]:
    """(how often what happened, what went wrong) of processes that use one library for some seconds."""
    counts: Counter = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "voices"
        for i in range(12):
            Library(folder).add("fixed" if i == 0 else f"fixed{i}", np.eye(12, DIMENSION, 1, np.float32)[i])
        code = "import sys; from benchmarks.attacks import one_of_them as o; o(sys.argv[1], *map(int, sys.argv[2:]))"
        running = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(folder), str(number), str(round(seconds))],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(processes)
        ]
        for process in running:
            try:
                said = process.communicate(timeout=seconds + 120)[0].splitlines()
            except subprocess.TimeoutExpired:
                process.kill()
                counts["hangs"] += 1
                continue
            *lines, last = said or ["nothing"]
            if not last.startswith("counts "):
                lines, last = said, "counts 0 0 1"
            for name, value in zip(("done", "refused", "tracebacks"), last.split()[1:], strict=True):
                counts[name] += int(value)
            wrong += lines
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            after = Library(folder)
            reader(after, 3, random.Random(0))
            left = [file.name for file in folder.iterdir() if "partial" in file.name or "together" in file.name]
        if left or told:
            counts["wrong"] += len(left) + len(told)
            wrong += [*left, *(str(warning.message) for warning in told)]
    return counts, wrong


# Damage


def damage(content: bytes, chance: random.Random) -> bytes:
    """Some bytes of a file changed at random: bits flipped, cut, overwritten, doubled, or words of a format put in."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 5, 30))):
        at = chance.randrange(min(len(data), chance.choice((16, 128, 600, 1 << 30))) or 1)
        kind = chance.randrange(7)
        if kind < 3 and data:
            data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + chance.randrange(1, 40)]
        elif kind == 5:
            data[at:at] = chance.choice(
                (b"9" * 30, b"[" * 3000, b"\0" * 9, b"NaN", b"\xff\xfe", b"PK\x03\x04", b"\\ud800")
            )
        else:
            data[at : at + 8] = chance.choice((b"\xff" * 8, bytes(8), chance.randbytes(8)))
    return bytes(data)


def material(folder: Path) -> None:
    """A library with everything in it, an archive of it, and codes."""
    random_rows = np.random.RandomState(0).standard_normal((12, DIMENSION)).astype(np.float32)
    library = Library(folder / "voices")
    for i, row in enumerate(random_rows):
        library.add(f"v{i}", Voice(row, consent="given"), gender="fm"[i % 2])
    library.add("icl", Voice(random_rows[0], np.arange(32).reshape(2, 16), "one two"))
    library.add("duo", Voice(random_rows[1], recipe={"expression": "a + b", "parents": [{"name": "a"}]}))
    np.save(library.folder / "bare.npy", random_rows[2])
    (library.folder / "list.json").write_text(str(random_rows[3].tolist()))
    library.add_direction("gender", Direction.fit(random_rows, ["f", "m"] * 6))
    VoiceSpace.fit(random_rows).save(library.folder / "space.safetensors")
    library.refresh()
    library.export(folder / "all.zip")
    np.save(folder / "codes.npy", np.arange(64).reshape(4, 16))


def results(folder: Path) -> dict[str, object]:
    """What a library says: {name: (vector, its info)}, and a search."""
    library = Library(folder)
    found: dict[str, object] = {name: (library.vectors([name]).tolist(), library.info(name)) for name in library}
    return {**found, "": library.search(mx.ones(DIMENSION), k=20)}


def attack_file(kind: str, place: Path, chance: random.Random, good: dict[str, object]) -> str | None:
    """Damage one file of a kind and use it. Returns what is wrong with the outcome, or None."""
    voices = place / "voices"
    targets = {
        "voice": [voices / f"{name}.safetensors" for name in ("v0", "icl", "duo")],
        "array": [voices / "bare.npy", voices / "list.json"],
        "codes": [place / "codes.npy"],
        "direction": [voices / "directions" / "gender.safetensors"],
        "space": [voices / "space.safetensors"],
        "index": [voices / INDEX],
        "archive": [place / "all.zip"],
    }
    file = chance.choice(targets[kind])
    content = file.read_bytes()
    damaged = damage(content, chance)
    file.write_bytes(damaged)
    try:
        if kind == "codes":
            load_codes(file)
        elif kind == "archive":
            other = Path(tempfile.mkdtemp(dir=place)) / "new"
            try:
                names = Library(other).import_zip(file)
            except QwenTTSError:
                return "an import that was refused left something" if other.exists() else None
            found = results(other)
            changed = [name for name in names if name in good and found[name] != good[name]]
            # Names stand in the list of contents, over which a zip has no checksum.
            return f"{changed} were imported with other contents" if changed and set(names) <= good.keys() else None
        else:
            if kind == "direction":
                Direction.load(file)
            found = results(voices)
            same = good.keys() - {file.stem, ""} if kind in ("voice", "array") else good.keys() - {""}
            lost = [name for name in same if found.get(name) != good[name]]
            if lost or (kind == "index" and found != good):
                return f"{lost or 'the search'} came out otherwise"
            if damaged != content and kind in ("voice", "array") and file.stem in found:
                fresh = Voice.load(file)
                if found[file.stem][0] != [fresh.embedding.tolist()]:  # type: ignore[index]
                    return f"{file.stem} has the vector that it had before"
    except QwenTTSError:
        return None if kind in ("codes", "direction", "space") else "one bad file refused the others"
    finally:
        file.write_bytes(content)
    return None


class Hangs(BaseException):
    """Not an Exception, which the code that hangs might catch."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Hangs where the block takes longer."""

    def late(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def corrupt(count: int, seed: int = 0, told: Callable[[int], object] = lambda done: None) -> tuple[Counter, list[str]]:
    """(how often what happened, what went wrong) of `count` files with random damage, the kinds in turn."""
    counts: Counter = Counter()
    wrong: list[str] = []
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, work = Path(place) / "good", Path(place) / "work"
        source.mkdir()
        material(source)
        good = results(source / "voices")
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(source, work)
            try:
                with limit(SLOW):
                    outcome = attack_file(kind, work, chance, good)
            except Hangs:
                counts["hangs"] += 1
                wrong.append(f"{number} ({kind}): hangs")
            except Exception:  # noqa: BLE001, what is not ours is what the attack looks for
                counts["tracebacks"] += 1
                wrong.append(f"{number} ({kind}): {traceback.format_exc()}")
            else:
                counts["wrong" if outcome else "right"] += 1
                wrong += [f"{number} ({kind}): {outcome}"] * (outcome is not None)
            told(number)
    return counts, wrong
