"""What a step of `tune lora` takes, and what adapters make of voices that the miniature never heard.

    python -m benchmarks.adapters --cost MODEL [--dtype bfloat16] [--clips 4] [--seconds 10] [--frames 96]
    python -m benchmarks.adapters [--inside 10] [--outside 6] [--seed 79] [--only NAME …] [--iters 50] [--json FILE]

--cost: the time and the peak memory of one step at the published shapes, random weights will do, with activations kept
and recomputed (`--grad-checkpoint`), beside what the model of memory below expects.

Otherwise espeak-ng speaks as in `benchmarks.tuning`, 8 clips to learn from and 4 to hold out, and each voice is judged
on 16 other sentences with the x-vector of one clip, with the mean x-vector, and with what `tune lora --vector` keeps.
"""

import statistics
import tempfile
import time
from pathlib import Path

import mlx.core as mx
import numpy as np

from benchmarks.tuning import Bench, activations, arguments, kept, measure
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.tuning import lora
from mlx_qwen3tts.tuning.data import Clip
from mlx_qwen3tts.tuning.lora import LoraFit, LoraOptions
from mlx_qwen3tts.tuning.takes import Take, Takes

RATE = 12.5  # frames a second
TEXT = "The weather is fine today, and in the afternoon we walk."
ADAM = 4  # numbers of float32 that every parameter takes: itself, its gradient, two moments


class Nobody:
    """A judge that hears nothing."""

    def __init__(self, *_):
        pass


def cost(options):
    """A step on random codes: CPU time, time and peak memory, kept and recomputed."""
    lora.Judge = Nobody
    start = time.perf_counter()
    tts = Qwen3TTS.from_pretrained(options.cost, options.dtype)
    loaded, config = mx.get_active_memory(), tts.config
    frames = round(options.seconds * RATE)
    draw, takes = np.random.RandomState(0), []
    for number in range(options.clips + 1):
        codes = draw.randint(0, config.predictor.vocab_size, (frames, config.talker.num_code_groups)).astype(np.int32)
        vector = mx.array(draw.normal(0, 0.3, tts.embedding_dim).astype(np.float32))
        takes.append(
            Take(Clip(Path(f"{number}.wav"), TEXT, str(number)), mx.array(codes), vector, options.seconds, None)
        )
    print(f"loaded in {time.perf_counter() - start:.0f} s: {loaded / 1e9:.2f} GB in {tts.talker.dtype}", flush=True)
    for recompute in (False, True):
        chosen = LoraOptions(
            batch_size=options.clips, vector=True, sample=options.frames, grad_checkpoint=recompute, iters=1
        )
        tuning = LoraFit(tts, Takes(takes[:-1], takes[-1:], []), chosen)
        tuning.fit.evaluate, tuning.fit.listen = lambda _: 1.0, lambda *_: None
        numbers = list(range(options.clips))
        given = tuning.batch(numbers, 0)
        gradient = mx.value_and_grad(tuning.objective)
        mx.clear_cache()
        mx.reset_peak_memory()
        begun, cpu, before = time.perf_counter(), time.process_time(), mx.get_active_memory()
        (loss, _), gradients = gradient(tuning.fit.parameters, numbers, 0)
        changed = tuning.fit.optimizer.apply_gradients(gradients, tuning.fit.parameters)
        mx.eval(loss, changed, tuning.fit.optimizer.state)
        took, cpu = time.perf_counter() - begun, time.process_time() - cpu
        peak = (mx.get_peak_memory() - before) / 1e9
        count = sum(a.size + b.size for a, b in lora.matrices_of(tuning.fit.parameters["adapters"]).values())
        kept = activations(
            config, given.inputs.shape, min(options.frames, given.frames.size), tts.talker.dtype.size, recompute
        )
        expected = (kept + ADAM * 4 * count) / 1e9
        print(
            f"{options.clips} clips of {options.seconds:g} s, {options.frames} frames for the predictor, {count:,} "
            f"parameters, {'recomputed' if recompute else 'kept'}: {cpu:.1f} s of CPU, {took:.1f} s, {peak:.2f} GB "
            f"beside the weights, {expected:.2f} expected",
            flush=True,
        )
        del tuning, gradients, changed, loss


class Adapters(Bench):
    """Voices that are judged with an adapter of their own."""

    def voice(self, name, speaker):
        takes, asked, misheard = self.lesson(name, speaker)
        start = time.perf_counter()
        tuning = LoraFit(self.tts, takes, LoraOptions(iters=self.options.iters, vector=True, language="english"))
        list(tuning.fit)
        seconds = time.perf_counter() - start
        tuning.end()
        adapter, vectors = tuning.best
        figures = {
            "one clip": self.judged(takes.train[0].vector, *asked),
            "x-vector": self.judged(tuning.start[0], *asked),
        }
        self.tts.adapt(adapter)
        figures["kept"] = self.judged(vectors[lora.NOBODY], *asked)
        self.tts.adapt(None)
        figures["codec"] = {"wer": misheard}
        for kind, row in figures.items():
            shown = "  ".join(f"{key} {value:6.2f}" for key, value in row.items())
            print(f"{name:6}{kind:10}{shown}", flush=True)
        heard = {step: round(one.distance, 2) for step, one in tuning.fit.heard.items()}
        print(f"{name:6}keeps step {tuning.fit.best_step}; heard {heard}; {seconds:.0f} s", flush=True)
        return {"figures": figures, "kept": tuning.fit.best_step, "seconds": seconds}


def main():
    options = arguments(__doc__, 79, 96).parse_args()
    if options.cost:
        cost(options)
        return
    results = kept(options.json)
    with tempfile.TemporaryDirectory() as work:
        measure(Adapters(Path(work), options), results, options)
    inside = [row["figures"] for name, row in results.items() if name.startswith("in")]
    if inside:
        ratio = statistics.median(row["kept"]["distance"] / row["one clip"]["distance"] for row in inside)
        verdict = "met   " if ratio <= 0.5 else "MISSED"
        print(f"{verdict}  inside: median distance over that of one clip: {ratio:.3f} (≤ 0.5)")


if __name__ == "__main__":
    main()
