"""The guard: each way in which speech goes wrong is found, spoken again with a recorded seed, and marked in the end."""

import json
import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from benchmarks import guard
from convert.parity import vector
from mlx_qwen3tts import Request, Sampling
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.errors import InvalidValue, WrongType
from mlx_qwen3tts.synthesis import planning, watch
from mlx_qwen3tts.synthesis.live import Feed
from mlx_qwen3tts.synthesis.resuming import identities
from mlx_qwen3tts.synthesis.speech import Interrupted
from mlx_qwen3tts.synthesis.watch import CHECKS, silent_codes
from tests.dictation import FAULTS, FLOOR, GOOD, QUIET, TEXT, dictated, first_codes

RECORDED = Path(__file__).parent / "assets" / "guard.npz"
VOICE = hub.SHIPPED["miniature"] / "voices" / "voice01.safetensors"
GUARDED = (6, 7)  # seeds of the retries


@pytest.fixture(scope="module")
def tts(model):
    return model("base")


def asked(seed=5, guard=GUARDED, **options):
    return Request(TEXT, vector(64, 1), seed=seed, guard=guard, **options)


@pytest.fixture(scope="module")
def plain(tts):
    """What is good, unguarded."""
    with dictated(tts, {}):
        return tts.generate(asked(6, False))


def seeds(speech):
    return [(attempt.seed, attempt.failed) for attempt in speech.attempts]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_spoken_again(tts, plain, fault):
    check, codes = FAULTS[fault]
    with dictated(tts, {5: codes}) as dictation:
        speech = tts.generate(asked())
    assert dictation.begun == [5, 6]
    assert seeds(speech) == [(5, check), (6, None)] and speech.failed is None
    assert (speech.finish_reason, speech.stats["seed"], speech.warnings) == ("stop", 6, ())
    assert first_codes(speech) == GOOD and speech.stats["frames"] == len(GOOD)
    assert np.array_equal(speech.audio, plain.audio) and mx.array_equal(speech.codes, plain.codes)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.thorough
def test_what_fails_three_times_is_kept_and_marked(tts, fault):
    check, codes = FAULTS[fault]
    with dictated(tts, dict.fromkeys((5, 6, 7), codes)) as dictation, pytest.warns(UserWarning) as warned:
        speech = tts.generate(asked())
    assert dictation.begun == [5, 6, 7] and [seed for seed, _ in seeds(speech)] == [5, 6, 7]
    found = {failed for _, failed in seeds(speech)}
    assert speech.failed in found and check in found and len(speech.audio) == 1920 * len(speech.codes)
    assert re.match(r"the speech failed the guard \(seed 5: it .*; what is kept has seed \d", str(warned[0].message))
    kept = {
        "never ends": ("guard", codes[:FLOOR]),
        "silence at the start": ("stop", codes),
        "nothing but silence": ("guard", codes[:FLOOR]),
        "silence inside": ("guard", codes[: len(GOOD) + 3]),
        "one sound for ever": ("guard", codes[:10]),
        "the same frames again and again": ("guard", codes[:9]),
    }
    reason, wanted = kept.get(fault, ("stop", codes))
    silent = sorted(tts.planner.silent)[0]
    assert speech.finish_reason == reason
    assert first_codes(speech) == [silent if code == QUIET else code for code in wanted]


def test_the_best_attempt_is_kept(tts):
    said = {5: FAULTS["never ends"][1], 6: FAULTS["silence inside"][1], 7: FAULTS["too short"][1]}
    with dictated(tts, said), pytest.warns(UserWarning, match="what is kept has seed 6"):
        speech = tts.generate(asked())
    assert speech.failed == "silence_inside" and first_codes(speech)[: len(GOOD)] == GOOD
    assert speech.stats["seed"] == 6 and speech.stats["seconds"] == pytest.approx(0.08 * len(speech.codes))


def test_silence_within_bounds_is_speech(tts):
    for said in ([QUIET] * 3 + GOOD + [QUIET] * 7 + GOOD[:3], GOOD + [QUIET] * 14):
        with dictated(tts, {5: said}):
            assert seeds(tts.generate(asked())) == [(5, None)]


def test_a_seed_that_is_drawn_is_recorded(tts, monkeypatch):
    monkeypatch.setattr(planning.secrets, "randbits", lambda bits: 2**32 - 2)
    with dictated(tts, dict.fromkeys((2**32 - 2, 2**32 - 1), GOOD[:2])) as dictation:
        speech = tts.generate(TEXT, vector(64, 1), guard=True)
    assert dictation.begun == [2**32 - 2, 2**32 - 1, 0] and speech.stats["seed"] == 0


@pytest.mark.parametrize(("given", "named"), [({"seed": 5}, "seed"), ({"max_tokens": 200}, "max_tokens")])
def test_it_is_off_where_a_seed_or_a_limit_is_given(tts, monkeypatch, given, named):
    monkeypatch.setattr(planning.secrets, "randbits", lambda bits: 5)
    fault = GOOD + [30] * 30
    with dictated(tts, {5: fault}), pytest.warns(UserWarning, match=f"the guard is off, as {named} is given"):
        speech = tts.generate(TEXT, vector(64, 1), guard=True, **given)
    assert len(speech.codes) == len(fault) and speech.attempts == () and speech.failed is None
    assert asked(sampling=Sampling(max_tokens=9)).retries(5) is None


def test_in_a_batch_others_are_as_they_are(tts):
    texts = [Request(TEXT, vector(64, 1), seed=seed, guard=(seed + 1, seed + 2)) for seed in (10, 20, 30, 40)]
    with (
        dictated(tts, {20: FAULTS["never ends"][1], 40: GOOD[:1], 41: GOOD[:1], 42: GOOD[:2]}),
        pytest.warns(UserWarning, match="text 4 failed the guard"),
    ):
        made = tts.generate_batch(texts, batch_size=2)
        each = {}
        tts.generate_each(texts, each.__setitem__, batch_size=3)
    for speeches in (made, [each[number] for number in range(4)]):
        assert [speech.stats["seed"] for speech in speeches] == [10, 21, 30, 40]
        assert [speech.failed for speech in speeches] == [None, None, None, "too_short"]
        assert all(first_codes(speech) == GOOD for speech in speeches[:3])


def test_a_stream_is_spoken_again_before_it_is_heard(tts):
    late, good = FAULTS["silence at the start"][1], [QUIET] * 3 + GOOD
    with dictated(tts, {5: late, 6: good}):
        stream = tts.stream(asked())
        chunks = list(stream)
        assert np.concatenate([np.array(chunk.codes)[:, 0] for chunk in chunks])[3:].tolist() == GOOD
        assert [len(chunk.codes) for chunk in chunks][:3] == [1, 2, 4]
        assert (stream.finish_reason, stream.failed, stream.stats["seed"]) == ("stop", None, 6)
        assert [attempt.seed for attempt in stream.attempts] == [5, 6]
        whole = tts.generate(asked(6, False))
    assert np.abs(np.concatenate([np.array(chunk.audio) for chunk in chunks]) - np.array(whole.audio)).max() <= 1e-5


def test_a_stream_that_goes_wrong_while_it_is_heard_ends(tts):
    with dictated(tts, {5: FAULTS["silence inside"][1]}) as dictation, pytest.warns(UserWarning, match="seed 5"):
        stream = tts.stream(asked())
        codes = np.concatenate([np.array(chunk.codes)[:, 0] for chunk in stream])
    assert dictation.begun == [5] and (stream.finish_reason, stream.failed) == ("guard", "silence_inside")
    assert codes[: len(GOOD)].tolist() == GOOD and len(codes) < len(GOOD) + 12


def test_a_text_that_is_still_written_counts_as_it_comes(tts):
    feed = Feed()
    for piece in (TEXT[:10], TEXT[10:]):
        feed.write(piece)
    feed.close()
    with dictated(tts, {5: GOOD[:4]}):  # enough for ten letters, not for all
        speech = tts.generate(Request(feed, vector(64, 1), seed=5, guard=GUARDED))
    assert seeds(speech) == [(5, "too_short"), (6, None)] and first_codes(speech) == GOOD


def test_what_waits_for_text_is_heard_first(tts):
    made, heard, told = [0], [0], []

    def pieces():
        yield TEXT[:20]
        told.append((made[0], heard[0]))
        yield TEXT[20:]

    request = Request(pieces(), vector(64, 1), seed=5, guard=GUARDED)
    with dictated(tts, {5: [QUIET] * 3 + GOOD}):
        for chunk in tts.stream(request, progress=lambda frames: made.__setitem__(0, frames)):
            heard[0] += len(chunk.codes)
    assert told[0][0] == told[0][1] > 4 and heard[0] == 3 + len(GOOD)


def test_ctrl_c_keeps_what_the_attempt_has(tts):
    def stop(frames):
        if frames == 5:
            raise KeyboardInterrupt

    with dictated(tts, {}), pytest.raises(Interrupted) as stopped:
        tts.generate(asked(), progress=stop)
    assert first_codes(stopped.value.speech) == GOOD[:5] and stopped.value.speech.failed is None


def test_a_text_too_long_for_max_tokens_is_not_tried_again(tts, monkeypatch):
    monkeypatch.setattr(tts.planner, "sampling", tts.sampling.override(max_tokens=20))
    endless = FAULTS["never ends"][1]
    with dictated(tts, {5: endless, 7: endless}), pytest.warns(UserWarning, match="raise max_tokens or split"):
        long = Request(f"{TEXT} " * 3, vector(64, 1), seed=5, guard=GUARDED)
        assert seeds(tts.generate(long)) == [(5, None)]
    with dictated(tts, {5: endless}):
        assert seeds(tts.generate(Request("Hi.", vector(64, 1), seed=5, guard=GUARDED)))[0] == (5, "too_long")


def test_what_is_refused_and_what_it_is_made_from(tts):
    with pytest.raises(WrongType, match="guard must be true, false or a list of seeds"):
        asked(guard="yes")
    with pytest.raises(InvalidValue, match="seed"):
        asked(guard=[-1])
    with pytest.raises(InvalidValue, match="guard cannot retry morph_mode 'sentences'"):
        Request(TEXT, vector(64, 1), guard=True, morph=vector(64, 2), morph_mode="sentences")
    plain, guarded, other = identities(tts, [asked(guard=False), asked(), asked(guard=(8, 9))])
    assert len({plain, guarded, other}) == 3


def test_silence_is_heard_once_and_the_encoder_let_go_of(checkpoint):
    from mlx_qwen3tts.checkpoint.codec import Codec

    codec = Codec(checkpoint("base") / "speech_tokenizer")
    silent = silent_codes(codec)
    assert silent and "encoder" not in vars(codec)
    assert codec.encoder and silent_codes(codec) == silent


@pytest.fixture(scope="module")
def recorded():
    """(good utterances, silent codes) that the miniature spoke; benchmarks/guard.py made the file."""
    made, silent = guard.read(RECORDED)
    return [one for one in made if one.good], silent


def test_false_alarms_on_two_thousand_good_utterances(recorded):
    good, silent = recorded
    found = [guard.judge(one.codes, one.tokens, one.letters, silent) for one in good]
    assert len(good) >= 2000 and sum(map(bool, found)) <= 0.005 * len(good)
    slowest = max(len(one.codes) / one.tokens for one in good if one.tokens >= 8)
    assert 2 * slowest < 12 and min(one.pace for one in good) == -1


def test_faults_in_good_utterances_are_found(recorded):
    good, silent = recorded
    least = {"silence": 1, "frames again": 0.85, "without an end": 1, "1/6": 0.95}
    for name, cases in guard.faults(good[::10], silent).items():
        caught = np.mean([guard.judge(*case, silent) is not None for case in cases])
        assert caught >= next((share for word, share in least.items() if word in name), 0), (name, caught)
    assert set(CHECKS) == {failed for failed, _ in FAULTS.values()}


def test_generate_marks_what_failed_by_its_exit_status(command, tmp_path, monkeypatch):
    (tmp_path / "lines.txt").write_text("Hello.\nYes.\n")
    say = ("generate", "--model", "miniature", "--dtype", "float32", "--guard", "--json", "--voice", VOICE)
    ran = command(*say, "Hello.")
    told = json.loads(ran.out)
    assert ran.status == 0 and told["failed"] is None and told["attempts"] == [{"seed": told["seed"], "failed": None}]
    monkeypatch.setattr(watch, "LETTERS", 0.01)  # no speech has that many frames
    ran = command(*say, "--batch-size", "2", "--text-file", "lines.txt")
    rows = json.loads(ran.out)["texts"]
    assert ran.status == 3 and [row["failed"] for row in rows] == ["too_short"] * 2
    assert all(len(row["attempts"]) == 3 for row in rows) and (tmp_path / "out" / "0002.wav").is_file()
    assert "warning: text 2 failed the guard (seed " in ran.err
    ran = command(*say, "Hello.", "--seed", "1")
    assert ran.status == 0 and "warning: the guard is off, as seed is given" in ran.err
