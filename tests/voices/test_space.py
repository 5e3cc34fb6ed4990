"""The voice space: what it is fitted to, what similarity ignores, and that it says when it cannot."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts import Voice, VoiceSpace
from mlx_qwen3tts.errors import InvalidValue, OutputError, VoiceError
from mlx_qwen3tts.voices import similarity
from mlx_qwen3tts.voices.directions.retrieval import retrieval
from tests.voices.real import load, made

X, NAMES, LABELS = made()
SPEAKERS = set(LABELS["speaker"])


def test_mean_radius_and_spread():
    space, rows = VoiceSpace.fit(X, source="made up"), np.array(X, np.float64)
    distances = np.linalg.norm(rows - rows.mean(0), axis=1)
    assert np.allclose(np.array(space.mean), rows.mean(0), atol=1e-5)
    assert abs(space.radius - distances.mean()) <= 1e-4 and abs(space.spread - distances.std()) <= 1e-4
    assert (space.count, space.dimension, space.enough) == (32, 64, True)
    assert space.source == {"voices": 32, "from": "made up"}


def test_similarity_is_the_cosine_of_what_is_centred():
    space, rows = VoiceSpace.fit(X), np.array(X, np.float64)
    units = rows - rows.mean(0)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    wanted = units @ units.T
    assert np.allclose(np.array(space.similarity(X, X)), wanted, atol=1e-4)
    assert space.similarity(X[0], X[1]).shape == () and space.similarity(X[0], X).shape == (32,)
    assert np.allclose(np.array(space.similarity(X[:3], X[1])), wanted[:3, 1], atol=1e-4)
    assert abs(space.similarity(Voice(X[0]), np.array(X[1])).item() - wanted[0, 1]) <= 1e-4


def test_a_nuisance_is_ignored():
    """A shift along the span of the labels' means changes nothing; and only that span is ignored."""
    space = VoiceSpace.fit(X, LABELS["emotion"], LABELS["speaker"])
    basis = np.array(space.nuisance)
    assert basis.shape == (3, 64) and np.allclose(basis @ basis.T, np.eye(3), atol=1e-5)
    rows = np.array(X)
    emotion = np.array(LABELS["emotion"])
    means = [rows[emotion == label].mean(0) for label in sorted(set(LABELS["emotion"]))]
    shift = mx.array(means[1] - means[2])
    assert np.allclose(
        np.array(space.similarity(X[0] + 3 * shift, X[5])), np.array(space.similarity(X[0], X[5])), atol=1e-4
    )
    plain = VoiceSpace.fit(X)
    assert abs((plain.similarity(X[0] + 3 * shift, X[5]) - plain.similarity(X[0], X[5])).item()) > 0.05
    assert space.source["nuisance"] == {"e0": 8, "e1": 8, "e2": 8, "e3": 8}


def test_groups_keep_identity_out_of_the_nuisance():
    """Where emotions come from different speakers, the labels' plain means hold the speakers too."""
    had = {"e0": SPEAKERS, "e1": SPEAKERS, "e2": {"s0", "s1", "s2"}, "e3": {"s5", "s6", "s7"}}
    kept = [i for i, emotion in enumerate(LABELS["emotion"]) if LABELS["speaker"][i] in had[emotion]]
    rows, emotions, speakers = X[mx.array(kept)], *([LABELS[k][i] for i in kept] for k in ("emotion", "speaker"))
    true = VoiceSpace.fit(X, LABELS["emotion"], LABELS["speaker"]).nuisance
    overlap = [
        float((np.linalg.svd(np.array(true) @ np.array(found).T, compute_uv=False) ** 2).sum())
        for found in (VoiceSpace.fit(rows, emotions, groups).nuisance for groups in (None, speakers))
    ]
    assert overlap[1] > overlap[0] + 0.2 and overlap[1] > 2.6


def test_too_few_voices_say_so_and_fall_back():
    space = VoiceSpace.fit(X[:9])
    assert not space.enough
    with pytest.warns(UserWarning, match="fitted to 9 voices, 10 are needed: similarities are raw cosines"):
        raw = space.similarity(X[0], X[12])
    a, b = np.array(X[0]), np.array(X[12])
    assert abs(raw.item() - a @ b / np.linalg.norm(a) / np.linalg.norm(b)) <= 1e-5
    with pytest.warns(UserWarning, match="no voice space is given: similarities are raw"):
        assert abs(similarity(X[0], X[12]).item() - raw.item()) <= 1e-6
    assert similarity(X[0], X[12], VoiceSpace.fit(X)).item() < raw.item()


def test_labels_may_be_arrays():
    emotions, speakers = np.array(LABELS["emotion"]), np.array([int(s[1:]) for s in LABELS["speaker"]])
    one = VoiceSpace.fit(X, emotions, mx.array(speakers))
    assert np.allclose(
        np.array(one.nuisance), np.array(VoiceSpace.fit(X, LABELS["emotion"], LABELS["speaker"]).nuisance)
    )
    with pytest.raises(InvalidValue, match="groups has 1 labels"):
        VoiceSpace.fit(X, groups=["a"])


def test_saved_and_loaded(tmp_path):
    space = VoiceSpace.fit(X, LABELS["emotion"], source="a set")
    space.save(tmp_path / "s.safetensors")
    again = VoiceSpace.load(tmp_path / "s.safetensors")
    for name in ("mean", "nuisance"):
        assert np.array_equal(np.array(getattr(again, name)), np.array(getattr(space, name)))
    assert (again.radius, again.spread, again.count, again.source) == (
        space.radius,
        space.spread,
        space.count,
        space.source,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: VoiceSpace.fit(X[0]), "two voices or more, not to shape"),
        (lambda path: VoiceSpace.fit(X[:1]), "two voices or more"),
        (lambda path: VoiceSpace.fit(mx.stack([X[0], X[0]])), "all voices are the same"),
        (lambda path: VoiceSpace.fit(X, ["e0"]), "nuisance has 1 labels for 32 voices"),
        (lambda path: VoiceSpace.fit(X, ["e0"] * 32), "only one label, 'e0', so there is nothing to ignore"),
        (lambda path: VoiceSpace.fit(X, LABELS["emotion"], ["a"]), "groups has 1 labels"),
        (lambda path: VoiceSpace.fit(mx.full((12, 4), float("nan"))), "voices has values that are NaN"),
        (
            lambda path: VoiceSpace.fit(X).similarity(X[0], mx.zeros(8)),
            "the voice has 8 dimensions, the voice space 64",
        ),
        (lambda path: VoiceSpace.load(path / "none.safetensors"), "none.safetensors: no such file"),
        (lambda path: VoiceSpace.load(path / "v.safetensors"), "has no tensor 'mean', only speaker_embedding"),
        (lambda path: VoiceSpace.load(path / "cut.safetensors"), "cut.safetensors"),
        (lambda path: VoiceSpace.load(path / "nan.safetensors"), "tensor mean has values that are NaN"),
        (lambda path: VoiceSpace.load(path / "bare.safetensors"), "metadata are not those of a voice space"),
        (lambda path: VoiceSpace.load(path / "shape.safetensors"), "tensor nuisance has shape"),
        (lambda path: VoiceSpace.load(path / "radius.safetensors"), "radius 0.0 is not above 0"),
        (lambda path: VoiceSpace.fit(X).save(path / "s.npy"), "extension must be .safetensors"),
    ],
)
def test_what_is_refused(call, message, tmp_path):
    from safetensors.numpy import save_file

    Voice(X[0]).save(tmp_path / "v.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "v.safetensors").read_bytes()[:100])
    save_file({"mean": np.full(4, np.nan, np.float32)}, tmp_path / "nan.safetensors")
    save_file({"mean": np.zeros(4, np.float32)}, tmp_path / "bare.safetensors")
    told = {"radius": "0.0", "spread": "1.0", "count": "12", "source": "{}"}
    save_file({"mean": np.zeros(4, np.float32)}, tmp_path / "radius.safetensors", told)
    save_file(
        {"mean": np.zeros(4, np.float32), "nuisance": np.zeros((1, 5), np.float32)}, tmp_path / "shape.safetensors"
    )
    with pytest.raises((InvalidValue, OutputError, VoiceError), match=message):
        call(tmp_path)


def test_retrieval_across_emotions():
    found = retrieval(X, LABELS["speaker"], LABELS["emotion"], NAMES)
    assert found.n == 32 and found.right["nuisance-free"] == 32
    assert found.right["centred"] == 32 - len(found.failures["centred"])
    # every voice's own label alone: nobody has another voice of the same speaker
    assert retrieval(X, NAMES).right == {"raw": 0, "centred": 0}


def test_retrieval_on_real_voices(shared):
    X, names, labels = load(shared)
    found = retrieval(X, labels["speaker"], labels["emotion"], names)
    assert found.right["centred"] == 28 and found.right["nuisance-free"] >= 34
    assert "aiden_anger (dylan_anger)" in str(found) and "centred: 28 of 36" in str(found)
    space = VoiceSpace.fit(X)
    assert 2.2 < space.radius < 2.6


def test_the_same_thing_is_the_same_bytes(tmp_path):
    space = VoiceSpace.fit(X, LABELS["emotion"], source="a set")
    voice = Voice(X[0], metadata=dict.fromkeys("gfedcba", "x"))
    for thing in (space, voice):
        written = set()
        for _ in range(6):
            thing.save(tmp_path / "x.safetensors")
            written.add((tmp_path / "x.safetensors").read_bytes())
        assert len(written) == 1
    assert Voice.load(tmp_path / "x.safetensors").metadata == voice.metadata
