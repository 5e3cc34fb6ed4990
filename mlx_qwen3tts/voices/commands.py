"""What the commands of `mlx_qwen3tts.voices` do, each with its parsed options."""

import functools
import json
from dataclasses import asdict, replace
from pathlib import Path

import mlx.core as mx

from .. import cli
from ..audio.writing import FORMATS
from ..errors import InvalidValue, OutputError, listed
from ..files.output import check_writable
from .algebra import KEEP, check_number, slerp
from .directions.direction import Direction
from .directions.labels import read_labelled
from .directions.retrieval import retrieval
from .expression import Name, Sum, parse
from .library.library import OWN_FIELDS, Library
from .library.rights import check_consent, forbids_derivatives
from .lookup import Lookup
from .space import VoiceSpace
from .voice import Voice, check_suffix

NAMED = 8  # voices listed one by one in a message


def _library(options, exists=True):
    library = Library(options.library)
    if exists and not library.folder.is_dir():
        raise InvalidValue(f"library {library.folder}: no such folder; `voices add` makes it")
    return library


def _lookup(options, library):
    """Finds voices; presets too where the user has named a model, which is loaded when a preset is looked for."""

    @functools.cache
    def model():
        from ..synthesis.tts import Qwen3TTS

        return Qwen3TTS.from_pretrained(options.model)

    def preset(name):
        tts = model()
        return tts.preset(name) if name.lower() in (speaker.lower() for speaker in tts.speakers) else None

    return Lookup(library, preset if options.model else None)


def _embedder(options):
    from ..checkpoint.speaker import SpeakerEncoder

    return SpeakerEncoder.from_pretrained(options.model or "mlx_model")


def _pairs(texts):
    """{key: value} from KEY=VALUE, or {key: ""} from a word alone."""
    pairs = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key.strip():
            raise InvalidValue(f"{text!r} is not KEY=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs


def _where(options):
    """The same for a filter, where a word alone asks for the key alone."""
    return {key: value or None for key, value in _pairs(options.where).items()}


def _rights(options):
    """Those of consent, license and language that were given."""
    if options.consent is not None:
        check_consent(options.consent)
    given = {key: getattr(options, key) for key in ("consent", "license", "language")}
    return {key: value for key, value in given.items() if value is not None}


def _space(options, library, dimension):
    """The space to keep a radius in: the one given, else the library's."""
    if options.keep not in KEEP:
        raise InvalidValue(f"--keep {options.keep!r} is not one of {', '.join(KEEP)}")
    if options.space:
        return VoiceSpace.load(options.space)
    if options.keep != "radius":
        return None
    space = library.space(dimension)
    if space is None:
        raise InvalidValue("--keep radius needs a voice space: give --space, or a library with more voices")
    return space


def _tell(options, result, *lines):
    """Lines on stdout, or the result as JSON."""
    if options.json:
        cli.print_json(result)
        return
    for line in lines:
        print(line)


def _check_outputs(options):
    """That there is somewhere to put a voice, before it is made."""
    if not options.output and not options.add:
        raise InvalidValue("nowhere to put the voice: give --output or --add")
    if options.output:
        check_suffix(options.output)
        check_writable(options.output)


def _keep_voice(options, library, voice):
    """Write a voice where the options say, warn of what its licence forbids, and tell of it."""
    for name in voice.recipe.get("parents", []):
        if name.get("consent") == "refused":
            cli.note(f"warning: consent to {name['name']} is entered as refused")
        if forbids_derivatives(name.get("license")):
            cli.note(
                f"warning: the licence of {name['name']}, {name['license']}, lets nobody pass on what is made of it"
            )
    places = []
    if options.add:
        places.append(str(library.add(options.add, voice, overwrite=options.overwrite)))
    if options.output:
        voice.save(options.output)
        places.append(options.output)
        if Path(options.output).suffix != ".safetensors" and voice.metadata:
            cli.note(f"{Path(options.output).suffix} holds the vector alone: recipe, consent and licence are not in it")
    norm = mx.linalg.norm(voice.embedding).item()
    cli.note(
        f"{voice.name or 'voice'}: {voice.dimension} dimensions, norm {norm:.2f}, written to {' and '.join(places)}"
    )
    if options.json:
        cli.print_json({"output": places, "dimension": voice.dimension, "norm": norm, "recipe": voice.recipe})


def run_add(options):
    tags, rights = _pairs(options.tag), _rights(options)
    library = _library(options, exists=False)
    if Path(options.source).suffix.lower() in FORMATS:
        embedder = _embedder(options)
        voice = Voice(embedder.encode(options.source, options.prepare), metadata={"source_model": embedder.source})
    elif options.prepare:
        raise InvalidValue(f"--prepare belongs to a recording, which {options.source} is not")
    else:
        voice = _lookup(options, library).voice(options.source)
    path = library.add(options.name, voice, overwrite=options.overwrite, **tags, **rights)
    norm = mx.linalg.norm(voice.embedding).item()
    cli.note(f"{options.name}: {voice.dimension} dimensions, norm {norm:.2f}, kept in {path}")
    if options.json:
        cli.print_json({"name": options.name, "output": str(path), **library.info(options.name)})


def run_list(options):
    library, where = _library(options), _where(options)
    found = {name: library.info(name) for name in library.where(where)}
    width = max(map(len, found), default=0)
    lines = [f"{name:{width}}  {_line(info)}" for name, info in found.items()]
    _tell(options, {"library": str(library.folder), "voices": found, "directions": library.directions}, *lines)
    if not options.json and library.directions:
        print("directions: " + ", ".join(f"@{name}" for name in library.directions))


def _line(info):
    tags = " ".join(f"{key}={value}" if value else key for key, value in info["attributes"].items())
    rights = " ".join(f"{key}={info['metadata'][key]}" for key in OWN_FIELDS[:3] if key in info["metadata"])
    blend = info["recipe"].get("expression", "")
    return "  ".join(part for part in (f"{info['dimension']}", f"norm {info['norm']:.2f}", tags, rights, blend) if part)


def run_show(options):
    library = _library(options)
    info, voice = library.info(options.name), library[options.name]
    scores = {}
    for name in library.directions:
        direction = library.direction(name)
        if direction.dimension == voice.dimension:
            scores[name] = direction.score(voice).item()
    alike = [name for name in library if library.info(name)["dimension"] == voice.dimension]
    near = library.search(options.name, 3) if len(alike) > 1 else []
    lines = [
        f"file          {library.path(options.name)}",
        f"dimension     {info['dimension']}",
        f"norm          {info['norm']:.2f}",
    ]
    lines += [f"{key:13} {value}" for key, value in {**info["metadata"], **info["attributes"]}.items()]
    if info["recipe"]:
        lines.append(f"recipe        {info['recipe'].get('expression', info['recipe'])}")
    if voice.ref_codes is not None:
        lines.append(f"in context    {voice.ref_codes.shape[0]} frames: {voice.ref_text}")
    lines += [f"@{name:12} {score:+.2f} radii" for name, score in scores.items()]
    lines += [f"near          {name} {score:.2f}" for name, score in near]
    _tell(options, {"name": options.name, **info, "scores": scores, "near": dict(near)}, *lines)


def run_tag(options):
    library = _library(options)
    changes = {**_pairs(options.tags), **_rights(options), **dict.fromkeys(options.remove)}
    if not changes:
        raise InvalidValue("nothing to enter: give KEY=VALUE, --remove, --consent, --license or --language")
    library.tag(options.name, **changes)
    _tell(
        options,
        {"name": options.name, **library.info(options.name)},
        f"{options.name}  {_line(library.info(options.name))}",
    )


def run_remove(options):
    library = _library(options)
    names = list(dict.fromkeys(options.names))
    for name in names:  # all or none
        library.path(name)
    for name in names:
        library.remove(name)
    _tell(options, {"removed": names}, *(f"removed {name}" for name in names))


def run_blend(options):
    _check_outputs(options)
    library = _library(options, exists=False)
    lookup = _lookup(options, library)
    dimension = lookup.voice(options.expression).dimension
    voice = lookup.voice(options.expression, _space(options, library, dimension), options.keep)
    _keep_voice(options, library, voice)


def _term(lookup, text):
    """A voice as part of an expression: its name, or the expression that the text is."""
    return Name(text) if lookup.named(text) else parse(text)


def run_interp(options):
    if options.steps < 2:
        raise InvalidValue(f"--steps {options.steps} is not 2 or more")
    library = _library(options, exists=False)
    lookup = _lookup(options, library)
    start, end = (lookup.voice(name) for name in (options.start, options.end))
    if options.slerp and options.keep != "none":
        raise InvalidValue("--slerp has lengths of its own: leave out --keep")
    space = _space(options, library, start.dimension)
    if options.slerp and space is None:
        space = library.space(start.dimension)
    folder = Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output {folder} is no folder")
    check_writable(folder / "x" if folder.is_dir() else folder)
    terms = [_term(lookup, text) for text in (options.start, options.end)]
    folder.mkdir(exist_ok=True)
    files = []
    for step in range(options.steps):
        t = step / (options.steps - 1)
        voice = lookup.voice(Sum(((1 - t, terms[0]), (t, terms[1]))), space, options.keep)
        if options.slerp:
            around = "the origin" if space is None else "the mean"
            recipe = {**voice.recipe, "expression": f"slerp({terms[0]}, {terms[1]}, {t:g}) around {around}"}
            metadata = {**voice.metadata, "recipe": json.dumps(recipe, ensure_ascii=False)}
            voice = replace(voice, embedding=slerp(start, end, t, space), metadata=metadata)
        file = folder / f"{step:02d}.safetensors"
        voice.save(file)
        files.append(str(file))
    _tell(options, {"output": files}, *files)


def run_apply(options):
    _check_outputs(options)
    library = _library(options, exists=False)
    lookup = _lookup(options, library)
    direction = Name(options.direction.removeprefix("@"), direction=True)
    lookup.direction(direction.name)  # its error without an expression that nobody typed
    whole = Sum(((1.0, _term(lookup, options.voice)), (check_number(options.strength, "--strength"), direction)))
    space = _space(options, library, lookup.voice(options.voice).dimension)
    _keep_voice(options, library, lookup.voice(whole, space, options.keep))


def run_measure(options):
    from ..audio.measures import check_csv, measure, row, write_csv

    check_csv(options.output)
    rows = []
    with cli.bar("measuring", "recording", total=len(options.audio)) as advance:
        for audio in options.audio:
            rows.append(row(audio, measure(audio)))
            advance(1)
    write_csv(options.output, rows)
    columns = list(rows[0])[1:]
    table = [columns, *([str(entry[column]) for column in columns] for entry in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    cli.note(f"{len(rows)} recordings written to {options.output}")
    _tell(options, {"output": options.output, "recordings": rows}, *lines)


def run_space(options):
    library = _library(options, exists=options.csv is None)
    output = options.output or str(library.folder / "space.safetensors")
    if options.nuisance and not options.csv:
        raise InvalidValue("--nuisance is a column: give --csv")
    if not options.csv and options.group:
        raise InvalidValue("--group is a column: give --csv")
    if not options.output:
        library.folder.mkdir(exist_ok=True)
    check_writable(output)
    if options.csv:
        columns = [column for column in (options.group, options.nuisance) if column]
        labelled, _ = read_labelled(options.csv, columns, library)
        X, nuisance = labelled.X, labelled.columns.get(options.nuisance)
        groups, names, source = labelled.columns.get(options.group), labelled.names, Path(options.csv).name
    else:
        X, nuisance, groups, names, source = library.vectors(), None, None, library.names, library.folder.name
    space = VoiceSpace.fit(X, nuisance, groups, source)
    lines = [
        f"{space.count} voices of {space.dimension} dimensions; radius {space.radius:.3f}, spread {space.spread:.3f}"
    ]
    if not space.enough:
        lines.append("Too few to centre on: similarities in this space are raw cosines.")
    found = retrieval(X, groups, nuisance, names) if groups and len(set(groups)) > 2 else None
    space.save(output)
    cli.note(f"written to {output}")
    result = {"output": output, "radius": space.radius, "spread": space.spread, "count": space.count}
    _tell(options, {**result, "retrieval": found and asdict(found)}, *lines, *([str(found)] if found else []))


def run_direction(options):
    library = _library(options, exists=False)
    {"fit": _fit, "show": _show, "orthogonal": _orthogonal}[options.action](options, library)


def _keep_direction(options, library, direction):
    places = []
    if options.name:
        places.append(str(library.add_direction(options.name, direction, options.overwrite)))
    if options.output:
        direction.save(options.output)
        places.append(options.output)
    cli.note(f"written to {' and '.join(places)}")
    return places


def _check_direction(options):
    if not options.output and not options.name:
        raise InvalidValue("nowhere to put the direction: give --output or --name")
    if options.output:
        if Path(options.output).suffix != ".safetensors":
            raise InvalidValue(f"--output {options.output}: the extension must be .safetensors")
        check_writable(options.output)


def _fit(options, library):
    _check_direction(options)
    columns = [column for column in (options.column, options.group) if column]
    labelled, left = read_labelled(options.csv, columns, library)
    if left:
        cli.note(f"left out, as they lack a label: {listed(left, NAMED)}")
    y, groups = labelled.columns[options.column], labelled.columns.get(options.group)
    positive = options.positive
    if positive is not None and not isinstance(y[0], str):
        positive = next((label for label in set(y) if str(label) == positive), positive)
    numeric = not isinstance(y[0], str) and len(set(y)) > 2 and positive is None
    method = options.method or ("ridge" if numeric else "mean")
    space = VoiceSpace.load(options.space) if options.space else None
    direction = Direction.fit(
        labelled.X, y, space, method, options.top_k, groups, positive=positive, names=labelled.names
    )
    places = _keep_direction(options, library, direction)
    sides = f"from {direction.negative} to {direction.positive}"
    result = {"output": places, "positive": direction.positive, "negative": direction.negative}
    _tell(options, {**result, "report": asdict(direction.report)}, f"{options.column}, {sides}", str(direction.report))


def _show(options, library):
    lookup = Lookup(library)
    names = [name.removeprefix("@") for name in options.names]
    found = {name: lookup.direction(name) for name in names}
    lines = []
    for name, direction in found.items():
        lines += [f"@{name}, from {direction.negative} to {direction.positive}", str(direction.report), ""]
    angles = {
        f"@{one} and @{other}": found[one].cosine(found[other])
        for i, one in enumerate(names)
        for other in names[i + 1 :]
    }
    lines += [f"cosine of {pair}: {cosine:+.2f}" for pair, cosine in angles.items()]
    reports = {name: asdict(direction.report) for name, direction in found.items()}
    _tell(options, {"directions": reports, "cosines": angles}, *(lines if angles else lines[:-1]))


def _orthogonal(options, library):
    _check_direction(options)
    lookup = Lookup(library)
    one, other = (lookup.direction(name.removeprefix("@")) for name in (options.one, options.other))
    direction = one.orthogonal_to(other)
    before = one.cosine(other)
    after = direction.cosine(other)  # zero but for rounding, and shown without a minus
    places = _keep_direction(options, library, direction)
    result = {"output": places, "cosine": one.cosine(direction), "before": before, "after": after}
    _tell(
        options,
        result,
        f"cosine to @{options.other.removeprefix('@')}: {before:+.2f} before, {round(after, 2) + 0.0:+.2f} after",
    )


def run_search(options):
    library, where = _library(options), _where(options)
    sound = Path(options.query).suffix.lower() in FORMATS
    embed = _embedder(options).encode if sound else None
    found = library.search(options.query, options.k, where=where, lowest=options.lowest, embed=embed)
    width = max(len(name) for name, _ in found)
    lines = [f"{name:{width}}  {score:+.3f}" for name, score in found]
    _tell(options, {"query": options.query, "found": [{"name": name, "score": score} for name, score in found]}, *lines)


def run_map(options):
    from .maps.page import write_html
    from .maps.picture import write_png
    from .maps.projection import project

    writers = {".png": write_png, ".html": write_html}
    suffix = Path(options.output).suffix.lower()
    if suffix not in writers:
        raise InvalidValue(f"--output {options.output}: the extension must be .png or .html")
    check_writable(options.output)
    if (options.x is None) != (options.y is None):
        raise InvalidValue("--x and --y come together")
    library, where = _library(options), _where(options)
    names = library.where(where)
    X = library.vectors(names)
    axes = None
    if options.x:
        directions = {name: Lookup(library).direction(name.removeprefix("@")) for name in (options.x, options.y)}
        axes = {f"@{name.removeprefix('@')}": found.score(X) for name, found in directions.items()}
    drawn = project(X, axes)
    entries = [library.info(name) for name in names]
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


def run_export(options):
    library = _library(options)
    names = library.export(options.archive, options.names or None)
    _tell(options, {"output": options.archive, "voices": names}, f"{len(names)} voices written to {options.archive}")


def run_import(options):
    library = _library(options, exists=False)
    names = library.import_zip(options.archive, options.overwrite)
    _tell(options, {"library": str(library.folder), "voices": names}, *names)
