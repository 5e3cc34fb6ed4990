"""The guard's false alarms on good speech and its true ones on faults.

    python -m benchmarks.guard [--count 2120] [--write FILE] [--recorded FILE] [--json]

Speaks COUNT texts of 1 to 90 words with the miniature, unguarded: its voices, each of them made slower and faster along
@pace, both layouts, sampled. The codes 0 then go through a Watch, as they are and with faults put in. A recogniser
hears one in 32, and all that raise an alarm. `--write` keeps the codes; `--recorded` judges them again, in seconds.
tests/assets/guard.npz is such a file.
"""

import argparse
import itertools
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.synthesis import watch
from mlx_qwen3tts.synthesis.watch import CHECKS, Letters, Watch
from training.hearing import Hearing
from training.language import errors, sentence, words

RECOGNISER = Path(__file__).parents[1] / "tests" / "assets" / "recogniser.safetensors"
VOICES = hub.SHIPPED["miniature"] / "voices"
BATCH, MOST = 32, 2000  # rows at once; frames, which none of the texts needs
PACES = (-1.0, -0.5, 0.0, 0.0, 0.5)  # radii along @pace
SENTENCES = {1: 93, 2: 4, 3: 2, 6: 1, 14: 0.5}  # of a text, with how often
TAUGHT = 9  # words that the miniature can say in one breath; it loses its way in longer texts
LISTENED = 32


@dataclass
class Utterance:
    """codes [frames]: code 0 of each; tokens, letters, words: of the text; pace: of the voice; stop: whether it ended
    by itself; wrong: how many words were misheard, -1 where nobody listened."""

    codes: list[int]
    tokens: int
    letters: int
    words: int
    pace: float
    stop: bool
    wrong: int = -1

    @property
    def good(self):
        return self.stop and self.words <= TAUGHT


def judge(codes, tokens, letters, silent, stop=True):
    """What a Watch finds wrong with codes 0, None where nothing is. stop: whether speech ends behind them."""
    text = SimpleNamespace(tokens=tokens)
    counted = Letters()
    counted.count = letters
    own = Watch(text, counted, silent)
    for code in codes:
        if own.see(code):
            return own.failed
    own.end("stop" if stop else "length", MOST)
    return own.failed


def texts(count, seed=0):
    """(text, voice, pace, layout, seed) of utterances."""
    draw, names = random.Random(seed), [path.stem for path in sorted(VOICES.glob("*.safetensors"))]
    for _ in range(count):
        text = " ".join(sentence(draw) for _ in range(draw.choices(*zip(*SENTENCES.items(), strict=True))[0]))
        pace, voice = draw.choice(PACES), draw.choice(names)
        layout = draw.choice(("streaming", "full"))
        yield text, f"{voice} + {pace}*@pace" if pace else voice, pace, layout, draw.randrange(2**32)


def record(count):
    """(Utterances, silent codes) of the miniature. The sound is decoded of those alone that are listened to: of each
    LISTENED-th, and of all that raise an alarm."""
    tts, hear = Qwen3TTS.from_pretrained("miniature", dtype="float32", library=VOICES), Hearing(RECOGNISER)
    silent, asked, made = tts.planner.silent, enumerate(texts(count)), {}
    generation, config, running = tts.generation([], [], tts.sampling), tts.sampling.override(max_tokens=MOST), {}
    while True:
        while len(running) < BATCH and (following := next(asked, None)):
            number, (text, voice, pace, layout, seed) = following
            prompt = tts.prompt(text, tts.voice(voice), text_mode=layout)
            running[generation.insert(prompt, seed, config)] = number, text, pace, prompt.text.tokens, []
        frame = generation.step()
        if frame is None:
            return [made[number] for number in sorted(made)], silent
        for row, codes in zip(frame.rows, np.array(frame.codes), strict=True):
            running[row][-1].append(codes)
        for row, reason in frame.ended.items():
            number, text, pace, tokens, codes = running.pop(row)
            said, first = words(text), [int(one[0]) for one in codes]
            one = Utterance(first, tokens, Letters(text).count, len(said), pace, reason == "stop")
            if codes and (number % LISTENED == 0 or judge(first, tokens, one.letters, silent, one.stop)):
                one.wrong = errors(said, hear(np.array(tts.codec.decode(np.stack(codes).astype(np.int32)))))
            made[number] = one
            if len(made) % 100 == 0:
                print(f"{len(made)} spoken", flush=True)


def write(file, made, silent):
    """Keep recorded utterances."""
    codes = np.concatenate([np.array(one.codes, np.uint16) for one in made])
    columns = {name: [getattr(one, name) for one in made] for name in ("tokens", "letters", "words", "wrong")}
    np.savez_compressed(
        file,
        codes=codes,
        frames=np.array([len(one.codes) for one in made], np.uint16),
        pace=np.array([one.pace for one in made], np.float16),
        stop=np.array([one.stop for one in made]),
        silent=np.array(sorted(silent), np.uint16),
        **{name: np.array(values, np.int16) for name, values in columns.items()},
    )


def read(file):
    """(Utterances, silent codes) that were kept."""
    with np.load(file) as kept:
        values = {name: kept[name].tolist() for name in kept.files}
    made, place = [], 0
    columns = zip(*(values[name] for name in ("tokens", "letters", "words", "pace", "stop", "wrong")), strict=True)
    for frames, row in zip(values["frames"], columns, strict=True):
        made.append(Utterance(values["codes"][place : place + frames], *row))
        place += frames
    return made, frozenset(values["silent"])


def faults(good, silent, seed=1):
    """{fault: [(codes, tokens, letters)]} made of good utterances."""
    draw, quiet = random.Random(seed), sorted(silent)
    made = {}

    def add(name, codes, one, share=1):
        made.setdefault(name, []).append((codes, one.tokens, round(one.letters * share)))

    def silence(seconds):
        return [draw.choice(quiet) for _ in range(round(seconds * 12.5))]

    for one in good:
        codes, other, frames = one.codes, draw.choice(good).codes, len(one.codes)
        for seconds in (1.2, 2):
            add(f"{seconds} s of silence before it", silence(seconds) + codes, one)
        for seconds in (2.4, 4):
            add(f"{seconds} s of silence behind it, then speech", codes + silence(seconds) + other, one)
        for period in (1, 4, 16):
            place = draw.randrange(frames)
            add(f"{period} frames again and again", codes[:place] + (codes * period)[place : place + period] * 75, one)
        endless = list(codes)
        while len(endless) <= max(watch.FLOOR, watch.PER_TOKEN * one.tokens):
            endless += draw.choice(good).codes
        add("other speech without an end", endless, one)
        for share in (2, 3, 4, 6):
            add(f"1/{share} of its frames", codes[: frames // share], one)
    return made


def figures(made):
    """The lines of a table of what good utterances are like, by the pace of their voice."""
    lines = [
        "| pace of the voice | spoken | good | frames a token | letters a frame | silence before and inside, frames |",
        "|---|---|---|---|---|---|",
    ]
    silent = made[1]
    for pace in sorted({one.pace for one in made[0]}):
        own = [one for one in made[0] if one.pace == pace]
        good = [one for one in own if one.good]
        slow = [len(one.codes) / one.tokens for one in good if one.tokens >= 8]
        spoken = [extent(one.codes, silent) for one in good]
        fast = [one.letters / max(1, last - first) for one, (first, last, _) in zip(good, spoken, strict=True)]
        before, inside = max(first for first, _, _ in spoken), max(gap for _, _, gap in spoken)
        lines.append(
            f"| {pace:+.1f} | {len(own)} | {len(good)} | {min(slow):.1f} to {max(slow):.1f} | "
            f"{min(fast):.2f} to {max(fast):.2f} | {before}, {inside} |"
        )
    return lines


def extent(codes, silent):
    """(first frame of speech, the one behind its last, the longest silence between) of codes 0."""
    sounding = [place for place, code in enumerate(codes) if code not in silent] or [0]
    gaps = [b - a - 1 for a, b in itertools.pairwise(sounding)]
    return sounding[0], sounding[-1] + 1, max(gaps, default=0)


def table(made, silent):
    """The lines of the tables, and all figures."""
    good, others = [one for one in made if one.good], [one for one in made if not one.good]
    lines = [*figures((made, silent)), "", "| | utterances | alarms | as |", "|---|---|---|---|"]
    told = {}

    def row(name, found):
        alarms = [check for check in found if check]
        kinds = ", ".join(f"{check} {alarms.count(check)}" for check in CHECKS if check in alarms)
        lines.append(f"| {name} | {len(found)} | {len(alarms)} ({len(alarms) / max(1, len(found)):.2%}) | {kinds} |")
        told[name] = [len(found), len(alarms)]

    def judged(utterances):
        return [judge(one.codes, one.tokens, one.letters, silent, one.stop) for one in utterances]

    row("good speech", judged(good))
    row("not understood, or without an end", judged(others))
    for name, cases in faults(good, silent).items():
        row(name, [judge(*case, silent) for case in cases])
    start, frames = time.perf_counter(), sum(len(one.codes) for one in good)
    judged(good)
    told["microseconds a frame"] = round(1e6 * (time.perf_counter() - start) / frames, 2)
    lines += ["", f"The guard takes {told['microseconds a frame']} µs a frame."]
    return lines, told


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=2120)
    options.add_argument("--write", metavar="FILE")
    options.add_argument("--recorded", metavar="FILE")
    options.add_argument("--json", action="store_true")
    options = options.parse_args()
    made, silent = read(options.recorded) if options.recorded else record(options.count)
    if options.write:
        write(options.write, made, silent)
    lines, told = table(made, silent)
    print("\n".join(lines))
    if options.json:
        print(json.dumps(told))


if __name__ == "__main__":
    main()
