"""Data in the forms that people have it in, and what is refused by name."""

import csv
import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert.parity import codes, recording
from mlx_qwen3tts.errors import InvalidValue
from mlx_qwen3tts.tuning import takes
from mlx_qwen3tts.tuning.data import Data, held_out, read_data
from mlx_qwen3tts.tuning.takes import Codes, listen, usable

TEXTS = {"a": "Hello there.", "b": "Good morning, world.", "c": "This is my voice."}


@pytest.fixture
def clips(tmp_path):
    """A folder with three recordings of different rates and channels."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed, (name, how) in enumerate(zip(TEXTS, ({}, {"rate": 16000}, {"rate": 44100, "channels": 2}), strict=True)):
        recording(folder / f"{name}.wav", seed, 1.5, **how)
    return folder


def rows(path, key="audio", **more):
    lines = [json.dumps({key: f"{name}.wav", "text": text, **more}) for name, text in TEXTS.items()]
    path.write_text("\n".join(lines) + "\n\n")
    return path


def mlx_lm(folder):
    for split, name in zip(("train", "valid", "test"), TEXTS, strict=True):
        (folder / f"{split}.jsonl").write_text(json.dumps({"audio": f"{name}.wav", "text": TEXTS[name]}) + "\n")
    return folder


def ljspeech(folder):
    (folder / "wavs").mkdir()
    for name in TEXTS:
        shutil.move(folder / f"{name}.wav", folder / "wavs")
    lines = [f'{name}|{text} "raw|{text}' if name == "b" else f"{name}|{text}|{text}" for name, text in TEXTS.items()]
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def header(folder):
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "transcription"], *((f"{n}.wav", t) for n, t in TEXTS.items())])
    return folder / "metadata.csv"


def pairs(folder):
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text("\ufeff" + text.replace(" ", "\n", 1))
    return folder


FORMS = {
    "mlx-lm": mlx_lm,
    "official": lambda folder: rows(folder / "official.jsonl", ref_audio="a.wav"),
    "audio_path": lambda folder: rows(folder / "x.jsonl", "audio_path"),
    "audio_filepath": lambda folder: rows(folder / "x.jsonl", "audio_filepath", duration=1.5),
    "ljspeech": ljspeech,
    "ljspeech file": lambda folder: ljspeech(folder) / "metadata.csv",
    "header": header,
    "pairs": pairs,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_in_the_wild(clips, form):
    data = read_data(FORMS[form](clips))
    assert {clip.name: clip.text for clip in data.clips} == {f"{name}.wav": text for name, text in TEXTS.items()}
    assert [len(part) for part in (data.train, data.valid, data.test)] == ([1, 1, 1] if form == "mlx-lm" else [3, 0, 0])


def test_paths_from_where_the_command_runs(clips, monkeypatch):
    """As in the official examples, which name ./data/utt0001.wav."""
    (clips.parent / "lists").mkdir()
    file = rows(clips.parent / "lists" / "x.jsonl")
    monkeypatch.chdir(clips)
    assert len(read_data(file).train) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: not a JSON object"),
        ('{"text": "x"}', "line 1: has no recording; its keys are text, one of audio, audio_path"),
        ('{"audio": "a.wav"}', "line 1: has no text; its keys are audio, one of text, transcript"),
        ('\n{"audio": {"path": "a.wav"}, "text": "x"}', "line 2: the recording is \"{'path': 'a.wav'}\", not a string"),
        ('{"audio": "z.wav", "text": "x"}', "line 1: no recording"),
        ('{"audio": "a.wav", "text": "x", "language": 3}', "line 1: language is 3, not a string"),
        (
            '{"audio": "a.wav", "text": "x", "audio_codes": [[1], [2, 3]]}',
            "line 1: audio_codes are not rows of integers",
        ),
        ("", "has no clips"),
    ],
)
def test_bad_rows(clips, content, message):
    (clips / "x.jsonl").write_text(content)
    with pytest.raises(InvalidValue) as refused:
        read_data(clips / "x.jsonl")
    assert message in str(refused.value) and refused.value.param == "data"


def test_bad_folders(clips, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.mp3").write_bytes(b"")
    (clips / "a.txt").write_text("Hello.")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    for path, message in (
        (tmp_path / "none", "no such file or folder"),
        (tmp_path / "empty", "no recordings"),
        (tmp_path / "x.mp3", "not a folder, .jsonl or metadata.csv"),
        (clips, "no transcript (.txt) beside b.wav, c.wav"),
        (tmp_path / "t.csv", "row 1: expected id|text, or a first row that names the columns audio and text"),
    ):
        with pytest.raises(InvalidValue, match=message.replace("(", r"\(").replace(")", r"\)").replace("|", r"\|")):
            read_data(path)


def test_a_clip_to_learn_from_does_not_judge(clips):
    (clips / "train.jsonl").write_text('{"audio": "a.wav", "text": "x"}')
    (clips / "valid.jsonl").write_text('{"audio": "./a.wav", "text": "x"}')
    with pytest.raises(InvalidValue, match=r"a.wav is among the clips to learn from as well"):
        read_data(clips)


def test_a_tenth_is_held_out(clips):
    [clip] = read_data(rows(clips / "x.jsonl")).train[:1]
    for count, held in ((2, 1), (3, 1), (8, 2), (12, 4), (40, 4), (100, 10)):
        made = held_out(Data([clip] * count, [], []), 3)
        assert (len(made.train), len(made.valid)) == (count - held, held)
    whole = read_data(rows(clips / "x.jsonl"))
    assert held_out(whole, 1) == held_out(whole, 1)
    assert held_out(Data(whole.train[:1], whole.train[1:], []), 0).valid == whole.train[1:]
    with pytest.raises(InvalidValue, match="1 clip; two are needed, one to learn from and one to hold out"):
        held_out(Data(whole.train[:1], [], []), 0)


def test_what_cannot_be_learnt_from_is_named(clips):
    soundfile.write(clips / "silent.wav", np.zeros(24000), 24000)
    soundfile.write(clips / "short.wav", np.random.RandomState(0).uniform(-0.1, 0.1, 6000), 24000)
    soundfile.write(clips / "long.wav", np.random.RandomState(0).uniform(-0.1, 0.1, 31 * 8000), 8000)
    (clips / "broken.wav").write_bytes(b"RIFF")
    bad = {"silent": "is silent", "short": "lasts 0.25 s; clips of 0.5 to 30 s are taken", "long": "lasts 31.00 s"}
    bad |= {"broken": "cannot be read"}
    lines = [json.dumps({"audio": f"{name}.wav", "text": "Hello."}) for name in bad]
    lines += [json.dumps({"audio": "a.wav", "text": "Hi."}), json.dumps({"audio": "b.wav", "text": " \u200b"})]
    (clips / "x.jsonl").write_text("\n".join(lines))
    data = read_data(clips / "x.jsonl")
    with pytest.raises(InvalidValue) as refused:
        usable(data, skip=False)
    assert str(refused.value).startswith("5 of 6 clips cannot be used; --skip leaves them out: ")
    assert "silent.wav is silent" in str(refused.value)
    left, wrong = usable(data, skip=True)
    assert [clip.name for clip in left.train] == ["a.wav"] and len(wrong) == 5
    for name, message in bad.items():
        assert any(f"{name}.wav" in reason and message in reason for reason in wrong.values())
    assert any("text is empty" in reason for reason in wrong.values())
    with pytest.raises(InvalidValue, match="no clip can be used"):
        usable(Data(data.train[:2], [], []), skip=True)


def embed(samples):
    return mx.ones(4) * samples.size


def test_codes_are_kept_by_what_was_encoded(model, clips, tmp_path):
    tts, data = model("base"), read_data(rows(clips / "x.jsonl"))
    cache = Codes(tts.codec, tmp_path / "kept")
    first = listen(data, cache, embed)
    assert cache.made == 3 and [take.codes.shape for take in first.train] == [(19, 16)] * 3
    again = Codes(tts.codec, tmp_path / "kept")
    shutil.move(clips / "a.wav", clips / "renamed.wav")
    (clips / "y.jsonl").write_text('{"audio": "renamed.wav", "text": "Other words."}')
    [take] = listen(read_data(clips / "y.jsonl"), again, embed).train
    assert again.made == 0 and take.codes.tolist() == first.train[0].codes.tolist()
    [file] = [path for path in (tmp_path / "kept").iterdir() if np.load(path).tolist() == take.codes.tolist()]
    file.write_bytes(file.read_bytes()[:100])  # half of it
    listen(read_data(clips / "y.jsonl"), again, embed)
    assert again.made == 1 and np.load(file).tolist() == take.codes.tolist()
    other = Codes(model("base-ends").codec, tmp_path / "kept")
    listen(read_data(clips / "y.jsonl"), other, embed)
    assert other.made == 1, "another codec has other codes"


def test_a_cache_that_cannot_be_written_is_none(model, clips, tmp_path):
    (tmp_path / "kept").write_text("a file")
    cache = Codes(model("base").codec, tmp_path / "kept")
    assert len(listen(read_data(rows(clips / "x.jsonl")), cache, embed).train) == 3 and cache.made == 3


def test_codes_that_came_along(model, clips, tmp_path):
    given = codes(7, 1).tolist()
    cache = Codes(model("base").codec, tmp_path / "kept")
    made = listen(read_data(rows(clips / "x.jsonl", audio_codes=given)), cache, embed)
    assert cache.made == 0 and made.train[0].codes.tolist() == given
    for wrong, message in (([[1, 2]], "expected .frames, 16."), ([[5000] * 16], "range from 5000 to 5000")):
        with pytest.raises(InvalidValue, match=f"line 1: codes .*{message}"):
            listen(read_data(rows(clips / "x.jsonl", audio_codes=wrong)), cache, embed)


def test_clips_one_after_the_other(clips):
    sound, spans = takes.together(read_data(rows(clips / "x.jsonl")).train)
    assert [round(end - start, 3) for start, end in spans] == [1.5] * 3
    assert spans[1][0] == pytest.approx(1.9) and sound.size == 3 * round(1.9 * 24000)
