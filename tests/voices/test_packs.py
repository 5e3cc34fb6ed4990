"""Packs: voices by the thousand in two files, found by name and by search, in memory, by reading, and by an index."""

import errno
import importlib.util
import json
import os

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts import Direction, Library, Voice, VoiceSpace
from mlx_qwen3tts.errors import InvalidValue, MissingExtra, NameTaken, OutputError, UnsupportedValue, VoiceError
from mlx_qwen3tts.voices.library import indexing, packs
from mlx_qwen3tts.voices.library.memory import SETTING, room
from mlx_qwen3tts.voices.lookup import Lookup
from tests.voices.real import made

X, NAMES, LABELS = made()
COUNT = 2000
lance = pytest.mark.skipif(importlib.util.find_spec("lancedb") is None, reason="lancedb is missing (extra lance)")


def crowd(count=COUNT, seed=3):
    """[count, 64] float32: the made-up voices, each moved a little."""
    random = np.random.RandomState(seed)
    moves = random.standard_normal((count, 64)) * 0.1
    return (np.array(X)[random.randint(len(NAMES), size=count)] + moves).astype(np.float32)


CROWD = crowd()


@pytest.fixture
def library(tmp_path):
    library = Library(tmp_path / "voices")
    for i in range(12):
        library.add(NAMES[i], X[i], kind="single")
    np.save(tmp_path / "crowd.npy", CROWD)
    (tmp_path / "crowd.txt").write_text("".join(f"nr {i}\n" for i in range(COUNT)))
    library.import_pack(tmp_path / "crowd.npy", tmp_path / "crowd.txt", consent="given", kind="many")
    return library


def expected(library, x, lowest=False):
    """[(name, similarity)] of all voices, best first, by the space that the library has."""
    rows = np.concatenate([np.array(library.vectors()), CROWD])
    likeness = np.array(library.space(64).similarity(mx.array(rows), x))
    names = [*library.names, *(f"crowd/nr {i}" for i in range(COUNT))]
    return [(names[i], likeness[i]) for i in np.argsort(likeness if lowest else -likeness)]


def check(found, right):
    assert [name for name, _ in found] == [name for name, _ in right[: len(found)]]
    assert np.allclose([score for _, score in found], [score for _, score in right[: len(found)]], atol=1e-5)


def test_voices_of_a_pack_have_names(library):
    assert len(library) == 12 and "crowd/nr 7" in library and "crowd/nr" not in library and "crowd" not in library
    voice = library["crowd/nr 7"]
    assert np.array_equal(np.array(voice.embedding), CROWD[7]) and voice.name == "crowd/nr 7"
    assert voice.consent == "given" and voice.attributes == {"kind": "many"}
    blend = Lookup(library).voice(f'"crowd/nr 7"*0.5 + {NAMES[0]}*0.5')
    assert np.allclose(np.array(blend.embedding), (CROWD[7] + np.array(X[0])) / 2, atol=1e-5)
    assert Lookup(library, files=False).voice("crowd/nr 7") == voice
    assert library.packs["crowd"].count == COUNT and library.packs["crowd"].dimension == 64
    with pytest.raises(UnsupportedValue, match="`voices add NAME crowd/nr 7` gives it one"):
        library.info("crowd/nr 7")
    library.add("seven", voice)
    assert library.info("seven")["attributes"] == {"kind": "many"}


def test_a_search_is_exact_over_files_and_packs(library):
    for x in (X[3], mx.array(CROWD[5])):
        check(library.search(x, 30), expected(library, x))
        check(library.search(x, 30, lowest=True), expected(library, x, lowest=True))
    check(library.search("crowd/nr 5", 5), expected(library, mx.array(CROWD[5]))[1:])  # itself left out
    found = library.search(X[3], 20, where={"kind": "single"})
    assert len(found) == 12 and {name for name, _ in found} == set(library.names)
    assert all(
        name.startswith("crowd/") for name, _ in library.search(X[3], 20, where={"kind": "many", "consent": None})
    )
    with pytest.raises(InvalidValue, match="has no such voice"):
        library.search(X[3], where={"kind": "none"})
    with pytest.raises(VoiceError, match="the query has 8 dimensions"):
        library.search(mx.zeros(8))


def test_directions_and_words_rank_packs_too(library):
    direction = Direction.fit(X, LABELS["gender"])
    library.add_direction("gender", direction)
    rows = np.concatenate([np.array(library.vectors()), CROWD])
    names = [*library.names, *(f"crowd/nr {i}" for i in range(COUNT))]
    scores, step = np.array(direction.score(mx.array(rows))), np.array(X[0] - X[4])
    along = (rows - np.array(library.space(64).mean)) @ step / np.linalg.norm(step)
    female = scores if direction.positive == "f" else -scores
    for query, right in (("@gender", scores), ("female", female), (f"{NAMES[0]} - {NAMES[4]}", along)):
        assert [name for name, _ in library.search(query, 8)] == [names[i] for i in np.argsort(-right)[:8]], query
    values = [score for _, score in library.search("female", 8)]
    assert values == sorted(values, reverse=True)


def test_a_library_of_packs_alone(tmp_path):
    np.save(tmp_path / "half.npy", CROWD.astype(np.float16))
    library = Library(tmp_path / "voices")
    library.import_pack(str(tmp_path / "half.npy"), name="many")
    assert library.names == [] and "many/0007" in library and "many/2000" not in library
    space = VoiceSpace.fit(mx.array(CROWD.astype(np.float16).astype(np.float32)))
    assert np.allclose(np.array(library.space(64).mean), np.array(space.mean), atol=1e-5)
    assert library.search(CROWD[7], 1)[0][0] == "many/0007"
    (tmp_path / "voices" / "packs" / "dropped").mkdir()  # anybody may put one there
    np.save(tmp_path / "voices" / "packs" / "dropped" / "vectors.npy", CROWD[:20])
    (tmp_path / "voices" / "packs" / "dropped" / "names.txt").write_text("\n".join(map(str, range(20))))
    assert "dropped/19" in library and "dropped/19" in Library(tmp_path / "voices")


@pytest.mark.filterwarnings("ignore:.*similarities are raw cosines:UserWarning")
def test_what_is_no_pack(library, tmp_path):
    def refuse(kind, message, array=CROWD[:3], lines="a\nb\nc\n", **how):
        np.save(tmp_path / "x.npy", array)
        (tmp_path / "x.txt").write_text(lines)
        with pytest.raises(kind, match=message):
            library.import_pack(tmp_path / "x.npy", tmp_path / "x.txt", **how)
        assert [one.name for one in (library.folder / "packs").iterdir()] == ["crowd"]

    refuse(NameTaken, "has a pack 'crowd' already", name="crowd")
    refuse(VoiceError, r"shape \[3\] of float32", CROWD[:3, 0])
    refuse(VoiceError, r"of float64", CROWD[:3].astype(np.float64))
    refuse(
        VoiceError, r"x\.npy: row 1 has values that are NaN", np.where(np.arange(3)[:, None] == 1, np.nan, CROWD[:3])
    )
    refuse(InvalidValue, r"x\.txt has 2 names for 3 vectors", lines="a\nb\n")
    refuse(InvalidValue, r"line 3: 'a' is there twice", lines="a\nb\na\n")
    refuse(InvalidValue, r"line 2: voice name 'b/c'", lines="a\nb/c\nd\n")
    refuse(InvalidValue, "consent 'perhaps' is not one of", consent="perhaps")
    (tmp_path / "x.npy").write_bytes(b"nothing")
    with pytest.raises(VoiceError, match=r"x\.npy is not a NumPy array file"):
        library.import_pack(tmp_path / "x.npy")
    with pytest.raises(VoiceError, match="No such file"):
        library.import_pack(tmp_path / "none.npy")

    broken = library.folder / "packs" / "broken"
    broken.mkdir()
    with pytest.warns(UserWarning, match=r"skipped pack .*broken: vectors\.npy: No such file"):
        assert list(Library(library.folder).packs) == ["crowd"]
    np.save(broken / "vectors.npy", CROWD[:3])
    (broken / "names.txt").write_text("a\n")
    (broken / "about.json").write_text('{"attributes": 3}')
    with pytest.warns(UserWarning, match=r"broken: about\.json"):
        assert list(Library(library.folder).packs) == ["crowd"]
    (broken / "about.json").unlink()
    with pytest.raises(InvalidValue, match="1 names for 3 vectors"):
        Library(library.folder).search(X[0])


def test_a_full_disk_leaves_nothing(library, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    np.save(tmp_path / "x.npy", CROWD[:3])
    monkeypatch.setattr(packs, "json_text", full)
    for name, overwrite in (("x", False), ("crowd", True)):
        with pytest.raises(OutputError, match="No space left"):
            library.import_pack(tmp_path / "x.npy", name=name, overwrite=overwrite)
    assert [one.name for one in (library.folder / "packs").iterdir()] == ["crowd"]
    assert library.packs["crowd"].count == COUNT


def test_room(monkeypatch):
    monkeypatch.delenv(SETTING, raising=False)
    assert room() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    monkeypatch.setenv(SETTING, "0.5")
    assert room() == 500_000_000
    monkeypatch.setenv(SETTING, "much")
    with pytest.raises(InvalidValue, match="'much' is not a number of GB"):
        room()


@pytest.fixture
def small(library, monkeypatch):
    """The same library where searches may take less than it has."""
    monkeypatch.setenv(SETTING, str((COUNT + 12) * 64 * 4 / 1e9 - 1e-9))
    return Library(library.folder)


def test_a_library_too_large_says_so(small, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = (
        r"pack crowd: its 2,000 voices take 0\.00 GB, .* it has no index: `voices index .*needs lancedb: pip install"
    )
    with pytest.raises(InvalidValue, match=message):
        small.search(X[0])
    with pytest.raises(MissingExtra, match=r"needs lancedb: pip install .*\[lance\]"):
        indexing.build_index(small.packs["crowd"], None)
    small.add_direction("gender", Direction.fit(X, LABELS["gender"]))
    assert len(small.search("@gender", 3)) == 3  # is read, not held


@lance
def test_an_index_finds_what_is_exact(library, small, command, monkeypatch):
    monkeypatch.setattr(indexing, "PARTITION", 500)
    ran = command("voices", "index", "--library", small.folder)
    assert ran.status == 0 and ran.out.startswith("crowd: 2,000 voices indexed in ") and "space.safetensors" in ran.err
    hits = 0
    for i, x in enumerate(crowd(20, seed=4)):
        right, found = expected(library, mx.array(x)), small.search(x, 10)
        hits += len({name for name, _ in right[:10]} & {name for name, _ in found})
        known = dict(right)
        assert all(score == pytest.approx(known[name], abs=1e-5) for name, score in found), i
    assert hits >= 198
    check(small.search(X[0], 1, lowest=True), expected(library, X[0], lowest=True))
    assert small.search("crowd/nr 3", 4) == library.search("crowd/nr 3", 4)
    small.add("another", X[20])  # is no reason to make it anew
    assert small.search(X[20], 1)[0][0] == "another"


@lance
def test_a_stale_index_is_noticed(small, command, monkeypatch):
    pack = small.packs["crowd"]
    VoiceSpace.fit(X, LABELS["emotion"]).save(small.folder / "space.safetensors")
    assert command("voices", "index", "--library", small.folder).status == 0
    near = small.search(X[0], 3)
    vectors, record = pack.folder / "vectors.npy", pack.folder / "index" / "record.json"
    before = vectors.read_bytes()
    os.utime(vectors, (1, 1))  # a copy of the same
    assert Library(small.folder).search(X[0], 3) == near
    vectors.write_bytes(before[:-4] + b"\0\0\0\0")
    with pytest.raises(InvalidValue, match="its index is of other vectors: `voices index"):
        Library(small.folder).search(X[0], 3)
    vectors.write_bytes(before)
    VoiceSpace.fit(X).save(small.folder / "space.safetensors")
    with pytest.raises(InvalidValue, match="its index is of another voice space"):
        small.search(X[0], 3)
    VoiceSpace.fit(X, LABELS["emotion"]).save(small.folder / "space.safetensors")
    assert small.search(X[0], 3) == near
    told = json.loads(record.read_text())
    for changed, message in (({**told, "form": 0}, "of another form"), ([], "is damaged")):
        record.write_text(json.dumps(changed))
        with pytest.raises(InvalidValue, match=message):
            Library(small.folder).search(X[0], 3)
    monkeypatch.setattr(indexing, "json_text", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # killed in the middle: what was there stays
        indexing.build_index(pack, None)
    assert [one.name for one in sorted(pack.folder.iterdir())] == ["about.json", "index", "names.txt", "vectors.npy"]


def test_commands(library, command, tmp_path):
    np.save(tmp_path / "few.npy", CROWD[:3])
    ran = command("voices", "import", "few.npy", "--library", "new", "--name", "some", "--tag", "a=b", "--json")
    assert json.loads(ran.out) == {"library": "new", "pack": "some", "voices": 3, "dimension": 64}
    ran = command("voices", "list", "--library", "new")
    assert (ran.status, ran.out) == (0, "some/…  64  a pack of 3 voices\n")
    assert json.loads(command("voices", "list", "--library", "new", "--json").out)["packs"] == {"some": 3}
    assert command("voices", "add", "one", "some/1", "--library", "new").status == 0
    assert Voice.load(tmp_path / "new" / "one.safetensors").attributes == {"a": "b"}
    ran = command("voices", "import", "x.zip", "--names", "x.txt", "--library", "new")
    assert ran.status == 2 and "belong to a .npy file" in ran.err
    ran = command("voices", "index", "--engine", "faiss", "--library", "new")
    assert ran.status == 2 and "engine 'faiss' is not one of lance" in ran.err
    (tmp_path / "empty").mkdir()
    assert "has no packs" in command("voices", "index", "--library", "empty").out
