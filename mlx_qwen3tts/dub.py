"""`mlx_qwen3tts.dub`: speak subtitles, each cue at its time, and go on where it was stopped."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli
from .errors import InvalidValue
from .script import add_cast, add_speaking, cast_of, clock, parts_of, speaking, spoken, writing

if TYPE_CHECKING:
    from .scripts.cast import Part
    from .scripts.cues import Cues
    from .scripts.dubbing import Dubbed

EXAMPLES = """\
  mlx_qwen3tts.dub film.srt --voice anna --output film.wav
  mlx_qwen3tts.dub film.srt --voices voices.json --output film.flac --subtitles spoken.srt
  mlx_qwen3tts.dub film.srt --voices voices.json --output film.flac --cues 2 --again
  mlx_qwen3tts.dub film.srt --from-audio interview.wav --consent given --output cast.wav
"""
SHOWN = 20  # warnings of a kind; --json has all


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("dub", __doc__, EXAMPLES)
    options.add_argument("file", metavar="FILE", help=".srt .vtt .ass .ssa (the last two need the extra subtitles)")
    options.add_argument("--output", required=True, help=".wav .flac .mp3 .ogg .m4b")
    add_cast(options)
    options.add_argument(
        "--max-rate", type=float, metavar="X", help="how fast speech may be made to fit (default: 1.3)"
    )
    options.add_argument("--subtitles", metavar="F", help="write what was spoken when: .srt .vtt .ass .ssa")
    options.add_argument("--from-audio", metavar="SOURCE", help="the original recording, whose voices speak")
    options.add_argument("--num-speakers", type=int, metavar="N", help="how many speak in SOURCE, where that is known")
    options.add_argument(
        "--consent", metavar="C", help="of those in SOURCE: not-needed, given, unknown or refused; nobody verifies it"
    )
    options.add_argument("--license", metavar="L", help="of the voices in SOURCE: an SPDX name, such as CC-BY-4.0")
    options.add_argument("--encoding", metavar="E", help="of FILE, where it is not UTF-8 or marked as UTF-16")
    options.add_argument("--cues", metavar="L", help="speak only these cues: 3,7-9")
    options.add_argument("--again", action="store_true", help="speak the --cues with other seeds than before")
    cli.add_model(options, dtype=True)
    cli.add_adapter(options)
    add_speaking(options)
    cli.add_seal(options)
    cli.add_json(options)
    return options


def main(arguments: list[str] | None = None) -> None:
    cli.run(dub, build_parser().parse_args(arguments))


def dub(options: argparse.Namespace) -> None:
    from .provenance.choosing import chosen
    from .scripts.cast import Cast
    from .scripts.cues import Cues
    from .scripts.dubbing import MAX_RATE, Dubbing
    from .scripts.render import check_output
    from .voices.library.library import Library

    how = {**speaking(options), "max_rate": MAX_RATE if options.max_rate is None else options.max_rate}
    check(options)
    adapter = cli.adapter_of(options)
    writing(options)
    check_output(options.output, options.file, options.voices, options.from_audio)
    seal = chosen(options, options.output)
    parts = parts_of(options) if options.from_audio is None else cast_of(options)
    kept = Library(options.library).names
    cues = Cues.parse(options.file, [*parts, *kept], options.encoding)
    if options.from_audio is not None:
        cues, parts = keep_cast(options, cues, parts)
    doubts = sorted([*cues.doubts, *cues.collisions()])
    warn(doubts)
    from .synthesis.tts import Qwen3TTS

    tts = Qwen3TTS.from_pretrained(options.model, options.dtype, options.library, **adapter)
    cast = Cast(parts, tts.voice)
    cast.check_model(cues, tts, options.language)
    dubbing = Dubbing(cues, cast, **how)
    result = spoken(dubbing.render, tts, options, options.cues, seal)
    if options.subtitles is not None and result.placed:
        from .scripts.subtitles import write_subtitles

        write_subtitles(options.subtitles, [row for placed in result.placed for row in placed.rows])
    report(result, doubts, options)
    if result.failed:
        sys.exit(3)


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be, before any work."""
    if options.from_audio is None:
        for name in ("num_speakers", "consent", "license"):
            if getattr(options, name) is not None:
                raise InvalidValue(
                    f"--{name.replace('_', '-')} belongs to --from-audio, which is not given", param=name
                )
    elif options.consent == "refused":  # said before minutes are spent on finding out who speaks
        raise InvalidValue("--consent refused: who has refused is not spoken", param="consent")
    elif options.voice is not None:
        raise InvalidValue("--voice and --from-audio both say who speaks; give one", param="voice")
    if options.subtitles is not None:
        from .files.output import check_not_read, check_writable
        from .scripts.subtitles import check_subtitles

        check_subtitles(Path(options.subtitles), "subtitles")
        check_writable(options.subtitles)
        check_not_read(options.subtitles, options.file, options.voices, options.from_audio)


def keep_cast(options: argparse.Namespace, cues: Cues, parts: dict[str, Part]) -> tuple[Cues, dict[str, Part]]:
    """The cues with the names of those who speak in the original recording, and the cast with these. Names that the
    user's own cast has stay."""
    from .audio.regions import open_recording
    from .scripts.cast import read_cast
    from .scripts.cues import Cue
    from .scripts.original import read_original

    with open_recording(options.from_audio) as file:
        seconds = round(file.frames / file.samplerate)
    folder = Path(f"{options.output}.voices")
    rights = {"consent": options.consent, "license": options.license}
    with cli.bar("diarizing", "s", total=seconds, scale=True) as advance:
        original = read_original(
            options.from_audio, folder, options.model, num_speakers=options.num_speakers, **rights, progress=advance
        )
    found = read_cast(original.cast)
    cli.note(f"{len(found)} speakers {'kept in' if original.made else 'read from'} {original.cast}")
    if original.made and options.consent is None:
        cli.note("their consent is not entered; --consent, or `voices tag`, says what they gave")
    known = {name.casefold() for name in parts}
    doubts = list(cues.doubts)

    def who(cue: Cue) -> str:
        if cue.name is not None and cue.name.casefold() in known:
            return cue.name
        name, away = original.speaker(cue)
        if cue.name is not None:
            doubts.append((cue.number, f"{cue.name!r} is not spoken: it is taken for a name, and {name} speaks then"))
        if away > 0:
            doubts.append((cue.number, f"nobody speaks then; spoken by {name}, {away:.1f} s away"))
        return name

    named = cues.spoken_by(who)
    return replace(named, doubts=tuple(doubts)), {**found, **parts}


def warn(doubts: Iterable[tuple[int, str]]) -> None:
    """Warnings of single cues, the first SHOWN of them."""
    lines = [f"warning: cue {number}: {doubt}" for number, doubt in doubts]
    for line in lines[:SHOWN]:
        cli.note(line)
    if len(lines) > SHOWN:
        cli.note(f"warning: {len(lines) - SHOWN} more of these; --json lists all")


def report(result: Dubbed, doubts: list[tuple[int, str]], options: argparse.Namespace) -> None:
    from .scripts.dubbing import UNHEARD
    from .synthesis.watch import CHECKS

    cli.note(f"pieces: {result.spoken} spoken, {result.kept} kept")
    warn((number, f"reached --max-tokens and was cut; --cues {number} --again varies it") for number in result.cut)
    warn(
        (number, f"failed the guard three times ({CHECKS[failed]}) and is kept so; --cues {number} --again varies it")
        for number, failed in result.failed
    )
    warn(
        (one.number, f"spoken {one.speed:.2f} times as fast to fit")
        for one in result.placed
        if one.speed > UNHEARD and not one.overflow
    )
    warn(
        (
            one.number,
            f"{one.overflow:.2f} s too long at {one.speed:.2f} times the speed; characters to cut: {one.too_long}",
        )
        for one in result.placed
        if one.overflow
    )
    if result.missing:
        cli.note(f"pieces not spoken yet: {result.missing}; so {options.output} is not written: leave out --cues")
    else:
        cli.note(f"{clock(result.seconds)} of sound written to {result.output}")
    if options.json:
        told: dict[str, Any] = {"output": None if result.output is None else str(result.output)}
        told |= {"seconds": round(result.seconds, 3), "spoken": result.spoken, "kept": result.kept}
        told |= {"missing": result.missing, "cut": result.cut}
        told["failed"] = [{"cue": number, "failed": check} for number, check in result.failed]
        if options.subtitles is not None:
            told["subtitles"] = options.subtitles if result.placed else None
        told["cues"] = [
            {
                "cue": one.number,
                "names": [row.name for row in one.rows],
                "start": round(one.start, 3),
                "end": round(one.end, 3),
                "rate": round(one.speed, 3),
                "overflow": round(one.overflow, 3),
                "characters_to_cut": one.too_long,
            }
            for one in result.placed
        ]
        told["doubts"] = [{"cue": number, "doubt": doubt} for number, doubt in doubts]
        cli.print_json(told)


if __name__ == "__main__":
    main()
