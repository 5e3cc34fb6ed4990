"""Teacher-forced batches in the two official layouts, made from WORK/data alone, each from the number of its step."""

import json
from pathlib import Path

import numpy as np

from .packing import bits_for, unpack

SPLITS = ("train", "valid", "test")
FULL = 0.3  # how often a batch's texts stand in the prompt whole: all of them, as rows are longer with it
BLENDED = 0.7  # how often an utterance in between gets the blend of its parents' vectors
AUTO = 0.3  # how often the language is not named
MULTIPLE = 16  # positions of a batch are a multiple of this, so that few shapes are compiled
SPARE = 12  # positions of a prompt beside text and frames
WIDENING = 20  # seed of the map from the speaker encoder's vectors to the talker's width


def widening(width, into):
    """[into, width]: columns at right angles that keep the vectors' angles and the mean square of their numbers."""
    drawn = np.random.default_rng(WIDENING).normal(size=(into, width))
    return (np.linalg.qr(drawn)[0] * np.sqrt(into / width)).astype(np.float32)


class Prompts:
    """`lengths` in frames; `of(split)`: utterances; `batch(utterances, seed, training)`: {name: array}."""

    def __init__(self, folder, settings=None):
        folder = Path(folder)
        with np.load(folder / "data.npz") as found:
            data = dict(found)
        self.settings = settings or json.loads((folder / "config.json").read_text())
        self.speakers = json.loads((folder / "speakers.json").read_text())
        talker = self.settings["talker_config"]
        self.books, self.size = talker["num_code_groups"], talker["code_predictor_config"]["vocab_size"]
        self.lengths, self.speaker = data["lengths"].astype(int), data["speakers"].astype(int)
        self.split, self.role = data["split"], data["role"].tolist()
        frames = int(self.lengths.sum())
        codes = unpack(data["codes"], bits_for(self.size), frames * self.books).reshape(frames, self.books)
        ends = np.cumsum(self.lengths)[:-1]
        self.codes, self.phones, self.spots = (
            np.split(data[k] if k != "codes" else codes, ends) for k in ("codes", "phones", "spots")
        )
        self.texts = np.split(data["ids"].astype(int), np.cumsum(data["tokens"].astype(int))[:-1])
        widened = data["vectors"].astype(np.float32) @ widening(data["vectors"].shape[1], talker["hidden_size"]).T
        self.vectors, self.of_speaker = widened, {}
        for row, utterance in enumerate(data["of"]):
            self.of_speaker.setdefault(self.speaker[utterance], []).append((int(utterance), row))
        self.able = [self._can(u) for u in range(len(self.lengths))]

    def _can(self, utterance):
        """Whether there is a vector for an utterance: of another one of its speaker, and of its parents."""
        speaker = self.speaker[utterance]
        own = [u for u, _ in self.of_speaker.get(speaker, ()) if u != utterance]
        return bool(own) and all(p in self.of_speaker for p in self.speakers[speaker].get("parents", ()))

    def of(self, split):
        number = SPLITS.index(split)
        return [u for u in range(len(self.lengths)) if self.split[u] == number and self.able[u]]

    def vector(self, utterance, draw, training):
        """The speaker vector by other recordings of the voice, or the blend that the voice stands for."""
        speaker = self.speaker[utterance]
        about = self.speakers[speaker]
        if training and "parents" in about and draw.random() < BLENDED:
            one, other = (self._any(parent, utterance, draw) for parent in about["parents"])
            return (1 - about["t"]) * one + about["t"] * other
        return self._any(speaker, utterance, draw)

    def _any(self, speaker, but, draw):
        rows = [row for utterance, row in self.of_speaker[speaker] if utterance != but]
        chosen = draw.choice(rows, min(len(rows), int(draw.integers(1, 4))), replace=False)
        return self.vectors[chosen].mean(0)

    def row(self, utterance, draw, training, full=False):
        """(text ids of the prompt, codec ids of the prompt with -1 for none, text ids that trail, the speaker's place,
        the first position of the text). full: the whole text is in the prompt."""
        top, talker = self.settings, self.settings["talker_config"]
        pad, bos, eos = (top[f"tts_{name}_token_id"] for name in ("pad", "bos", "eos"))
        if training and draw.random() < AUTO:
            tag = [talker["codec_nothink_id"], talker["codec_think_bos_id"]]
        else:
            tag = [talker["codec_think_id"], talker["codec_think_bos_id"], talker["codec_language_id"]["english"]]
        tag.append(talker["codec_think_eos_id"])
        words = [*self.texts[utterance].tolist(), eos]
        text = [*self.role, *[pad] * (len(tag) + 1), bos]
        spoken = [*[-1] * 3, *tag, -1, talker["codec_pad_id"]]
        first = len(text)
        if full:
            text += [*words, pad]
            spoken += [talker["codec_pad_id"]] * len(words)
            words = []
        else:
            text.append(words[0])
        return text, [*spoken, talker["codec_bos_id"]], words[1:], 3 + len(tag), first

    def batch(self, utterances, seed, training, predicted=None):
        """Arrays [B, T] and what else a step needs; a row is padded behind, T is a multiple of MULTIPLE.

        text; spoken (-1: none); codes [B, T, books], which `known` says to add: the frame before; label, of codebook 0
        (-100: none); following [B, T, books], the frame to come where `predicts`, and its phones [B, T, 2]; spot: the
        position of the token that is said then (-100: none); words: which positions are text; chosen: `predicted` of
        the B * T positions, whose frames the code predictor learns, all of them by default.
        """
        draw = np.random.default_rng(seed)
        talker = self.settings["talker_config"]
        full = training and draw.random() < FULL
        rows = [self.row(u, draw, training, full) for u in utterances]
        longest = max(len(row[0]) + self.lengths[u] for row, u in zip(rows, utterances, strict=True))
        shape = len(rows), -(-longest // MULTIPLE) * MULTIPLE
        pad = self.settings["tts_pad_token_id"]
        out = {
            "text": np.full(shape, pad),
            "spoken": np.full(shape, -1),
            "codes": np.zeros((*shape, self.books), int),
            "known": np.zeros(shape, bool),
            "label": np.full(shape, -100),
            "following": np.zeros((*shape, self.books), int),
            "predicts": np.zeros(shape, bool),
            "phones": np.zeros((*shape, 2), int),
            "spot": np.full(shape, -100),
            "words": np.zeros(shape, bool),
            "vector": np.stack([self.vector(u, draw, training) for u in utterances]),
            "place": np.array([row[3] for row in rows]),
        }
        for n, (utterance, (text, spoken, rest, _, first)) in enumerate(zip(utterances, rows, strict=True)):
            start, said = len(text), self.codes[utterance]
            end, length = start + len(said), len(self.texts[utterance])
            out["text"][n, :start], out["spoken"][n, :start] = text, spoken
            rest = rest[: len(said)]
            out["text"][n, start : start + len(rest)] = rest
            out["words"][n, first : first + length] = True
            out["codes"][n, start:end], out["known"][n, start:end] = said, True
            out["label"][n, start - 1 : end - 1], out["label"][n, end - 1] = said[:, 0], talker["codec_eos_token_id"]
            out["following"][n, start - 1 : end - 1], out["predicts"][n, start - 1 : end - 1] = said, True
            out["phones"][n, start - 1 : end - 1] = self.phones[utterance]
            spot = first + self.spots[utterance].astype(int)
            here = np.arange(start - 1, end - 1)
            out["spot"][n, start - 1 : end - 1] = np.where(spot <= here, spot, -100)
        there = np.flatnonzero(out["predicts"])
        if predicted is not None:  # always as many, so that shapes stay
            there = draw.choice(there, predicted, replace=len(there) < predicted)
        return out | {"chosen": there}


class Order:
    """Which utterances a step has, by its number. A batch is of like lengths and about `frames` frames."""

    def __init__(self, utterances, lengths, frames, seed=1):
        self.utterances, self.lengths, self.frames, self.seed = np.array(utterances), lengths, frames, seed
        self.epoch, self.packed = None, []
        self.each = len(self._pack(0))

    def _pack(self, epoch):
        draw = np.random.default_rng((self.seed, epoch))
        order = draw.permutation(self.utterances)
        rough = np.array([self.lengths[u] for u in order]) + draw.uniform(0, 8, len(order))
        order = order[np.argsort(rough, kind="stable")]
        packed, row = [], []
        for utterance in order:
            if row and (len(row) + 1) * (self.lengths[utterance] + SPARE) > self.frames:
                packed.append(row)
                row = []
            row.append(int(utterance))
        packed.append(row)
        return [packed[k] for k in draw.permutation(len(packed))]

    def __getitem__(self, step):
        # An epoch may have a batch more or less than another: those beyond the first's are left out or said again.
        epoch, place = divmod(step, self.each)
        if epoch != self.epoch:
            self.epoch, self.packed = epoch, self._pack(epoch)
        return self.packed[place % len(self.packed)]
