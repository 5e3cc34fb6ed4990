"""`mlx_qwen3tts.diarize`: who speaks when in a recording, and the voice of each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli
from .errors import InvalidValue

if TYPE_CHECKING:
    from .diarization import Diarization

DESCRIPTION = "who speaks when in a recording, and the voice of each."
EXAMPLES = """\
  mlx_qwen3tts.diarize meeting.wav
  mlx_qwen3tts.diarize meeting.wav --max-speakers 4 --overlap --output meeting.json
  mlx_qwen3tts.diarize meeting.wav --output meeting.rttm --voices speakers

Then speak with the second voice found:
  generate --embedding speakers/speaker_2.safetensors "Hello."
"""
FORMATS = (".rttm", ".json")


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("diarize", DESCRIPTION, EXAMPLES)
    options.add_argument("audio", metavar="AUDIO", help="a recording of any length that holds 0.5 s of speech or more")
    cli.add_model(options)
    options.add_argument("--output", metavar="F", help=".rttm or .json (default: RTTM lines on stdout)")
    options.add_argument("--voices", metavar="DIR", help="save each speaker's voice there, as speaker_1.safetensors …")
    options.add_argument("--num-speakers", type=int, metavar="N", help="how many speak, where that is known")
    options.add_argument("--min-speakers", type=int, default=1, metavar="N", help="no fewer than this (default: 1)")
    options.add_argument("--max-speakers", type=int, metavar="N", help="no more than this")
    options.add_argument(
        "--threshold", type=float, metavar="X", help="least distance of two speakers: lower finds more (default: 0.35)"
    )
    options.add_argument("--overlap", action="store_true", help="mark where two speak at once")
    options.add_argument(
        "--space", metavar="F", help="a saved voice space to centre with (default: the recording's own centre)"
    )
    cli.add_json(options)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(diarize, build_parser().parse_args(arguments))


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse what cannot be written, before any work."""
    from .errors import OutputError
    from .files.output import check_folder, check_not_read, check_writable

    if options.output is not None:
        if Path(options.output).suffix not in FORMATS:
            suffix = Path(options.output).suffix
            raise InvalidValue(
                f"output {options.output}: extension {suffix!r} is not one of {' '.join(FORMATS)}", param="output"
            )
        check_writable(options.output)
        check_not_read(options.output, options.audio, options.space)
    if options.voices is not None:
        check_folder(options.voices, "--voices")
        there = sorted(Path(options.voices).glob("speaker_*.safetensors"))
        if there:
            raise OutputError(
                f"--voices {options.voices} holds {there[0].name} already; take another folder, or remove it first"
            )


def diarize(options: argparse.Namespace) -> None:
    check_outputs(options)
    from . import diarization
    from .audio.regions import open_recording

    threshold = diarization.THRESHOLD if options.threshold is None else options.threshold
    diarization.limits(options.num_speakers, options.min_speakers, options.max_speakers, threshold)
    with open_recording(options.audio) as file:
        seconds = round(file.frames / file.samplerate)
    space = known = None
    if options.space is not None:
        from .voices.space import VoiceSpace

        space = VoiceSpace.load(options.space)
    from .checkpoint import hub
    from .checkpoint.speaker import SpeakerEncoder

    folder = hub.resolve(options.model, hub.ALONE)
    encoder = SpeakerEncoder(folder)
    asked = options.num_speakers is not None or options.min_speakers > 1
    if space is None and not asked:
        known = diarization.background(encoder.network.dimension, folder)
    with cli.bar("diarizing", "s", total=seconds, scale=True) as advance:
        found = diarization.diarize(
            options.audio,
            diarization.embedder(encoder.network),
            space=space,
            background=known,
            num_speakers=options.num_speakers,
            min_speakers=options.min_speakers,
            max_speakers=options.max_speakers,
            threshold=threshold,
            overlap=options.overlap,
            progress=advance,
        )
    if len(found.speakers) == 2 and space is None and known is None and not asked:
        said = f"no other voices of {encoder.network.dimension} dimensions are known to compare with"
        cli.note(f"these two may be one: {said}; --space or --num-speakers settles it")
    told = {"audio": options.audio, **found.as_dict()}
    if options.voices is not None:
        save_voices(found, told["speakers"], options, encoder.source)
    if options.output is not None:
        write(found, told, options)
    summarise(told["speakers"], found, options)
    if options.json:
        cli.print_json({"output": options.output, **told} if options.output else told)
    elif options.output is None:
        print(found.rttm(Path(options.audio).stem), end="")


def save_voices(
    found: Diarization, speakers: dict[str, dict[str, Any]], options: argparse.Namespace, model: str
) -> None:
    """Every speaker's vector as a voice file, whose path is noted in `speakers`."""
    from .voices.voice import Voice

    Path(options.voices).mkdir(exist_ok=True)
    for name, vector in found.speakers.items():
        file = Path(options.voices) / f"{name}.safetensors"
        where = {"recording": Path(options.audio).name, "speaker": name, "seconds": f"{speakers[name]['seconds']:.1f}"}
        Voice(vector, metadata={"source_model": model, **where}).save(file)
        speakers[name]["voice"] = str(file)


def write(found: Diarization, told: dict[str, Any], options: argparse.Namespace) -> None:
    """The output file, by its extension."""
    from .files.json_text import json_text
    from .files.output import whole_file

    json_wanted = Path(options.output).suffix == ".json"
    text = json_text(told, indent=1, null=True) + "\n" if json_wanted else found.rttm(Path(options.audio).stem)
    with whole_file(options.output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def summarise(speakers: dict[str, dict[str, Any]], found: Diarization, options: argparse.Namespace) -> None:
    """Who was found, on stderr."""
    total = sum(speaker["seconds"] for speaker in speakers.values())
    count = f"{len(speakers)} speaker{'s' * (len(speakers) > 1)}"
    cli.note(f"{count} in {found.duration:.1f} s of sound")
    for name, speaker in speakers.items():
        turns = f"{speaker['turns']} turn{'s' * (speaker['turns'] > 1)}"
        cli.note(f"{name}: {speaker['seconds']:.1f} s, {speaker['seconds'] / total:.0%}, {turns}")
    if options.overlap:
        cli.note(f"two at once: {sum(end - start for start, end in found.overlaps):.1f} s")
    for file in (options.output, options.voices):
        if file:
            cli.note(f"written to {file}")


if __name__ == "__main__":
    main()
