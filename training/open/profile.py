"""What a training step costs here, by part, and what a whole run would: measured, beside what is counted.

    python -m training.open profile WORK [--threads 1 --frames 4096]

Without WORK/data it makes up batches of the usual lengths. A table of the step's parts, hours for an epoch, then the
share of the operators by torch's profiler. FLOPs are counted: 6 for each weight of a product and position, and those of
attention.
"""

import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from .config import model_config, weights
from .inventory import INVENTORY
from .prompts import SPARE
from .talker import PREDICTED, Learner, Training, add_options  # noqa: F401  (the options are those of the stage)

REPEATS = 3
EPOCH = 60 * 45_000  # frames of 60 hours


def counted(settings, length, predicted=1 / PREDICTED):
    """{part: FLOPs of a frame, forward and backward} where a row has `length` positions."""
    talker = settings["talker_config"]
    found = weights(settings)
    positions = (length + SPARE) / length
    attention = 12 * talker["num_hidden_layers"] * talker["num_attention_heads"] * talker["head_dim"] * length / 2
    books = talker["num_code_groups"]
    return {
        "talker": positions * (6 * found["talker"][0] + attention),
        "predictor": predicted * books * 6 * (found["predictor"][0] - 6 / 7 * 7 * 256 * 256),
    }


def made_up(settings, frames, length):
    """A batch of the usual shapes with random contents."""
    draw, rows, size = np.random.default_rng(0), frames // (length + SPARE), settings["talker_config"]
    shape, books = (rows, length + SPARE), size["num_code_groups"]
    codes = draw.integers(0, 256, (*shape, books))
    predicts = np.zeros(shape, bool)
    predicts[:, SPARE - 1 : -1] = True
    words = np.zeros(shape, bool)
    words[:, SPARE : SPARE + length // 3] = True
    batch = {
        "text": draw.integers(0, 1500, shape),
        "spoken": np.full(shape, -1),
        "codes": codes,
        "known": predicts,
        "label": codes[..., 0],
        "following": codes,
        "predicts": predicts,
        "phones": draw.integers(0, len(INVENTORY), (*shape, 2)),
        "spot": np.where(predicts, SPARE, -100),
        "words": words,
        "vector": draw.normal(size=(rows, size["hidden_size"])).astype(np.float32),
        "place": np.full(rows, 7),
        "chosen": np.flatnonzero(predicts)[: frames // PREDICTED],
    }
    return {name: torch.from_numpy(value) for name, value in batch.items()}


def clock(device, threads):
    """A function that gives seconds: of a CPU those of one of its threads, whatever else runs beside it."""
    if device == "cpu":
        return lambda: time.process_time() / threads

    def now():
        torch.cuda.synchronize()
        return time.perf_counter()

    return now


def main(options):
    torch.set_num_threads(options.threads)
    now = clock(options.device, options.threads)
    if (Path(options.work) / "data" / "data.npz").is_file():
        learner, started = Training(options), now()
        feed = [next(learner.batches(k, k + 1)) for k in range(REPEATS)]
        making = (now() - started) / REPEATS
    else:
        learner, making = Learner(model_config(), options), 0.0
        feed = [made_up(learner.settings, options.frames, length) for length in (48, 72, 96)]
    parts, frames, positions = defaultdict(list), [], []

    def step(batch):
        marks = [now()]
        learner.step(0, batch, 1e-5, lambda: marks.append(now()))
        return np.diff([*marks, now()])

    for batch in feed:  # once without a clock: a compiled step is compiled
        step(batch)
    for batch in feed:
        took = step(batch)
        for name, seconds in zip(("forward", "backward", "optimizer"), took, strict=True):
            parts[name].append(seconds)
        frames.append(int(batch["predicts"].sum()))
        positions.append(batch["predicts"].numel())
    parts["batch"] = [making] * len(feed)
    whole = sum(np.mean(row) for row in parts.values())
    print(f"{np.mean(frames):.0f} frames, {np.mean(positions):.0f} positions a step")
    for name, row in parts.items():
        print(f"{name:10} {np.mean(row):8.3f} s  {100 * np.mean(row) / whole:5.1f} %")
    flops = {part: value * np.mean(frames) for part, value in counted(learner.settings, 70).items()}
    rate = sum(flops.values()) / whole
    print(
        f"step {whole:.3f} s, {np.mean(frames) / whole:.0f} frames/s, {rate / 1e9:.1f} GFLOP/s "
        f"({', '.join(f'{part} {value / 1e9:.0f} GFLOP' for part, value in flops.items())})"
    )
    print(f"an epoch of 60 hours: {EPOCH / (np.mean(frames) / whole) / 3600:.2f} hours")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        step(feed[1])
    rows = sorted(seen.key_averages(), key=lambda row: -row.self_cpu_time_total)
    everything = sum(row.self_cpu_time_total for row in rows)
    for row in rows[:14]:
        print(f"{100 * row.self_cpu_time_total / everything:5.1f} %  {row.count:5}  {row.key}")
    kept = [row.values() for one in learner.optimizers.values() for row in one.state.values()]
    memory = 8 * sum(v.numel() for v in learner.trained) + sum(v.nbytes for row in kept for v in row)
    print(f"weights, gradients and moments {memory / 1e6:.0f} MB")
