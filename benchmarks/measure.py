"""What `benchmarks.bench` measures, each a function of a loaded model. Times are medians after a warm-up, in seconds.

On a GPU, and with `mx.async_eval` on a CPU device too, a graph is built by Python and computed behind its back. The
loops here wait for every step, so that the two can be told apart: a part's time is that from `mx.eval` to the end; the
building, which the real loop does while the device computes, is measured once for a whole frame (`host`).
"""

import statistics
import time
from dataclasses import dataclass
from unittest import mock

import mlx.core as mx
from mlx.utils import tree_flatten

from benchmarks.workers.memory import Memory
from mlx_qwen3tts.networks.device import on_gpu
from mlx_qwen3tts.networks.linear import Linear
from mlx_qwen3tts.synthesis.decoding import Decoding
from mlx_qwen3tts.synthesis.loop import Frame
from mlx_qwen3tts.synthesis.sampling import noise_keys
from mlx_qwen3tts.synthesis.speech import wired_limit
from mlx_qwen3tts.voices.voice import Voice

SEED = 1
STEPS = 10  # of a part, in each of the repeats
CODEC_FRAMES = 50
POSITIONS = (100, 2000)


@dataclass
class Speaker:
    """Who speaks: a model, a voice and, for VoiceDesign, an instruction. The seed is always SEED."""

    tts: object
    voice: Voice | None
    instruct: str | None = None

    def generate(self, text, frames):
        return self.tts.generate(text, self.voice, instruct=self.instruct, max_tokens=frames + 1, seed=SEED)

    def stream(self, text, frames):
        """Hear all of a text; the statistics of it."""
        stream = self.tts.stream(text, self.voice, instruct=self.instruct, max_tokens=frames + 1, seed=SEED)
        for _ in stream:
            pass
        return stream.stats

    def generate_batch(self, texts, frames):
        return self.tts.generate_batch(
            texts, self.voice, instructs=self.instruct, max_tokens=frames + 1, seeds=list(range(len(texts)))
        )

    def generation(self, text, frames):
        """The loop that `generate` runs, for a text; its `step` has the model's own sampling."""
        prompt = self.tts.prompt(text, self.voice, instruct=self.instruct, max_tokens=frames + 1)
        return self.tts.generation([prompt], [SEED], self.tts.sampling.override(max_tokens=frames + 1))


def median_of(dicts, key):
    return statistics.median(values[key] for values in dicts)


def speak(speaker, text, frames, repeats):
    """A text, of `frames` frames at most, from beginning to end: whole through `generate`, heard through `stream`."""
    whole, heard = [], []
    for _ in range(repeats):
        speech = speaker.generate(text, frames)
        whole.append(speech.stats)
        heard.append(speaker.stream(text, frames))
    return {
        "frames": whole[0]["frames"],
        "seconds": whole[0]["seconds"],
        "finish_reason": speech.finish_reason,
        "elapsed": median_of(whole, "elapsed"),
        "rtf": median_of(whole, "rtf"),
        "frames_per_second": median_of(whole, "frames_per_second"),
        "peak_memory": max(stats["peak_memory"] for stats in whole),
        "stream": {
            "rtf": median_of(heard, "rtf"),
            "first_audio": median_of(heard, "first_audio"),
            "largest_gap": median_of(heard, "largest_gap"),
            "peak_memory": max(stats["peak_memory"] for stats in heard),
        },
    }


def batch(speaker, text, size, frames, repeats):
    """`size` equal texts at once, sound included: the frames of all of them a second."""
    texts = [text] * size
    speaker.generate_batch(texts, 2)  # a batch size compiles a function of its own
    runs = [speaker.generate_batch(texts, frames) for _ in range(repeats)]
    whole = [speeches[0].stats for speeches in runs]
    return {
        "frames": sum(speech.stats["frames"] for speech in runs[0]),
        "elapsed": median_of(whole, "elapsed"),
        "rtf": median_of(whole, "rtf"),
        "frames_per_second": median_of(whole, "frames_per_second"),
        "peak_memory": max(stats["peak_memory"] for stats in whole),
    }


def waited(*arrays):
    """Seconds until arrays whose graph is built are computed."""
    start = time.perf_counter()
    mx.eval(*arrays)
    return time.perf_counter() - start


def talker_steps(talker, config, position, steps):
    """Seconds of each of `steps` talker steps, one after the other, from a position on. The first two are left out.

    The cache is filled with noise, as what is in it does not matter for the time. Its growth, a copy every 256 frames,
    is no part of this.
    """
    caches, dtype = talker.make_cache(), talker.dtype
    shape = 1, config.num_key_value_heads, position, config.head_dim
    for cache in caches:
        cache.update(mx.random.normal(shape).astype(dtype), mx.random.normal(shape).astype(dtype))
    mx.eval([cache.state for cache in caches])
    x, times = mx.random.normal((1, 1, config.hidden_size)).astype(dtype), []
    for _ in range(2 + steps):
        logits, x = talker(x, caches)
        times.append(waited(logits, x))
    return times[2:]


def predictor_frames(step, talker, config, steps):
    """Seconds of each of `steps` predictor frames, one after the other: what a FrameStep does, all sampling included.

    Each frame's embedding is the hidden state that the next one starts from. The first two are left out.
    """
    dtype, seen, times = talker.dtype, step.sampler.unseen(1), []
    logits = mx.random.normal((1, config.vocab_size)).astype(dtype)
    hidden = mx.random.normal((1, 1, config.hidden_size)).astype(dtype)
    mx.eval(logits, hidden)
    for frame in range(2 + steps):
        first, codes, hidden, seen = step(logits, hidden, seen, frame, noise_keys([SEED], frame))
        times.append(waited(first, codes, hidden, seen))
    return times[2:]


def codec_frame(decoder, codes, schedule):
    """Seconds a frame of decoding codes [frames, codebooks] in chunks of a schedule, each waited for."""
    frames = [Frame([0], codes[i : i + 1]) for i in range(len(codes))]
    start = time.perf_counter()
    for audio, _ in Decoding(frames, decoder, schedule):
        mx.eval(audio)
    return (time.perf_counter() - start) / len(frames)


def host_frames(generation, frames):
    """Seconds in which each of `frames` frames' graphs is built, by the loop's own code.

    `mx.async_eval` does nothing meanwhile, as on a CPU device it waits for its turn; the frame is computed between two
    measurements. What `async_eval` itself takes on the calling thread is therefore no part of this. The codec's graph,
    once a chunk, is no part either. The first frame is left out: it has no talker step.
    """
    times = []
    with mock.patch.object(mx, "async_eval", lambda *_: None):
        generation._start()
        for frame in range(1 + frames):
            start = time.perf_counter()
            first, codes, _ = generation._enqueue(frame)
            times.append(time.perf_counter() - start)
            mx.eval(first, codes, generation.embedding, generation.seen)
    return times[1:]


def loop_frame(generation):
    """Seconds a frame of the real loop without the codec, the prefill left out."""
    times = [time.perf_counter() for _ in generation]
    return (times[-1] - times[0]) / (len(times) - 1)


def frame_parts(speaker, text, frames, repeats, schedules):
    """Where a frame's time goes, seconds, and talker steps by position.

    schedules: name to codec schedule. "loop" is the real loop over the text, without codec. The parts take turns, so
    that a machine that grows slower or hotter does so for all of them.
    """
    tts, step = speaker.tts, speaker.generation(text, frames).step
    talker, config = tts.talker, tts.config.talker
    prompt = tts.prompt(text, speaker.voice, instruct=speaker.instruct).embeddings.shape[0]
    middle = prompt + frames // 2
    shape = min(frames, CODEC_FRAMES), tts.codec.num_codebooks
    codes = mx.random.randint(0, tts.codec.config.decoder.codebook_size, shape)
    mx.eval(codes)
    steps = {position: [] for position in (middle, *POSITIONS)}
    predictor, host, loop, codec = [], [], [], {name: [] for name in schedules}
    with wired_limit():
        loop_frame(speaker.generation(text, 2))  # the warm-up: compiles
        for _ in range(repeats):
            for position, times in steps.items():
                times += talker_steps(talker, config, position, STEPS)
            predictor += predictor_frames(step, talker, config, STEPS)
            host += host_frames(speaker.generation(text, STEPS), STEPS)
            for name, schedule in schedules.items():
                codec[name].append(codec_frame(tts.codec.decoder, codes, schedule))
            loop.append(loop_frame(speaker.generation(text, frames)))
    talker_at = {position: statistics.median(times) for position, times in steps.items()}
    return {
        "position": middle,
        "talker": talker_at[middle],
        "predictor": statistics.median(predictor),
        "host": statistics.median(host),
        "loop": statistics.median(loop),
        "codec": {name: statistics.median(times) for name, times in codec.items()},
        "talker_at": {position: talker_at[position] for position in POSITIONS},
    }


def nbytes(*modules):
    return sum(array.nbytes for module in modules for _, array in tree_flatten(module.parameters()))


def weights_a_frame(talker):
    """Bytes of weights that one frame reads, by what reads them, as they lie in memory (quantised: with their scales).

    The talker's layers, final norm and head once; the predictor's layers, final norm and input projection (1.7B) in
    each of its 15 steps; each of its 15 heads once. Rows of embedding tables, the KV cache and the codec are left out.
    """
    predictor = talker.code_predictor
    projection = [predictor.small_to_mtp_projection] if "small_to_mtp_projection" in predictor else []
    parts = {
        "talker": nbytes(*talker.model.layers, talker.model.norm, talker.codec_head),
        "predictor": len(predictor.lm_head) * nbytes(*predictor.model.layers, predictor.model.norm, *projection),
        "predictor_heads": nbytes(*predictor.lm_head),
    }
    return {**parts, "frame": sum(parts.values())}


def best_rate(work, size, passes, repeats=5):
    """Bytes a second of `work`, which reads `size` bytes: a function (the last result or None) -> result.

    Several passes in one graph, each after the other, so that starting one does not count; the best of the repeats.
    """
    best = float("inf")
    for _ in range(repeats):
        out = None
        for _ in range(passes):
            out = work(out)
        best = min(best, waited(out))
    return passes * size / best


def after(x, out):
    """x, but not before `out` is computed."""
    return x if out is None else mx.depends(x, out)


def bandwidth():
    """Bytes a second that the device reads memory with, by how it was measured; the largest is the machine's.

    A row times a matrix far larger than any cache is what a frame does with its weights. On a GPU a sum over the same
    matrix is measured beside it. On a CPU device MLX's sums run in one thread; there NumPy's product, which brings a
    BLAS of its own, is measured instead.
    """
    inputs, outputs, passes = (4096, 65536, 8) if on_gpu() else (4096, 32768, 1)  # 1 GB, 0.5 GB
    layer = Linear(inputs, outputs, bias=False)
    row, layer.weight = mx.ones((1, inputs)), mx.ones((outputs, inputs))
    layer.lay_out()
    mx.eval(row, layer.weight)
    matrix = layer.weight
    size = matrix.nbytes
    rates = {"MLX product": best_rate(lambda out: layer(after(row, out)), size, passes)}
    if on_gpu():
        rates["MLX sum"] = best_rate(lambda out: after(matrix, out).sum(), size, passes)
    else:
        del layer, matrix  # as large as what NumPy is given
        mx.clear_cache()
        memory = Memory()
        memory.load(size // 2**20)
        rates["NumPy product"] = memory.read()["bytes_per_second"]
    return rates


def gaussian_voice(dimension, norm):
    """A made-up x-vector of a norm, the same for every run."""
    vector = mx.random.normal((dimension,), key=mx.random.key(SEED))
    return Voice(vector * (norm / mx.linalg.norm(vector)))
