"""Names without files, as a server looks voices up: nothing outside the library is looked at, nor told of."""

import builtins
import os
from pathlib import Path

import numpy as np
import pytest

from mlx_qwen3tts import Direction, Library, Voice
from mlx_qwen3tts.errors import DirectionNotFound, InvalidValue, QwenTTSError, VoiceNotFound
from mlx_qwen3tts.voices.lookup import Lookup
from tests.voices.real import made

X, NAMES, LABELS = made()
PRESET = Voice(X[5])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A library in a folder, and beside it files that nobody may reach through it."""
    monkeypatch.chdir(tmp_path)
    library = Library("voices")
    for name, row in (("anna", 0), ("ben", 9), ("v1.5", 3)):
        library.add(name, Voice(X[row]))
    direction = Direction.fit(X, LABELS["gender"], groups=LABELS["speaker"])
    library.add_direction("gender", direction)
    direction.save("outside.safetensors")
    Voice(X[1]).save("secret.npy")
    Voice(X[1]).save("secret.safetensors")
    return tmp_path


def lookup(**options):
    return Lookup(Library("voices"), lambda name: PRESET if name == "Vivian" else None, ["Vivian"], **options)


def test_names_expressions_and_directions_work(folder):
    names, anna, ben = lookup(files=False), X[0], X[9]
    step = names.direction("gender").step
    for text, wanted in (
        ("anna", anna),
        ("Vivian", PRESET.embedding),
        ("v1.5", X[3]),
        ("anna*0.5 + ben*0.5", (anna + ben) / 2),
        ('"anna" + 0.5*@gender', anna + 0.5 * step),
        ("Vivian*0.5 + anna*0.5", (PRESET.embedding + anna) / 2),
    ):
        assert np.abs(np.array(names.voice(text).embedding - wanted)).max() <= 1e-5, text
    assert lookup().names_only().files is False and lookup().files is True


def error_of(call, *arguments):
    with pytest.raises(QwenTTSError) as told:
        call(*arguments)
    return told.value


PATHS = ("{0}/secret.npy", "../{1}/secret.npy", "secret.npy", "secret.safetensors", "./secret.npy")
EXPRESSIONS = ("{0}", 'anna*0.5 + "{0}"*0.5', '"{0}"*2', 'ben + @"{0}"')


@pytest.mark.parametrize("place", PATHS)
@pytest.mark.parametrize("form", EXPRESSIONS)
def test_a_path_is_no_name(place, form, folder, monkeypatch):
    """It is refused in the same words whether the file is there or not, and no system call names it."""
    path = place.format(folder, folder.name)
    assert Path(path).is_file()
    names = lookup(files=False)
    names.voice("anna + @gender")  # so that the library has been read
    touched = []

    def watched(of, name):
        """The function, which notes the paths that it is asked about."""
        real = getattr(of, name)

        def call(file, *rest, **options):
            touched.append(str(file))
            return real(file, *rest, **options)

        monkeypatch.setattr(of, name, call)

    for of, name in ((os, "stat"), (os, "lstat"), (os, "open"), (builtins, "open"), (np, "load"), (np, "fromfile")):
        watched(of, name)
    there = error_of(names.find, form.format(path))
    monkeypatch.undo()
    assert not [file for file in touched if "secret" in file]
    assert touched  # the library's own
    assert there.code in ("voice_not_found", "direction_not_found") and str(folder) not in str(there).replace(path, "")
    monkeypatch.chdir(folder)
    Path(path).unlink()
    assert str(error_of(names.find, form.format(path))) == str(there)


def test_its_messages_name_no_folder(folder):
    names = lookup(files=False)
    assert str(error_of(names.voice, "bob")) == (
        "voice 'bob' is not a library voice or a preset of this model; library voices: anna, ben, v1.5; presets: Vivian"
    )
    assert str(error_of(names.direction, "pitch")) == "direction 'pitch' is not in the library; it has gender"
    assert isinstance(error_of(names.voice, "bob"), VoiceNotFound)
    assert isinstance(error_of(names.direction, "../outside"), DirectionNotFound)
    empty = Lookup(Library(folder / "none"), files=False)
    assert str(error_of(empty.voice, "bob")) == "voice 'bob' is not a library voice"
    assert "is not a library voice; " in str(error_of(Lookup(Library("voices"), files=False).voice, "voices/anna"))
    (folder / "voices" / "directions" / "torn.safetensors").write_bytes(b"{")
    for call, name in ((names.direction, "torn"), (names.voice, "anna + @torn")):
        assert "direction 'torn' of the library cannot be read" in str(error_of(call, name))
        assert str(folder) not in str(error_of(call, name)) and ".safetensors" not in str(error_of(call, name))


@pytest.mark.parametrize("name", ["../../outside", "../anna", "a/b", ".hidden", "", "a\0b"])
def test_a_directions_name_is_checked(name, folder, monkeypatch):
    library = Library("voices")
    Path("voices/directions/.hidden.safetensors").write_bytes(Path("outside.safetensors").read_bytes())
    monkeypatch.setattr(Direction, "load", lambda path: pytest.fail(f"{path} was opened"))
    error = error_of(library.direction, name)
    assert isinstance(error, InvalidValue) and error.param == "name"
    assert isinstance(error_of(library.direction, "nothing"), DirectionNotFound)
