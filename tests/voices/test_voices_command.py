"""`voices` as users type it: what it prints, writes and refuses. Its examples run in tests/test_examples.py."""

import inspect
import json

import numpy as np
import pytest

from convert.parity import recording
from mlx_qwen3tts import Direction, Library, Voice, VoiceSpace
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.voices.library.names import ARGUMENTS
from mlx_qwen3tts.voices.presets import preset_voice
from tests.voices.real import made

X, NAMES, LABELS = made()


@pytest.fixture
def library(tmp_path):
    library = Library(tmp_path / "voices")
    for i, name in enumerate(NAMES):
        library.add(name, X[i], gender=LABELS["gender"][i])
    library.add_direction("gender", Direction.fit(X, LABELS["gender"], groups=LABELS["speaker"], names=NAMES))
    return library


def answer(command, *arguments):
    """The JSON object that a command prints last, after nothing else."""
    ran = command("voices", *arguments, "--json")
    assert ran.status == 0, ran.err
    (line,) = ran.out.splitlines()
    return json.loads(line)


def test_from_recordings_to_a_moved_blend(command, checkpoint, tmp_path):
    model = ("--model", checkpoint("base"))
    for i, name in enumerate(("anna", "ben")):
        recording(tmp_path / f"{name}.wav", i, 2.0)
        told = answer(
            command, "add", name, f"{name}.wav", *model, "--consent", "given", "--tag", "age=40", "--tag", "warm"
        )
        assert told["metadata"]["consent"] == "given" and told["attributes"] == {"age": "40", "warm": ""}
        assert told["metadata"]["source_model"] == "base" and told["dimension"] == 64
    Direction.fit(X, LABELS["gender"]).save(tmp_path / "gender.safetensors")
    told = answer(command, "blend", "anna*3 + ben + 0.5*@gender", "--add", "duo", "--output", "duo.npy")
    assert told["output"] == ["voices/duo.safetensors", "duo.npy"]
    assert [parent["weight"] for parent in told["recipe"]["parents"]] == [0.75, 0.25]
    kept = Library(tmp_path / "voices")["duo"]
    assert (
        np.array_equal(np.load(tmp_path / "duo.npy"), np.array(kept.embedding)) and kept.metadata["consent"] == "given"
    )
    anna, ben = (Library(tmp_path / "voices")[name].embedding for name in ("anna", "ben"))
    wanted = 0.75 * anna + 0.25 * ben + 0.5 * Direction.load(tmp_path / "gender.safetensors").step
    assert np.allclose(np.array(kept.embedding), np.array(wanted), atol=1e-4)
    ran = command("generate", *model, "--voice", "duo*0.5 + anna*0.5", "--max-tokens", 4, "--seed", 1, "Hello.")
    assert ran.status == 0 and (tmp_path / "out.wav").exists()
    assert answer(command, "search", "anna.wav", "-k", 1, *model)["found"][0]["name"] == "anna"


@pytest.mark.parametrize("word", ARGUMENTS)
def test_what_no_attribute_can_be_called_is_refused(refused, library, tmp_path, word):
    """They are arguments of the methods that take attributes, and were a TypeError."""
    np.save(tmp_path / "crowd.npy", np.array(X[:3]))
    words = f"an attribute cannot be called '{word}'; choose another word"
    for line in (
        ("add", "new", NAMES[0], "--tag", f"{word}=x"),
        ("import", "crowd.npy", "--tag", f"{word}=x"),
        ("tag", NAMES[0], f"{word}=x"),
        ("tag", NAMES[0], "--remove", word),
    ):
        assert refused("voices", *line) == words, line


def test_those_are_all_arguments_beside_which_attributes_are_taken():
    methods = (Library.add, Library.tag, Library.import_pack)
    parameters = [inspect.signature(method).parameters for method in methods]
    assert all(next(reversed(one.values())).kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    assert set(ARGUMENTS) == {name for one in parameters for name in list(one)[:-1]}


def test_an_option_stands_above_a_tag_of_the_same_name(command, library):
    told = answer(command, "add", "new", NAMES[0], "--tag", "language=English", "--language", "German")
    assert told["metadata"]["language"] == "German"


def test_list_show_and_what_is_near(command, library):
    told = answer(command, "list", "--where", "gender=m")
    assert set(told["voices"]) == {n for n, g in zip(NAMES, LABELS["gender"], strict=True) if g == "m"}
    assert told["directions"] == ["gender"]
    shown = answer(command, "show", "s0_e0")
    assert shown["scores"]["gender"] == pytest.approx(library.direction("gender").score(X[0]).item(), abs=1e-4)
    assert list(shown["near"]) == [name for name, _ in library.search("s0_e0", 3)]
    library.add("alone", np.ones(8, np.float32))
    assert answer(command, "show", "alone")["near"] == {}
    lines = command("voices", "list").out.splitlines()
    assert len(lines) == 34 and lines[-1] == "directions: @gender" and lines[1].startswith("s0_e0")


def test_interpolating(command, library, tmp_path):
    files = answer(command, "interp", "s0_e0", "s1_e0*0.5 + s2_e0*0.5", "--steps", 3, "--output", "way")["output"]
    first, half, last = (np.array(Voice.load(tmp_path / file).embedding) for file in files)
    end = np.array(X[4] + X[8]) / 2
    assert np.array_equal(first, np.array(X[0])) and np.allclose(last, end, atol=1e-5)
    assert np.allclose(half, (np.array(X[0]) + end) / 2, atol=1e-5)
    files = answer(command, "interp", "s0_e0", "s1_e0", "--steps", 3, "--slerp", "--output", "arc")["output"]
    arc, space = Voice.load(tmp_path / files[1]), VoiceSpace.fit(X)
    radii = [np.linalg.norm(np.array(v) - np.array(space.mean)) for v in (X[0], X[4], arc.embedding)]
    assert radii[2] == pytest.approx((radii[0] + radii[1]) / 2, rel=1e-3)
    assert arc.recipe["expression"] == "slerp(s0_e0, s1_e0, 0.5) around the mean"


def test_a_preset_is_read_without_a_talker(command, refused, checkpoint, model, tmp_path, monkeypatch):
    """One row of the file; names in any case. As a Voice it is the one that the model itself gives."""
    preset = model("custom-voice").preset("eric")
    monkeypatch.setattr(ModelFolder, "load_talker", lambda *_: pytest.fail("a talker was loaded"))
    custom = ("--model", checkpoint("custom-voice"))
    told = answer(command, "add", "e", "Eric", *custom)
    assert told["metadata"] == dict(preset.metadata) and told["metadata"].keys() >= {"source_model", "preset"}
    kept = Library(tmp_path / "voices")["e"]
    assert kept == preset == preset_voice(ModelFolder(checkpoint("custom-voice")), "ERIC")
    told = answer(command, "blend", "vivian*0.5 + e*0.5", *custom, "--output", "half.npy")
    wanted = (model("custom-voice").preset("vivian").embedding + preset.embedding) / 2
    assert np.allclose(np.load(tmp_path / "half.npy"), np.array(wanted), atol=1e-5)
    assert [parent["name"] for parent in told["recipe"]["parents"]] == ["vivian", "e"]
    assert refused("voices", "add", "x", "nobody", *custom).startswith("voice 'nobody' is not a file, a library voice")


def test_labels_from_a_file(command, library, tmp_path):
    """A row's voice: the library's, else the file beside; dots in names are no endings; numbers stay whole."""
    for name, i in (("anna", 0), ("anna.happy", 4), ("ben", 8)):
        np.save(tmp_path / f"{name}.npy", np.array(X[i]))
    (tmp_path / "l.csv").write_text("\ufeffname,g\nanna.happy,1\nben,0\ns3_e0,\n", encoding="utf-8")
    ran = command("voices", "direction", "fit", "--csv", "l.csv", "--column", "g", "-o", "g.safetensors")
    assert ran.status == 0 and "left out, as they lack a label: s3_e0" in ran.err and "g, from 0 to 1" in ran.out
    wanted = np.array(X[4] - X[8])
    found = np.array(Direction.load(tmp_path / "g.safetensors").vector)
    assert found @ wanted / np.linalg.norm(wanted) == pytest.approx(1, abs=1e-4)
    (tmp_path / "three.csv").write_text("name,g\n" + "".join(f"{name},{i % 3}\n" for i, name in enumerate(NAMES)))
    fit = ("direction", "fit", "--csv", "three.csv", "--column", "g", "--name")
    assert answer(command, *fit, "one", "--positive", "1")["negative"] == "not 1"
    assert answer(command, *fit, "all")["report"]["correlation"] is not None  # numbers


def test_a_space_says_what_it_finds(command, library, tmp_path):
    rows = zip(NAMES, LABELS["speaker"], LABELS["emotion"], strict=True)
    (tmp_path / "l.csv").write_text("name,speaker,emotion\n" + "".join(f"{','.join(row)}\n" for row in rows))
    told = answer(command, "space", "--csv", "l.csv", "--group", "speaker", "--nuisance", "emotion")
    assert told["retrieval"]["right"]["nuisance-free"] == 32 and told["output"] == "voices/space.safetensors"
    assert VoiceSpace.load(tmp_path / "voices" / "space.safetensors").nuisance.shape == (3, 64)
    ran = command("voices", "space", "--csv", "l.csv", "--group", "speaker", "--nuisance", "emotion")
    assert "nuisance-free: 32 of 32" in ran.out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("show nobody", "voice 'nobody' is not in library voices; it has s0_e0, s0_e1, "),
        ("show x --library none", "library none: no such folder; `voices add` makes it"),
        ("add s0_e0 s1_e0", "library voices has a voice 's0_e0' already; --overwrite (in Python overwrite=True) repl"),
        ("add x s0_e0 --consent yes", "consent 'yes' is not one of not-needed, given, unknown, refused"),
        ("add x s0_e0 --tag =x", "'=x' is not KEY=VALUE"),
        ("add x s0_e0 --prepare", "--prepare belongs to a recording, which s0_e0 is not"),
        ("add space s0_e0", "voice name 'space' is taken by the library's voice space"),
        ("add x none.wav", "model 'mlx_model': no such folder"),
        ("blend s0_e0", "nowhere to put the voice: give --output or --add"),
        ("blend s0_e0 -o v.wav", "extension '.wav' is not one of .npy .safetensors .json"),
        ("blend s0_e0 --keep all -o v.npy", "--keep 'all' is not one of none, norm, radius"),
        ("blend s0_e0 --add x --library none", "voice 's0_e0' is not a file or a library voice"),
        ("interp s0_e0 s1_e0 --steps 1 -o d", "--steps 1 is not 2 or more"),
        ("interp s0_e0 s1_e0 --slerp --keep norm -o d", "--slerp has lengths of its own: leave out --keep"),
        ("apply s0_e0 gender --strength nan -o v.npy", "--strength nan is not finite"),
        ("apply s0_e0 nothing --strength 1 -o v.npy", "direction 'nothing' is not a file or in the library"),
        ("direction fit --csv none.csv --column g --name x", "labels none.csv: no such file"),
        ("direction fit --csv l.csv --column h --name x", "labels l.csv: no column 'h'; there are name, g"),
        ("direction fit --csv l.csv --column g", "nowhere to put the direction: give --output or --name"),
        ("direction fit --csv l.csv --column g --name x", "there is no voice 'nobody' in library voices"),
        ("direction show gender nothing", "direction 'nothing' is not a file"),
        ("search s0_e0 -k 0", "k 0 is not 1 or more"),
        ("search s0_e0 --where gender=x", "has no such voice to compare with"),
        ("map -o m.jpg", "--output m.jpg: the extension must be .png or .html"),
        ("map -o m.png --x gender", "--x and --y come together"),
        ("map -o m.png --color-by mood", "no voice of library voices has the attribute 'mood'"),
        ("export x.tar", "output x.tar: the extension must be .zip"),
        ("import none.zip", "archive none.zip: no such file"),
        ("remove s0_e0 nobody", "voice 'nobody' is not in library voices"),
        ("tag s0_e0", "nothing to enter"),
        ("space --nuisance emotion", "--nuisance is a column: give --csv"),
        ("measure none.wav -o l.csv", "audio none.wav: no such file"),
        ("measure none.wav -o l.txt", "labels l.txt: the extension must be .csv"),
        ("sing", "invalid choice: 'sing'"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_what_is_refused(refused, library, tmp_path, line, message):
    (tmp_path / "l.csv").write_text("name,g\nnobody,1\ns0_e0,0\n")
    library.names  # noqa: B018, writes the index
    (tmp_path / "voices" / ".lock").touch()
    assert message in refused("voices", *line.split())


def test_an_unreadable_row(refused, tmp_path):
    (tmp_path / "l.csv").write_text("name,g\n,f\nben,m\n")
    assert "labels l.csv: a row has neither a name nor a file" in refused(
        "voices", "direction", "fit", "--csv", "l.csv", "--column", "g", "-o", "g.safetensors"
    )


# Several files, names, words


def test_several_files_at_once(command, refused, checkpoint, tmp_path):
    model = ("--model", checkpoint("base"))
    for i, name in enumerate(("anna", "ben")):
        recording(tmp_path / f"{name}.wav", i, 2.0)
    np.save(tmp_path / "carl.npy", np.array(X[0]))
    told = answer(command, "add", "anna.wav", "ben.wav", "carl.npy", *model, "--consent", "given", "--tag", "new")
    assert [voice["name"] for voice in told["voices"]] == ["anna", "ben", "carl"]
    library = Library(tmp_path / "voices")
    assert library.names == ["anna", "ben", "carl"] and library["ben"].other["recording"] == "ben.wav"
    assert all(library.info(name)["attributes"] == {"new": ""} for name in library)
    assert all(library[name].consent == "given" for name in library)
    recording(tmp_path / "dora.wav", 5, 2.0)
    (tmp_path / "take2").mkdir()
    recording(tmp_path / "take2" / "dora.wav", 6, 2.0)
    for sources, message in (
        (["dora.wav", "ben.wav"], "library voices has a voice 'ben' already"),
        (["dora.wav", "take2/dora.wav"], "dora.wav and take2/dora.wav would both be 'dora'"),
        (["dora.wav", "none.wav"], "audio none.wav: no such file"),
        (["dora.wav", "anna*0.5 + ben*0.5"], "'anna*0.5 + ben*0.5' is not a recording or a voice file"),
        (["one", "two", "three"], "'one' is not a recording or a voice file; give NAME SOURCE, or files alone"),
        (["dora.wav", "carl.npy", "--prepare"], "--prepare belongs to a recording, which carl.npy is not"),
    ):
        assert message in refused("voices", "add", *sources, *model)  # and nothing is left behind
    assert answer(command, "add", "dora.wav", *model)["name"] == "dora"
    assert answer(command, "add", *model, "eva", "--tag", "x", "dora.wav")["name"] == "eva"  # options in between
    assert "unknown option --bogus" in refused("voices", "add", "--bogus", "finn", "dora.wav")


def test_a_recording_whose_name_is_not_utf_8(command, checkpoint, tmp_path):
    recording(tmp_path / "a.wav", 1, 3.1)
    try:
        (tmp_path / "a.wav").rename(tmp_path / "a\udcff.wav")
    except OSError:
        pytest.skip("this file system has names of UTF-8 alone")
    ran = command("voices", "add", "anna", "a\udcff.wav", "--model", checkpoint("base"), "--library", "kept")
    assert ran.status == 0, ran.err
    assert Library(tmp_path / "kept")["anna"].other["recording"] == "a?.wav"


def test_another_name(command, refused, library):
    assert answer(command, "rename", "s0_e0", "anna")["output"] == "voices/anna.safetensors"
    assert library["anna"].embedding.tolist() == X[0].tolist() and "s0_e0" not in library
    assert "has a voice 's0_e1' already" in refused("voices", "rename", "anna", "s0_e1")
    ran = command("voices", "rename", "anna", "s0_e1", "--overwrite")
    assert ran.out == "anna is now s0_e1, kept in voices/s0_e1.safetensors\n"


def test_comparing(command, refused, library):
    told, space = answer(command, "compare", "s0_e0", "s1_e0*0.5 + s2_e0*0.5"), VoiceSpace.fit(X)
    half = (X[4] + X[8]) / 2
    assert told["similarity"] == pytest.approx(space.similarity(X[0], half).item(), abs=1e-5)
    a, b = np.array(X[0]), np.array(half)
    assert told["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    scores = [library.direction("gender").score(vector).item() for vector in (X[0], half)]
    assert told["directions"]["gender"] == pytest.approx(scores, abs=1e-4)
    lines = command("voices", "compare", "s0_e0", "s1_e0").out.splitlines()
    assert [line.split()[0] for line in lines] == ["similarity", "raw", "@gender"]
    library.add("small", np.ones(8, np.float32))
    assert "'s0_e0' has 64 dimensions, 'small' 8" in refused("voices", "compare", "s0_e0", "small")


def test_a_filter_that_nothing_passes(command, library, tmp_path):
    for where, message in (
        (["gender=x"], "no voice of library voices has gender=x; values of gender: f, m"),
        (["mood"], "no voice of library voices has mood; attributes there are: gender"),
    ):
        ran = command("voices", "list", "--where", *where)
        assert ran.status == 0 and ran.err == f"{message}\n" and ran.out == "directions: @gender\n"
    assert answer(command, "list", "--where", "gender=x")["voices"] == {}
    (tmp_path / "empty").mkdir()
    assert command("voices", "list", "--library", "empty").err == "library empty has no voices\n"


@pytest.fixture
def worded(library):
    """A library with directions of all kinds; each score is a coordinate of its own."""
    y = np.array([i % 7 for i in range(len(NAMES))], np.float32)
    library.add_direction("f0_median", Direction.fit(X, y, method="ridge"))
    library.add_direction("pace", Direction.fit(X, y[::-1].copy(), method="ridge"))
    angry = ["yes" if emotion == "e1" else "no" for emotion in LABELS["emotion"]]
    library.add_direction("angry", Direction.fit(X, angry))
    joy = ["joy" if emotion == "e2" else "other" for emotion in LABELS["emotion"]]
    library.add_direction("emotion", Direction.fit(X, joy, positive="joy"))
    return library


@pytest.mark.parametrize(
    ("query", "sides"),
    [
        ("low, female, slow", {"f0_median": -1, "gender": -1, "pace": -1}),
        ("Deep", {"f0_median": -1}),
        ("high,male", {"f0_median": 1, "gender": 1}),
        ("fast, angry", {"pace": 1, "angry": 1}),
        ("not angry", {"angry": -1}),
        ("happy, f", {"emotion": 1, "gender": -1}),
        ("joy", {"emotion": 1}),
    ],
)
def test_searching_by_words(command, worded, query, sides):
    """The voices rank by the mean of their scores on each side, in standard deviations."""
    scores = np.zeros(len(NAMES))
    for name, sign in sides.items():
        along = np.array(worded.direction(name).score(X), np.float64)
        scores += sign * (along - along.mean()) / along.std() / len(sides)
    told = answer(command, "search", query, "-k", 4)["found"]
    order = np.argsort(-scores)[:4]
    assert [found["name"] for found in told] == [NAMES[i] for i in order]
    assert [found["score"] for found in told] == pytest.approx(scores[order].tolist(), abs=1e-4)
    last = answer(command, "search", query, "-k", 1, "--lowest")["found"][0]["name"]
    assert last == NAMES[scores.argmin()]


def test_words_that_stand_for_nothing(command, refused, worded, tmp_path):
    for query, word in (("low, grumpy", "'grumpy'"), ("grumpy", "'grumpy'"), ("warm, grumpy", "'warm', 'grumpy'")):
        message = refused("voices", "search", query)
        assert f"query: {word} is not a voice or a word for a side of a direction; library voices knows " in message
        assert all(
            f" {known}" in message for known in ("angry", "deep", "fast", "female", "high", "joy", "low", "male")
        )
    worded.add("low", X[5])  # a voice's name goes before a word
    assert answer(command, "search", "low", "-k", 1)["found"][0]["name"] == NAMES[5]
    for name in worded.directions:
        (worded.folder / "directions" / f"{name}.safetensors").unlink()
    assert "has no directions that it could stand for" in refused("voices", "search", "grumpy, high")
    assert "voice 'grumpy' is not a file or a library voice" in refused("voices", "search", "grumpy")


def test_few_voices_are_told_how_alike_they_are(command, tmp_path):
    """The warning names the mean cosine of these voices, which only published models have near 1."""
    library, rows = Library(tmp_path / "voices"), np.eye(4, 8, dtype=np.float32) + 0.1
    for i, row in enumerate(rows):
        library.add(f"v{i}", row)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mean = (unit @ unit.T)[~np.eye(4, dtype=bool)].mean()
    ran = command("voices", "search", "v0")
    assert f"similarities are raw cosines, which average {mean:.2f} among these voices" in ran.err
    assert "close to 1" not in ran.err


def test_labels_from_tags(command, refused, library, tmp_path):
    for i, name in enumerate(NAMES[:-1]):
        library.tag(name, speaker=LABELS["speaker"][i], f0=str(100 + i))
    fit = ("direction", "fit", "--column", "gender", "--group", "speaker", "--name", "sex")
    ran = command("voices", *fit)
    assert ran.status == 0 and f"left out, as they lack a label: {NAMES[-1]}" in ran.err
    wanted = Direction.fit(X[:-1], LABELS["gender"][:-1], groups=LABELS["speaker"][:-1])
    assert np.allclose(library.direction("sex").vector, wanted.vector, atol=1e-5)
    numbers = answer(command, "direction", "fit", "--column", "f0", "--name", "height")
    assert numbers["report"]["correlation"] is not None
    message = refused("voices", "direction", "fit", "--column", "mood", "--name", "x")
    assert message == "library voices: no voice has a tag 'mood'; there are f0, gender, speaker"


def test_a_voice_is_found_by_its_recording(command, refused, library, tmp_path):
    """The table names the recording; the voice has a name of its own, or the file's."""
    library.add("anna", Voice(X[0], other={"recording": "take one.wav"}))
    library.add("ben", Voice(X[9], other={"recording": "take two.wav"}))
    library.add("take three", X[17])
    rows = ("takes/take one.wav,first,f", "takes/take two.wav,second,m", "takes/take three.wav,third,f")
    (tmp_path / "l.csv").write_text("file,name,g\n" + "\n".join(rows) + "\n")
    (tmp_path / "n.csv").write_text("name,g\ntake one,f\ntake two,m\ntake three,f\n")
    wanted = Direction.fit(np.array(X)[[0, 9, 17]], ["f", "m", "f"])
    for table in ("l.csv", "n.csv"):
        answer(command, "direction", "fit", "--csv", table, "--column", "g", "-o", "g.safetensors")
        assert np.allclose(Direction.load(tmp_path / "g.safetensors").vector, wanted.vector, atol=1e-5)
    library.add("anna2", Voice(X[0], other={"recording": "take one.wav"}))
    (tmp_path / "g.safetensors").unlink()
    message = refused("voices", "direction", "fit", "--csv", "l.csv", "--column", "g", "-o", "g.safetensors")
    assert message == "labels l.csv: anna, anna2 were made from recordings called take one.wav"
