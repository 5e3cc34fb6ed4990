"""The gates: what the miniature can do, measured on voices and sentences that nothing was trained on.

    python -m training.evaluate WORK MODEL [--only codec,speech,...]

Runs in the project's own environment, through the package as users have it. Brings WORK/evaluation.json up to date and
prints a table of measures beside their gates. Exit status 1 where a gate is missed.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import Direction, Qwen3TTS
from mlx_qwen3tts.errors import AudioError
from mlx_qwen3tts.voices.space import VoiceSpace

from . import acoustics
from .corpus import Corpus
from .hearing import Hearing

TOGETHER = 20  # texts of a batch
LINES = (
    "Hello, this is my voice.",
    "Good morning, today is monday.",
    "The red car is big and the bird is small.",
)
SEMITONE = 12 / np.log(2)
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
STRENGTHS = (-0.3, -0.15, 0.0, 0.15, 0.3)  # radii


class Evaluation:
    def __init__(self, work, model):
        self.corpus = Corpus(work)
        self.model = Qwen3TTS.from_pretrained(model, dtype="float32")  # bfloat16 takes a CPU twice as long
        self.hear = self.hear_lines = Hearing(Path(work) / "recogniser.safetensors")
        # of each test and validation voice
        self.utterances = {s: self.corpus.by_speaker(self.corpus.novel(s)) for s in ("test", "valid")}
        self.voices = {split: list(of) for split, of in self.utterances.items()}
        self.rows, self.details = [], {}

    def gate(self, name, value, bound, least=False, form=".3f"):
        """Record a measure and whether it is within its bound."""
        good = value >= bound if least else value <= bound
        self.rows.append({"name": name, "value": float(value), "gate": bound, "least": least, "met": bool(good)})
        sign = "≥" if least else "≤"
        print(f"{'met   ' if good else 'MISSED'}  {name}: {value:{form}} ({sign} {bound:g})", flush=True)

    def note(self, name, value, form=".3f"):
        self.rows.append({"name": name, "value": float(value)})
        print(f"        {name}: {value:{form}}", flush=True)

    def text(self, utterance):
        return self.corpus.utterances[utterance][1]

    def reference(self, voice, split="test"):
        """A recording of a voice: its first utterances, four seconds or more."""
        sound = np.zeros(0, np.float32)
        for utterance in self.utterances[split][voice]:
            sound = np.concatenate([sound, self.corpus.samples(utterance)])
            if len(sound) > 4 * 24000:
                break
        return sound

    def vector(self, voice, split="test"):
        return self.model.embed(self.reference(voice, split))

    def speak(self, texts, vectors, greedy=True, **options):
        """Speech of each text in the voice of each vector."""
        spoken = []
        for start in range(0, len(texts), TOGETHER):
            part, own = texts[start : start + TOGETHER], vectors[start : start + TOGETHER]
            seeds = list(range(start, start + len(part)))
            made = self.model.generate_batch(
                part, list(own), languages="english", greedy=greedy, seeds=seeds, max_tokens=100, **options
            )
            spoken += made
        return spoken

    # the gates

    def espeak(self):
        chosen = self.corpus.novel("test")
        rate = self.hear.error_rate([self.text(u) for u in chosen], [self.corpus.samples(u) for u in chosen])
        self.gate("recogniser on espeak-ng, word error rate", rate, 0.02)

    def codec(self):
        chosen = [u for of in self.utterances["test"].values() for u in of[:4]]
        meant = [self.corpus.samples(u) for u in chosen]
        made = [np.array(self.model.codec.decode(self.model.codec.encode(mx.array(sound)))) for sound in meant]
        self.gate(
            "codec resynthesis, word error rate", self.hear.error_rate([self.text(u) for u in chosen], made), 0.05
        )
        off = []
        for of in range(0, len(chosen), 4):
            one, other = (acoustics.f0(np.concatenate(s[of : of + 4])) for s in (meant, made))
            off.append(abs(np.log(other / one)) * SEMITONE)
        unvoiced = int(np.isnan(off).sum())
        self.gate("codec resynthesis, median F0 error (semitones)", np.nanmedian(off), 1.0)
        self.note("codec resynthesis, voices without a measurable F0", unvoiced, ".0f")

    def speech(self):
        """Three sentences in each of the 40 voices, never those of the reference."""
        rows = [(v, u) for v, of in self.utterances["test"].items() for u in of[-3:]]
        texts, own = [self.text(u) for _, u in rows], {v: self.vector(v) for v in self.voices["test"]}
        vectors = [own[v] for v, _ in rows]
        for name, greedy in (("greedy", True), ("sampled", False)):
            spoken = self.speak(texts, vectors, greedy)
            sounds = [np.array(s.audio) for s in spoken]
            self.gate(f"speech, {name}: word error rate", self.hear.error_rate(texts, sounds), 0.08)
            self.gate(f"speech, {name}: ended", np.mean([s.finish_reason == "stop" for s in spoken]), 0.99, True)
            ratio = [len(sound) / self.corpus.utterances[u][3] for sound, (_, u) in zip(sounds, rows, strict=True)]
            self.gate(f"speech, {name}: mean length off espeak-ng's", abs(np.mean(ratio) - 1), 0.15)
            self.note(
                f"speech, {name}: share of utterances within 15 % of espeak-ng's length",
                np.mean(np.abs(np.array(ratio) - 1) <= 0.15),
            )
            if greedy:
                self.identity(rows, sounds, own)

    def identity(self, rows, sounds, own):
        """Of the greedy speech: is the voice that of the reference?"""
        heard, meant, spoken = [], [], []
        for voice in self.voices["test"]:
            sound = np.concatenate([s for s, (v, _) in zip(sounds, rows, strict=True) if v == voice])
            heard.append(acoustics.f0(sound))
            meant.append(acoustics.f0(self.reference(voice)))
            try:
                spoken.append(self.model.embed(sound))
            except AudioError as error:  # of what has not learnt to speak: silence, which is nobody's voice
                print(f"        voice {voice}: {error}", flush=True)
                spoken.append(mx.full(own[voice].shape, mx.nan))
        heard, meant = np.log(heard), np.log(meant)
        good = np.isfinite(heard) & np.isfinite(meant)
        self.note("identity, voices whose speech has a measurable F0, of 40", good.sum(), ".0f")
        self.gate("identity, F0 of reference and speech, r", np.corrcoef(heard[good], meant[good])[0, 1], 0.9, True)
        self.gate("identity, median F0 error (semitones)", np.median(np.abs(heard - meant)[good]) * SEMITONE, 2.0)
        self.details["identity"] = np.exp(np.c_[meant, heard]).round(1).tolist()
        known = mx.stack([own[v] for v in self.voices["test"]])
        again = []
        for voice in self.voices["test"]:
            of = self.utterances["test"][voice]
            again.append(self.model.embed(np.concatenate([self.corpus.samples(u) for u in of[-4:]])))
        for name, vectors in (("another recording", again), ("generated speech", spoken)):
            right = np.mean(found_again(mx.stack(vectors), known))
            self.gate(f"retrieval of 40 speakers by the vector, {name}", right, 0.95, True)

    def f0s(self, vectors, texts=LINES):
        """F0 of each vector's speech, its word error rate, and its sound."""
        spoken = self.speak([t for _ in vectors for t in texts], [v for v in vectors for _ in texts])
        sounds = [np.array(s.audio) for s in spoken]
        of = [np.concatenate(sounds[k : k + len(texts)]) for k in range(0, len(sounds), len(texts))]
        rate = self.hear_lines.error_rate([t for _ in vectors for t in texts], sounds)
        return np.array([acoustics.f0(sound) for sound in of]), rate, of

    def blends(self):
        generator, voices = random.Random(7), self.voices["test"]
        pairs = []
        while len(pairs) < 10:
            pair = sorted(generator.sample(voices, 2), key=lambda v: self.corpus.speakers[v]["f0"])
            if self.corpus.speakers[pair[1]]["f0"] > 1.3 * self.corpus.speakers[pair[0]]["f0"] and pair not in pairs:
                pairs.append(pair)
        straight, off, rates, rows = 0, [], [], []
        for one, other in pairs:
            a, b = self.vector(one), self.vector(other)
            heard, rate, _ = self.f0s([(1 - t) * a + t * b for t in STEPS])
            log = np.log(heard)
            line = log[0] + (log[-1] - log[0]) * np.array(STEPS)
            away = np.abs(log - line).max() * SEMITONE
            good = bool((np.diff(log) > 0).all() and away <= 1.5)
            straight += good
            off.append(away)
            rates.append(rate)
            rows.append(heard.round(1).tolist())
        self.details["blends"] = rows
        self.gate("blends of 10 pairs with F0 monotone and within 1.5 semitones of the line", straight, 9, True, ".0f")
        self.note("blends, median of the largest distance to the line (semitones)", np.nanmedian(off))
        self.note("blends, word error rate", np.mean(rates))

    def directions(self):
        for name, attribute in (("pitch", "f0"), ("vocal tract", "formants")):
            ten = random.Random(11).sample(self.voices["valid"], 10)
            values = [self.corpus.speakers[v][attribute] for v in ten]
            labels = ["high" if value > np.median(values) else "low" for value in values]
            vectors = mx.stack([self.vector(v, "valid") for v in ten])
            direction = Direction.fit(vectors, labels, space=VoiceSpace.fit(vectors), positive="high")
            moved, rates, rows = 0, [], []
            for voice in self._middle(attribute, 10):
                heard, rate, sounds = self.f0s([direction.apply(self.vector(voice), k) for k in STRENGTHS])
                if attribute == "formants":
                    heard = np.array([acoustics.formant_shift(sound, sounds[2]) for sound in sounds])
                moved += bool((np.diff(heard) > 0).all())
                rates.append(rate)
                rows.append(heard.round(3).tolist())
            self.details[f"direction {name}"] = rows
            self.gate(f"{name} direction from ten voices: monotone for so many of 10", moved, 9, True, ".0f")
            self.gate(f"{name} direction: word error rate", np.mean(rates), 0.12)

    def _middle(self, attribute, count):
        """Test voices from the middle of an attribute's range, so that there is room on either side."""
        order = sorted(self.voices["test"], key=lambda v: self.corpus.speakers[v][attribute])
        spare = (len(order) - count) // 2
        return order[spare : spare + count]


def found_again(again, known):
    """bool [N]: whether each row of `again` [N, D] is nearest to its own of `known`, by cosine; one with NaN is not."""
    one, other = (v / mx.linalg.norm(v, axis=1, keepdims=True) for v in (again, known))
    likeness = np.array(one @ other.T)
    return (likeness.argmax(1) == np.arange(len(likeness))) & ~np.isnan(likeness).any(1)


PARTS = ("espeak", "codec", "speech", "blends", "directions")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("model")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    options = parser.parse_args()
    start = time.monotonic()
    evaluation, missed = Evaluation(options.work, options.model), []
    path = options.work / "evaluation.json"
    for part in options.only.split(","):
        evaluation.rows, evaluation.details = [], {}
        getattr(evaluation, part)()
        missed += [row["name"] for row in evaluation.rows if not row.get("met", True)]
        known = json.loads(path.read_text()) if path.exists() else {}
        known[part] = {"model": options.model, "rows": evaluation.rows, "details": evaluation.details}
        path.write_text(json.dumps({part: known[part] for part in PARTS if part in known}, indent=1))
    print(f"{len(missed)} gates missed, {time.monotonic() - start:.0f} s")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
