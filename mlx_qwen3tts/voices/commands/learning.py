"""`voices measure | space | direction`: what recordings and labelled voices teach."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ... import cli
from ...errors import InvalidValue, listed
from .shared import Command, add_library, add_overwrite, library_of, report

if TYPE_CHECKING:
    from ..directions.direction import Direction
    from ..library.library import Library

NAMED = 8  # voices listed one by one in a message


def _add_labels(command: ArgumentParser) -> None:
    command.add_argument(
        "--csv", metavar="F", help="a row for each voice: name or file, and labels (default: the library itself)"
    )
    command.add_argument("--group", metavar="COLUMN", help="left out together: equal values, such as a speaker")


def measure_options(command: ArgumentParser) -> None:
    command.add_argument("audio", nargs="+", metavar="AUDIO")
    command.add_argument("--output", "-o", required=True, metavar="CSV", help="the table to write or to add to")
    cli.add_json(command)


def measure_recordings(options: Namespace) -> None:
    from ...audio.measures import check_csv, measure, row, write_csv
    from ...files.output import check_not_read

    check_csv(options.output)
    check_not_read(options.output, *options.audio)
    with cli.bar("measuring", "recording", total=len(options.audio)) as advance:
        rows = cli.each(options.audio, lambda audio: row(audio, measure(audio)), advance)
    write_csv(options.output, rows)
    columns = list(rows[0])[1:]
    table = [columns, *([str(entry[column]) for column in columns] for entry in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    cli.note(f"{len(rows)} recordings written to {options.output}")
    report(options, {"output": options.output, "recordings": rows}, *lines)


def space_options(command: ArgumentParser) -> None:
    add_library(command)
    _add_labels(command)
    command.add_argument("--nuisance", metavar="COLUMN", help="what to ignore in comparing, such as the emotion")
    command.add_argument(
        "--output", "-o", metavar="F", help="(default: space.safetensors of the library, which uses it)"
    )


def space(options: Namespace) -> None:
    from ...files.output import check_not_read, check_writable
    from ..directions.labels import read_labelled
    from ..directions.retrieval import retrieval
    from ..library.names import SPACE
    from ..space import VoiceSpace

    library = library_of(options, exists=options.csv is None)
    output = options.output or str(library.folder / SPACE)
    if options.nuisance and not options.csv:
        raise InvalidValue("--nuisance is a column: give --csv")
    if not options.csv and options.group:
        raise InvalidValue("--group is a column: give --csv")
    if not options.output:
        library.folder.mkdir(exist_ok=True)
    check_writable(output)
    check_not_read(output, options.csv)
    if options.csv:
        columns = [column for column in (options.group, options.nuisance) if column]
        labelled, _ = read_labelled(options.csv, columns, library)
        X, nuisance = labelled.X, labelled.columns.get(options.nuisance)
        groups, names, source = labelled.columns.get(options.group), labelled.names, Path(options.csv).name
    else:
        X, nuisance, groups, names, source = library.vectors(), None, None, library.names, library.folder.name
    fitted = VoiceSpace.fit(X, nuisance, groups, source)
    lines = [
        f"{fitted.count} voices of {fitted.dimension} dimensions; "
        f"radius {fitted.radius:.3f}, spread {fitted.spread:.3f}"
    ]
    if not fitted.enough:
        lines.append("Too few to centre on: similarities in this space are raw cosines.")
    found = retrieval(X, groups, nuisance, names) if groups and len(set(groups)) > 2 else None
    fitted.save(output)
    cli.note(f"written to {output}")
    result = {"output": output, "radius": fitted.radius, "spread": fitted.spread, "count": fitted.count}
    report(options, {**result, "retrieval": found and asdict(found)}, *lines, *([str(found)] if found else []))


def direction_options(command: ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    parsers = {
        name: actions.add_parser(name, help=does, description=does, formatter_class=argparse.HelpFormatter)
        for name, does in (
            ("fit", "Learn a direction and report how far to trust it"),
            ("show", "Report on directions and the angles between them"),
            ("orthogonal", "Take one direction's part out of another"),
        )
    }
    for parser in parsers.values():
        add_library(parser)
    fit = parsers["fit"]
    _add_labels(fit)
    fit.add_argument("--column", required=True, metavar="COLUMN", help="the label to learn: two values, or numbers")
    fit.add_argument("--positive", metavar="LABEL", help="the side to move to; all other labels are the other side")
    fit.add_argument("--method", metavar="M", help="mean, correlation, ridge or pca (default: mean; ridge for numbers)")
    fit.add_argument("--top-k", type=int, metavar="K", help="keep the K dimensions that correlate most")
    fit.add_argument("--space", metavar="F", help="a voice space whose nuisance to leave out")
    parsers["show"].add_argument("names", nargs="+", metavar="DIRECTION")
    parsers["orthogonal"].add_argument("one", metavar="DIRECTION")
    parsers["orthogonal"].add_argument("other", metavar="FROM")
    for parser in (fit, parsers["orthogonal"]):
        parser.add_argument("--output", "-o", metavar="F", help="a .safetensors file")
        parser.add_argument("--name", metavar="NAME", help="keep it in the library as @NAME")
        add_overwrite(parser)


def direction(options: Namespace) -> None:
    library = library_of(options, exists=False)
    {"fit": _fit, "show": _show, "orthogonal": _orthogonal}[options.action](options, library)


def _check_output(options: Namespace, *inputs: str | Path | None) -> None:
    """That there is somewhere to put a direction, before it is made, which is none of the inputs."""
    from ...files.output import check_not_read, check_writable

    if not options.output and not options.name:
        raise InvalidValue("nowhere to put the direction: give --output or --name")
    if options.output:
        if Path(options.output).suffix != ".safetensors":
            raise InvalidValue(f"--output {options.output}: the extension must be .safetensors")
        check_writable(options.output)
        check_not_read(options.output, *inputs)


def _keep_direction(options: Namespace, library: Library, direction: Direction) -> list[str]:
    """Write a direction where the options say; returns the places."""
    places = []
    if options.name:
        places.append(str(library.add_direction(options.name, direction, options.overwrite)))
    if options.output:
        direction.save(options.output)
        places.append(options.output)
    cli.note(f"written to {' and '.join(places)}")
    return places


def _fit(options: Namespace, library: Library) -> None:
    from ..directions.direction import Direction
    from ..directions.labels import read_labelled, read_tagged
    from ..space import VoiceSpace

    _check_output(options, options.csv, options.space)
    columns = [column for column in (options.column, options.group) if column]
    if options.csv:
        labelled, left = read_labelled(options.csv, columns, library)
    else:
        labelled, left = read_tagged(library, columns)
    if left:
        cli.note(f"left out, as they lack a label: {listed(left, NAMED)}")
    y, groups = labelled.columns[options.column], labelled.columns.get(options.group)
    positive = options.positive
    if positive is not None and not isinstance(y[0], str):
        positive = next((label for label in set(y) if str(label) == positive), positive)
    numeric = not isinstance(y[0], str) and len(set(y)) > 2 and positive is None
    method = options.method or ("ridge" if numeric else "mean")
    fitted = Direction.fit(
        labelled.X,
        y,
        VoiceSpace.load(options.space) if options.space else None,
        method,
        options.top_k,
        groups,
        positive=positive,
        names=labelled.names,
    )
    places = _keep_direction(options, library, fitted)
    sides = f"from {fitted.negative} to {fitted.positive}"
    result = {"output": places, "positive": fitted.positive, "negative": fitted.negative}
    report(options, {**result, "report": asdict(fitted.report)}, f"{options.column}, {sides}", str(fitted.report))


def _show(options: Namespace, library: Library) -> None:
    from ..brought import everything
    from ..lookup import Lookup

    lookup = Lookup(library, brought=everything())
    names = [name.removeprefix("@") for name in options.names]
    found = {name: lookup.direction(name) for name in names}
    lines = []
    for name, one in found.items():
        lines += [f"@{name}, from {one.negative} to {one.positive}", str(one.report), ""]
    angles = {
        f"@{one} and @{other}": found[one].cosine(found[other])
        for i, one in enumerate(names)
        for other in names[i + 1 :]
    }
    lines += [f"cosine of {pair}: {cosine:+.2f}" for pair, cosine in angles.items()]
    reports = {name: asdict(one.report) for name, one in found.items()}
    report(options, {"directions": reports, "cosines": angles}, *(lines if angles else lines[:-1]))


def _orthogonal(options: Namespace, library: Library) -> None:
    from ..brought import everything
    from ..inputs import files_of
    from ..lookup import Lookup

    directions = (f"@{name.removeprefix('@')}" for name in (options.one, options.other))
    _check_output(options, *(file for name in directions for file in files_of(name, options.library)))
    lookup = Lookup(library, brought=everything())
    one, other = (lookup.direction(name.removeprefix("@")) for name in (options.one, options.other))
    rest = one.orthogonal_to(other)
    before, after = one.cosine(other), rest.cosine(other)
    places = _keep_direction(options, library, rest)
    report(
        options,
        {"output": places, "cosine": one.cosine(rest), "before": before, "after": after},
        # The cosine after is zero but for rounding, and shown without a minus.
        f"cosine to @{options.other.removeprefix('@')}: {before:+.2f} before, {round(after, 2) + 0.0:+.2f} after",
    )


COMMANDS = {
    "measure": Command(
        "enter pitch, rate, level and brightness of recordings into a CSV file",
        ("measure anna.wav ben.wav --output labels.csv",),
        measure_options,
        measure_recordings,
    ),
    "space": Command(
        "fit the space that voices are compared in",
        ("space", "space --csv labels.csv --group speaker --nuisance emotion --output space.safetensors"),
        space_options,
        space,
    ),
    "direction": Command(
        "learn directions from labelled voices",
        (
            "direction fit --csv labels.csv --column gender --group speaker -o gender.safetensors",
            "direction fit --csv labels.csv --column f0_median --method ridge --name pitch",
            "direction fit --column gender --name gender2",
            "direction fit --csv labels.csv --column emotion --positive anger --group speaker --name anger",
            "direction show gender anger",
            "direction orthogonal gender anger -o calm-gender.safetensors",
        ),
        direction_options,
        direction,
    ),
}
