"""`mlx_qwen3tts.generate`: speak a text and write the sound."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli
from .errors import InvalidValue
from .synthesis.request import MORPH_MODES, Request, Sampling, as_requests

if TYPE_CHECKING:
    from .audio.player import Player
    from .synthesis.speech import Chunk, Speech
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
    options.add_argument("--library", metavar="DIR", help="folder of the voices library (default: voices)")
    options.add_argument("--embedding", metavar="FILE", help="a speaker vector: .npy, .safetensors or .json")
    options.add_argument("--ref-audio", metavar="WAV", help="clone the speaker of this recording (Base models)")
    options.add_argument("--ref-text", metavar="T", help="what the recording says: clones in context (ICL)")
    options.add_argument("--prepare", action="store_true", help="trim silence off the recording and level it")
    options.add_argument("--morph-to", metavar="V", help="a voice to change into while speaking")
    options.add_argument("--morph-seconds", type=float, metavar="S", help="how long that takes (default: all the text)")
    options.add_argument(
        "--morph-mode", metavar="MODE", help="live, or sentences: each starts anew, a stronger effect (default: live)"
    )
    options.add_argument("--language", default="auto", help="auto or one of the model's (default: auto)")
    options.add_argument("--instruct", metavar="T", help="how to say it (VoiceDesign and 1.7B CustomVoice)")
    options.add_argument(
        "--text-mode",
        metavar="MODE",
        help="streaming or full (default: streaming for clones and embeddings, full for presets and designed voices)",
    )
    options.add_argument(
        "--rate", type=float, default=1.0, metavar="X", help="of speaking, 0.5 to 2; the pitch is kept (default: 1)"
    )
    for field in fields(Sampling)[1:]:
        kind, name = field.metadata["kind"], field.name.replace("_", "-")
        options.add_argument(f"--{name}", type=kind, metavar="N" if kind is int else "X", help=field.metadata["help"])
    options.add_argument("--seed", type=int, metavar="N", help=SEED)
    options.add_argument("--greedy", action="store_true", help="no sampling; the repetition penalty still applies")
    options.add_argument("--output", help=".wav .flac .mp3 .ogg, or - for WAV on stdout (default: out.wav)")
    options.add_argument(
        "--codes-output", metavar="NPY", help="also write the codes, int32 [frames, codebooks]; of a batch, a folder"
    )
    options.add_argument("--stream", action="store_true", help="decode, and write --output -, while speaking")
    options.add_argument("--play", action="store_true", help="play while speaking (needs the extra 'play')")
    cli.add_json(options)
    return options


def main(arguments: list[str] | None = None) -> None:
    cli.run(generate, build_parser().parse_args(arguments))


def read_text(options: argparse.Namespace) -> str | list[str] | Iterator[str]:
    """The text from whichever of the places it is in: a string, for stdin an iterator of pieces, in a batch a list."""
    given = [text for text in (options.text, options.text_option, options.text_file) if text is not None]
    if len(given) != 1:
        raise InvalidValue("give the text once: as TEXT, --text or --text-file" if given else "no text given")
    if options.text_file is None:
        return given[0]
    if options.text_file == "-":
        return read_stdin()
    name = f"text file {options.text_file}"
    try:
        text = (
            Path(options.text_file).read_bytes().decode("utf-8-sig")
        )  # Windows editors put a byte order mark in front
    except OSError as error:
        raise InvalidValue(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidValue(f"{name} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if options.batch_size is None:
        return text
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    if not lines:
        raise InvalidValue("text is empty")
    return lines


def read_stdin() -> Iterator[str]:
    """Pieces of text as they come through stdin."""
    decoder, position, data = codecs.getincrementaldecoder("utf-8-sig")(), 0, b"-"
    while data:
        stdin: Any = sys.stdin and sys.stdin.buffer  # its type lacks read1; None where it is closed
        data = stdin.read1(65536) if stdin else b""
        pending = len(decoder.getstate()[0])
        try:
            yield decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            place = position - pending + error.start
            raise InvalidValue(f"stdin is not UTF-8 (byte {place}); write UTF-8 to it") from None
        position += len(data)


def check_options(options: argparse.Namespace) -> None:
    """What can be refused before a model is loaded; fills in where the output goes."""
    voices = {"--voice": options.voice, "--embedding": options.embedding, "--ref-audio": options.ref_audio}
    given = [name for name, value in voices.items() if value is not None]
    if len(given) > 1:
        raise InvalidValue(f"{' and '.join(given)} name two voices; give one")
    if given and not voices[given[0]].strip():
        raise InvalidValue(f"{given[0]} is empty")
    for name, value in (("--ref-text", options.ref_text is not None), ("--prepare", options.prepare)):
        if value and options.ref_audio is None:
            raise InvalidValue(f"{name} belongs to --ref-audio, which is not given")
    if options.morph_to is None and (options.morph_seconds is not None or options.morph_mode is not None):
        raise InvalidValue("--morph-seconds and --morph-mode belong to --morph-to, which is not given")
    if options.batch_size is None:
        options.output = "out.wav" if options.output is None else options.output
        check_single(options)
    else:
        options.output = "out" if options.output is None else options.output
        check_batch(options)


def check_single(options: argparse.Namespace) -> None:
    from .audio.writing import output_format
    from .files.output import check_npy, check_writable

    if options.output == "-":
        if options.json:
            raise InvalidValue("--json and --output - both write to stdout; give one")
        if sys.stdout is None:
            raise InvalidValue("--output - writes to stdout, which is closed")
    else:
        output_format(options.output)
        check_writable(options.output)
    if options.codes_output is not None:
        check_npy(options.codes_output, "--codes-output")


def check_batch(options: argparse.Namespace) -> None:
    from .files.output import check_folder

    if options.batch_size < 1:
        raise InvalidValue(f"--batch-size {options.batch_size} is not 1 or more")
    if options.text_file in (None, "-"):
        raise InvalidValue("--batch-size needs --text-file with a file, a text a line")
    for name, value in (("--stream", options.stream), ("--play", options.play), ("--morph-to", options.morph_to)):
        if value:
            raise InvalidValue(f"{name} speaks one text; leave out --batch-size")
    if options.output == "-":
        raise InvalidValue("--output - takes one text; in a batch it is a folder")
    for name, folder in (("--output", options.output), ("--codes-output", options.codes_output)):
        if folder is not None:
            check_folder(folder, name)


def generate(options: argparse.Namespace) -> None:
    check_options(options)
    from .synthesis.text import check_text

    text = read_text(options)
    if isinstance(text, str):
        check_text(text)
    from .audio.player import Player
    from .synthesis.tts import Qwen3TTS
    from .voices.voice import Voice

    with contextlib.ExitStack() as stack:
        library = {} if options.library is None else {"library": options.library}
        tts = Qwen3TTS.from_pretrained(options.model, options.dtype, **library)
        player = stack.enter_context(Player(tts.sample_rate)) if options.play else None
        if options.ref_audio:
            voice = tts.clone(options.ref_audio, options.ref_text, prepare=options.prepare)
        else:
            voice = Voice.load(options.embedding) if options.embedding else options.voice
        sampling = Sampling(**{field.name: getattr(options, field.name) for field in fields(Sampling)})
        if isinstance(text, list):
            how = {"languages": options.language, "instructs": options.instruct, "text_modes": options.text_mode}
            how["rates"] = options.rate
            speak_batch(tts, as_requests(text, voice, **how, seeds=options.seed, sampling=sampling), options)
        else:
            speak(tts, request(text, voice, sampling, options), options, player)


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
        rate=options.rate,
        morph=options.morph_to,
        morph_seconds=options.morph_seconds,
        morph_mode=options.morph_mode or MORPH_MODES[0],
    )


def speak(tts: Qwen3TTS, asked: Request, options: argparse.Namespace, player: Player | None) -> None:
    """One text, whole or streamed."""
    from .synthesis.speech import Interrupted

    piped, head = options.output == "-" and options.stream, b""
    left: BrokenPipeError | None = None

    def heard(chunk: Chunk) -> None:
        import numpy as np

        nonlocal left, head
        samples = np.array(chunk.audio)
        if piped and left is None:
            try:
                write_stdout(head + wav_samples(samples, chunk.sample_rate))
                head = b""
            except BrokenPipeError as error:  # nobody listens any more
                left = error
                raise KeyboardInterrupt from None
        if player:
            player.play(samples)

    interrupted = False
    # One frame is 80 ms: the bar counts seconds of sound.
    with cli.bar("speaking", "s", form="{desc}: {n:.1f} s of sound [{elapsed}]") as advance:

        def progress(frames: int) -> None:
            advance(tts.codec.samples_per_frame / tts.sample_rate)

        try:
            if options.stream or player:
                from .audio.writing import wav_head, wav_samples

                stream = tts.stream(asked, progress=progress)
                head = wav_head(tts.sample_rate)
                speech = stream.speech(heard)
            else:
                speech = tts.generate(asked, progress=progress)
        except Interrupted as stopped:
            speech, interrupted = stopped.speech, True
    if not piped:
        write(speech, options)
    if options.codes_output:
        write_codes(options.codes_output, speech)
    report(speech, options, player)
    if left:
        raise left
    if interrupted:
        cli.note("interrupted: what was spoken so far is kept")
        sys.exit(130)


def speak_batch(tts: Qwen3TTS, asked: list[Request], options: argparse.Namespace) -> None:
    """A text a line, each written as soon as it is spoken."""
    from .synthesis.speech import Interrupted

    folders = [Path(folder) for folder in (options.output, options.codes_output) if folder is not None]
    written = {}

    def done(number: int, speech: Speech) -> None:
        for folder in folders:
            folder.mkdir(exist_ok=True)
        path = Path(options.output) / f"{number + 1:04d}.wav"
        speech.save(path)
        if options.codes_output:
            write_codes(Path(options.codes_output) / f"{number + 1:04d}.npy", speech)
        written[number] = str(path), speech

    interrupted = False
    with cli.bar("speaking", "steps", form="{desc}: {n} steps [{elapsed}]") as advance:
        try:
            tts.generate_batch(asked, batch_size=options.batch_size, progress=lambda steps: advance(1), done=done)
        except Interrupted as stopped:
            interrupted = True
            for number, speech in zip(stopped.numbers, stopped.speeches, strict=True):
                if number not in written:
                    done(number, speech)
    report_batch([written[number] for number in sorted(written)], options)
    if interrupted:
        cli.note("interrupted: what was spoken so far is kept")
        sys.exit(130)


def write(speech: Speech, options: argparse.Namespace) -> None:
    if options.output == "-":
        import numpy as np

        from .audio.writing import audio_bytes

        write_stdout(audio_bytes(np.array(speech.audio), speech.sample_rate))
    else:
        speech.save(options.output)


def write_stdout(data: bytes) -> None:
    from .errors import OutputError

    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write stdout: {error.strerror}") from None


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
    told = {"output": options.output, "codes_output": options.codes_output}
    if "first_audio" in stats:
        cli.note(f"first audio after {stats['first_audio']:.3f} s, largest gap {stats['largest_gap']:.3f} s")
    if player:
        cli.note(f"played with {player.underruns} underruns")
        told["underruns"] = player.underruns
    if options.json:
        cli.print_json({**told, "sample_rate": speech.sample_rate, "finish_reason": speech.finish_reason, **stats})


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
            {"output": path, "sample_rate": speech.sample_rate, "finish_reason": speech.finish_reason, **speech.stats}
            for path, speech in written
        ]
        cli.print_json({"output": options.output, "codes_output": options.codes_output, "texts": rows})


if __name__ == "__main__":
    main()
