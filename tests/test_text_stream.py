"""Ids of a text that comes in pieces: those of the whole text, however it is cut, and each as soon as it is certain."""

import itertools
import sys
import time
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from mlx_qwen3tts.errors import InvalidValue, WrongType
from mlx_qwen3tts.synthesis import text_stream
from mlx_qwen3tts.synthesis.text import check_text, says_nothing
from mlx_qwen3tts.synthesis.text_stream import TextStream
from mlx_qwen3tts.synthesis.tokenizer import PATTERN, TextTokenizer

# (what has come, what comes next): to tokenise the two apart would be wrong, a rule for each.
HARD = {
    "contraction of two": ("I'l", "l go"),
    "contraction in capitals": ("WE'V", "E DONE"),
    "contraction after the apostrophe": ("don'", "t"),
    "contraction with a long s": ("it'", "ſ late"),
    "no contraction": ("'r", "umour"),
    "apostrophe as a word's prefix": ("say'", "hello"),
    "word": ("hel", "lo there"),
    "space before a word": ("hello ", "there"),
    "space before punctuation": ("wait ", "..."),
    "spaces, the last one a word's": ("a  ", "word"),
    "spaces before a digit": ("a ", "  1"),
    "tab as a word's prefix": ("a\t", "word"),
    "spaces up to a later newline": ("a.\n \t", " \nb"),
    "two newlines": ("a\n", "\nb"),
    "newline that spaces follow": ("a\n  ", "\n\nb"),
    "carriage return": ("end.\r", "\n next"),
    "newlines after punctuation": ("end.", "\n\nnext"),
    "newline after newline after punctuation": ("end!\n", "\nnext"),
    "punctuation as a word's prefix": ("a(", "word)"),
    "punctuation run": ("wait..", "."),
    "ideographic space": ("好\u3000\u3000", "好"),
    "no-break space as a prefix": ("a\u00a0", "b"),
    "Chinese": ("今天天", "气很好。"),
    "Chinese punctuation as a word's prefix": ("你好，", "世界"),
    "emoji joined": ("👩\u200d", "👩\u200d👧"),
    "emoji with a skin tone": ("👍", "🏽 ok"),
    "accent composed later": ("cafe", "\u0301 noir"),
    "marks out of order": ("q\u0301\u0307", "\u0323 x"),
    "mark that composes past another": ("a\u0327", "\u0301b"),
    "stroke through a sign": ("a <", "\u0338 b"),
    "Hangul of jamo": ("\u1112", "\u1161\u11ab 국"),
    "Hangul with a final consonant": ("하", "\u11ab글"),
    "nukta": ("\u0928", "\u093c \u0930"),
    "vowel sign of class 0": ("\u0995\u09c7", "\u09be"),
    "Kirat Rai vowels": ("\U00016d67", "\U00016d67"),
    "special token": ("<|im_", "end|> <|endoftext|>"),
}
# Leading newlines join the template's, at any cut.
LEADING = ("\nHello", "\n\n \nHello", " \n Hello", "\r\nHello", "  Hello", "\u0301Hello", "\n\u0301Hello")
PLAIN = (
    "Hello there, I'll say: don't WE'VE they'RE; it's 'quoted' o'clock, rock 'n' roll. 12,345.60 €!",
    "今天天气很好，我们去公园吧。你知道吗？没有标点的中文是一个词",
    "Crème brûlée, A\u030angstro\u0308m = \u212b, \u212a, \u2126; ﬁ ½ x² ٣ 五 Ⅷ",
    "한국어와 \u1112\u1161\u11ab\u1100\u116e\u11a8 नमस्ते क़ क\u093c สวัสดี שָׁלוֹם مرحبا",
    "👨‍👩‍👧‍👦 👍🏽👍 🇩🇪 ☺️!\n\n\tfin\r\n \r\n<|im_end|>\n<|im_start|>user",
)
TEXTS = [*("".join(pair) for pair in HARD.values()), *LEADING, *PLAIN]
# Pieces, and how many of the text's ids each releases, then the end.
RELEASES = [
    (["Hello there, "], [3, 1]),  # the space may become a word's
    (["Hello there,"], [2, 1]),  # more punctuation may follow
    (["hello", " there", "..."], [0, 1, 1, 1]),
    (["don", "'", "t", " hello"], [0, 1, 0, 1, 1]),  # the t may get an accent
    (["don't "], [2, 1]),
    (["I'l", "l", " go"], [1, 0, 1, 1]),
    (["1", "2"], [1, 1, 0]),
    (["今天天气", "很好", "。", "你"], [0, 0, 1, 0, 1]),  # the next word starts with the full stop
    (["cafe", "\u0301", " noir"], [0, 0, 1, 1]),
    (["a\n", " ", "\n", "b"], [1, 0, 0, 0, 2]),
    (["", "hello", "", "", " "], [0, 0, 0, 0, 1, 1]),
]


@pytest.fixture(scope="session")
def rich(tmp_path_factory):
    """A tokenizer that has every pre-token of the texts above as one token, so that a wrong cut changes the ids."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    trained.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4000, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    texts = [*TEXTS, *("".join(pieces) for pieces, _ in RELEASES)]
    trained.train_from_iterator([f"assistant\n{text}" for text in texts], trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    trained.model.save(str(folder))
    return load(folder, 4000)


def load(folder, size):
    config = SimpleNamespace(text_vocab_size=size)
    return TextTokenizer(folder, SimpleNamespace(talker=config, im_start_token_id=9000, im_end_token_id=9001))


@pytest.fixture(scope="session", params=["rich", "few merges"])
def tokenizer(request, checkpoint):
    return request.getfixturevalue("rich") if request.param == "rich" else load(checkpoint("base"), 1024)


def cut(text, places):
    return [text[a:b] for a, b in itertools.pairwise([0, *sorted(places), len(text)])]


def check(tokenizer, pieces):
    """Feed the pieces: the whole's ids must come, what was released being their beginning at any time."""
    role, ids = tokenizer.assistant("".join(pieces))
    stream, released = TextStream(tokenizer), []
    for piece in pieces:
        released += stream.feed(piece)
        assert stream.role in (None, role) and (stream.role or not released)
        assert released == ids[: len(released)]
    released += stream.finish()
    assert (stream.role, released) == (role, ids)


def speakable(text):
    return not says_nothing(text) and not any(
        unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\r\n" for c in text
    )


FRAGMENTS = st.one_of(
    st.sampled_from([part for pair in HARD.values() for part in pair]),
    st.sampled_from([*TEXTS, " ", "  ", "\n", "\r\n", "'", "'S", "'ll", ".", "1"]),
    st.text("'sSrReEvVlLdDtTmMſ", max_size=3),
    st.text(" \t\r\n\u00a0\u3000.!a1", max_size=4),
    st.text("aeq<\u0301\u0307\u0323\u0327\u0338\u0345\u1100\u1161\u11a8각가\u0928\u093c\u0f71\u0f72\u0f73", max_size=4),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=3),
)


@st.composite
def cut_texts(draw):
    text = "".join(draw(st.lists(FRAGMENTS, min_size=1, max_size=6)))
    return cut(text, draw(st.lists(st.integers(0, len(text)), max_size=8)))


def each_hard_pair(test):
    for pair in HARD.values():
        test = example(list(pair))(test)
    return test


@settings(max_examples=1000, deadline=None)
@each_hard_pair
@given(cut_texts().filter(lambda pieces: speakable("".join(pieces))))
def test_ids_are_those_of_the_whole_text(tokenizer, pieces):
    check(tokenizer, pieces)
    check(tokenizer, list("".join(pieces)))


@pytest.mark.parametrize("text", TEXTS)
def test_any_cut_of_a_hard_text(tokenizer, text):
    for place in range(len(text) + 1):
        check(tokenizer, cut(text, [place]))
        check(tokenizer, cut(text, [place, min(place + 1, len(text))]))
    check(tokenizer, list(text))


@pytest.mark.parametrize("name", HARD)
def test_the_hard_cuts_would_change_the_ids(rich, name):
    """Or the tests above would show nothing."""
    before, after = HARD[name]
    apart = rich.assistant(before)[1] + rich.bpe.encode(after).ids
    assert apart != rich.assistant(before + after)[1]


def test_every_short_text_of_the_pattern(rich):
    """Fed a character at a time: what is released is what all continuations agree on, no more and no less.

    The alphabet has a character for each part of the pattern; the ideograph behind shows that no mark follows.
    """
    alphabet, split = "'re \n1!", rich.bpe.pre_tokenizer.pre_tokenize_str
    strings = [["".join(letters) for letters in itertools.product(alphabet, repeat=n)] for n in range(5)]
    continuations = ["", "s", *strings[1], *strings[2]]
    for text in itertools.chain(*strings[1:4]):
        matches = zip(*(split(f"assistant\n{text}{more}") for more in continuations), strict=False)
        agreed = [same[0][0] for same in itertools.takewhile(lambda same: len(set(same)) == 1, matches)]
        ids = [rich.start, *(token.id for pretoken in agreed for token in rich.bpe.model.tokenize(pretoken))]
        stream = TextStream(rich)
        released = [i for piece in [*text, "字"] for i in stream.feed(piece)]
        assert (stream.role, released) == ((ids[:3], ids[3:]) if len(ids) > 2 else (None, [])), repr(text)
    for text in filter(str.strip, strings[4]):
        check(rich, list(text))


@pytest.mark.parametrize(("pieces", "expected"), RELEASES)
def test_words_are_released_as_they_are_completed(rich, pieces, expected):
    stream = TextStream(rich)
    assert [*(len(stream.feed(piece)) for piece in pieces), len(stream.finish())] == expected


def test_the_role_is_known_with_the_first_character(rich):
    stream = TextStream(rich)
    assert stream.role is None
    for piece, known in ("\n", False), (" ", False), ("\n", False), ("1", True):
        stream.feed(piece)
        assert (stream.role is not None) == known
    assert stream.role == rich.assistant("\n \n1")[0] != rich.assistant("1")[0]


def check_at_the_end(tokenizer, pieces):
    stream = TextStream(tokenizer)
    ids = [*(i for piece in pieces for i in stream.feed(piece)), *stream.finish()]
    assert (stream.role, ids) == tokenizer.assistant("".join(pieces))


def test_a_long_text_costs_no_more_a_word_than_a_short_one(rich):
    words = ["Hello", " there", ",", " I'll", " say", ":", " don't", " wait", "...", "\n\n"] * 1000
    start = time.process_time()
    check_at_the_end(rich, words)
    check_at_the_end(rich, ["a"] * 20000)  # a long word, as unpunctuated Chinese is
    assert time.process_time() - start < 3  # some 0.2 s; 10 s if the long word were looked at each time


EVERY = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]


def test_nothing_else_in_unicode_joins_what_is_before_it():
    """By Python's tables: reordering needs a combining class, composing a place behind the first in a decomposition."""
    seconds, firsts = set(), set()
    for char in EVERY:
        parts = unicodedata.normalize("NFD", char)
        seconds.update(parts[1:])
        if len(parts) > 1:
            firsts.add(parts[0])
    joining = [c for c in EVERY if unicodedata.combining(p := unicodedata.normalize("NFD", c)[0]) or p in seconds]
    assert len(joining) > 900
    joining += ["\uffff", "\U00016d67", "\U00016d68"]  # one that no version assigns; two that Unicode 16 composes
    assert [f"{ord(char):04X}" for char in joining if not text_stream.joins_before(char)] == []
    assert not text_stream.SETTLED & firsts
    assert not any(map(text_stream.joins_before, text_stream.SETTLED))


def test_the_library_normalises_around_a_boundary_as_apart():
    """The same of the normaliser in use, whose Unicode may be another version."""
    nfc = normalizers.NFC().normalize_str
    alone = [
        char for char in EVERY if unicodedata.category(char) not in ("Cc", "Co") and not text_stream.joins_before(char)
    ]
    composed = nfc("\n".join(alone)).split("\n")
    assert len(alone) == len(composed) > 100_000
    for before in ("e\u0345\u0323", "\u1112\u1161", "\u0928", "\u0dd9"):
        together = nfc("\n".join(before + char for char in alone))
        assert together == "\n".join(nfc(before) + char for char in composed)
    joining = [char for char in EVERY if text_stream.joins_before(char) and unicodedata.category(char) != "Cn"]
    for char in text_stream.SETTLED:
        assert nfc("".join(char + mark for mark in joining)).count(char) >= len(joining)


def test_python_and_the_pattern_agree_on_spaces_and_contractions(rich):
    split = rich.bpe.pre_tokenizer.pre_tokenize_str
    for char in EVERY:
        if unicodedata.category(char)[0] in "ZPM" or unicodedata.category(char) == "Cf" or char in "\t\r\n":
            assert char.isspace() == (len(split(f"\n{char}\n")) == 1), f"{ord(char):04X}"
    fixed = [match for char in EVERY for match in (char, "'" + char) if text_stream.FIXED.fullmatch(match)]
    letters = "".join(map(chr, range(128))) + "ſ"
    fixed += [
        two for pair in itertools.product(letters, repeat=2) if text_stream.FIXED.fullmatch(two := "'" + "".join(pair))
    ]
    assert len(fixed) == 10 + 2 * 4 + 1 + 3 * 4  # digits; s t m d, and a long s, which is an s; re ve ll
    for match in fixed:
        for more in ("a", "'", "1", "!", " ", "\n", "\u0301"):
            assert split(match + more)[0][1] == (0, len(match))


@pytest.mark.parametrize("piece", [None, b"text", 5, ["text"]])
def test_a_piece_must_be_a_string(rich, piece):
    with pytest.raises(WrongType, match=f"^text pieces must be strings, not {type(piece).__name__}$"):
        TextStream(rich).feed(piece)


def test_what_is_no_text_is_refused_as_in_a_whole_one(rich):
    stream, text = TextStream(rich), "Hello\n"
    ids = stream.feed(text)
    for wrong in ("\x00", "there\x1b[0m", "e\udce9", "\x86"):
        with pytest.raises(InvalidValue) as whole:
            check_text(text + wrong)
        with pytest.raises(InvalidValue) as piece:
            stream.feed(wrong)
        assert str(piece.value) == str(whole.value)
    ids += stream.feed("there") + stream.finish()
    assert (stream.role, ids) == rich.assistant("Hello\nthere")


@pytest.mark.parametrize("pieces", [[], [""], [" ", "\n", "\u3000\t"], ["\u200b", "\f\u3164"]])
def test_nothing_to_speak(rich, pieces):
    stream = TextStream(rich)
    assert [stream.feed(piece) for piece in pieces] == [[]] * len(pieces)
    with pytest.raises(InvalidValue, match=r"^text is empty$"):
        stream.finish()


def test_nothing_comes_after_the_end(rich):
    stream = TextStream(rich)
    stream.feed("Hello")
    stream.finish()
    for late in (lambda: stream.feed(" there"), lambda: stream.feed(""), stream.finish):
        with pytest.raises(RuntimeError, match="the text is finished"):
            late()
