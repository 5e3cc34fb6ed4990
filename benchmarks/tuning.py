"""Voices that the miniature never heard, fitted from a few clips each, and judged on sentences of which it has none.

    python -m benchmarks.tuning [--inside 10] [--only NAME …] [--iters 50] [--json FILE]
    python -m benchmarks.tuning --cost MODEL [--clips 4] [--seconds 10]

espeak-ng speaks as voices drawn anew from the range that the miniature was taught (`in…`) and from beyond it (`out…`):
8 clips to learn from, 4 to hold out, 6 other sentences to judge by. Each voice is spoken with the x-vector of one clip,
with the mean x-vector of all, and with the fitted vector; `kept` is what `tune vector` keeps. Printed of each: the
distance of its speech's vector to that of the codec's resynthesis of the same sentences, the F0 error in semitones, the
word error rate by the recogniser of tests/assets, the norm. At the end stand the gates, with blends of fitted voices.
With OpenBLAS preloaded it is several times as fast.

--cost measures a step of a model of any size, random ones included: CPU time, time, peak memory, and what was expected.
"""

import argparse
import itertools
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

from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.networks.linear import Linear
from mlx_qwen3tts.tuning.data import held_out, read_data
from mlx_qwen3tts.tuning.loss import batch, example, losses
from mlx_qwen3tts.tuning.takes import Codes, listen, usable
from mlx_qwen3tts.tuning.vector import Options, VectorFit
from mlx_qwen3tts.voices.voice import Voice
from training.acoustics import f0
from training.espeak import Espeak, Speaker
from training.evaluate import LINES
from training.hearing import Hearing
from training.language import FIXED, plain, sentence

CLIPS, JUDGED = 12, 6  # of the clips 4 are held out
RECOGNISER = Path(__file__).parents[1] / "tests" / "assets" / "recogniser.safetensors"
SEMITONE = 12 / np.log(2)
OUTSIDE = {
    "out1": Speaker(150, 1.30, 0.0, 145),  # formants beyond 1.18
    "out2": Speaker(320, 1.10, 0.2, 145),  # pitch beyond 240 Hz
    "out3": Speaker(120, 0.78, 0.0, 175),  # formants below 0.86, pace beyond 165
    "out4": Speaker(62, 0.95, -0.3, 140),  # pitch below 80 Hz
    "out5": Speaker(170, 1.02, 0.0, 205),  # pace
    "out6": Speaker(140, 1.00, 1.8, 105),  # tilt beyond 1, pace below 125
}


def drawn(count, seed=77):
    """{name: Speaker} within the range, by a seed that the corpus was not drawn by."""
    generator = random.Random(seed)
    return {f"in{i + 1}": Speaker.draw(generator) for i in range(count)}


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

    def judged(self, vector, texts, target, pitch):
        """The figures of a vector that speaks the texts."""
        spoken = self.tts.generate_batch(texts, vector, languages="english", greedy=True, max_tokens=100)
        sounds = [np.array(speech.audio) for speech in spoken]
        return {
            "distance": float(mx.linalg.norm(self.heard(sounds) - target)),
            "f0": float(np.log(f0(np.concatenate(sounds)) / pitch) * SEMITONE),
            "wer": self.hear.error_rate(texts, sounds),
            "norm": float(mx.linalg.norm(vector)),
            "ended": sum(speech.finish_reason == "stop" for speech in spoken),
        }

    def voice(self, name, speaker):
        """All figures of a voice, and what `tune vector` says of it."""
        generator = random.Random(name)
        texts = lines(generator, CLIPS)
        own = lines(generator, JUDGED, texts)
        folder = self.work / name
        folder.mkdir()
        self.espeak.use(speaker)
        for number, text in enumerate(texts):
            soundfile.write(folder / f"{number}.wav", self.espeak.say(text), 24000)
            (folder / f"{number}.txt").write_text(text)
        meant = [self.espeak.say(text) for text in own]
        again = [np.array(self.tts.codec.decode(self.tts.codec.encode((sound, 24000)))) for sound in meant]
        target = self.heard(again)
        pitch = f0(np.concatenate(meant))
        start = time.perf_counter()
        data = held_out(usable(read_data(folder), skip=False)[0], 0)
        codes = Codes(self.tts.codec, self.work / "codes")
        takes = listen(data, codes, self.tts.speaker_encoder.embed)
        chosen = {"iters": self.options.iters, "language": "english"}
        if self.options.anchor is not None:
            chosen["anchor"] = self.options.anchor
        tuning = VectorFit(self.tts, takes, Options(**chosen))
        held = [round(row.valid, 3) for row in tuning.fit if row.valid is not None]
        print(f"{name:6}held out {held}, kept of step {tuning.fit.best_step}", flush=True)
        seconds = time.perf_counter() - start
        verdict = tuning.verdict()
        vectors = {"one clip": takes.train[0].vector, "x-vector": tuning.start, "fitted": tuning.best}
        figures = {kind: self.judged(vector, own, target, pitch) for kind, vector in vectors.items()}
        if verdict.kept not in figures:
            figures[verdict.kept] = self.judged(verdict.vector, own, target, pitch)
        figures["kept"] = figures[verdict.kept]
        figures["codec"] = {"f0": float(np.log(f0(np.concatenate(again)) / pitch) * SEMITONE)}
        figures["codec"]["wer"] = self.hear.error_rate(own, again)
        for kind, row in figures.items():
            shown = "  ".join(f"{key} {value:6.2f}" for key, value in row.items())
            print(f"{name:6}{kind:10}{shown}", flush=True)
        said = "; ".join(f"{kind}: {', '.join(reasons)}" for kind, reasons in verdict.reasons.items() if reasons)
        print(f"{name:6}keeps {verdict.kept}; {said}; {seconds / tuning.options.iters:.2f} s a step", flush=True)
        result = {"figures": figures, "kept": verdict.kept, "reasons": verdict.reasons, "seconds": seconds}
        return {**result, "speaker": vars(speaker), "vector": np.array(verdict.vector).tolist()}


def gates(results):
    """The figures of all voices together: {name: (value, bound, whether it must be at most that)}."""
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
    worse = [row for row in outside if row["figures"]["kept"]["distance"] > worst(row)]
    found["outside: voices made worse and kept"] = len(worse), 0
    return found


def worst(result):
    """The distance above which a kept voice is worse than the x-vector: that of the x-vector and what is noise."""
    return 1.1 * result["figures"]["x-vector"]["distance"]


def blends(bench, results):
    """Of neighbouring pairs of fitted voices, how many have an F0 that moves one way over five blends."""
    vectors = [mx.array(result["vector"], mx.float32) for name, result in results.items() if name.startswith("in")]
    monotone, pairs = 0, list(itertools.pairwise(vectors))
    for one, other in pairs:
        steps = [(1 - t) * one + t * other for t in (0, 0.25, 0.5, 0.75, 1)]
        texts = LINES * len(steps)
        speeches = bench.tts.generate_batch(
            list(texts), [v for v in steps for _ in LINES], languages="english", greedy=True, max_tokens=100
        )
        sounds = [np.array(speech.audio) for speech in speeches]
        count = len(LINES)
        heard = [f0(np.concatenate(sounds[k : k + count])) for k in range(0, len(sounds), count)]
        moves = np.diff(np.log(heard)) * SEMITONE * np.sign(heard[-1] - heard[0])
        monotone += bool((moves > -0.15).all())
        print("blend", np.round(heard, 1).tolist(), flush=True)
    return monotone, len(pairs)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", type=int, default=10, metavar="N")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--iters", type=int, default=50)
    parser.add_argument("--anchor", type=float)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cost", metavar="MODEL")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--frames", type=int, default=128)
    options = parser.parse_args()
    if options.cost:
        cost(options)
        return
    voices, results = {**drawn(options.inside), **OUTSIDE}, {}
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(work), options)
        for name, speaker in voices.items():
            if options.only is None or name in options.only:
                results[name] = bench.voice(name, speaker)
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1))
        for name, (value, bound) in gates(results).items():
            print(f"{'met   ' if value <= bound else 'MISSED'}  {name}: {value:.3f} (≤ {bound:g})")
        if sum(name.startswith("in") for name in results) > 1:
            print("blends of fitted voices with F0 monotone: {} of {}".format(*blends(bench, results)))


if __name__ == "__main__":
    main()
