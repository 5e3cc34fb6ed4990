"""Adapters that are learnt: their gradients, what is kept of them, how a run goes on, several speakers.

On a tiny random checkpoint with judges that cost nothing, and once with the miniature.
"""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import soundfile
from mlx.utils import tree_flatten, tree_map

from convert.parity import recording
from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.checkpoint.adapters import CONFIG, IDENTITY, TENSORS, identity, read_adapter
from mlx_qwen3tts.errors import InvalidValue
from mlx_qwen3tts.networks.linear import Adapted
from mlx_qwen3tts.tuning import doubts, judge, lora, unfinished
from mlx_qwen3tts.tuning.data import Clip, Data, held_out_each
from mlx_qwen3tts.tuning.fit import Fit, Settings
from mlx_qwen3tts.tuning.judge import Figures
from mlx_qwen3tts.tuning.lessons import Form, Lessons
from mlx_qwen3tts.tuning.lora import LoraFit, LoraOptions, check_speakers, matrices_of
from mlx_qwen3tts.tuning.spoken import SpokenFit, together
from mlx_qwen3tts.tuning.takes import Take, Takes
from tests.tuning.stopping import stopped_at

NAME = "tune-0b6"
FIGURES = Figures(loss=2.0, norm=10.0, distance=3.0, cosine=0.9, pitch=0.1, length=0.0, ended=4, of=4)
SMALL = LoraOptions(iters=4, batch_size=2, rank=2, steps_per_eval=2, sample=6, seed=3)


def figures(**changes):
    return replace(FIGURES, **changes)


@pytest.fixture
def tts(model):
    loaded = model(NAME)
    yield loaded
    loaded.adapt(None)


def takes(tts, speakers=(None,)):
    """Clips of made-up codes, three to learn from and one to hold out for each speaker."""
    random, parts = np.random.RandomState(5), ([], [])
    for name in speakers:
        vector = mx.array(random.normal(size=tts.embedding_dim).astype(np.float32))
        for number in range(4):
            codes = mx.array(random.randint(0, 2048, (4 + number, 16)).astype(np.int32))
            clip = Clip(Path(f"{name}{number}.wav"), "Hello there.", f"{name} {number}", speaker=name)
            parts[number == 3].append(Take(clip, codes, vector + 0.1 * number, 1.0, None))
    return Takes(*parts, [])


@pytest.fixture
def heard(monkeypatch):
    """Judges that cost nothing: speech comes nearer by the norm of what the adapters add."""
    said = []

    def compare(self, vectors, losses, progress=None):
        [(name, vector)] = vectors.items()
        added = sum(float(mx.linalg.norm(b)) for _, b in self.tts.adapter.matrices.values())
        said.append((float(mx.linalg.norm(vector)), added))
        return {name: figures(loss=losses[name], norm=10.0, distance=9 - added)}

    monkeypatch.setattr(lora.Judge, "compare", compare)
    monkeypatch.setattr(lora.Judge, "__init__", lambda self, tts, *_: vars(self).update(tts=tts))
    return said


@pytest.fixture
def cheap(monkeypatch, heard):
    """Losses that ask no network but fall with what the adapters and the vectors are; no diarization."""

    def losses(talker, given, voices, sample=None, recompute=False):
        layer = talker.model.layers[0].self_attn.qkv_proj
        away = mx.square(layer.up - 1).mean() if isinstance(layer, Adapted) else mx.array(1.0)
        return away, mx.square(voices).mean() * 1e-3

    monkeypatch.setattr(lora, "losses", losses)
    monkeypatch.setattr(doubts, "speakers", lambda *_: [])


def fit(tts, options=SMALL, speakers=(None,), **changes):
    return LoraFit(tts, takes(tts, speakers), replace(options, **changes))


def moved(parameters, size=0.05):
    """Parameters that are not at their start: b is not zero."""
    random = np.random.RandomState(2)
    return tree_map(lambda x: x + mx.array(random.normal(0, size, x.shape).astype(np.float32)), parameters)


def flat(tree):
    return {name: np.array(array) for name, array in tree_flatten(tree)}


# Gradients


def check_gradients(tuning, names):
    """Against central differences along a random direction of each named matrix."""
    parameters = moved(tuning.fit.parameters)
    gradient = mx.grad(lambda given: tuning.objective(given, [0, 1, 2], 7)[0])
    found = dict(tree_flatten(gradient(parameters)))
    for name in names:
        random = np.random.RandomState(1)
        size = found[name].size
        direction = mx.array(np.sign(random.normal(size=size)).astype(np.float32).reshape(found[name].shape))
        # Along the signs of the gradient the difference is far above what float32 rounds away.
        direction = mx.where(found[name] < 0, -1.0, 1.0) * mx.abs(direction)

        def loss(step, name=name, direction=direction):
            changed = dict(tree_flatten(parameters))
            changed[name] = changed[name] + step * direction
            return tuning.objective(tree_of(changed), [0, 1, 2], 7)[0].item()

        step = 2e-3
        difference = (loss(step) - loss(-step)) / (2 * step)
        assert difference == pytest.approx(mx.abs(found[name]).sum().item(), rel=2e-2), name


def tree_of(flat):
    from mlx.utils import tree_unflatten

    return tree_unflatten(list(flat.items()))


Q = "adapters.talker.model.layers.0.self_attn.q_proj"
V = "adapters.talker.code_predictor.model.layers.1.self_attn.v_proj"


@pytest.mark.usefixtures("heard")
def test_gradients_are_those_of_finite_differences(tts):
    names = [f"{Q}.lora_a", f"{Q}.lora_b", f"{V}.lora_a", f"{V}.lora_b", "moved.0"]
    check_gradients(fit(tts, vector=True, sample=0), names)


@pytest.mark.usefixtures("heard")
def test_gradients_over_a_quantised_base(checkpoint):
    quantised = Qwen3TTS.from_pretrained(checkpoint(NAME), dtype="float32")
    fits = lambda _, layer: isinstance(layer, nn.Linear) and layer.weight.shape[1] % 32 == 0  # noqa: E731
    nn.quantize(quantised.talker, 32, 8, class_predicate=fits)
    assert isinstance(quantised.talker.model.layers[0].self_attn.qkv_proj, nn.QuantizedLinear)
    check_gradients(fit(quantised), [f"{Q}.lora_b", f"{V}.lora_a"])


@pytest.mark.usefixtures("heard")
def test_recomputing_changes_no_gradient(tts):
    """Nor the loss; with the adapters' own gradients among those that are asked for in the layers."""
    found = []
    for recompute in (False, True):
        tuning = fit(tts, grad_checkpoint=recompute, vector=True)
        parameters = moved(tuning.fit.parameters)
        loss, gradients = mx.value_and_grad(lambda given, of=tuning: of.objective(given, [0, 1], 7)[0])(parameters)
        found.append((loss.item(), flat(gradients)))
    (one, plain), (other, again) = found
    assert one == pytest.approx(other, rel=1e-6)
    for name, gradient in plain.items():
        assert np.abs(gradient).max() > 0 and np.allclose(gradient, again[name], rtol=1e-4, atol=1e-7), name


@pytest.mark.usefixtures("heard")
def test_adapters_begin_as_the_base(tts):
    """The held-out loss at the start is exactly that without adapters, in both layouts."""
    tuning = fit(tts)
    at_start = tuning.evaluate(tuning.fit.parameters)
    tts.adapt(None)
    plain = [Lessons(tts, tuning.held, Form(layout, "auto")) for layout in ("streaming", "full")]
    assert at_start == np.mean([lessons.loss(tuning.start[0]) for lessons in plain])
    assert plain[0].loss(tuning.start[0]) != plain[1].loss(tuning.start[0])
    assert {name.split(".")[-2] for name, _ in tree_flatten(tuning.fit.parameters)} == {"q_proj", "v_proj"}
    a = tuning.fit.parameters["adapters"]["talker"]["model"]["layers"][0]["self_attn"]["q_proj"]["lora_a"]
    assert 0.9 / math.sqrt(64) < mx.abs(a).max().item() <= 1 / math.sqrt(64)


# Runs


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("vector", [False, True])
def test_stopped_and_gone_on_with_is_the_same(tts, tmp_path, vector):
    whole = fit(tts, vector=vector)
    rows = list(whole.fit)
    assert [row.valid is not None for row in rows] == [True, False, True, False, True]
    first = fit(tts, vector=vector)
    for row in first.fit:
        if row.step == 2:
            break
    unfinished.save(tmp_path / "run", first.fit, "as begun")
    second = fit(tts, vector=vector)
    unfinished.restore(tmp_path / "run", second.fit, "as begun")
    assert second.fit.step == 3 and len(list(second.fit)) == 2
    for name, array in flat(whole.fit.parameters).items():
        assert (flat(second.fit.parameters)[name] == array).all(), name
    assert second.fit.rows == whole.fit.rows and second.fit.heard == whole.fit.heard
    assert second.best[0].digest == whole.best[0].digest and second.fit.best_step == whole.fit.best_step
    assert ("moved.0" in flat(whole.fit.parameters)) == vector


def test_training_changes_what_is_spoken_and_leaves_the_model(tts, heard):
    tuning = fit(tts, vector=True)
    losses = [row.figures["first"] for row in tuning.fit if row.figures]
    assert len(losses) == 4 and heard[0][1] == 0 and heard[-1][1] > heard[1][1] > 0
    assert heard[0][0] == pytest.approx(float(mx.linalg.norm(tuning.start[0]))) and heard[0][0] != heard[-1][0]
    adapter, vectors = tuning.best
    assert adapter.values[IDENTITY] == identity(tts.folder) and list(vectors) == ["voice"]
    assert mx.abs(vectors["voice"] - tuning.start[0]).max().item() > 1e-3
    tuning.end()
    assert tts.adapter is None


@pytest.mark.usefixtures("heard")
def test_a_learning_rate_that_blows_up(tts):
    tuning = fit(tts, learning_rate=1e38, steps_per_eval=1, iters=9)
    rows = list(tuning.fit)
    assert tuning.fit.burst is not None and rows[-1].figures == {} and tuning.fit.step < 9
    adapter, vectors = tuning.best
    assert np.isfinite(np.array(vectors["voice"])).all()
    assert adapter is None or all(np.isfinite(np.array(m)).all() for pair in adapter.matrices.values() for m in pair)


def spoken_fit(distances, losses=None, **changes):
    """A SpokenFit of a number that grows by itself, whose speech has these distances, evaluation by evaluation."""
    told = iter([one if isinstance(one, Figures) else figures(distance=one) for one in distances])
    held = iter(losses or [1.0] * 99)

    def objective(given, numbers, seed):
        return -given["x"].sum(), {"first": given["x"].sum(), "rest": given["x"].sum()}

    settings = Settings(**{"iters": 12, "learning_rate": 0.1, "batch_size": 1, "steps_per_eval": 2, **changes})
    return SpokenFit(
        {"x": mx.zeros(1)},
        objective,
        lambda _: next(held),
        3,
        settings,
        lambda _, loss: replace(next(told), loss=loss),
        patience=3,
    )


def test_speech_chooses_and_not_the_loss():
    one = spoken_fit(
        [5.0, 4.0, 3.0, figures(distance=2.0, ended=3), 3.5, 3.6, 3.7], [2.0, 1.9, 1.8, 1.2, 1.1, 1.0, 0.9]
    )
    seen = {row.step: float(one.parameters["x"][0]) for row in one}
    assert one.best_step == 4 and float(one.best["x"][0]) == pytest.approx(seen[3])
    assert one.against(6) == ["1 of 4 speeches did not end"] and one.best_valid == 1.8
    assert one.stalled and one.step < 12, "three evaluations in a row gave nothing better"


def test_nothing_better_ends_it_early():
    one = spoken_fit([5.0, 5.5, 5.2, 5.1, 5.1])
    list(one)
    assert one.best_step == 0 and one.step == 7 and sorted(one.heard) == [0, 2, 4, 6, 7]
    assert spoken_fit([5.0] * 9, iters=3).best_step == 0


def test_speakers_are_judged_together():
    both = together(
        [figures(distance=2.0, pitch=-0.4, length=0.1), figures(distance=4.0, pitch=0.2, length=-0.2, ended=3)]
    )
    assert both == figures(distance=3.0, pitch=-0.4, length=-0.2, ended=7, of=8)
    assert together([figures(pitch=None), figures(pitch=0.3)]).pitch == 0.3
    assert together([figures(pitch=None)]).pitch is None and together([figures()]).clarity is None
    assert together([figures(clarity=2.0), figures(clarity=None), figures(clarity=1.5)]).clarity == 1.5


# Several speakers


def test_several_speakers_share_an_adapter(tts, heard):
    tuning = fit(tts, speakers=("anna", "ben"), vector=True)
    assert tuning.speakers == ["anna", "ben"] and len(tuning.judges) == 2
    own = [take.vector for take in takes(tts, ("anna", "ben")).all if take.clip.speaker == "ben"]
    assert np.allclose(tuning.start[1], np.mean([np.array(v) for v in own], axis=0), atol=1e-6)
    voices = tuning.spoken_by(tuning.fit.parameters, tuning.takes.train)
    for take, voice in zip(tuning.takes.train, voices, strict=True):
        assert voice.tolist() == tuning.start[take.clip.speaker == "ben"].tolist()
    list(tuning.fit)
    adapter, vectors = tuning.best
    assert list(vectors) == ["anna", "ben"] and adapter.values["speakers"] == ["anna", "ben"]
    for name, start in zip(vectors, tuning.start, strict=True):
        assert mx.abs(vectors[name] - start).max().item() > 1e-3
    assert tuning.recipe("ben")["clips"] == 4 and tuning.recipe("ben")["adapter"] == adapter.digest
    assert len(heard) == 2 * len(tuning.fit.heard)


def clip(name, speaker=None):
    return Clip(Path(f"{name}.wav"), "x", name, speaker=speaker)


def test_every_speaker_has_clips_held_out():
    data = Data([clip(f"{who}{i}", who) for who in ("anna", "ben") for i in range(5)], [], [])
    split = held_out_each(data, 0)
    assert [one.speaker for one in split.train] == ["anna"] * 4 + ["ben"] * 4
    assert [one.speaker for one in split.valid] == ["anna", "ben"]
    with pytest.raises(InvalidValue, match="speaker ben: data 1 clip; two are needed"):
        held_out_each(Data([*data.train[:5], clip("b", "ben")], [], []), 0)
    given = Data(data.train, [clip("v", "anna")], [])
    assert held_out_each(given, 0) is given


@pytest.mark.usefixtures("heard")
def test_speakers_that_cannot_be_judged_or_learnt(tts):
    both = takes(tts, ("anna", "ben"))
    with pytest.raises(InvalidValue, match="data: speaker ben has no clip that is held out"):
        LoraFit(tts, Takes(both.train, both.valid[:1], []), SMALL)
    with pytest.raises(InvalidValue, match="data ben 3: speaker ben has no clip to learn from"):
        LoraFit(tts, Takes(both.train[:3], both.valid, []), SMALL)


@pytest.mark.parametrize("name", ["a/b", "adapters", "con", "x?"])
def test_speakers_whose_names_no_file_can_have(name):
    with pytest.raises(InvalidValue, match="data: speaker"):
        check_speakers(Data([clip("a", name)], [], []))
    check_speakers(Data([clip("a", "Anna Müller"), clip("b")], [], []))


# The command


ASSET = Path(__file__).parents[1] / "assets" / "unheard.jsonl"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The miniature, and a list of clips of a voice that it never heard: codes, with made-up recordings in their place,
    as decoding them all takes seconds."""
    folder = tmp_path_factory.mktemp("unheard")
    for number, line in enumerate(ASSET.read_text().splitlines()):
        recording(folder / json.loads(line)["audio"], number, 1.5)
    shutil.copy(ASSET, folder / "clips.jsonl")
    return Qwen3TTS.from_pretrained("miniature", dtype="float32"), folder / "clips.jsonl"


@pytest.fixture
def tune(command, recorded, monkeypatch, tmp_path):
    """A function that runs `tune lora` on the clips, with the model that is loaded already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(Qwen3TTS, "from_pretrained", lambda *_: recorded[0])
    small = ("--iters", 2, "--batch-size", 1, "--predictor-frames", 8, "--steps-per-eval", 2, "--save-every", 1)

    def run(*arguments, data=recorded[1]):
        recorded[0].adapt(None)
        return command("tune", "lora", "--model", "miniature", "--data", data, "--output", "lora", *small, *arguments)

    return run


@pytest.mark.thorough
def test_an_adapter_from_clips(tune, recorded, tmp_path, monkeypatch):
    for line in ASSET.read_text().splitlines():
        row = json.loads(line)
        samples = np.array(recorded[0].codec.decode(np.array(row["audio_codes"])))
        soundfile.write(tmp_path / row["audio"], samples, 24000)
    shutil.copy(ASSET, tmp_path / "clips.jsonl")
    monkeypatch.setattr(judge, "SPEECHES", 1)
    monkeypatch.setattr(judge, "HEARD", 3.0)
    ran = tune(
        "--vector", "--json", "--consent", "given", "--language", "english", "--iters", 6, data=tmp_path / "clips.jsonl"
    )
    assert ran.status == 0, ran.err
    told = json.loads(ran.out.splitlines()[-1])
    assert told["steps"] == 6 and [one["step"] for one in told["heard"]] == [0, 2, 4, 6]
    assert len({one["loss"] for one in told["heard"]}) == 4, "every step foresees otherwise"
    voice = Voice.load(tmp_path / "lora" / "voice.safetensors")
    assert (voice.consent, voice.language) == ("given", "english")
    assert (told["kept"] == "adapter") == (tmp_path / "lora" / TENSORS).is_file() == bool(told["best_step"])


@pytest.mark.usefixtures("cheap")
def test_the_command(tune, recorded, tmp_path):
    ran = tune("--vector", "--consent", "given")
    assert ran.status == 0, ran.err
    assert "the adapter of step 2, which speaks best, is written to lora, with voice.safetensors" in ran.err
    assert ran.out.splitlines()[0].split() == ["x-vector", "step", "2"]
    assert sorted(path.name for path in (tmp_path / "lora").iterdir()) == sorted([CONFIG, TENSORS, "voice.safetensors"])
    assert sorted(path.name for path in (tmp_path / "lora.tuning").iterdir()) == ["curves.svg", "steps.csv"]
    adapter, voice = read_adapter(tmp_path / "lora"), Voice.load(tmp_path / "lora" / "voice.safetensors")
    assert adapter.scale == 2 and adapter.values["best_step"] == 2 and voice.recipe["adapter"] == adapter.digest
    recorded[0].adapt(tmp_path / "lora")
    assert recorded[0].generate("Hello.", voice, max_tokens=3).codes.shape == (2, 8)


@pytest.mark.usefixtures("cheap")
def test_stopped_by_ctrl_c(tune, tmp_path):
    assert tune("--iters", 4).status == 0
    whole = read_adapter(tmp_path / "lora")
    with stopped_at(3):
        ran = tune("--iters", 4, "--overwrite")
    assert (
        ran.status == 130 and "interrupted at step 3: what spoke best so far, of step 2, is kept; --resume" in ran.err
    )
    early = read_adapter(tmp_path / "lora")
    assert early.values["best_step"] == 2 and early.digest != whole.digest
    ran = tune("--iters", 4, "--resume")
    assert ran.status == 0 and "going on at step 3" in ran.err
    assert read_adapter(tmp_path / "lora").digest == whole.digest
    assert "nothing to go on from" in tune("--iters", 4, "--resume").err


@pytest.mark.usefixtures("cheap")
def test_what_is_not_better_is_not_kept(tune, tmp_path, monkeypatch):
    assert tune().status == 0
    assert tune().lines == ["error: output lora has an adapter; replace it with --overwrite or name another folder"]
    worse = lambda self, vectors, losses, progress=None: {name: figures(loss=losses[name]) for name in vectors}  # noqa: E731
    monkeypatch.setattr(lora.Judge, "compare", worse)
    with monkeypatch.context() as patch:  # before a step was better, nothing is replaced
        patch.setattr(Fit, "chosen", lambda self, step: (_ for _ in ()).throw(KeyboardInterrupt))
        ran = tune("--overwrite")
    assert ran.status == 130 and "interrupted at step 0: no step has spoken better so far; --resume" in ran.err
    assert read_adapter(tmp_path / "lora").values["best_step"] == 2
    ran = tune("--overwrite")
    assert ran.status == 0 and "no step speaks better than the x-vector: lora has voice.safetensors alone" in ran.err
    assert "step 2 is not better: its speech lies 3.00 from the recordings, not nearer than 3.00" in ran.err
    assert [path.name for path in (tmp_path / "lora").iterdir()] == ["voice.safetensors"], "an earlier adapter is gone"
    assert Voice.load(tmp_path / "lora" / "voice.safetensors").recipe["tuned"] == "x-vector"


@pytest.mark.usefixtures("cheap")
def test_a_full_disk(tune, tmp_path, monkeypatch):
    write = Path.write_bytes

    def failing(self, data):
        if "unfinished" in self.name or "adapters" in self.name:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", failing)
    ran = tune()
    assert ran.status == 2 and ran.lines[-1] == "error: cannot write lora/adapters.safetensors: No space left on device"
    assert ran.err.count("the run goes on, but --resume will not") == 1 and list((tmp_path / "lora").iterdir()) == []


@pytest.mark.usefixtures("cheap")
def test_several_speakers_by_the_command(tune, recorded, tmp_path):
    rows = [json.loads(line) for line in recorded[1].read_text().splitlines()][:4]
    for row, name in zip(rows, ("anna", "ben", "anna", "ben"), strict=True):
        row |= {"speaker": name, "audio": str(recorded[1].parent / row["audio"])}
    (tmp_path / "two.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ran = tune(data=tmp_path / "two.jsonl")
    assert ran.status == 0 and "with anna.safetensors, ben.safetensors" in ran.err, ran.err
    voices = [Voice.load(tmp_path / "lora" / f"{name}.safetensors") for name in ("anna", "ben")]
    assert [voice.recipe["clips"] for voice in voices] == [2, 2]
    assert voices[0].embedding.tolist() != voices[1].embedding.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rank", 0), "rank 0 is not between 1 and 256"),
        (("--scale", 0), "scale 0.0 is not above 0"),
        (("--keys", "self_attn.q_proj", "lm_head"), "keys 'lm_head' is not one of self_attn.q_proj, "),
        (("--patience", 0), "patience 0 is not 1 or more"),
        (("--text-mode", "half"), "text_mode 'half' is not one of mixed, streaming, full"),
        (("--learning-rate", 0), "learning_rate 0.0 is not above 0"),
        (("--anchor", -1), "anchor -1.0 is not 0 or more"),
        (("--val-batches", -2), "val_batches -2 is not -1 or more"),
        (("--predictor-frames", -1), "predictor_frames -1 is not 0 or more"),
        (("--save-every", 0), "save_every 0 is not 1 or more"),
        (("--data", "none"), "data none: no such file or folder"),
        (("--output", "none/lora"), "output folder none does not exist"),
        (("--resume",), "--resume: nothing to go on from, lora.tuning/unfinished.safetensors does not exist"),
    ],
)
@pytest.mark.usefixtures("cheap")
def test_bad_options(tune, tmp_path, arguments, message):
    ran = tune(*arguments)
    assert ran.status == 2 and ran.lines[-1].startswith(f"error: {message}"), ran.err
    assert not (tmp_path / "lora").exists()


def test_adapters_of_other_layers(tts):
    names = list(matrices_of(lora.begun(tts.talker, 2, ("mlp.down_proj",), 0)))
    assert len(names) == 5 and all(name.endswith("mlp.down_proj") for name in names)
