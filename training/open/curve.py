"""The gate that stops a bad run early: its losses beside those of a known run, after as many steps.

The known one is the talker.csv of the first whole run, 2,000 steps of 2,960 frames, as it is. Larger batches should be
below it at every step. Beyond its end its last row counts.
"""

import csv
from pathlib import Path

KNOWN = Path(__file__).with_name("curve.csv")
WATCHED = ("phones", "pointer")  # what is being said, and where; how it sounds depends on the codec
SLACK = 1.15  # a loss may be so many times the known one
EARLY = 0.02  # of all steps: when the gate is asked


def read(path=KNOWN):
    """[{column: number}] of a loss curve, with a column `step`, rising."""
    with Path(path).open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def at(curve, step, name):
    """A column of a curve after so many steps, on the line between two rows; its first or last value beyond."""
    before = curve[0]
    for row in curve:
        if row["step"] >= step:
            width = row["step"] - before["step"]
            part = (step - before["step"]) / width if width else 1.0
            return before[name] + max(0.0, part) * (row[name] - before[name])
        before = row
    return before[name]


def misses(curve, step, losses, slack=SLACK):
    """["name 3.1, known 2.2", …]: the losses above `slack` times the known curve's after so many steps."""
    found = []
    for name in WATCHED:
        known = at(curve, step, name)
        if not losses[name] <= slack * known:  # so that no number is bad, too
            found.append(f"{name} {losses[name]:.3f}, known {known:.3f}")
    return found
