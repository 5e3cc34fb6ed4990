"""`voices add | list | show | tag | rename | remove`: what a library has."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from ... import cli
from ...errors import InvalidValue, VoiceNotFound
from ..metadata import RECORDING, recording_of
from .shared import (
    Command,
    add_library,
    add_model,
    add_overwrite,
    add_rights,
    add_where,
    directions_of,
    encoder_of,
    library_of,
    lookup_of,
    nothing_like,
    report,
    rights_of,
    tags_of,
    where_of,
)


def add_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("name", metavar="NAME", help="or a file, which is kept under its own name")
    command.add_argument(
        "source", nargs="?", metavar="SOURCE", help="a recording, a voice file or a blend expression; or one more file"
    )
    command.add_argument("more", nargs="*", metavar="FILE", help="more files")
    add_model(
        command, "Base model or speaker encoder for a recording (default: mlx_model), or one whose presets are meant"
    )
    command.add_argument("--prepare", action="store_true", help="trim silence off the recording and level it")
    command.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="an attribute to find it by")
    add_overwrite(command)
    add_rights(command)


def _named(sources: list[str]) -> dict[str, str]:
    """{name: source} of what `add` is given."""
    from ...audio.formats import FORMATS
    from ..voice import SUFFIXES

    files = [Path(source).suffix.lower() in (*FORMATS, *SUFFIXES) for source in sources]
    if len(sources) == 2 and not files[0]:
        return {sources[0]: sources[1]}
    if not all(files):
        other = sources[files.index(False)]
        raise InvalidValue(f"{other!r} is not a recording or a voice file; give NAME SOURCE, or files alone")
    named: dict[str, str] = {}
    for source in sources:
        name = Path(source).stem
        if named.setdefault(name, source) != source:
            raise InvalidValue(f"{named[name]} and {source} would both be {name!r}; add them one by one, with a NAME")
    return named


def add(options: Namespace) -> None:
    from ...audio.formats import FORMATS
    from ...errors import NameTaken
    from ..library.names import check_name
    from ..voice import Voice

    tags = {**tags_of(options.tag), **rights_of(options)}
    library, named = (
        library_of(options, exists=False),
        _named([options.name, *([options.source] if options.source is not None else []), *options.more]),
    )
    sounds = [source for source in named.values() if Path(source).suffix.lower() in FORMATS]
    if options.prepare and len(sounds) < len(named):
        other = next(source for source in named.values() if source not in sounds)
        raise InvalidValue(f"--prepare belongs to a recording, which {other} is not")
    taken = [name for name in map(check_name, named) if name in library]
    if taken and not options.overwrite:  # before the work; and all or none
        way_out = "--overwrite (in Python overwrite=True) replaces it"
        raise NameTaken(f"library {library.folder} has a voice {taken[0]!r} already; {way_out}")
    encoder = encoder_of(options) if sounds else None
    lookup = lookup_of(options, library)

    def made(source: str) -> Voice:
        if encoder is None or source not in sounds:
            return lookup.voice(source)
        vector, told = encoder.encode(source, options.prepare), {RECORDING: recording_of(source)}
        return Voice(vector, source_model=encoder.source, other=told)

    with cli.bar("adding", "voice", total=len(named)) as advance:
        voices = cli.each(named.values(), made, advance)
    added = []
    for name, voice in zip(named, voices, strict=True):
        path = library.add(name, voice, overwrite=options.overwrite, **tags)
        cli.note(f"{name}: {voice.dimension} dimensions, norm {voice.norm:.2f}, kept in {path}")
        added.append({"name": name, "output": str(path), **library.info(name)})
    if options.json:
        cli.print_json(added[0] if len(added) == 1 else {"voices": added})


def list_options(command: ArgumentParser) -> None:
    add_library(command)
    add_where(command)


def list_voices(options: Namespace) -> None:
    library, where = library_of(options), where_of(options)
    snapshot, directions = library.snapshot(), library.directions
    found = {name: snapshot.info(name) for name in snapshot.where(where)}
    if not found:
        cli.note(nothing_like(snapshot, where))
    width = max(map(len, found), default=0)
    lines = [f"{name:{width}}  {_line(info)}" for name, info in found.items()]
    packs = {name: pack.count for name, pack in snapshot.packs.items()}
    told = {"library": str(library.folder), "voices": found, "directions": directions}
    report(options, {**told, "packs": packs} if packs else told, *lines)
    for pack in snapshot.packs.values() if not options.json and not where else ():
        print(f"{pack.name}/…  {pack.dimension}  a pack of {pack.count:,} voices")
    if not options.json and directions:
        print("directions: " + ", ".join(f"@{name}" for name in directions))


def _line(info: dict[str, Any]) -> str:
    """What is known of a voice, on one line."""
    tags = " ".join(f"{key}={value}" if value else key for key, value in info["attributes"].items())
    known = info["metadata"]
    rights = " ".join(f"{key}={known[key]}" for key in ("consent", "license", "language") if key in known)
    parts = (f"{info['dimension']}", f"norm {info['norm']:.2f}", tags, rights, _made(info["recipe"]))
    return "  ".join(part for part in parts if part)


def _made(recipe: dict[str, Any]) -> str:
    """How a voice was made, in short: the expression of a blend, the words of a designed voice."""
    return recipe.get("expression") or (f"designed: {recipe['prompt']}" if "prompt" in recipe else "")


def show_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("name", metavar="NAME")


def show(options: Namespace) -> None:
    library = library_of(options)
    snapshot = library.snapshot()
    info, vector = snapshot.info(options.name), snapshot.vector(options.name)
    scores = {
        name: float(direction.score(vector))
        for name, direction in directions_of(library).items()
        if direction.dimension == info["dimension"]
    }
    alike = [name for name in snapshot.names if snapshot.entry(name)["dimension"] == info["dimension"]]
    near = library.search(options.name, 3) if len(alike) > 1 and options.name in library else []
    try:
        voice = library[options.name]
    except VoiceNotFound:  # removed since the library was listed
        voice = None
    lines = [
        f"file          {snapshot.path(options.name)}",
        f"dimension     {info['dimension']}",
        f"norm          {info['norm']:.2f}",
    ]
    lines += [f"{key:13} {value}" for key, value in {**info["metadata"], **info["attributes"]}.items()]
    if info["recipe"]:
        recipe = info["recipe"]
        lines.append(f"recipe        {_made(recipe) or recipe}")
        if "prompt" in recipe:
            lines += [f"{key:13} {recipe[key]}" for key in ("model", "text", "seed") if key in recipe]
    if voice is not None and voice.ref_codes is not None:
        lines.append(f"in context    {voice.ref_codes.shape[0]} frames: {voice.ref_text}")
    lines += [f"@{name:12} {score:+.2f} radii" for name, score in scores.items()]
    lines += [f"near          {name} {score:.2f}" for name, score in near]
    report(options, {"name": options.name, **info, "scores": scores, "near": dict(near)}, *lines)


def tag_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("name", metavar="NAME")
    command.add_argument("tags", nargs="*", metavar="KEY=VALUE", help="or a word alone")
    command.add_argument("--remove", action="append", default=[], metavar="KEY")
    add_rights(command)


def tag(options: Namespace) -> None:
    library = library_of(options)
    changes = {**tags_of(options.tags), **rights_of(options), **dict.fromkeys(tags_of(options.remove))}
    if not changes:
        raise InvalidValue("nothing to enter: give KEY=VALUE, --remove, --consent, --license or --language")
    library.tag(options.name, **changes)
    info = library.info(options.name)
    report(options, {"name": options.name, **info}, f"{options.name}  {_line(info)}")


def rename_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("name", metavar="NAME")
    command.add_argument("new", metavar="NEW")
    add_overwrite(command)


def rename(options: Namespace) -> None:
    path = library_of(options).rename(options.name, options.new, overwrite=options.overwrite)
    result = {"name": options.new, "output": str(path)}
    report(options, result, f"{options.name} is now {options.new}, kept in {path}")


def remove_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("names", nargs="+", metavar="NAME")


def remove(options: Namespace) -> None:
    library = library_of(options)
    names = list(dict.fromkeys(options.names))
    for name in names:  # all or none
        library.path(name)
    for name in names:
        library.remove(name)
    report(options, {"removed": names}, *(f"removed {name}" for name in names))


COMMANDS = {
    "add": Command(
        "keep a voice in the library",
        (
            "add dora dora.wav --consent given --license CC-BY-4.0 --tag gender=female",
            'add duo "anna*0.5 + ben*0.5"',
            "add a.wav b.wav c.wav --consent given",
        ),
        add_options,
        add,
    ),
    "list": Command("list the library", ("list", "list --where gender=female --json"), list_options, list_voices),
    "show": Command("tell all about a voice", ("show anna",), show_options, show),
    "tag": Command(
        "enter attributes of a voice",
        ("tag anna gender=female warm", "tag anna --remove warm --license CC0-1.0"),
        tag_options,
        tag,
    ),
    "rename": Command("give a voice another name", ("rename anna anne",), rename_options, rename),
    "remove": Command("delete voices from the library", ("remove ben",), remove_options, remove),
}
