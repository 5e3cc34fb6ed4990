"""Milliseconds of each part on a random checkpoint: prefill, a talker step, a predictor frame, codec decode.

    python -m benchmarks.speed [--size narrow] [--dtype float32] [--repeats 5] [--json]

Prints a table for people, with --json one JSON object last. Medians of repeats after a warm-up.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.networks.codec import codec as codec_networks
from mlx_qwen3tts.random_checkpoint import SIZES, write_checkpoint

TEXT = "The weather is fine today, and in the afternoon we'll walk to the old harbour."


def median_ms(work, repeats):
    """Median milliseconds of a function that returns arrays to wait for; the first run is the warm-up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        mx.eval(work())
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def measure(tts, repeats):
    talker, codec = tts.talker, tts.codec
    voice = tts.voice(mx.random.normal((tts.embedding_dim,), key=mx.random.key(0)))
    prompt = tts.prompt(TEXT, voice).embeddings[None]
    caches = talker.make_cache()
    _, hidden = talker(prompt, caches)
    first = talker.embed_codec(mx.array([1]))[:, None]
    codes = mx.array(np.random.RandomState(0).randint(0, 2048, (25, 16)))
    return {
        f"prefill of {prompt.shape[1]}": median_ms(lambda: talker(prompt, talker.make_cache()), repeats),
        "talker step": median_ms(lambda: talker(prompt[:, -1:], caches), repeats),
        "predictor frame": median_ms(
            lambda: talker.code_predictor(hidden, first, lambda _, logits: mx.argmax(logits, axis=-1)), repeats
        ),
        "codec decode of 25": median_ms(lambda: codec_networks.decode(codec.decoder, codes), repeats),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="narrow")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tts = Qwen3TTS.from_pretrained(write_checkpoint(folder, size=options.size), options.dtype)
        result = measure(tts, options.repeats)
    device = f"{platform.machine()} {mx.default_device()}"
    print(f"{options.size} {options.dtype}, {device}, MLX {mx.__version__}")
    for name, value in result.items():
        print(f"{name:20} {value:9.1f} ms")
    print(f"{'peak memory':20} {mx.get_peak_memory() / 1e9:9.2f} GB")
    if options.json:
        print(json.dumps({"size": options.size, "dtype": options.dtype, "device": device, **result}))


if __name__ == "__main__":
    main()
