"""What may go wrong around a library: stale files, bad files, full disks, hostile archives, others that write too."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mlx_qwen3tts import Direction, Library, Voice, VoiceSpace
from mlx_qwen3tts.errors import InvalidValue, NameTaken, OutputError, QwenTTSError, VoiceNotFound, WrongType
from mlx_qwen3tts.files import together as moving
from mlx_qwen3tts.files.tensors import read_all
from mlx_qwen3tts.files.together import PREFIX, unfinished
from mlx_qwen3tts.voices.library import archive, lock
from mlx_qwen3tts.voices.library.index import INDEX
from tests.voices.real import made

ROOT = Path(__file__).parents[2]
X, NAMES, LABELS = made(speakers=3)
MINIATURE = ROOT / "mlx_qwen3tts" / "miniature" / "voices"


@pytest.fixture
def library(tmp_path):
    library = Library(tmp_path / "voices")
    for i, name in enumerate(NAMES):
        library.add(name, X[i], gender=LABELS["gender"][i])
    library.refresh()
    return library


@contextlib.contextmanager
def said():
    """A list of the warnings that come meanwhile."""
    messages = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield messages
    messages += [str(warning.message) for warning in told]


def same(vector, row):
    return np.array_equal(np.array(vector), np.array(row))


# The index


def replaced(library, name, voice):
    """A voice's file with another voice in it, of the same name, size and time of change."""
    file = library.path(name)
    before = file.stat()
    voice.save(file.with_name("other.safetensors"))
    os.replace(file.with_name("other.safetensors"), file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_voice_of_equal_size_and_time_is_another_voice(library):
    library.add("anna", Voice(X[0], consent="refused"))
    library.refresh()
    replaced(library, "anna", Voice(X[5], consent="unknown"))
    for one in (library, Library(library.folder)):
        assert same(one.vectors(["anna"])[0], X[5]) and one.info("anna")["metadata"]["consent"] == "unknown"


def test_a_clock_that_repeats(library, monkeypatch):
    """Where name, size, inode and all times agree, the content tells."""
    library.add("anna", X[0])
    library.refresh()
    before = library.path("anna").stat()
    with library.path("anna").open("r+b") as file:  # in place, so the inode stays
        content = file.read()
        file.seek(0)
        file.write(content.replace(np.array(X[0]).tobytes(), np.array(X[5]).tobytes()))
    stat = os.DirEntry.stat

    class Entry:
        def __init__(self, entry):
            self.entry, self.name = entry, entry.name

        def __getattr__(self, name):
            return getattr(self.entry, name)

        def stat(self):
            return before if self.name == "anna.safetensors" else stat(self.entry)

    @contextlib.contextmanager
    def scan(folder):
        with real(folder) as found:
            yield [Entry(entry) for entry in found]

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scan)
    assert same(Library(library.folder).vectors(["anna"])[0], X[5])
    (library.folder / "x.txt").touch()  # the folder has changed
    assert same(library.vectors(["anna"])[0], X[5])


def test_two_exports_unpacked_over_each_other(tmp_path):
    """Every file of an export has the same date."""
    for i in (0, 5):
        one = Library(tmp_path / str(i))
        one.add("anna", X[i])
        one.export(tmp_path / f"{i}.zip")
    folder = tmp_path / "unpacked"
    folder.mkdir()
    (folder / ".lock").touch()
    for i in (0, 5):
        subprocess.run([sys.executable, "-m", "zipfile", "-e", tmp_path / f"{i}.zip", folder], check=True)
        os.utime(folder / "anna.safetensors", (315532800, 315532800))
        assert same(Library(folder).vectors()[0], X[i])


def flipped(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_flipped_bits_of_the_index_change_no_result(library):
    wanted = library.search(X[3], k=12)
    index = library.folder / INDEX
    good, names = index.read_bytes(), library.names
    for at in np.random.RandomState(0).randint(8, len(good), 25):
        index.write_bytes(good)
        flipped(index, at)
        with said() as messages:
            other = Library(library.folder)
            assert other.search(X[3], k=12) == wanted and other.names == names
            assert [other.info(name) for name in names] == [library.info(name) for name in names]
        assert len(messages) == 1 and "its index cannot be read and is rebuilt" in messages[0], at


@pytest.mark.parametrize("change", ["file", "digest", "dimension", "norm", "metadata", "attributes", "recipe", "row"])
def test_an_index_whose_entries_lack_a_key(library, change):
    """Even where the checksum was made for it."""
    from mlx_qwen3tts.voices.library import index

    names = library.names
    arrays, metadata = read_all(library.folder / INDEX, "index")
    entries = json.loads(metadata["entries"])
    for entry in entries.values():
        del entry[change]
    metadata["entries"] = json.dumps(entries)
    tensors = {name: np.array(array) for name, array in arrays.items()}
    index_file = library.folder / INDEX
    metadata["checksum"] = index.checksum(metadata["entries"], tensors)
    save_file(tensors, index_file, metadata)
    with said() as messages:
        assert Library(library.folder).names == names
    assert len(messages) == 1 and "its entries are not those of an index" in messages[0]


def test_an_index_of_the_version_before_is_made_anew_without_a_word(library):
    tensors = load_file(library.folder / INDEX)
    save_file(
        tensors, library.folder / INDEX, {"entries": '{"anna": {"stamp": ["anna.npy", 1, 2]}}', "format_version": "1"}
    )
    with said() as messages:
        assert Library(library.folder).names == library.names
    assert not messages


def test_reading_leaves_nothing_where_nothing_was_written_from_here(tmp_path):
    shutil.copytree(MINIATURE, tmp_path / "theirs")
    before = sorted((tmp_path / "theirs").iterdir())
    theirs = Library(tmp_path / "theirs")
    assert len(theirs.search("voice01", k=3)) == 3 and theirs.export(tmp_path / "x.zip")
    assert sorted((tmp_path / "theirs").iterdir()) == before
    theirs.tag("voice01", mine="yes")  # from now on it is ours
    assert Library(tmp_path / "theirs").names and (tmp_path / "theirs" / INDEX).exists()
    assert not list(MINIATURE.glob(".*"))


# Files that are not voices


def bad_files(folder):
    """{name of a bad file: what makes it bad}, in a library's folder."""
    good = folder / "good.npy"
    np.save(good, np.array(X[0]))
    plain = good.read_bytes()
    (folder / "zip.npy").write_bytes(b"PK\x03\x04" + plain)
    (folder / "torn.npy").write_bytes(plain.replace(b"(64,)", b"((64,"))
    (folder / "long.npy").write_bytes(plain.replace(b"(64,), }" + b" " * 30, b"(" + b"9" * 30 + b",), } "))
    (folder / "loop.json").symlink_to(folder / "loop.json")
    (folder / "gone.json").symlink_to(folder / "nothing.json")
    (folder / "folder.npy").mkdir()
    (folder / "lone.safetensors").write_bytes(b"\x1c" + bytes(7) + b'{"__metadata__":{"a":"\\ud8"}}')
    os.mkfifo(folder / "pipe.npy")
    with (folder / "large.npy").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with open(os.fsencode(folder) + b"/\xff.npy", "wb") as file:
        file.write(plain)
    with open(folder / "red\x1b[31m.npy", "wb") as file:
        file.write(plain)
    return ["zip", "torn", "long", "loop", "gone", "folder", "lone", "pipe", "large", r"\\udcff", r"red\\x1b"]


def test_one_bad_file_is_named_once_and_passed_over(library, command, tmp_path):
    bad = bad_files(library.folder)
    with said() as messages:
        one = Library(library.folder)
        assert one.names == sorted([*NAMES, "good"]) and one["good"].dimension == 64
        assert one.export(tmp_path / "all.zip") == one.names and len(one.search("good", k=20)) == len(NAMES)
        one.add("new", X[1])
        assert one.names == sorted([*NAMES, "good", "new"])
    for name in bad:
        assert sum(f"{name.replace(chr(92) * 2, chr(92))}" in message for message in messages) == 1, (name, messages)
    assert len(messages) == len(bad)
    for line in (["list"], ["show", "good"], ["search", "good"], ["tag", "good2", "a=b"], ["remove", NAMES[0]]):
        if line[0] == "tag":
            Library(library.folder).add("good2", X[2])
        ran = command("voices", *line)
        assert ran.status == 0, ran.err


def test_an_unreadable_file_is_passed_over(library, monkeypatch):
    read = Path.read_bytes

    def fail(path):
        if path.name == "s0_e0.safetensors":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.warns(UserWarning, match=r"skipped s0_e0.safetensors: it cannot be read: Input/output error"):
        assert Library(library.folder).names == NAMES[1:]


def test_a_bad_space_or_direction_does_not_stop_the_others(library, command):
    (library.folder / "space.safetensors").write_bytes(b"x")
    library.add_direction("gender", Direction.fit(X, LABELS["gender"]))
    (library.folder / "directions" / "bad.safetensors").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"skipped voice space .*space.safetensors"):
        found = library.search(X[0], k=3)
    (library.folder / "space.safetensors").unlink()
    assert library.search(X[0], k=3) == found
    ran = command("voices", "show", NAMES[0])
    assert ran.status == 0 and "@gender" in ran.out and "skipped direction" in ran.err
    with pytest.raises(QwenTTSError, match=r"direction .*bad.safetensors"):
        library.search("@bad")


@pytest.mark.parametrize(
    "call",
    [
        lambda library: library[[]],
        lambda library: library[5],
        lambda library: library.path({}),
        lambda library: library.info([]),
        lambda library: library.remove([]),
        lambda library: library.tag([], a="b"),
        lambda library: library.rename([], "a"),
        lambda library: library.rename("s0_e0", []),
        lambda library: library.direction([]),
        lambda library: library.add_direction("a", X[0]),
        lambda library: library.where(None),
        lambda library: library.where("gender"),
        lambda library: library.vectors(0),
        lambda library: library.vectors("s0_e0"),
        lambda library: library.vectors([[]]),
        lambda library: library.export(5),
        lambda library: library.export("a.zip", "s0_e0"),
        lambda library: library.import_zip(5),
        lambda library: library.import_zip("a.zip", overwrite="yes"),
        lambda library: library.search(X[0], where="gender"),
        lambda library: library.add("x", X[0], overwrite=1),
    ],
)
def test_wrong_types_are_ours(library, call):
    with pytest.raises(WrongType):
        call(library)
    assert [] not in library and 5 not in library


# Reading while others write


def test_a_voice_that_vanishes_between_listing_and_reading(library, tmp_path, monkeypatch):
    def vanish(name):
        (library.folder / f"{name}.safetensors").unlink()

    snapshot = library.snapshot()
    vanish("s0_e0")
    assert snapshot.names == NAMES and same(snapshot.vectors()[0], X[0]) and snapshot.info("s0_e0")["dimension"] == 64
    monkeypatch.setattr(library, "snapshot", lambda: snapshot)
    assert (
        library.export(tmp_path / "all.zip")
        == NAMES[1:]
        == [Path(name).stem for name in zipfile.ZipFile(tmp_path / "all.zip").namelist()]
    )
    with pytest.raises(VoiceNotFound, match="'s0_e0' is no longer in library"):
        library.export(tmp_path / "one.zip", ["s0_e0"])
    assert not (tmp_path / "one.zip").exists()
    monkeypatch.undo()
    # between the listing and the reading of a new Index
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: (path.name == "s0_e1.safetensors" and path.unlink()) or read(path)
    )
    with said() as messages:
        (library.folder / INDEX).unlink()
        assert Library(library.folder).names == NAMES[2:]
    assert not messages


@pytest.mark.parametrize("line", ["list", "show s1_e1", "map -o m.png", "export x.zip"])
def test_commands_see_one_moment(library, command, line, monkeypatch):
    """The voice that goes after the library was listed is not asked for again."""
    snapshot, gone = Library.snapshot, library.folder / "s0_e0.safetensors"

    def listed(self):
        found = snapshot(self)
        gone.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Library, "snapshot", listed)
    ran = command("voices", *line.split())
    assert ran.status == 0 and not gone.exists(), ran.err


def test_a_voice_whose_file_changes_its_kind_is_found(library, monkeypatch):
    path = Library.path

    def first(self, name):
        monkeypatch.setattr(Library, "path", path)
        found = path(self, name)
        found.unlink()
        np.save(found.with_suffix(".npy"), np.array(X[0]))
        return found

    monkeypatch.setattr(Library, "path", first)
    assert same(library["s0_e0"].embedding, X[0])


def test_a_lock_is_waited_for_and_given_up(library, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(lock.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + 0.4))
    with (
        library.locked(),
        pytest.raises(OutputError, match="has been locked by another process for 30 s"),
        pytest.warns(UserWarning, match="waiting for another process that is writing to it") as told,
    ):
        Library(library.folder).add("x", X[0])
    assert len(told) == 1 and 30 < clock[0] < 31
    library.add("x", X[0])  # it was given back


def test_a_lock_that_is_given_back_in_time(library, monkeypatch):
    held = library.locked()
    held.__enter__()
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: held.__exit__(None, None, None))
    with said() as messages:
        Library(library.folder).add("x", X[0])
    assert not messages and "x" in library


# Archives


def zipped(path, members, pack=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", pack) as file:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename = name
            file.writestr(info, content, pack)


@pytest.fixture
def plain(tmp_path):
    """The bytes of a voice."""
    np.save(tmp_path / "plain.npy", np.array(X[0]))
    return (tmp_path / "plain.npy").read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "'' is not the name of a file"),
        (".", "'.' is not the name of a file"),
        ("CON.npy", "name 'CON': Windows keeps this name for a device"),
        ("lpt1.old.npy", "Windows keeps this name for a device"),
        ("directions/aux.safetensors", "Windows keeps this name"),
        ("a:b.npy", "name 'a:b': Windows allows no : in a name"),
        ("what?*.npy", r"Windows allows no \* \? in a name"),
        ("a..npy", "name 'a.': Windows drops a dot at the end"),
        ("Anna.npy", "name 'Anna': macOS and Windows cannot tell it from 'anna'"),
        ("S0_E0.npy", "name 'S0_E0': macOS and Windows cannot tell it from 's0_e0', which library"),
        ("directions/Gender.safetensors", "cannot tell it from 'gender', which library"),
    ],
)
def test_names_that_other_systems_cannot_hold(library, tmp_path, plain, name, message):
    direction = Direction.fit(X, LABELS["gender"])
    library.add_direction("gender", direction)
    direction.save(tmp_path / "d.safetensors")
    content = (tmp_path / "d.safetensors").read_bytes() if "/" in name else plain
    zipped(tmp_path / "bad.zip", [("anna.npy", plain), (name, content)])
    before = sorted(tmp_path.rglob("*"))
    for overwrite in (False, True):
        with pytest.raises(InvalidValue, match=message):
            library.import_zip(tmp_path / "bad.zip", overwrite)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["CON", "a:b", "a.", "S0_E0"])
def test_such_names_are_warned_of_where_they_are_given(library, name):
    with pytest.warns(UserWarning, match="such a library cannot be imported"):
        library.add(name, X[0])
    with pytest.warns(UserWarning, match="such a library cannot be imported"):
        library.rename("s1_e1", "AUX")
    with said() as messages:
        library.add("S9", X[0])
        library.rename("s1_e2", "S1_E2")  # its own name, spelt otherwise
    assert not messages and {"S9", "S1_E2", "AUX"} <= set(library.names)


def test_an_archive_that_unpacks_to_too_much(library, tmp_path, plain, monkeypatch):
    voices = [(f"v{i}.npy", plain + bytes(1 << 20)) for i in range(4)]  # NumPy takes what stands behind an array
    zipped(tmp_path / "bomb.zip", voices)
    size = (tmp_path / "bomb.zip").stat().st_size
    before = sorted(tmp_path.rglob("*"))
    zipped(tmp_path / "stored.zip", voices, zipfile.ZIP_STORED)
    monkeypatch.setattr(archive.zipfile.ZipFile, "open", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(InvalidValue, match=rf"has {size} bytes and would unpack to {4 * len(voices[0][1])}"):
        library.import_zip(tmp_path / "bomb.zip")
    monkeypatch.setattr(archive, "Limits", partial(archive.Limits, total=3 << 20))
    with pytest.raises(InvalidValue, match="would unpack to"):
        library.import_zip(tmp_path / "stored.zip")
    monkeypatch.setattr(archive, "Limits", partial(archive.Limits, files=3))
    with pytest.raises(InvalidValue, match="has 4 files; a library has at most 3"):
        library.import_zip(tmp_path / "bomb.zip")
    (tmp_path / "stored.zip").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_that_is_a_pipe(library, tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(InvalidValue, match="not a regular file"):
        library.import_zip(tmp_path / "pipe.zip")


def twenty(tmp_path):
    """An archive of twenty voices, some of which replace others, with a direction and a space."""
    other = Library(tmp_path / "other")
    for i in range(20):
        other.add(f"s0_e{i}", X[i % len(NAMES)] + 1)
    other.add_direction("gender", Direction.fit(X, LABELS["gender"]))
    VoiceSpace.fit(X).save(other.folder / "space.safetensors")
    other.export(tmp_path / "twenty.zip")
    return tmp_path / "twenty.zip"


def contents(folder):
    """{file: its bytes} of a library, but for its lock and its index."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name not in (INDEX, ".lock")
    }


@pytest.mark.parametrize("after", [0, 5, 12, 21])
@pytest.mark.parametrize("new", [True, False])
def test_a_disk_that_fills_leaves_none_of_it(library, tmp_path, after, new, monkeypatch):
    """The write of one file fails, be it the first or the last."""
    path, folder = twenty(tmp_path), tmp_path / "new" if new else library.folder
    np.save(library.folder / "s0_e9.npy", np.array(X[0]))  # which another kind of file would replace
    before, write, done = contents(library.folder), Path.write_bytes, []

    def full(path, content):
        if len(done) == after:
            write(path, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(write(path, content))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        Library(folder).import_zip(path, overwrite=True)
    assert len(done) == after and (not folder.exists() if new else contents(folder) == before)


def moves(monkeypatch, fail):
    """Let every move into or out of a library's folder call `fail` with its number first."""
    move, count = os.replace, [0]

    def replace(source, target):
        if Path(source).parent != Path(target).parent:  # not a file's own temporary sibling
            count[0] += 1
            fail(count[0])
        return move(source, target)

    monkeypatch.setattr(moving.os, "replace", replace)
    return count


@pytest.mark.parametrize("at", [1, 3, 6, 20, 27])
def test_a_move_that_fails_is_taken_back(library, tmp_path, at, monkeypatch):
    path = twenty(tmp_path)
    np.save(library.folder / "s0_e9.npy", np.array(X[0]))
    before = contents(library.folder)

    def fail(number):
        if number == at:
            raise OSError(errno.EIO, "Input/output error")

    moves(monkeypatch, fail)
    with pytest.raises(OutputError, match="Input/output error"):
        library.import_zip(path, overwrite=True)
    assert contents(library.folder) == before
    monkeypatch.undo()
    assert len(library.import_zip(path, overwrite=True)) == 20 and not (library.folder / "s0_e9.npy").exists()


class Killed(BaseException):
    """As if the process had ended here: nothing after it is done, not even what tidies up."""


@pytest.mark.parametrize("at", [1, 2, 6, 20, 26])
def test_an_import_that_is_killed_is_finished_by_the_next(library, tmp_path, at):
    path = twenty(tmp_path)
    np.save(library.folder / "s0_e9.npy", np.array(X[0]))
    code = f"""
import os, sys
from mlx_qwen3tts import Library
from mlx_qwen3tts.files import together
move, count = os.replace, [0]
def replace(source, target):
    if os.path.dirname(source) != os.path.dirname(target):
        count[0] += 1
        if count[0] == {at}:
            os._exit(9)
    return move(source, target)
together.os.replace = replace
Library(sys.argv[1]).import_zip(sys.argv[2], overwrite=True)
"""
    done = subprocess.run([sys.executable, "-c", code, library.folder, path], cwd=ROOT)
    assert done.returncode == 9 and unfinished(library.folder)
    wanted = contents(tmp_path / "other")
    found = Library(library.folder)
    assert {f"s0_e{i}" for i in range(20)} <= set(found.names)  # seen together by whoever reads next
    after = contents(library.folder)
    assert after == {**after, **wanted} and "s0_e9.npy" not in after and not list(library.folder.glob(f"{PREFIX}*"))


def test_litter_is_removed_by_the_next_writer_alone_where_nobody_owns_it(library):
    (library.folder / f"{PREFIX}dead").mkdir()
    (library.folder / f"{PREFIX}dead" / "s0_e0.npy").write_bytes(b"half")
    with moving.together(library.folder) as living:
        living.place("x.npy").write_bytes(b"half")
        library.add("new", X[0])
        assert [file.name for file in library.folder.glob(f"{PREFIX}*")] == [living.hidden.name]
    assert not list(library.folder.glob(f"{PREFIX}*"))


def test_readers_wait_for_an_import_that_is_moving_its_files(library, tmp_path, monkeypatch):
    """Half of an import is never seen: a reader that comes in its middle has all of it."""
    path, seen = twenty(tmp_path), []
    reader = threading.Thread(target=lambda: seen.extend(Library(library.folder).names))

    def fail(number):
        if number == 20:
            reader.start()
            reader.join(0.2)
            assert reader.is_alive() and not seen

    moves(monkeypatch, fail)
    library.import_zip(path, overwrite=True)
    reader.join(10)
    assert {f"s0_e{i}" for i in range(20)} <= set(seen)


def test_renaming(library):
    library.rename("s0_e0", "anna")
    assert same(library["anna"].embedding, X[0]) and "s0_e0" not in library
    assert library["anna"].attributes == {"gender": LABELS["gender"][0]}
    with pytest.raises(NameTaken, match="has a voice 's0_e1' already"):
        library.rename("anna", "s0_e1")
    np.save(library.folder / "bare.npy", np.array(X[5]))
    assert library.rename("bare", "s0_e1", overwrite=True).name == "s0_e1.npy"
    assert same(library["s0_e1"].embedding, X[5]) and not (library.folder / "s0_e1.safetensors").exists()
    for name, new, error in (
        ("nobody", "x", VoiceNotFound),
        ("anna", "a/b", InvalidValue),
        ("anna", "anna", InvalidValue),
    ):
        with pytest.raises(error):
            library.rename(name, new)
