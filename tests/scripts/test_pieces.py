"""Pieces of long texts in several languages, and numbers as words."""

import sys
from base64 import b64encode
from types import ModuleType

import pytest

from benchmarks.letters import ENGLISH, PASSAGES, measure, merged, tokenizer_of
from mlx_qwen3tts import generate
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.errors import InvalidValue, MissingExtra, QwenTTSError, UnsupportedValue
from mlx_qwen3tts.scripts.timeline import LIMIT
from mlx_qwen3tts.synthesis import normalizing
from mlx_qwen3tts.synthesis.pieces import LETTERS, pieces, weight, written_in
from tests.scripts.standin import StandIn, timeline


@pytest.mark.parametrize("code", PASSAGES)
def test_a_piece_takes_as_long_in_every_language(code):
    space = "" if code in ("zh", "ja") else " "
    text = space.join(PASSAGES[code] * 30)
    made = pieces(text, LIMIT, code)
    assert space.join(made) == text
    longest = max(map(len, PASSAGES[code]))
    assert all(LETTERS[code] - longest < len(piece) <= LETTERS[code] for piece in made[:-1])
    # The same passages take about the same time, whatever they are written in.
    seconds = weight(" ".join(PASSAGES[code]), code) / ENGLISH
    assert seconds == pytest.approx(weight(" ".join(PASSAGES["en"])) / ENGLISH, rel=0.35)


def test_limits_are_what_was_measured():
    for code, row in measure(espeak=False).items():
        assert 0.75 * row["same_time"] <= row["limit"] <= 1.01 * row["same_time"], code


def test_the_published_vocabulary_is_counted_as_merges_go(tmp_path):
    ranks = {b"a": 0, b"b": 1, b" ": 2, b"ab": 3, b"abab": 4, b" ab": 5}
    assert [merged(word, ranks) for word in (b"abab", b"aba", b" ab", b"")] == [1, 2, 1, 0]
    lines = (b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())
    (tmp_path / "x.tiktoken").write_bytes(b"".join(lines))
    assert tokenizer_of(tmp_path / "x.tiktoken")("abab ab") == 2
    assert tokenizer_of(hub.SHIPPED["miniature"])("hello world") > 1


def test_the_language_of_a_text_is_that_of_its_script():
    for code, passages in PASSAGES.items():
        expected = code if code in ("zh", "ja", "ko", "ru") else "en"
        assert [written_in(text) for text in passages] == [expected] * len(passages)
        assert written_in(passages[0], code) == code
    assert written_in("He said 你好 and left.") == "en" and written_in("ニューヨーク") == "ja"
    assert written_in("…") == "en" and written_in("dzień dobry", "polish") == "en"


class Rules:
    """As much of wetext as is used."""

    def __init__(self, lang, operator):
        self.lang = lang

    def normalize(self, text):
        return text.replace("3", {"en": "three", "zh": "三", "ja": "三"}[self.lang])


@pytest.fixture
def wetext(monkeypatch):
    module = ModuleType("wetext")
    module.__spec__, module.Normalizer = object(), Rules
    monkeypatch.setitem(sys.modules, "wetext", module)
    normalizing.rules.cache_clear()
    yield
    normalizing.rules.cache_clear()


def test_numbers_become_words_where_that_is_asked_for(wetext, tmp_path):
    assert normalizing.in_words("3 cats.") == "three cats." and normalizing.in_words("3只猫。") == "三只猫。"
    assert normalizing.in_words("Ohne.", "German") == "Ohne."
    with pytest.raises(
        UnsupportedValue, match="no rules for numbers in German; they are for English, Chinese, Japanese"
    ):
        normalizing.in_words("3 Katzen.", "German")
    tts = StandIn()
    timeline("# Part 3\n\nLOW: 3 cats.", tts, normalize=True).render(tts, tmp_path / "a.wav")
    assert tts.said == ["Part three", "three cats."]
    with pytest.raises(QwenTTSError, match="line 3: there are no rules"):
        timeline("LOW: Hi.\n\nLOW: 3 Katzen.", tts, normalize=True, language="de").render(tts, tmp_path / "b.wav")
    tts = StandIn()
    timeline("LOW: 3 cats.", tts).render(tts, tmp_path / "a.wav")
    assert tts.said == ["3 cats."]
    assert generate.normalized("3 cats.", "en") == "three cats." and generate.normalized(["3", "a"], "auto") == [
        "three",
        "a",
    ]
    with pytest.raises(InvalidValue, match="--normalize needs the whole text, and stdin is spoken as it comes"):
        generate.normalized(iter(["3"]), "en")


def test_without_the_extra_it_is_named(monkeypatch, refused, tmp_path):
    monkeypatch.setattr(normalizing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"--normalize needs wetext: pip install .*\[wetext\]"):
        normalizing.in_words("3")
    (tmp_path / "a.txt").write_text("3")
    for command in (("render", "a.txt", "--output", "a.wav"), ("check", "a.txt")):
        assert "needs wetext" in refused("script", *command, "--voice", "x", "--normalize")
    assert "needs wetext" in refused("generate", "3 cats.", "--normalize")


def test_wetext_itself():
    pytest.importorskip("wetext")
    assert normalizing.in_words("I have 3 cats and $3.50.") == "I have three cats and three point five dollars."
    assert normalizing.in_words("我有3只猫。") == "我有三只猫。"
