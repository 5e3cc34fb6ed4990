"""The blend expression language: what it reads and prints, what it adds up to, where it points when it fails."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlx_qwen3tts import Direction, Library, Voice
from mlx_qwen3tts.errors import DirectionNotFound, InvalidValue, QwenTTSError, VoiceError, VoiceNotFound
from mlx_qwen3tts.voices import parse
from mlx_qwen3tts.voices.expression import ExpressionError, Name, Sum, reduce
from mlx_qwen3tts.voices.lookup import Lookup, Offset, fingerprint
from mlx_qwen3tts.voices.metadata import plain
from tests.voices.real import made

X, NAMES, LABELS = made()
A, B, C, D = (Voice(X[i]) for i in (0, 9, 18, 27))


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    library = Library("voices")
    for name, voice in (
        ("anna", A),
        ("ben", B),
        ("carl", C),
        ("anna-ben", D),
        ("old anna", B),
        ("小明", C),
        ("2pac", D),
    ):
        library.add(name, voice)
    library.add_direction("gender", Direction.fit(X, LABELS["gender"], groups=LABELS["speaker"]))
    library.add_direction("deep voice", Direction.fit(X, LABELS["emotion"], positive="e1"))
    return library


def value(library, text, **how):
    return np.array(Lookup(library).voice(text, **how).embedding)


def equal(library, text, wanted):
    return np.abs(value(library, text) - np.array(wanted)).max() <= 1e-5


@pytest.mark.parametrize(
    "text",
    [
        "anna*0.7 + ben*0.3", "0.7*anna + 0.3*ben", "anna(0.7)+ben(0.3)", "anna(7) + ben(3)", "anna:0.7,ben:0.3",
        "anna:7, ben:3", "anna*.7+ben*3e-1", '"anna"*0.7 + "ben"*0.3', "7*anna + 3*ben", "2*3.5*anna + 3*ben",
        "\tanna*0.7\n + ben*0.3 ", "(anna*0.7 + ben*0.3)", "voices/anna.safetensors*0.7 + ben*0.3",
    ],
)  # fmt: skip
def test_ways_to_write_a_blend(library, text):
    assert equal(library, text, 0.7 * A.embedding + 0.3 * B.embedding)


def test_what_expressions_add_up_to(library):
    a, b, c, d = (voice.embedding for voice in (A, B, C, D))
    gender, deep = (library.direction(name).step for name in ("gender", "deep voice"))
    for text, wanted in (
        ("anna", a),
        ("anna-ben", d),  # a name
        ("old anna", b),  # precedence: the whole string is a library voice
        ('"old anna"*0.5 + 小明*0.5', (b + c) / 2),
        ("2pac*0.5 + anna*0.5", (d + a) / 2),
        ("anna + ben", (a + b) / 2),
        ("anna + ben - carl", a + b - c),
        ("0.5*anna + 0.5*ben - 0.2*carl", (0.5 * a + 0.5 * b - 0.2 * c) / 0.8),
        ("anna + 0.5*(ben - carl)", a + 0.5 * (b - c)),
        ("anna(2) + ben(2) + 0.5*(ben - carl)", (a + b) / 2 + 0.5 * (b - c)),  # an offset is added as it is
        ("(anna + ben)*0.5 + carl*0.5", (a + b) / 4 + c / 2),
        ("((anna))*3", a),
        ("anna*-0.5 + ben*1.5", 1.5 * b - 0.5 * a),
        ("-0.5*anna + 1.5*ben", 1.5 * b - 0.5 * a),
        ("anna + 1.5*@gender", a + 1.5 * gender),
        ("anna - @gender*2", a - 2 * gender),
        ("anna(3) + @gender(2)", a + 2 * gender),
        ('anna + 2*(@gender - 0.5*@"deep voice")', a + 2 * gender - deep),
        ("(anna + @gender)*0.5 + ben*0.5", (a + gender + b) / 2),
        ("anna + anna + ben", (2 * a + b) / 3),
        ("1e308*anna + 1e308*ben", (a + b) / 2),  # whose sum is beyond a float
        ("1e308*anna + 1e308*ben - 1e308*carl", a + b - c),
        ("5e-324*anna + 5e-324*ben", (a + b) / 2),  # whose inverse is
        ("anna(1), ben(1)", (a + b) / 2),
    ):
        assert equal(library, text, wanted), text


def test_keeping_norm_and_radius(library):
    space = library.space  # too few voices to fit one there
    with pytest.warns(UserWarning, match="too few to fit a space"):
        assert space(64) is None
    from mlx_qwen3tts import VoiceSpace

    space = VoiceSpace.fit(X)
    for text, amounts in (
        ("anna*0.7 + ben*0.3", (0.7, 0.3)),
        ("anna(7) + ben(3) + 2*@gender + (ben - carl)", (0.7, 0.3)),
    ):
        for keep, origin in (("norm", 0), ("radius", np.array(space.mean))):
            lengths = [np.linalg.norm(np.array(voice.embedding) - origin) for voice in (A, B)]
            kept = value(library, text, space=space, keep=keep)
            assert abs(np.linalg.norm(kept - origin) - np.dot(amounts, lengths)) <= 1e-4
    with pytest.raises(InvalidValue, match="needs a voice space"):
        value(library, "anna + ben", keep="radius")


def test_a_name_keeps_what_belongs_to_the_voice(library):
    assert Lookup(library).voice("anna").metadata == A.metadata
    assert Lookup(library).voice("anna*2").recipe == {}
    told = plain(Lookup(library).voice("anna*3 + ben - 2*@gender").recipe)
    assert told["expression"] == "3*anna + ben - 2*@gender"
    assert [(parent["name"], parent["weight"]) for parent in told["parents"]] == [("anna", 0.75), ("ben", 0.25)]
    assert told["parents"][0]["fingerprint"] == fingerprint(A.embedding) != fingerprint(B.embedding)
    assert told["directions"] == [{"name": "gender", "strength": -2.0, "towards": "m"}]


def test_a_long_expression(library):
    """Longer than a file's name can be."""
    assert equal(library, " + ".join(["anna*0.5", "ben*0.5"] * 30), (A.embedding + B.embedding) / 2)
    with pytest.raises(VoiceNotFound, match="is not a file"):
        value(library, "x" * 5000)
    with pytest.raises(InvalidValue, match="keep 'all' is not one of"):
        value(library, "anna*1", keep="all")


def test_a_direction_of_the_library_goes_before_a_file_of_its_name(library):
    A.save("gender.safetensors")  # a voice
    assert equal(library, "anna + @gender", A.embedding + library.direction("gender").step)


def test_recipes_nest_and_files_go_before_the_library(library):
    library.add("duo", Lookup(library).voice("anna + ben"))
    told = Lookup(library).voice("duo*0.5 + carl*0.5").recipe
    assert told["parents"][0]["recipe"]["expression"] == "anna + ben"
    np.save("anna", np.array(D.embedding))  # anna.npy is another name than anna
    assert equal(library, "anna", A.embedding) and equal(library, "anna.npy", D.embedding)
    Voice(D.embedding).save("ben.safetensors")
    import os

    os.rename("ben.safetensors", "ben")
    with pytest.raises(VoiceError, match="extension"):
        value(library, "ben")


def test_presets_mix_with_vectors(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tts = model("custom-voice")
    vector = Voice(np.random.RandomState(0).standard_normal(64).astype(np.float32))
    vector.save("mine.npy")
    mixed = tts.voice("Vivian*0.5 + mine.npy*0.5")
    wanted = (tts.preset("vivian").embedding + vector.embedding) / 2
    assert np.abs(np.array(mixed.embedding - wanted)).max() <= 1e-5 and "preset" not in mixed.metadata
    assert tts.generate("Hi.", "Vivian*0.5 + ryan*0.5", max_tokens=3, seed=1).codes.shape == (2, 16)


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("anna +", "expected a voice", 6),
        ("anna + * ben", "expected a voice", 7),
        ("小明 + * ben", "expected a voice", 5),
        ("anna ben*2", "expected + - or * here", 5),
        ("anna*ben", "multiplied by a number only", 5),
        ("anna*", "expected a number", 5),
        ("0.5 anna + ben", "expected * between", 4),
        ("(anna + ben", "not closed", 11),
        ("anna + ben)", "never opened", 10),
        ("anna(ben)", "expected a number", 5),
        ("anna(2 + ben", "expected )", 7),
        ('"anna + ben', "quotes are not closed", 0),
        ('"" + ben', "an empty name", 0),
        ("anna -ben + carl", "a minus needs spaces", 5),
        ("anna -ben", "a minus needs spaces", 5),
        ("anna*0.7-ben*0.3", "a minus needs spaces", 5),
        ("anna + @", "name of a direction after @", 8),
        ("anna + nobody", "voice 'nobody' is not a file", 7),
        ("anna + 2*@nothing", "direction 'nothing' is not a file", 9),
        ("anna - ben", "that is an offset, not a voice", 0),
        ("2*@gender", "that is an offset, not a voice", 0),
        ("anna*0 + ben*0", "that is an offset, not a voice", 0),
        ("1e300*1e300*anna + ben", "the weight is not finite", 0),
        ("anna,ben", "a comma without weights may mean two things: for a blend write anna + ben, or anna:1, ben:1", 4),
        ("anna:1, ben, carl:2", "may mean two things", 6),
        ("anna:1 + (ben:2, carl)", "may mean two things", 15),
        ("anna*-1", "the weights of the voices sum to -1, and dividing by that would turn every sign", 0),
        ("-0.5*anna + 1.5*@gender", "sum to -0.5", 0),
        ("anna - 2*ben", "sum to -1", 0),
        ("carl + (anna - 2*ben)", "sum to -1", 8),
        ("1e39*@gender + anna", "it leads to numbers too large for a voice", 0),
        ("anna + 1e308*(1e308*(ben - carl))", "multiply to more than a number can hold", 0),
        ("(" * 101 + "anna" + ")" * 101, "more than 100 parentheses", 100),
        ("anna + small.npy", "small.npy has 8 dimensions, anna 64", 7),
    ],
)  # fmt: skip
def test_errors_point_at_the_place(library, text, message, place):
    np.save("small.npy", np.ones(8, np.float32))
    with pytest.raises(
        ExpressionError, match=message.replace("*", r"\*").replace("+", r"\+").replace(")", r"\)")
    ) as told:
        Lookup(library).voice(text)
    missing = {"voice 'nobody'": "voice_not_found", "direction": "direction_not_found", "small": "invalid_voice"}
    wanted = next((code for words, code in missing.items() if message.startswith(words)), "invalid_expression")
    assert told.value.code == wanted
    line, caret = told.value.pointer.split("\n")
    assert line == f"  {text}"
    wide = sum(c in "小明" for c in text[:place])
    assert caret.index("^") == 2 + place + wide


def test_the_command_shows_the_caret(command, checkpoint):
    ran = command("generate", "--model", checkpoint("base"), "--voice", "anna*0.5 + ", "Hello.")
    assert ran.status == 2
    assert ran.err.splitlines() == [
        "error: blend expression: expected a voice, @direction or (",
        "  anna*0.5 + ",
        "             ^",
    ]


@pytest.mark.parametrize("name", ["nobody", "nobody's voice", "a-b"])
def test_an_unknown_name_alone(library, name):
    with pytest.raises(VoiceNotFound, match="is not a file or a library voice; library voices: 2pac, anna") as told:
        Lookup(library).voice(name)
    assert not isinstance(told.value, ExpressionError) and told.value.param == "voice"


def test_an_unknown_direction(library):
    with pytest.raises(DirectionNotFound, match="direction 'nothing' is not a file or in the library"):
        Lookup(library).direction("nothing")
    with pytest.raises(DirectionNotFound, match=r"'nothing' is not in library .*; it has deep voice, gender"):
        library.direction("nothing")


characters = st.characters(blacklist_categories=("Cs", "Cc"))
names = st.one_of(
    st.sampled_from(
        ["anna", "anna-ben", "old anna", "小明", 'q"uote', "back\\slash", "1e5", "-x", "a/b.npy", "+", "*"]
    ),
    st.text(characters, min_size=1, max_size=8),
)
weights = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda w: w != 0 and abs(w) > 1e-6)
leaves = st.builds(Name, names, st.booleans())
sums = st.recursive(
    st.lists(st.tuples(weights, leaves), min_size=1, max_size=4).map(lambda terms: Sum(tuple(terms))),
    lambda inner: st.lists(st.tuples(weights, st.one_of(leaves, inner)), min_size=1, max_size=3).map(
        lambda terms: Sum(tuple(terms))
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(expression=sums)
def test_what_is_printed_is_read_again(expression):
    assert parse(str(expression)) == expression
    assert str(parse(str(expression))) == str(expression)


PIECES = [
    "anna",
    "ben",
    "@gender",
    "@up",
    "1e308",
    "1e39",
    "5e-324",
    "-1",
    "1e400",
    "0",
    "٣",
    "nan",
    "inf",
    "\0",
    "\ud800",
]
PIECES += [
    "x" * 300 + ".npy",
    "/dev/null",
    "~",
    "../anna",
    ".json",
    "anna.wav",
    *'*+()@,: \t"\\-',
    " - ",
    " + ",
    "*",
    "*",
]
pieces = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=14).map("".join)


class Few(dict[str, Voice]):
    """As much of a library as a Lookup asks for, without a folder to look at for every example."""

    folder, names, directions = "voices", ["anna", "ben"], ["gender", "up"]

    def direction(self, name):
        return DIRECTIONS[name]


FEW = Few(anna=A, ben=Voice(B.embedding * 1e20))
DIRECTIONS = {
    "gender": Direction.fit(X, LABELS["gender"], groups=LABELS["speaker"]),
    "up": Direction.fit(X, LABELS["emotion"], positive="e1"),
}


@settings(max_examples=300, deadline=None)
@given(text=pieces)
@example("1e308*anna + 1e308*ben")
@example("1e39*anna - 1e39*ben")
@example("1e308*(1e308*(anna - ben)) + 1e308*(1e308*(ben - anna))")
@example("anna - anna")
@example("0*@gender")
@example("x" * 300 + ".npy")
@example("3e38*anna - 3e38*ben + anna")
def test_whatever_the_text_its_result_is_finite_or_an_error_of_ours_is_raised(text):
    for lookup in (Lookup(FEW), Lookup(FEW, files=False)):
        try:
            found = lookup.find(text)
        except QwenTTSError as error:
            assert error.param in ("voice", "direction")
            continue
        vector = np.array(found.step if isinstance(found, Offset) else found.embedding)
        assert np.isfinite(vector).all() and vector.any()
        if isinstance(found, Voice):
            json.loads(json.dumps(plain(found.recipe), allow_nan=False))


@pytest.mark.filterwarnings("ignore:library voices has 7 voices")  # too few to centre on
def test_an_offset_says_where_to_and_not_how_far(library):
    """So weights of any size search alike: 1e39 is beyond float32, and the square of 1e-30 is nothing in it."""
    names, scores = zip(*library.search("anna - ben", 3), strict=True)
    for weight in ("1e39", "1e-30", "1e308", "5e-324"):
        found = dict(library.search(f"{weight}*anna - {weight}*ben", 3))
        assert tuple(found) == names and list(found.values()) == pytest.approx(scores, abs=1e-5)
    assert library.search("1e300*@gender", 3) == library.search("@gender", 3)
    for text in ("anna - anna", "0*@gender", "anna*0"):
        with pytest.raises(ExpressionError, match="it adds up to nothing"):
            library.search(text)


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(list("ab 0.5*+-()@,:\"'\\é小e")), max_size=20))
def test_any_text_is_read_or_refused(text):
    try:
        expression = parse(text)
    except ExpressionError as error:
        assert error.pointer.startswith(f"  {text}\n")
    else:
        assert parse(str(expression)) == expression


@settings(max_examples=100, deadline=None)
@given(expression=sums)
def test_a_voice_has_weights_that_sum_to_one_and_an_offset_to_none(expression):
    try:
        form = reduce(expression)
    except ExpressionError as error:
        assert "would turn every sign" in str(error)
        return
    total, size = math.fsum(form.voices.values()), math.fsum(map(abs, form.voices.values()))
    assert abs(total - (1 if form.amounts else 0)) <= 1e-5 * max(1, size)
    if form.amounts:
        assert abs(math.fsum(form.amounts.values()) - 1) <= 1e-6


@pytest.mark.parametrize(
    ("text", "voices"),
    [
        ("999507*anna - 999506*anna", {"anna": 1}),
        ("0.1*anna + 0.2*anna - 0.3*anna", None),
        ("1e6*anna - 1e6*anna + 1e-4*ben", {"anna": 0, "ben": 1}),
        ("1e6*anna - 1000000.1*ben", None),
    ],
)
def test_a_small_total_of_great_weights(text, voices):
    form = reduce(parse(text))
    assert bool(form.amounts) == (voices is not None)
    if voices is not None:
        assert {name.name: weight for name, weight in form.voices.items()} == pytest.approx(voices)


def test_python_takes_expressions_everywhere(library, model):
    tts = model("base")
    tts.library, old = library, tts.library
    try:
        assert np.allclose(
            np.array(tts.voice("anna*0.5 + ben*0.5").embedding), np.array((A.embedding + B.embedding) / 2)
        )
        assert tts.generate("Hi.", "anna + @gender", max_tokens=3, seed=1).codes.shape == (2, 16)
    finally:
        tts.library = old
    assert isinstance(A.embedding, mx.array)
