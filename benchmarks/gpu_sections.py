"""The sections of `benchmarks.gpu` that run this package, each a function; `benchmarks.gpu` runs them in processes.

    python -m benchmarks.gpu_sections NAME --work DIR --output DIR [--size 0.6b]

Every figure is printed and recorded as soon as it is there, so that a section that is stopped keeps what it had found.
"""

import argparse
import collections
import json
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import mlx.core as mx
import numpy as np
import soundfile

from benchmarks import bench, ladder, measure, nodes
from benchmarks.gpu import ROOT, WRITER_ENDED, write_record
from benchmarks.gpu_proof import precision
from convert.make_goldens import make_checkpoint
from convert.parity import check, materialise
from convert.random_checkpoint import SIZES, write_checkpoint
from convert.suite import SUITE
from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.audio.measures import f0_track
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.convert import convert
from mlx_qwen3tts.networks.codec.codec import DECODE_CHUNK
from mlx_qwen3tts.synthesis.decoding import SCHEDULE

GOLDENS = ROOT / "tests" / "goldens"
MINIATURE = ROOT / "tests" / "assets" / "miniature_codes.npz"
# What the miniature's golden says, in its order.
LINES = ("Hello, this is my voice.", "Good morning, today is monday.", "The red car is big and the bird is small.")
BITS = (None, 8, 4)
BATCHES = (1, 4, 16)
REPEATS = 3
PROFILED = 10  # frames
DEVICE_EVENTS = ("kernel", "gpu_memcpy", "gpu_memset")  # of torch.profiler
TEXT, FRAMES = bench.TEXTS["medium"]


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


# Checkpoints


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


def quantised(section: Section, folder: Path, bits: int | None) -> Path:
    """A checkpoint's folder as it is, or converted to so many bits a weight."""
    if bits is None:
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


# Fidelity


def generated_codes(tts: Qwen3TTS, case: dict) -> np.ndarray:
    """Greedy codes [frames, codebooks] of a materialised case of the suite."""
    if "vector" in case:
        voice = Voice(np.array(case["vector"], np.float32))
    elif "audio" in case:
        voice = tts.clone(case["audio"], case.get("ref_text"))
    else:
        voice = tts.preset(case["preset"]) if "preset" in case else None
    morphing = {}
    if "morph" in case:
        seconds = case["morph"]["frames"] * tts.codec.samples_per_frame / tts.sample_rate
        morphing = {"morph": Voice(np.array(case["morph_vector"], np.float32)), "morph_seconds": seconds}
    speech = tts.generate(
        case["text"],
        voice,
        language=case["language"],
        instruct=case.get("instruct") or None,
        text_mode=case["layout"],
        greedy=True,
        max_tokens=case["max_tokens"],
        repetition_penalty=case.get("repetition_penalty"),
        seed=0,
        **morphing,
    )
    return np.array(speech.codes)


def first_difference(ours: np.ndarray, expected: dict) -> dict[str, object]:
    """Where codes leave the reference's, and how far its two best logits lie apart there."""
    theirs, gaps = expected["codes"].astype(np.int32), expected["gaps"]
    shared = min(len(ours), len(theirs))
    differs = np.argwhere(ours[:shared] != theirs[:shared])
    found = {"frames": len(ours), "reference_frames": len(theirs), "equal": len(ours) == len(theirs)}
    if len(differs):
        frame, book = (int(value) for value in differs[0])
        found |= {"equal": False, "frame": frame, "codebook": book, "gap": float(gaps[frame, book])}
    return found


def examine(tts: Qwen3TTS, case: dict, arrays: dict) -> dict[str, object]:
    """A case by the tests' own check, and where that fails on speech, what its codes are all the same."""
    try:
        return {"passed": True, **check(tts, case, arrays)}
    except RuntimeError as error:  # what MLX raises for what a backend lacks
        return {"passed": False, "raised": str(error).strip()}
    except AssertionError as error:
        found = {"passed": False, "error": str(error).strip()}
    if case["kind"] == "speak":
        prefix = f"{case['name']}/"
        expected = {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
        found |= first_difference(generated_codes(tts, case), expected)
    return found


def parity(section: Section) -> None:
    """The goldens of the official package, all cases of the suite, in float32."""
    numbers = precision()
    section.record(precision=numbers)
    section.say(f"float32 product: relative error {numbers['relative_error']:.1e}, TF32: {numbers['tf32']}")
    passed, codes_equal, spoken = 0, 0, 0
    total = sum(len(cases) for _, cases in SUITE.values())
    for name, (_, cases) in SUITE.items():
        folder, dimension = make_checkpoint(name, section.options.work / "suite")
        tts, arrays = Qwen3TTS.from_pretrained(folder, "float32"), dict(np.load(GOLDENS / f"{name}.npz"))
        for case in materialise(cases, folder, dimension):
            start = time.perf_counter()
            found = examine(tts, case, arrays)
            section.record(checkpoint=name, case=case["name"], seconds=time.perf_counter() - start, **found)
            passed += found["passed"]
            if case["kind"] == "speak":
                spoken += 1
                codes_equal += found.get("equal", found["passed"] and "near_tie" not in found)
            if not found["passed"] or "near_tie" in found:
                section.say(f"{name}/{case['name']}: {found}")
        section.say(f"{name}: done; so far {passed} cases passed, codes equal in {codes_equal} of {spoken} speeches")
    section.record(passed=passed, cases=total, codes_equal=codes_equal, speeches=spoken)
    section.say(f"{passed} of {total} cases passed; greedy codes equal in {codes_equal} of {spoken} speeches")


def agreement(folder: Path, voice: object, texts: Iterable[str], language: str) -> dict[str, object]:
    """How often a model in bfloat16 chooses as it does in float32, on what the latter says."""
    exact, rounded = (Qwen3TTS.from_pretrained(folder, dtype) for dtype in ("float32", "bfloat16"))
    sampler = exact.steps.of([exact.sampling])[0].sampler
    utterances, answers = [], []
    for seed, text in enumerate(texts):
        spoken = exact.generate(text, voice, language=language, seed=seed, max_tokens=61).codes
        prompts = [tts.prompt(text, tts.voice(voice), language) for tts in (exact, rounded)]
        logits = ladder.choices(exact.talker, prompts[0], spoken, sampler)
        utterances.append(ladder.Utterance(text, spoken, *logits))
        answers.append(ladder.choices(rounded.talker, prompts[1], spoken, sampler))
    return {"frames": sum(len(utterance.codes) for utterance in utterances), **ladder.compare(utterances, answers)}


def bfloat16(section: Section) -> None:
    """bfloat16 against float32 on the miniature and on random weights.

    On a CPU it is 98.9 % in all codebooks of the miniature before it was quantised, and 90 % in the later codebooks of
    the shipped one, whose quantised products a CPU adds up in bfloat16.
    """
    mini, folder = hub.SHIPPED["miniature"], checkpoint(section)
    low = Qwen3TTS.from_pretrained(mini, "float32").embed(mini / "recordings" / "low.flac")
    made_up = load_speaker(folder).voice
    for name, arguments in (
        ("miniature", (mini, low, LINES, "english")),
        (f"random {section.options.size}", (folder, made_up, ladder.TEXTS[:3], "auto")),
    ):
        found = agreement(*arguments)
        section.record(model=name, **found)
        section.say(
            f"{name}: bfloat16 chooses as float32 does in {found['agreement_0']:.1%} of codebook 0 and "
            f"{found['agreement_rest']:.1%} of the others, {found['frames']} frames"
        )


def miniature(section: Section) -> None:
    """The miniature says its golden's lines: codes, F0, level, and the sound to listen to."""
    tts, golden = Qwen3TTS.from_pretrained("miniature", "float32"), np.load(MINIATURE)
    recordings, equal, total = hub.SHIPPED["miniature"] / "recordings", 0, 0
    for name in ("low", "high"):
        vector = tts.embed(recordings / f"{name}.flac")
        difference = float(np.abs(golden[f"{name}_vector"] - np.array(vector)).max())
        samples, rate = soundfile.read(recordings / f"{name}.flac", dtype="float32")
        section.say(f"{name}: x-vector within {difference:.1e}, F0 of the recording {median_f0(samples, rate):.0f} Hz")
        for mode in ("streaming", "full"):
            for number, text in enumerate(LINES):
                speech = tts.generate(text, vector, language="english", text_mode=mode, greedy=True)
                codes, audio = golden[f"{name}_{mode}_{number}"], np.array(speech.audio)
                same = np.array_equal(np.array(speech.codes), codes)
                found = {
                    "codes_equal": same,
                    "frames": len(speech.codes),
                    "reference_frames": len(codes),
                    "f0": median_f0(audio, tts.sample_rate),
                    "level": float(np.sqrt(np.mean(audio**2))),
                    "peak": float(np.abs(audio).max()),
                    "rtf": speech.stats["rtf"],
                }
                equal, total = equal + same, total + 1
                section.record(voice=name, mode=mode, text=text, vector=difference, **found)
                section.say(
                    f"{name:4} {mode:9} codes {'equal' if same else 'DIFFER'}, {found['frames']:3} frames, "
                    f"F0 {found['f0']:.0f} Hz, level {found['level']:.3f}, peak {found['peak']:.2f}"
                )
        speech.save(section.options.output / f"miniature-{name}.wav")
    section.say(f"codes equal in {equal} of {total}")


def median_f0(samples: np.ndarray, rate: int) -> float:
    return float(np.nanmedian(f0_track(samples, rate)))


# Speed


def copy_rate() -> float:
    """Bytes a second, read and written, of adding 1 to an array far larger than any cache."""
    source = mx.zeros((2**29 if mx.default_device() == mx.gpu else 2**24,), mx.bfloat16)
    mx.eval(source)
    return measure.best_rate(lambda out: measure.after(source, out) + 1, 2 * source.nbytes, 4)


def speed(section: Section) -> None:
    """Frames a second and where a frame's time goes, for each of the weights; batches with sound."""
    rates = {**measure.bandwidth(), "copy": copy_rate()}
    section.record(bandwidth=rates)
    section.say("memory: " + ", ".join(f"{name} {rate / 1e9:.0f} GB/s" for name, rate in rates.items()))
    mx.clear_cache()
    source = checkpoint(section)
    for bits in BITS:
        start = time.perf_counter()
        speaker = load_speaker(quantised(section, source, bits))
        weights, bytes_read = f"{bits} bit" if bits else "bf16", measure.weights_a_frame(speaker.tts.talker)
        loaded = time.perf_counter() - start
        first = synchronised(lambda speaker=speaker: speaker.generate(TEXT, 4))
        section.say(
            f"{section.options.size}, {weights}: loaded in {loaded:.1f} s, the first 4 frames took {first:.1f} s"
        )
        section.record(weights=weights, bytes=bytes_read, loaded=loaded, first_frames=first)
        speak_alone(section, speaker, weights)
        split_frame(section, speaker, weights, bytes_read["frame"] / rates["copy"])
        for size in BATCHES:
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


def split_frame(section: Section, speaker: measure.Speaker, weights: str, floor: float) -> None:
    """Milliseconds of a frame by part. Sampling: what a predictor frame takes beyond a greedy one."""
    tts = speaker.tts
    parts = measure.frame_parts(speaker, TEXT, FRAMES, REPEATS, {"codec": (DECODE_CHUNK,), "codec_stream": SCHEDULE})
    step, _ = tts.steps.of([tts.sampling.override(greedy=True)])
    greedy = statistics.median(measure.predictor_frames(step, tts.talker, tts.config.talker, measure.STEPS))
    ms = {name: 1000 * parts[name] for name in ("talker", "host", "loop")}
    ms |= {"predictor": 1000 * greedy, "sampling": 1000 * (parts["predictor"] - greedy), "weights": 1000 * floor}
    ms |= {name: 1000 * seconds for name, seconds in parts["codec"].items()}
    at = {str(position): 1000 * seconds for position, seconds in parts["talker_at"].items()}
    section.record(weights=weights, ms=ms, talker_at=at)
    section.say(
        f"  ms a frame: talker {ms['talker']:.2f}, predictor {ms['predictor']:.2f}, sampling {ms['sampling']:.2f}, "
        f"codec {ms['codec']:.2f} (streamed {ms['codec_stream']:.2f}), Python {ms['host']:.2f}; the loop without codec "
        f"{ms['loop']:.2f}, its weights' bytes alone {ms['weights']:.2f} ({ms['weights'] / ms['loop']:.0%})"
    )
    section.say("  talker step by position, ms: " + ", ".join(f"{where}: {time:.2f}" for where, time in at.items()))


# Host and device


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

    for bits in (None, 8):
        folder = quantised(section, checkpoint(section), bits)
        speaker, trace = load_speaker(folder), section.options.work / "trace.json"
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
            f"{bits or 16} bit, a frame: {kinds['kernel'] / PROFILED:.0f} kernels, "
            f"{kinds['gpu_memcpy'] / PROFILED:.1f} copies, {kinds['gpu_memset'] / PROFILED:.1f} fills; the device is "
            f"busy for {device:.2f} ms of {1000 * elapsed / PROFILED:.2f} (profiled)"
        )
        print_slowest(section, events)
        del speaker, frames
        mx.clear_cache()
        counted, _, _ = nodes.measure(section.options.size, bits, 3)
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


# Others


def others(section: Section) -> None:
    """benchmarks.compare on the same weights, in bfloat16 and then in float32."""
    device = "cuda" if mx.cuda.is_available() else "cpu"
    for dtype in ("bfloat16", "float32"):
        command = [sys.executable, "-m", "benchmarks.compare", "--size", section.options.size, "--dtype", dtype]
        command += ["--checkpoint", str(checkpoint(section)), "--official-device", device, "--parts", "frames", "codec"]
        command += ["--frames", "40", "--repeats", "2", "--threads", "8", "--patience", "20", "--json"]
        if section.options.official_python:
            command += ["--official-python", section.options.official_python]
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8")
        for line in run.stdout:
            if line.startswith("{"):
                section.record(dtype=dtype, compare=json.loads(line))
            else:
                section.say(line.rstrip())
        section.say(f"{dtype}: status {run.wait()}")


CUDA_ALONE = ("kernels", "graphs")
SECTIONS = {
    function.__name__: function
    for function in (checkpoints, parity, bfloat16, speed, host, loop, kernels, graphs, miniature, others)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("body", choices=SECTIONS, metavar="NAME", help=", ".join(SECTIONS))
    parser.add_argument("--section", metavar="NAME", help="what the records are called (default: NAME)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--size", choices=SIZES, default="0.6b")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[], help="for checkpoints")
    parser.add_argument("--official-python", default="", metavar="PYTHON", help="for others")
    options = parser.parse_args()
    for intended in (".* did not end within", "audio .* is short"):
        warnings.filterwarnings("ignore", message=intended, category=UserWarning)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.body in CUDA_ALONE and not mx.cuda.is_available():
        print("this needs MLX's CUDA backend, which is not here")
        return
    SECTIONS[options.body](Section(options.section or options.body, options))


if __name__ == "__main__":
    main()
