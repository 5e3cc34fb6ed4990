"""A library beyond memory: a million voices in a pack, its index built, and searches compared with exact ones.

    python -m benchmarks.library --real DIR [--voices 1000000] [--spread voices|dimensions] [--queries 100] [--k 10]
                                 [--folder DIR] [--json]

DIR holds real vectors as .npy. Each made-up voice is one of them, moved as far as they differ from each other: along
their own differences (`voices`, a Gaussian of their covariance), or in each dimension by itself (`dimensions`), which
has no neighbourhoods and is the hardest there is. Queries are made in the same way and are not in the library.
"""

import argparse
import os
import re
import resource
import statistics
import tempfile
import threading
import time
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import Library, cli
from mlx_qwen3tts.voices.library import indexing
from mlx_qwen3tts.voices.library.memory import SETTING
from mlx_qwen3tts.voices.library.names import SPACE
from mlx_qwen3tts.voices.library.packs import BLOCK, NAMES, PACKS, VECTORS

NAME = "crowd"


def jittered(real, count, spread, random):
    """[count, D] float32 of made-up voices."""
    centred = real - real.mean(axis=0)
    if spread == "voices":
        moves = random.standard_normal((count, len(real)), dtype=np.float32) @ centred / np.sqrt(len(real) - 1)
    else:
        moves = random.standard_normal((count, real.shape[1]), dtype=np.float32) * centred.std(axis=0, ddof=1)
    return (real[random.integers(len(real), size=count)] + moves).astype(np.float32)


def fill(folder, real, count, spread, random):
    """A pack of made-up voices in a library's folder, written block by block."""
    pack = folder / PACKS / NAME
    pack.mkdir(parents=True)
    array = np.lib.format.open_memmap(pack / VECTORS, "w+", np.float32, (count, real.shape[1]))
    for start in range(0, count, BLOCK):
        array[start : start + BLOCK] = jittered(real, min(BLOCK, count - start), spread, random)
    array.flush()
    (pack / NAMES).write_text("".join(f"{row:07d}\n" for row in range(count)))


def exact(pack, space, queries, k):
    """[queries, k] rows of the most alike, by reading the whole pack."""
    ones = np.array(indexing.units(space.comparable(mx.array(queries))))
    scores = np.empty((len(queries), pack.count), np.float32)
    start = 0
    for block in pack.blocks():
        rows = np.array(indexing.units(space.comparable(mx.array(block))))
        scores[:, start : start + len(block)] = ones @ rows.T
        start += len(block)
    best = np.argpartition(-scores, k, axis=1)[:, :k]
    return best, np.take_along_axis(scores, best, axis=1)


def searched(folder, queries, k):
    """([names] for each query, median seconds) of a newly opened library; the first search is not counted."""
    library = Library(folder)
    start = time.perf_counter()
    library.search(queries[0], k)
    first, found, times = time.perf_counter() - start, [], []
    for query in queries:
        start = time.perf_counter()
        found.append([name for name, _ in library.search(query, k)])
        times.append(time.perf_counter() - start)
    return found, statistics.median(times), first


def recall(found, best):
    """The mean share of the exact ones that were found."""
    hits = [len({f"{NAME}/{row:07d}" for row in rows} & set(names)) for names, rows in zip(found, best, strict=True)]
    return statistics.mean(hits) / best.shape[1]


class Peak:
    """The most memory that is this process's own within the block, in bytes; pages of files are not."""

    def __enter__(self):
        self.bytes, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self):
        while not self.over.wait(0.2):
            own = re.search(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())
            self.bytes = max(self.bytes, 1024 * int(own[1]))

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def measure(options, folder):
    random = np.random.default_rng(0)
    real = np.stack([np.load(file).reshape(-1) for file in sorted(Path(options.real).glob("*.npy"))]).astype(np.float32)
    fill(folder, real, options.voices, options.spread, random)
    queries = jittered(real, options.queries, options.spread, random)
    library = Library(folder)
    pack = library.packs[NAME]
    space = library.space(pack.dimension)
    space.save(folder / SPACE)
    start = time.perf_counter()
    best, _ = exact(pack, space, queries, options.k)
    result = {"voices": pack.count, "spread": options.spread, "scan": (time.perf_counter() - start) / len(queries)}
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with Peak() as peak:
        size = indexing.build_index(pack, space)
    after = resource.getrusage(resource.RUSAGE_SELF)
    result |= {
        "build_memory": peak.bytes,
        "build": time.perf_counter() - start,
        "build_cpu": after.ru_utime - before.ru_utime,
        "bytes": size,
    }
    os.environ[SETTING] = "0"
    with Peak() as peak:
        found, seconds, first = searched(folder, queries, options.k)
    result |= {"recall": recall(found, best), "search": seconds, "first": first, "search_memory": peak.bytes}
    return result


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--real", required=True, metavar="DIR")
    options.add_argument("--voices", type=int, default=1_000_000)
    options.add_argument("--spread", choices=("voices", "dimensions"), default="voices")
    options.add_argument("--queries", type=int, default=100)
    options.add_argument("--k", type=int, default=10)
    options.add_argument("--folder", metavar="DIR", help="where to put the library, which stays (default: for a while)")
    options.add_argument("--json", action="store_true")
    options = options.parse_args()
    if options.folder:
        result = measure(options, Path(options.folder))
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(options, Path(folder))
    for name, value in result.items():
        print(f"{name:10} {value}")
    if options.json:
        cli.print_json(result)


if __name__ == "__main__":
    main()
