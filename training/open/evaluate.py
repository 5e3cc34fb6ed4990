"""The gates of the open miniature, on 40 unheard voices and 200 unheard sentences: prose, names and numbers as words.

    python -m training.open evaluate WORK [--model WORK/converted --only clean,codec,speech,blends,directions,closed]

Through the package, as users have it. Phones are heard by the judge, words are right where all their phones are. Brings
WORK/evaluation.json up to date; exit status 1 where a gate is missed.
"""

import json
import random
import sys
import tempfile
from functools import cached_property
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import Qwen3TTS

from .. import acoustics
from ..corpus import draw
from ..espeak import Speaker
from ..evaluate import SEMITONE, Evaluation
from ..hearing import Hearing
from ..language import sentence
from .alignment import word_errors
from .config import PACKAGE
from .corpus import SEED, SPLITS, plan
from .inventory import PAUSE
from .listener import Listener
from .phones import Talking, data_folder
from .texts import PLAIN, Decks

PARTS = ("clean", "codec", "speech", "blends", "directions", "closed")
CLEAN, GREEDY, SAMPLED, CODEC_F0 = 0.03, 0.08, 0.10, 1.0
TOGETHER, MOST_FRAMES, CLOSED = 20, 200, 60
RECOGNISER = Path(__file__).parents[2] / "tests" / "assets" / "recogniser.safetensors"


class Spoken:
    """The held-out voices and what they say, as `training.corpus.Corpus` has it, made by espeak-ng when asked for."""

    def __init__(self, work, texts):
        decks, self.folder = Decks.kept(work, texts), tempfile.TemporaryDirectory()
        self.talking = Talking(data_folder(self.folder.name))
        drawn = draw(SEED)
        self.speakers = [{k: v for k, v in s.items() if k != "speaker"} | vars(s["speaker"]) for s in drawn]
        self.utterances, self.said = [], []
        for split in SPLITS:
            for number, texts_of in plan(split, drawn)[0]:
                self.talking.use(drawn[number]["speaker"])
                for text in (decks.text(n, True, PLAIN) for n in texts_of):
                    said = self.talking.say(text)
                    if said is not None and said.spoken():
                        self.utterances.append([number, text, 0, len(said.sound)])
                        self.said.append(said)

    def novel(self, split):
        return [u for u, row in enumerate(self.utterances) if self.speakers[row[0]]["split"] == split]

    def by_speaker(self, utterances):
        of = {}
        for utterance in utterances:
            of.setdefault(self.utterances[utterance][0], []).append(utterance)
        return of

    def samples(self, utterance):
        return self.said[utterance].sound


class Ears:
    """Phone and word error rates of sounds by the judge; what is meant is what espeak-ng says of the text."""

    def __init__(self, path, talking):
        self.listener, self.talking, self.known = Listener(path), talking, {}

    def meant(self, text):
        """(phones, the number of each one's word) of a text."""
        if text not in self.known:
            self.talking.use(Speaker(120, 1.0, 0.0, 145))
            said = self.talking.say(text)
            pairs = [(p, text[:c].count(" ")) for p, c in zip(said.phones, said.places, strict=True) if p != PAUSE]
            self.known[text] = tuple(map(list, zip(*pairs, strict=True)))
        return self.known[text]

    def phone_error_rate(self, texts, sounds):
        return self.listener.error_rate([self.meant(text)[0] for text in texts], sounds)

    def error_rate(self, texts, sounds):
        wrong = total = 0
        for text, sound in zip(texts, sounds, strict=True):
            phones, words = self.meant(text)
            wrong += word_errors(phones, self.listener(sound), words)
            total += len(set(words))
        return wrong / total


class OpenEvaluation(Evaluation):
    """The closed miniature's measures on the open one's voices, with the judge's ears."""

    def __init__(self, work, model, texts, voices=40):
        self.corpus = Spoken(work, texts)
        self.model = Qwen3TTS.from_pretrained(model, dtype="float32")
        self.hear = Ears(Path(work) / "judge.safetensors", self.corpus.talking)
        self.hear_lines = Hearing(RECOGNISER)  # of LINES, in words of the closed one, as that one's card has it
        of = {split: self.corpus.by_speaker(self.corpus.novel(split)) for split in ("test", "valid")}
        self.utterances = {split: dict(list(known.items())[:voices]) for split, known in of.items()}
        self.voices = {split: list(of) for split, of in self.utterances.items()}
        self.rows, self.details = [], {}

    def speak(self, texts, vectors, greedy=True, model=None):
        spoken = []
        for start in range(0, len(texts), TOGETHER):
            own = slice(start, start + TOGETHER)
            seeds = list(range(start, start + len(texts[own])))
            spoken += (model or self.model).generate_batch(
                texts[own], list(vectors[own]), languages="english", greedy=greedy, seeds=seeds, max_tokens=MOST_FRAMES
            )
        return spoken

    def clean(self):
        chosen = [u for own in self.utterances["test"].values() for u in own]
        texts, sounds = [self.text(u) for u in chosen], [self.corpus.samples(u) for u in chosen]
        self.gate("judge on espeak-ng, phone error rate", self.hear.phone_error_rate(texts, sounds), CLEAN)
        self.note("judge on espeak-ng, word error rate", self.hear.error_rate(texts, sounds))

    @cached_property
    def resynthesis(self):
        """(texts, sounds meant, sounds that the codec gives back) of the test voices."""
        chosen = [u for of in self.utterances["test"].values() for u in of]
        meant = [self.corpus.samples(u) for u in chosen]
        made = [np.array(self.model.codec.decode(self.model.codec.encode(mx.array(sound)))) for sound in meant]
        return [self.text(u) for u in chosen], meant, made

    @cached_property
    def codec_errors(self):
        texts, _, made = self.resynthesis
        return self.hear.phone_error_rate(texts, made)

    def codec(self):
        texts, meant, made = self.resynthesis
        self.note("codec resynthesis, phone error rate", self.codec_errors)
        self.note("codec resynthesis, word error rate", self.hear.error_rate(texts, made))
        off = [abs(np.log(acoustics.f0(b) / acoustics.f0(a))) * SEMITONE for a, b in zip(meant, made, strict=True)]
        self.gate("codec resynthesis, median F0 error (semitones)", np.nanmedian(off), CODEC_F0)

    def speech(self):
        """The 200 sentences, each in the voice whose it is, from a vector of its other recordings."""
        rows = [(v, u) for v, of in self.utterances["test"].items() for u in of]
        texts, own = [self.text(u) for _, u in rows], {v: self.vector(v) for v in self.voices["test"]}
        vectors = [own[v] for v, _ in rows]
        for name, greedy, more in (("greedy", True, GREEDY), ("sampled", False, SAMPLED)):
            spoken = self.speak(texts, vectors, greedy)
            sounds = [np.array(s.audio) for s in spoken]
            rate = self.hear.phone_error_rate(texts, sounds)
            self.gate(f"speech, {name}: phone error rate above the codec's", rate - self.codec_errors, more)
            self.note(f"speech, {name}: phone error rate", rate)
            self.note(f"speech, {name}: word error rate", self.hear.error_rate(texts, sounds))
            self.gate(f"speech, {name}: ended", np.mean([s.finish_reason == "stop" for s in spoken]), 0.99, True)
            ratio = [len(sound) / self.corpus.utterances[u][3] for sound, (_, u) in zip(sounds, rows, strict=True)]
            self.gate(f"speech, {name}: mean length off espeak-ng's", abs(np.mean(ratio) - 1), 0.15)
            within = np.mean(np.abs(np.array(ratio) - 1) <= 0.15)
            self.note(f"speech, {name}: share of utterances within 15 % of espeak-ng's length", within)
            if greedy:
                self.identity(rows, sounds, own)

    def closed(self):
        """Sentences of the 103 words, by the recogniser of these words, beside the miniature that is shipped."""
        texts = [sentence(random.Random(number)) for number in range(CLOSED)]
        voices = [self.voices["test"][number % len(self.voices["test"])] for number in range(CLOSED)]
        rates = []
        for model in (Qwen3TTS.from_pretrained(PACKAGE, dtype="float32"), self.model):
            vectors = [model.embed(self.reference(voice)) for voice in voices]
            sounds = [np.array(s.audio) for s in self.speak(texts, vectors, model=model)]
            rates.append(self.hear_lines.error_rate(texts, sounds))
        self.note("closed sentences by the shipped miniature, word error rate", rates[0])
        self.gate("closed sentences, word error rate", rates[1], rates[0])


def add_options(options):
    options.add_argument("--model", help="(default: WORK/converted)")
    options.add_argument("--texts", default="/", help="root below which the texts' packages lie")
    options.add_argument("--voices", type=int, default=40, help="of each split, for a quick look (default: all 40)")
    options.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")


def main(options):
    work = Path(options.work)
    evaluation = OpenEvaluation(work, options.model or work / "converted", options.texts, options.voices)
    path, missed = work / "evaluation.json", []
    for part in options.only.split(","):
        evaluation.rows, evaluation.details = [], {}
        getattr(evaluation, part)()
        missed += [row["name"] for row in evaluation.rows if not row.get("met", True)]
        known = json.loads(path.read_text()) if path.exists() else {}
        known[part] = {"rows": evaluation.rows, "details": evaluation.details}
        path.write_text(json.dumps({name: known[name] for name in PARTS if name in known}, indent=1) + "\n")
    print(f"{len(missed)} gates missed")
    sys.exit(1 if missed else 0)
