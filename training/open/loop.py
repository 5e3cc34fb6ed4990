"""A training loop that is the same whether it is stopped or not: everything random comes from the number of the step.

Nothing here is of torch: what is kept has state_dict and load_state_dict, and `files` is a module with save and load
(torch, or a stand-in).
"""

import csv
import math
import sys
import time
from pathlib import Path

SAVE_SECONDS = 120


class Loop:
    """Steps up to `steps`, resumed from WORK/NAME.pt; a line of averages every `every` steps goes to WORK/NAME.csv.

    `rate` climbs for `warmup` steps, stays until `flat` of all and falls to a fiftieth by a cosine. `done`: whether all
    steps were taken. The CSV is cut back to the checkpoint's step when a run goes on, so it has no step twice.

    While the rate is flat nothing depends on how many steps are to come, so until then a run of more than ten times
    `warmup` may be made longer or shorter, and ends as if it had been begun so.
    """

    def __init__(self, name, work, keep, steps, peak, files, warmup=200, flat=0.3, every=50):
        self.name, self.keep, self.steps, self.peak, self.files = name, keep, steps, peak, files
        self.warmup, self.flat, self.every = min(warmup, max(1, steps // 10)), flat, every
        self.path, self.log, self.notes = (Path(work) / f"{name}{end}" for end in (".pt", ".csv", ".notes.csv"))
        self.step, self.seconds, self.pending, self.means = 0, 0.0, [], {}
        if self.path.is_file():
            state = files.load(self.path, weights_only=False)
            fewer = min(state["steps"], steps)
            if state["steps"] != steps and (state["step"] > flat * fewer or fewer < 10 * warmup):
                sys.exit(
                    f"{self.path} was begun with --steps {state['steps']}, and after {state['step']} of them {steps} "
                    "would be another run; go on with the former, or move it away"
                )
            for key, thing in keep.items():
                thing.load_state_dict(state["keep"][key])
            self.step, self.seconds, self.pending = state["step"], state["seconds"], state["pending"]
            print(f"{name}: goes on at step {self.step} of {steps}, after {self.seconds / 60:.1f} minutes", flush=True)
        self._cut()

    def _cut(self):
        for path in (self.log, self.notes):
            if path.is_file():
                with path.open(newline="") as file:
                    head, *rows = list(csv.reader(file)) or [[]]
                kept = [head, *(row for row in rows if int(row[0]) <= self.step)] if self.step else []
                with path.open("w", newline="") as file:
                    csv.writer(file).writerows(kept)

    @property
    def done(self):
        return self.step >= self.steps

    def rate(self):
        """The learning rate of the step at hand."""
        rate = self.peak * min(1, (self.step + 1) / self.warmup)
        part = self.step / self.steps
        if part > self.flat:
            rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (part - self.flat) / (1 - self.flat)))
        return rate

    def run(self, seconds=None):
        """Yield the numbers of the remaining steps, for so many seconds at most; saves now and then and at the end."""
        started = saved = time.monotonic()
        before = self.seconds
        while not self.done and (seconds is None or time.monotonic() - started < seconds):
            yield self.step
            self.step += 1
            now = time.monotonic()
            self.seconds = before + now - started
            if now - saved > SAVE_SECONDS:
                self.save()
                saved = now
        self.save()

    def save(self):
        self._read()
        state = {
            "keep": {key: thing.state_dict() for key, thing in self.keep.items()},
            "step": self.step,
            "steps": self.steps,
            "seconds": self.seconds,
            "pending": self.pending,
        }
        partial = self.path.with_suffix(".partial")
        self.files.save(state, partial)
        partial.replace(self.path)

    def record(self, **values):
        """Keep the values of a step, numbers or scalars of any library; every so many steps their means are written.

        They are read then only, as reading one waits for the device that computes it.
        """
        self.pending.append(values)
        if (self.step + 1) % self.every == 0:
            self._read()
            means = {key: sum(row[key] for row in self.pending) / len(self.pending) for key in values}
            self.pending = []
            self.means = means
            self._write({"step": self.step + 1, "seconds": round(self.seconds, 1), **means})

    def _read(self):
        self.pending = [{key: float(value) for key, value in row.items()} for row in self.pending]
        for row in self.pending:
            for key, value in row.items():
                if not math.isfinite(value):
                    sys.exit(f"{self.name}: {key} is {value} before step {self.step + 1}")

    def note(self, **values):
        """Print what is measured seldom, and add it to WORK/NAME.notes.csv."""
        row = {"step": self.step + 1} | {key: round(float(value), 4) for key, value in values.items()}
        print(self.name, *(f"{key} {value:g}" for key, value in row.items()), flush=True)
        append(self.notes, row)

    def _write(self, row):
        row = {key: round(float(value), 4) for key, value in row.items()} | {"step": int(row["step"])}
        print(self.name, *(f"{key} {value:g}" for key, value in row.items()), flush=True)
        append(self.log, row)


def append(path, row):
    """Add a row, a dict, to a CSV; its keys are the first line of a new one."""
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if not file.tell():
            writer.writerow(row)
        writer.writerow(row.values())
