"""A batch speaks each text as it is spoken alone."""

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import recording, vector
from mlx_qwen3tts.errors import InvalidValue, WrongType
from mlx_qwen3tts.networks.codec.decoder import CodecDecoder
from mlx_qwen3tts.networks.talker import Talker
from mlx_qwen3tts.synthesis.speech import Interrupted

TEXTS = ["Hello, the weather is fine today.", "One.", "The user, as is, in the assistant; hello hello hello."]


def same(ours, theirs):
    assert np.array_equal(np.array(ours.codes), np.array(theirs.codes))
    assert np.abs(np.array(ours.audio) - np.array(theirs.audio)).max() <= 1e-5
    assert ours.finish_reason == theirs.finish_reason


@pytest.mark.parametrize("how", [{"greedy": True}, {}, {"top_p": 0.8, "subtalker_top_k": 7}], ids=str)
@pytest.mark.parametrize(
    "name", ["base-ends", *(pytest.param(n, marks=pytest.mark.thorough) for n in ("base", "base-other-shape"))]
)
def test_rows_are_the_single_runs(model, name, how):
    tts = model(name)
    voices = [vector(tts.embedding_dim, seed) for seed in (1, 2, 1)]
    languages, seeds = ["english", "auto", "chinese"], [7, 8, 9]
    rows = tts.generate_batch(TEXTS, voices, languages=languages, seeds=seeds, max_tokens=24, **how)
    for row, text, voice, language, seed in zip(rows, TEXTS, voices, languages, seeds, strict=True):
        same(row, tts.generate(text, voice, language=language, seed=seed, max_tokens=24, **how))
        assert row.stats["seed"] == seed and row.stats["frames"] == len(row.codes)


def test_rows_of_every_kind_go_together(model, tmp_path):
    """In context, by vector, in both layouts: prompts of very different lengths."""
    tts = model("base")
    voices = [tts.clone(recording(tmp_path / "a.wav", 1, 2.3), ref_text="one two"), vector(64, 1), vector(64, 2)]
    modes, how = ["streaming", "full", "streaming"], {"greedy": True, "max_tokens": 12}
    rows = tts.generate_batch(TEXTS, voices, text_modes=modes, **how)
    for row, text, voice, mode in zip(rows, TEXTS, voices, modes, strict=True):
        same(row, tts.generate(text, voice, text_mode=mode, **how))


def test_instructions_and_presets(model):
    design, custom = model("voice-design"), model("custom-voice-1b7")
    for tts, voices in ((design, None), (custom, ["vivian", "ryan"])):
        instructs, how = ["A low voice.", "A warm, slow voice of an old man."], {"greedy": True, "max_tokens": 9}
        rows = tts.generate_batch(TEXTS[:2], voices, instructs=instructs, **how)
        for i, row in enumerate(rows):
            voice = voices and voices[i]
            same(row, tts.generate(TEXTS[i], voice, instruct=instructs[i], **how))


def test_texts_keep_the_numbers_they_are_given(model):
    tts, ended = model("base"), []
    how = {"numbers": [4, 7], "max_tokens": 3, "done": lambda number, speech: ended.append(number)}
    with pytest.warns(UserWarning, match="text 8 did not end"):
        rows = tts.generate_batch(TEXTS[:2], vector(64, 1), **how)
    assert sorted(ended) == [4, 7] and "text 5 did not end" in rows[0].warnings[0]
    with pytest.raises(InvalidValue, match="text 8: language 'x' is not one of"):
        tts.generate_batch(TEXTS[:2], vector(64, 1), languages=["en", "x"], numbers=[4, 7])
    with pytest.raises(InvalidValue, match="numbers has 1 entries for 2 texts"):
        tts.generate_batch(TEXTS[:2], vector(64, 1), numbers=[4])


def test_one_value_serves_every_row(model):
    tts = model("base")
    rows = tts.generate_batch(TEXTS[:1] * 3, vector(64, 1), seeds=4, max_tokens=9)
    for row in rows:
        same(row, tts.generate(TEXTS[0], vector(64, 1), seed=4, max_tokens=9))
    drawn = {row.stats["seed"] for row in tts.generate_batch(TEXTS, vector(64, 1), max_tokens=3)}
    assert len(drawn) == 3, "without seeds each row draws its own"


@pytest.fixture
def calls(monkeypatch):
    """Batch sizes of the talker's calls."""
    sizes, call = [], Talker.__call__

    def counted(self, embeddings, *a, **k):
        sizes.append(embeddings.shape[0])
        return call(self, embeddings, *a, **k)

    monkeypatch.setattr(Talker, "__call__", counted)
    return sizes


def test_the_number_of_talker_calls_does_not_grow_with_the_batch(model, calls):
    tts, counts = model("base"), []
    for rows in (1, 2, 5):
        del calls[:]
        tts.generate_batch(TEXTS[:1] * rows, vector(64, 1), seeds=list(range(rows)), max_tokens=13)
        assert set(calls) == {rows}
        counts.append(len(calls))
    assert counts == [13, 13, 13]


def test_what_has_ended_leaves_the_batch(model, calls):
    tts = model("base-ends")
    rows = tts.generate_batch(TEXTS * 2, vector(64, 1), seeds=list(range(6)), max_tokens=80)
    lengths = [len(row.codes) for row in rows]
    assert len(set(lengths)) > 2, "the rows end at different times"
    # In the call for frame t are the rows that had not ended by frame t - 2, the last that was read before.
    wanted = [6] + [sum(length >= frame - 1 for length in lengths) for frame in range(1, len(calls))]
    assert calls == wanted
    assert len(calls) == max(lengths) + 2 or "length" in {row.finish_reason for row in rows}


def test_the_next_text_joins_when_one_has_ended(model, calls):
    tts, done = model("base-ends"), []
    how = {"seeds": list(range(6)), "max_tokens": 40}
    rows = tts.generate_batch(TEXTS * 2, vector(64, 1), batch_size=2, done=lambda i, s: done.append((i, s)), **how)
    assert max(calls) == 2 and calls.count(1) >= 4, "at most two at once, and those that join are prefilled alone"
    assert sorted(number for number, _ in done) == list(range(6)), "each is told of once"
    assert [number for number, _ in done] != list(range(6)), "in the order in which they end"
    assert all(told is rows[number] for number, told in done)
    for row, alone in zip(rows, tts.generate_batch(TEXTS * 2, vector(64, 1), **how), strict=True):
        same(row, alone)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"texts": "Hello."}, WrongType, "texts must be a list, not str"),
        ({"texts": []}, InvalidValue, "texts is empty"),
        ({"texts": ["Hello.", " "]}, InvalidValue, "text 2: text is empty"),
        ({"voices": [vector(64, 1)]}, InvalidValue, "voices has 1 entries for 3 texts"),
        ({"languages": ["english", "klingon", "auto"]}, InvalidValue, "text 2: language 'klingon'"),
        ({"seeds": [1, 2, -1]}, InvalidValue, "seed -1"),
        ({"batch_size": 0}, InvalidValue, "batch_size 0 is not 1 or more"),
        ({"batch_size": 2.5}, WrongType, "batch_size must be an integer, not 2.5"),
        ({"voices": None}, InvalidValue, "no voice given"),
    ],
    ids=str,
)
def test_bad_arguments(model, given, error, message):
    with pytest.raises(error, match=message):
        model("base").generate_batch(**{"texts": TEXTS, "voices": vector(64, 1), **given})


def test_rows_that_are_cut_are_named(model):
    with pytest.warns(UserWarning, match="text 2 did not end within 5 tokens"):
        model("base").generate_batch(TEXTS, vector(64, 1), greedy=True, max_tokens=5)


def test_ctrl_c_keeps_what_every_row_has_spoken(model):
    tts = model("base")

    def interrupt(steps):
        if steps == 6:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        tts.generate_batch(TEXTS, vector(64, 1), seeds=[1, 2, 3], max_tokens=30, batch_size=2, progress=interrupt)
    assert [len(speech.codes) for speech in stopped.value.speeches] == [6, 6]
    whole = tts.generate(TEXTS[1], vector(64, 1), seed=2, max_tokens=30)
    assert np.array_equal(np.array(stopped.value.speeches[1].codes), np.array(whole.codes)[:6])
    assert {speech.finish_reason for speech in stopped.value.speeches} == {"interrupted"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_padding_is_never_seen(checkpoint, dtype, monkeypatch):
    """A row's logits do not depend on how far it is padded, nor on who is beside it."""
    from mlx_qwen3tts import Qwen3TTS

    tts = Qwen3TTS.from_pretrained(checkpoint("base"), dtype=dtype)
    prompts = [tts.prompt(text, tts.voice(vector(64, 1)), text_mode="full") for text in ("One.", "Hello. " * 30)]
    logits, call = [], Talker.__call__

    def noted(self, *arguments):
        logits.append(call(self, *arguments)[0])
        return logits[-1], mx.zeros((logits[-1].shape[0], 1, 64), logits[-1].dtype)

    monkeypatch.setattr(Talker, "__call__", noted)
    for chosen in (prompts, prompts[:1]):
        tts.generation(chosen, range(len(chosen)), tts.sampling).enqueue()
    ours, theirs = (np.array(rows[0].astype(mx.float32)) for rows in logits)
    assert np.isfinite(ours).all() and np.abs(ours - theirs).max() <= (1e-4 if dtype == "float32" else 0.15)


def test_ctrl_c_while_a_batch_is_decoded(model, monkeypatch):
    """What the interrupted call of the decoder was to decode is decoded again."""
    calls, step = [], CodecDecoder.step

    def interrupted_once(self, codes, state):
        calls.append(codes.shape)
        sound = step(self, codes, state)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sound

    tts, how = model("base"), {"seeds": [1, 2, 3], "max_tokens": 40}
    whole = tts.generate_batch(TEXTS, vector(64, 1), **how)
    monkeypatch.setattr(CodecDecoder, "step", interrupted_once)
    with pytest.raises(Interrupted) as stopped:
        tts.generate_batch(TEXTS, vector(64, 1), **how)
    assert stopped.value.numbers == [0, 1, 2]
    for made, row in zip(stopped.value.speeches, whole, strict=True):
        assert 0 < len(made.codes) < len(row.codes) and made.audio.shape[0] == 1920 * len(made.codes)
        assert np.abs(np.array(made.audio) - np.array(row.audio)[: made.audio.shape[0]]).max() <= 1e-5


def test_ctrl_c_before_a_later_batch_has_spoken_keeps_the_first(model):
    def interrupt(number, _):
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        model("base").generate_batch(TEXTS, vector(64, 1), max_tokens=9, batch_size=2, done=interrupt)
    assert len(stopped.value.speeches) == 2
