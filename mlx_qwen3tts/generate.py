"""`mlx_qwen3tts.generate`: speak a text and write the sound."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import cli
from .checks import word
from .errors import InvalidValue
from .synthesis.request import KEEPS, MORPH_MODES, NUMBERS, Request, Sampling, as_requests

if TYPE_CHECKING:
    from .audio.player import Player
    from .provenance.seal import Seal
    from .synthesis.speech import Speech
    from .synthesis.tts import Qwen3TTS
    from .voices.voice import Voice

EXAMPLES = """\
  mlx_qwen3tts.generate --ref-audio speaker.wav "Hello, this is my voice."
  mlx_qwen3tts.generate --embedding blend.npy "Hello." --output hello.wav --seed 1
  mlx_qwen3tts.generate --model custom --voice Vivian --language Chinese --text-file poem.txt
  mlx_qwen3tts.generate --model design --instruct "A warm, low voice." "Good evening."
  mlx_qwen3tts.generate --embedding blend.npy --stream --play "Heard while it is spoken."
  mlx_qwen3tts.generate --embedding blend.npy --text-file lines.txt --batch-size 8 --output lines
  mlx_qwen3tts.generate --voice "anna*0.7 + ben*0.3 + 1.5*@deep" "Hello."
  mlx_qwen3tts.generate --voice anna --morph-to ben "It begins as one and ends as another."
"""

SEED = "0 to 4294967295; makes the run reproducible (default: random, reported)"


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("generate", __doc__, EXAMPLES)
    cli.add_model(options, dtype=True)
    cli.add_adapter(options)
    options.add_argument("text", nargs="?", metavar="TEXT", help="what to say")
    options.add_argument("--text", dest="text_option", metavar="T", help="what to say, as an option")
    options.add_argument("--text-file", metavar="F", help="read the text from a file; with -, from stdin as it comes")
    options.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="every line of the file is a text of its own, N spoken at once; --output is a folder (default: out)",
    )
    options.add_argument(
        "--voice", metavar="V", help="a file, library voice or preset, or a blend: 'anna*0.7 + ben*0.3'"
    )
    cli.add_library(options)
    options.add_argument(
        "--keep",
        default=KEEPS[0],
        metavar="K",
        help="what a blend keeps of its parents: none, norm or radius (default: none)",
    )
    options.add_argument("--embedding", metavar="FILE", help="a speaker vector: .npy, .safetensors or .json")
    options.add_argument("--ref-audio", metavar="WAV", help="clone the speaker of this recording (Base models)")
    options.add_argument("--ref-text", metavar="T", help="what the recording says: clones in context (ICL)")
    options.add_argument(
        "--ref-silence", type=float, metavar="S", help="silence behind the recording, in context, against echoes: 0.5"
    )
    options.add_argument("--prepare", action="store_true", help="trim silence off the recording and level it")
    options.add_argument("--morph-to", metavar="V", help="a voice to change into while speaking")
    options.add_argument("--morph-seconds", type=float, metavar="S", help="how long that takes (default: all the text)")
    options.add_argument(
        "--morph-mode", metavar="MODE", help="live, or sentences: each starts anew, a stronger effect (default: live)"
    )
    options.add_argument(
        "--language", default="auto", help="auto or one of the model's, by name or code: en, pt-BR (default: auto)"
    )
    options.add_argument("--instruct", metavar="T", help="how to say it (VoiceDesign and 1.7B CustomVoice)")
    options.add_argument(
        "--text-mode",
        metavar="MODE",
        help="streaming or full (default: streaming for clones and embeddings, full for presets and designed voices)",
    )
    options.add_argument(
        "--rate", type=float, default=1.0, metavar="X", help="of speaking, 0.5 to 2; the pitch is kept (default: 1)"
    )
    options.add_argument("--normalize", action="store_true", help="numbers and dates as words (extra 'wetext')")
    for field in NUMBERS:
        kind, name = field.metadata["kind"], field.name.replace("_", "-")
        options.add_argument(f"--{name}", type=kind, metavar="N" if kind is int else "X", help=field.metadata["help"])
    options.add_argument("--seed", type=int, metavar="N", help=SEED)
    options.add_argument("--greedy", action="store_true", help="no sampling; the repetition penalty still applies")
    options.add_argument(
        "--guard",
        action="store_true",
        help="speak again, with up to two other seeds, what is too long, too short, silent or repeats itself; exit "
        "status 3 where that does not help. Off where --seed or --max-tokens is given",
    )
    options.add_argument("--output", help=".wav .flac .mp3 .ogg, or - for WAV on stdout (default: out.wav)")
    options.add_argument(
        "--codes-output", metavar="NPY", help="also write the codes, int32 [frames, codebooks]; of a batch, a folder"
    )
    options.add_argument("--stream", action="store_true", help="decode, and write --output -, while speaking")
    options.add_argument("--strict", action="store_true", help="exit status 3 where a text was cut at --max-tokens")
    options.add_argument("--resume", action="store_true", help="in a batch, go on where an earlier run has stopped")
    options.add_argument("--play", action="store_true", help="play while speaking (needs the extra 'play')")
    cli.add_seal(options)
    cli.add_json(options)
    return options


def main(arguments: list[str] | None = None) -> None:
    cli.run(generate, build_parser().parse_args(arguments))


def read_text(options: argparse.Namespace) -> str | list[str] | Iterator[str]:
    """The text from whichever of the places it is in: a string, for stdin an iterator of pieces, in a batch a list."""
    from .files import text as files
    from .synthesis.text import lines_of

    given = [text for text in (options.text, options.text_option, options.text_file) if text is not None]
    if len(given) != 1:
        raise InvalidValue("give the text once: as TEXT, --text or --text-file" if given else no_text(options.mark))
    if options.text_file is None:
        named = given[0].endswith(files.SUBTITLES) and Path(given[0]).is_file()
        files.check_plain(given[0], f"text {given[0]}" if named else "text", given[0] if named else None)
        return given[0]
    if options.text_file == "-":
        return files.read_stdin()
    text = files.read_text(options.text_file)
    if options.batch_size is None:
        return text
    lines = lines_of(text)
    if not lines:
        raise InvalidValue("text is empty")
    return lines


def no_text(mark: str | bool | None) -> str:
    """What to say where there is no text; mark: as --mark has it, which may have taken the text for its key."""
    if not isinstance(mark, str) or mark == cli.usual_mark():
        return "no text given"
    from .provenance.choosing import WAY_OUT

    return f"no text given; --mark took {mark!r} for its key: {WAY_OUT}"


def check_options(options: argparse.Namespace) -> None:
    """What can be refused before a model is loaded; fills in where the output goes."""
    voices = {"--voice": options.voice, "--embedding": options.embedding, "--ref-audio": options.ref_audio}
    given = [name for name, value in voices.items() if value is not None]
    if len(given) > 1:
        raise InvalidValue(f"{' and '.join(given)} name two voices; give one")
    if not given:
        options.voice = cli.usual_voice(options.model)
    if given and not voices[given[0]].strip():
        raise InvalidValue(f"{given[0]} is empty")
    for name, value in (("--ref-text", options.ref_text is not None), ("--prepare", options.prepare)):
        if value and options.ref_audio is None:
            raise InvalidValue(f"{name} belongs to --ref-audio, which is not given")
    if options.ref_silence is not None and options.ref_text is None:
        raise InvalidValue("--ref-silence belongs to --ref-text, which is not given")
    if word(options.keep, "--keep", KEEPS) != KEEPS[0] and options.voice is None and options.morph_to is None:
        raise InvalidValue("--keep belongs to a blend, as --voice or --morph-to")
    cli.adapter_of(options)
    if options.resume and options.batch_size is None:
        raise InvalidValue("--resume goes on with a batch: it belongs to --batch-size")
    if options.morph_to is None and (options.morph_seconds is not None or options.morph_mode is not None):
        raise InvalidValue("--morph-seconds and --morph-mode belong to --morph-to, which is not given")
    from .synthesis import outputs

    if options.batch_size is None:
        options.output = f"out.{cli.usual_format() or 'wav'}" if options.output is None else options.output
        outputs.check_single(options)
    else:
        options.output = "out" if options.output is None else options.output
        outputs.check_batch(options)


def seal_of(options: argparse.Namespace) -> Seal:
    """What is put on the sound, and whether that can be."""
    from .provenance.choosing import chosen

    piped = options.output == "-" and options.stream
    if piped and options.sign:
        raise InvalidValue("--sign needs the whole sound, and --stream --output - sends it while it is made")
    if piped and options.tag_text and options.text_file == "-":
        raise InvalidValue("--tag-text needs the whole text, and stdin is spoken as it comes; write to a file")
    return chosen(options, None if options.batch_size is not None else options.output)


def generate(options: argparse.Namespace) -> None:
    check_options(options)
    seal = seal_of(options)
    from .synthesis import outputs
    from .synthesis.text import check_text

    text = read_text(options)
    outputs.check_apart(options, len(text) if isinstance(text, list) else None)
    if isinstance(text, str):
        check_text(text)
    if options.normalize:
        text = normalized(text, options.language)
    from .audio.player import Player
    from .synthesis.tts import Qwen3TTS
    from .voices.voice import Voice

    with contextlib.ExitStack() as stack:
        tts = Qwen3TTS.from_pretrained(options.model, options.dtype, options.library, **cli.adapter_of(options))
        player = stack.enter_context(Player(tts.sample_rate)) if options.play else None
        if options.ref_audio:
            silence = {} if options.ref_silence is None else {"ref_silence": options.ref_silence}
            voice = tts.clone(options.ref_audio, options.ref_text, prepare=options.prepare, **silence)
        else:
            voice = Voice.load(options.embedding) if options.embedding else options.voice
        numbers = {field.name: getattr(options, field.name) for field in NUMBERS}
        sampling = Sampling(greedy=options.greedy, **numbers)
        if isinstance(text, list):
            how = {"languages": options.language, "instructs": options.instruct, "text_modes": options.text_mode}
            how["keep"] = options.keep
            how["rates"] = options.rate
            how["guard"] = options.guard
            speak_batch(tts, as_requests(text, voice, **how, seeds=options.seed, sampling=sampling), options, seal)
        else:
            speak(tts, request(text, voice, sampling, options), options, player, seal)


def normalized(text: str | list[str] | Iterator[str], language: str) -> str | list[str]:
    """A text, or the texts of a batch, with numbers and dates as words."""
    from .synthesis.normalizing import in_words

    if isinstance(text, str):
        return in_words(text, language)
    if not isinstance(text, list):
        raise InvalidValue("--normalize needs the whole text, and stdin is spoken as it comes; give it as a file")
    return [in_words(one, language) for one in text]


def request(
    text: str | Iterator[str], voice: Voice | str | None, sampling: Sampling, options: argparse.Namespace
) -> Request:
    """What the options ask for, with a text."""
    return Request(
        text,
        voice,
        language=options.language,
        instruct=options.instruct,
        text_mode=options.text_mode,
        seed=options.seed,
        sampling=sampling,
        keep=options.keep,
        rate=options.rate,
        guard=options.guard,
        morph=options.morph_to,
        morph_seconds=options.morph_seconds,
        morph_mode=options.morph_mode or MORPH_MODES[0],
    )


def speak(tts: Qwen3TTS, asked: Request, options: argparse.Namespace, player: Player | None, seal: Seal) -> None:
    """One text, whole or streamed."""
    import numpy as np

    from .provenance.outlet import Outlet
    from .synthesis.speech import Interrupted

    said: list[str] = []
    if asked.live and seal.text:
        asked = replace(asked, text=kept(asked.text, said))
    piped = options.output == "-" and options.stream
    outlet = Outlet(seal, tts.sample_rate, piped, player.play if player else None)
    interrupted = False
    # One frame is 80 ms: the bar counts seconds of sound.
    with cli.bar("speaking", "s", form="{desc}: {n:.1f} s of sound [{elapsed}]") as advance:

        def progress(frames: int) -> None:
            advance(tts.codec.samples_per_frame / tts.sample_rate)

        try:
            if options.stream or player:
                stream = tts.stream(asked, progress=progress)
                outlet.origin = lambda: stream.origin
                speech = stream.speech(lambda chunk: outlet.add(np.array(chunk.audio)))
            else:
                speech = tts.generate(asked, progress=progress)
        except Interrupted as stopped:
            speech, interrupted = stopped.speech, True
    outlet.finish()
    if said and speech.origin is not None:
        speech.origin = replace(speech.origin, text="".join(said))
    if not piped:
        write(speech, options, seal)
    if options.codes_output:
        write_codes(options.codes_output, speech)
    report(speech, options, player)
    if outlet.left:
        raise outlet.left
    if interrupted:
        cli.note("interrupted: what was spoken so far is kept")
        sys.exit(cli.stopped_status())
    check_whole([speech], options)


def kept(text: str | Iterable[str], said: list[str]) -> Iterator[str]:
    """The pieces of a text, which are kept in `said` as well."""
    for piece in text:
        said.append(piece)
        yield piece


def check_whole(speeches: list[Speech], options: argparse.Namespace) -> None:
    """Exit with status 3 where a text failed the guard, and with --strict where one was cut."""
    cut = options.strict and any(speech.finish_reason == "length" for speech in speeches)
    if cut or any(speech.failed for speech in speeches):
        sys.exit(3)


def speak_batch(tts: Qwen3TTS, asked: list[Request], options: argparse.Namespace, seal: Seal) -> None:
    """A text a line, each written as soon as it is spoken."""
    from .files.progress import Progress
    from .synthesis import outputs
    from .synthesis.resuming import identities
    from .synthesis.speech import Interrupted

    folders = [Path(folder) for folder in (options.output, options.codes_output) if folder is not None]
    progress, marks = Progress(options.output, options.resume), identities(tts, asked, options.model, options.dtype)
    written: dict[int, tuple[str, Speech]] = {}

    def there(number: int) -> bool:
        codes = options.codes_output is None or (folders[1] / f"{number + 1:04d}.npy").is_file()
        return codes and progress.has(f"{number + 1:04d}.wav", marks[number])

    def done(number: int, speech: Speech) -> None:
        for folder in folders:
            folder.mkdir(exist_ok=True)
        path = outputs.numbered(options.output, number, ".wav")
        speech.save(path, seal=seal)
        if options.codes_output:
            write_codes(outputs.numbered(options.codes_output, number, ".npy"), speech)
        written[number] = str(path), speech
        if speech.finish_reason != "interrupted":
            progress.add(path.name, marks[number])

    left, interrupted = [number for number in range(len(asked)) if not there(number)], False
    with cli.bar("speaking", "steps", form="{desc}: {n} steps [{elapsed}]") as advance:
        how = {"batch_size": options.batch_size, "numbers": left, "progress": lambda steps: advance(1), "done": done}
        try:
            if left:
                tts.generate_batch([asked[number] for number in left], **how)
            progress.finish()
        except Interrupted as stopped:
            interrupted = True
            for number, speech in zip(stopped.numbers, stopped.speeches, strict=True):
                if number not in written:
                    done(number, speech)
    if len(left) < len(asked):
        cli.note(f"{len(asked) - len(left)} of {len(asked)} texts were spoken before")
    report_batch([written[number] for number in sorted(written)], options)
    if interrupted:
        cli.note("interrupted: what was spoken so far is kept; --resume goes on")
        sys.exit(cli.stopped_status())
    check_whole([speech for _, speech in written.values()], options)


def write(speech: Speech, options: argparse.Namespace, seal: Seal) -> None:
    if options.output == "-":
        import io

        from .audio.piping import write_stdout

        made = io.BytesIO()
        speech.save(made, seal=seal)
        write_stdout(made.getvalue())
    else:
        speech.save(options.output, seal=seal)


def write_codes(path: str | Path, speech: Speech) -> None:
    from .files.output import write_npy

    write_npy(path, speech.codes)


def report(speech: Speech, options: argparse.Namespace, player: Player | None) -> None:
    stats = speech.stats
    cli.note(
        f"{stats['seconds']:.2f} s of speech in {stats['elapsed']:.2f} s: RTF {stats['rtf']:.2f}, "
        f"{stats['frames_per_second']:.1f} frames/s, peak memory {stats['peak_memory'] / 1e9:.2f} GB, "
        f"seed {stats['seed']}"
    )
    told = {"output": options.output, "codes_output": options.codes_output, **guarded(speech)}
    if "first_audio" in stats:
        cli.note(f"first audio after {stats['first_audio']:.3f} s, largest gap {stats['largest_gap']:.3f} s")
    if player:
        cli.note(f"played with {player.underruns} underruns")
        told["underruns"] = player.underruns
    if options.json:
        cli.print_json({**told, "sample_rate": speech.sample_rate, "finish_reason": speech.finish_reason, **stats})


def guarded(speech: Speech) -> dict[str, object]:
    """What --json tells of a guarded speech in addition."""
    attempts = [{"seed": attempt.seed, "failed": attempt.failed} for attempt in speech.attempts]
    return {"failed": speech.failed, "attempts": attempts} if attempts else {}


def report_batch(written: list[tuple[str, Speech]], options: argparse.Namespace) -> None:
    seconds = sum(speech.stats["seconds"] for _, speech in written)
    elapsed = max((speech.stats["elapsed"] for _, speech in written), default=0)  # they share that of all
    if elapsed:
        cli.note(
            f"{len(written)} texts, {seconds:.2f} s of speech in {elapsed:.2f} s: RTF {elapsed / seconds:.2f}, "
            f"written to {options.output}"
        )
    if options.json:
        rows = [
            {
                "output": path,
                "sample_rate": speech.sample_rate,
                "finish_reason": speech.finish_reason,
                **guarded(speech),
                **speech.stats,
            }
            for path, speech in written
        ]
        cli.print_json({"output": options.output, "codes_output": options.codes_output, "texts": rows})


if __name__ == "__main__":
    main()
