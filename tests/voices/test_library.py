"""The library: files are the truth, the index follows them, writers do not lose each other, search is exact."""

import asyncio
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts import Direction, Library, Voice, VoiceSpace
from mlx_qwen3tts.errors import InvalidValue, NameTaken, UnsupportedValue, VoiceError, VoiceNotFound, WrongType
from mlx_qwen3tts.files.tensors import write_tensors
from mlx_qwen3tts.voices.library.index import INDEX
from mlx_qwen3tts.voices.library.rights import inherited, strictest_consent, strictest_license
from mlx_qwen3tts.voices.library.search import top
from mlx_qwen3tts.voices.lookup import Lookup
from tests.voices.real import load, made

ROOT = Path(__file__).parents[2]
X, NAMES, LABELS = made()


@pytest.fixture
def library(tmp_path):
    library = Library(tmp_path / "voices")
    for i, name in enumerate(NAMES):
        library.add(name, X[i], speaker=LABELS["speaker"][i], gender=LABELS["gender"][i])
    return library


def reads(monkeypatch):
    """A list that grows by the name of every voice file that is read."""
    names, load = [], Voice.load.__func__
    monkeypatch.setattr(Voice, "load", classmethod(lambda cls, path: names.append(Path(path).name) or load(cls, path)))
    return names


def test_the_readme_of_the_interface(library):
    assert library.search(X[3], k=1) == [(NAMES[3], pytest.approx(1, abs=1e-5))]
    library.add("anna", Voice(X[0], metadata={"language": "English"}), gender="female")
    assert library["anna"].attributes == {"gender": "female"} and library["anna"].metadata["language"] == "English"
    assert np.array_equal(np.array(library["anna"].embedding), np.array(X[0]))
    assert len(library) == 33 and "anna" in library and "ben" not in library and list(library) == library.names
    assert np.array_equal(np.array(library.vectors(NAMES)), np.array(X))


def test_the_index_reads_only_what_has_changed(library, monkeypatch):
    assert len(library) == 32
    read = reads(monkeypatch)
    again = Library(library.folder)
    assert again.names == library.names and read == []
    library.add("anna", X[0])
    os.remove(library.folder / f"{NAMES[0]}.safetensors")
    np.save(library.folder / "dropped in.npy", np.array(X[1]))
    Voice(X[2]).save(library.folder / f"{NAMES[5]}.safetensors")
    read.clear()
    third = Library(library.folder)
    assert set(third.names) == (set(NAMES) - {NAMES[0]}) | {"anna", "dropped in"}
    assert sorted(read) == sorted(["anna.safetensors", "dropped in.npy", f"{NAMES[5]}.safetensors"])
    assert third.search(X[2], k=2)[1][1] == pytest.approx(1, abs=1e-5)
    # an object that was open before sees it too
    assert again.names == third.names and again.search("anna", k=2) == third.search("anna", k=2)
    for damaged in (b"", b"nothing", (library.folder / "anna.safetensors").read_bytes()):
        (library.folder / INDEX).write_bytes(damaged)
        with pytest.warns(UserWarning, match="its index cannot be read and is rebuilt"):
            assert Library(library.folder).names == third.names
        assert Library(library.folder).names == third.names


def test_files_that_are_no_voices(library):
    (library.folder / "broken.npy").write_bytes(b"x")
    (library.folder / "notes.txt").write_text("hello")
    (library.folder / ".hidden.npy").write_bytes(b"x")
    np.save(library.folder / f"{NAMES[0]}.npy", np.ones(64, np.float32))
    with pytest.warns(UserWarning) as told:
        assert set(Library(library.folder).names) == set(NAMES)
    said = [str(warning.message) for warning in told]
    assert len(said) == 2 and "broken.npy" in said[1]
    assert f"skipped {NAMES[0]}.npy: {NAMES[0]}.safetensors has the same name" in said[0]


def test_names_that_only_spelling_tells_apart(tmp_path):
    """macOS stores é in two characters."""
    library = Library(tmp_path)
    library.add("zoe\u0301", X[0])
    assert library.names == ["zo\u00e9"] and library["zo\u00e9"].dimension == 64
    Voice(X[1]).save(tmp_path / "ne\u0301.safetensors")  # as macOS would leave it
    for name in ("ne\u0301", "n\u00e9"):
        assert name in library and np.array_equal(np.array(library[name].embedding), np.array(X[1]))
        with pytest.raises(NameTaken, match="already"):
            library.add(name, X[2])
    library.add("n\u00e9", X[2], overwrite=True)
    assert len(library) == 2 and np.array_equal(np.array(library["ne\u0301"].embedding), np.array(X[2]))


def test_adding_removing_and_tagging(library):
    with pytest.raises(NameTaken, match=r"has a voice 's0_e0' already; --overwrite .in Python overwrite=True. repl"):
        library.add("s0_e0", X[1])
    assert np.array_equal(np.array(library["s0_e0"].embedding), np.array(X[0]))
    library.add("s0_e0", X[1], overwrite=True)
    assert np.array_equal(np.array(library["s0_e0"].embedding), np.array(X[1])) and library["s0_e0"].attributes == {}
    codes = Voice(X[0], np.arange(32).reshape(2, 16), "one two", {"source_model": "m"})
    library.add("icl", codes, consent="given", license="CC-BY-4.0", mood="warm")
    library.tag("icl", mood=None, age="40", language="English")
    voice = library["icl"]
    assert np.array_equal(np.array(voice.ref_codes), np.arange(32).reshape(2, 16)) and voice.ref_text == "one two"
    assert voice.attributes == {"age": "40"} and voice.metadata["consent"] == "given"
    assert library.info("icl")["metadata"]["language"] == "English" and library.info("icl")["in_context"]
    library.remove("icl")
    assert "icl" not in library
    np.save(library.folder / "bare.npy", np.array(X[0]))
    with pytest.raises(
        UnsupportedValue, match=r"is stored in bare.npy, .*: voices add bare \S+bare\.npy --library \S+ --overwrite"
    ):
        library.tag("bare", a="b")
    library.add("bare", X[2], overwrite=True)  # takes the other file's place
    assert not (library.folder / "bare.npy").exists() and library.info("bare")["dimension"] == 64


@pytest.mark.parametrize(
    "name", ["", " a", ".a", "space", "a\x1b", "a\0", "a/b", "a\\b", 'a"b', "@a", "a\nb", "a" * 201, "ä" * 101]
)
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(InvalidValue, match="voice name"):
        Library(tmp_path).add(name, X[0])
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused(library, tmp_path):
    for call, error, message in (
        (lambda: library.add("x", mx.full(64, float("nan"))), VoiceError, "NaN"),
        (lambda: library.add("x", X[:2]), VoiceError, r"shape \[2, 64\]"),
        (lambda: library.add("x", X[0], age=40), WrongType, "attribute age must be a string"),
        (lambda: library.add("x", X[0], consent="yes"), InvalidValue, "consent 'yes' is not one of not-needed, given"),
        (lambda: library.add(5, X[0]), WrongType, "name must be a string"),
        (lambda: library["x"], VoiceNotFound, "voice 'x' is not in library .*; it has s0_e0, .* …"),
        (lambda: library.remove("x"), VoiceNotFound, "'x' is not in library"),
        (lambda: library.search(X[0], k=0), InvalidValue, "k 0 is not 1 or more"),
        (lambda: library.search(X[0], k="5"), WrongType, "k must be an integer"),
        (lambda: library.search(mx.zeros(8)), VoiceError, "the query has 8 dimensions, 's0_e0' in the library 64"),
        (lambda: library.search(X[:2]), InvalidValue, "expected one voice"),
        (lambda: library.search("a.wav"), UnsupportedValue, "needs a Base model"),
        (lambda: library.search(X[0], where={"gender": "x"}), InvalidValue, "has no such voice"),
        (lambda: Library(tmp_path / "none").search(X[0]), InvalidValue, "has no voices"),
        (lambda: Library(tmp_path / "none").vectors(), InvalidValue, "has no voices"),
        (lambda: Library(library.path("s0_e0")), InvalidValue, "is not a folder"),
    ):
        with pytest.raises(error, match=message):
            call()
    library.add("small", mx.ones(8))
    with pytest.raises(VoiceError, match="'small' has 8 dimensions, 's0_e0' 64"):
        library.vectors()


def test_a_missing_voice_is_a_key_error(library):
    with pytest.raises(KeyError) as told:
        library["x"]
    assert isinstance(told.value, VoiceNotFound) and told.value.code == "voice_not_found"
    assert str(told.value).startswith("voice 'x' is not in library ")
    with pytest.raises(NameTaken, match="has a direction 'gender' already"):
        for _ in range(2):
            library.add_direction("gender", Direction.fit(X, LABELS["gender"]))


def test_what_is_told_of_a_voice_is_a_copy(library):
    library.info("s0_e0")["attributes"]["gender"] = "m"
    assert library.info("s0_e0")["attributes"]["gender"] == "f" and "32 voices" in repr(library)


def test_any_thread_can_use_what_comes_out(library):
    """In MLX an array that is still to be computed belongs to the thread that asked for it."""
    library.add_direction("gender", Direction.fit(X, LABELS["gender"]))
    VoiceSpace.fit(X, LABELS["emotion"]).save(library.folder / "space.safetensors")

    def read():
        blend = Lookup(library).voice(f"{NAMES[0]}*0.5 + {NAMES[5]}*0.5 + @gender")
        offset = Lookup(library).find(f"{NAMES[0]} - {NAMES[5]}")
        space = library.space(64)
        return library.vectors(NAMES[:3]), library[NAMES[1]].embedding, blend.embedding, offset.step, space.nuisance

    async def elsewhere():
        first = await asyncio.to_thread(read)
        return first, await asyncio.to_thread(lambda: (library.search(NAMES[0], 3), library.search("@gender", 3)))

    here, (there, found) = read(), asyncio.run(elsewhere())
    for one, other in zip(here, there, strict=True):
        assert np.array_equal(np.array(one), np.array(other + 0))
    assert found == (library.search(NAMES[0], 3), library.search("@gender", 3))


WRITER = """
import sys, numpy as np
from mlx_qwen3tts import Library
from mlx_qwen3tts.errors import NameTaken
library, mine = Library(sys.argv[1]), sys.argv[2]
for i in range(15):
    library.add(f"{mine}{i}", np.full(8, i + 1, np.float32))
    library.tag("shared", **{f"{mine}{i}": "x"})
    try:
        library.add(f"either{i}", np.ones(8, np.float32))
        print("won", i)
    except NameTaken:
        pass
"""


def test_two_processes_adding_at_once_lose_nothing(tmp_path):
    folder = tmp_path / "voices"
    Library(folder).add("shared", np.ones(8, np.float32))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, folder, name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    won = [writer.communicate(timeout=120)[0].split() for writer in writers]
    assert all(writer.returncode == 0 for writer in writers)
    library = Library(folder)
    assert set(library.names) == {"shared", *(f"{n}{i}" for n in ("a", "b", "either") for i in range(15))}
    assert set(library["shared"].attributes) == {f"{n}{i}" for n in "ab" for i in range(15)}
    assert len(won[0]) + len(won[1]) == 30  # of the names both wanted, each was given once
    for i in range(15):
        assert library[f"a{i}"].embedding[0].item() == i + 1


# Searching


def test_search_is_exact(library):
    space, rows = VoiceSpace.fit(X), np.array(X, np.float64)
    centred = rows - rows.mean(0)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    likeness = units @ units.T
    for i in (0, 7, 31):
        order = np.argsort(-likeness[i])[:6]
        found = library.search(X[i], k=6)
        assert [name for name, _ in found] == [NAMES[j] for j in order]
        assert np.allclose([score for _, score in found], likeness[i][order], atol=1e-4)
        assert [name for name, _ in library.search(NAMES[i], k=5)] == [NAMES[j] for j in order[1:]]  # itself left out
        assert library.search(Voice(X[i]), k=1, lowest=True)[0][0] == NAMES[likeness[i].argmin()]
    assert len(library.search(X[0], k=1000)) == 32 and len(library.search(NAMES[0], k=1000)) == 31
    assert space.similarity(X[0], X[1]).item() == pytest.approx(dict(library.search(X[0], k=32))[NAMES[1]], abs=1e-5)


def test_search_by_direction_offset_expression_sound_and_attribute(library, tmp_path):
    direction = Direction.fit(X, LABELS["gender"])
    library.add_direction("gender", direction)
    scores = np.array(direction.score(X))
    assert [n for n, _ in library.search("@gender", k=3)] == [NAMES[i] for i in np.argsort(-scores)[:3]]
    assert library.search("@gender", k=1)[0][1] == pytest.approx(scores.max(), abs=1e-4)
    for lowest in (library.search("@gender", k=2, lowest=True), library.search("-1*@gender", k=2)):
        assert [n for n, _ in lowest] == [NAMES[i] for i in np.argsort(scores)[:2]]
    along = np.array(X) @ np.array(X[0] - X[9])
    assert library.search(f"{NAMES[0]} - {NAMES[9]}", k=1)[0][0] == NAMES[along.argmax()]
    assert library.search(f"{NAMES[4]}*0.9 + {NAMES[9]}*0.1", k=1)[0][0] == NAMES[4]
    assert library.search("clip.wav", k=1, embed=lambda source: X[11])[0][0] == NAMES[11]
    assert library.search((np.zeros(9), 24000), k=1, embed=lambda source: X[11])[0][0] == NAMES[11]
    male = library.search(X[0], k=40, where={"gender": "m"})
    assert [n for n, _ in male] == [
        n for n, _ in library.search(X[0], k=40) if library.info(n)["attributes"]["gender"] == "m"
    ]
    assert len(library.search(X[0], k=40, where={"gender": None, "speaker": "s3"})) == 4


def test_a_library_too_small_for_a_space_says_so(tmp_path):
    library = Library(tmp_path)
    for i in range(3):
        library.add(NAMES[i], X[i])
    with pytest.warns(UserWarning, match="3 voices of dimension 64, too few to fit a space .*raw cosines"):
        found = library.search(X[0], k=2)
    a, b = np.array(X[0]), np.array(library[found[1][0]].embedding)
    assert found[1][1] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    VoiceSpace.fit(X, LABELS["emotion"]).save(tmp_path / "space.safetensors")
    again = Library(tmp_path)
    kept = VoiceSpace.load(tmp_path / "space.safetensors")
    assert again.search(X[0], k=2)[1][1] == pytest.approx(
        max(kept.similarity(X[0], X[i]).item() for i in (1, 2)), abs=1e-5
    )
    assert again.names == NAMES[:3]


def test_voices_that_are_all_the_same_have_no_space(tmp_path):
    library = Library(tmp_path)
    for i in range(12):
        library.add(f"v{i:02}", X[0])
    with pytest.warns(UserWarning, match=r"all voices are the same.* raw cosines, which average 1.00"):
        assert library.search(X[0], k=2) == [("v00", pytest.approx(1)), ("v01", pytest.approx(1))]


def test_a_space_that_is_put_in_is_used_at_once(library):
    before = library.search(X[0], k=5)
    VoiceSpace.fit(X, LABELS["emotion"]).save(library.folder / "space.safetensors")
    after = library.search(X[0], k=5)
    assert before != after
    (library.folder / "space.safetensors").unlink()
    assert library.search(X[0], k=5) == before


def test_voices_of_two_sizes_lie_side_by_side(library):
    for i in range(12):
        library.add(f"big{i}", mx.random.normal((16,)))
    assert {n for n, _ in library.search("big3", k=50)} == {f"big{i}" for i in range(12) if i != 3}
    assert not any(n.startswith("big") for n, _ in library.search(X[0], k=50))


@pytest.mark.parametrize("k", [1, 3, 5, 6, 7])
def test_the_best_of_equals_are_the_first(k):
    scores = mx.array([1.0, 3.0, 2.0, 3.0, 3.0, 0.0])
    assert top(scores, k).tolist() == [1, 3, 4, 2, 0, 5][:k]


def test_a_large_library_is_searched_in_one_product():
    """Of 20,000 made-up voices the best five, as NumPy finds them; the time is benchmarks/voices.py's matter."""
    rows = mx.random.normal((20_000, 256), key=mx.random.key(0))
    query = rows[123] + 0.1 * mx.random.normal((256,), key=mx.random.key(1))
    scores = rows @ query
    wanted = np.argsort(-(np.array(rows) @ np.array(query)))[:5]
    assert top(scores, 5).tolist() == wanted.tolist() and wanted[0] == 123


# One file


def test_export_and_import(library, tmp_path):
    library.add_direction("gender", Direction.fit(X, LABELS["gender"]))
    VoiceSpace.fit(X).save(library.folder / "space.safetensors")
    np.save(library.folder / "bare.npy", np.array(X[0]))
    assert len(library.export(tmp_path / "all.zip")) == 33
    first = (tmp_path / "all.zip").read_bytes()
    library.export(tmp_path / "all.zip")
    assert (tmp_path / "all.zip").read_bytes() == first
    other = Library(tmp_path / "other")
    assert sorted(other.import_zip(tmp_path / "all.zip")) == library.names == other.names
    assert other.directions == ["gender"] and (other.folder / "space.safetensors").exists()
    for name in library.names:
        assert other.path(name).read_bytes() == library.path(name).read_bytes()
    before = {file: file.read_bytes() for file in other.folder.rglob("*.safetensors")}
    with pytest.raises(
        NameTaken, match=r"has bare.npy, s0_e0.safetensors, .* … already; --overwrite .in Python overwrite=True. repl"
    ):
        other.import_zip(tmp_path / "all.zip")
    other.add("bare", X[1], overwrite=True)
    assert other.import_zip(tmp_path / "all.zip", overwrite=True) and other.path("bare").suffix == ".npy"
    assert {f.name for f in before} - {INDEX} <= {f.name for f in other.folder.rglob("*.safetensors")}
    assert library.export(tmp_path / "two.zip", ["s0_e0", "bare"]) == ["s0_e0", "bare"]
    assert sorted(zipfile.ZipFile(tmp_path / "two.zip").namelist())[0] == "bare.npy"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../evil.npy": "voice"}, "'../evil.npy' is not a voice, direction or space"),
        ({"/abs.npy": "voice"}, "is not a voice, direction or space"),
        ({"a\\b.npy": "voice"}, "is not a voice, direction or space"),
        ({"deep/er/a.npy": "voice"}, "is not a voice, direction or space"),
        ({"readme.txt": b"hello"}, "'readme.txt' is not a voice"),
        ({"good.npy": "voice", "bad.npy": b"x"}, "bad.npy.*not a NumPy array file"),
        ({"a.npy": "voice", "a.json": b"[1.0]"}, "has two files for 'a'"),
        ({" a.npy": "voice"}, "voice name ' a'"),
        ({"\x1b[31mred.npy": "voice"}, "voice name"),
        ({"space.npy": "voice"}, "taken by the library's voice space"),
        ({"good.npy": "voice", "directions/d.safetensors": "voice"}, "direction d.safetensors"),
        ({"big.npy": bytes((64 << 20) + 1)}, "too many for a voice"),
        ({".hidden": b"x", "__MACOSX/a.npy": b"x"}, "has no voices"),
    ],
)
def test_archives_that_are_none(library, tmp_path, members, message):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        np.save(tmp_path / "v.npy", np.array(X[0]))
        for name, content in members.items():
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is
            archive.writestr(info, (tmp_path / "v.npy").read_bytes() if content == "voice" else content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidValue, match=message):
        library.import_zip(tmp_path / "bad.zip")
    assert sorted(tmp_path.rglob("*")) == before, "something was left behind"


def test_a_damaged_archive(library, tmp_path):
    library.export(tmp_path / "all.zip")
    data = bytearray((tmp_path / "all.zip").read_bytes())
    for at in range(60, 400, 7):
        data[at] ^= 0x55
    (tmp_path / "all.zip").write_bytes(data)
    with pytest.raises(InvalidValue, match=r"archive .*all.zip"):
        Library(tmp_path / "new").import_zip(tmp_path / "all.zip")
    assert not (tmp_path / "new").exists()


def test_what_is_no_archive(library, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"nothing")
    for call, message in (
        (lambda: library.import_zip(tmp_path / "x.zip"), "cannot be read"),
        (lambda: library.import_zip(tmp_path / "none.zip"), "no such file"),
        (lambda: library.export(tmp_path / "x.tar"), "extension must be .zip"),
        (lambda: library.export(tmp_path / "y.zip", ["nobody"]), "'nobody' is not in library"),
    ):
        with pytest.raises((InvalidValue, VoiceNotFound), match=message):
            call()
    assert not (tmp_path / "y.zip").exists()


# Consent and licence


def test_the_strictest_consent():
    assert strictest_consent(["given", "not-needed"]) == "given"
    assert strictest_consent(["given", None]) == "unknown" == strictest_consent(["given", "by email"])
    assert strictest_consent(["refused", None, "given"]) == "refused"


@pytest.mark.parametrize(
    ("licenses", "strictest"),
    [
        (["CC0-1.0", "CC-BY-4.0"], "CC-BY-4.0"),
        (["CC-BY-4.0", "CC-BY-NC-4.0", "CC0-1.0"], "CC-BY-NC-4.0"),
        (["CC-BY-SA-4.0", "CC-BY-NC-4.0"], "CC-BY-NC-4.0 AND CC-BY-SA-4.0"),  # neither holds the other's conditions
        (["CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"], "CC-BY-NC-SA-4.0"),
        (["MIT", "CC0-1.0"], "MIT"),
        (["MIT", "Anna's own"], "Anna's own AND MIT"),
        (["CC-BY-NC-4.0 AND MIT", "CC-BY-4.0"], "CC-BY-NC-4.0 AND MIT"),
        (["CC0-1.0", None], "unknown"),
        (["CC0-1.0", "Unlicense"], "CC0-1.0"),
    ],
)
def test_the_strictest_license(licenses, strictest):
    assert strictest_license(licenses) == strictest_license(licenses[::-1]) == strictest


def test_a_blend_inherits(library, monkeypatch):
    library.tag("s0_e0", consent="given", license="CC-BY-4.0", language="English", source_model="m")
    library.tag("s1_e0", consent="not-needed", license="CC-BY-NC-4.0", language="English", source_model="m")
    blend = Lookup(library).voice("s0_e0*0.5 + s1_e0*0.5").metadata
    assert (blend["consent"], blend["license"]) == ("given", "CC-BY-NC-4.0")
    assert (blend["language"], blend["source_model"]) == ("English", "m")
    wider = Lookup(library).voice("s0_e0 + s1_e0 + s2_e0").metadata
    assert (wider["consent"], wider["license"]) == ("unknown", "unknown") and "language" not in wider
    assert [parent.get("consent") for parent in json.loads(wider["recipe"])["parents"]] == ["given", "not-needed", None]
    assert inherited([{}, {}]) == {}


def test_a_blend_cannot_be_made_laxer_than_its_parents(library):
    library.tag("s0_e0", consent="refused", license="CC-BY-NC-4.0")
    library.tag("s1_e0", consent="given", license="CC-BY-NC-4.0")
    library.add("duo", Lookup(library).voice("s0_e0 + s1_e0"))
    for key, value in (("consent", "given"), ("license", "CC0-1.0")):
        with pytest.raises(
            InvalidValue, match=f"{key} '{value}' is laxer than .*, which the voice has from those it is made"
        ):
            library.tag("duo", **{key: value})
    library.tag("duo", license="CC-BY-NC-ND-4.0")  # stricter
    library.tag("s0_e0", consent="given")  # its owner may
    assert library.info("duo")["metadata"]["consent"] == "refused"


def test_recipes_that_are_none_of_ours(library, tmp_path):
    for recipe in ('{"parents": "ab"}', '{"expression": 5}', "[1]", '{"parents": [1]}'):
        with pytest.raises(VoiceError, match="recipe"):
            Voice(X[0], metadata={"recipe": recipe})
        odd = library.folder / "odd.safetensors"
        write_tensors(odd, {"speaker_embedding": X[0]}, {"recipe": recipe})
        with pytest.raises(VoiceError, match=r"odd.safetensors: .*recipe"):
            Voice.load(odd)
        with pytest.warns(UserWarning, match=r"skipped embedding .*odd.safetensors: .*recipe"):
            assert "odd" not in Library(library.folder)
        (library.folder / "odd.safetensors").unlink()


def test_search_on_real_voices(shared, tmp_path):
    X, names, labels = load(shared)
    library = Library(tmp_path)
    for i, name in enumerate(names):
        library.add(name, X[i], **{key: values[i] for key, values in labels.items()})
    VoiceSpace.fit(X, labels["emotion"], labels["speaker"]).save(tmp_path / "space.safetensors")
    found = [library.search(name, k=1)[0][0] for name in names]
    assert all(one.rsplit("_", 1)[0] == two.rsplit("_", 1)[0] for one, two in zip(names, found, strict=True))


def test_opening_is_not_slowed_by_what_has_settled(library, monkeypatch):
    """A folder that has not changed costs one look."""
    library.refresh()
    long_ago = time.time_ns() - 10**12
    os.utime(library.folder, ns=(long_ago, long_ago))
    library.refresh()
    monkeypatch.setattr(os, "scandir", lambda *_: pytest.fail("the folder was read again"))
    assert len(library) == 32 and library.search(X[0], k=1)


def test_a_voice_that_goes_as_soon_as_it_came_is_gone(tmp_path):
    """Within the clock's grain a file is read anew each time; one that went in that time must not stay listed."""
    library = Library(tmp_path / "voices")
    library.add("anna", X[0])
    assert library.names == ["anna"]
    library.remove("anna")
    assert library.names == [] and "anna" not in library
