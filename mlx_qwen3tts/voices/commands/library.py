"""`voices add | list | show | tag | remove`: what a library has."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from ... import cli
from ...errors import InvalidValue
from .shared import (
    Command,
    add_library,
    add_model,
    add_overwrite,
    add_rights,
    add_where,
    encoder_of,
    library_of,
    lookup_of,
    pairs,
    report,
    rights_of,
    where_of,
)


def add_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("name", metavar="NAME")
    command.add_argument("source", metavar="SOURCE", help="a recording, a voice file or a blend expression")
    add_model(
        command, "Base model or speaker encoder for a recording (default: mlx_model), or one whose presets are meant"
    )
    command.add_argument("--prepare", action="store_true", help="trim silence off the recording and level it")
    command.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="an attribute to find it by")
    add_overwrite(command)
    add_rights(command)


def add(options: Namespace) -> None:
    from ...audio.writing import FORMATS
    from ..voice import Voice

    tags, rights = pairs(options.tag), rights_of(options)
    library = library_of(options, exists=False)
    if Path(options.source).suffix.lower() in FORMATS:
        encoder = encoder_of(options)
        voice = Voice(encoder.encode(options.source, options.prepare), source_model=encoder.source)
    elif options.prepare:
        raise InvalidValue(f"--prepare belongs to a recording, which {options.source} is not")
    else:
        voice = lookup_of(options, library).voice(options.source)
    path = library.add(options.name, voice, overwrite=options.overwrite, **tags, **rights)
    cli.note(f"{options.name}: {voice.dimension} dimensions, norm {voice.norm:.2f}, kept in {path}")
    if options.json:
        cli.print_json({"name": options.name, "output": str(path), **library.info(options.name)})


def list_options(command: ArgumentParser) -> None:
    add_library(command)
    add_where(command)


def list_voices(options: Namespace) -> None:
    library, where = library_of(options), where_of(options)
    found = {name: library.info(name) for name in library.where(where)}
    width = max(map(len, found), default=0)
    lines = [f"{name:{width}}  {_line(info)}" for name, info in found.items()]
    report(options, {"library": str(library.folder), "voices": found, "directions": library.directions}, *lines)
    if not options.json and library.directions:
        print("directions: " + ", ".join(f"@{name}" for name in library.directions))


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
    info, voice = library.info(options.name), library[options.name]
    scores = {}
    for name in library.directions:
        direction = library.direction(name)
        if direction.dimension == voice.dimension:
            scores[name] = float(direction.score(voice))
    alike = [name for name in library if library.info(name)["dimension"] == voice.dimension]
    near = library.search(options.name, 3) if len(alike) > 1 else []
    lines = [
        f"file          {library.path(options.name)}",
        f"dimension     {info['dimension']}",
        f"norm          {info['norm']:.2f}",
    ]
    lines += [f"{key:13} {value}" for key, value in {**info["metadata"], **info["attributes"]}.items()]
    if info["recipe"]:
        recipe = info["recipe"]
        lines.append(f"recipe        {_made(recipe) or recipe}")
        if "prompt" in recipe:
            lines += [f"{key:13} {recipe[key]}" for key in ("model", "text", "seed") if key in recipe]
    if voice.ref_codes is not None:
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
    changes = {**pairs(options.tags), **rights_of(options), **dict.fromkeys(options.remove)}
    if not changes:
        raise InvalidValue("nothing to enter: give KEY=VALUE, --remove, --consent, --license or --language")
    library.tag(options.name, **changes)
    info = library.info(options.name)
    report(options, {"name": options.name, **info}, f"{options.name}  {_line(info)}")


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
    "remove": Command("delete voices from the library", ("remove ben",), remove_options, remove),
}
