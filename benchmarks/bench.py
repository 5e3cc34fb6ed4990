"""How fast a model speaks on this machine, where the time goes, and a row for the table in benchmarks/README.md.

    python -m benchmarks.bench [--model M | --size tiny|narrow|0.6b|1.7b] [--dtype D] [--voice FILE] [--repeats 3]
                               [--texts short,medium,long] [--batch 1,2,4,8,16] [--frames-cap N] [--json]
    python -m benchmarks.bench --self-check [--model M | --size S]

--self-check compares every form of computation that is chosen for a GPU with its form for a CPU, on the same weights,
and ends with status 1 where one differs, before anything is measured. Run it once on a new machine. Without --model or
--size it checks random weights and the miniature, and measures nothing.

--model is a folder or hub id as everywhere (default: mlx_model); --size measures random weights of a published shape.
The texts take about 2, 8 and 25 seconds to say and are cut after 25, 100 and 300 frames (80 ms each), or after
--frames-cap if that is less; random weights never end by themselves. Seeds are fixed. Without --voice a Base model
speaks in a made-up x-vector of the usual norm, CustomVoice in its first preset, VoiceDesign by an instruction.

Times are medians of the repeats after a warm-up, which compiles. RTF is processing time / duration of the speech, sound
included: lower is better. How each is measured stands in benchmarks/measure.py.
"""

import argparse
import datetime
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

from benchmarks import gpu, measure
from benchmarks.shared import processor
from convert.random_checkpoint import SIZES, write_checkpoint
from mlx_qwen3tts import Qwen3TTS, cli
from mlx_qwen3tts.networks.codec.codec import DECODE_CHUNK
from mlx_qwen3tts.synthesis.decoding import SCHEDULE
from mlx_qwen3tts.voices.fit import KNOWN_NORMS

# Name: (what is said, frames after which it is cut).
TEXTS = {
    "short": ("The weather is fine today.", 25),
    "medium": (
        "The weather is fine today, and in the afternoon we'll walk to the old harbour to watch the boats come in.",
        100,
    ),
    "long": (
        "The weather is fine today, and in the afternoon we'll walk to the old harbour to watch the boats come in. "
        "The fishermen sell what they have caught straight from the deck, and the gulls know the hour as well as they "
        "do. Afterwards there is a small café behind the lighthouse, where the bread is still warm and nobody minds "
        "if you stay until the lamps are lit.",
        300,
    ),
}
BATCH_FRAMES = 50  # shorter than what is said, so that no row of a batch ends before the others
INSTRUCTION = "A calm, warm voice, clear and not too fast."
ISSUE_RATIO = 1.25  # what a frame at position 2,000 may take of one at 100


def text_names(value):
    names = value.split(",")
    for name in names:
        if name not in TEXTS:
            raise argparse.ArgumentTypeError(f"text {name!r} is not one of {', '.join(TEXTS)}")
    return names


def at_least(low):
    """The parser of an integer that is `low` or more."""

    def parse(value):
        if not value.strip().isdecimal() or int(value) < low:
            raise argparse.ArgumentTypeError(f"{value!r} is not an integer of {low} or more")
        return int(value)

    return parse


def batch_sizes(value):
    return [at_least(1)(size) for size in value.split(",")]


def build_parser():
    parser = cli.Parser(prog="python -m benchmarks.bench", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    cli.add_model(which)
    which.add_argument("--size", choices=SIZES, help="random weights of this shape instead")
    parser.set_defaults(model=None)  # so that a self-check can tell whether one was named
    parser.add_argument("--self-check", action="store_true", help="first compare the forms for a GPU with a CPU's")
    parser.add_argument("--dtype", metavar="D", help="bfloat16, float16 or float32 (default: the checkpoint's own)")
    parser.add_argument("--voice", metavar="V", help="a preset's name or a voice file")
    parser.add_argument("--repeats", type=at_least(1), default=3, metavar="N", help="runs of each (default: 3)")
    parser.add_argument("--texts", type=text_names, default=list(TEXTS), help=f"some of {','.join(TEXTS)}")
    parser.add_argument("--batch", type=batch_sizes, default=[1, 2, 4, 8, 16], help="sizes (default: 1,2,4,8,16)")
    parser.add_argument("--frames-cap", type=at_least(2), metavar="N", help="frames of a text at most")
    cli.add_json(parser)
    return parser


def machine():
    """What the times depend on beside the model."""
    version = platform.mac_ver()[0]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": str(mx.default_device().type).removeprefix("DeviceType."),
        "device_name": mx.device_info()["device_name"],
        "system": f"macOS {version}" if version else f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "mlx": mx.__version__,
        "LD_PRELOAD": os.environ.get("LD_PRELOAD", ""),
        "load_average": os.getloadavg()[0],  # where it is not near zero, others are in the way
    }


def quantisation(module):
    """Bits of a network's quantised products, [] where there are none."""
    return sorted({layer.bits for _, layer in module.named_modules() if isinstance(layer, nn.QuantizedLinear)})


def describe_weights(dtype, talker, predictor):
    """dtype and bits in a few words, such as "bfloat16, 4-bit talker, 8-bit predictor"."""
    bits = {"talker": talker, "predictor": predictor}
    words = {name: "/".join(map(str, found)) + "-bit" for name, found in bits.items() if found}
    if len(set(words.values())) == 1 and len(words) == 2:
        return f"{dtype}, {words['talker']}"
    return ", ".join([dtype, *(f"{word} {name}" for name, word in words.items())])


def load(options, scratch):
    """(model, what it is called, what loading it took)."""
    model, name = options.model, options.model
    if options.size:
        cli.note(f"writing random weights, {options.size}")
        # Without weights for end of speech: its logit of 0 is never among the 50 best of 2,048, so no run ends early.
        model, name = write_checkpoint(Path(scratch) / "checkpoint", size=options.size, eos_gain=0.0), options.size
        mx.clear_cache()
    elif Path(model).is_dir():
        name = Path(model).resolve().name
    cli.note("loading")
    mx.reset_peak_memory()
    start = time.perf_counter()
    tts = Qwen3TTS.from_pretrained(model, options.dtype)
    mx.eval(tts.codec.decoder.parameters())  # else read when first used
    seconds = time.perf_counter() - start
    memory = {"peak_memory": mx.get_peak_memory(), "active_memory": mx.get_active_memory()}
    return tts, f"random {name}" if options.size else name, {"seconds": seconds, **memory}


def find_speaker(tts, voice):
    """(Speaker, what it speaks in) of the given voice or the model's own."""
    if voice is not None:
        return measure.Speaker(tts, tts.voice(voice)), voice
    if tts.model_type == "voice_design":
        return measure.Speaker(tts, None, INSTRUCTION), "instruction"
    if tts.speakers:
        return measure.Speaker(tts, tts.preset(tts.speakers[0])), tts.speakers[0]
    # At widths that no published model has, as long for its width as at 0.6B.
    norm = KNOWN_NORMS.get(tts.embedding_dim, KNOWN_NORMS[1024] * (tts.embedding_dim / 1024) ** 0.5)
    return measure.Speaker(tts, measure.gaussian_voice(tts.embedding_dim, norm)), "made-up x-vector"


def run(options, scratch):
    """Everything, as what --json prints."""
    about = machine()
    tts, name, loading = load(options, scratch)
    speaker, voice = find_speaker(tts, options.voice)
    texts = {key: (TEXTS[key][0], min(TEXTS[key][1], options.frames_cap or 10**9)) for key in options.texts}
    # The text that the parts and the row are about.
    typical = "medium" if "medium" in texts else options.texts[-1]

    cli.note("warming up")
    text, frames = texts[options.texts[0]]
    measure.speak(speaker, text, frames, 1)
    spoken = {}
    for key, (text, frames) in texts.items():
        cli.note(f"speaking: {key}, {frames} frames")
        spoken[key] = measure.speak(speaker, text, frames, options.repeats)
    cli.note("parts of a frame")
    text, frames = texts[typical]
    schedules = {"codec": (DECODE_CHUNK,), "codec_stream": SCHEDULE}
    parts = measure.frame_parts(speaker, text, frames, options.repeats, schedules)
    mx.clear_cache()  # KV caches of 2,000 positions
    batches = {}
    for size in options.batch:
        most = min(BATCH_FRAMES, options.frames_cap or BATCH_FRAMES)
        cli.note(f"batch of {size}, {most} frames each")
        batches[str(size)] = measure.batch(speaker, TEXTS["medium"][0], size, most, options.repeats)
    cli.note("memory bandwidth")
    weights, rates = measure.weights_a_frame(tts.talker), measure.bandwidth()

    bits = quantisation(tts.talker.model), quantisation(tts.talker.code_predictor)
    dtype = str(tts.talker.dtype).removeprefix("mlx.core.")
    return {
        "model": name,
        "model_type": tts.model_type,
        "dtype": dtype,
        "bits": dict(zip(("talker", "predictor"), bits, strict=True)),
        "weights": describe_weights(dtype, *bits),
        "kernels": tts.kernels,
        "voice": voice,
        "date": datetime.date.today().isoformat(),
        "repeats": options.repeats,
        "machine": about,
        "load": loading,
        "typical": typical,
        "texts": spoken,
        "ms_per_frame": in_ms(parts, spoken[typical]),
        "positions": positions(parts),
        "weight_bytes": weights,
        "bandwidth": rates,
        "bandwidth_share": weights["frame"] / max(rates.values()) / parts["loop"],
        "batch": batches,
    }


def in_ms(parts, spoken):
    """Milliseconds a frame by part, their sum, and the real loop's beside it."""
    ms = {name: 1000 * parts[name] for name in ("talker", "predictor", "host")} | {
        name: 1000 * seconds for name, seconds in parts["codec"].items()
    }
    loop, waited = 1000 * parts["loop"], ms["talker"] + ms["predictor"] + ms["host"]
    return {
        "position": parts["position"],
        **ms,
        "sum": waited + ms["codec"],
        "loop": loop,
        "loop_sum": waited,
        "overlap": 1 - loop / waited,
        "whole": 1000 * spoken["elapsed"] / spoken["frames"],
    }


def positions(parts):
    """Talker step and frame (with the predictor) by position in ms, and the last over the first."""
    talker = {str(position): 1000 * seconds for position, seconds in parts["talker_at"].items()}
    frame = {position: ms + 1000 * parts["predictor"] for position, ms in talker.items()}
    first, *_, last = talker
    ratios = {"talker_ratio": talker[last] / talker[first], "frame_ratio": frame[last] / frame[first]}
    return {"talker": talker, "frame": frame, **ratios}


def gigabytes(size):
    return f"{size / 1e9:.2f} GB"


def print_tables(result):
    about, loading = result["machine"], result["load"]
    preload = f", {Path(about['LD_PRELOAD']).name} preloaded" if about["LD_PRELOAD"] else ""
    kernels = f"fused ({', '.join(result['kernels'])})" if result["kernels"] else "plain"
    print(f"{result['model']} ({result['model_type']}), {result['weights']}, voice: {result['voice']}")
    print(f"{about['processor']}, {about['cores']} cores, {about['system']}, Python {about['python']}")
    print(f"MLX {about['mlx']} on {about['device']} ({about['device_name']}){preload}, kernels {kernels}")
    print(f"load average at the start {about['load_average']:.2f}: the times count where it is near zero")
    print(
        f"loaded in {loading['seconds']:.1f} s: {gigabytes(loading['active_memory'])}, "
        f"{gigabytes(loading['peak_memory'])} at the peak\n"
    )

    print("text    frames  seconds     RTF  frames/s  ms/frame   peak memory | streamed RTF  first audio  largest gap")
    for name, of in result["texts"].items():
        heard = of["stream"]
        print(
            f"{name:7} {of['frames']:6} {of['seconds']:8.2f} {of['rtf']:7.3f} {of['frames_per_second']:9.2f} "
            f"{1000 * of['elapsed'] / of['frames']:9.1f} {gigabytes(of['peak_memory']):>13} | {heard['rtf']:12.3f} "
            f"{heard['first_audio']:10.3f} s {heard['largest_gap']:10.3f} s"
        )

    ms = result["ms_per_frame"]
    print(f"\na frame, ms         ({result['typical']}, position {ms['position']})")
    print(f"  talker    {ms['talker']:9.2f}")
    print(f"  predictor {ms['predictor']:9.2f}   its 15 steps, sampling and the next input")
    print(f"  codec     {ms['codec']:9.2f}   in chunks of {DECODE_CHUNK}; {ms['codec_stream']:.2f} as streamed")
    print(f"  host      {ms['host']:9.2f}   Python's, building the graph")
    print(f"  sum       {ms['sum']:9.2f}   and from end to end, with the prompt, {ms['whole']:.2f}")
    print(
        f"  loop      {ms['loop']:9.2f}   the real one, without codec; talker, predictor and host are "
        f"{ms['loop_sum']:.2f}: overlap {ms['overlap']:.0%}"
    )

    at = result["positions"]
    print("\nposition  talker step, ms  with predictor, ms")
    for position, talker in at["talker"].items():
        print(f"{position:>8} {talker:16.2f} {at['frame'][position]:19.2f}")
    print(f"{'ratio':>8} {at['talker_ratio']:16.3f} {at['frame_ratio']:19.3f}   (at most {ISSUE_RATIO})")

    size, rates = result["weight_bytes"], result["bandwidth"]
    speeds = ", ".join(f"{name} {rate / 1e9:.1f} GB/s" for name, rate in rates.items())
    print(
        f"\nweights read a frame: {size['frame'] / 1e9:.3f} GB (talker {size['talker'] / 1e9:.3f}, predictor "
        f"{size['predictor'] / 1e9:.3f}, its heads {size['predictor_heads'] / 1e9:.3f})"
    )
    print(
        f"memory: {speeds}; at the larger they are read in {1000 * size['frame'] / max(rates.values()):.2f} ms, "
        f"{result['bandwidth_share']:.0%} of the loop's frame"
    )

    print("\nbatch  frames  frames/s     RTF   peak memory")
    for count, of in result["batch"].items():
        print(
            f"{count:>5} {of['frames']:7} {of['frames_per_second']:9.2f} {of['rtf']:7.3f} "
            f"{gigabytes(of['peak_memory']):>13}"
        )
    print(f"\nA row for benchmarks/README.md ({result['typical']} text):\n\n{row(result)}")


def row(result):
    """The table's head and this machine's row, Markdown."""
    about, of = result["machine"], result["texts"][result["typical"]]
    processor, device = about["processor"], about["device_name"]
    peak = max(of["peak_memory"], of["stream"]["peak_memory"])
    cells = {
        # An Apple chip is both.
        "machine": processor if about["device"] == "cpu" or device == processor else f"{device}, {processor}",
        "system": about["system"],
        "Python": about["python"],
        "MLX": f"{about['mlx']} {about['device']}",
        "date": result["date"],
        "model": result["model"],
        "weights": result["weights"],
        "RTF": f"{of['rtf']:.3f}",
        "ms/frame": f"{1000 * of['elapsed'] / of['frames']:.1f}",
        "first audio": f"{of['stream']['first_audio']:.3f} s",
        "peak memory": gigabytes(peak),
    }
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells, ["---"] * len(cells), cells.values()))


def self_check(options):
    """`benchmarks.self_check` of what is to be measured, in a process of its own that survives a crash of MLX's, and in
    which float32 is float32. Ends this one where it does not pass."""
    command = [sys.executable, "-m", "benchmarks.self_check"]
    measures = options.model or options.size
    if measures:
        command += ["--model", options.model] if options.model else ["--size", options.size]
    if options.json and not measures:
        command.append("--json")
    path = os.pathsep.join([str(gpu.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    status = subprocess.run(command, env={**os.environ, **gpu.EXACT, **gpu.PATIENT, "PYTHONPATH": path}).returncode
    if status < 0:
        cli.note(f"the self-check was ended by {signal.Signals(-status).name}: MLX cannot run this here")
    if status:
        sys.exit(status if status > 0 else 1)


def bench(options):
    if options.self_check:
        self_check(options)
        if not (options.model or options.size):
            return
    options.model = options.model or "mlx_model"
    warnings.filterwarnings("ignore", message=".* did not end within", category=UserWarning)  # as intended
    with tempfile.TemporaryDirectory() as scratch:
        result = run(options, scratch)
    print_tables(result)
    if options.json:
        cli.print_json(result)


def main(arguments=None):
    cli.run(bench, build_parser().parse_args(arguments))


if __name__ == "__main__":
    main()
