"""What voices as vectors cost: algebra against a frame of speech, search in a large library, a voice that changes.

    python -m benchmarks.voices [--model M | --size tiny|narrow|0.6b|1.7b] [--dtype D] [--voices 100000] [--frames 40]
                                [--repeats 3] [--json]

Times are medians after a warm-up. A frame and a morphed frame are taken in turn in one run, without the codec, the
prefill left out; a talker step is measured at the same position.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import mlx.core as mx

from benchmarks import measure
from convert.random_checkpoint import SIZES, write_checkpoint
from mlx_qwen3tts import Direction, Qwen3TTS, VoiceSpace, cli
from mlx_qwen3tts.synthesis.morph import Morph, path
from mlx_qwen3tts.voices import blend, lerp, slerp
from mlx_qwen3tts.voices.fit import KNOWN_NORMS
from mlx_qwen3tts.voices.library.search import Searcher, search
from mlx_qwen3tts.voices.library.snapshot import Snapshot

TEXT = "The weather is fine today, and in the afternoon we'll walk to the old harbour to watch the boats come in."
MANY = 10_000


def timed(work, repeats):
    """Median seconds of `work`, which returns an array, after a warm-up."""
    mx.eval(work())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        mx.eval(work())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def algebra(dimension, repeats):
    """{operation: seconds} for one voice and for many."""
    X = mx.random.normal((MANY, dimension), key=mx.random.key(0)) + 3
    Y = mx.random.normal((MANY, dimension), key=mx.random.key(1)) + 3
    space = VoiceSpace.fit(X[:200])
    direction = Direction.fit(X[:40], ["a", "b"] * 20, space=space)
    one, two, t = X[0], Y[0], mx.linspace(0, 1, MANY)
    mx.eval(X, Y, one, two, t)
    return {
        "blend of 2": timed(lambda: blend([one, two], [0.7, 0.3]), repeats),
        "blend of 2, radius kept": timed(lambda: blend([one, two], [0.7, 0.3], space, "radius"), repeats),
        "lerp": timed(lambda: lerp(one, two, 0.3), repeats),
        "slerp": timed(lambda: slerp(one, two, 0.3), repeats),
        "direction applied": timed(lambda: direction.apply(one, 1.0), repeats),
        "similarity": timed(lambda: space.similarity(one, two), repeats),
        f"blend of {MANY} into one": timed(lambda: blend(X), repeats),
        f"{MANY} blends of 2": timed(lambda: blend([X, Y], [0.7, 0.3]), repeats),
        f"{MANY} points of a path": timed(lambda: lerp(one, two, t), repeats),
        f"direction applied to {MANY}": timed(lambda: direction.apply(X, 1.0), repeats),
    }


def searching(count, dimension, repeats):
    """Seconds of one exact search among `count` voices, as a library makes it once it is open."""
    rows = mx.random.normal((count, dimension), key=mx.random.key(0)) + 3
    names = [f"{i:06d}" for i in range(count)]
    entry = {"dimension": dimension, "metadata": {}, "attributes": {}}
    snapshot = Snapshot(Path("voices"), dict.fromkeys(names, entry), {dimension: rows})
    searcher = Searcher(snapshot, lambda dimension: VoiceSpace.fit(rows[:1000]))
    query, times = rows[count // 2], []
    mx.eval(query)
    for _ in range(1 + repeats):
        start = time.perf_counter()
        found = search(None, searcher, query, 5, None, False, None)
        times.append(time.perf_counter() - start)
    if found[0][0] != names[count // 2]:
        raise RuntimeError(f"the nearest voice is {found[0]}, not the query itself")
    return statistics.median(times[1:])


def morphing(tts, frames, repeats):
    """Seconds of a frame with and without a voice that changes, in turn, and of a talker step."""
    norm = KNOWN_NORMS.get(tts.embedding_dim, 10.0)
    a, b = (measure.gaussian_voice(tts.embedding_dim, norm * size) for size in (1, 1.2))
    speaker = measure.Speaker(tts, tts.voice(a))

    def generation(morphs):
        def morph(prompt):
            return Morph(tts.talker, prompt, path(a.embedding, b.embedding, frames))

        return speaker.generation(TEXT, frames, morph if morphs else None)

    for morphs in (False, True):
        measure.loop_frame(generation(morphs))
    plain, changing = [], []
    for _ in range(repeats):
        plain.append(measure.loop_frame(generation(False)))
        changing.append(measure.loop_frame(generation(True)))
    steps = measure.talker_steps(tts.talker, tts.config.talker, 20, measure.STEPS)
    return {
        "frame": statistics.median(plain),
        "morphed": statistics.median(changing),
        "talker": statistics.median(steps),
    }


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="mlx_model")
    options.add_argument("--size", choices=sorted(SIZES))
    options.add_argument("--dtype")
    options.add_argument("--voices", type=int, default=100_000)
    options.add_argument("--frames", type=int, default=40)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--json", action="store_true")
    options = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        model = (
            write_checkpoint(Path(folder) / options.size, "base", 1, options.size) if options.size else options.model
        )
        tts = Qwen3TTS.from_pretrained(model, options.dtype)
        speech = morphing(tts, options.frames, options.repeats)
        dimension = tts.embedding_dim
    times = algebra(dimension, max(20, options.repeats))
    found = searching(options.voices, dimension, max(10, options.repeats))
    print(f"{'a frame':32} {1000 * speech['frame']:9.3f} ms")
    print(f"{'a frame of a changing voice':32} {1000 * speech['morphed']:9.3f} ms")
    print(f"{'a talker step':32} {1000 * speech['talker']:9.3f} ms")
    update = speech["morphed"] - speech["frame"]
    print(f"{'an update':32} {1000 * update:9.3f} ms, {update / speech['talker']:.2f} talker steps")
    for name, seconds in times.items():
        print(f"{name:32} {1000 * seconds:9.3f} ms, {seconds / speech['frame']:.2%} of a frame")
    print(f"{f'search among {options.voices} voices':32} {1000 * found:9.3f} ms")
    if options.json:
        cli.print_json({"speech": speech, "algebra": times, "search": found, "voices": options.voices})


if __name__ == "__main__":
    main()
