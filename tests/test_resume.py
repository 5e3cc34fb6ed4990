"""`generate --batch-size --resume`: what is spoken stays, what is not is spoken, what has changed is spoken anew."""

import json
from pathlib import Path

import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts.files.progress import RECORD, Progress
from mlx_qwen3tts.synthesis.loop import Generation
from mlx_qwen3tts.synthesis.speech import Speech

LINES = ["One.", "Two, three.", "Four.", "Five."]
NAMES = [f"{number:04d}.wav" for number in range(1, 5)]


@pytest.fixture
def speak(command, checkpoint, tmp_path, monkeypatch):
    """A function that speaks LINES in a folder and returns how it went and the numbers of the files that it wrote."""
    np.save(tmp_path / "voice.npy", vector(64, 1))
    (tmp_path / "lines.txt").write_text("\n".join(LINES))
    run = ("generate", "--model", checkpoint("base"), "--embedding", "voice.npy", "--text-file", "lines.txt", "--json")
    run = (*run, "--batch-size", "1", "--max-tokens", "4", "--output", "spoken")
    wrote, save = [], Speech.save

    def saved(self, path, **more):
        save(self, path, **more)
        wrote.append(Path(path).name)

    monkeypatch.setattr(Speech, "save", saved)

    def go(*options, seed="1"):
        wrote.clear()
        ran = command(*run, *(("--seed", seed) if seed else ()), *options)
        return ran, list(wrote)

    return go


@pytest.fixture
def stop(monkeypatch):
    """A function that makes the process be interrupted, or fail, in the second frame of a text."""

    def at(text, error=KeyboardInterrupt):
        enqueue = Generation.enqueue

        def stopped(self):
            if self.rows and self.rows[0].number == text and self.rows[0].tokens == 2:
                raise error
            return enqueue(self)

        monkeypatch.setattr(Generation, "enqueue", stopped)
        return lambda: monkeypatch.setattr(Generation, "enqueue", enqueue)

    return at


def contents(folder="spoken"):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_it_goes_on_where_it_stopped(speak, stop, error, tmp_path):
    ran, wrote = speak("--output", "whole")
    assert ran.status == 0 and wrote == NAMES == sorted(contents("whole")), "nothing else is left in the folder"
    go_on = stop(2, error)
    if error is KeyboardInterrupt:
        ran, wrote = speak()
        assert ran.status == 130 and "what was spoken so far is kept; --resume goes on" in ran.err
        assert wrote == NAMES[:3], "of the third, what there was"
    else:
        with pytest.raises(error):
            speak()
    assert RECORD in contents()
    go_on()
    ran, wrote = speak("--resume")
    assert ran.status == 0 and wrote == NAMES[2:] and "2 of 4 texts were spoken before" in ran.err
    assert "warning: text 3 did not end" in ran.err and "text 1" not in ran.err, "they keep their numbers"
    assert [row["output"] for row in json.loads(ran.out)["texts"]] == [str(Path("spoken") / name) for name in NAMES[2:]]
    assert contents() == contents("whole")


@pytest.mark.parametrize(
    "change",
    ["text", "voice", "seed", "option", "rate", "mark", "removed", "codes", "without", "half a line", "no seed"],
)
def test_only_what_is_the_same_counts(speak, stop, change, tmp_path):
    seed = None if change == "no seed" else "1"
    go_on = stop(2)
    speak(seed=seed)
    go_on()
    more, left = ["--resume"], NAMES
    if change == "text":
        (tmp_path / "lines.txt").write_text("\n".join(["Nine.", *LINES[1:]]))
        left = [NAMES[0], *NAMES[2:]]
    elif change == "voice":
        np.save(tmp_path / "voice.npy", vector(64, 2))
    elif change == "seed":
        seed = "2"
    elif change == "option":
        more += ["--top-k", "3"]
    elif change == "rate":
        more += ["--rate", "1.2"]
    elif change == "mark":
        more += ["--mark"]
    elif change == "removed":
        Path("spoken", NAMES[1]).unlink()
        left = NAMES[1:]
    elif change == "codes":
        more += ["--codes-output", "codes"]  # which the first run did not write
    elif change == "without":
        more = []
    elif change == "half a line":
        record = Path("spoken", RECORD)
        record.write_bytes(record.read_bytes()[:-20])
        left = NAMES[1:]
    else:
        left = NAMES[2:]  # a random seed is as good as another
    ran, wrote = speak(*more, seed=seed)
    assert ran.status == 0 and wrote == left
    assert sorted(contents()) == NAMES


def test_a_record_behind_half_a_line_counts(tmp_path):
    progress = Progress(tmp_path, resume=False)
    progress.add("a", "1")
    (tmp_path / RECORD).write_bytes((tmp_path / RECORD).read_bytes() + b'{"file": "b", "id\xff')
    again = Progress(tmp_path, resume=True)
    again.add("c", "3")
    for name in "abc":
        (tmp_path / name).touch()
    last = Progress(tmp_path, resume=True)
    assert [last.has(name, identity) for name, identity in (("a", "1"), ("b", "2"), ("c", "3"), ("c", "4"))] == [
        True,
        False,
        True,
        False,
    ]
    forgetful = Progress(tmp_path, resume=False)
    assert not forgetful.has("a", "1") and Progress(tmp_path, resume=True).has("a", "1"), "until there is something new"
    forgetful.add("b", "2")
    assert (tmp_path / RECORD).read_text().split() == ['{"file":', '"b",', '"identity":', '"2"}']


def test_it_belongs_to_a_batch(refused, checkpoint):
    run = ("generate", "--model", checkpoint("base"), "--voice", "x", "--resume", "Hello.")
    assert refused(*run) == "--resume goes on with a batch: it belongs to --batch-size"
