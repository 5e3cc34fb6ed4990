"""The sparse autoencoder: true features of made-up voices are found; what the real ones cannot show is said."""

import itertools
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from mlx_qwen3tts import Voice
from mlx_qwen3tts.errors import InvalidValue, OutputError, VoiceError, WrongType
from mlx_qwen3tts.files.tensors import write_tensors
from mlx_qwen3tts.voices import SparseAutoencoder, VoiceSpace
from mlx_qwen3tts.voices.algebra import units
from mlx_qwen3tts.voices.sparse import autoencoder as sae
from mlx_qwen3tts.voices.sparse.autoencoder import TopK, revive
from mlx_qwen3tts.voices.sparse.separation import auc, midranks, shuffled


def sparse_voices(count, dimension, features, k, seed=1, noise=0.02):
    """Voices [N, D] about a large mean, each a sum of k random directions; all directions [F, D]; amounts [N, F]."""
    random = np.random.RandomState(seed)
    directions = random.randn(features, dimension)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    amounts = np.zeros((count, features))
    chosen = np.argsort(random.rand(count, features), axis=1)[:, :k]
    np.put_along_axis(amounts, chosen, random.uniform(0.5, 1.5, (count, k)), axis=1)
    mean = 10 * random.randn(dimension) / dimension**0.5
    voices = 3 * (amounts @ directions + noise * random.randn(count, dimension)) + mean
    return mx.array(voices.astype(np.float32)), directions.astype(np.float32), amounts


def similarities(fitted, directions):
    """Cosines [true features, found features]."""
    return directions @ np.array(fitted.dictionary).T


@pytest.fixture(scope="module")
def known():
    """(autoencoder, voices it was fitted to, true directions, true amounts), D = 128."""
    voices, directions, amounts = sparse_voices(3000, 128, 64, 4)
    return SparseAutoencoder.fit(voices, features=64, k=4, steps=350), voices, directions, amounts


@pytest.fixture(scope="module")
def small():
    voices, *_ = sparse_voices(1200, 16, 12, 2)
    return SparseAutoencoder.fit(voices, features=12, k=2, steps=100), voices


# What it finds


def test_true_features_are_found(known):
    fitted, _, directions, _ = known
    assert similarities(fitted, directions).max(axis=1).mean() >= 0.97  # asked for: 0.9
    assert np.allclose(np.linalg.norm(np.array(fitted.dictionary), axis=1), 1, atol=1e-5)
    assert fitted.dead == [] and (fitted.features, fitted.k, fitted.dimension, fitted.count) == (64, 4, 128, 3000)


@pytest.mark.parametrize("seed", [0, 5])
def test_true_features_are_found_where_they_crowd(seed):
    """As many features as dimensions; twice as many are looked for, and what is too many dies."""
    voices, directions, _ = sparse_voices(4000, 64, 64, 4, seed=seed + 10)
    fitted = SparseAutoencoder.fit(voices, features=96, k=4, steps=250, seed=seed)
    assert similarities(fitted, directions).max(axis=1).mean() >= 0.95
    assert 15 <= len(fitted.dead) <= 40


def test_reconstruction_of_voices_that_it_has_not_seen(known):
    fitted, seen, directions, _ = known
    random = np.random.RandomState(9)
    amounts = np.zeros((500, 64))
    np.put_along_axis(amounts, np.argsort(random.rand(500, 64), axis=1)[:, :4], random.uniform(0.5, 1.5, (500, 4)), 1)
    truth = np.array(seen).mean(axis=0) + 3 * (amounts - known[3].mean(axis=0)) @ directions
    report = fitted.report(mx.array(truth.astype(np.float32)))
    assert report.explained > 0.95 and report.cosine > 0.97 and report.active == pytest.approx(4, abs=0.1)
    assert (report.dead, report.silent, report.separations, report.warnings) == ([], [], [], [])
    noise = fitted.mean + fitted.radius / 128**0.5 * mx.random.normal((500, 128), key=mx.random.key(0))
    assert fitted.report(noise).explained < 0.3


def test_codes_are_sparse_and_shapes_follow(known):
    fitted, voices, *_ = known
    z = fitted.encode(voices[:100])
    assert z.shape == (100, 64) and z.dtype == mx.float32 and (z >= 0).all().item()
    assert ((z > 0).sum(axis=1) <= 4).all().item()
    assert fitted.encode(voices[3]).shape == (64,) and fitted.decode(z[3]).shape == (128,)
    assert mx.allclose(fitted.encode(Voice(voices[3])), z[3], atol=1e-6)
    assert mx.allclose(fitted.encode([Voice(voices[0]), voices[1]]), z[:2], atol=1e-6)
    away = mx.linalg.norm(fitted.decode(z) - voices[:100], axis=1) / fitted.radius
    assert away.mean().item() < 0.2
    tied = TopK(mx.ones((8, 4)), 3)  # equal features: still no more than k
    assert (tied.encode(mx.ones((2, 4))) > 0).sum(axis=1).tolist() == [3, 3]


def test_editing_moves_one_feature_and_no_other(known):
    fitted, voices, directions, amounts = known
    found = similarities(fitted, directions).argmax(axis=1)
    for true in range(0, 64, 8):
        feature, rows = int(found[true]), mx.array(np.flatnonzero(amounts[:, true])[:100])
        usual = fitted.activation[feature].item()
        for amount in (1.0, -0.3):
            edited = fitted.edit(voices[rows], feature, amount)
            change = np.array(fitted.encode(edited) - fitted.encode(voices[rows])) / usual
            others = np.delete(change, feature, axis=1)
            assert np.median(change[:, feature]) == pytest.approx(amount, rel=0.12)
            assert np.abs(others).sum(axis=1).mean() < 0.15 * abs(amount)
            moved = np.array(edited - voices[rows]) @ directions[true]
            assert np.allclose(moved, amount * 3 * amounts[rows.tolist(), true].mean(), rtol=0.06)
    assert mx.array_equal(fitted.edit(voices, 3, 0), voices)  # with what is not explained
    assert fitted.edit(Voice(voices[0]), np.int64(3), np.float32(1)).shape == (128,)


# Dead features


def test_features_that_never_fire_are_made_anew():
    X = mx.random.normal((40, 8), key=mx.random.key(1))
    network = TopK(units(mx.random.normal((6, 8), key=mx.random.key(2))), 2)
    network.bias = mx.array([0.0, -9, 0, -9, 0, 0])
    optimizer = optim.Adam(1e-3)
    optimizer.update(network, {name: mx.ones_like(value) for name, value in network.parameters().items()})
    fired = (network.encode(X) > 0).any(axis=0)
    assert fired.tolist() == [True, False, True, False, True, True]
    before = {name: mx.array(value) for name, value in network.parameters().items()}
    error = X - network.decode(network.encode(X))
    revive(network, optimizer, fired, error)
    assert mx.linalg.norm(network.dictionary[mx.array([1, 3])], axis=1).tolist() == pytest.approx([1, 1])
    worst = error[mx.argmax(mx.square(error).sum(axis=1))]
    assert (units(worst) @ network.dictionary[1]).item() == pytest.approx(1, abs=1e-5)
    alive, dead = mx.array([0, 2, 4, 5]), mx.array([1, 3])
    for name in ("encoder", "dictionary", "bias"):
        assert mx.array_equal(getattr(network, name)[alive], before[name][alive])
        assert (optimizer.state[name]["m"][dead] == 0).all().item()
        assert (optimizer.state[name]["m"][alive] != 0).all().item()
    assert (network.encode(X) > 0).any(axis=0).all().item()


def test_reviving_finds_what_is_lost_without_it(monkeypatch):
    voices, directions, _ = sparse_voices(3000, 32, 48, 2, seed=2)
    fit = {"features": 48, "k": 2, "steps": 300, "learning_rate": 1e-2}  # fast enough to kill
    revived = SparseAutoencoder.fit(voices, **fit)
    monkeypatch.setattr(sae, "LAST", 0)
    left = SparseAutoencoder.fit(voices, **fit)
    assert len(left.dead) >= 8 and len(revived.dead) <= len(left.dead) // 2
    gain = [similarities(one, directions).max(axis=1).mean() for one in (left, revived)]
    assert gain[1] > gain[0] + 0.05


def test_a_dead_feature_is_named_and_not_edited(small):
    fitted, voices = small
    weights = {**fitted.network.parameters(), "bias": mx.where(mx.arange(12) == 5, -9.0, fitted.network.bias)}
    network = TopK(fitted.dictionary, 2)
    network.update(weights)
    dead = SparseAutoencoder(network, fitted.mean, fitted.radius, fitted.activation * (mx.arange(12) != 5), 1200)
    assert dead.dead == [5] and dead.report(voices).dead == [5] and dead.report(voices).silent == [5]
    with pytest.raises(InvalidValue, match="feature 5 is dead: no voice"):
        dead.edit(voices, 5, 1.0)


# Fitting


def test_seeds(small):
    fitted, voices = small
    how = {"features": 12, "k": 2, "steps": 100}
    mx.random.seed(99)  # the global state does not matter
    again, other = SparseAutoencoder.fit(voices, **how), SparseAutoencoder.fit(voices, seed=1, **how)
    assert mx.array_equal(fitted.dictionary, again.dictionary) and mx.array_equal(fitted.activation, again.activation)
    assert not mx.allclose(fitted.dictionary, other.dictionary, atol=0.1)


def test_defaults_progress_and_the_space(small):
    _, voices = small
    steps = []
    fitted = SparseAutoencoder.fit(voices, steps=3, progress=steps.append)
    assert steps == [1, 2, 3] and (fitted.features, fitted.k) == (64, 4)
    space = VoiceSpace.fit(voices)
    assert mx.array_equal(fitted.mean, space.mean) and fitted.radius == space.radius
    with pytest.warns(UserWarning, match=r"^fitted to 20 voices: a sparse autoencoder needs thousands"):
        few = SparseAutoencoder.fit([Voice(voice) for voice in voices[:20]], steps=2)
    assert (few.features, few.k, few.count) == (16, 2, 20)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": 1201}, "1201 features for 1200 voices"),
        ({"features": 0}, "features 0 is not 1 or more"),
        ({"features": 8, "k": 9}, "k 9 is more than there are features, 8"),
        ({"k": 2.5}, "k must be an integer, not 2.5"),
        ({"steps": True}, "steps must be an integer"),
        ({"batch_size": 0}, "batch_size 0 is not 1 or more"),
        ({"learning_rate": 0}, "learning_rate 0 is not above 0"),
        ({"learning_rate": float("nan")}, "learning_rate nan is not finite"),
        ({"learning_rate": 1e38, "steps": 5}, "lower it"),
        ({"seed": -1}, "seed -1 is not between"),
    ],
)
def test_wrong_settings(wrong, message, small):
    with pytest.raises((InvalidValue, WrongType)) as raised:
        SparseAutoencoder.fit(small[1], **wrong)
    assert message in str(raised.value) and raised.value.param in (*wrong, "learning_rate")


def test_wrong_voices(small):
    fitted, voices = small
    bad = mx.where(mx.arange(16) == 3, mx.array(float("nan")), voices[:5])
    for refuse in (fitted.encode, fitted.report, SparseAutoencoder.fit, lambda x: fitted.edit(x, 0, 1)):
        with pytest.raises(VoiceError, match="NaN or infinite"):
            refuse(bad)
    for refuse in (fitted.encode, fitted.report, lambda x: fitted.edit(x, 0, 1)):
        with pytest.raises(VoiceError, match="17 dimensions, the autoencoder 16; voices do not transfer between model"):
            refuse(mx.zeros((3, 17)))
    with pytest.raises(InvalidValue, match=r"shape \[11\]; expected \[12\] or \[N, 12\]"):
        fitted.decode(mx.zeros(11))
    with pytest.raises(InvalidValue, match="all voices are the same"):
        SparseAutoencoder.fit(mx.ones((5, 8)))
    with pytest.raises(InvalidValue, match="feature 12 is not between 0 and 11"):
        fitted.edit(voices, 12, 1)
    with pytest.raises(InvalidValue, match="amount inf is not finite"):
        fitted.edit(voices, 0, float("inf"))
    with pytest.raises(InvalidValue, match=r"a report is on voices \[N, D\]"):
        fitted.report(voices[0])


# Files


def test_a_file_gives_back_the_same(small, tmp_path):
    fitted, voices = small
    fitted.save(tmp_path / "sae.safetensors")
    again = SparseAutoencoder.load(tmp_path / "sae.safetensors")
    for name, value in fitted.network.parameters().items():
        assert mx.array_equal(value, again.network.parameters()[name])
    assert mx.array_equal(fitted.mean, again.mean) and mx.array_equal(fitted.activation, again.activation)
    assert (again.radius, again.k, again.count) == (fitted.radius, fitted.k, fitted.count)
    assert mx.array_equal(fitted.encode(voices), again.encode(voices))
    assert mx.array_equal(fitted.edit(voices, 1, 2.0), again.edit(voices, 1, 2.0))
    assert repr(again) == "SparseAutoencoder(12 features, 2 in a voice, 16 dimensions)"


def test_any_thread_can_use_what_another_one_made(small, tmp_path):
    fitted, voices = small
    fitted.save(tmp_path / "sae.safetensors")
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(SparseAutoencoder.load, tmp_path / "sae.safetensors").result()
        codes = pool.submit(lambda: np.array(fitted.encode(voices[:9]))).result()
    assert np.array_equal(np.array(there.encode(voices[:9])), codes)


def test_files_that_are_something_else(small, tmp_path):
    fitted, _ = small
    load, path = SparseAutoencoder.load, tmp_path / "x.safetensors"
    with pytest.raises(InvalidValue, match="no such file"):
        load(path)
    Voice(mx.ones(16)).save(path)
    with pytest.raises(InvalidValue, match="has no tensor 'encoder', only speaker_embedding"):
        load(path)
    path.write_bytes(b"none")
    with pytest.raises(InvalidValue, match="truncated or not a safetensors"):
        load(path)
    with pytest.raises(OutputError, match=r"extension must be \.safetensors"):
        fitted.save(tmp_path / "x.npy")
    tensors = {**fitted.network.parameters(), "mean": fitted.mean, "activation": fitted.activation}
    good = {"k": "2", "radius": "1.5", "count": "9"}
    for metadata, message in (
        ({}, "its metadata are not those of one"),
        ({**good, "k": "13"}, "k 13 or radius 1.5 cannot be"),
        ({**good, "radius": "nan"}, "k 2 or radius nan cannot be"),
    ):
        write_tensors(path, tensors, metadata)
        with pytest.raises(InvalidValue, match=message):
            load(path)
    write_tensors(path, {**tensors, "bias": mx.zeros(11)}, good)
    with pytest.raises(InvalidValue, match="which does not fit"):
        load(path)


# What separates labels


def test_auc_counts_pairs():
    random = np.random.RandomState(0)
    z = np.maximum(random.randn(40, 7), 0).round(1).astype(np.float32)  # with many ties
    has = random.rand(3, 40) < 0.4
    found = np.array(auc(midranks(mx.array(z)), has))
    for way, feature in itertools.product(range(3), range(7)):
        yes, no = z[has[way], feature][:, None], z[~has[way], feature][None]
        assert found[way, feature] == pytest.approx(((yes > no) + (yes == no) / 2).mean(), abs=1e-6)


def test_labels_are_shuffled_where_they_may_be():
    dealt = np.random.default_rng(0)
    groups = [name for name in "abcdef" for _ in range(4)]
    by_group = np.array([group in "ace" for group in groups])
    dealt_out = shuffled(by_group, groups, dealt).reshape(-1, 6, 4)
    assert (dealt_out == dealt_out[:, :, :1]).all() and (dealt_out[:, :, 0].sum(axis=1) == 3).all()
    assert len(np.unique(dealt_out[:, :, 0], axis=0)) == 20
    within = shuffled(np.arange(24) % 4 == 1, groups, dealt).reshape(-1, 6, 4)
    assert (within.sum(axis=2) == 1).all() and abs(within.mean(axis=0) - 0.25).max() < 0.12
    free = shuffled(by_group, None, dealt)
    assert (free.sum(axis=1) == 12).all() and abs(free.mean(axis=0) - 0.5).max() < 0.15


def test_report_finds_the_feature_behind_a_label(known):
    fitted, voices, directions, amounts = known
    true = 7
    labels = np.where(amounts[:, true] > 0, "husky", "clear")
    groups = [f"speaker {i % 30}" for i in range(3000)]
    report = fitted.report(voices, labels.tolist(), groups)
    clear, husky = report.separations
    feature, reached = husky.best[0]
    assert feature == similarities(fitted, directions)[true].argmax() and reached > 0.99 and len(husky.best) == 3
    assert (husky.voices, husky.groups, clear.voices) == (np.sum(amounts[:, true] > 0), 30, np.sum(labels == "clear"))
    assert husky.held_out > 0.99 and husky.p < 0.006 and 0.5 < husky.shuffled[0] < husky.shuffled[1] < 0.6
    assert husky.best[1][1] < 0.6  # the others do not follow it
    told = str(report)
    assert f"husky ({husky.voices} voices of 30 groups): feature {feature} with AUC 1.00" in told
    assert "of at most 4 in a voice" in told and "thousands" not in told
    json.dumps(asdict(report))


def test_a_label_without_meaning_is_shown_as_such(known):
    fitted, voices, *_ = known
    random = np.random.RandomState(4)
    some = fitted.report(voices[:30], random.permutation(["a", "b"] * 15).tolist(), [str(i // 3) for i in range(30)])
    for separation in some.separations:
        assert separation.p > 0.05 and separation.best[0][1] <= separation.shuffled[1] + 1e-6
        assert separation.held_out < 0.75
    assert "a high AUC comes by chance" in str(some)
    assert "No groups were given" in str(fitted.report(voices[:30], ["a", "b"] * 15))


def test_labels_that_cannot_be_judged(known):
    fitted, voices, *_ = known
    for labels, message in (
        (["a"] * 9 + ["b"], "9 of 10 voices are labelled 'a'; two are needed, and two others"),
        (["a"] * 10, "10 of 10 voices are labelled 'a'"),
        (["a", "b"], "labels has 2 labels for 10 voices"),
    ):
        with pytest.raises(InvalidValue, match=message):
            fitted.report(voices[:10], labels)


# The real voices


def test_real_voices_and_what_they_cannot_show(shared):
    told = json.loads((shared / "voices" / "labels.json").read_text())
    voices = [Voice.load(shared / "voices" / f"{name}.npy") for name in told]
    speakers = [label["speaker"] for label in told.values()]
    with pytest.warns(UserWarning, match="fitted to 36 voices: a sparse autoencoder needs thousands"):
        fitted = SparseAutoencoder.fit(voices, steps=400)
    by_gender = fitted.report(voices, [label["gender"] for label in told.values()], speakers)
    by_speaker = fitted.report(voices, speakers)
    assert by_gender.explained > 0.7 and by_gender.active <= fitted.k
    assert all(one.p > 0.04 for one in by_gender.separations)  # three speakers a side cannot show more
    assert sum(one.p < 0.01 for one in by_speaker.separations) >= 3  # though speakers it does tell apart
    text = str(by_gender)
    assert "It was fitted to 36 voices" in text and "What it explains of them says nothing of other voices" in text
    assert "The voices are of 6 independent groups; female rests on 3 of them" in text
    assert "dealt out in 20 ways only: p is never below 0.050" in text
    left_out = [i for i, speaker in enumerate(speakers) if speaker == "ryan"]
    with warnings.catch_warnings(record=True):
        rest = SparseAutoencoder.fit([voices[i] for i in range(36) if i not in left_out], steps=400)
    unseen = rest.report([voices[i] for i in left_out])
    assert unseen.explained < 0.5 * by_gender.explained
