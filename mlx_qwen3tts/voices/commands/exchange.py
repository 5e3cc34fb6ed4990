"""`voices export | import`: a library as one file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .shared import Command, add_library, library_of, report


def export_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("archive", metavar="ZIP")
    command.add_argument("names", nargs="*", metavar="NAME", help="(default: all, with directions and space)")


def export_voices(options: Namespace) -> None:
    from ...files.output import check_not_read

    library = library_of(options)
    snapshot = library.snapshot()
    check_not_read(options.archive, *map(snapshot.path, options.names or snapshot.names))
    names = library.export(options.archive, options.names or None)
    report(options, {"output": options.archive, "voices": names}, f"{len(names)} voices written to {options.archive}")


def import_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("archive", metavar="ZIP")
    command.add_argument("--overwrite", action="store_true", help="replace voices of the same names")


def import_voices(options: Namespace) -> None:
    library = library_of(options, exists=False)
    names = library.import_zip(options.archive, options.overwrite)
    report(options, {"library": str(library.folder), "voices": names}, *names)


COMMANDS = {
    "export": Command(
        "write the library as one zip",
        ("export library.zip", "export two.zip anna ben"),
        export_options,
        export_voices,
    ),
    "import": Command("take in such a zip", ("import other.zip",), import_options, import_voices),
}
