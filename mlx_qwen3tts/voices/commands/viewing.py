"""`voices search | compare | map`: which voices are alike."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ... import cli
from ...errors import InvalidValue
from .shared import (
    Command,
    add_library,
    add_model,
    add_where,
    directions_of,
    encoder_of,
    library_of,
    lookup_of,
    nothing_like,
    report,
    where_of,
)


def search_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument(
        "query", metavar="QUERY", help="a recording, voice, expression, @direction, or words: low, female"
    )
    command.add_argument("-k", type=int, default=5, metavar="N", help="how many (default: 5)")
    command.add_argument("--lowest", action="store_true", help="the farthest, or lowest on the direction")
    add_where(command)
    add_model(command, "Base model or speaker encoder for a recording (default: mlx_model)")


def search(options: Namespace) -> None:
    from ...audio.formats import FORMATS

    library, where = library_of(options), where_of(options)
    sound = Path(options.query).suffix.lower() in FORMATS
    embed = encoder_of(options).encode if sound else None
    found = library.search(options.query, options.k, where=where, lowest=options.lowest, embed=embed)
    width = max(len(name) for name, _ in found)
    lines = [f"{name:{width}}  {score:+.3f}" for name, score in found]
    result = {"query": options.query, "found": [{"name": name, "score": score} for name, score in found]}
    report(options, result, *lines)


def compare_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("one", metavar="A", help="a recording, voice, or expression")
    command.add_argument("other", metavar="B")
    add_model(command, "Base model or speaker encoder for a recording (default: mlx_model), or a model with presets")


def compare(options: Namespace) -> None:
    from ...audio.formats import FORMATS
    from ..space import cosine
    from ..voice import Voice, differ

    library, voices = library_of(options, exists=False), []
    lookup, sources = lookup_of(options, library), (options.one, options.other)
    sounds = [Path(source).suffix.lower() in FORMATS for source in sources]
    encoder = encoder_of(options) if any(sounds) else None
    for source, sound in zip(sources, sounds, strict=True):
        voices.append(Voice(encoder.encode(source)) if encoder is not None and sound else lookup.voice(source))
    one, other = voices
    if one.dimension != other.dimension:
        raise differ(repr(options.one), one.dimension, repr(options.other), other.dimension)
    space, raw = library.space(one.dimension), float(cosine(one.embedding, other.embedding))
    result = {"one": options.one, "other": options.other, "similarity": None, "cosine": raw, "directions": {}}
    lines = [f"raw cosine    {raw:+.3f}"]
    if space is not None:
        result["similarity"] = alike = float(space.similarity(one, other))
        lines.insert(0, f"similarity    {alike:+.3f}, about the mean of {space.count} voices")
    for name, direction in directions_of(library).items():
        if direction.dimension == one.dimension:
            scores = float(direction.score(one)), float(direction.score(other))
            result["directions"][name] = list(scores)
            lines.append(f"@{name:12} {scores[0]:+.2f} and {scores[1]:+.2f} radii: {scores[1] - scores[0]:+.2f}")
    report(options, result, *lines)


def map_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("--output", "-o", required=True, metavar="F", help=".png or .html")
    command.add_argument("--color-by", metavar="KEY", help="an attribute")
    command.add_argument("--x", metavar="DIRECTION", help="the axes (default: the first two principal components)")
    command.add_argument("--y", metavar="DIRECTION")
    add_where(command)


def draw_map(options: Namespace) -> None:
    from ...files.output import check_not_read, check_writable
    from ..brought import everything
    from ..lookup import Lookup
    from ..maps.page import write_html
    from ..maps.picture import write_png
    from ..maps.projection import project

    writers = {".png": write_png, ".html": write_html}
    suffix = Path(options.output).suffix.lower()
    if suffix not in writers:
        raise InvalidValue(f"--output {options.output}: the extension must be .png or .html")
    check_writable(options.output)
    if (options.x is None) != (options.y is None):
        raise InvalidValue("--x and --y come together")
    library, where = library_of(options), where_of(options)
    snapshot = library.snapshot()
    names = snapshot.where(where)
    if not names:
        raise InvalidValue(nothing_like(snapshot, where))
    check_not_read(options.output, *map(snapshot.path, names))
    X = snapshot.vectors(names)
    axes = None
    if options.x:
        lookup = Lookup(library, brought=everything())
        directions = {name: lookup.direction(name.removeprefix("@")) for name in (options.x, options.y)}
        axes = {f"@{name.removeprefix('@')}": found.score(X) for name, found in directions.items()}
    drawn = project(X, axes)
    entries = [snapshot.info(name) for name in names]
    known = [{**entry["metadata"], **entry["attributes"]} for entry in entries]
    groups = [entry.get(options.color_by) or None for entry in known] if options.color_by else None
    if groups and not any(groups):
        raise InvalidValue(f"no voice of library {library.folder} has the attribute {options.color_by!r}")
    more = {"details": known} if suffix == ".html" else {}
    shown = {"axis_labels": drawn.labels, "title": f"Library {library.folder.name}", "equal": drawn.equal}
    writers[suffix](options.output, drawn.points, names, groups, **shown, **more)
    cli.note(f"{len(names)} voices drawn in {options.output}")
    if options.json:
        cli.print_json({"output": options.output, "axes": list(drawn.labels), "voices": len(names)})


COMMANDS = {
    "search": Command(
        "find voices by sound, vector, expression or direction",
        (
            "search clip.wav -k 3",
            'search "anna*0.5 + ben*0.5" --where gender=female',
            "search @pitch --lowest -k 3",
        ),
        search_options,
        search,
    ),
    "compare": Command("say how far two voices are alike", ("compare anna ben",), compare_options, compare),
    "map": Command(
        "draw the library in two dimensions",
        ("map --output map.html --color-by gender", "map --output map.png --x @gender --y @pitch"),
        map_options,
        draw_map,
    ),
}
