"""How far to trust a direction: what it says of groups that it was not learnt from, and whether halves agree."""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import numpy as np

from ..space import indices
from .fit import Labels, solve

FEW_GROUPS = 5  # fewer speakers on a side than this are an anecdote
SPLITS = 20


@dataclass(frozen=True)
class Report:
    """n voices in `groups` groups (0: none were given).

    accuracy: share of voices on the right side, each scored by a direction fitted without its group (two labels), with
    `right` the number and `scored` how many there were; chance: share of the commoner label; correlation: of scores and
    numbers, by the same means; failures: names on the wrong side; first: [groups whose one positive voice has the
    highest score, groups that have one], with first_failures; split_half: mean cosine of directions from halves of
    the groups, None where halves lack a label; per_radius: what one radius adds to a number, on the voices themselves.
    """

    n: int
    groups: int
    labels: dict[str, float]
    method: str
    scored: int
    right: int | None = None
    accuracy: float | None = None
    chance: float | None = None
    correlation: float | None = None
    failures: list[str] = field(default_factory=list)
    first: list[int] | None = None
    first_failures: list[str] = field(default_factory=list)
    split_half: float | None = None
    per_radius: float | None = None
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        of = f"{self.groups} groups" if self.groups else "no groups"
        sides = ", ".join(f"{name} {count}" for name, count in self.labels.items())
        lines = [f"{self.n} voices, {of}; {sides}; method {self.method}"]
        out = "leaving out a group at a time" if self.groups else "leaving out a voice at a time"
        if self.accuracy is not None:
            lines.append(
                f"{out}: right for {self.right} of {self.scored} ({self.accuracy:.0%}; "
                f"the commoner label: {self.chance:.0%})"
            )
        if self.correlation is not None:
            lines.append(f"{out}: correlation {self.correlation:.2f} over {self.scored} voices")
        if self.failures:
            lines.append(f"wrong: {', '.join(self.failures)}")
        if self.first:
            lines.append(f"ranked first in its group when that was left out: {self.first[0]} of {self.first[1]}")
        if self.first_failures:
            lines.append(f"not first: {', '.join(self.first_failures)}")
        if self.split_half is not None:
            lines.append(f"directions from two halves agree at cosine {self.split_half:.2f}")
        if self.per_radius is not None:
            lines.append(f"one radius along it goes with {self.per_radius:+.3g} of the label")
        return "\n".join([*lines, *self.warnings])

    def without_figures(self, cosine: float) -> Report:
        """The report of what remains of a direction, at a cosine to it: what it was learnt from, nothing measured."""
        made = "of a direction learnt from these voices, less its part along another"
        told = f"What remains (cosine {cosine:.2f}) {made}. How well it tells the labels apart has not been measured."
        return Report(self.n, self.groups, self.labels, self.method, scored=0, warnings=[told])


def assess(X: mx.array, labels: Labels, method: str, top_k: int | None, radius: float) -> Report:
    """Report on the direction that `solve` finds in centred voices X [N, D]."""
    groups = labels.groups if labels.groups is not None else list(range(len(labels.y)))
    members: dict[Hashable, list[int]] = {group: np.array(rows).tolist() for group, rows in indices(groups).items()}
    scores = held_out(X, labels, method, top_k, members)
    known = np.flatnonzero(np.isfinite(scores))
    if labels.numeric:
        found = _numbers(X, labels, method, top_k, radius, scores, known)
    else:
        found = _two(labels, scores, known, members if labels.groups is not None else {})
    report = Report(
        len(labels.y),
        len(members) if labels.groups is not None else 0,
        _sides(labels),
        method,
        len(known),
        split_half=split_half(X, labels, method, top_k, list(members.values())),
        **found,
    )
    return replace(report, warnings=_warnings(report, labels, members))


def _sides(labels: Labels) -> dict[str, float]:
    if labels.numeric:
        return {"least": float(f"{labels.y.min():.6g}"), "most": float(f"{labels.y.max():.6g}")}
    return {labels.negative: int((labels.y < 0).sum()), labels.positive: int((labels.y > 0).sum())}


def held_out(
    X: mx.array, labels: Labels, method: str, top_k: int | None, members: dict[Hashable, list[int]]
) -> np.ndarray:
    """[N] scores of each group's voices by a direction fitted without them; NaN where the rest lacks a label."""
    scores = np.full(len(labels.y), np.nan, np.float32)
    for rows in members.values():
        rest = [i for i in range(len(labels.y)) if i not in set(rows)]
        if len(rest) < 2 or not labels.take(rest).usable:
            continue
        vector, centre = solve(X[mx.array(rest)], labels.take(rest), method, top_k)
        scores[rows] = np.array((X[mx.array(rows)] - centre) @ vector)
    return scores


def _two(labels: Labels, scores: np.ndarray, known: np.ndarray, members: dict[Hashable, list[int]]) -> dict[str, Any]:
    """The fields of a Report on two labels."""
    found: dict[str, Any] = {"first_failures": []}
    if len(known):
        right = (scores[known] > 0) == (labels.y[known] > 0)
        share = float((labels.y[known] > 0).mean())
        found.update(right=int(right.sum()), accuracy=float(right.mean()), chance=max(share, 1 - share))
        found["failures"] = [labels.names[i] for i in known[~right]]
    tried = won = 0
    for group, rows in members.items():
        positive = [i for i in rows if labels.y[i] > 0]
        if len(positive) == 1 and len(rows) > 1 and np.isfinite(scores[rows]).all():
            tried += 1
            best = rows[int(np.argmax(scores[rows]))]
            won += best == positive[0]
            if best != positive[0]:
                found["first_failures"].append(f"{labels.names[positive[0]]} ({labels.names[best]} in group {group})")
    return {**found, "first": [won, tried] if tried else None}


def _numbers(
    X: mx.array,
    labels: Labels,
    method: str,
    top_k: int | None,
    radius: float,
    scores: np.ndarray,
    known: np.ndarray,
) -> dict[str, Any]:
    """The fields of a Report on numbers."""
    correlation = None
    if len(known) > 2 and np.std(scores[known]) > 0:
        correlation = float(np.corrcoef(scores[known], labels.y[known])[0, 1])
    vector, centre = solve(X, labels, method, top_k)
    own = np.array((X - centre) @ vector) / radius
    return {"correlation": correlation, "per_radius": float(np.polyfit(own, labels.y, 1)[0])}


def split_half(X: mx.array, labels: Labels, method: str, top_k: int | None, members: list[list[int]]) -> float | None:
    """Mean cosine of the directions that two halves of the groups give, over up to SPLITS random halvings, or None."""
    shuffled, cosines = random.Random(0), []
    for _ in range(SPLITS):
        order = shuffled.sample(members, len(members))
        halves = [[i for rows in half for i in rows] for half in (order[: len(order) // 2], order[len(order) // 2 :])]
        if all(len(half) > 1 and labels.take(half).usable for half in halves):
            one, two = (solve(X[mx.array(half)], labels.take(half), method, top_k)[0] for half in halves)
            cosines.append(float(one @ two))
    return sum(cosines) / len(cosines) if cosines else None


def _warnings(report: Report, labels: Labels, members: dict[Hashable, list[int]]) -> list[str]:
    told = []
    if not report.groups:
        told.append(
            "No groups were given: if a speaker has several of these voices, they predict each other, and this report "
            "flatters."
        )
    sides = [[1, -1], [None]][labels.numeric]
    fewest = min(
        sum(any(side is None or labels.y[i] == side for i in rows) for rows in members.values()) for side in sides
    )
    if fewest < FEW_GROUPS:
        told.append(f"Too few to trust: a side has {fewest} independent group{'s' * (fewest != 1)}; take it as a hint.")
    if report.scored < report.n:
        told.append(f"{report.n - report.scored} voices could not be scored: without their group a label is missing.")
    if report.accuracy is not None and report.chance is not None and report.accuracy <= report.chance:
        told.append("It is no better than always guessing the commoner label.")
    if report.correlation is not None and report.correlation < 0.3:
        told.append("It hardly predicts the label of voices that it has not seen.")
    if report.split_half is not None and report.split_half < 0.5:
        told.append("Two halves of the data disagree on it: much of it is noise.")
    return told
