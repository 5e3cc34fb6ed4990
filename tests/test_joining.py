"""Rows join and leave a running batch, and each speaks what it speaks alone."""

import random

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import codes, recording, vector
from mlx_qwen3tts import Voice
from mlx_qwen3tts.networks.codec.decoder import State
from mlx_qwen3tts.synthesis.decoding import MOST, Decoding, Part, Utterance
from mlx_qwen3tts.synthesis.frame import FrameStep, Steps, bucket
from mlx_qwen3tts.synthesis.morph import Morph, path

TEXTS = [
    "One.",
    "Hello, the weather is fine today.",
    "The user, as is, in the assistant; hello hello hello.",
    "You and I will walk to the old harbour, if the rain has stopped by then, and stay there until it is dark. " * 3,
]
HOWS = [{}, {"greedy": True}, {"top_p": 0.8, "subtalker_top_k": 7, "temperature": 0.7}]


def plans(tts, count, seed, longest):
    """(prompt, seed, config) of rows that differ in text, voice, layout, length and sampling."""
    chosen = random.Random(seed)
    made = []
    for number in range(count):
        voice = tts.voice(vector(tts.embedding_dim, chosen.randrange(3)))
        layout = chosen.choice(["streaming", "full"])
        prompt = tts.prompt(chosen.choice(TEXTS), voice, text_mode=layout)
        how = {**chosen.choice(HOWS), "max_tokens": chosen.randrange(3, longest)}
        made.append((prompt, number, tts.sampling.override(**how)))
    return made


def alone(tts, prompt, seed, config):
    """(codes [frames, codebooks], how it ended) of a row by itself."""
    frames = list(tts.generation([prompt], [seed], config))
    return np.concatenate([np.array(frame.codes) for frame in frames]), frames[-1].ended[0]


@pytest.mark.parametrize(
    ("seed", "count", "longest"), [(0, 7, 22), *(pytest.param(n, 9, 40, marks=pytest.mark.thorough) for n in range(3))]
)
@pytest.mark.parametrize("name", ["base", "base-other-shape", "base-ends"])
def test_who_joins_and_leaves_changes_nothing_for_the_others(model, name, seed, count, longest):
    tts, chosen = model(name), random.Random(100 + seed)
    waiting = plans(tts, count, seed, longest)
    wanted = [alone(tts, *plan) for plan in waiting]
    generation = tts.generation([], [], tts.sampling)
    numbers, spoken, ended, removed = {}, {}, {}, set()
    waiting = list(enumerate(waiting))
    while waiting or len(ended) + len(removed) < len(wanted):
        while waiting and (chosen.random() < 0.3 or not numbers.keys() - ended.keys() - removed):
            which, plan = waiting.pop(0)
            numbers[which] = generation.insert(*plan)
            spoken[numbers[which]] = []
        if chosen.random() < 0.03 and len(numbers) > 2:
            going = [which for which in numbers if which not in ended and which not in removed]
            if going:
                removed.add(gone := chosen.choice(going))
                generation.remove(numbers[gone])
        frame = generation.step()
        if frame is None:
            continue
        assert len(frame.rows) == len(frame.codes)
        for place, row in enumerate(frame.rows):
            spoken[row].append(np.array(frame.codes[place]))
        ended |= {which: frame.ended[row] for which, row in numbers.items() if row in frame.ended}
    assert generation.step() is None
    for which, (codes_alone, how) in enumerate(wanted):
        got = np.array(spoken[numbers[which]]).reshape(-1, codes_alone.shape[1])
        assert (got == codes_alone[: len(got)]).all()
        if which not in removed:
            assert len(got) == len(codes_alone) and ended[which] == how
    assert len(removed) < len(wanted)


def test_the_cache_gives_back_what_only_those_who_left_needed(model):
    """A short row that outlives a long prompt lies at its own positions afterwards."""
    tts = model("base")
    voice = tts.voice(vector(64, 1))
    long, short = (tts.prompt(text, voice, text_mode="full") for text in (TEXTS[3], TEXTS[0]))
    generation = tts.generation([], [], tts.sampling)
    generation.insert(long, 1, tts.sampling.override(max_tokens=4))
    generation.insert(short, 2, tts.sampling.override(max_tokens=12))
    for _ in range(8):
        generation.step()
    assert generation.padding == [0]
    assert generation.caches[0].offset < long.embeddings.shape[0]


def test_a_changing_voice_keeps_its_row_to_itself(model):
    tts = model("base")
    voice = tts.voice(vector(64, 1))
    at = path(mx.array(vector(64, 1)), mx.array(vector(64, 2)), 10)
    config = tts.sampling.override(max_tokens=14)
    prompts = [tts.prompt(text, voice) for text in TEXTS[:3]]
    morph = Morph(tts.talker, prompts[1], at)
    changing = tts.generation([morph.prompt], [8], config, morph)
    wanted = [alone(tts, prompts[0], 7, config)[0], np.concatenate([np.array(f.codes) for f in changing])]
    wanted.append(alone(tts, prompts[2], 9, config)[0])
    assert (wanted[1] != alone(tts, prompts[1], 8, config)[0]).any()
    generation = tts.generation(prompts[:1], [7], config)
    generation.step()
    generation.insert(morph.prompt, 8, config, morph)
    generation.step()
    generation.insert(prompts[2], 9, config)
    spoken = {0: list(wanted[0][:2]), 1: [], 2: []}
    for frame in generation:
        for place, row in enumerate(frame.rows):
            spoken[row].append(np.array(frame.codes[place]))
    assert (np.array(spoken[1]) == wanted[1]).all() and (np.array(spoken[2]) == wanted[2]).all()
    assert (np.array(spoken[0]) == wanted[0]).all()


@pytest.mark.parametrize("fails", ["text", "voice"])
def test_a_row_that_fails_can_be_removed_and_the_others_speak_on(model, fails):
    tts, config = model("base"), model("base").sampling.override(max_tokens=12)
    voice = tts.voice(vector(64, 1))

    def pieces():
        yield "Hello, the weather "
        raise ZeroDivisionError

    def voice_at(frame):
        return voice.embedding if frame < 6 else mx.array([1 / 0])

    prompt = tts.prompt(pieces() if fails == "text" else TEXTS[2], voice)
    failing = Morph(tts.talker, prompt, voice_at) if fails == "voice" else None
    wanted = [alone(tts, tts.prompt(TEXTS[1], voice), seed, config)[0] for seed in (7, 9)]
    generation = tts.generation([tts.prompt(TEXTS[1], voice)], [7], config)
    failed = generation.insert(failing.prompt if failing else prompt, 8, config, failing)
    last = generation.insert(tts.prompt(TEXTS[1], voice), 9, config)
    spoken, failures = {0: [], failed: [], last: []}, 0
    while True:
        try:
            frame = generation.step()
        except ZeroDivisionError:
            failures += 1
            generation.remove(failed)
            continue
        if frame is None:
            break
        for place, row in enumerate(frame.rows):
            spoken[row].append(np.array(frame.codes[place]))
    assert failures == 1 and spoken[failed]
    for row, codes_alone in zip((0, last), wanted, strict=True):
        assert (np.array(spoken[row]) == codes_alone).all()


def test_a_function_is_compiled_once_for_a_bucket(model, monkeypatch):
    tts, traced = model("base"), []
    make = FrameStep.trace
    monkeypatch.setattr(
        FrameStep, "trace", lambda self, logits, *rest: traced.append(len(logits)) or make(self, logits, *rest)
    )
    monkeypatch.setattr(tts, "steps", Steps(tts.talker, tts.config))
    config, voice = tts.sampling.override(max_tokens=17), tts.voice(vector(64, 1))
    generation = tts.generation([], [], config)
    for seed in range(7):
        generation.insert(tts.prompt(TEXTS[0], voice), seed, config)
        generation.step()
        generation.step()
    for _ in generation:
        pass
    assert traced == [1, 2, 4, 8]
    assert [bucket(rows) for rows in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 4, 4, 8, 8, 16]


# Their sound


@pytest.mark.parametrize("ages", [(0, 0, 0), (0, 3, 90), (5, 71, 72, 200)], ids=str)
def test_streams_of_different_ages_are_decoded_in_one_call(model, ages):
    decoder = model("base").codec.decoder
    spoken = [mx.array(codes(age + 7, seed).astype(np.int32)) for seed, age in enumerate(ages)]
    states, together = [], []
    for own, age in zip(spoken, ages, strict=True):
        states.append(decoder.make_state())
        if age:
            decoder.step(own[None, :age], states[-1])
    for first, last in ((0, 4), (4, 7)):
        state = State.stack(states)
        cut = [own[age + first : age + last] for own, age in zip(spoken, ages, strict=True)]
        together.append(np.array(decoder.step(mx.stack(cut), state)))
        states = state.rows(len(ages))
    sound = np.concatenate(together, axis=1)
    for own, age, heard, state in zip(spoken, ages, sound, states, strict=True):
        single = decoder.make_state()
        wanted = np.array(decoder.step(own[None], single))[0]
        assert np.abs(heard - wanted[age * 1920 :]).max() <= 1e-5
        assert [array.shape for array in state.arrays] == [array.shape for array in single.arrays]


def test_utterances_that_come_and_go_sound_as_they_do_alone(model, tmp_path):
    """Each on its own schedule, one of them in context."""
    tts = model("base")
    clone = tts.clone(recording(tmp_path / "a.wav", 1, 1.3), ref_text="one two")
    config = tts.sampling.override(max_tokens=19)

    def utterance(number):
        voice = clone if number == 1 else tts.voice(Voice(vector(64, number)))
        part = Part(tts.prompt(TEXTS[number % 3], voice), number, config)
        context = voice.ref_codes if number == 1 else None
        more = [Part(tts.prompt(TEXTS[0], voice), 50, config)] if number == 2 else []

        def following(spoken):
            return more.pop() if more else "stop"

        return Utterance(part, following, ((1, 2, 4), (16,), (1,), (3, 5))[number % 4], context)

    def sound(decoding, utterances, joins=()):
        made, joins = {one: [] for one in utterances}, list(joins)
        while (pieces := decoding.step()) is not None or joins:
            for piece in pieces or ():
                made[piece.utterance].append(np.array(piece.audio))
            if joins:
                decoding.add(joins.pop(0))
        return [np.concatenate(parts) for parts in made.values()]

    def decoding():
        return Decoding(tts.generation([], [], config), tts.codec.decoder)

    wanted = []
    for number in range(4):
        one, single = utterance(number), decoding()
        single.add(one)
        wanted += sound(single, [one])
    together, utterances = decoding(), [utterance(number) for number in range(4)]
    together.add(utterances[0])
    for heard, alone_heard in zip(sound(together, utterances, utterances[1:]), wanted, strict=True):
        assert heard.shape == alone_heard.shape and np.abs(heard - alone_heard).max() <= 1e-5


def test_no_call_of_the_decoder_takes_more_than_memory_allows(model, monkeypatch):
    tts, sizes = model("base"), []
    decoder = tts.codec.decoder
    step = type(decoder).step
    monkeypatch.setattr(type(decoder), "step", lambda self, c, s: sizes.append(c.shape[:2]) or step(self, c, s))
    tts.generate_batch([TEXTS[0]] * 5, vector(64, 1), seeds=list(range(5)), max_tokens=20)
    assert {rows * frames for rows, frames in sizes} and max(rows * frames for rows, frames in sizes) <= MOST
    assert sum(rows * frames for rows, frames in sizes) == 5 * 19
