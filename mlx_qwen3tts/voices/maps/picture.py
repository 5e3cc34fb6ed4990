"""Maps of voices as a picture (PNG), and what it has in common with the page: colours, classes, and what is refused.

N: voices. The colours are Petroff's, chosen by measured distances so that people with any colour vision tell them apart
(arXiv 2107.02270, without its greys); each group has a shape of its own as well.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ... import checks
from ...errors import InvalidValue, MissingExtra, WrongType, install_hint
from ...files.output import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ["#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#92dadd"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<"]  # the same shapes, in the same order, as SHAPES of page.js
REST = "#b4b8bd"  # the groups beyond these, and voices without one
LABELLED = 40  # voices up to which all have their names beside them
LONGEST = 40  # characters of a name in the picture


@dataclass(frozen=True)
class Classes:
    """What a voice is drawn as: the index of its class [N], the classes' names, which of them is drawn as REST."""

    of: list[int]
    names: list[str]
    rest: int = -1


def classify(groups: Sequence[str | None] | None, count: int) -> Classes:
    """The largest groups get a colour each; what is left, and None, share the last class."""
    if groups is None:
        return Classes([0] * count, [])
    counts = Counter(group for group in groups if group is not None)
    names = sorted(sorted(counts, key=lambda group: (-counts[group], group))[: len(COLOURS)])
    rank: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    of = [rank.get(group, len(names)) for group in groups]
    left = [f"{len(counts) - len(names)} others"] * (len(counts) > len(names)) + ["no group"] * (None in groups)
    return Classes(of, names + [", ".join(left)] * bool(left), len(names) if left else -1)


def check(
    path: Path | str,
    suffix: str,
    points: mx.array | np.ndarray | Sequence[Sequence[float]],
    names: Sequence[str],
    groups: Sequence[str | None] | None,
    axis_labels: Sequence[str],
    title: str,
) -> np.ndarray:
    """The points as a NumPy array [N, 2]; an error unless they and their texts belong together."""
    if Path(path).suffix != suffix:
        raise InvalidValue(f"map {path}: the extension must be {suffix}", param="path")
    points = np.array(points, np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or not points.size:
        raise InvalidValue(f"points of a map have shape {list(points.shape)}; expected [N, 2]", param="points")
    if not np.isfinite(points).all():
        raise InvalidValue("points of a map are NaN or infinite", param="points")
    for what, texts, kinds in (("names", names, str), ("groups", groups, str | None)):
        if texts is not None:
            checks.length(texts, len(points), what, "points")
        for text in texts or ():
            if not isinstance(text, kinds):
                raise WrongType(f"{what} of a map are strings, not {text!r}", param=what)
    if len(axis_labels) != 2 or not all(isinstance(text, str) for text in (*axis_labels, title)):
        raise WrongType("a map has two axis labels and a title, all strings")
    return points


def write_png(
    path: Path | str,
    points: mx.array | np.ndarray | Sequence[Sequence[float]],
    names: Sequence[str],
    groups: Sequence[str | None] | None = None,
    axis_labels: Sequence[str] = ("", ""),
    title: str = "Voices",
    equal: bool = True,
) -> None:
    """Draw points [N, 2] with their names, coloured by group (a string or None for each); the same bytes each time.

    Up to LABELLED voices have their names beside them; a map of more is for its shape, and the page for the names.
    equal: one scale for both axes. MissingExtra where there is no matplotlib, before anything is written.
    """
    points = check(path, ".png", points, names, groups, axis_labels, title)
    try:
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ModuleNotFoundError:
        raise MissingExtra(f"a map as PNG needs matplotlib: {install_hint('voices')}, or write .html") from None
    classes = classify(groups, len(points))
    names = [_shown(name) for name in names] if len(names) <= LABELLED else []
    legend, title = [_shown(name) for name in classes.names], _shown(title)
    xlabel, ylabel = map(_shown, axis_labels)
    with matplotlib.style.context("default"), _quiet():
        families = _families("".join([*names, *legend, xlabel, ylabel, title]))
        matplotlib.rcParams.update({"font.family": families, "font.size": 9, "text.parse_math": False})
        figure = Figure(figsize=(10, 7.5), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
        axes.set_title(title, fontsize=12)
        axes.grid(color="#e8e8e8")
        axes.set_axisbelow(True)
        axes.spines[:].set_color("#bbbbbb")
        axes.tick_params(color="#bbbbbb", labelcolor="#555555")
        axes.margins(0.09)
        if equal:
            axes.set_aspect("equal", adjustable="datalim")
        _scatter(axes, points, classes)
        if legend:
            looks = [_look(kind, classes.rest) for kind in range(len(legend))]
            handles = [Line2D([], [], linestyle="", markersize=6, markeredgewidth=0.4, **look) for look in looks]
            drawn = figure.legend(handles, ["-"] * len(legend), loc="outside right upper", frameon=False)
            for text, name in zip(drawn.get_texts(), legend, strict=True):
                text.set_text(name)  # given as a label, a name that starts with an underscore would be left out
        for _ in range(2):  # equal scales change the limits, and so the room that their numbers take
            figure.draw_without_rendering()
        figure.set_layout_engine("none")  # nothing moves any more
        axes.set(aspect="auto", xlim=axes.get_xlim(), ylim=axes.get_ylim(), autoscale_on=False)
        if names:
            _label(axes, points, names)
        with whole_file(path) as temporary:
            figure.savefig(temporary, metadata={"Software": None})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without matplotlib's words on glyphs, which _families has said for all of them, and on fonts of one weight."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            yield
    finally:
        logger.setLevel(level)


def _look(kind: int, rest: int) -> dict[str, Any]:
    """The marker of a class."""
    if kind == rest:
        return {"marker": "o", "markerfacecolor": REST, "markeredgecolor": "#0006"}
    return {"marker": MARKERS[kind], "markerfacecolor": COLOURS[kind], "markeredgecolor": "#0008"}


def _scatter(axes: Axes, points: np.ndarray, classes: Classes) -> None:
    """Draw the points: REST below all, the others in turns, so that no group hides another in a crowd."""
    of, turns = np.array(classes.of), math.ceil(len(points) / 200)
    size = min(7, max(2.5, 80 / math.sqrt(len(points))))
    for turn in range(turns):
        for kind in range(max(of) + 1):
            x, y = points[turn::turns][of[turn::turns] == kind].T
            look = _look(kind, classes.rest)
            order = 2 if kind == classes.rest else 3 + turn / turns
            axes.plot(x, y, linestyle="", markersize=size, markeredgewidth=0.06 * size, zorder=order, **look)


def _shown(text: str) -> str:
    """A text as the picture has it: not too long, on one line, without halves of surrogate pairs."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _families(text: str) -> list[str]:
    """DejaVu Sans and what else of the installed fonts is needed for a text; a warning for what none of them has."""
    from matplotlib import font_manager
    from matplotlib.font_manager import FontProperties

    def characters(family: str) -> Set[int]:
        return font_manager.get_font(font_manager.findfont(FontProperties(family=[family]))).get_charmap().keys()

    families = ["DejaVu Sans"]
    missing = {ord(c) for c in text if c.isprintable()} - characters(families[0])
    if missing:
        installed = sorted({font.name for font in font_manager.fontManager.ttflist})
        # The first has a box for every character, the second no outlines.
        usable = [name for name in installed if "Last Resort" not in name and "Color Emoji" not in name]
        has = {name: missing & characters(name) for name in usable}
        while missing and has[best := max(has, key=lambda name: len(has[name] & missing))] & missing:
            families.append(best)
            missing = missing - has[best]
    if missing:
        lost = " ".join(chr(c) for c in sorted(missing)[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        warnings.warn(f"no installed font has {lost}{more}: the PNG shows boxes there; HTML does not", stacklevel=3)
    return families


def _label(axes: Axes, points: np.ndarray, names: list[str]) -> None:
    """Put names [N] beside their points where they cover neither each other nor a marker, if need be with a line.

    Each name in turn takes the best of 16 directions at 5 distances, given where the others are, until none moves.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import IdentityTransform

    frame = axes.get_window_extent()
    halo = [withStroke(linewidth=2, foreground="white")]
    look = {"transform": IdentityTransform(), "ha": "center", "va": "center_baseline", "fontsize": 7.5}
    texts = [axes.text(0, 0, name, color="#333333", path_effects=halo, zorder=6, **look) for name in names]
    spots = axes.transData.transform(points)
    extents = [text.get_window_extent() for text in texts]
    half = np.array([(extent.width, extent.height) for extent in extents]) / 2 + (2, 1)  # in pixels, as all below
    angles, gaps = np.linspace(0, 2 * math.pi, 16, endpoint=False), np.array([9, 18, 32, 54, 84])
    towards = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # [5, 16, 2] -> [80, 2], the nearest first, and what a step outwards or a slanted place costs
    steps = (gaps[:, None, None] * towards).reshape(-1, 2)
    lean = np.tile(np.clip(towards * math.sqrt(2), -1, 1), (len(gaps), 1))
    price = np.repeat(gaps / 40, 16) + np.tile(0.1 * (np.arange(16) % 4 != 0) + 0.1 * (towards[:, 0] < 0.9), len(gaps))
    at = spots + steps[0] + lean[0] * half
    for _ in range(20):
        moved = False
        for i in range(len(names)):
            places = spots[i] + steps + lean * half[i]  # [80, 2]
            others = np.arange(len(names)) != i
            overlap = half[i] + half[others] - np.abs(places[:, None] - at[others])  # [80, N - 1, 2]
            covered = half[i] + 6 - np.abs(places[:, None] - spots)  # [80, N, 2]
            out = np.maximum(np.abs(places - frame.get_points().mean(axis=0)) + half[i] - np.array(frame.size) / 2, 0)
            cost = price + 20 * np.prod(np.maximum(overlap, 0), axis=2).sum(axis=1) / np.prod(2 * half[i])
            cost += 3 * (covered.min(axis=2) > 0).sum(axis=1) + out.sum(axis=1)
            best = places[cost.argmin()]
            moved, at[i] = moved or (best != at[i]).any(), best
        if not moved:
            break
    for text, place, spot, size in zip(texts, at, spots, half, strict=True):
        text.set_position(place)
        end = np.clip(spot, place - size, place + size)
        if np.hypot(*(end - spot)) > gaps[1]:
            axes.plot(*np.stack([spot, end], axis=1), color="#999999", lw=0.6, transform=look["transform"], zorder=0.9)
