"""Subtitles read as cues and written again: formats, encodings, names, markup, and what is refused or doubted."""

import sys

import pysubs2
import pytest

from mlx_qwen3tts.errors import InvalidValue, MissingExtra, OutputError
from mlx_qwen3tts.scripts import cues as reading
from mlx_qwen3tts.scripts import subtitles
from mlx_qwen3tts.scripts.cues import Cues
from mlx_qwen3tts.scripts.subtitles import Row, write_subtitles

ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Style: Default,Arial,20,&H00FFFFFF,&H000000FF,&H00000000,&H00000000,0,0,0,0,100,100,0,0,1,2,2,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def srt(*cues, numbers=True):
    """SubRip of texts, a second each, or of (times, text)."""
    blocks = []
    for number, cue in enumerate(cues, 1):
        text = cue if isinstance(cue, str) else cue[1]
        times = f"00:00:{number:02},000 --> 00:00:{number:02},900" if isinstance(cue, str) else cue[0]
        blocks.append(f"{number}\n{times}\n{text}\n" if numbers else f"{times}\n{text}\n")
    return "\n".join(blocks)


def ass(*events):
    rows = (f"Dialogue: 0,0:00:0{i}.00,0:00:0{i}.90,{event}" for i, event in enumerate(events, 1))
    return ASS + "\n".join(rows) + "\n"


def said(text, kind="srt", names=()):
    """[(number, name, text)] of cues."""
    return [(cue.number, cue.name, cue.text) for cue in Cues.parse_text(text, kind, names).lines]


def doubts(text, kind="srt", names=()):
    return dict(Cues.parse_text(text, kind, names).doubts)


def test_subrip():
    text = srt("Hello\nthere.", ("00:00:02,500 --> 00:00:03,000 X1:1 X2:2", "ANNA: Yes."), "I was born in\n1984")
    cues = Cues.parse_text(text.replace("\n", "\r\n")).lines
    assert [(cue.start, cue.end, cue.name, cue.text) for cue in cues] == [
        (1.0, 1.9, None, "Hello there."),
        (2.5, 3.0, "ANNA", "Yes."),
        (3.0, 3.9, None, "I was born in 1984"),
    ]
    assert said(srt("One.", "12\n\n13", "14", "Two.")) == [(1, None, "One."), (2, None, "12 13"), (3, None, "14"),
                                                          (4, None, "Two.")]  # fmt: skip
    assert said(srt("One.", "12", "Two.", numbers=False)) == [(1, None, "One."), (2, None, "12"), (3, None, "Two.")]
    sloppy = "1\n00:00:01,000 --> 00:00:02,000\nOne.\n2\n00:00:03.5-->00:00:04\nTwo.\n\n3\n\n0:0:5,1 --> 0:0:6\nThree."
    assert [(cue.start, cue.text) for cue in Cues.parse_text(sloppy).lines] == [
        (1.0, "One."),
        (3.5, "Two."),
        (5.1, "Three."),
    ]


def test_well_formed_files_read_as_pysubs2_reads_them():
    text = srt("One,\ntwo.", "<i>Three</i>.", ("99:59:59,999 --> 99:59:59,999", "Four."), "Five.")
    theirs = pysubs2.SSAFile.from_string(text)
    ours = Cues.parse_text(text).lines
    expected = [(event.start, event.plaintext.replace("\n", " ")) for event in theirs]
    assert sorted((round(1000 * cue.start), cue.text) for cue in ours) == sorted(expected)


def test_webvtt():
    text = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

NOTE Not
spoken.

first
00:01.000 --> 00:02.500 align:start
<v.loud Mary Ann>Hello &amp; <c.yellow>welcome</c>.</v>

99:00:03.000 --> 99:00:04.000
<v Anna>Yes. <v Ben>No <00:00:03.500>no.
"""
    assert said(text, "vtt") == [(1, "Mary Ann", "Hello & welcome."), (2, "Anna", "Yes."), (2, "Ben", "No no.")]
    assert Cues.parse_text(text, "srt").lines[0].end == 2.5  # by what it holds
    assert said("WEBVTT\n00:01.000 --> 00:02.000\nHello.", "vtt") == [(1, None, "Hello.")]
    assert doubts(f"{text}\nLost.\n", "vtt") == {2: "'Lost.' has no time and is not spoken"}


def test_substation():
    text = ass(
        r"Default,Anna,0,0,0,,{\k20}Hel{\k30}lo,\Nyou{a comment}.",
        r"Ben,,0,0,0,,Yes.\hNo.",
        r"Sign,,0,0,0,,{\p1}m 0 0 l 9 9{\p0}A sign",
        r"Sign,,0,0,0,,{\an8\p1}m 0 0 l 9 9",
        r"Default,,0,0,0,fx,Hel",
        r"Default,NTP,0,0,0,,Bye.",
    )
    text += "Comment: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,Not spoken\n"
    text += "Dialogue: 1,0:00:01.00,0:00:01.90,Default,Anna,0,0,0,,Hello,\\Nyou.\n"
    cues = Cues.parse_text(text, "ass", ["Ben"])
    assert [(cue.number, cue.name, cue.text) for cue in cues.lines] == [
        (1, "Anna", "Hello, you."),
        (2, "Ben", "Yes. No."),
        (3, None, "A sign"),
        (6, None, "Bye."),
    ]
    assert sorted(cues.doubts) == sorted(
        (
            (3, "the drawing in it is not spoken"),
            (4, "the drawing in it is not spoken"),
            (5, "an effect of karaoke is not spoken"),
            (7, "repeats cue 1 at the same time and is spoken once"),
            (3, "its style 'Sign' is nobody in the cast"),
        )
    )
    ssa = (
        text.replace("V4+ Styles", "V4 Styles")
        .replace("Layer,", "Marked,")
        .replace("Dialogue: 0", "Dialogue: Marked=0")
    )
    assert len(Cues.parse_text(ssa, "ass", ["Ben"]).lines) == 4


def test_names():
    text = srt("ANNA: Hello.\nBEN: Hi.\nYou!", "the old man: Yes.", "- ANNA: Yes.\n- BEN: No.", "At 10:30, see \\: it.")
    assert said(text, names=["The Old Man"]) == [
        (1, "ANNA", "Hello."),
        (1, "BEN", "Hi. You!"),
        (2, "the old man", "Yes."),
        (3, "ANNA", "Yes."),
        (3, "BEN", "No."),
        (4, None, "At 10:30, see : it."),
    ]
    assert said(srt("the old man: Yes.")) == [(1, None, "the old man: Yes.")]


def test_what_is_not_speech():
    text = srt("[door slams]", "[sighs] Yes.", "(laughs)", "♪ La la ♪", "...", "\\[One\\] [rate: 1.2] two",
               "- Yes.\n- No.", "-5 degrees", "[pause: 1s] Now.")  # fmt: skip
    assert [text for _, _, text in said(text)] == ["Yes.", "La la", "[One] two", "Yes. No.", "-5 degrees", "Now."]
    told = doubts(text)
    assert set(told) == {1, 2, 3, 5, 7, 9} and told[5] == "says nothing"
    assert "[sighs] is not spoken" in told[2] and "stands alone" in told[3] and "two speakers" in told[7]


def test_times_that_are_doubted():
    text = srt(("00:00:05,000 --> 00:00:06,000", "One."), ("00:00:01,000 --> 00:00:02,000", "Two."),
               ("00:00:03,000 --> 00:00:03,000", "Three."), ("00:00:05,500 --> 00:00:07,000", "Four."))  # fmt: skip
    cues = Cues.parse_text(text)
    assert [cue.number for cue in cues.lines] == [2, 3, 1, 4]
    assert dict(cues.doubts) == {
        2: "begins before cue 1; each is spoken at its time",
        3: "has no length; it has the time up to the next cue",
    }
    assert cues.collisions() == [(4, "begins before cue 1 of the same speaker ends")]
    assert cues.limits() == {2: 3.0, 3: 5.0, 1: 5.5, 4: None}


def test_captions_that_roll():
    text = srt("hello to you", ("00:00:01,950 --> 00:00:03,000", "hello to you\nand to me"),
               ("00:00:05,000 --> 00:00:06,000", "and to me"))  # fmt: skip
    assert doubts(text) == {2: "begins with the line that cue 1 ends with; it is spoken twice"}


def test_files_that_were_joined():
    assert said(srt("One.") + "\n\ufeff" + srt("Two.").replace(":01,", ":02,")) == [
        (1, None, "One."),
        (2, None, "Two."),
    ]


def test_a_pause_alone_is_nothing_to_speak():
    cues = Cues.parse_text(srt("One.", "[pause: 2s]"))
    assert [cue.text for cue in cues.lines] == ["One."] and cues.doubts[0][0] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (srt(("00:00:02,000 --> 00:00:01,000", "One.")), "cue 1 ends at 1.000 s, before it begins at 2.000 s"),
        (srt(("-00:00:01,000 --> 00:00:01,000", "One.")), "line 2: .* a time before the beginning"),
        (srt(("100:00:00,000 --> 100:00:01,000", "One.")), "a time beyond 100 hours"),
        (srt(("00:61:00,000 --> 00:62:01,000", "One.")), "minutes and seconds go to 59"),
        (srt(("O0:00:01,000 --> 00:00:02,000", "One.")), "line 2: .* not two times such as"),
        (srt(("00:00:01,000 -> 00:00:02,000", "One.")), "line 2: .* not two times such as"),
        (srt(("00:00:01,000 -->", "One.")), "not two times"),
        (srt("<font color=red Hello"), "cue 1: the tag <font color=red Hello is not closed"),
        (srt("{\\an8 Hello"), "cue 1: the tag {.an8 Hello is not closed"),
        (srt("[rate: 1.2 Hello"), "cue 1: the tag .* is not closed"),
        (srt("[rate: 9] Hello"), "cue 1: rate 9.0 is not between"),
        (srt("..."), "nothing to speak"),
        ("", "nothing to speak"),
        ("Hello.", "nothing to speak"),
        (srt("a\x01b"), "control character U\\+0001"),
        (ass("Default,,0"), "line 9: .* has not all fields"),
        (ass("Default,,0,0,0,,x").replace("0:00:01.00", "-0:00:01.00"), "cue 1: a time before the beginning"),
        (ass("Default,,0,0,0,,x").replace("0:00:01.00", "now"), "Failed to parse|now|imestamp"),
        (ass("Default,,0,0,0,,x").replace("0:00:01.00", "now"), "line 9: 'now' is not a time such as"),
        (ass("Default,,0,0,0,,x").replace("0:00:01.00", "100:00:01.00"), "line 9: '100:00:01.00' is not a time"),
        (ass("Default,,0,0,0,,x").replace("Layer, Start, End", "Start, End, Layer"), "line 8: events have the fields"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(InvalidValue, match=message):
        Cues.parse_text(text)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
def test_encodings_that_are_marked(tmp_path, encoding):
    (tmp_path / "a.srt").write_bytes(srt("Größe. 你好。").encode(encoding))
    assert Cues.parse(tmp_path / "a.srt").lines[0].text == "Größe. 你好。"


def test_encodings_that_must_be_named(tmp_path):
    file = tmp_path / "a.srt"
    for encoding, text in (("cp1252", "Größe."), ("gb18030", "你好。")):
        file.write_bytes(srt(text).encode(encoding))
        with pytest.raises(
            InvalidValue, match=r"not utf-8 \(byte \d+\); say what it is with --encoding, such as cp1252"
        ):
            Cues.parse(file)
        assert Cues.parse(file, encoding=encoding).lines[0].text == text
    with pytest.raises(InvalidValue, match="not ascii"):
        Cues.parse(file, encoding="ascii")
    for encoding in ("nonsense", "hex", "x\0"):
        with pytest.raises(InvalidValue, match="is not one that Python knows"):
            Cues.parse(file, encoding=encoding)
    for encoding in ("utf-16-le", "utf-16-be"):
        file.write_bytes(srt("Hello.").encode(encoding))
        with pytest.raises(InvalidValue, match=f"try --encoding {encoding}"):
            Cues.parse(file)
        assert Cues.parse(file, encoding=encoding).lines[0].text == "Hello."


def test_files_that_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InvalidValue, match=r"extension '\.txt' is not one of \.srt"):
        Cues.parse(tmp_path / "a.txt")
    with pytest.raises(InvalidValue, match="No such file"):
        Cues.parse(tmp_path / "a.srt")
    (tmp_path / "a.srt").mkdir()
    with pytest.raises(InvalidValue, match="directory"):
        Cues.parse(tmp_path / "a.srt")
    (tmp_path / "b.srt").write_text(srt("One.", "Two."))
    monkeypatch.setattr(reading, "MOST", 1)
    with pytest.raises(InvalidValue, match="2 cues; at most 1"):
        Cues.parse(tmp_path / "b.srt")
    monkeypatch.setattr(subtitles, "LARGEST", 10)
    with pytest.raises(InvalidValue, match="more than"):
        Cues.parse(tmp_path / "b.srt")
    monkeypatch.setitem(sys.modules, "pysubs2", None)
    with pytest.raises(MissingExtra, match=r"need pysubs2: pip install .*subtitles"):
        Cues.parse(tmp_path / "c.ass")


ROWS = [Row(0.5, 1.25, "ANNA", "Hello & <you>."), Row(3661.001, 3662.0, None, "1984")]


@pytest.mark.parametrize("name", ["a.srt", "a.vtt", "a.ass", "a.ssa"])
def test_what_is_written_is_read_again(tmp_path, name):
    write_subtitles(tmp_path / name, ROWS)
    cues = Cues.parse(tmp_path / name).lines
    assert [(cue.name, cue.text) for cue in cues] == [(row.name, row.text) for row in ROWS]
    assert [cue.start for cue in cues] == pytest.approx([0.5, 3661.001], abs=0.005 if "s" in name[-2:] else 1e-9)
    assert pysubs2.load(str(tmp_path / name))[1].plaintext == "1984"


def test_times_that_a_format_cannot_hold(tmp_path):
    late = [Row(36000.0, 36001.0, None, "Late.")]
    with pytest.raises(OutputError, match=r"no times beyond 10 hours; write \.srt"):
        write_subtitles(tmp_path / "a.ass", late)
    write_subtitles(tmp_path / "a.srt", late)
    assert Cues.parse(tmp_path / "a.srt").lines[0].start == 36000
