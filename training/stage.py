"""What every training stage shares: a clock that survives a restart, a checkpoint, a CSV log, a learning rate."""

import argparse
import csv
import math
import sys
import time
from pathlib import Path

import torch

SAVE_SECONDS = 300

torch.set_flush_denormal(True)  # decaying moments of an optimizer would slow a CPU down many times over


class Stage:
    """A training loop bounded by minutes, resumed from WORK/NAME.pt where that is of the same stage.

    Iterating yields the step number until the minutes are over; time spent before a restart counts. `keep` is a dict of
    things with state_dict and load_state_dict.
    """

    def __init__(self, name, keep, optimizer, options, rate, warmup=50, flat=0.3, log_every=100, save_every=500):
        self.folder = Path(options.work)
        self.name, self.keep, self.optimizer = name, keep, optimizer
        self.seconds, self.rate, self.warmup, self.flat = options.minutes * 60, rate, warmup, flat
        self.log_every, self.save_every = log_every, save_every
        self.step, self.spent, self.averages = 0, 0.0, {}
        self.path = self.folder / f"{name}.pt"
        self.log = self.folder / f"{name}.csv"
        if self.path.is_file():
            state = torch.load(self.path, weights_only=False)
            for key, thing in keep.items():
                thing.load_state_dict(state["keep"][key])
            optimizer.load_state_dict(state["optimizer"])
            self.step, self.spent = state["step"], state["spent"]
            print(f"{name}: resumed at step {self.step}, {self.spent / 60:.1f} minutes", flush=True)
        else:
            self.log.unlink(missing_ok=True)
        threads = options.threads
        self.now = (lambda: time.process_time() / threads) if options.cpu_time else time.monotonic
        self.started = self.now() - self.spent
        self.saved = time.monotonic()

    def __iter__(self):
        while (elapsed := self.now() - self.started) < self.seconds:
            done = elapsed / self.seconds
            rate = self.rate * min(1, (self.step + 1) / self.warmup)
            if done > self.flat:
                rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - self.flat) / (1 - self.flat)))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            yield self.step
            self.step += 1
            if self.step % self.save_every == 0 or time.monotonic() - self.saved > SAVE_SECONDS:
                self.save()
        self.save()

    def save(self):
        self.spent, self.saved = self.now() - self.started, time.monotonic()
        state = {key: thing.state_dict() for key, thing in self.keep.items()}
        partial = self.path.with_suffix(".partial")
        torch.save(
            {"keep": state, "optimizer": self.optimizer.state_dict(), "step": self.step, "spent": self.spent}, partial
        )
        partial.replace(self.path)

    def record(self, validate=None, **values):
        """Log smoothed values and, with `validate`, what it returns; every `log_every` steps."""
        for key, value in values.items():
            value = float(value.detach() if torch.is_tensor(value) else value)
            self.averages[key] = 0.97 * self.averages[key] + 0.03 * value if key in self.averages else value
            if not math.isfinite(value):
                sys.exit(f"{self.name}: {key} is {value} at step {self.step}")
        if (self.step + 1) % self.log_every:
            return
        row = {"step": self.step + 1, "seconds": round(time.monotonic() - self.started), **self.averages}
        if validate is not None:
            row |= validate()
        row = {key: round(float(value), 4) for key, value in row.items()}
        with self.log.open("a", newline="") as file:
            writer = csv.writer(file)
            if not file.tell():
                writer.writerow(row)
            writer.writerow(row.values())
        print(self.name, *(f"{key} {value:g}" for key, value in row.items()), flush=True)


def parser(minutes):
    options = argparse.ArgumentParser()
    options.add_argument("work")
    options.add_argument("--minutes", type=float, default=minutes)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument(
        "--cpu-time", action="store_true", help="minutes of the CPU, at a low priority, not of the clock"
    )
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return options


def arguments(options):
    """The parsed options, with torch's threads and seed set as they say."""
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    return options
