"""What comes behind the model: formats and other speeds, on the miniature's speech in pieces of 80 ms.

    python -m benchmarks.sound [--repeats 5] [--json]

A format's row: bytes and CPU milliseconds for a second of sound, after how many pieces the first bytes come, how many
of the further pieces give none, and how its sound compares with what went in, decoded by PyAV: delay and what differs.
A speed's row: length, CPU milliseconds for a piece, and against the speech at its own speed the mean difference of F0,
frame by frame, and the level. Where python-stretch is installed its row stands beside: version 0.3 begins anew with
every call, so it gets the speech whole.
"""

import argparse
import importlib.util
import io
import statistics
import time
from pathlib import Path

import numpy as np
import soxr

import mlx_qwen3tts
from mlx_qwen3tts import Qwen3TTS, cli
from mlx_qwen3tts.audio.encoding import CONTENT_TYPES, encoder
from mlx_qwen3tts.audio.measures import f0_track
from mlx_qwen3tts.audio.stretch import Stretch

RATE, PIECE = 24000, 1920
SPEEDS = (0.5, 0.75, 1.25, 1.5, 2.0)
VOICE = Path(mlx_qwen3tts.__file__).parent / "miniature" / "voices" / "voice01.safetensors"
TEXT = "Hello, this is my voice. Good morning. One two three four five."


def cpu(work, repeats):
    """(what `work` gives, median CPU seconds)."""
    times, made = [], None
    for _ in range(repeats):
        start = time.process_time()
        made = work()
        times.append(time.process_time() - start)
    return made, statistics.median(times)


def in_pieces(samples, step, end):
    parts = [step(samples[start : start + PIECE]) for start in range(0, samples.size, PIECE)]
    return [*parts, end()]


def decode(kind, data):
    """Samples [n] at RATE."""
    import av

    if kind == "pcm":
        return np.frombuffer(data, "<i2") / np.float32(32768)
    with av.open(io.BytesIO(data)) as file:
        rate = file.streams.audio[0].rate
        made = np.concatenate([frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)])
    made = made / 2.0 ** (8 * made.dtype.itemsize - 1) if made.dtype.kind == "i" else made
    return soxr.resample(made.astype(np.float32), rate, RATE)


def compare(found, wanted):
    """(delay in samples, dB of the wanted sound over the difference, correlation)."""
    middle = slice(PIECE, wanted.size - PIECE)
    delay = int(
        np.correlate(np.pad(found, (0, 2 * PIECE))[PIECE : wanted.size + PIECE], wanted[middle], "valid").argmax()
    )
    there = np.pad(found, (0, 2 * PIECE))[PIECE + delay :][: wanted[middle].size]
    difference = np.sum((there - wanted[middle]) ** 2) + 1e-12
    return delay, 10 * np.log10(np.sum(wanted[middle] ** 2) / difference), np.corrcoef(there, wanted[middle])[0, 1]


def format_row(kind, sound, repeats):
    def work():
        made = encoder(kind, RATE)
        return in_pieces(sound, made.add, made.finish)

    parts, seconds = cpu(work, repeats)
    data, length = b"".join(parts), sound.size / RATE
    delay, distance, likeness = compare(decode(kind, data), sound)
    first = next(number for number, part in enumerate(parts, 1) if part)
    most = max(len(part) for part in parts[first:-1])
    return {
        "bytes_a_second": len(data) / length,
        "cpu_ms_a_second": 1000 * seconds / length,
        "first_bytes_after_pieces": first,
        "pieces_without_bytes": sum(not part for part in parts[first:-1]),
        "largest_part": most,
        "delay_ms": 1000 * delay / RATE,
        "snr_db": float(distance),
        "correlation": float(likeness),
    }


def speed_row(made, seconds, sound, speed):
    before, after = f0_track(sound), f0_track(made)
    here = np.round(np.arange(after.size) * speed).astype(int)
    cents = 1200 * np.log2(after / before[np.minimum(here, before.size - 1)])
    return {
        "seconds": made.size / RATE,
        "cpu_ms_a_piece": 1000 * seconds / (sound.size / PIECE),
        "f0_cents": float(np.nanmean(np.abs(cents))),
        "level_db": float(10 * np.log10(np.mean(made**2) / np.mean(sound**2))),
    }


def ours(sound, speed):
    stretch = Stretch(RATE, speed)
    return np.concatenate(in_pieces(sound, stretch.step, lambda: stretch.step(sound[:0], last=True)))


def signalsmith(sound, speed):
    import python_stretch

    stretch = python_stretch.Signalsmith.Stretch(1)
    stretch.preset(1, RATE)
    stretch.timeFactor = speed
    return stretch.process(sound[None])[0]


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--json", action="store_true")
    options = options.parse_args(arguments)
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    sound = np.array(tts.generate(TEXT, VOICE, language="English", seed=1).audio)
    formats = {kind: format_row(kind, sound, options.repeats) for kind in CONTENT_TYPES}
    makers = {"ours": ours}
    if importlib.util.find_spec("python_stretch"):
        makers["python-stretch"] = signalsmith
    speeds = {}
    for speed in SPEEDS:
        for name, make in makers.items():
            made, seconds = cpu(lambda make=make, speed=speed: make(sound, speed), options.repeats)
            speeds[f"{speed} {name}"] = speed_row(made, seconds, sound, speed)
    print(f"{sound.size / RATE:.2f} s of speech")
    for rows in (formats, speeds):
        for name, row in rows.items():
            print(f"{name:20}", ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if options.json:
        cli.print_json({"formats": formats, "speeds": speeds})


if __name__ == "__main__":
    main()
