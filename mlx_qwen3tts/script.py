"""`mlx_qwen3tts.script`: speak a script of many voices and hours, and go on where it was stopped."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from . import cli
from .errors import InvalidValue, UnsupportedValue
from .synthesis.request import NUMBERS, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cluster.remote import Speakers
    from .provenance.seal import Seal
    from .scripts.cast import Cast, Part
    from .scripts.render import Rendered
    from .scripts.script import Script
    from .scripts.timeline import Piece
    from .synthesis.tts import Qwen3TTS
    from .voices.voice import Voice

T = TypeVar("T")

EXAMPLES = """\
  mlx_qwen3tts.script check play.txt --voices voices.json
  mlx_qwen3tts.script check play.txt --voices voices.json --calibrate
  mlx_qwen3tts.script render play.txt --voices voices.json --output play.wav
  mlx_qwen3tts.script render book.epub --voice anna --output book.m4b
  mlx_qwen3tts.script render play.txt --voices voices.json --output play.wav --lines 7 --again
"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("script", __doc__, EXAMPLES)
    ways = options.add_subparsers(dest="way", metavar="WAY", required=True, parser_class=cli.Parser)
    check = ways.add_parser("check", help="print the cast, the minutes to expect and what looks wrong")
    add_script(check)
    check.add_argument("--model", metavar="M", help="whose presets, words and languages count")
    check.add_argument(
        "--output", metavar="FILE", help="an output of `render`: count what it has spoken, and take its speed"
    )
    check.add_argument(
        "--calibrate", action="store_true", help="speak a few pieces with --model to estimate the time of all"
    )
    check.add_argument("--dtype", metavar="D", help="of --calibrate (default: the checkpoint's own)")
    check.add_argument("--batch-size", type=int, default=8, metavar="N", help="of --calibrate (default: 8)")
    cli.add_json(check)
    render = ways.add_parser("render", help="speak it; the same command again goes on where it was stopped")
    add_script(render)
    cli.add_model(render, dtype=True)
    cli.add_adapter(render)
    render.add_argument(
        "--output", required=True, help=".wav .flac .mp3 .ogg .m4b, or a folder with a WAV for each line"
    )
    render.add_argument("--lines", metavar="L", help="speak only these lines: 3,7-9")
    render.add_argument("--again", action="store_true", help="speak the --lines with other seeds than before")
    render.add_argument("--workers", metavar="URL", help="scheduler of a dask cluster that speaks: tcp://host:8786")
    add_speaking(render)
    cli.add_seal(render)
    cli.add_json(render)
    return options


def add_speaking(render: argparse.ArgumentParser) -> None:
    """The options of how a script is spoken."""
    render.add_argument("--level", type=float, metavar="X", help="LUFS of each voice (default: -19)")
    render.add_argument("--no-level", action="store_true", help="leave voices as loud as they are")
    render.add_argument("--batch-size", type=int, default=8, metavar="N", help="pieces spoken at once (default: 8)")
    render.add_argument("--seed", type=int, metavar="N", help="0 to 4294967295 (default: 0)")
    render.add_argument(
        "--no-guard",
        action="store_true",
        help="do not speak again what has gone wrong; with --seed or --max-tokens that is so anyway",
    )
    render.add_argument("--greedy", action="store_true", help="no sampling; the repetition penalty still applies")
    for field in NUMBERS:
        kind, name = field.metadata["kind"], field.name.replace("_", "-")
        render.add_argument(f"--{name}", type=kind, metavar="N" if kind is int else "X", help=field.metadata["help"])


def add_script(options: argparse.ArgumentParser) -> None:
    options.add_argument("file", metavar="FILE", help=".txt .md .json .epub")
    add_cast(options)


def add_cast(options: argparse.ArgumentParser) -> None:
    """The options of who speaks."""
    options.add_argument("--voices", metavar="JSON", help="the cast: names and their voices")
    options.add_argument(
        "--voice", metavar="V", help="the narrator's, where the cast has none (default: as configured)"
    )
    options.add_argument("--language", default="auto", help="where the cast has none (default: auto)")
    cli.add_library(options)
    options.add_argument("--normalize", action="store_true", help="numbers and dates as words (extra 'wetext')")


def main(arguments: list[str] | None = None) -> None:
    options = build_parser().parse_args(arguments)
    cli.run(render if options.way == "render" else check, options)


def cast_of(options: argparse.Namespace) -> dict[str, Part]:
    """The cast that --voices names."""
    from .scripts.cast import read_cast

    return {} if options.voices is None else read_cast(options.voices)


def parts_of(options: argparse.Namespace) -> dict[str, Part]:
    """The cast with a narrator: that of --voices, else --voice, else the configured voice where there is one."""
    from .scripts.cast import NARRATOR, Part

    parts = cast_of(options)
    narrated = any(name.casefold() == NARRATOR for name in parts)
    if options.voice is not None and narrated:
        raise InvalidValue(f"--voice and the {NARRATOR} of {options.voices} name two voices; give one")
    voice = cli.usual_voice(options.model) if options.voice is None and not narrated else options.voice
    if voice is not None:
        parts[NARRATOR] = Part(voice)
    return parts


def speaking(options: argparse.Namespace) -> dict[str, Any]:
    """What the options of `add_speaking` and `add_script` say to a Timeline."""
    from .audio.level import BOOK_LEVEL

    if options.no_level and options.level is not None:
        raise InvalidValue("--level and --no-level contradict each other; give one")
    return {
        "seed": options.seed or 0,
        "language": options.language,
        "normalize": options.normalize,
        "sampling": Sampling(greedy=options.greedy, **{field.name: getattr(options, field.name) for field in NUMBERS}),
        "level": None if options.no_level else BOOK_LEVEL if options.level is None else options.level,
        "guard": not options.no_guard and options.seed is None and options.max_tokens is None,
    }


def check(options: argparse.Namespace) -> None:
    from .checkpoint import hub
    from .scripts.cast import Cast
    from .scripts.doubts import PUBLISHED, doubtful
    from .scripts.script import Script
    from .scripts.timeline import lay_out, seconds_of
    from .voices.commands.shared import lookup_of
    from .voices.fit import check_refused
    from .voices.library.library import Library

    if options.calibrate and options.model is None:
        options.model = cli.usual_model()
    written, parts = writing(options), parts_of(options)
    script = Script.parse(options.file, parts)
    lookup = lookup_of(options, Library(options.library))

    def resolve(name: str | None) -> Voice | None:
        if name is None:
            return None
        voice = lookup.voice(name)
        check_refused(voice, name)
        return voice

    cast = Cast(parts, resolve)
    cast.check(script)
    pieces = lay_out(script, cast, language=options.language, written=written)
    languages, unknown = PUBLISHED, None
    if options.model is not None:
        from .checkpoint.folder import ModelFolder
        from .checkpoint.vocabulary import Vocabulary

        config = ModelFolder(hub.resolve(options.model)).config
        known, languages = config.vocabulary, config.languages
        unknown = None if known is None else Vocabulary(known.words, known.punctuation).unknown
    found = doubtful(script, cast, pieces, options.language, languages, unknown, options.normalize)
    rows: dict[str, dict[str, Any]] = {}
    for piece in pieces:
        name = piece.name or "narrator"
        row = rows.setdefault(name, {"name": name, "voice": piece.part.voice, "pieces": 0, "seconds": 0.0})
        row["pieces"] += 1
        row["seconds"] = round(row["seconds"] + piece.seconds, 1)
    seconds = seconds_of(pieces)
    doubts = [{"line": number, "doubt": doubt} for number, doubt in found]
    left, cost = computing(options, script, cast, pieces)
    if options.json:
        told = {"lines": len(script.lines), "pieces": len(pieces), "seconds": round(seconds, 1)}
        cli.print_json({**told, "cast": list(rows.values()), "doubts": doubts, "left": len(left), "computing": cost})
        return
    width = max(len(name) for name in rows)
    for name, row in rows.items():
        print(f"{name:{width}}  {row['pieces']:5} pieces {clock(row['seconds']):>9}  {row['voice'] or 'designed'}")
    print(f"{len(script.lines)} lines in {len(pieces)} pieces, some {clock(seconds)}")
    if len(left) < len(pieces):
        print(f"{len(pieces) - len(left)} pieces are spoken already")
    if cost is not None:
        print(f"to compute: {clock(cost['seconds'])}, {cost['rtf']:.2g} s for a second of sound ({cost['measured']})")
    for one in doubts:
        print(f"line {one['line']}: {one['doubt']}")


def computing(
    options: argparse.Namespace, script: Script, cast: Cast, pieces: list[Piece]
) -> tuple[list[Piece], dict[str, Any] | None]:
    """(the pieces that are still to be spoken, what that costs: {"seconds", "rtf", "measured"}, or None where nobody
    has measured it)."""
    from .scripts.cost import calibrate, measured
    from .scripts.manifest import Manifest

    left, pace, how = pieces, None, ""
    if options.output is not None:
        from .checks import path

        manifest = Manifest(path(options.output, "output"), options.model or "", 0)
        taken = {(entry["name"], entry["voice"], entry["text"]) for entry in manifest.pieces.values()}
        left = [one for one in pieces if (one.name, one.part.voice, one.text) not in taken]
        pace, how = measured(manifest.folder, options.model), f"measured when {options.output} was rendered"
    if options.calibrate and left:
        from .synthesis.request import Sampling
        from .synthesis.tts import Qwen3TTS

        tts = Qwen3TTS.from_pretrained(options.model, options.dtype, options.library)
        speaking = type(cast)(cast.parts, tts.voice)
        requests = [one.request(speaking, options.language, Sampling()) for one in left]
        pace, how = calibrate(tts, requests, options.batch_size), "measured now"
    if pace is None:
        return left, None
    sound = sum(one.seconds for one in left)
    return left, {"seconds": round(sound * pace.rtf, 1), "rtf": round(pace.rtf, 3), "measured": how}


def writing(options: argparse.Namespace) -> Callable[[str, str], str] | None:
    """What writes numbers as words, where that is asked for."""
    if not options.normalize:
        return None
    from .synthesis.normalizing import check_normalizing, in_words

    check_normalizing()
    return in_words


def render(options: argparse.Namespace) -> None:
    from .provenance.choosing import chosen
    from .scripts.cast import Cast
    from .scripts.render import Timeline, check_output
    from .scripts.script import Script

    told, adapter = speaking(options), cli.adapter_of(options)
    if adapter and options.workers is not None:
        message = "--workers speak without an adapter; fuse it into a model of its own, or leave --workers out"
        raise UnsupportedValue(message, param="adapter_path")
    check_output(options.output, options.file, options.voices)
    seal = chosen(options, options.output)
    writing(options)
    parts = parts_of(options)
    script: Script = Script.parse(options.file, parts)
    if options.workers is None:
        from .synthesis.tts import Qwen3TTS

        tts = Qwen3TTS.from_pretrained(options.model, options.dtype, options.library, **adapter)
    else:
        from .cluster.remote import Speakers

        tts = Speakers(options.workers, options.model, options.dtype, options.library)
    cast: Cast = Cast(parts, tts.voice)
    cast.check_model(script, tts, options.language)
    timeline = Timeline(script, cast, **told)
    result = spoken(timeline.render, tts, options, options.lines, seal)
    report(result, options)
    if result.failed:
        sys.exit(3)


def spoken(
    render: Callable[..., T], tts: Qwen3TTS | Speakers, options: argparse.Namespace, lines: str | None, seal: Seal
) -> T:
    """What `render`, of a Timeline, gives, with a bar; where it is interrupted the command ends. lines, seal: as it
    takes them."""
    model = options.model if options.dtype is None else f"{options.model} {options.dtype}"
    how = {"model": model, "lines": lines, "again": options.again, "batch_size": options.batch_size}
    how["seal"] = seal
    try:
        with cli.bar("speaking", "pieces", form="{desc}: {n} pieces [{elapsed}]") as advance:
            return render(tts, options.output, **how, done=lambda spoken, todo: advance(1))
    except KeyboardInterrupt:
        cli.note("interrupted: what was spoken is kept; the same command goes on")
        sys.exit(cli.stopped_status())


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as players show them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def report(result: Rendered, options: argparse.Namespace) -> None:
    from .synthesis.watch import CHECKS

    cli.note(f"pieces: {result.spoken} spoken, {result.kept} kept")
    for number in result.cut:
        cli.note(f"warning: line {number} reached --max-tokens and was cut; --lines {number} --again varies it")
    for number, failed in result.failed:
        again = f"--lines {number} --again varies it"
        cli.note(f"warning: line {number} failed the guard three times ({CHECKS[failed]}) and is kept so; {again}")
    if result.missing:
        cli.note(f"pieces not spoken yet: {result.missing}; so {options.output} is not written: leave out --lines")
    else:
        cli.note(f"{clock(result.seconds)} of sound written to {result.output}")
    if options.json:
        chapters = [{"title": title, "start": round(start, 3)} for title, start in result.chapters]
        told = {"output": None if result.output is None else str(result.output), "seconds": round(result.seconds, 3)}
        counts = {"spoken": result.spoken, "kept": result.kept, "missing": result.missing}
        failed = [{"line": number, "failed": check} for number, check in result.failed]
        cli.print_json({**told, **counts, "cut": result.cut, "failed": failed, "chapters": chapters})


if __name__ == "__main__":
    main()
