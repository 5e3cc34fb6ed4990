"""The sections of `benchmarks.gpu` that measure speed, and the host's share of it."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from unittest import mock

import mlx.core as mx

from benchmarks import bench, measure
from benchmarks.gpu import ROOT
from benchmarks.gpu_common import FRAMES, REPEATS, TEXT, Section, checkpoint, load_speaker, quantised, synchronised
from mlx_qwen3tts.networks.codec.codec import DECODE_CHUNK
from mlx_qwen3tts.synthesis.decoding import SCHEDULE

BATCHES = (1, 4, 16)
# MLX prepares a CUDA graph for every pattern of kernels and buffers that it meets and keeps it. A function is only as
# fast as it will be once the patterns that occur have been met, which takes scores of frames, not one or two.
SETTLING = 60


def copy_rate() -> float:
    """Bytes a second, read and written, of adding 1 to an array far larger than any cache."""
    source = mx.zeros((2**29 if mx.default_device() == mx.gpu else 2**24,), mx.bfloat16)
    mx.eval(source)
    return measure.best_rate(lambda out: measure.after(source, out) + 1, 2 * source.nbytes, 4)


def speed(section: Section) -> None:
    """Frames a second and where a frame's time goes, for weights of each of --bits; batches with sound."""
    rates = {**measure.bandwidth(), "copy": copy_rate()}
    section.record(bandwidth=rates)
    section.say("memory: " + ", ".join(f"{name} {rate / 1e9:.0f} GB/s" for name, rate in rates.items()))
    mx.clear_cache()
    for bits in section.options.bits:
        folder, start = quantised(section, bits), time.perf_counter()
        speaker = load_speaker(folder)
        loaded = time.perf_counter() - start
        weights, bytes_read = "bf16" if bits == 16 else f"{bits} bit", measure.weights_a_frame(speaker.tts.talker)
        first = synchronised(lambda speaker=speaker: speaker.generate(TEXT, 4))
        section.say(
            f"{section.options.size}, {weights}: loaded in {loaded:.1f} s, the first 4 frames took {first:.1f} s"
        )
        section.record(weights=weights, bytes=bytes_read, loaded=loaded, first_frames=first)
        speaker.generate(TEXT, FRAMES)  # settles
        speak_alone(section, speaker, weights)
        split_frame(section, speaker, weights, bytes_read["frame"] / rates["copy"])
        for size in BATCHES:
            speaker.generate_batch([TEXT] * size, bench.BATCH_FRAMES)  # settles
            of = measure.batch(speaker, TEXT, size, bench.BATCH_FRAMES, REPEATS)
            section.record(weights=weights, batch=size, **of)
            section.say(f"  batch {size:2}: {of['frames_per_second']:8.1f} frames/s, RTF {of['rtf']:.4f}")
        del speaker
        mx.clear_cache()


def speak_alone(section: Section, speaker: measure.Speaker, weights: str) -> None:
    """One text as users hear it."""
    of = measure.speak(speaker, TEXT, FRAMES, REPEATS)
    section.record(weights=weights, speak=of)
    section.say(
        f"  {of['frames']} frames with sound: {of['frames_per_second']:.1f} frames/s, RTF {of['rtf']:.4f}; streamed "
        f"RTF {of['stream']['rtf']:.4f}, first audio {1000 * of['stream']['first_audio']:.1f} ms, peak "
        f"{of['peak_memory'] / 1e9:.2f} GB"
    )


def predictor_frames(speaker: measure.Speaker) -> dict[str, float]:
    """Seconds of a frame between two talker steps, with sampling at the defaults and greedy, settled and in turns."""
    tts = speaker.tts
    settings = {"predictor": tts.sampling, "predictor_greedy": tts.sampling.override(greedy=True)}
    steps = {name: tts.steps.of([setting])[0] for name, setting in settings.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        measure.predictor_frames(step, tts.talker, tts.config.talker, SETTLING)
    for _ in range(REPEATS):
        for name, step in steps.items():
            times[name] += measure.predictor_frames(step, tts.talker, tts.config.talker, measure.STEPS)
    return {name: statistics.median(values) for name, values in times.items()}


def split_frame(section: Section, speaker: measure.Speaker, weights: str, floor: float) -> None:
    """Milliseconds of a frame by part. Each part is waited for, so the parts add up to more than the loop."""
    parts = measure.frame_parts(speaker, TEXT, FRAMES, REPEATS, {"codec": (DECODE_CHUNK,), "codec_stream": SCHEDULE})
    seconds = {name: parts[name] for name in ("talker", "host", "loop")}
    seconds |= {**predictor_frames(speaker), "weights": floor, **parts["codec"]}
    ms = {name: 1000 * value for name, value in seconds.items()}
    at = {str(position): 1000 * value for position, value in parts["talker_at"].items()}
    section.record(weights=weights, ms=ms, talker_at=at)
    section.say(
        f"  ms, each part waited for: talker {ms['talker']:.2f}, predictor with sampling {ms['predictor']:.2f} (greedy "
        f"{ms['predictor_greedy']:.2f}), codec {ms['codec']:.2f} (streamed {ms['codec_stream']:.2f}), Python "
        f"{ms['host']:.2f}; the loop without codec {ms['loop']:.2f}, its weights' bytes alone {ms['weights']:.2f} "
        f"({ms['weights'] / ms['loop']:.0%})"
    )
    section.say("  talker step by position, ms: " + ", ".join(f"{where}: {time:.2f}" for where, time in at.items()))


class HandOver:
    """mx.async_eval that keeps the time: on a GPU the calling thread hands every kernel over before it returns."""

    def __init__(self):
        self.seconds, self._original = [], mx.async_eval

    def __call__(self, *arrays):
        start = time.perf_counter()
        self._original(*arrays)
        self.seconds.append(time.perf_counter() - start)


def host(section: Section) -> None:
    """A frame's time on the calling thread, split, against the time until the device is done."""
    speaker = load_speaker(checkpoint(section))
    measure.loop_frame(speaker.generation(TEXT, 4))  # compiles
    built = statistics.median(measure.host_frames(speaker.generation(TEXT, 20), 20))
    handing = HandOver()
    with mock.patch.object(mx, "async_eval", handing):
        looped = measure.loop_frame(speaker.generation(TEXT, FRAMES))
    handed = statistics.median(handing.seconds[2:])
    waited = statistics.median(frame_times(speaker.generation(TEXT, FRAMES)))
    ms = {"build": built, "hand_over": handed, "loop": looped, "one_by_one": waited}
    ms = {name: 1000 * seconds for name, seconds in ms.items()}
    ms["host"] = ms["build"] + ms["hand_over"]
    bound = "host" if ms["host"] > 0.9 * ms["loop"] else "device"
    section.record(ms=ms, bound_by=bound)
    section.say(
        f"ms a frame: Python builds the graph in {ms['build']:.2f} and hands it over in {ms['hand_over']:.2f}, "
        f"together {ms['host']:.2f}; the loop takes {ms['loop']:.2f}, and {ms['one_by_one']:.2f} with a wait after "
        f"every frame: the {bound} bounds it"
    )
    section.say("handing over may wait where the device's queue is full; the kernels section has the device's own time")


def loop(section: Section) -> None:
    """The loop's time alone, to compare settings of MLX that are read once a process."""
    speaker = load_speaker(checkpoint(section))
    measure.loop_frame(speaker.generation(TEXT, 4))
    ms = [1000 * measure.loop_frame(speaker.generation(TEXT, FRAMES)) for _ in range(REPEATS)]
    settings = {name: value for name, value in os.environ.items() if name.startswith("MLX_")}
    section.record(ms=ms, settings=settings)
    section.say(f"ms a frame without codec: {', '.join(f'{time:.2f}' for time in ms)}, with {settings}")


def frame_times(generation: Iterable) -> list[float]:
    """Seconds of each frame where the device is let finish before the next is asked for."""
    times, frames = [], iter(generation)
    next(frames)
    for _ in range(40):
        times.append(synchronised(lambda: next(frames)))
    return times[2:]


def others(section: Section) -> None:
    """benchmarks.compare on the same weights, in --dtype."""
    device = "cuda" if mx.cuda.is_available() else "cpu"
    command = [sys.executable, "-m", "benchmarks.compare", "--size", section.options.size]
    command += ["--dtype", section.options.dtype, "--checkpoint", str(checkpoint(section))]
    command += ["--official-device", device, "--parts", "frames", "codec"]
    command += ["--frames", "40", "--repeats", "2", "--threads", "8", "--patience", "20", "--json"]
    if section.options.official_python:
        command += ["--official-python", section.options.official_python]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8")
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("{"):
            section.record(dtype=section.options.dtype, compare=json.loads(line))
        else:
            section.say(line.rstrip())
    if run.wait():
        sys.exit(f"benchmarks.compare ended with status {run.returncode}")
