"""Maps of voices as one page (HTML): names on hover, a search, zoom, groups to hide; no network, nothing to install.

The page is page.html; page.css, page.js and the voices as JSON are put in where it says @@STYLE@@, @@SCRIPT@@ and
@@DATA@@.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import mlx.core as mx
import numpy as np

from ... import checks
from ...errors import WrongType
from ...files.json_text import json_text
from ...files.output import whole_file
from .picture import COLOURS, LABELLED, REST, check, classify


def write_html(
    path: Path | str,
    points: mx.array | np.ndarray | Sequence[Sequence[float]],
    names: Sequence[str],
    groups: Sequence[str | None] | None = None,
    details: Sequence[dict[str, str]] | None = None,
    axis_labels: Sequence[str] = ("", ""),
    title: str = "Voices",
    equal: bool = True,
) -> None:
    """Write one page that needs nothing else: names on hover, focus and tap, groups to hide, zoom, pan and a search.

    points: [N, 2]. details: for each voice a dict of strings, further lines of what is shown on hover. Texts are shown
    as they are: they travel as JSON, and the page's policy runs one script only, that of the hash it names.
    """
    points = check(path, ".html", points, names, groups, axis_labels, title)
    if details is not None:
        checks.length(details, len(points), "details", "points")
    for entry in details or ():
        if not isinstance(entry, dict) or not all(isinstance(text, str) for item in entry.items() for text in item):
            raise WrongType(f"details of a map are dicts of strings, not {entry!r}", param="details")
    classes = classify(groups, len(points))
    x, y = map(_rounded, points.astype(np.float64).T)
    data = {
        "axes": list(axis_labels), "equal": equal, "x": x, "y": y, "names": list(names),
        "groups": list(groups or []), "details": list(details or []), "kinds": classes.of, "legend": classes.names,
        "rest": classes.rest, "labelled": LABELLED, "colours": [*COLOURS, REST],
    }  # fmt: skip
    script = packaged("page.js")
    parts = {"TITLE": html.escape(title), "COUNT": f"{len(points):,}", "STYLE": packaged("page.css"), "SCRIPT": script}
    # the policy's hash is that of all between the tags, with the line's end after <script>
    parts["HASH"] = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    parts["DATA"] = json_text(data, separators=(",", ":")).replace("<", "\\u003c")
    pieces = packaged("page.html").split("@@")  # text and names of parts in turn, so nothing in a part is taken for one
    pieces[1::2] = [parts[name] for name in pieces[1::2]]
    with whole_file(path) as temporary:
        temporary.write_bytes("".join(pieces).encode("ascii", "xmlcharrefreplace"))


@functools.cache
def packaged(name: str) -> str:
    """The text of a file beside this one."""
    return (resources.files("mlx_qwen3tts.voices.maps") / name).read_text(encoding="utf-8")


def _rounded(values: np.ndarray) -> list[float]:
    """Values [N] to a hundred-thousandth of their range, as a list."""
    return np.round(values, 5 - math.floor(math.log10(np.ptp(values) or 1))).tolist()
