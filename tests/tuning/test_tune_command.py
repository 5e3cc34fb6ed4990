"""`tune vector` with the miniature: a voice of espeak-ng that it never heard (tests/assets/unheard.jsonl)."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.tuning import judge
from mlx_qwen3tts.tuning import vector as fitting
from mlx_qwen3tts.tuning.data import Clip, read_data
from mlx_qwen3tts.tuning.doubts import outliers, speakers, transcripts
from mlx_qwen3tts.tuning.judge import Figures, against, pitch
from mlx_qwen3tts.tuning.takes import Take
from tests.tuning.stopping import stopped_at

ASSET = Path(__file__).parents[1] / "assets" / "unheard.jsonl"
SMALL = ("--iters", 4, "--batch-size", 2, "--predictor-frames", 24, "--steps-per-eval", 2, "--save-every", 2)


@pytest.fixture(scope="module")
def miniature():
    return Qwen3TTS.from_pretrained("miniature", dtype="float32")


@pytest.fixture(scope="module")
def recorded(miniature, tmp_path_factory):
    """A folder with the clips as recordings, the list with and without their codes."""
    folder = tmp_path_factory.mktemp("unheard")
    rows = [json.loads(line) for line in ASSET.read_text().splitlines()]
    for row in rows:
        samples = np.array(miniature.codec.decode(np.array(row["audio_codes"])))
        soundfile.write(folder / row["audio"], samples, 24000)
    shutil.copy(ASSET, folder / "clips.jsonl")
    return folder


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture
def tune(command, recorded, miniature, monkeypatch, tmp_path):
    """A function that runs `tune vector` on the clips, with the model that is loaded already."""
    monkeypatch.setattr(Qwen3TTS, "from_pretrained", lambda *_: miniature)

    def run(*arguments, data=recorded / "clips.jsonl", output="voice.safetensors"):
        given = ("--model", "miniature", "--data", data, "--output", output, *SMALL, *arguments)
        return command("tune", "vector", *given)

    return run


@pytest.mark.thorough
def test_a_voice_from_clips(tune, miniature, tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "SPEECHES", 1)
    monkeypatch.setattr(judge, "MOST", 1)
    monkeypatch.setattr(judge, "HEARD", 3.0)
    ran = tune("--json", "--consent", "given", "--license", "CC0-1.0", "--language", "english")
    assert ran.status == 0, ran.err
    told = json.loads(ran.out.splitlines()[-1])
    voice = Voice.load(tmp_path / "voice.safetensors")
    assert (voice.consent, voice.license, voice.language) == ("given", "CC0-1.0", "english")
    assert dict(voice.recipe) == told["recipe"] and told["recipe"]["clips"] == 5 and told["clips"] == 5
    old, new, heard = (told["figures"][name] for name in ("x-vector", "fitted", "listened"))
    assert new["loss"] < old["loss"] and told["steps"] == 4 and told["best_step"] in (2, 4)
    better = [name for name, reasons in told["reasons"].items() if not reasons]
    assert told["kept"] == min(better, key=lambda name: told["figures"][name]["distance"], default="x-vector")
    assert heard["distance"] != new["distance"]
    assert voice.norm == pytest.approx(told["figures"][told["kept"]]["norm"], rel=1e-3)
    assert "5 clips, 8 s: 4 to learn from, 1 held out" in ran.err and "voice.tuning/curves.svg" in ran.err
    assert sorted(path.name for path in (tmp_path / "voice.tuning").iterdir()) == ["curves.svg", "steps.csv"]
    assert miniature.generate("Hello.", voice=tmp_path / "voice.safetensors", max_tokens=3).codes.shape == (2, 8)


@pytest.fixture
def still(monkeypatch):
    """Steps that cost nothing: a loss that asks no network, and no speaking at the end."""

    def objective(lessons, start, anchor):
        def loss(parameters, numbers, seed):
            away = mx.square(parameters["vector"] - start * 1.1).mean()
            return away, {"first": away, "rest": away, "away": away}

        return loss

    def compare(self, vectors, losses, progress=None):
        norms = {name: float(mx.linalg.norm(vector)) for name, vector in vectors.items()}
        return {name: figures(loss=losses[name], norm=norm, distance=20 - norm) for name, norm in norms.items()}

    monkeypatch.setattr(fitting, "vector_objective", objective)
    monkeypatch.setattr(fitting.Judge, "__init__", lambda *_: None)
    monkeypatch.setattr(fitting.Judge, "compare", compare)
    monkeypatch.setattr(fitting.Judge, "say", lambda *_: None)
    monkeypatch.setattr(fitting.Judge, "lacking", lambda _, vector, turn, progress: vector * 0.01)
    monkeypatch.setattr(fitting.Lessons, "loss", lambda _, vector: 20 - float(mx.linalg.norm(vector)))
    monkeypatch.setattr(fitting.Lessons, "measured", lambda self, _: [1.0] * len(self))


FIGURES = Figures(loss=2.0, norm=10.0, distance=3.0, cosine=0.9, pitch=0.1, length=0.0, ended=4, of=4, clarity=5.0)


def figures(**changes):
    return replace(FIGURES, **changes)


@pytest.mark.usefixtures("still")
def test_stopped_by_ctrl_c(tune, tmp_path):
    """The best so far is a voice; the same command with --resume gives what an undisturbed run gives."""
    assert tune().status == 0
    whole = Voice.load(tmp_path / "voice.safetensors")
    with stopped_at(3):
        ran = tune("--consent", "given")
    assert (
        ran.status == 130 and "interrupted at step 3: the best so far, of step 2, is kept unheard; --resume" in ran.err
    )
    early = Voice.load(tmp_path / "voice.safetensors")
    assert early.recipe["step"] == 2 and early.consent == "given"
    ran = tune("--resume")
    assert ran.status == 0 and "going on at step 3" in ran.err
    again = Voice.load(tmp_path / "voice.safetensors")
    assert again.embedding.tolist() == whole.embedding.tolist() and again.recipe == whole.recipe
    assert "nothing to go on from" in tune("--resume").err


@pytest.mark.usefixtures("still")
def test_a_learning_rate_that_blows_up(tune, tmp_path):
    ran = tune("--learning-rate", 1e30, "--iters", 9, "--steps-per-eval", 1, "--json")
    assert ran.status == 0 and "the loss was not a number at step" in ran.err
    told = json.loads(ran.out.splitlines()[-1])
    assert told["burst"] is not None and told["steps"] < 9
    assert np.isfinite(np.array(Voice.load(tmp_path / "voice.safetensors").embedding)).all()


@pytest.mark.usefixtures("still")
def test_a_full_disk(tune, tmp_path, monkeypatch):
    """A state that cannot be kept does not lose the run; a voice that cannot be written does, with one line."""
    write = Path.write_bytes
    full = {"unfinished"}

    def failing(self, data):
        if any(word in self.name for word in full):
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", failing)
    ran = tune()
    assert ran.status == 0 and ran.err.count("No space left on device; the run goes on, but --resume will not") == 1
    Voice.load(tmp_path / "voice.safetensors")
    full.add("voice")
    ran = tune(output="other-voice.safetensors")
    assert ran.status == 2 and ran.lines[-1] == "error: cannot write other-voice.safetensors: No space left on device"
    assert not (tmp_path / "other-voice.safetensors").exists()


@pytest.mark.usefixtures("still")
def test_what_is_not_better_is_not_kept(tune, tmp_path, monkeypatch):
    def worse(self, vectors, losses, progress=None):
        return {name: figures(loss=losses[name], ended=4 - (name == fitting.NEW)) for name in vectors}

    monkeypatch.setattr(fitting.Judge, "compare", worse)
    ran = tune()
    said = "vector is not better: its speech lies 3.00 from the recordings, not nearer than 3.00"
    assert f"the fitted {said}, 1 of 4 speeches did not end\n" in ran.err and f"the listened {said}\n" in ran.err
    assert "the x-vector is written to voice.safetensors" in ran.err
    voice = Voice.load(tmp_path / "voice.safetensors")
    assert voice.recipe["tuned"] == "x-vector" and "step" not in voice.recipe
    ran = tune("--learning-rate", 1e30, "--listen", 0)
    assert ran.out.split("\n")[0].split() == ["x-vector"] and "the x-vector is written" in ran.err


def test_the_verdict():
    old = figures()
    assert against(figures(loss=1.9, distance=2.9), old) == []
    for change, reason in (
        ({"loss": 2.02}, "its held-out loss is 2.020, that of the x-vector 2.000"),
        ({"loss": math.nan}, "its held-out loss is nan, that of the x-vector 2.000"),
        ({"distance": 3.1}, "its speech lies 3.10 from the recordings, not nearer than 3.00"),
        ({"ended": 3}, "1 of 4 speeches did not end"),
        ({"length": -0.4}, "its speech is 40% too short"),
        ({"pitch": -0.6}, "its pitch is -0.6 semitones off"),
        ({"norm": 13.5}, "its norm is 13.5, not within 30% of 10.0"),
        ({"clarity": 4.4}, "its words are less clear, 4.40 where the x-vector has 5.00"),
    ):
        assert against(figures(**{"loss": 1.9, "distance": 2.9, **change}), old) == [reason]
    assert against(figures(loss=1.9, distance=2.9, pitch=2.0, length=0.5), figures(pitch=-2.1, length=0.6)) == []
    assert against(figures(loss=1.9, distance=2.9, pitch=None), old) == []


def test_pitch():
    time = np.arange(24000) / 24000
    voiced = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 8)).astype(np.float32) / 4
    assert pitch([voiced, voiced]) == pytest.approx(150, rel=0.01)
    assert pitch([np.zeros(24000, np.float32)]) is None


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--iters", 0), "iters 0 is not 1 or more"),
        (("--learning-rate", -1), "learning_rate -1.0 is not above 0"),
        (("--anchor", -1), "anchor -1.0 is not 0 or more"),
        (("--seed", -1), "seed -1 is not between 0 and 4294967295"),
        (("--save-every", 0), "save_every 0 is not 1 or more"),
        (("--val-batches", -2), "val_batches -2 is not -1 or more"),
        (("--listen", -1), "listen -1 is not 0 or more"),
        (("--predictor-frames", -2), "predictor_frames -2 is not 0 or more"),
        (("--text-mode", "half"), "text_mode 'half' is not one of streaming, full"),
        (("--consent", "perhaps"), "consent 'perhaps' is not one of not-needed, given, unknown, refused"),
        (("--data", "none"), "data none: no such file or folder"),
        (("--output", "voice.wav"), "embedding voice.wav: extension '.wav' is not one of .npy .safetensors .json"),
        (("--output", "none/voice.npy"), "output folder none does not exist"),
        (("--resume",), "--resume: nothing to go on from, voice.tuning/unfinished.safetensors does not exist"),
    ],
)
def test_bad_options(tune, tmp_path, arguments, message):
    ran = tune(*arguments)
    assert ran.status == 2 and ran.lines[-1].startswith(f"error: {message}"), ran.err
    assert not (tmp_path / "voice.safetensors").exists()


def test_models_without_a_voice_to_fit(command, recorded, checkpoint, tmp_path):
    for name, message in (
        ("voice-design", "a voice_design model has no voice to fit; use a Base model"),
        (
            "custom-voice",
            "a custom_voice model without a speaker encoder has no x-vector to begin with; use a Base model",
        ),
    ):
        arguments = ("--model", checkpoint(name), "--data", recorded / "clips.jsonl", "--output", "v.npy")
        ran = command("tune", "vector", *arguments)
        assert ran.status == 2 and ran.lines == [f"error: {message}"]
    assert list(tmp_path.glob("v*")) == []


def test_one_clip(tune, recorded, tmp_path):
    (tmp_path / "one.jsonl").write_text(ASSET.read_text().splitlines()[0].replace("0.wav", str(recorded / "0.wav")))
    ran = tune(data=tmp_path / "one.jsonl")
    assert ran.status == 2
    assert ran.lines == ["error: data 1 clip; two are needed, one to learn from and one to hold out"]


# What is doubted


def take(name, vector=None, doubt=None):
    return Take(
        Clip(Path(name), "x", name),
        mx.zeros((1, 8), mx.int32),
        mx.array([1.0] if vector is None else vector),
        1.0,
        doubt,
    )


def test_transcripts_that_do_not_match(miniature, recorded):
    """By what the model foresees, on a clip whose text is another's."""
    from mlx_qwen3tts.tuning.lessons import Form, Lessons
    from mlx_qwen3tts.tuning.takes import Codes, listen

    data = read_data(recorded / "clips.jsonl")
    takes = listen(data, Codes(miniature.codec), lambda _: mx.zeros(192)).train
    wrong = Clip(takes[1].clip.audio, "Goodbye, your car is not in my tree.", "x")
    vector = miniature.embed(recorded / "1.wav")
    form = Form("streaming", "english")
    right = Lessons(miniature, takes, form).measured(vector)
    assert transcripts(takes, right) == []
    swapped = [takes[0], Take(wrong, takes[1].codes, takes[1].vector, takes[1].seconds, None), *takes[2:]]
    [said] = transcripts(swapped, Lessons(miniature, swapped, form).measured(vector))
    assert said == "the model foresees these far worse than the others; is it their text?: 1.wav"


def test_transcripts_of_few_clips_and_of_wrong_lengths():
    few = [take("a.wav"), take("b.wav")]
    assert transcripts(few, [2.0, 2.1]) == [] and "foresees b.wav far worse" in transcripts(few, [2.0, 2.7])[0]
    assert transcripts([take("a.wav", doubt="too long")], [2.0]) == ["a.wav: too long"]


def test_clips_of_another_speaker(miniature, recorded, tmp_path):
    """Beside those of the unheard voice, two of another, and one in which both speak."""
    rows = read_data(recorded / "clips.jsonl").train
    known = miniature.folder.folder
    assert speakers(rows, miniature.speaker_encoder, known) == []
    high = soundfile.read(known / "recordings" / "high.flac", dtype="float32")[0]
    both = np.concatenate([soundfile.read(row.audio, dtype="float32")[0] for row in rows[:2]] + [high[:72000]])
    for name, samples in (("high", high[:60000]), ("more", high[60000:120000]), ("both", both)):
        soundfile.write(tmp_path / f"{name}.wav", samples, 24000)
    clips = [*rows, *(Clip(tmp_path / f"{name}.wav", "x", name) for name in ("high", "more", "both"))]
    mixed, other = speakers(clips, miniature.speaker_encoder, known)
    assert mixed == "two speakers seem to be heard in both.wav"
    assert other == "another speaker than in the other clips seems to be heard in high.wav, more.wav"


def test_outliers():
    takes = [
        take(f"{i}.wav", [10.0 + 0.1 * x, 0.1 * y]) for i, (x, y) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1)))
    ]
    assert outliers(takes) == [] and outliers(takes[:2]) == []
    assert "bad recording: far.wav" in outliers([*takes, take("far.wav", [0.0, 5.0])])[0]
