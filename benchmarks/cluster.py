"""What a second worker brings: pieces spoken by a dask cluster of one and of two workers on this machine, in turn.

    python -m benchmarks.cluster [--model miniature] [--pieces 24] [--batch-size 4] [--rounds 3] [--json]

Each worker has one thread. Seconds are those of `Speakers.generate_each`, connecting included; the model is loaded
before. CPU time is that of the workers.
"""

import argparse
import contextlib
import re
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.machines import machines
from mlx_qwen3tts import Request, Sampling, Voice, cli
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.cluster.remote import Speakers

WORDS = "The night is cold. The moon is white. A small car is in my house. Hello! Can you hear me? Today is Monday."
VOICE = hub.SHIPPED["miniature"] / "voices" / "voice03.safetensors"


def requests(count):
    """Sentences of the miniature's words, one to three together."""
    sentences = [sentence.strip() for sentence in re.findall(r"[^.!?]+[.!?]", WORDS)]
    voice = Voice.load(VOICE)
    texts = [" ".join(sentences[(i + j) % len(sentences)] for j in range(1 + i % 3)) for i in range(count)]
    how = {"text_mode": "full", "sampling": Sampling(max_tokens=150)}
    return [Request(text, voice, seed=i, **how) for i, text in enumerate(texts)]


def timed(made, options):
    """(seconds, CPU seconds of the workers, seconds of speech) of one run."""
    processes = [psutil.Process(process.pid) for process in made.workers.values()]
    lengths, cpu, start = [], sum(sum(one.cpu_times()[:2]) for one in processes), time.perf_counter()
    speakers = Speakers(made.address, options.model)
    speakers.generate_each(
        requests(options.pieces),
        lambda number, speech: lengths.append(speech.stats["seconds"]),
        batch_size=options.batch_size,
    )
    seconds = time.perf_counter() - start
    return seconds, sum(sum(one.cpu_times()[:2]) for one in processes) - cpu, sum(lengths)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="miniature")
    options.add_argument("--pieces", type=int, default=24)
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", action="store_true")
    options = options.parse_args()
    runs = {1: [], 2: []}
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in runs]
        clusters = {}
        for count, folder in zip(runs, folders, strict=True):
            clusters[count] = stack.enter_context(machines(folder, count))
        for made in clusters.values():  # so that each has loaded the model
            Speakers(made.address, options.model).generate_each(requests(4), lambda *_: None, batch_size=1)
        for _ in range(options.rounds):
            for count, made in clusters.items():
                runs[count].append(timed(made, options))
    result = {}
    for workers, times in runs.items():
        seconds, cpu, spoken = (statistics.median(column) for column in zip(*times, strict=True))
        result[workers] = {"seconds": seconds, "cpu": cpu, "speech": spoken, "least": min(one[0] for one in times)}
        print(f"{workers} workers: {seconds:.1f} s, {cpu:.1f} s of CPU time, {spoken:.1f} s of speech")
    ratio = result[1]["seconds"] / result[2]["seconds"]
    more = result[2]["cpu"] / result[1]["cpu"]
    print(f"two are {ratio:.2f} times as fast as one, and take {more:.2f} times its CPU time")
    if options.json:
        cli.print_json({"workers": result, "ratio": ratio})


if __name__ == "__main__":
    main()
