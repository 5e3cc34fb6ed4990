"""Languages by name and by code."""

import dataclasses

import pytest

from convert.parity import vector
from mlx_qwen3tts import Request
from mlx_qwen3tts.errors import InvalidValue
from mlx_qwen3tts.synthesis.languages import CODES, language_name

VECTOR = vector(64, 1)
KNOWN = ["auto", "chinese", "english", "portuguese", "german"]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("English", "english"),
        ("en", "english"),
        ("EN-us", "english"),
        ("zh-CN", "chinese"),
        ("zh_TW", "chinese"),
        ("zh-Hant-HK", "chinese"),
        ("cmn", "chinese"),
        ("pt-BR", "portuguese"),
        ("pt_br", "portuguese"),
        ("deu", "german"),
        (" de ", "german"),
        ("auto", "auto"),
        ("Auto", "auto"),
        ("", "auto"),
        ("  ", "auto"),
        (None, "auto"),
    ],
)
def test_codes_and_names(asked, name):
    assert language_name(asked, KNOWN) == name


@pytest.mark.parametrize("asked", ["fr", "klingon", "tlh", "english-us", "en us", "e", "en-", "-en", "zh--CN"])
def test_what_the_model_has_not_lists_what_it_has(asked):
    with pytest.raises(
        InvalidValue, match=f"language '{asked}' is not one of auto, chinese, english, portuguese, german"
    ):
        language_name(asked, KNOWN)


def test_no_code_means_two_languages():
    codes = [code for codes in CODES.values() for code in codes]
    assert len(set(codes)) == len(codes)


def test_a_code_makes_the_prompt_of_the_name(model):
    tts, request = model("base"), Request("Hello.", language="english", seed=1)

    def prompt(language):
        voice = tts.voice(VECTOR)
        return tts.planner.prompt(dataclasses.replace(request, language=language), voice).embeddings.tolist()

    assert prompt("en") == prompt("en_GB") == prompt("English") != prompt("auto")
    assert prompt(None) == prompt("") == prompt("auto")
    assert Request("Hello.", language=None) == Request("Hello.", language="") == Request("Hello.")


def test_every_published_language_has_a_code(model):
    for name in ("base", "custom-voice"):
        languages = model(name).languages
        for language in languages[1:]:
            assert all(language_name(code, languages) == language for code in CODES[language])
