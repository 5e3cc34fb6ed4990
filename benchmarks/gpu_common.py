"""What the sections of `benchmarks.gpu` share: where they write, and the random checkpoints that they run."""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from benchmarks import bench, measure
from benchmarks.gpu import WRITER_ENDED, write_record
from convert.random_checkpoint import write_checkpoint
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.convert import convert

REPEATS = 3
TEXT, FRAMES = bench.TEXTS["medium"]
BITS = (16, 8, 4)  # 16: the checkpoint as it is


class Section:
    """Where a section writes: `record` for figures, `say` for people."""

    def __init__(self, name: str, options: argparse.Namespace):
        self.name, self.options = name, options

    def record(self, **values: object) -> None:
        write_record(self.options.output / "gpu.jsonl", {"section": self.name, **values})

    def say(self, line: str) -> None:
        print(line, flush=True)


def synchronised(work: Callable[[], object]) -> float:
    """Seconds until `work` is done on the device too."""
    mx.synchronize()
    start = time.perf_counter()
    work()
    mx.synchronize()
    return time.perf_counter() - start


def checkpoints(section: Section) -> None:
    """Write random checkpoints for the other sections, on the CPU, each whole or not at all."""
    mx.set_default_device(mx.cpu)
    try:
        for size in section.options.sizes:
            folder = section.options.work / size
            if folder.exists():
                continue
            start = time.perf_counter()
            # End of speech is never among the 50 best: every run is as long as asked.
            made = write_checkpoint(folder.with_name(f"{size}.part"), size=size, eos_gain=0.0)
            made.rename(folder)
            section.say(f"{size}: written in {time.perf_counter() - start:.1f} s")
    finally:
        (section.options.work / WRITER_ENDED).touch()


def checkpoint(section: Section) -> Path:
    """The folder of the section's random checkpoint, once it is written."""
    folder, ended = section.options.work / section.options.size, section.options.work / WRITER_ENDED
    while not folder.exists():
        if ended.exists() and not folder.exists():
            raise RuntimeError(f"{folder} was not written; what was said of it is in checkpoints.log")
        time.sleep(0.5)
    return folder


def quantised(section: Section, bits: int) -> Path:
    """The folder of the section's random checkpoint as it is, or converted to so many bits a weight."""
    folder = checkpoint(section)
    if bits == 16:
        return folder
    made = folder.with_name(f"{folder.name}-{bits}bit")
    if not made.exists():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="left unquantised")  # of the small sizes
            convert(str(folder), str(made), quantize=True, q_bits=bits)
    return made


def load_speaker(folder: Path) -> measure.Speaker:
    """A random model and the made-up voice that bench speaks with."""
    speaker, _ = bench.find_speaker(Qwen3TTS.from_pretrained(folder), None)
    return speaker
