"""The open miniature's recipe: texts, tokens, packing, phones, prompts, the loop and its gates."""

import argparse
import csv
import itertools
import json
import os
import pickle
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts.checkpoint.codec import Codec
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.checkpoint.weights import parameters
from mlx_qwen3tts.networks.config import ModelConfig
from mlx_qwen3tts.networks.talker import Talker
from mlx_qwen3tts.synthesis.prompt import build_prompt
from mlx_qwen3tts.synthesis.tokenizer import TextTokenizer
from training.open import __main__ as recipe
from training.open import (
    codec,
    corpus,
    curve,
    export,
    gather,
    likeness,
    listener,
    numbers,
    pack,
    packing,
    ship,
    sound,
    texts,
    tokens,
)
from training.open.alignment import aligned, word_errors
from training.open.config import MOST, PREDICTOR, TALKER, TINY, converted_bytes, model_config, weights
from training.open.inventory import INVENTORY, NUMBER, PAUSE, named
from training.open.loop import Loop
from training.open.phones import Said, spread
from training.open.prompts import Order, Prompts, widening

ROOT = Path(__file__).parents[1]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("bits", [1, 5, 8, 11, 16])
def test_numbers_come_back_from_their_bits(bits):
    values = np.random.default_rng(bits).integers(0, 1 << bits, (37, 8))
    packed = packing.pack(values, bits)
    assert len(packed) == -(-values.size * bits // 8)
    assert np.array_equal(packing.unpack(packed, bits, values.size).reshape(values.shape), values)
    with pytest.raises(ValueError, match="do not fit"):
        packing.pack([(1 << bits)] if bits < 16 else [-1], bits)
    with pytest.raises(ValueError, match="fewer than"):
        packing.unpack(packed[:-1], bits, values.size)


def test_a_codebook_takes_the_bits_of_its_size():
    assert [packing.bits_for(size) for size in (2, 32, 33, 256, 2048)] == [1, 5, 6, 8, 11]


@pytest.fixture(scope="module")
def decks():
    """A word list with every pair of letters, some pairs once only; names; sentences."""
    draw = random.Random(0)
    words = [a + b + draw.choice(LETTERS) * k for a in LETTERS for b in LETTERS for k in range(3)]
    names = [a.upper() + "ando" for a in LETTERS]
    sentences = [f"The {one} of {other} is here." for one, other in zip(words, words[::-1], strict=True)]
    return texts.Decks.of([*words, *names], sentences)


def test_every_pair_of_letters_that_the_word_list_has_is_said(decks):
    wanted = texts.wanted(decks.words, often=3)
    assert len(wanted) > 26 * 26
    turns = -(-len(decks.words) // (6 * texts.KINDS.count("words")))  # until every word was dealt
    said = texts.pairs(word for n in range(turns * 20) for word in texts_words(decks.text(n)))
    assert wanted <= set(said)
    # and the first half of them does not do: it is not that any few texts have all
    few = texts.pairs(word for n in range(20) for word in texts_words(decks.text(n)))
    assert not wanted <= set(few)


def texts_words(text):
    return "".join(letter if letter.isalpha() else " " for letter in text).split()


def test_what_is_held_out_is_never_taught(decks):
    taught = {decks.text(n).rstrip(".").lower() for n in range(4000)}
    held = [text.rstrip(".").lower() for text in decks.held]
    assert held and not taught & set(held)
    unheard = [decks.text(n, held=True) for n in range(400)]
    kinds = [texts.KINDS[n % 20] for n in range(400)]
    prose = [text for text, kind in zip(unheard, kinds, strict=True) if kind in ("prose", "words", "names")]
    assert not {text.rstrip(".").lower() for text in prose} & taught
    assert decks.text(77) == decks.text(77) and decks.text(77, held=True) == decks.text(77, held=True)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("the lungs; “I can” breathe (air) better", "the lungs; I can breathe better."),
        ("  It 'twere -- so,  he said!  ", "It 'twere, so, he said!"),
        ("too short", None),
        ("it has 3 figures in it", None),
        ("he read NASA news there", None),
        ("naïve words are left out", None),
    ],
)
def test_sentences_are_cleaned_or_left_out(written, said):
    assert texts.clean(written) == said


def test_numbers_are_said():
    assert numbers.cardinal(1_203_015) == "one million two hundred three thousand fifteen"
    assert [numbers.ordinal(n) for n in (1, 12, 20, 23, 100)] == [
        "first",
        "twelfth",
        "twentieth",
        "twenty-third",
        "one hundredth",
    ]
    assert [numbers.year(n) for n in (1900, 1905, 2007, 1984)] == [
        "nineteen hundred",
        "nineteen oh five",
        "two thousand seven",
        "nineteen eighty-four",
    ]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    """(folder, alphabet, merges) of tokens learnt from the documentation."""
    folder = tmp_path_factory.mktemp("tokens")
    lines = [line for path in ("README.md", "training/README.md") for line in (ROOT / path).read_text().splitlines()]
    alphabet, merges = tokens.learn(lines, merges=600)
    tokens.write(folder, alphabet, merges)
    return folder, alphabet, merges


def by_merges(text, merges):
    """Byte pair encoding as it is defined: the first merge of the list that applies, wherever it applies, again."""
    rank = {pair: number for number, pair in enumerate(merges)}
    pieces = list(text.replace(" ", "Ġ"))
    while pairs := [rank[pair] for pair in itertools.pairwise(pieces) if pair in rank]:
        pair = merges[min(pairs)]
        place, joined = 0, []
        while place < len(pieces):
            both = tuple(pieces[place : place + 2]) == pair
            joined.append("".join(pair) if both else pieces[place])
            place += 2 if both else 1
        pieces = joined
    return pieces


def test_the_packages_tokenizer_reads_the_tokens_as_they_were_learnt(bpe):
    folder, _, merges = bpe
    tokenizer = TextTokenizer(folder, ModelConfig.from_dict(model_config()))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    text = "Hello, this vocabulary isn't closed: thirteen voices say anything"
    role, ids = tokenizer.assistant(text)
    assert len(role) == 3
    parts = [
        "Hello",
        ",",
        " this",
        " vocabulary",
        " isn",
        "'t",
        " closed",
        ":",
        " thirteen",
        " voices",
        " say",
        " anything",
    ]
    assert ids == [vocabulary[piece] for part in parts for piece in by_merges(part, merges)]
    learnt = [left + right for left, right in merges]
    assert max(len(token.removeprefix("Ġ")) for token in learnt if not tokens.ROLE.startswith(token)) <= tokens.LETTERS


def test_each_frame_knows_its_token(bpe):
    encode = tokens.Tokens(bpe[0])
    text = "Hello, my voice."
    ids, starts = encode(text)
    assert len(ids) == len(starts) and starts[0] == 0 and sorted(starts) == starts
    places = np.array([0, 4, 5, 7, 8, len(text) - 1])
    said = gather.spots(places, starts)
    for place, token in zip(places, said, strict=True):
        end = starts[token + 1] if token + 1 < len(starts) else len(text)
        assert starts[token] <= place < end


def test_events_become_phones_with_their_letters():
    events = [
        (0, 1, "_"),
        (10, 1, "h"),
        (20, 1, "ə"),
        (30, 1, "l"),
        (40, 1, "ˈoʊ"),
        (60, 5, "_:"),
        (80, 8, "ð"),
        (90, 8, "ɐ"),
    ]
    assert list(spread(events, "hello, the")) == [
        (PAUSE, 0, 0),
        ("h", 10, 0),
        ("ə", 20, 1),
        ("l", 30, 3),
        ("oʊ", 40, 4),
        (PAUSE, 60, 4),
        ("ð", 80, 7),
        ("ə", 90, 9),
    ]
    assert named("ɜː") == "ɝ" and named("_:") == PAUSE and set(NUMBER) == {*INVENTORY, PAUSE}
    said = Said(np.zeros(3840, np.float32), [PAUSE, "h", "ə"], np.array([0.0, 0.03, 0.1]), np.array([0, 0, 1]))
    assert said.frames == 2 and said.at(np.array([-1.0, 0.05, 0.12]))[0] == [PAUSE, "h", "ə"]
    assert said.spoken() == ["h", "ə"]


def test_errors_of_phones_and_words():
    assert aligned("abc", "axc") == [(0, 0), (1, 1), (2, 2)]
    assert aligned("ab", "aab") in ([(0, 0), (None, 1), (1, 2)], [(None, 0), (0, 1), (1, 2)])
    words = [0, 0, 0, 1, 1]
    assert word_errors("abcde", "abcde", words) == 0
    assert word_errors("abcde", "abxde", words) == 1 and word_errors("abcde", "abcd", words) == 1
    assert word_errors("abcde", "abxcde", words) == 1  # between two phones of a word
    assert word_errors("abcde", "abcxde", words) == 0  # between two words
    assert word_errors("abcde", "", words) == 2


def test_the_spectrogram_has_a_tone_where_it_is():
    tone = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(12000) / listener.RATE)
    spectra = listener.log_mel(tone)
    assert spectra.shape == (1 + 12000 // listener.HOP, listener.BINS)
    strongest = listener.FILTERS[spectra[20].argmax()]
    assert strongest[round(1000 * listener.WINDOW / listener.RATE)] > 0.5 * strongest.max()


def test_a_shard_is_of_its_number_alone():
    speakers = corpus.draw(corpus.SEED)
    names = corpus.names(rounds=2)
    plans = {name: corpus.plan(name, speakers) for name in names}
    turns = [names[2:35], names[35:68]]
    for turn in turns:  # every voice once a round
        assert sorted(n for name in turn for n, _ in plans[name][0]) == list(range(corpus.TRAINED))
    said = [text for name in names[2:] for _, row in plans[name][0] for text in row]
    assert len(set(said)) == len(said)
    assert all(plans[name][1] == (name in corpus.SPLITS) for name in names)
    held = {n for name in corpus.SPLITS for n, _ in plans[name][0]}
    assert len(held) == 80 and min(held) >= corpus.TRAINED
    assert len([text for _, row in plans["test"][0] for text in row]) == 200


def test_codes_of_two_codecs_are_not_mixed(tmp_path):
    corpus.check({"valid": {"codec": "a"}, "0000": {"codec": "a"}}, "a", tmp_path)
    with pytest.raises(SystemExit, match=r"1 shards, 0000 the first, are of another codec; move .* away"):
        corpus.check({"valid": {"codec": "a"}, "0000": {"codec": "b"}}, "a", tmp_path)
    shipped = codec.name(tmp_path)
    (tmp_path / "codec" / codec.FOLDER).mkdir(parents=True)
    assert codec.name(tmp_path) == shipped
    own = tmp_path / "codec" / codec.FOLDER / "model.safetensors"
    for part, same in (("", True), ("decoder.decoder.6.conv.bias", True), ("encoder.downsample.conv.weight", False)):
        tensors = mx.load(str(codec.PACKAGE / codec.FOLDER / "model.safetensors"))  # codes are the encoder's alone
        tensors |= {part: tensors[part] + 1} if part else {}
        mx.save_safetensors(str(own), tensors)
        assert (codec.name(tmp_path) == shipped) is same


def test_processes_share_a_corpus(tmp_path):
    assert corpus.share("1/1") == (0, 1) and corpus.share("2/3") == (1, 3)
    for text in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(ValueError):
            corpus.share(text)
    names = ["0001", "valid", "0000", "test", "0010", "0002"]
    (tmp_path / "corpus").mkdir()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: corpus.listed(tmp_path / "corpus", name, {"frames": 1}), names))
    assert list(corpus.shards(tmp_path)) == ["valid", "test", "0000", "0001", "0002", "0010"]


@pytest.fixture
def data(tmp_path, bpe):
    """A small WORK/data of random codes: 12 voices, one of them in between, 6 utterances each."""
    draw = np.random.default_rng(0)
    encode, lines = tokens.Tokens(bpe[0]), ["Hello, this is it.", "Any text goes here", "One more sentence, please!"]
    ids, lengths, spots, speakers = [], [], [], []
    for number in range(72):
        own, _ = encode(lines[number % 3])
        length = int(draw.integers(18, 30))
        ids.append(own)
        lengths.append(length)
        spots.append(np.minimum(np.arange(length) * len(own) // length, len(own) - 1))
        speakers.append(number // 6)
    frames = sum(lengths)
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez_compressed(
        folder / "data.npz",
        ids=np.concatenate(ids).astype(np.uint16),
        tokens=np.array([len(row) for row in ids], np.uint8),
        lengths=np.array(lengths, np.uint8),
        speakers=np.array(speakers, np.uint16),
        split=np.array([0] * 60 + [1] * 12, np.uint8),
        codes=packing.pack(draw.integers(0, 256, (frames, 8)), 8),
        codebooks=np.array(8),
        phones=draw.integers(0, len(INVENTORY), (frames, 2)).astype(np.uint8),
        spots=np.concatenate(spots).astype(np.uint8),
        vectors=draw.normal(size=(72, 192)).astype(np.float16),
        of=np.arange(72, dtype=np.uint32),
        role=np.array(encode.role(), np.uint16),
    )
    about = [{"split": "train", "f0": 100 + k} for k in range(12)]
    about[5] |= {"split": "between", "parents": [0, 1], "t": 0.25}
    (folder / "speakers.json").write_text(json.dumps(about))
    (folder / "config.json").write_text(json.dumps(model_config(**TINY)))
    return folder


def random_talker(settings):
    """The package's talker with random weights, fused."""
    talker = Talker(ModelConfig.from_dict(settings))
    draw = np.random.default_rng(1)
    talker.load_weights([(name, mx.array(draw.normal(0, 0.1, value.shape))) for name, value in parameters(talker)])
    talker.fuse()
    return talker


@pytest.mark.parametrize("full", [False, True])
def test_batches_are_the_packages_prompts(data, monkeypatch, full):
    """Up to the first frame the positions are those that the package builds; after them text trails as there."""
    monkeypatch.setattr("training.open.prompts.FULL", float(full))
    monkeypatch.setattr("training.open.prompts.AUTO", 0.0)
    prompts = Prompts(data)
    config, talker = ModelConfig.from_dict(prompts.settings), random_talker(prompts.settings)
    batch = prompts.batch([0, 2], 7, True)
    for row, utterance in enumerate((0, 2)):
        text = prompts.texts[utterance].tolist()
        tags = [
            config.talker.codec_think_id,
            config.talker.codec_think_bos_id,
            config.talker.codec_language_id["english"],
        ]
        vector, layout = mx.array(batch["vector"][row]), "full" if full else "streaming"
        tags.append(config.talker.codec_think_eos_id)
        built = build_prompt(talker, config, prompts.role, text, tags, layout, speaker=vector)
        start, said = built.embeddings.shape[0], prompts.codes[utterance]
        x = talker.embed_text(mx.array(batch["text"][row]))
        spoken = mx.array(batch["spoken"][row])
        x = x + mx.where((spoken >= 0)[:, None], talker.embed_codec(mx.maximum(spoken, 0)), 0)
        x[int(batch["place"][row])] += vector
        assert mx.allclose(x[:start], built.embeddings, atol=1e-5)
        assert np.array_equal(batch["codes"][row, start : start + len(said)], said)
        assert batch["known"][row].sum() == batch["predicts"][row].sum() == len(said)
        for step in range(len(said)):
            assert mx.allclose(x[start + step], built.text.at(step), atol=1e-5)
        assert batch["label"][row, start - 1] == said[0, 0]
        assert batch["label"][row, start + len(said) - 1] == config.talker.codec_eos_token_id
        # the pointer points to text that is there by then
        spots = batch["spot"][row]
        for position in np.flatnonzero(spots >= 0):
            token = text[prompts.spots[utterance][position - start + 1]]
            assert spots[position] <= position and batch["text"][row, spots[position]] == token
            assert batch["words"][row, spots[position]]


def test_a_step_has_the_same_batch_whenever_it_is_made(data):
    prompts = Prompts(data)
    order = [Order(prompts.of("train"), prompts.lengths, 300) for _ in range(2)]
    once = sorted(u for step in range(order[0].each) for u in order[0][step])
    assert once == prompts.of("train")
    for step in (order[1].each + 3, 2):  # in another order, from another epoch
        assert order[0][step] == order[1][step]
        one, other = (prompts.batch(own[step], step, True, 40) for own in order)
        assert all(np.array_equal(one[name], other[name]) for name in one) and len(one["chosen"]) == 40
    assert order[0][0] != order[0][order[0].each]
    blends = [u for u in prompts.of("train") if prompts.speaker[u] == 5]
    middle = prompts.batch(blends, 3, True)["vector"]
    assert not np.allclose(middle, prompts.batch(blends, 3, False)["vector"])  # those of the parents, mostly


def test_widening_keeps_angles():
    vectors = np.random.default_rng(0).normal(size=(5, 192))
    wide = vectors @ widening(192, 384).T
    assert np.allclose(wide @ wide.T, 2 * vectors @ vectors.T, atol=1e-4)
    assert np.mean(wide**2) == pytest.approx(np.mean(vectors**2), rel=1e-5)


def test_a_voice_is_more_like_itself_by_the_map_and_nothing_is_lost(tmp_path):
    draw = np.random.default_rng(4)
    voices = draw.normal(size=(400, 6)) * [4, 2, 2, 1, 1, 1]
    spoken = voices[:, None] + 0.1 * draw.normal(size=(400, 2, 6))
    again = voices + draw.normal(size=(400, 6)) * [0.3, 0.3, 2, 0.3, 0.3, 0.3]  # the codec blurs the third
    matrix, centre = likeness.fitted(spoken[:200], again[:200])
    assert np.allclose(matrix, matrix.T, atol=1e-5) and np.linalg.cond(matrix) < 10
    assert np.trace(np.cov((spoken[:200].mean(1) @ matrix).T)) == pytest.approx(6, rel=1e-4)
    np.savez(tmp_path / "map.npz", map=matrix, centre=centre)
    mapped = [likeness.applied(part[200:], tmp_path / "map.npz") for part in (spoken, again)]
    plain, better = likeness.share_found(spoken[200:], again[200:]), likeness.share_found(*mapped)
    assert better > plain + 0.1
    half = likeness.applied((spoken[1, 0] + spoken[2, 0]) / 2, tmp_path / "map.npz")
    ends = likeness.applied(spoken[1:3, 0], tmp_path / "map.npz")
    assert np.allclose(half, ends.mean(0), atol=1e-5)
    assert likeness.applied(spoken, tmp_path / "none.npz") is spoken


class Weights:
    """Something that learns: a line through noisy points, with momentum."""

    def __init__(self):
        self.values, self.speed = np.zeros(3), np.zeros(3)

    def learn(self, step, rate):
        draw = np.random.default_rng(step)
        x = draw.normal(size=3)
        error = x @ self.values - x @ [1, 2, 3] + 0.1 * draw.normal()
        self.speed = 0.9 * self.speed - rate * error * x
        self.values = self.values + self.speed
        return error**2

    def state_dict(self):
        return {"values": self.values, "speed": self.speed}

    def load_state_dict(self, state):
        self.values, self.speed = state["values"], state["speed"]


class Files:
    """Saving as torch does it; dies while it writes, where `dies` is set."""

    dies = False

    def save(self, state, path):
        path.write_bytes(pickle.dumps(state)[: 20 if self.dies else None])
        if self.dies:
            raise OSError("no space left on device")

    def load(self, path, weights_only):
        assert not weights_only
        return pickle.loads(path.read_bytes())


def learnt(work, stops=(), steps=230, last=True):
    """The weights and the loss curve of a run that is stopped before these steps and goes on; last: to its end."""
    work.mkdir(exist_ok=True)
    for stop in (*stops, None)[: None if last else -1]:
        weights = Weights()
        loop = Loop("line", work, {"weights": weights}, steps, 0.05, Files(), every=20)
        for step in loop.run():
            if step == stop:
                loop.save()
                break
            loop.record(loss=weights.learn(step, loop.rate()))
            if step % 100 == 50:
                loop.note(first=weights.values[0])
    rows = [list(csv.DictReader((work / name).open())) for name in ("line.csv", "line.notes.csv")]
    return weights.values, [{k: v for k, v in row.items() if k != "seconds"} for part in rows for row in part], loop


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    whole, curve_of_it, loop = learnt(tmp_path / "whole")
    assert loop.done and len(curve_of_it) == 11 + 2
    again, its_curve, _ = learnt(tmp_path / "stopped", stops=(1, 39, 40, 155))
    assert np.array_equal(whole, again) and curve_of_it == its_curve
    assert not np.array_equal(whole, learnt(tmp_path / "short", steps=229)[0])


def test_a_run_whose_rate_is_flat_may_be_made_longer_or_shorter(tmp_path):
    whole = learnt(tmp_path / "whole", steps=2400)[0]
    for begun in (2000, 9000):
        learnt(tmp_path / str(begun), stops=(599,), steps=begun, last=False)
        assert np.array_equal(whole, learnt(tmp_path / str(begun), steps=2400)[0])
        learnt(tmp_path / "late", stops=(601,), steps=begun, last=False)
        with pytest.raises(SystemExit, match=f"steps {begun}, and after 601 of them 2002 would be another"):
            learnt(tmp_path / "late", steps=2002)
        (tmp_path / "late" / "line.pt").unlink()


def test_a_run_that_died_while_it_saved_goes_on_from_the_save_before(tmp_path):
    whole, curve_of_it, _ = learnt(tmp_path / "whole")
    work = tmp_path / "died"
    work.mkdir()
    weights, files = Weights(), Files()
    loop = Loop("line", work, {"weights": weights}, 230, 0.05, files, every=20)
    for step in loop.run():
        if step == 50:
            loop.save()
        if step == 130:  # the CSV is ahead of the checkpoint by now
            files.dies = True
            with pytest.raises(OSError, match="no space"):
                loop.save()
            break
        loop.record(loss=weights.learn(step, loop.rate()))
        if step % 100 == 50:
            loop.note(first=weights.values[0])
    again, its_curve, _ = learnt(work)
    assert np.array_equal(whole, again) and curve_of_it == its_curve
    with pytest.raises(SystemExit, match="begun with --steps 230"):
        Loop("line", work, {"weights": Weights()}, 500, 0.05, Files())
    with pytest.raises(SystemExit, match="loss is nan"):
        broken = Loop("broken", work, {"weights": Weights()}, 40, 0.05, Files(), every=20)
        for _ in broken.run():
            broken.record(loss=float("nan"))


def test_the_gate_lets_a_good_curve_through_and_stops_a_bad_one():
    known = [
        {"step": float(n), "phones": 4 - n / 100, "pointer": 3 - n / 200, "rest": 15 - n / 50} for n in (0, 100, 200)
    ]
    assert curve.at(known, 50, "phones") == 3.5 and curve.at(known, 900, "phones") == 2
    good = {name: 1.1 * curve.at(known, 150, name) for name in curve.WATCHED}
    assert curve.misses(known, 150, good) == []
    assert curve.misses(known, 150, good | {"pointer": 2.9}) == ["pointer 2.900, known 2.250"]
    assert len(curve.misses(known, 150, dict.fromkeys(curve.WATCHED, float("nan")))) == len(curve.WATCHED)


def test_the_known_curve_falls_and_its_start_would_not_pass_at_its_end():
    known = curve.read()
    assert curve.misses(known, known[-1]["step"], known[-1]) == []
    assert set(known[0]) >= {"step", *curve.WATCHED}
    assert curve.misses(known, known[-1]["step"], known[0])


def test_sizes_are_what_was_planned():
    values = model_config()
    sizes = {part: sum(found) for part, found in weights(values).items()}
    assert 8e6 <= sizes["talker"] <= 15e6 and 3e6 <= sizes["predictor"] <= 5e6
    assert sum(converted_bytes(values).values()) <= 0.95 * MOST
    talker = Talker(ModelConfig.from_dict(values))
    counted = sum(value.size for _, value in parameters(talker))
    assert counted == pytest.approx(sum(sizes.values()), rel=0.005)  # norms and biases are not counted
    assert TALKER["hidden_size"] % 64 == PREDICTOR["hidden_size"] % 64 == 0  # of a group of the quantisation


def test_the_exported_folder_is_a_checkpoint_with_the_same_voices(data, bpe, tmp_path):
    settings = json.loads((data / "config.json").read_text())
    for name in tokens.FILES:
        (data / name).write_bytes((bpe[0] / name).read_bytes())
    draw = np.random.default_rng(2)
    talker = Talker(ModelConfig.from_dict(settings))
    tensors = {f"talker.{name}": mx.array(draw.normal(0, 0.1, value.shape)) for name, value in parameters(talker)}
    mx.save_safetensors(str(tmp_path / "talker.safetensors"), tensors)
    matrix, centre = draw.normal(size=(192, 192)).astype(np.float32) / 14, draw.normal(size=192).astype(np.float32)
    np.savez(tmp_path / likeness.NAME, map=matrix, centre=centre)
    folder = ModelFolder(export.write(tmp_path))  # which checks every name and shape
    assert folder.part.layout == folder.codec.part.layout == "official"
    shipped = ModelFolder(export.PACKAGE)
    sound = mx.array(draw.normal(0, 0.1, 24000).astype(np.float32))
    one, wide = (f.part.load("speaker_encoder", mx.float32, f.speaker_encoder).embed(sound) for f in (shipped, folder))
    meant = likeness.applied(np.array(one), tmp_path / likeness.NAME) @ widening(one.shape[0], wide.shape[0]).T
    assert mx.abs(wide - mx.array(meant)).max() < 0.02 * mx.abs(wide).max()
    assert mx.array_equal(folder.codec.encode(sound), shipped.codec.encode(sound))


def test_nothing_is_shipped_while_a_gate_is_missed(tmp_path):
    row = {"name": "speech, greedy: ended", "value": 0.98, "gate": 0.99, "least": True, "met": False}
    parts = {part: {"rows": [row if part == "speech" else {"name": "x", "value": 1}]} for part in ship.PARTS[:-1]}
    (tmp_path / "evaluation.json").write_text(json.dumps(parts))
    options = argparse.Namespace(work=tmp_path, texts="/", package=tmp_path / "package")
    with pytest.raises(SystemExit, match="nothing was written, as these do not hold: closed; speech, greedy: ended"):
        ship.main(options)
    assert not options.package.exists()


def test_the_phones_of_both_halves_of_each_frame():
    said = Said(np.zeros(3 * 1920, np.float32), ["k", "ə", PAUSE], np.array([0.03, 0.09, 0.2]), np.array([0, 1, 2]))
    names = [[PAUSE, "k"], ["ə", "ə"], ["ə", PAUSE]]  # in the middle of halves of 40 ms: 0.02, 0.06, 0.10, …
    assert said.halves().tolist() == [[NUMBER[name] for name in row] for row in names]
    assert said.halves().dtype == np.uint8


def test_the_plan_runs_each_stage_once_with_its_python(tmp_path):
    ran, fails = [], {"training.decoder"}

    def run_one(line):
        ran.append(line)
        return subprocess.CompletedProcess(line, int(line[2] in fails and "codes" in line))

    options = argparse.Namespace(work=tmp_path, torch_python="torch-python", texts="/texts")
    options.threads, options.scale, options.cpu_time = 2, 0.5, True
    with pytest.raises(SystemExit, match="decoder failed"):
        recipe.run(options, run_one)
    assert [line[3 if line[2] == "training.open" else 2] for line in ran] == [
        "judge",
        "ear",
        "sound",
        "training.encoder",
        "training.decoder",
    ]
    start = ["--start", str(codec.PACKAGE / "speech_tokenizer")]
    assert ran[3][3:] == [str(tmp_path / "codec"), *start, "--threads", "2", "--cpu-time", "--minutes", "20.0"]
    fails.clear()
    recipe.run(options, run_one)
    assert len(ran) == len(recipe.STAGES) + 1  # the one that failed ran again
    for line, (name, torch, minutes) in zip(ran[5:], recipe.STAGES[4:], strict=True):
        assert (line[0] == "torch-python") == torch
        assert ("--texts" in line) == (name in recipe.TEXTS) and (minutes is None) == (line[3] == name)
    told, folder = (ROOT / "training" / "open" / "README.md").read_text(), ROOT / "training"
    for name in (*(row[0] for row in recipe.STAGES), *recipe.OTHERS):
        module = folder / "open" / f"{name}.py" if name in (*recipe.OWN, *recipe.OTHERS) else folder / f"{name}.py"
        assert module.is_file() and f"| {name} |" in told


def test_a_file_that_grows_is_whole_after_every_part_and_forgets_what_does_not_count(tmp_path):
    path = tmp_path / "sound.npy"
    values = np.arange(-500, 700, dtype=np.int16)
    file = sound.Growing(path, np.int16, 0)
    for start in range(0, 1200, 400):
        file.add(values[start : start + 400])
        assert np.array_equal(np.load(path, mmap_mode="r"), values[: start + 400])
    again = sound.Growing(path, np.int16, 800)  # the index had not been written when the last part came
    again.add(values[800:])
    assert np.array_equal(np.load(path), values)


def test_what_is_packed_needs_nothing_else_of_ours(data, tmp_path):
    parser, module = recipe.build_parser("pack")
    module.main(parser.parse_args([str(tmp_path)]))
    away = tmp_path / "away"
    away.mkdir()
    subprocess.run(["tar", "xf", str(tmp_path / "open.tar")], cwd=away, check=True)
    assert (away / "open" / "data" / "data.npz").is_file()
    present = {str(path.relative_to(away)) for path in away.rglob("*.py")}
    for path in present:
        for line in (away / path).read_text().splitlines():
            words = line.split()
            if words[:1] == ["from"] and words[1].startswith(".") and not line.startswith(" ") and words[1] != ".":
                base = Path(path).parent if not words[1].startswith("..") else Path(path).parent.parent
                assert str(base / f"{words[1].lstrip('.')}.py") in present, (path, line)
    assert pack.MOST <= 60e6


TORCH = """
import sys, types
import numpy as np, torch
from pathlib import Path
from training.open import judge, listener
from training.open.__main__ import build_parser
from training.open.model import Talker, losses
from training.open.talker import Training, main, tensors
work, kind = Path(sys.argv[1]), sys.argv[2]
if kind == "train":
    parser, module = build_parser("talker")
    options = parser.parse_args([str(work), "--steps", "24", "--frames", "400", "--device", "cpu", *sys.argv[3:]])
    module.GATE = {}
    module.main(options)
elif kind == "logits":
    parser, _ = build_parser("talker")
    training = Training(parser.parse_args([str(work), "--frames", "400", "--device", "cpu"]))
    batch = tensors(training.prompts.batch([0, 2], 7, False))
    from training.open.talker import write
    write(training.talker, work / "talker.safetensors")
    talker = training.talker.eval()
    with torch.no_grad():
        x = talker.inputs(*(batch[k] for k in ("text", "spoken", "codes", "known", "vector", "place")))
        hidden, _ = talker.model(x)
        chosen = batch["chosen"]
        codes = batch["following"].flatten(0, 1)[chosen]
        rest = talker.rest(hidden.flatten(0, 1)[chosen], codes)
        np.savez(work / "logits.npz", x=x, first=talker.codec_head(hidden), rest=rest, codes=codes, chosen=chosen)
elif kind == "codec":
    from training import codec, encoder
    model = encoder.Quantised(sys.argv[3], 4).eval()
    sound = torch.from_numpy(np.load(work / "sound.npy"))[None]
    with torch.no_grad():
        quantised, codes, *_ = model.quantiser(model.codec, codec.encode(model.codec, sound))
        assert model.told_phones(quantised).shape == (1, 4, codes.shape[1], 2)
        before = (model.readout(quantised) - codec.targets(sound)).abs().mean()
        model.fit(sound, sound)
        assert (model.readout(quantised) - codec.targets(sound)).abs().mean() < 0.5 * before
        again = codec.load(sys.argv[3]).eval()
        model.quantiser.export(again)
        ones = torch.ones_like(sound, dtype=int)
        assert torch.equal(again.encode(sound, ones).audio_codes[0][:, 1:], codes[0][:, 1:])
        made = codec.decode_low(again, again.decoder.quantizer.decode(codes.transpose(1, 2)))
        made = codec.decode_rest(again, made)[0].clamp(-1, 1)
    judge.save(judge.Judge().eval(), work, 0.5)
    from training.open.ear import Ear
    listens, heard = Ear(work / "judge.safetensors"), sound.clone().requires_grad_()
    distance = listens(heard, sound.roll(960, 1))
    distance.backward()
    assert distance > 0 and heard.grad.abs().sum() > 0 and listens(sound, sound) == 0
    *_, last = listens.states(sound)
    np.savez(work / "heard.npz", codes=codes[0], made=made, scores=listens.judge.out(last)[0])
if kind == "logits":
    torch.manual_seed(3)
    model = judge.Judge().eval()
    judge.save(model, work, 0.5)
    sound = np.random.default_rng(0).normal(0, 0.1, 24000).astype(np.float32)
    mels = listener.log_mel(sound)
    with torch.no_grad():
        out, _ = model(torch.from_numpy((mels - mels.mean()) / 2)[None])
    np.save(work / "scores.npy", out[0])
"""


def in_torch(work, *arguments):
    python = os.environ["QWEN_TTS_PYTHON"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([python, "-c", TORCH, str(work), *arguments], check=True, env=environment)


@pytest.mark.reference
def test_the_shipped_codec_is_gone_on_from_as_it_is(tmp_path):
    """Needs torch: codes and sound of the official classes with the shipped weights are the package's, and the ear that
    the decoder is taught by hears as the judge does."""
    sound = np.random.default_rng(0).normal(0, 0.1, 12 * 1920).astype(np.float32)
    np.save(tmp_path / "sound.npy", sound)
    in_torch(tmp_path, "codec", str(codec.PACKAGE / codec.FOLDER))
    package = Codec(codec.PACKAGE / codec.FOLDER)
    with np.load(tmp_path / "heard.npz") as found:
        assert np.array_equal(np.array(package.encode(mx.array(sound)))[:, 1:], found["codes"][:, 1:])
        made = np.array(package.decode(mx.array(found["codes"].astype(np.int32))))
        assert np.allclose(made, found["made"], atol=1e-3)
        assert np.allclose(listener.Listener(tmp_path / "judge.safetensors").scores(sound), found["scores"], atol=0.02)


@pytest.mark.reference
def test_training_in_torch_resumes_and_is_the_packages_network(data, bpe, tmp_path):
    """Needs torch: a stopped run ends in the same bytes, the talker's logits are the package's, and the judge's NumPy
    network is torch's."""
    for name, stops in (("whole", ()), ("stopped", ("0.2",) * 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(data)
        for seconds in stops:
            in_torch(tmp_path / name, "train", "--seconds", seconds)
        in_torch(tmp_path / name, "train")
    one, other = ((tmp_path / name / "talker.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == other
    in_torch(tmp_path, "logits")
    for name in tokens.FILES:
        (data / name).write_bytes((bpe[0] / name).read_bytes())
    folder = ModelFolder(export.write(tmp_path, mx.float32))
    talker = folder.part.load("talker", mx.float32, folder.talker)
    with np.load(tmp_path / "logits.npz") as found:
        x, chosen = mx.array(found["x"]), mx.array(found["chosen"])
        rows = mx.arange(x.shape[0] * x.shape[1])
        logits, hidden = talker.foresee(x, rows)
        assert np.allclose(np.array(logits).reshape(found["first"].shape), found["first"], atol=2e-4)
        rest = talker.foresee_rest(hidden[chosen], mx.array(found["codes"].astype(np.int32)))
        assert np.allclose(np.array(rest), found["rest"], atol=2e-4)
    sound = np.random.default_rng(0).normal(0, 0.1, 24000).astype(np.float32)
    scores = listener.Listener(tmp_path / "judge.safetensors").scores(sound)
    assert np.allclose(scores, np.load(tmp_path / "scores.npy"), atol=0.02)
