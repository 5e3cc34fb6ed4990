"""Scripts read from plain text, Markdown, JSON and EPUB, and what is refused of them."""

import json
import re
import zipfile

import pytest

from mlx_qwen3tts.errors import InvalidValue, QwenTTSError, VoiceNotFound
from mlx_qwen3tts.scripts import epub
from mlx_qwen3tts.scripts.cast import Cast, Part, read_cast
from mlx_qwen3tts.scripts.script import Line, Script, Span
from mlx_qwen3tts.scripts.timeline import LIMIT, behind, lay_out
from mlx_qwen3tts.synthesis.pieces import pieces, sentences, weight

PLAY = """\
# Chapter One

It was late. The wind
blew. [pause: 500ms] Nothing moved.

ANNA: Hello! [voice: ben] [rate: 1.2] And you?
Mr Ben 2: [instruct: softly] Fine [1].

* * *

He left: alone. Note\\: all of it \\[sic].
[pause: 2s]

王明：你好。
他说：“好。”
"""


def test_a_play():
    script = Script.parse_text(PLAY)
    assert script.lines == (
        Line(1, None, (Span("Chapter One"),), heading=1),
        Line(3, None, (Span("It was late. The wind blew."), Span("Nothing moved.", pause=0.5))),
        Line(6, "ANNA", (Span("Hello!"), Span("And you?", voice="ben", rate=1.2))),
        Line(7, "Mr Ben 2", (Span("Fine [1].", instruct="softly"),)),
        Line(11, None, (Span("He left: alone. Note: all of it [sic]."),), scene=True),
        Line(14, "王明", (Span("你好。他说：“好。”", pause=2.0),)),
    )
    assert [number for number, _ in script.doubts] == [11, 15]
    assert [line.chapter for line in script.lines] == [True, *[False] * 5]


def test_names_of_the_cast_need_not_look_like_names():
    text = "the old man: Go away."
    assert Script.parse_text(text).lines[0].name is None
    assert Script.parse_text(text, names=["The Old Man"]).lines[0].name == "the old man"


def test_markdown():
    text = """\
# A *loud* [title](http://x)

**ANNA:** Hi ![picture](p.png) `there`. <!-- [nothing --> <b>You</b>.

- one
2. two
> quoted
> words

---

```
code: here
```
### Deep
snake_case stays
"""
    lines = Script.parse_text(text, "markdown").lines
    assert [(line.number, line.name, line.text, line.heading) for line in lines] == [
        (1, None, "A loud title", 1),
        (3, "ANNA", "Hi there. You.", 0),
        (5, None, "one", 0),
        (6, None, "two", 0),
        (7, None, "quoted words", 0),
        (15, None, "Deep", 3),
        (16, None, "snake_case stays", 0),
    ]
    assert [line.number for line in lines if line.scene] == [15]


def test_turns():
    turns = [
        {"text": "Act one", "heading": True},
        {"speaker": "Anna", "text": "Hello [there].", "voice": "b", "rate": 2, "pause": 1, "instruct": "loud"},
    ]
    expected = (
        Line(1, None, (Span("Act one"),), heading=1),
        Line(2, "Anna", (Span("Hello [there].", "b", "loud", 2.0, 1.0),)),
    )
    assert Script.parse_text(json.dumps(turns), "json").lines == expected
    assert Script.parse_text(json.dumps({"turns": turns}), "json").lines == expected


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("", "text", "nothing to speak"),
        ("* * *\n\n[pause: 1s]", "text", "nothing to speak"),
        ("one\n\ntwo [pause: 1s three", "text", "line 3: the tag [pause: 1s three is not closed"),
        ("[voce: ben] hi", "text", "line 1: no tag [voce: ben]: did you mean voice?"),
        ("[pause: long] hi", "text", "line 1: pause 'long' is not a time"),
        ("[pause: -1s] hi", "text", "line 1: pause '-1s' is not a time"),
        ("[pause: 3600s] hi", "text", "line 1: pause 3600.0 is not between"),
        ("[rate: fast] hi", "text", "line 1: rate 'fast' is not a number"),
        ("[rate: 9] hi", "text", "line 1: rate 9.0 is not between"),
        ("[voice: ] hi", "text", "line 1: the tag [voice: ] has no value"),
        ("hi\n\n[rate: 1.2]", "text", "line 3: a tag holds to the end of its line"),
        ("hi \x00", "text", "control character"),
        ("{", "json", "is not JSON"),
        ("3", "json", "is not a list of turns"),
        ('["a"]', "json", "line 1: a turn is an object"),
        ('[{"text": "a"}, {"text": " "}]', "json", "line 2: text is empty"),
        ('[{"text": "a", "speed": 1}]', "json", "line 1: a turn has no 'speed'"),
        ('[{"text": "a", "pause": -1}]', "json", "line 1: pause -1 is not between"),
        ('[{"text": "a", "speaker": 3}]', "json", "line 1: speaker must be a string"),
    ],
)
def test_a_script_that_is_refused(text, kind, message):
    with pytest.raises(QwenTTSError) as refused:
        Script.parse_text(text, kind)
    assert message in str(refused.value)


def test_files(tmp_path):
    (tmp_path / "a.txt").write_bytes("Grüße.".encode("latin-1"))
    with pytest.raises(InvalidValue, match="not UTF-8"):
        Script.parse(tmp_path / "a.txt")
    with pytest.raises(InvalidValue, match=r"'.docx' is not one of .txt"):
        Script.parse(tmp_path / "a.docx")
    (tmp_path / "b.txt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello.\n")
    with pytest.raises(InvalidValue, match="subtitles"):
        Script.parse(tmp_path / "b.txt")
    (tmp_path / "c.md").write_bytes(b"\xef\xbb\xbf# One\r\n\r\nTwo\r\nthree.\r\n")
    assert [line.text for line in Script.parse(tmp_path / "c.md").lines] == ["One", "Two three."]


# Books

CONTAINER = '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
CONTAINER += '<rootfile full-path="%s"/></rootfiles></container>'
PACKAGE = """<?xml version="1.0" encoding="UTF-8"?><package xmlns="http://www.idpf.org/2007/opf"><manifest>
<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="b" href="%s" media-type="application/xhtml+xml"/><item id="a" href="one%%20a.xhtml"
media-type="application/xhtml+xml"/></manifest><spine><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/>
</spine></package>"""
ONE = """<html><head><title>no</title></head><body><h1>Chapter&nbsp;1</h1><p>It <em>was</em> late<br/>and cold.</p>
<script>no()</script><hr/><p>ANNA: Hello.<p>Unclosed &amp; <ruby>fine<rt>no</ruby>."""


def book(path, container="O/p.opf", two="two.xhtml", **more):
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER % container,
        "O/p.opf": PACKAGE % two,
        "O/nav.xhtml": "<p>contents</p>",
        "O/one a.xhtml": ONE,
        "O/two.xhtml": "<h2>Chapter 2</h2><div>The end.</div>",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**files, **more}.items():
            if text is not None:
                archive.writestr(name, text)
    return path


def test_a_book(tmp_path):
    lines = Script.parse(book(tmp_path / "a.epub"), names=["anna"]).lines
    assert [(line.name, line.text, line.heading, line.scene) for line in lines] == [
        (None, "Chapter 1", 1, False),
        (None, "It was late", 0, False),
        (None, "and cold.", 0, False),
        ("ANNA", "Hello.", 0, True),
        (None, "Unclosed & fine.", 0, False),
        (None, "Chapter 2", 2, False),
        (None, "The end.", 0, False),
    ]
    assert Script.parse(tmp_path / "a.epub").lines[3].text == "ANNA: Hello."


ENCRYPTED = '<encryption xmlns:e="http://x"><e:EncryptionMethod Algorithm="%s"/></encryption>'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"META-INF/container.xml": None}, "has no META-INF/container.xml"),
        ({"META-INF/container.xml": "<container/>"}, "names no package"),
        ({"META-INF/container.xml": "<container"}, "is not XML"),
        ({"container": "../../etc/passwd"}, "leads out of the book"),
        ({"two": "/etc/passwd"}, "leads out of the book"),
        ({"two": "../../x.xhtml"}, "leads out of the book"),
        ({"two": "gone.xhtml"}, "has no file 'O/gone.xhtml'"),
        ({"META-INF/rights.xml": "<rights/>"}, "protected (DRM)"),
        ({"META-INF/encryption.xml": ENCRYPTED % "http://www.w3.org/2001/04/xmlenc#aes256-cbc"}, "protected (DRM)"),
        ({"O/p.opf": '<!DOCTYPE a [<!ENTITY b "c">]><package/>'}, "defines entities"),
        ({"O/two.xhtml": b"<p>\xff\xfea</p>"}, "neither UTF-8 nor UTF-16"),
    ],
)
def test_a_book_that_is_refused(tmp_path, changes, message):
    with pytest.raises(InvalidValue) as refused:
        Script.parse(book(tmp_path / "a.epub", **changes))
    assert message in str(refused.value)


def test_scrambled_fonts_are_not_protection(tmp_path):
    changes = {"META-INF/encryption.xml": ENCRYPTED % epub.FONTS[0]}
    assert len(Script.parse(book(tmp_path / "a.epub", **changes)).lines) == 7


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    bomb = book(tmp_path / "a.epub", **{"O/two.xhtml": "<p>" + "a " * 1_000_000})
    assert bomb.stat().st_size < 20_000
    monkeypatch.setattr(epub, "MOST_FILE", 1_000_000)
    with pytest.raises(InvalidValue, match="unpacks to more than a book has"):
        Script.parse(bomb)
    monkeypatch.setattr(epub, "MOST_FILES", 3)
    with pytest.raises(InvalidValue, match="has 6 files"):
        Script.parse(bomb)
    (tmp_path / "b.epub").write_bytes(bomb.read_bytes()[:-40])
    with pytest.raises(InvalidValue, match="not an EPUB"):
        Script.parse(tmp_path / "b.epub")


def test_a_bomb_of_many_pages_is_not_unpacked(tmp_path, monkeypatch):
    bomb = book(tmp_path / "a.epub", **{"O/two.xhtml": "<p>" + "a " * 100_000})
    monkeypatch.setattr(epub, "MOST_ALL", 150_000)
    with pytest.raises(InvalidValue, match=r"two.xhtml unpacks to more than a book has"):
        Script.parse(bomb)


def test_a_book_behind_a_password_or_with_a_flipped_bit(tmp_path):
    path = book(tmp_path / "a.epub")
    data = path.read_bytes()
    locked = bytearray(data)
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for place in (match.start() for match in re.finditer(re.escape(start), data)):
            locked[place + flags] |= 1
    path.write_bytes(locked)
    with pytest.raises(InvalidValue, match=r"not an EPUB that can be read: .*encrypted"):
        Script.parse(path)
    place = data.index(b"O/two.xhtml") + len(b"O/two.xhtml") + 20
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(InvalidValue, match="not an EPUB that can be read"):
        Script.parse(path)


# The cast


def resolve(name):
    if name not in ("anna", "ben", "a*0.5 + b*0.5"):
        raise VoiceNotFound(f"voice {name!r} is not there")
    return name


def cast(**parts):
    return Cast({name: Part(voice) for name, voice in parts.items()}, resolve)


def test_who_speaks():
    script = Script.parse_text("Once.\n\nBEN: Hi. [voice: ANNA] Ho. [voice: a*0.5 + b*0.5] Hm.\n\nQueen: Yes.")
    made = cast(narrator="ben", queen="anna", Anna="a*0.5 + b*0.5")
    found = [made.part(line, span).voice for line in script.lines for span in line.spans]
    assert found == ["ben", "ben", "a*0.5 + b*0.5", "a*0.5 + b*0.5", "anna"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hi.\n\nBEN: Yes.\n\nCARL: No.", "line 5: no voice for 'CARL'"),
        ("Hi.\n\n[voice: carl] No.", "line 3: voice 'carl' is not there"),
        ("BEN: Hi.\n\nNOBODY: No.", "line 3: voice 'gone' is not there"),
    ],
)
def test_an_unknown_name_is_found_before_anything_is_spoken(text, message):
    with pytest.raises(VoiceNotFound) as refused:
        cast(narrator="ben", nobody="gone").check(Script.parse_text(text))
    assert message in str(refused.value)


def test_a_narrator_is_needed():
    with pytest.raises(InvalidValue, match="line 2: nobody is named"):
        cast().check(Script.parse_text("BEN: Hi.\n# One"))
    cast().check(Script.parse_text("[voice: ben] Hi."))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not an object"),
        ("{", "not JSON"),
        ('{"a": "x", "A": "y"}', "'A' twice"),
        ('{"a": 3}', "a: a voice is a name"),
        ('{"a": {"voice": "x", "pitch": 2}}', "a: a part has no 'pitch'"),
        ('{"a": {"voice": "x", "rate": 9}}', "a: rate 9 is not between"),
        ('{"a": ""}', "a: voice is empty"),
    ],
)
def test_a_cast_that_is_refused(tmp_path, text, message):
    (tmp_path / "voices.json").write_text(text)
    with pytest.raises(QwenTTSError) as refused:
        read_cast(tmp_path / "voices.json")
    assert message in str(refused.value)


def test_a_cast(tmp_path):
    (tmp_path / "voices.json").write_text('{"A": "x*2", "B": {"instruct": "low", "rate": 0.9, "language": "de"}}')
    assert read_cast(tmp_path / "voices.json") == {"A": Part("x*2"), "B": Part(None, "low", 0.9, "de")}


# Pieces


def test_sentences_are_the_text():
    for text, language, count in [
        ("Mr. Smith went. He said: “No! Not now.” Then he left.\n\nIt cost $3.50 e.g. today.", None, 4),
        ("Am 3. Okt. kam er. Dann ging er.", "German", 2),
        ("「行こう。」と彼は言った。そして出た。", "ja", 2),
        ("他说：“你好。”然后走了。好的！", "zh", 3),
    ]:
        made = sentences(text, language)
        assert "".join(made) == text and len(made) == count, made


def test_pieces_end_where_sentences_do():
    text = " ".join(f"Mr. Smith said number {i}, and left." for i in range(100))
    made = pieces(text, 200)
    assert " ".join(made) == text
    assert all(piece.endswith("left.") and 150 < weight(piece) <= 200 for piece in made)
    assert "".join(pieces("他走了。" * 100, 120)) == "他走了。" * 100


def test_the_layout():
    text = (
        "# One\n\n"
        + "This is a sentence of some length. " * 40
        + "\n\nBEN: Yes… [pause: 0] No.\n\n***\n\n# Two\n\nBEN: Yes…"
    )
    made = lay_out(Script.parse_text(text), cast(narrator="anna"))
    assert [piece.line for piece in made] == [1, 3, 3, 3, 5, 5, 9, 11]
    assert [piece.pause for piece in made] == [0.0, 1.0, 0.35, 0.35, 0.6, 0.0, 1.6, 1.0]
    assert [piece.chapter for piece in made if piece.chapter] == ["One", "Two"]
    assert max(weight(piece.text) for piece in made) <= LIMIT
    assert len({piece.seed for piece in made}) == len(made)
    assert (behind("so,"), behind("“So?”"), behind("so"), behind("so…")) == (0.15, 0.35, 0.1, 0.5)


def test_what_is_put_in_front_leaves_seeds_as_they_are():
    first = lay_out(Script.parse_text("BEN: One.\n\nBEN: Two.\n\nBEN: One."), cast())
    longer = lay_out(Script.parse_text("BEN: Zero.\n\nBEN: One.\n\nBEN: Two.\n\nBEN: One."), cast())
    assert [piece.seed for piece in first] == [piece.seed for piece in longer[1:]]
    assert first[0].seed != first[2].seed != lay_out(Script.parse_text("BEN: One."), cast(), seed=1)[0].seed
    varied = lay_out(Script.parse_text("BEN: One.\n\nBEN: Two."), cast(), takes={first[0].key: 1})
    assert varied[0].seed != first[0].seed and varied[1].seed == first[1].seed
