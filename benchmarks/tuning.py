"""Voices that the miniature never heard, fitted from a few clips each, and judged on sentences of which it has none.

    python -m benchmarks.tuning --json FILE [--inside 10] [--outside 6] [--seed 78] [--only NAME …] [--iters 50]
    python -m benchmarks.tuning --json FILE --gates
    python -m benchmarks.tuning --cost MODEL [--clips 4] [--seconds 10]

espeak-ng speaks as voices drawn anew from the range that the miniature was taught (`in…`) and from beyond it (`out…`):
8 clips to learn from, 4 to hold out, 16 other sentences to judge by. Each voice is spoken with the x-vector of one
clip, with the mean x-vector of all, and with what was made of it; `kept` is what `tune vector` keeps. Printed of each:
the distance of its speech's vector to that of the codec's resynthesis of the same sentences, the F0 error in semitones
(off the first codebook, which counts the periods of a frame: within 0.1 semitones of pYIN), the word error rate by the
recogniser of tests/assets, the norm. FILE keeps what was measured, and a voice that is in it
is not measured again. With OpenBLAS preloaded all is several times as fast.

--gates prints the table and the gates of what FILE has, and tries blends of pairs of voices and steps along @pitch,
with the kept vectors and with the x-vectors they began with.

--cost measures a step of a model of any size, random ones included: CPU time, time, peak memory, and what was expected.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import soundfile

from mlx_qwen3tts import Direction, Qwen3TTS
from mlx_qwen3tts.networks.linear import Linear
from mlx_qwen3tts.tuning.data import held_out, read_data
from mlx_qwen3tts.tuning.loss import batch, example, losses
from mlx_qwen3tts.tuning.takes import Codes, listen, usable
from mlx_qwen3tts.tuning.vector import OLD, Options, VectorFit
from mlx_qwen3tts.voices.voice import Voice
from training.espeak import Espeak, Speaker
from training.evaluate import LINES, STEPS, STRENGTHS
from training.hearing import Hearing
from training.language import FIXED, plain, sentence

CLIPS, JUDGED = 12, 16  # of the clips 4 are held out
RECOGNISER = Path(__file__).parents[1] / "tests" / "assets" / "recogniser.safetensors"
SEMITONE = 12 / np.log(2)
PAIRS = 10
LONGEST = 100  # tokens
BEYOND = (  # (attribute, from, to): what the voices outside have in turn, the rest drawn from the range
    ("formants", 1.24, 1.32),  # at most 1.18
    ("f0", 270, 330),  # at most 240 Hz
    ("formants", 0.75, 0.80),  # at least 0.86
    ("f0", 58, 68),  # at least 80 Hz
    ("pace", 185, 210),  # at most 165 words a minute
    ("tilt", 1.5, 2.0),  # at most 1
)


def drawn(count, seed):
    """{name: Speaker} within the range, by a seed that the corpus was not drawn by."""
    generator = random.Random(seed)
    return {f"in{i + 1}": Speaker.draw(generator) for i in range(count)}


def beyond(count, seed):
    """{name: Speaker} with one attribute outside the range each."""
    generator, found = random.Random(f"{seed}/outside"), {}
    for i in range(count):
        name, low, high = BEYOND[i % len(BEYOND)]
        found[f"out{i + 1}"] = Speaker(**{**vars(Speaker.draw(generator)), name: generator.uniform(low, high)})
    return found


def lines(generator, count, but=()):
    """Sentences of six words or more, none of which everybody says."""
    found = []
    while len(found) < count:
        line = sentence(generator)
        if len(plain(line).split()) >= 6 and plain(line) not in FIXED and plain(line) not in map(plain, [*found, *but]):
            found.append(line)
    return found


def dequantised(layer):
    """A quantised layer as a plain one of the same numbers, which OpenBLAS multiplies seven times as fast."""
    how = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
    weight = mx.dequantize(layer.weight, layer.scales, layer.get("biases"), **how)
    made = Linear(weight.shape[1], weight.shape[0], bias="bias" in layer)
    made.weight = weight
    if "bias" in layer:
        made.bias = layer.bias
    made.lay_out()
    return made


def dequantise(module):
    """Replace all quantised layers within a module."""

    def replaced(value):
        if isinstance(value, nn.QuantizedLinear):
            return dequantised(value)
        if isinstance(value, nn.Module):
            dequantise(value)
        return [replaced(part) for part in value] if isinstance(value, list) else value

    for name, value in list(module.items()):
        module[name] = replaced(value)


def f0(codes):
    """F0 in Hz of codes [F, codebooks], several: the geometric mean of the voiced frames of all."""
    periods = np.concatenate([own[:, 0] for own in codes])
    return float(12.5 * np.exp(np.log(periods[periods > 0]).mean())) if (periods > 0).any() else float("nan")


class Bench:
    def __init__(self, work, options):
        self.work, self.options = work, options
        self.tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
        dequantise(self.tts.talker)
        self.hear = Hearing(RECOGNISER)
        self.espeak = Espeak(work)

    def heard(self, sounds):
        """The vector of all sounds as one."""
        return self.tts.speaker_encoder.embed(mx.array(np.concatenate(sounds)))

    def again(self, sound):
        """The codes of a sound, and what the codec makes of them."""
        codes = self.tts.codec.encode((sound, 24000))
        return np.array(codes), np.array(self.tts.codec.decode(codes))

    def speak(self, texts, vector):
        """[Speech] of each text in a voice, sampled."""
        seeds = list(range(len(texts)))
        return self.tts.generate_batch(
            texts, vector, batch_size=16, languages="english", seeds=seeds, max_tokens=LONGEST
        )

    def pitches(self, vectors):
        """The F0 of each vector's greedy speech, which is not decoded."""
        prompts = [
            self.tts.prompt(text, Voice(vector), "english", None, "streaming", LONGEST)
            for vector in vectors
            for text in LINES
        ]
        config, spoken = self.tts.sampling.override(greedy=True, max_tokens=LONGEST), [[] for _ in prompts]
        for frame in self.tts.generation(prompts, range(len(prompts)), config):
            for row, codes in zip(frame.rows, np.array(frame.codes), strict=True):
                spoken[row].append(codes)
        count = len(LINES)
        rows = [np.stack(codes) for codes in spoken]
        return [f0(rows[start : start + count]) for start in range(0, len(rows), count)]

    def judged(self, vector, texts, target, pitch):
        """The figures of a vector that speaks the texts."""
        spoken = self.speak(texts, vector)
        sounds = [np.array(speech.audio) for speech in spoken]
        return {
            "distance": float(mx.linalg.norm(self.heard(sounds) - target)),
            "f0": float(np.log(f0([np.array(speech.codes) for speech in spoken]) / pitch) * SEMITONE),
            "wer": self.hear.error_rate(texts, sounds),
            "norm": float(mx.linalg.norm(vector)),
            "ended": sum(speech.finish_reason == "stop" for speech in spoken),
        }

    def lesson(self, name, speaker):
        """A voice's Takes to learn from, what `judged` asks for, and the word error rate of its sentences by
        the codec."""
        generator = random.Random(f"{self.options.seed}/{name}")
        texts = lines(generator, CLIPS)
        own = lines(generator, JUDGED, texts)
        folder = self.work / name
        folder.mkdir()
        self.espeak.use(speaker)
        clips = [self.espeak.say(text) for text in texts]
        for number, (text, sound) in enumerate(zip(texts, clips, strict=True)):
            soundfile.write(folder / f"{number}.wav", sound, 24000)
            (folder / f"{number}.txt").write_text(text)
        meant = [self.espeak.say(text) for text in own]
        codes, again = zip(*map(self.again, meant), strict=True)
        data = held_out(usable(read_data(folder), skip=False)[0], 0)
        takes = listen(data, Codes(self.tts.codec, self.work / "codes"), self.tts.speaker_encoder.embed)
        return takes, (own, self.heard(again), f0(codes)), self.hear.error_rate(own, again)

    def voice(self, name, speaker):
        """All figures of a voice, and what `tune vector` says of it."""
        takes, asked, misheard = self.lesson(name, speaker)
        start = time.perf_counter()
        chosen = {"iters": self.options.iters, "language": "english"}
        if self.options.anchor is not None:
            chosen["anchor"] = self.options.anchor
        tuning = VectorFit(self.tts, takes, Options(**chosen))
        held = [round(row.valid, 3) for row in tuning.fit if row.valid is not None]
        verdict = tuning.verdict()
        seconds = time.perf_counter() - start
        print(f"{name:6}held out {held}, kept of step {tuning.fit.best_step}, {seconds:.0f} s", flush=True)
        vectors = {"one clip": takes.train[0].vector, "x-vector": tuning.start}
        if verdict.kept != OLD:
            vectors["kept"] = verdict.vector
        figures = {kind: self.judged(vector, *asked) for kind, vector in vectors.items()}
        vectors["kept"], figures["kept"] = verdict.vector, figures.get("kept", figures["x-vector"])
        floor = self.heard([np.array(self.tts.codec.decode(take.codes)) for take in takes.all])
        figures["codec"] = {
            "floor": float(mx.linalg.norm(floor - asked[1])),
            "wer": misheard,
        }
        for kind, row in figures.items():
            shown = "  ".join(f"{key} {value:6.2f}" for key, value in row.items())
            print(f"{name:6}{kind:10}{shown}", flush=True)
        for kind, row in verdict.figures.items():
            heard = f"distance {row.distance:.2f}, clarity {row.clarity:.2f}"
            print(f"{name:6}judge: {kind:10}{heard} {'; '.join(verdict.reasons.get(kind, []))}")
        print(f"{name:6}keeps {verdict.kept}", flush=True)
        return {
            "speaker": vars(speaker),
            "figures": figures,
            "judge": {kind: row.as_dict() for kind, row in verdict.figures.items()},
            "kept": verdict.kept,
            "reasons": verdict.reasons,
            "seconds": seconds,
            "vectors": {kind: np.array(vector).tolist() for kind, vector in vectors.items()},
        }


def gates(results):
    """The figures of all voices together: {name: (value, bound)}; each is to be at most its bound."""
    inside = [result["figures"] for name, result in results.items() if name.startswith("in")]
    outside = [result for name, result in results.items() if name.startswith("out")]
    found = {}
    if inside:
        ratios = [row["kept"]["distance"] / row["one clip"]["distance"] for row in inside]
        found["inside: median distance over that of one clip's x-vector"] = statistics.median(ratios), 0.7
        found["inside: median F0 error, semitones"] = statistics.median(abs(row["kept"]["f0"]) for row in inside), 0.2
        worse = statistics.mean(row["kept"]["wer"] - row["x-vector"]["wer"] for row in inside)
        found["inside: word error rate above the x-vector's"] = worse, 0.02
        norms = max(abs(row["kept"]["norm"] / row["x-vector"]["norm"] - 1) for row in inside)
        found["inside: largest change of a norm"] = norms, 0.3
    if outside:
        found["outside: voices made worse and kept"] = sum(map(worsened, outside)), 0
    return found


def worsened(result):
    """Whether a voice that is kept is further off than the x-vector, by more than noise."""
    figures = result["figures"]
    return figures["kept"]["distance"] > 1.1 * figures["x-vector"]["distance"]


def one_way(heard):
    """Whether F0s move one way, at every step."""
    moves = np.diff(heard) * np.sign(heard[-1] - heard[0])
    return bool((moves > 0).all())


def pairs(results, seed=7):
    """PAIRS pairs of names whose voices are meant to be four semitones apart or more, the lower one first."""
    generator, found = random.Random(seed), []
    pitches = {name: result["speaker"]["f0"] for name, result in results.items() if name.startswith("in")}
    apart = [(a, b) for a in pitches for b in pitches if pitches[b] > 1.3 * pitches[a]]
    generator.shuffle(apart)
    for pair in apart[:PAIRS]:
        found.append(pair)
    return found


def blends(bench, results, kind):
    """The F0s along each pair's blends; kind: of the vectors."""
    for one, other in pairs(results):
        a, b = (mx.array(results[name]["vectors"][kind], mx.float32) for name in (one, other))
        yield f"{one} to {other}", bench.pitches([(1 - t) * a + t * b for t in STEPS])


def slides(bench, results, kind):
    """The F0s of each voice inside moved along @pitch; kind: of the vectors."""
    direction = Direction.load(bench.tts.folder.folder / "voices" / "directions" / "pitch.safetensors")
    for name, result in results.items():
        if name.startswith("in"):
            vector = mx.array(result["vectors"][kind], mx.float32)
            yield name, bench.pitches([direction.apply(vector, strength) for strength in STRENGTHS])


def table(results):
    """The figures of all voices, as Markdown."""
    kinds = ("one clip", "x-vector", "kept", "codec")
    yield f"| voice | {' | '.join(kinds)} | which | times one clip's |"
    yield "|---" * (len(kinds) + 3) + "|"
    for name, result in results.items():
        figures = result["figures"]
        cells = ["{distance:.2f} / {f0:+.2f} / {wer:.2f} / {norm:.1f}".format(**figures[kind]) for kind in kinds[:3]]
        cells.append("{floor:.2f} / {wer:.2f}".format(**figures["codec"]))
        ratio = figures["kept"]["distance"] / figures["one clip"]["distance"]
        yield f"| {name} | {' | '.join(cells)} | {result['kept']} | {ratio:.2f} |"


def report(bench, results):
    """The table, the gates, and what blends and slides do."""
    print("\n".join(table(results)))
    for name, (value, bound) in gates(results).items():
        print(f"{'met   ' if value <= bound else 'MISSED'}  {name}: {value:.3f} (≤ {bound:g})")
    for what, tried in (("blends of pairs", blends), ("voices along @pitch", slides)):
        for kind in ("kept", "x-vector"):
            heard = dict(tried(bench, results, kind))
            for name, values in heard.items():
                print(f"        {kind:9} {name:12} {' '.join(f'{value:6.1f}' for value in values)}", flush=True)
            good, least = sum(map(one_way, heard.values())), round(0.9 * len(heard))
            said = f"{what}, {kind}: F0 moves one way in {good} of {len(heard)}"
            print(f"{'met   ' if good >= least else 'MISSED'}  {said} (≥ {least})", flush=True)


def cost(options):
    """A step of a model on random codes: what it takes, and what it was expected to take."""
    start = time.perf_counter()
    tts = Qwen3TTS.from_pretrained(options.cost, options.dtype)
    loaded, config = mx.get_active_memory(), tts.config
    frames = round(options.seconds * 12.5)
    random_codes = np.random.RandomState(0).randint(0, 2048, (options.clips, frames, config.talker.num_code_groups))
    vector = mx.random.normal((tts.embedding_dim,), key=mx.random.key(0))
    nobody = Voice(mx.zeros(tts.embedding_dim))
    prompt = tts.prompt("The weather is fine today, and in the afternoon we walk.", nobody, "auto", None, "streaming")
    given = batch([example(tts.talker, prompt, mx.array(c)) for c in random_codes], config.talker.codec_eos_token_id)
    print(f"loaded in {time.perf_counter() - start:.0f} s: {loaded / 1e9:.2f} GB in {tts.talker.dtype}")
    for recompute in (False, True):
        sample = mx.arange(min(options.frames, given.frames.size))

        def total(v, recompute=recompute, sample=sample):
            first, rest = losses(tts.talker, given, v, sample, recompute)
            return first + 0.3 * rest

        mx.clear_cache()
        mx.reset_peak_memory()
        begun, cpu = time.perf_counter(), time.process_time()
        loss, gradient = mx.value_and_grad(total)(vector)
        mx.eval(loss, gradient)
        took, cpu = time.perf_counter() - begun, time.process_time() - cpu
        peak = (mx.get_peak_memory() - loaded) / 1e9
        expected = activations(config, given.inputs.shape, sample.size, tts.talker.dtype.size, recompute) / 1e9
        print(
            f"{options.clips} clips of {options.seconds:g} s, {sample.size} frames for the predictor, "
            f"{'recomputed' if recompute else 'kept'}: {cpu:.1f} s of CPU, {took:.1f} s, "
            f"{peak:.2f} GB beside the weights, {expected:.2f} expected",
            flush=True,
        )


def activations(config, shape, frames, size, recompute):
    """Bytes that a step keeps for its gradient: of every layer its input alone, or what attention and MLP computed; and
    the logits in float32, three times (logits, softmax, gradient)."""
    total = 0
    for part, positions, length in (
        (config.talker, shape[0] * shape[1], shape[1]),
        (config.predictor, frames * config.talker.num_code_groups, config.talker.num_code_groups),
    ):
        heads = (part.num_attention_heads + 2 * part.num_key_value_heads) * part.head_dim
        inner = 4 * part.hidden_size + 3 * heads + 2 * part.num_attention_heads * part.head_dim
        inner += 5 * part.intermediate_size + part.num_attention_heads * length
        layers = part.num_hidden_layers
        per = layers * part.hidden_size + inner if recompute else layers * inner
        total += positions * per * size
        logits = part.vocab_size * (positions if part is config.talker else positions - frames)
        total += 3 * 4 * logits
    return total


def arguments(doc, seed, frames):
    """A parser of what benchmarks of voices and of a step's cost have in common."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--inside", type=int, default=10, metavar="N")
    parser.add_argument("--outside", type=int, default=6, metavar="N")
    parser.add_argument("--seed", type=int, default=seed, help="of the voices and their sentences")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--iters", type=int, default=50)
    parser.add_argument("--cost", metavar="MODEL")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--frames", type=int, default=frames)
    return parser


def kept(file):
    """{name: results} of a file, which need not be there yet."""
    return json.loads(file.read_text()) if file and file.exists() else {}


def measure(bench, results, options):
    """Measure the voices that results lack, and keep each in options.json as it comes."""
    voices = {**drawn(options.inside, options.seed), **beyond(options.outside, options.seed)}
    for name, speaker in voices.items():
        if name not in results and (options.only is None or name in options.only):
            results[name] = bench.voice(name, speaker)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1))


def main():
    parser = arguments(__doc__, 78, 128)
    parser.add_argument("--anchor", type=float)
    parser.add_argument("--gates", action="store_true")
    options = parser.parse_args()
    if options.cost:
        cost(options)
        return
    if options.json is None:
        parser.error("--json FILE keeps what is measured")
    results = kept(options.json)
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(work), options)
        if options.gates:
            report(bench, results)
        else:
            measure(bench, results, options)


if __name__ == "__main__":
    main()
