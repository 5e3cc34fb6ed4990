"""`voices` as users type it: what it prints, writes and refuses. Its examples run in tests/test_examples.py."""

import json

import numpy as np
import pytest

from convert.parity import recording
from mlx_qwen3tts import Direction, Library, Voice, VoiceSpace
from mlx_qwen3tts.checkpoint.folder import ModelFolder
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
