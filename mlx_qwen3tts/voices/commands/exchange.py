"""`voices export | import | index`: a library as one file, and packs of very many voices."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ... import cli
from ...errors import InvalidValue
from .shared import Command, add_library, add_rights, library_of, report, rights_of, tags_of


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
    command.add_argument("archive", metavar="ZIP", help="or a .npy file of vectors [N, D], which becomes a pack")
    command.add_argument("--overwrite", action="store_true", help="replace voices of the same names")
    command.add_argument("--names", metavar="F", help="of a pack's voices, a line each (default: numbers)")
    command.add_argument("--name", metavar="NAME", help="of the pack (default: the file's)")
    command.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="an attribute of the pack")
    add_rights(command)


def import_voices(options: Namespace) -> None:
    library, about = library_of(options, exists=False), {**tags_of(options.tag), **rights_of(options)}
    if Path(options.archive).suffix == ".npy":
        with cli.bar("importing", "voices") as advance:
            pack = library.import_pack(
                options.archive,
                options.names,
                name=options.name,
                overwrite=options.overwrite,
                advance=advance,
                **about,
            )
        result = {"library": str(library.folder), "pack": pack.name, "voices": pack.count, "dimension": pack.dimension}
        report(options, result, f"{pack.name}: {pack.count:,} voices of {pack.dimension} dimensions in {pack.folder}")
        return
    if about or options.names or options.name:
        raise InvalidValue(
            "--names, --name, --tag and rights belong to a .npy file; the voices of a zip have their own"
        )
    names = library.import_zip(options.archive, options.overwrite)
    report(options, {"library": str(library.folder), "voices": names}, *names)


def index_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("--engine", default="lance", metavar="E", help="lance, which is LanceDB (default: lance)")


def index(options: Namespace) -> None:
    from ...checks import word
    from ..library.indexing import ENGINES, build_index, check_engine
    from ..library.names import SPACE

    word(options.engine, "engine", ENGINES)
    library, made = library_of(options), []
    if library.packs:
        check_engine()
    for pack in library.packs.values():
        space = library.space(pack.dimension)
        if space is not None and not (library.folder / SPACE).exists():  # else another one would be fitted some day
            with library.locked():
                space.save(library.folder / SPACE)
            cli.note(f"the voice space is kept in {library.folder / SPACE}")
        with library.locked(), cli.bar(f"indexing {pack.name}", "voices", total=pack.count) as advance:
            size = build_index(pack, space, advance)
        made.append({"pack": pack.name, "voices": pack.count, "bytes": size})
    lines = [f"{one['pack']}: {one['voices']:,} voices indexed in {one['bytes'] / 1e6:,.1f} MB" for one in made]
    nothing = f"library {library.folder} has no packs: its voices are searched one by one, without an index"
    report(options, {"library": str(library.folder), "indexed": made}, *(lines or [nothing]))


COMMANDS = {
    "export": Command(
        "write the library as one zip",
        ("export library.zip", "export two.zip anna ben"),
        export_options,
        export_voices,
    ),
    "import": Command(
        "take in such a zip, or very many vectors as a pack",
        ("import other.zip", "import crowd.npy --names crowd.txt --consent not-needed"),
        import_options,
        import_voices,
    ),
    "index": Command("index packs for searches beyond memory", ("index --engine lance",), index_options, index),
}
