"""One voice stays one where the last two clusters are compared about the centre of other voices."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts import Voice, VoiceSpace
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.diarization import background, diarize
from tests.diarization.conversations import DIMENSION, Known, conversation, directions, residuals, sound, voices
from tests.voices import real

MINIATURE = hub.SHIPPED["miniature"]


def manner(seed, change):
    """(an embedder of one voice in two manners, which lie `change` of its radius apart; a space of other voices)."""
    basis = directions(seed, 3)
    others = voices(seed, 41)
    own, rest = others[0], others[1:]
    vectors = np.stack([own, own + 2.4 * change * basis[0]])
    return Known(vectors, seed, 0.4 * change, basis), VoiceSpace.fit(mx.array(rest))


def test_two_manners_of_one_voice_are_one_and_two_voices_two():
    counts = {"own": [], "background": []}
    for seed in range(8):
        embed, space = manner(seed, 0.2)
        samples = sound(conversation(seed, 2, seconds=40, turn=(2, 5)), seed)
        for name, known in (("own", None), ("background", space)):
            counts[name].append(len(diarize(samples, embed, background=known).speakers))
    assert np.mean(np.array(counts["own"]) == 2) > 0.5, "about their own centre they are opposites"
    assert np.mean(np.array(counts["background"]) == 1) >= 0.95
    for seed in range(4):
        embed, space = manner(seed, 1.4)
        samples = sound(conversation(seed, 2, seconds=40, turn=(2, 5)), seed)
        assert len(diarize(samples, embed, background=space).speakers) == 2


def test_real_vectors_one_stays_one_and_two_two(shared):
    X, _, labels = real.load(shared)
    X, speakers = np.array(X), np.array(labels["speaker"])
    names, noise = sorted(set(speakers)), residuals(X, labels)
    right = {1: [], 2: []}
    for count, runs in ((1, 3), (2, 1)):
        for first in range(len(names)):
            chosen = [names[(first + i) % len(names)] for i in range(count)]
            space = VoiceSpace.fit(mx.array(X[~np.isin(speakers, chosen)]))
            for seed in range(runs):
                turns = conversation(10 * first + seed, count, seconds=30)
                vectors = np.stack([X[speakers == name][seed] for name in chosen])
                found = diarize(sound(turns, seed), Known(vectors, seed, 0.8, noise), background=space)
                right[count].append(len(found.speakers) == count)
    assert all(np.mean(some) >= 0.95 for some in right.values()), right


def test_what_is_packaged_is_a_mean_alone():
    from mlx_qwen3tts.diarization.backgrounds import PACKAGED

    assert set(PACKAGED) == {1024}, "for 2048 there are no vectors to fit one to"
    assert PACKAGED[1024].stat().st_size < 6000
    space = background(1024)
    assert (space.dimension, space.count, space.nuisance) == (1024, 36, None)
    assert background(2048) is None


def test_the_packaged_mean_is_that_of_the_real_vectors(shared):
    assert np.allclose(np.array(background(1024).mean), np.array(real.load(shared)[0]).mean(axis=0), atol=1e-6)


def test_a_models_own_voices_come_first(tmp_path):
    space = background(192, MINIATURE)
    assert (space.dimension, space.count) == (192, 10)
    assert background(192) is None and background(DIMENSION, MINIATURE) is None
    (tmp_path / "voices").mkdir()
    for i in range(9):
        Voice(mx.full((192,), float(i))).save(tmp_path / "voices" / f"{i}.safetensors")
    assert background(192, tmp_path) is None, "too few to fit a mean to"


@pytest.mark.parametrize("name", ["high", "low"])
def test_the_miniatures_recordings_are_of_one_speaker(name):
    from mlx_qwen3tts.checkpoint.speaker import SpeakerEncoder
    from mlx_qwen3tts.diarization import embedder

    embed = embedder(SpeakerEncoder.from_pretrained("miniature").network)
    recording = MINIATURE / "recordings" / f"{name}.flac"
    assert len(diarize(recording, embed, background=background(192, MINIATURE)).speakers) == 1


@pytest.mark.parametrize(("dimension", "said"), [(2048, True), (1024, False)])
def test_the_command_says_where_nothing_is_known_to_compare_with(command, tmp_path, monkeypatch, dimension, said):
    import soundfile

    from mlx_qwen3tts import diarization
    from mlx_qwen3tts.checkpoint import speaker

    vectors = voices(3, 2, dimension)
    monkeypatch.setattr(diarization, "embedder", lambda _: Known(vectors, 3, 0.1))
    real_init = speaker.SpeakerEncoder.__init__

    def init(self, folder):
        real_init(self, folder)
        self.network.dimension = dimension

    monkeypatch.setattr(speaker.SpeakerEncoder, "__init__", init)
    file = tmp_path / "two.wav"
    soundfile.write(file, sound(conversation(5, 2, seconds=20), 5), 24000)
    ran = command("diarize", str(file), "--model", "miniature")
    assert ran.status == 0 and "2 speakers" in ran.err
    assert ("these two may be one" in ran.err) == said
    asked = command("diarize", str(file), "--model", "miniature", "--num-speakers", "2")
    assert "may be one" not in asked.err
