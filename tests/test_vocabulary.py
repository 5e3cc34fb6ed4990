"""Models that were taught only some words: what they say of a text, and of a config that does not say it well."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.vocabulary import Vocabulary
from mlx_qwen3tts.errors import ConfigError
from training.hearing import Hearing

KNOWN = Vocabulary(("hello", "this", "i"), ",.?!")


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Hello, this!", []),
        ("I hello.\n\tThis?!", []),
        ("HELLO iS", ["HELLO", "iS"]),
        ("hello zebra zebra, zebra.", ["zebra"]),
        ("hello , this", []),  # a mark is not a word
        (".", []),
        ("...!?", []),
        ("7 hello-this", ["7", "hello-this"]),
    ],
)
def test_unknown_words(text, unknown):
    assert KNOWN.unknown(text) == unknown


def test_many_unknown_words_are_counted():
    with pytest.warns(UserWarning, match=r"does not know: w0, w1, w2, w3, w4, w5, w6, w7 and 12 more"):
        KNOWN.check(" ".join(f"w{i}" for i in range(20)))


def test_words_that_come_in_pieces_are_checked_whole():
    pieces = ["Hel", "lo fo", "o this", " bar", "", " i", " ", "x"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert list(KNOWN.watch(pieces)) == pieces
    named = [str(w.message).split("does not know: ")[1].split(" (")[0] for w in told]
    assert named == ["foo", "bar", "x"]
    assert list(KNOWN.watch(["hello", None])) == ["hello", None]  # what is no text is refused where it is read


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("closed_vocabulary", [], "closed_vocabulary is not an object of words and punctuation"),
        ("closed_vocabulary", {"words": ["a"]}, "closed_vocabulary is not an object"),
        ("closed_vocabulary", {"words": "abc", "punctuation": ","}, "words is not a list of strings"),
        ("untrained", "in_context", "untrained is not a list of strings"),
    ],
)
def test_a_config_that_says_it_badly(checkpoint, tmp_path, key, value, message):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("base"), folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ConfigError, match=message):
        Qwen3TTS.from_pretrained(folder)


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        (["Hello!!! Hello?!"], "Hello! Hello?"),
        (["Hello!", "!", "! Hello", "?", "", "!"], "Hello! Hello?"),
        (["...!?"], "."),
        (["No. No."], "No. No."),
        (["Hello, , this"], "Hello, , this"),
    ],
)
def test_marks_that_follow_each_other_become_one(pieces, wanted):
    assert "".join(KNOWN.single_marks(pieces)) == wanted


def test_the_miniature_speaks_what_follows_several_marks():
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    voice = tts.clone(hub.SHIPPED["miniature"] / "recordings" / "low.flac")
    how = {"language": "English", "greedy": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # marks are not words that it does not know
        plain = tts.generate("Hello! Hello?", voice, **how)
        speeches = [
            tts.generate(text, voice, **how) for text in ("Hello!!! Hello?!", iter(["Hello!", "!! Hel", "lo?!"]))
        ]
        tts.generate("...!?", voice, **how)
    heard = Hearing(Path(__file__).parent / "assets" / "recogniser.safetensors")(np.array(speeches[0].audio))
    assert heard.count("hello") == 2
    assert all(np.array_equal(np.array(speech.codes), np.array(plain.codes)) for speech in speeches)
