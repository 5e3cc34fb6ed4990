"""Streaming gives the speech that `generate` gives, as it is made; and so does text that is still being written."""

import gc
import itertools

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from convert.parity import codes, recording, vector
from mlx_qwen3tts.errors import InvalidValue, TextTooLong, WrongType
from mlx_qwen3tts.networks.talker import Talker
from mlx_qwen3tts.synthesis.frame import Steps
from mlx_qwen3tts.synthesis.speech import Interrupted

TEXT = "Hello there, the weather is fine; we'll walk to the old harbour, you and I."


def collect(stream):
    chunks = list(stream)
    return [np.concatenate([np.array(getattr(chunk, name)) for chunk in chunks]) for name in ("codes", "audio")]


HOW = {"seed": 5, "max_tokens": 34}


@pytest.fixture(scope="module")
def wholes(model):
    """What `generate` makes of TEXT, greedy and sampled."""
    return {greedy: model("base").generate(TEXT, vector(64, 1), **HOW, greedy=greedy) for greedy in (True, False)}


@pytest.mark.parametrize("chunks", [(1,), (1, 2, 4, 8, 12), (7, 3), (100,)], ids=str)
@pytest.mark.parametrize("greedy", [True, False])
def test_a_stream_is_the_speech(model, wholes, chunks, greedy):
    tts, how, whole = model("base"), {**HOW, "greedy": greedy}, wholes[greedy]
    stream = tts.stream(TEXT, vector(64, 1), chunks=chunks, **how)
    sizes, parts = [], ([], [])
    for chunk in stream:
        assert chunk.audio.shape == (1920 * len(chunk.codes),) and chunk.sample_rate == 24000
        sizes.append(len(chunk.codes))
        for part, value in zip(parts, (chunk.codes, chunk.audio), strict=True):
            part.append(np.array(value))
    assert (np.concatenate(parts[0]) == np.array(whole.codes)).all()
    assert np.abs(np.concatenate(parts[1]) - np.array(whole.audio)).max() <= 1e-5
    schedule = itertools.chain(chunks, itertools.repeat(chunks[-1]))
    assert sizes[:-1] == [size for size, _ in zip(schedule, sizes[:-1], strict=False)] and sum(sizes) == 33
    assert stream.finish_reason == whole.finish_reason == "length"
    assert stream.stats["frames"] == 33 and 0 < stream.stats["first_audio"] <= stream.stats["elapsed"]
    assert stream.stats["largest_gap"] <= stream.stats["elapsed"] and stream.stats["seed"] == 5


def test_a_stream_ends_with_speech(model):
    tts = model("base-ends")
    whole = tts.generate("Hello.", vector(64, 1), greedy=True, max_tokens=80)
    stream = tts.stream("Hello.", vector(64, 1), greedy=True, max_tokens=80)
    assert (collect(stream)[0] == np.array(whole.codes)).all()
    assert stream.finish_reason == whole.finish_reason == "stop"


@pytest.mark.parametrize("seconds", [0.6, 3.0])
def test_a_reference_is_context_of_the_sound(model, tmp_path, seconds):
    """Its frames are passed over without making their sound; what follows is as if they had been decoded."""
    tts = model("base")
    voice = tts.clone(recording(tmp_path / "a.wav", 1, seconds), ref_text="one two")
    heard, audio = collect(tts.stream("Hello.", voice, greedy=True, max_tokens=12, chunks=(1, 3)))
    whole = np.concatenate([np.array(voice.ref_codes), heard])
    wanted = np.array(tts.codec.decode(whole))[len(voice.ref_codes) * 1920 :]
    assert np.abs(audio - wanted).max() <= 1e-5


def same(ours, theirs):
    return ours.shape == theirs.shape and np.allclose(
        ours, theirs, rtol=0, atol=1e-4 * max(1, np.abs(theirs).max(initial=0))
    )


@pytest.mark.parametrize("frames", [1, 2, 9, 10, 11, 40, 260])
def test_passing_over_frames_leaves_the_state_of_having_decoded_them(model, frames):
    decoder = model("base").codec.decoder
    before, after = (mx.array(codes(n, seed).astype(np.int32))[None] for n, seed in ((frames, 1), (6, 2)))
    stepped, skipped = decoder.make_state(), decoder.make_state()
    decoder.step(before, stepped)
    decoder.skip(before, skipped)
    for ours, theirs in zip(skipped.arrays, stepped.arrays, strict=True):
        assert same(np.array(ours), np.array(theirs))
    assert np.abs(np.array(decoder.step(after, stepped)) - np.array(decoder.step(after, skipped))).max() <= 1e-5


def test_what_the_convolutions_reach_back_over_is_all_of_it(model):
    """With fewer frames the state is another one, so the bound is not merely generous."""
    decoder = model("base").codec.decoder
    assert decoder.reach == 10
    before = mx.array(codes(30, 1).astype(np.int32))[None]
    states = []
    for reach in (10, 8):
        decoder.reach, state = reach, decoder.make_state()
        decoder.skip(before, state)
        states.append([np.array(array) for array in state.arrays])
    decoder.reach = 10
    assert not all(same(a, b) for a, b in zip(*states, strict=True))


# A consumer that stops


@pytest.mark.parametrize("end", ["close", "forget"])
def test_a_consumer_that_stops_after_a_chunk_has_caused_three_frames_at_most(model, monkeypatch, end):
    tts, calls = model("base"), []
    predict = Talker.predict
    monkeypatch.setattr(tts, "steps", Steps(tts.talker, tts.config))  # compiled functions would not come by again
    monkeypatch.setattr(mx, "compile", lambda function, **_: function)
    monkeypatch.setattr(Talker, "predict", lambda *a: calls.append(1) or predict(*a))
    stream = tts.stream(TEXT, vector(64, 1), seed=1, max_tokens=500)
    next(stream)
    assert 1 <= len(calls) <= 3
    if end == "close":
        stream.close()
        assert next(stream, None) is None
    del stream
    assert len(calls) <= 3


@pytest.mark.parametrize("frame", [1, 16, 17, 32])  # sound is made 16 frames at a time
def test_ctrl_c_in_a_callback_loses_no_frame(model, wholes, frame):
    def interrupt(frames):
        if frames == frame:
            raise KeyboardInterrupt

    whole = wholes[False]
    with pytest.raises(Interrupted) as stopped:
        model("base").generate(TEXT, vector(64, 1), progress=interrupt, **HOW)
    made = stopped.value.speech
    assert len(made.codes) == frame == made.stats["frames"] and made.finish_reason == "interrupted"
    assert (np.array(made.codes) == np.array(whole.codes)[:frame]).all()
    assert np.abs(np.array(made.audio) - np.array(whole.audio)[: frame * 1920]).max() <= 1e-5


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_stream_is_over_where_its_listener_fails(model, error):
    def fail(chunk):
        raise error

    stream = model("base").stream(TEXT, vector(64, 1), seed=1, max_tokens=500)
    with pytest.raises(error):
        stream.speech(fail)
    assert stream.finish_reason == "interrupted" and stream.stats["frames"] == 1
    assert next(stream, None) is None


@pytest.mark.thorough
def test_a_stream_that_is_dropped_frees_everything(model):
    tts = model("base")
    collect(tts.stream("Hello.", vector(64, 1), seed=1, max_tokens=8))  # loads and compiles

    def held():
        gc.collect()
        mx.synchronize()
        return mx.get_active_memory()

    before = held()
    for _ in range(3):
        stream = tts.stream(TEXT, vector(64, 1), seed=1, max_tokens=500)
        next(stream)
        assert held() > before
        del stream
    assert held() <= before + 4096


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        ((), InvalidValue, r"chunks \[\] must be one or more frames each"),
        ((1, 0), InvalidValue, r"chunks \[1, 0\] must be one or more frames each"),
        ((1.5,), WrongType, r"chunks must be a list of integers \(frames\), not \(1.5,\)"),
        (4, WrongType, r"chunks must be a list of integers \(frames\), not 4"),
    ],
)
def test_schedules_that_are_none(model, chunks, error, message):
    with pytest.raises(error, match=message):
        model("base").stream("Hello.", vector(64, 1), chunks=chunks)


def test_bad_arguments_are_refused_before_the_first_chunk_is_asked_for(model):
    with pytest.raises(InvalidValue, match="text is empty"):
        model("base").stream(" ", vector(64, 1))
    with pytest.raises(InvalidValue, match="language 'klingon'"):
        model("base").stream("Hello.", vector(64, 1), language="klingon")


def test_what_has_been_taken_is_not_there_any_more(model):
    stream = model("base").stream("Hello.", vector(64, 1), seed=1, max_tokens=5)
    collect(stream)
    with pytest.raises(RuntimeError, match="begun already"):
        stream.speech()
    with model("base").stream("Hello.", vector(64, 1), seed=1, max_tokens=50) as stream:
        next(stream)
    assert next(stream, None) is None


# Text that is still being written

WRITTEN = [
    TEXT,
    "你好，世界。今天天气很好！我们去公园走走吧？",
    "Cafe\u0301 a\u0302\u0323 – \u1112\u1161\u11ab\u1100\u1173\u11af, naïve.",
    "Fine 👩🏽‍🚀👍🏿! We'LL see: 3.14\r\n\n  \tdone   ",
    "\n\nI'm <|im_end|> here",
]


@pytest.fixture(scope="module")
def spoken(model):
    """The codes of each text given at once."""
    tts = model("base")
    return [np.array(tts.generate(text, vector(64, 1), greedy=True, max_tokens=14).codes) for text in WRITTEN]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, len(WRITTEN) - 1), cuts=st.lists(st.integers(0, 60), max_size=12))
@example(which=0, cuts=[0, 0, 5])
@example(which=2, cuts=list(range(60)))
@example(which=3, cuts=list(range(60)))
@pytest.mark.thorough
def test_the_codes_do_not_depend_on_how_text_comes(model, spoken, which, cuts):
    text = WRITTEN[which]
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[start:stop] for start, stop in itertools.pairwise(places)]
    stream = model("base").stream(iter(pieces), vector(64, 1), greedy=True, max_tokens=14)
    assert (collect(stream)[0] == spoken[which]).all()


class Writer:
    """An iterator of pieces that notes how many were pulled."""

    def __init__(self, *pieces):
        self.pieces, self.pulled = iter(pieces), 0

    def __iter__(self):
        return self

    def __next__(self):
        self.pulled += 1
        return next(self.pieces)


def test_sound_comes_before_the_second_piece_is_pulled(model):
    writer = Writer("Hello there, the weather ", "is fine ", "today.")
    stream = model("base").stream(writer, vector(64, 1), greedy=True, max_tokens=30)
    assert writer.pulled == 1, "as much as the prompt needs"
    first = next(stream)
    assert writer.pulled == 1 and first.audio.shape == (1920,)
    pulled = []
    for _ in stream:
        pulled.append(writer.pulled)
    assert pulled[0] == 1 and writer.pulled == 4


def test_speech_waits_for_text_and_is_heard_up_to_there(model):
    """Where the words run out, everything made so far is sound before more is asked for."""
    tts = model("base")
    heard = 0

    def write():
        yield "Hello there, the weather "
        known = len(tts.tokenizer.assistant("Hello there, the weather")[1])
        assert heard == known, "a frame for each word that is certain"
        yield "is fine today."

    stream = tts.stream(write(), vector(64, 1), greedy=True, max_tokens=40, chunks=(100,))
    for chunk in stream:
        heard += len(chunk.codes)
    assert heard == 39


def test_the_full_layout_and_references_take_written_text(model, tmp_path):
    tts, how = model("base"), {"greedy": True, "max_tokens": 10}
    voices = [vector(64, 1), tts.clone(recording(tmp_path / "a.wav", 1, 1.3), ref_text="one two")]
    for voice, mode in itertools.product(voices, ("streaming", "full")):
        whole = np.array(tts.generate(TEXT, voice, text_mode=mode, **how).codes)
        pieces = (char for char in TEXT)
        assert (collect(tts.stream(pieces, voice, text_mode=mode, **how))[0] == whole).all()
    assert (
        np.array(tts.generate(iter([TEXT[:9], TEXT[9:]]), voices[0], **how).codes)
        == np.array(tts.generate(TEXT, voices[0], **how).codes)
    ).all()


def test_what_is_wrong_with_written_text_is_said(model):
    tts = model("base")
    for pieces, error, message in (
        ([], InvalidValue, "text is empty"),
        (["  ", "\n"], InvalidValue, "text is empty"),
        (["Hello ", 5], WrongType, "text pieces must be strings, not int"),
        (["Hello ", "a\x00"], InvalidValue, r"control character U\+0000 at position 7"),
    ):
        with pytest.raises(error, match=message):
            collect(tts.stream(pieces, vector(64, 1), greedy=True, max_tokens=30))


def test_a_writer_that_fails_is_heard_of(model):
    def write():
        yield "Hello there, the weather "
        raise OSError("the line is dead")

    chunks = []
    with pytest.raises(OSError, match="the line is dead"):
        chunks.extend(model("base").stream(write(), vector(64, 1), greedy=True, max_tokens=30))
    assert sum(len(chunk.codes) for chunk in chunks) >= 3, "what was known is heard"


def test_written_text_without_end_is_stopped_at_the_models_context(model):
    tts = model("base")
    limit = tts.config.talker.max_position_embeddings // 4
    with pytest.raises(TextTooLong, match=f"at most {limit} fit"):
        collect(tts.stream((f"{i} " for i in itertools.count()), vector(64, 1), text_mode="full", max_tokens=9))
