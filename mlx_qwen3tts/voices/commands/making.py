"""`voices blend | interp | apply`: new voices from those there are."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ... import cli
from ...checks import number, whole, word
from ...errors import InvalidValue, OutputError
from .shared import Command, add_library, add_model, add_overwrite, library_of, lookup_of, report

if TYPE_CHECKING:
    from ..expression import Name, Sum
    from ..library.library import Library
    from ..lookup import Lookup
    from ..space import VoiceSpace
    from ..voice import Voice


def _add_keep(command: ArgumentParser) -> None:
    command.add_argument("--keep", default="none", metavar="K", help="none, norm or radius (default: none)")
    command.add_argument("--space", metavar="F", help="a voice space (default: the library's)")
    add_model(command, "a model whose presets are meant")


def _add_output(command: ArgumentParser) -> None:
    command.add_argument("--output", "-o", metavar="F", help=".safetensors, .npy or .json")
    command.add_argument("--add", metavar="NAME", help="keep it in the library")
    add_overwrite(command)


def _space_of(options: Namespace, library: Library, dimension: int) -> VoiceSpace | None:
    """The space to keep a radius in: the one given, else the library's."""
    from ..algebra import KEEP
    from ..space import VoiceSpace

    word(options.keep, "--keep", KEEP)
    if options.space:
        return VoiceSpace.load(options.space)
    if options.keep != "radius":
        return None
    space = library.space(dimension)
    if space is None:
        raise InvalidValue("--keep radius needs a voice space: give --space, or a library with more voices")
    return space


def _check_outputs(options: Namespace, *voices: str) -> None:
    """That there is somewhere to put a voice, before it is made, which is none of those it is made of."""
    from ...files.output import check_not_read, check_writable
    from ..inputs import files_of
    from ..voice import check_suffix

    if not options.output and not options.add:
        raise InvalidValue("nowhere to put the voice: give --output or --add")
    if options.output:
        check_suffix(options.output)
        check_writable(options.output)
        read = [file for voice in voices for file in files_of(voice, options.library)]
        check_not_read(options.output, *read, options.space)


def _keep_voice(options: Namespace, library: Library, voice: Voice) -> None:
    """Write a voice where the options say, warn of what its licence forbids, and report on it."""
    from ..library.rights import forbids_derivatives

    for parent in voice.recipe.get("parents", ()):
        if parent.get("consent") == "refused":
            cli.note(f"warning: consent to {parent.get('name')} is entered as refused")
        license = parent.get("license")
        if forbids_derivatives(license):
            cli.note(f"warning: the licence of {parent.get('name')}, {license}, lets nobody pass on what is made of it")
    places = []
    if options.add:
        places.append(str(library.add(options.add, voice, overwrite=options.overwrite)))
    if options.output:
        voice.save(options.output)
        places.append(options.output)
        if Path(options.output).suffix != ".safetensors" and voice.metadata:
            cli.note(f"{Path(options.output).suffix} holds the vector alone: recipe, consent and licence are not in it")
    norm = voice.norm
    cli.note(
        f"{voice.name or 'voice'}: {voice.dimension} dimensions, norm {norm:.2f}, written to {' and '.join(places)}"
    )
    if options.json:
        cli.print_json({"output": places, "dimension": voice.dimension, "norm": norm, "recipe": voice.recipe})


def _term(lookup: Lookup, text: str) -> Name | Sum:
    """A voice as part of an expression: its name, or the expression that the text is."""
    from ..expression import Name, parse

    return Name(text) if lookup.named(text) else parse(text)


def blend_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("expression", metavar="EXPRESSION", help="'anna*0.7 + ben*0.3 + 1.5*@gender'")
    _add_keep(command)
    _add_output(command)


def blend(options: Namespace) -> None:
    _check_outputs(options, options.expression)
    library = library_of(options, exists=False)
    lookup = lookup_of(options, library)
    dimension = lookup.voice(options.expression).dimension
    voice = lookup.voice(options.expression, _space_of(options, library, dimension), options.keep)
    _keep_voice(options, library, voice)


def interp_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("start", metavar="FROM")
    command.add_argument("end", metavar="TO")
    command.add_argument("--steps", type=int, default=5, metavar="N", help="both ends included (default: 5)")
    command.add_argument(
        "--slerp", action="store_true", help="along the arc, around the space's mean where there is one"
    )
    command.add_argument(
        "--output", "-o", required=True, metavar="DIR", help="a folder for the voices, made if need be"
    )
    _add_keep(command)


def interp(options: Namespace) -> None:
    from ...files.output import check_not_read, check_writable
    from ..algebra import slerp
    from ..expression import Sum
    from ..inputs import files_of

    whole(options.steps, "--steps", least=2)
    library = library_of(options, exists=False)
    lookup = lookup_of(options, library)
    start, end = (lookup.voice(name) for name in (options.start, options.end))
    if options.slerp and options.keep != "none":
        raise InvalidValue("--slerp has lengths of its own: leave out --keep")
    space = _space_of(options, library, start.dimension)
    if options.slerp and space is None:
        space = library.space(start.dimension)
    folder = Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output {folder} is not a folder")
    check_writable(folder / "x" if folder.is_dir() else folder)
    read = [file for text in (options.start, options.end) for file in files_of(text, options.library)]
    files = [folder / f"{step:02d}.safetensors" for step in range(options.steps)]
    for file in files:
        check_not_read(file, *read, options.space)
    terms = [_term(lookup, text) for text in (options.start, options.end)]
    folder.mkdir(exist_ok=True)
    for step, file in enumerate(files):
        t = step / (options.steps - 1)
        voice = lookup.voice(Sum(((1 - t, terms[0]), (t, terms[1]))), space, options.keep)
        if options.slerp:
            around = "the origin" if space is None else "the mean"
            recipe = {**voice.recipe, "expression": f"slerp({terms[0]}, {terms[1]}, {t:g}) around {around}"}
            voice = voice.replace(embedding=slerp(start, end, t, space), recipe=recipe)
        voice.save(file)
    report(options, {"output": list(map(str, files))}, *map(str, files))


def apply_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("voice", metavar="VOICE")
    command.add_argument("direction", metavar="DIRECTION")
    command.add_argument("--strength", type=float, required=True, metavar="X", help="in radii; below 0 the other way")
    _add_keep(command)
    _add_output(command)


def apply(options: Namespace) -> None:
    from ..expression import Name, Sum

    _check_outputs(options, options.voice, f"@{options.direction.removeprefix('@')}")
    library = library_of(options, exists=False)
    lookup = lookup_of(options, library)
    direction = Name(options.direction.removeprefix("@"), direction=True)
    lookup.direction(direction.name)  # its error without an expression that nobody typed
    moved = Sum(((1.0, _term(lookup, options.voice)), (number(options.strength, "--strength"), direction)))
    space = _space_of(options, library, lookup.voice(options.voice).dimension)
    _keep_voice(options, library, lookup.voice(moved, space, options.keep))


COMMANDS = {
    "blend": Command(
        "write the voice of an expression",
        (
            'blend "anna*0.7 + ben*0.3" --output blend.npy',
            'blend "(anna + ben)*0.5 + carl*0.5 + 1.5*@gender" --keep radius --add mix',
        ),
        blend_options,
        blend,
    ),
    "interp": Command(
        "write the voices on the way from one to another",
        ("interp anna ben --steps 5 --output steps", "interp anna ben --steps 5 --slerp --output arc"),
        interp_options,
        interp,
    ),
    "apply": Command(
        "move a voice along a direction",
        ("apply anna gender --strength -1 --keep norm --output moved.safetensors",),
        apply_options,
        apply,
    ),
}
