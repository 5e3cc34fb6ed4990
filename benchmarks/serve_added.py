"""What the server itself adds to a speech, and how long one that joins others waits for its first byte.

    python -m benchmarks.serve_added [--checkpoint DIR | --size narrow] [--frames 8] [--rounds 15] [--dtype float32]

The server runs in this process, so that both sides use the same loaded and compiled model in the same thread:
- added: a speech streamed in the engine's thread against the same speech by HTTP on loopback, in turn. Shown are the
  medians of both, of the first sound and of the whole, and the median of the differences of neighbours. Outside: the
  part of a request's wait for its first byte that is not the engine's, which is not lost in the noise of the computing.
- joins: seven others speak long; one joins, and its first byte is counted in frames of the batch: the steps of the
  engine between its request and its first sound, less those that it takes alone.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import mlx.core as mx
import numpy as np

from benchmarks.serve import TEXT, Client
from benchmarks.shared import processor
from convert.random_checkpoint import SIZES, write_checkpoint
from mlx_qwen3tts import Library, Qwen3TTS
from mlx_qwen3tts.server.app import Server, build
from mlx_qwen3tts.server.running import Running, address, listening
from mlx_qwen3tts.server.settings import Settings


@contextlib.contextmanager
def serving(tts, library):
    server = Server(tts, Settings(library=library))
    with listening("127.0.0.1", 0) as bound:
        running = Running(build(server), server.engine)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        if not server.engine.ready.wait(600):
            raise SystemExit("the engine did not start")
        try:
            yield server, int(address(bound).rpartition(":")[2])
        finally:
            server.engine.stop(0)
            running.should_exit = True
            thread.join()


def direct(tts, voice, seed, frames):
    """(seconds to the first sound, seconds in all) of a stream, in this thread."""
    start, first = time.perf_counter(), None
    for chunk in tts.stream(TEXT, voice, seed=seed, max_tokens=frames + 1):
        np.array(chunk.audio)
        first = first or time.perf_counter() - start
    return first, time.perf_counter() - start


def added(server, client, frames, rounds):
    voice = server.voices.named("anna")
    streamed, served, outside = [], [], []
    for seed in range(rounds + 1):
        for side in ((0, 1), (1, 0))[seed % 2]:
            if side:
                before = server.engine.counts["first_sound_milliseconds"]
                served.append(client.speak(seed=seed, max_new_tokens=frames + 1)[:2])
                inside = server.engine.counts["first_sound_milliseconds"] - before
                outside.append(served[-1][0] - inside / 1e3)
            else:
                call = server.engine.call(lambda seed=seed: direct(server.tts, voice, seed, frames))
                streamed.append(call.result())
    result = {"outside": statistics.median(outside[1:])}
    for index, name in enumerate(("first", "whole")):
        pairs = [(one[index], other[index]) for one, other in zip(streamed[1:], served[1:], strict=True)]
        result[name] = {
            "streamed": statistics.median(one for one, _ in pairs),
            "served": statistics.median(other for _, other in pairs),
            "added": statistics.median(other - one for one, other in pairs),
        }
    return result


def joins(server, port, body, others, rounds):
    """Frames of the batch from a request to its first byte, beyond those that it takes alone."""
    client = Client(port, body)
    alone, waits = [], []
    for seed in range(rounds):
        alone.append(steps_to_first(server, client, seed))
        crowd = [Client(port, body) for _ in range(others)]
        long = [threading.Thread(target=one.speak, kwargs={"seed": 0, "max_new_tokens": 40}) for one in crowd]
        for thread in long:
            thread.start()
        while server.engine.running < others:
            time.sleep(0.01)
        waits.append(steps_to_first(server, client, seed))
        for thread in long:
            thread.join()
    return {"alone": alone, "joined": waits, "later": max(waits) - min(alone)}


def steps_to_first(server, client, seed):
    """Steps of the engine while a client waits for its first byte, and one beyond its own first frame."""
    before, after = server.engine.counts["steps"], []
    client.speak(seed=seed, max_new_tokens=4, told=lambda: after.append(server.engine.counts["steps"]))
    return after[0] - before


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=tuple(SIZES), default="narrow")
    options.add_argument("--checkpoint", type=Path, help="a folder with weights that never end, instead of new ones")
    options.add_argument("--frames", type=int, default=8)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--others", type=int, default=7)
    options.add_argument("--dtype", default="float32")
    options = options.parse_args()
    warnings.simplefilter("ignore")  # every speech is cut on purpose
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.checkpoint or write_checkpoint(Path(scratch) / "c", size=options.size, eos_gain=0.0)
        tts = Qwen3TTS.from_pretrained(folder, dtype=options.dtype)
        vector = mx.random.normal([tts.embedding_dim], key=mx.random.key(0))
        library = Library(Path(scratch) / "voices")
        library.add("anna", 10.25 * vector / mx.linalg.norm(vector), consent="not-needed")
        with serving(tts, library.folder) as (server, port):
            body = {"input": TEXT, "voice": "anna", "response_format": "pcm", "stream_format": "audio"}
            result = {"added": added(server, Client(port, body), options.frames, options.rounds)}
            result["joins"] = joins(server, port, body, options.others, min(5, options.rounds))
    print(f"{processor()}, {options.size}, {options.frames} frames", file=sys.stderr)
    for name in ("first", "whole"):
        one = {key: f"{value * 1e3:.1f} ms" for key, value in result["added"][name].items()}
        print(f"{name}: streamed {one['streamed']}, served {one['served']}, added {one['added']}")
    print(f"outside the engine, until the first byte: {result['added']['outside'] * 1e3:.1f} ms")
    later = result["joins"]["later"]
    print(f"joins {options.others} others: first byte {later} frames later than alone ({result['joins']})")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
