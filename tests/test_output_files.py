"""Files that are written keep the mode, the link and the kind that they had, and are never files that are read."""

import errno
import fcntl
import os
import shutil
import stat
import threading

import numpy as np
import pytest

from convert.parity import recording, vector
from mlx_qwen3tts import Library, Voice
from mlx_qwen3tts.checkpoint import hub, writer
from mlx_qwen3tts.checkpoint.writer import whole_folder
from mlx_qwen3tts.errors import OutputError
from mlx_qwen3tts.files import exchange as exchanging
from mlx_qwen3tts.files.exchange import exchange, replaced, restore
from mlx_qwen3tts.files.output import check_not_read, check_writable, claim, whole_file


def write(path, content="new"):
    with whole_file(path) as temporary:
        temporary.write_text(content)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    return path


# Mode


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o666, 0o755])
def test_a_file_keeps_its_mode(bits, file):
    file.chmod(bits)
    with whole_file(file) as temporary:
        assert not mode(temporary) & ~(bits | 0o200)  # nobody reads it meanwhile who could not read the old one
        temporary.write_text("new")
    assert mode(file) == bits and file.read_text() == "new"


def test_tagging_a_private_voice_keeps_it_private(tmp_path):
    library = Library(tmp_path / "voices")
    path = library.add("anna", vector(64, 1))
    path.chmod(0o600)
    library.tag("anna", gender="female")
    assert mode(path) == 0o600 and library.info("anna")["attributes"] == {"gender": "female"}


def test_a_folder_that_is_replaced_keeps_its_mode(tmp_path):
    path = tmp_path / "model"
    path.mkdir(mode=0o700)
    (path / "old").touch()
    with whole_folder(path, overwrite=True) as temporary:
        (temporary / "new").touch()
    assert mode(path) == 0o700 and os.listdir(path) == ["new"]


def test_the_umask_is_never_touched(tmp_path, monkeypatch):
    """For an instant it would hold for the files of all threads."""
    previous = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)
        write(tmp_path / "a.txt")
        with whole_folder(tmp_path / "model"):
            pass
    finally:
        monkeypatch.undo()
        os.umask(previous)
    assert (mode(tmp_path / "a.txt"), mode(tmp_path / "model")) == (0o640, 0o750)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_a_file_keeps_its_owner(file, monkeypatch):
    os.chown(file, 1234, 4321)
    file.chmod(0o664)
    write(file)
    assert (file.stat().st_uid, file.stat().st_gid, mode(file)) == (1234, 4321, 0o664)

    def refuse(*_):
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    write(file)
    assert mode(file) == 0o604  # what a group might do is not what another group may


# Links and kinds


def test_a_link_stays_one(file, tmp_path):
    (tmp_path / "else").mkdir()
    link = tmp_path / "else" / "link.txt"
    link.symlink_to("../a.txt")
    write(link)
    assert link.is_symlink() and file.read_text() == "new"
    file.unlink()
    write(link, "again")  # it points to nothing now
    assert link.is_symlink() and file.read_text() == "again"
    shutil.rmtree(tmp_path / "else")
    (tmp_path / "lost.txt").symlink_to("nowhere/a.txt")
    with pytest.raises(OutputError, match=r"lost\.txt is a link into a folder that does not exist"):
        check_writable(tmp_path / "lost.txt")
    (tmp_path / "round.txt").symlink_to("round.txt")
    with pytest.raises(OutputError, match=r"round\.txt is a link that leads back to itself"):
        write(tmp_path / "round.txt")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "lost.txt", "round.txt"]


def test_a_pipe_stays_one(tmp_path):
    pipe, heard = tmp_path / "pipe.wav", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    check_writable(pipe)
    write(pipe, "sound")
    reader.join()
    assert heard == ["sound"] and stat.S_ISFIFO(pipe.stat().st_mode) and os.listdir(tmp_path) == ["pipe.wav"]


def test_a_device_stays_one():
    write("/dev/null")
    if os.path.exists("/dev/full"):
        with pytest.raises(OutputError, match="cannot write /dev/full: No space left on device"):
            write("/dev/full")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


# What killed runs leave


def test_what_a_killed_run_left_is_removed_and_a_living_one_is_left_alone(tmp_path):
    path = tmp_path / "a.txt"
    for number in (0, 1):
        (tmp_path / f".a-partial-{number}.txt").write_text("dead")
    write(path)
    assert os.listdir(tmp_path) == ["a.txt"]
    with claim(path, ".txt") as other:
        other.write_text("living")
        write(path)
        assert other.read_text() == "living" and sorted(os.listdir(tmp_path)) == [other.name, "a.txt"]
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_name_that_is_taken_again_in_between_is_not_removed(tmp_path):
    """Once a file has its final name, its temporary one is free for other processes."""
    path = tmp_path / "a.txt"
    with claim(path, ".txt") as temporary:
        os.replace(temporary, path)
        temporary.write_text("somebody else's")
    assert temporary.read_text() == "somebody else's"


def test_where_nothing_can_be_locked(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".a-partial-0.txt").write_text("whose?")
    write(tmp_path / "a.txt")
    assert sorted(os.listdir(tmp_path)) == [".a-partial-0.txt", "a.txt"]


def test_a_long_name(tmp_path):
    path = tmp_path / ("ü" * 120 + ".txt")  # 244 bytes of 255
    write(path)
    assert os.listdir(tmp_path) == [path.name]


# Folders in the place of others


@pytest.fixture
def folders(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    return tmp_path / "old", tmp_path / "new"


def test_two_names_are_exchanged_in_one_step(folders):
    old, new = folders
    if not exchange(new, old):
        pytest.skip("this file system cannot")
    assert os.listdir(old) == ["new"] and os.listdir(new) == ["old"]
    assert not exchange(new, old / "nowhere") and os.listdir(new) == ["old"]


def test_a_system_that_cannot_exchange(folders, monkeypatch):
    monkeypatch.setattr(exchanging.ctypes, "CDLL", lambda *_, **__: object())
    assert not exchange(*folders)
    writer.take_name(folders[1], folders[0], overwrite=True)
    assert os.listdir(folders[0]) == ["new"] and os.listdir(folders[0].parent) == ["old"]


def test_a_rename_that_fails_puts_the_old_folder_back(folders, monkeypatch):
    old, new = folders
    rename = os.rename

    def fail(source, target):
        if source == new:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(writer, "exchange", lambda *_: False)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        writer.take_name(new, old, overwrite=True)
    assert os.listdir(old) == ["old"] and sorted(os.listdir(old.parent)) == ["new", "old"]


def test_loading_a_name_restores_what_was_killed_between_two_renames(folders):
    old, _ = folders
    old.rename(replaced(old))
    assert hub.resolve(old) == old and os.listdir(old) == ["old"]
    replaced(old).mkdir()
    restore(old)  # the new one has the name: what waits is removed
    assert os.listdir(old) == ["old"] and not replaced(old).exists()


# Files that are read


def test_a_file_that_is_read_is_known_under_every_name(file, tmp_path):
    os.link(file, tmp_path / "hard.txt")
    (tmp_path / "soft.txt").symlink_to(file)
    for name in ("a.txt", "hard.txt", "soft.txt", "./a.txt"):
        with pytest.raises(OutputError, match=r"is the input .*a\.txt as well, which it would replace"):
            check_not_read(tmp_path / name, None, "nowhere", "anna\0", "x" * 300, file)
    check_not_read(tmp_path / "other.txt", file)


@pytest.fixture
def folder(tmp_path, checkpoint):
    recording(tmp_path / "anna.wav", 1, 3.1)
    np.save(tmp_path / "v.npy", vector(64, 1))
    np.save(tmp_path / "codes.npy", np.zeros((2, 16), np.int32))
    os.link(tmp_path / "codes.npy", tmp_path / "codes.wav")
    os.link(tmp_path / "anna.wav", tmp_path / "anna.npy")
    os.link(tmp_path / "anna.wav", tmp_path / "anna.rttm")
    os.link(tmp_path / "v.npy", tmp_path / "v.wav")
    (tmp_path / "out").mkdir()
    (tmp_path / "lines.txt").write_text("One.\nTwo.\n")
    os.link(tmp_path / "lines.txt", tmp_path / "out" / "0002.wav")
    library = Library(tmp_path / "voices")
    for seed, name in enumerate(("ben", "carl")):
        library.add(name, vector(64, seed + 2))
    (tmp_path / "all.zip").symlink_to("voices/ben.safetensors")
    (tmp_path / "labels.csv").write_text("name,x\nben,1\ncarl,2\n")
    (tmp_path / "labels.safetensors").symlink_to("labels.csv")
    (tmp_path / "voices" / "directions").mkdir()
    shutil.copy(tmp_path / "voices" / "ben.safetensors", tmp_path / "voices" / "directions" / "low.safetensors")
    (tmp_path / "steps").mkdir()
    Voice(vector(64, 4)).save(tmp_path / "steps" / "01.safetensors")
    return tmp_path


COMMANDS = {
    "generate --ref-audio anna.wav --output anna.wav Hello.": "anna.wav",
    "generate --embedding v.npy --output v.wav Hello.": "v.npy",
    "generate --voice v.npy --codes-output v.npy Hello.": "v.npy",
    "generate --voice v.npy*0.5+ben*0.5 --codes-output v.npy Hello.": "v.npy",
    "generate --voice ben --morph-to v.npy --codes-output v.npy Hello.": "v.npy",
    "generate --embedding v.npy --batch-size 2 --text-file lines.txt --output out": "lines.txt",
    "embed anna.wav --output anna.npy": "anna.wav",
    "codec encode anna.wav --output anna.npy": "anna.wav",
    "codec decode codes.npy --output codes.wav": "codes.npy",
    "diarize anna.wav --output anna.rttm": "anna.wav",
    "voices blend ben+carl --output voices/carl.safetensors": "voices/carl.safetensors",
    "voices interp ben steps/01.safetensors --output steps": "steps/01.safetensors",
    "voices apply v.npy @low --strength 1 --output v.npy": "v.npy",
    "voices apply v.npy low --strength 1 --output voices/directions/low.safetensors": (
        "voices/directions/low.safetensors"
    ),
    "voices measure labels.csv --output labels.csv": "labels.csv",
    "voices direction fit --csv labels.csv --column x --output labels.safetensors": "labels.csv",
    "voices direction orthogonal low high --output voices/directions/low.safetensors": (
        "voices/directions/low.safetensors"
    ),
    "voices space --csv labels.csv --output labels.safetensors": "labels.csv",
    "voices export all.zip": "voices/ben.safetensors",
}


@pytest.mark.parametrize("line", COMMANDS)
def test_no_command_writes_over_what_it_reads(line, folder, command, checkpoint):
    before = {path: path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}
    name, *rest = line.split()
    model = () if name == "voices" else ("--model", checkpoint("base"))
    arguments = (*rest[:1], *model, *rest[1:]) if name == "codec" else (*model, *rest)
    ran = command("voices.__main__" if name == "voices" else name, *arguments)
    assert ran.status == 2 and ran.out == "", ran.err
    assert ran.lines[-1].startswith("error: output ") and f"is the input {COMMANDS[line]} as well" in ran.lines[-1]
    assert {path: path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()} == before
