"""What the commands of several groups share: the form of a command, options, and how options become objects."""

from __future__ import annotations

import functools
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import cli
from ...errors import InvalidValue, listed

if TYPE_CHECKING:
    from ...checkpoint.folder import ModelFolder
    from ...checkpoint.speaker import SpeakerEncoder
    from ..directions.direction import Direction
    from ..library.library import Library
    from ..library.snapshot import Snapshot
    from ..lookup import Lookup
    from ..voice import Voice


class Command(NamedTuple):
    """help: what it does, in a few words; examples: command lines; options: adds its own to a parser; run: does it."""

    help: str
    examples: tuple[str, ...]
    options: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


# Options


def add_library(command: ArgumentParser) -> None:
    cli.add_library(command)
    cli.add_json(command)


def add_model(command: ArgumentParser, why: str) -> None:
    command.add_argument("--model", metavar="M", help=why)


def add_rights(command: ArgumentParser) -> None:
    command.add_argument("--consent", metavar="C", help="not-needed, given, unknown or refused; nobody verifies it")
    command.add_argument("--license", metavar="L", help="an SPDX name, such as CC-BY-4.0")
    command.add_argument("--language", metavar="L", help="what the voice speaks")


def add_where(command: ArgumentParser) -> None:
    command.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help="only those that have it")


def add_overwrite(command: ArgumentParser) -> None:
    command.add_argument("--overwrite", action="store_true", help="replace what has this name already")


# What they mean


def library_of(options: Namespace, exists: bool = True) -> Library:
    """exists: whether the folder must be there already."""
    from ..library.library import Library

    library = Library(options.library)
    if exists and not library.folder.is_dir():
        raise InvalidValue(f"library {library.folder}: no such folder; `voices add` makes it")
    return library


def lookup_of(options: Namespace, library: Library) -> Lookup:
    """Finds voices; presets too where the user has named a model, of which no more than a preset's row is read."""
    from ..brought import everything
    from ..lookup import Lookup

    @functools.cache
    def model() -> ModelFolder:
        from ...checkpoint import hub
        from ...checkpoint.folder import ModelFolder

        return ModelFolder(hub.resolve(options.model))

    def preset(name: str) -> Voice | None:
        from ...checkpoint.presets import find_preset
        from ..presets import preset_voice

        return preset_voice(model(), name) if find_preset(model().config, name) else None

    return Lookup(library, preset if options.model else None, brought=everything())


def encoder_of(options: Namespace) -> SpeakerEncoder:
    from ...checkpoint.speaker import SpeakerEncoder

    return SpeakerEncoder.from_pretrained(options.model or cli.usual_model())


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """{key: value} from KEY=VALUE, or {key: ""} from a word alone."""
    found: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key.strip():
            raise InvalidValue(f"{text!r} is not KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def tags_of(texts: Iterable[str]) -> dict[str, str]:
    """The same for attributes of a voice."""
    from ..library.names import check_attribute

    return {check_attribute(key): value for key, value in pairs(texts).items()}


def where_of(options: Namespace) -> dict[str, str | None]:
    """The same for a filter, where a word alone asks for the key alone."""
    return {key: value or None for key, value in pairs(options.where).items()}


def nothing_like(snapshot: Snapshot, where: dict[str, str | None]) -> str:
    """What to say where no voice has the attributes that are asked for: which ones there are."""
    if not snapshot.entries:
        return f"library {snapshot.folder} has no voices"
    known = snapshot.attributes()
    asked = " ".join(key if value is None else f"{key}={value}" for key, value in where.items())
    for key in where:
        if key in known:
            values = listed(sorted(known[key]), 8)
            return f"no voice of library {snapshot.folder} has {asked}; values of {key}: {values}"
    return (
        f"no voice of library {snapshot.folder} has {asked}; attributes there are: {listed(sorted(known), 8) or 'none'}"
    )


def directions_of(library: Library) -> dict[str, Direction]:
    """{name: Direction} of a library; a file that is not one is passed over with a warning."""
    from ..library.words import readable

    return readable(library)


def rights_of(options: Namespace) -> dict[str, str]:
    """Those of consent, license and language that were given."""
    from ..library.rights import check_consent

    if options.consent is not None:
        check_consent(options.consent)
    given = {key: getattr(options, key) for key in ("consent", "license", "language")}
    return {key: value for key, value in given.items() if value is not None}


def report(options: Namespace, result: dict[str, Any], *lines: str) -> None:
    """Lines on stdout, or the result as JSON."""
    if options.json:
        cli.print_json(result)
        return
    for line in lines:
        print(line)
