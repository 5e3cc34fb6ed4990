"""The sections of `benchmarks.gpu` that count kernels: by a profiler, and in the CUDA graphs that MLX writes down."""

import collections
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import mlx.core as mx

from benchmarks import measure, nodes
from benchmarks.gpu_common import TEXT, Section, checkpoint, load_speaker, quantised, synchronised

PROFILED = 10  # frames
DEVICE_EVENTS = ("kernel", "gpu_memcpy", "gpu_memset")  # of torch.profiler


def kernel_events(trace: Path) -> list[dict]:
    """What ran on the device, of a trace that torch.profiler wrote: kernels, copies and fills, by time."""
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return sorted((event for event in events if event.get("cat") in DEVICE_EVENTS), key=lambda event: event["ts"])


def busy(events: Iterable[dict]) -> float:
    """Microseconds in which at least one of the events, sorted by their beginning, was running."""
    total, end = 0.0, float("-inf")
    for event in events:
        start, stop = event["ts"], event["ts"] + event["dur"]
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def frames_of(speaker: measure.Speaker) -> Iterator:
    """A generation's frames, those after the first few of interest."""
    return iter(speaker.generation(TEXT, 4 + 2 * PROFILED))


def kernels(section: Section) -> None:
    """Kernels a frame and the device's time in them, by CUPTI through torch.profiler."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    for bits in section.options.bits:
        speaker, trace = load_speaker(quantised(section, bits)), section.options.work / "trace.json"
        measure.loop_frame(speaker.generation(TEXT, 4))
        torch.zeros(1, device="cuda")  # CUPTI starts with torch's context
        frames = frames_of(speaker)
        for _ in range(4):
            next(frames)
        mx.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            elapsed = synchronised(lambda frames=frames: [next(frames) for _ in range(PROFILED)])
            torch.cuda.synchronize()
        profiler.export_chrome_trace(str(trace))
        events = kernel_events(trace)
        kinds = collections.Counter(event["cat"] for event in events)
        names = collections.Counter(short_name(event) for event in events)
        device = busy(events) / 1000 / PROFILED
        section.record(
            bits=bits,
            a_frame={kind: number / PROFILED for kind, number in kinds.items()},
            device_ms=device,
            profiled_ms=1000 * elapsed / PROFILED,
            names={name: number / PROFILED for name, number in names.most_common(40)},
        )
        section.say(
            f"{bits} bit, a frame: {kinds['kernel'] / PROFILED:.0f} kernels, "
            f"{kinds['gpu_memcpy'] / PROFILED:.1f} copies, {kinds['gpu_memset'] / PROFILED:.1f} fills; the device is "
            f"busy for {device:.2f} ms of {1000 * elapsed / PROFILED:.2f} (profiled)"
        )
        print_slowest(section, events)
        del speaker, frames
        mx.clear_cache()
        counted, _, _ = nodes.measure(section.options.size, None if bits == 16 else bits, 3)
        section.record(bits=bits, nodes=counted)
        section.say(f"benchmarks.nodes counts {counted['frame']} for it: {counted}")


def print_slowest(section: Section, events: list[dict]) -> None:
    """The kernels that take the most time."""
    times = collections.defaultdict(list)
    for event in events:
        times[short_name(event)].append(event["dur"])
    for name, durations in sorted(times.items(), key=lambda item: -sum(item[1]))[:16]:
        total = sum(durations) / 1000 / PROFILED
        section.say(f"  {total:7.3f} ms  {len(durations) / PROFILED:7.1f} times  {name}")


def short_name(event: dict) -> str:
    return re.sub(r"<.*", "", event["name"]).removeprefix("void ")[:70]


def graphs(section: Section) -> None:
    """Kernels and graphs a frame, from the CUDA graphs that MLX writes down (MLX_SAVE_CUDA_GRAPHS_DOT_FILE)."""
    prefix = Path(os.environ["MLX_SAVE_CUDA_GRAPHS_DOT_FILE"])
    speaker = load_speaker(checkpoint(section))
    frames = frames_of(speaker)
    for _ in range(4):
        next(frames)
    mx.synchronize()
    for old in prefix.parent.iterdir():
        old.unlink()
    for _ in range(PROFILED):
        next(frames)
    mx.synchronize()
    files = sorted(prefix.parent.iterdir())
    count = sum(graph_kernels(file.read_text(encoding="utf-8", errors="replace")) for file in files)
    section.record(graphs=len(files) / PROFILED, kernels=count / PROFILED)
    section.say(f"a frame: {len(files) / PROFILED:.1f} CUDA graphs of {count / PROFILED:.0f} kernels")
    if files:
        section.say("the first of them begins:\n" + files[0].read_text(encoding="utf-8", errors="replace")[:1500])


def graph_kernels(dot: str) -> int:
    """Nodes of a CUDA graph's dot file that are kernels, those of graphs inside it among them."""
    return len(re.findall(r'"graph_\d+_node_\d+"\[[^\]]*?(?:shape="octagon"|label="\{\s*KERNEL)', dot))
