"""The curves of a run, as CSV for programs and as SVG for people. The SVG needs no package to be drawn."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..files.output import whole_file
from .fit import Row

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 44  # of the frame around the curves
TRAINED, HELD_OUT = "#3f90da", "#bd1f01"
FONT = 'font-family="sans-serif" font-size="12"'


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """A row a step: its number, learning rate, the figures of its loss, and the held-out loss where it was measured."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "learning_rate", *names, "held_out"])
    for row in rows:
        figures = [f"{row.figures[name]:.6g}" if name in row.figures else "" for name in names]
        table.writerow([row.step, f"{row.rate:.6g}", *figures, "" if row.valid is None else f"{row.valid:.6g}"])
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def write_svg(path: Path, rows: Sequence[Row], best: int, title: str) -> None:
    """The loss of every step and the held-out losses, over the steps; best: the step that was kept."""
    trained = [
        (row.step, sum(row.figures[name] * weight for name, weight in DATA.items())) for row in rows if row.figures
    ]
    held = [(row.step, row.valid) for row in rows if row.valid is not None]
    points = [value for _, value in (*trained, *held) if math.isfinite(value)]
    low, high = (min(points), max(points)) if points else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin
    last = max((row.step for row in rows), default=0) or 1

    def at(step: float, value: float) -> tuple[float, float]:
        x = LEFT + step / last * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def line(values: Sequence[tuple[int, float]], colour: str, thick: float) -> str:
        drawn = " ".join("{:.1f},{:.1f}".format(*at(*pair)) for pair in values if math.isfinite(pair[1]))
        return f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="{thick}"/>'

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    parts.append(f'<text x="{LEFT}" y="24" {FONT} font-weight="bold">{escape(title)}</text>')
    for value in ticks(low, high):
        y = at(0, value)[1]
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e8e8e8"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" {FONT} fill="#555" text-anchor="end">{value:g}</text>')
    for step in ticks(0, last):
        if step == int(step):
            place = f'x="{at(step, low)[0]:.1f}" y="{HEIGHT - BOTTOM + 18}"'
            parts.append(f'<text {place} {FONT} fill="#555" text-anchor="middle">{step:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" {FONT} fill="#555" text-anchor="end">step</text>')
    parts += [line(trained, TRAINED, 1), line(held, HELD_OUT, 2)]
    for step, value in held:
        if math.isfinite(value):
            x, y = at(step, value)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if step == best else 3}" fill="{HELD_OUT}"/>')
    for i, (name, colour) in enumerate((("clips to learn from", TRAINED), ("held out, large: kept", HELD_OUT))):
        x = WIDTH - RIGHT - 300 + 150 * i
        parts.append(f'<path d="M{x} 20h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="24" {FONT}>{name}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
    with whole_file(path) as temporary:
        temporary.write_text("\n".join([head, *parts, "</svg>", ""]), encoding="utf-8")


DATA = {"first": 1.0, "rest": 0.3}  # the figures of a step that the held-out loss is made of, without the anchor


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, some `most` of them."""
    raw = (high - low) / most
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    first = math.ceil(low / step)
    return [round(step * number, 10) for number in range(first, math.floor(high / step) + 1)]
