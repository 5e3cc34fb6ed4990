"""Maps of voices: vectors in two dimensions, drawn as a picture (PNG); map_page draws them as a page (HTML).

N: voices; D: dimension of a vector. The colours are Petroff's, chosen by measured distances so that people with
any colour vision tell them apart (arXiv 2107.02270, without its greys); each group has a shape of its own as well.
"""

import contextlib
import logging
import math
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ...errors import InvalidValue, WrongType
from ...files.output import whole_file

COLOURS = ["#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#92dadd"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<"]  # the same shapes, in the same order, as SHAPES of map_page
REST = "#b4b8bd"  # the groups beyond these, and voices without one
LABELLED = 40  # voices up to which all have their names beside them
LONGEST = 40  # characters of a name in the picture
BLOCK, CLOSE, THIN = 4, 1e-5, 1e-6  # of _principal


@dataclass
class Projection:
    """points [N, 2] float32; labels of the two axes; shares of the variance that they carry, None for scores."""

    points: mx.array
    labels: tuple
    shares: tuple | None = None

    @property
    def equal(self):
        """Whether both axes have one unit, so that distances on the map mean something."""
        return self.shares is not None


def project(X, axes=None):
    """Two numbers for each row of X [N, D]: its first two principal components, or two scores.

    axes: {name: scores [N]} of exactly two axes, such as {"@gender": ..., "@pitch": ...}. Components are signed so
    that their largest loading is positive. Raises ValueError for NaN and wrong shapes.
    """
    if not isinstance(X, mx.array):
        raise WrongType(f"voices to map must be an mx.array [N, D], not {type(X).__name__}")
    if X.ndim != 2 or X.size == 0 or not mx.issubdtype(X.dtype, mx.floating):
        raise InvalidValue(f"voices to map have shape {list(X.shape)} and dtype {X.dtype}; expected floats [N, D]")
    if not mx.isfinite(X).all().item():
        row = mx.isfinite(X).all(axis=1).tolist().index(False)
        raise InvalidValue(f"voice {row} of the map has values that are NaN or infinite")
    if axes is not None:
        return _scored(X.shape[0], axes)
    points, shares = _principal(X)
    labels = tuple(f"component {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares))
    return Projection(points, tuple(label.replace("%", " %") for label in labels), shares)


def _scored(count, axes):
    if not isinstance(axes, dict):
        raise WrongType(f"the axes of a map are a dict of two names with scores, not {type(axes).__name__}")
    if len(axes) != 2:
        raise InvalidValue(f"a map has two axes, not {len(axes)}")
    columns = []
    for name, scores in axes.items():
        scores = mx.array(scores).astype(mx.float32)
        if scores.shape != (count,):
            raise InvalidValue(f"axis {name!r} has scores of shape {list(scores.shape)} for {count} voices")
        if not mx.isfinite(scores).all().item():
            raise InvalidValue(f"axis {name!r} has scores that are NaN or infinite")
        columns.append(scores)
    return Projection(mx.stack(columns, axis=1), tuple(axes))


def _principal(X):
    """Points [N, 2] and shares of the variance, by a block Krylov method (Musco and Musco, NeurIPS 2015).

    Vectors V [D, m] with their images under C = XᵀX grow by a block until the two largest Ritz pairs of VᵀCV leave a
    residual |Cv - λv| below CLOSE λ₁, at the latest when V spans everything. For voices that is some fifty products
    of X and a vector, where C itself would take D. A component thinner than a thousandth of the first, which is less
    than a pixel and drowns in rounding, counts as zero.
    """
    count, dimension = X.shape
    with mx.stream(mx.cpu):  # where mx.linalg works, and float32 is never rounded to TF32
        X = X.astype(mx.float32)
        X = X - X[:1]  # equal rows become exact zeros
        X = X - X.mean(axis=0)
        unit = mx.abs(X).max().item()
        if unit == 0:
            return mx.zeros((count, 2)), (0.0, 0.0)
        X = X / unit  # so that no square overflows or vanishes
        total = mx.square(X).sum(axis=1).sum().item()  # in two steps, as one long float32 sum loses a percent
        new = mx.random.normal((dimension, min(BLOCK, dimension)), key=mx.random.key(0))
        V = images = mx.zeros((dimension, 0))
        while True:
            new = mx.linalg.qr(new)[0]
            for _ in range(2):  # once leaves rounding where the block was nearly in V
                new = mx.linalg.qr(new - V @ (V.T @ new))[0]
            V = mx.concatenate([V, new], axis=1)
            new = ((X @ new).T @ X).T
            images = mx.concatenate([images, new], axis=1)
            values, vectors = mx.linalg.eigh(V.T @ images)
            values, vectors = values[:-3:-1], vectors[:, :-3:-1]
            loadings = V @ vectors
            residual = mx.linalg.norm(images @ vectors - loadings * values, axis=0).max()
            if V.shape[1] == dimension or (residual <= CLOSE * values[0]).item():
                break
            new = new[:, : dimension - V.shape[1]]
        largest = mx.take_along_axis(loadings, mx.abs(loadings).argmax(axis=0, keepdims=True), axis=0)
        values = mx.where(values > THIN * values[0], values, 0)
        points = (X @ loadings) * mx.sign(largest) * (values > 0) * unit
        missing = 2 - points.shape[1]  # of a one-dimensional X
        points, values = mx.pad(points, ((0, 0), (0, missing))), mx.pad(values, (0, missing))
    return points, tuple(min(value / total, 1.0) for value in values.tolist())


@dataclass
class Classes:
    """What a voice is drawn as: the index of its class [N], the classes' names, which of them is drawn as REST."""

    of: list
    names: list
    rest: int = -1


def classify(groups, count):
    """The largest groups get a colour each; what is left, and None, share the last class."""
    if groups is None:
        return Classes([0] * count, [])
    counts = Counter(group for group in groups if group is not None)
    names = sorted(sorted(counts, key=lambda group: (-counts[group], group))[: len(COLOURS)])
    rank = {name: i for i, name in enumerate(names)}
    of = [rank.get(group, len(names)) for group in groups]
    left = [f"{len(counts) - len(names)} others"] * (len(counts) > len(names)) + ["no group"] * (None in groups)
    return Classes(of, names + [", ".join(left)] * bool(left), len(names) if left else -1)


def check(path, suffix, points, names, groups, axis_labels, title):
    """The points as a NumPy array [N, 2]; ValueError or TypeError unless they and their texts belong together."""
    if Path(path).suffix != suffix:
        raise InvalidValue(f"map {path}: the extension must be {suffix}")
    points = np.array(points, np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or not points.size:
        raise InvalidValue(f"points of a map have shape {list(points.shape)}; expected [N, 2]")
    if not np.isfinite(points).all():
        raise InvalidValue("points of a map are NaN or infinite")
    for what, texts, kinds in (("names", names, str), ("groups", groups, str | None)):
        if texts is not None and len(texts) != len(points):
            raise InvalidValue(f"a map of {len(points)} points has {len(texts)} {what}")
        for text in texts or ():
            if not isinstance(text, kinds):
                raise WrongType(f"{what} of a map are strings, not {text!r}")
    if len(axis_labels) != 2 or not all(isinstance(text, str) for text in (*axis_labels, title)):
        raise WrongType("a map has two axis labels and a title, all strings")
    return points


def write_png(path, points, names, groups=None, axis_labels=("", ""), title="Voices", equal=True):
    """Draw points [N, 2] with their names, coloured by group (a string or None for each); the same bytes each time.

    Up to LABELLED voices have their names beside them; a map of more is for its shape, and the page for the names.
    equal: one scale for both axes. Raises ValueError where matplotlib is missing, before anything is written.
    """
    points = check(path, ".png", points, names, groups, axis_labels, title)
    try:
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ModuleNotFoundError:
        raise InvalidValue(
            "a map as PNG needs matplotlib: pip install 'mlx-qwen3tts[voices]', or write .html"
        ) from None
    classes = classify(groups, len(points))
    names = [_shown(name) for name in names] if len(names) <= LABELLED else []
    legend, axis_labels, title = [_shown(name) for name in classes.names], map(_shown, axis_labels), _shown(title)
    xlabel, ylabel = axis_labels
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
def _quiet():
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


def _look(kind, rest):
    """The marker of a class."""
    if kind == rest:
        return {"marker": "o", "markerfacecolor": REST, "markeredgecolor": "#0006"}
    return {"marker": MARKERS[kind], "markerfacecolor": COLOURS[kind], "markeredgecolor": "#0008"}


def _scatter(axes, points, classes):
    """Draw the points: REST below all, the others in turns, so that no group hides another in a crowd."""
    of, turns = np.array(classes.of), math.ceil(len(points) / 200)
    size = min(7, max(2.5, 80 / math.sqrt(len(points))))
    for turn in range(turns):
        for kind in range(max(of) + 1):
            x, y = points[turn::turns][of[turn::turns] == kind].T
            look = _look(kind, classes.rest)
            order = 2 if kind == classes.rest else 3 + turn / turns
            axes.plot(x, y, linestyle="", markersize=size, markeredgewidth=0.06 * size, zorder=order, **look)


def _shown(text):
    """A text as the picture has it: not too long, on one line, without halves of surrogate pairs."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _families(text):
    """DejaVu Sans and what else of the installed fonts is needed for a text; a warning for what none of them has."""
    from matplotlib import font_manager
    from matplotlib.font_manager import FontProperties

    def characters(family):
        return font_manager.get_font(font_manager.findfont(FontProperties(family=[family]))).get_charmap().keys()

    families, missing = ["DejaVu Sans"], {ord(c) for c in text if c.isprintable()}
    missing -= characters(families[0])
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


def _label(axes, points, names):
    """Put names [N] beside their points where they cover neither each other nor a marker, if need be with a line.

    Each name in turn takes the best of 16 directions at 5 distances, given where the others are, until none moves.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import IdentityTransform

    renderer, frame = axes.figure.canvas.get_renderer(), axes.get_window_extent()
    halo = [withStroke(linewidth=2, foreground="white")]
    look = {"transform": IdentityTransform(), "ha": "center", "va": "center_baseline", "fontsize": 7.5}
    texts = [axes.text(0, 0, name, color="#333333", path_effects=halo, zorder=6, **look) for name in names]
    spots = axes.transData.transform(points)
    extents = [text.get_window_extent(renderer) for text in texts]
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
