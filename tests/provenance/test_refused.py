"""A voice whose consent is refused is not spoken, whoever asks and however it is called."""

import json

import pytest

from convert.parity import vector
from mlx_qwen3tts import Library, Request, Voice
from mlx_qwen3tts.errors import InvalidValue
from mlx_qwen3tts.synthesis.morph import timed
from mlx_qwen3tts.voices.fit import check_refused
from mlx_qwen3tts.voices.lookup import Lookup

NO = "voice 'no' belongs to somebody who refused; it is not spoken"
WAYS = ("no", "no*0.5 + yes*0.5", "yes + 0.5*(yes - no)", "mix", "mix*0.1 + yes*0.9")


@pytest.fixture
def library(tmp_path):
    """no has refused, yes has not, mix is made of both and was kept as a file."""
    made = Library(tmp_path / "voices")
    made.add("no", Voice(vector(64, 1)), consent="refused")
    made.add("yes", Voice(vector(64, 2)), consent="given")
    made.add("mix", Lookup(made).voice("no*0.5 + yes*0.5"))
    return made


@pytest.mark.parametrize("way", WAYS)
def test_in_python(model, library, way):
    tts = model("base")
    with pytest.raises(InvalidValue) as told:
        tts.generate("Hi.", Lookup(library).voice(way))
    assert str(told.value).startswith(NO) and told.value.param == "voice"
    with pytest.raises(InvalidValue, match="belongs to somebody who refused"):
        tts.stream(Request("Hi.", library["yes"], morph=library["no"], morph_seconds=1.0))


def test_what_is_made_of_it_is_named_too(library):
    with pytest.raises(InvalidValue) as told:
        check_refused(library["mix"])
    assert str(told.value) == f"{NO}, nor is what is made of it: 'mix'"
    check_refused(library["yes"])
    with pytest.raises(InvalidValue, match=r"^the voice belongs to somebody"):
        check_refused(Voice(vector(64, 1), consent="refused"))


def test_a_morph_that_leads_there(library):
    with pytest.raises(InvalidValue, match=NO):
        timed(lambda seconds: library["no"], 0.08, 64)(0)


@pytest.mark.parametrize("way", ["no", "no*0.5 + yes*0.5"])
def test_in_every_command(refused, checkpoint, library, tmp_path, way):
    (tmp_path / "play.txt").write_text("Hello.")
    (tmp_path / "film.srt").write_text("1\n00:00:00,500 --> 00:00:03,000\nHello.\n")
    (tmp_path / "play.json").write_text(json.dumps({"narrator": "yes", "ANNA": way}))
    (tmp_path / "cast.txt").write_text("Hello.\n\nANNA: Hello.")
    who = ("--voice", way, "--library", library.folder)
    model = ("--model", checkpoint("base"))
    assert NO in refused("generate", *model, *who, "Hi.")
    assert NO in refused("generate", *model, "--voice", "yes", "--morph-to", way, *who[2:], "Hi.")
    assert NO in refused("say", "--server", "none", *model, *who, "-o", "x.wav", "Hi.")
    assert NO in refused("script", "check", "play.txt", *who)
    assert NO in refused("script", "render", "play.txt", *model, *who, "--output", "x.wav")
    assert NO in refused("dub", "film.srt", *model, *who, "--output", "x.wav")
    cast = ("--voices", "play.json", *who[2:])
    assert "line 3" in (told := refused("script", "render", "cast.txt", *model, *cast, "--output", "x.wav"))
    assert NO in told


def test_a_dubbing_says_it_before_it_listens(refused, tmp_path):
    (tmp_path / "film.srt").write_text("1\n00:00:00,500 --> 00:00:03,000\nHello.\n")
    options = ("film.srt", "--from-audio", "film.wav", "--consent", "refused", "--output", "x.wav")
    assert refused("dub", *options) == "--consent refused: who has refused is not spoken"
