"""`mlx_qwen3tts.generate`: speak a text and write the sound."""

import sys
from pathlib import Path

from . import cli

EXAMPLES = """\
  mlx_qwen3tts.generate --ref-audio speaker.wav "Hello, this is my voice."
  mlx_qwen3tts.generate --embedding blend.npy "Hello." --output hello.wav --seed 1
  mlx_qwen3tts.generate --model custom --voice Vivian --language Chinese --text-file poem.txt
  mlx_qwen3tts.generate --model design --instruct "A warm, low voice." "Good evening."
"""

SAMPLING = (
    ("--temperature", float, "of codebook 0; 0 is greedy"),
    ("--top-k", int, "0 keeps all"),
    ("--top-p", float, "1 keeps all"),
    ("--repetition-penalty", float, "1 does nothing"),
    ("--subtalker-temperature", float, "of the code predictor; 0 makes it alone greedy"),
    ("--subtalker-top-k", int, "0 keeps all"),
    ("--subtalker-top-p", float, "1 keeps all"),
    ("--max-tokens", int, "N tokens give at most N - 1 frames of 80 ms"),
    ("--seed", int, "0 to 4294967295; makes the run reproducible (default: random, reported)"),
)


def build_parser():
    options = cli.parser("generate", __doc__.split(": ", 1)[1], EXAMPLES)
    cli.add_model(options, dtype=True)
    options.add_argument("text", nargs="?", metavar="TEXT", help="what to say")
    options.add_argument("--text", dest="text_option", metavar="T", help="the same as an option")
    options.add_argument("--text-file", metavar="F", help="read it from a file, or from stdin with -")
    options.add_argument("--voice", metavar="V", help="a preset's name or a voice file")
    options.add_argument("--embedding", metavar="FILE", help="a speaker vector: .npy, .safetensors or .json")
    options.add_argument("--ref-audio", metavar="WAV", help="clone the speaker of this recording (Base models)")
    options.add_argument("--ref-text", metavar="T", help="what the recording says: clones in context (ICL)")
    options.add_argument("--prepare", action="store_true", help="trim silence off the recording and level it")
    options.add_argument("--language", default="auto", help="auto or one of the model's (default: auto)")
    options.add_argument("--instruct", metavar="T", help="how to say it (VoiceDesign and 1.7B CustomVoice)")
    options.add_argument(
        "--text-mode",
        metavar="MODE",
        help="streaming or full (default: streaming for clones and embeddings, full for presets and designed voices)",
    )
    for name, kind, explained in SAMPLING:
        options.add_argument(name, type=kind, metavar="N" if kind is int else "X", help=explained)
    options.add_argument("--greedy", action="store_true", help="no sampling; the repetition penalty still applies")
    options.add_argument("--output", default="out.wav", help=".wav .flac .mp3 .ogg, or - for WAV on stdout")
    options.add_argument("--codes-output", metavar="NPY", help="also write the codes, int32 [frames, 16]")
    cli.add_json(options)
    return options


def main(arguments=None):
    cli.run(generate, build_parser().parse_args(arguments))


def read_text(options):
    """The text from whichever of the three places it is in."""
    given = [text for text in (options.text, options.text_option, options.text_file) if text is not None]
    if len(given) != 1:
        raise ValueError("give the text once: as TEXT, --text or --text-file" if given else "no text given")
    if options.text_file is None:
        return given[0]
    if options.text_file == "-":
        name, data = "stdin", sys.stdin.buffer.read() if sys.stdin else b""
    else:
        name = f"text file {options.text_file}"
        try:
            data = Path(options.text_file).read_bytes()
        except OSError as error:
            raise ValueError(f"{name}: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")  # Windows editors put a byte order mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def check_options(options):
    """What can be refused before a model is loaded."""
    from .files.audio import output_format
    from .files.output import check_npy, check_writable

    voices = {"--voice": options.voice, "--embedding": options.embedding, "--ref-audio": options.ref_audio}
    given = [name for name, value in voices.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} name two voices; give one")
    if given and not voices[given[0]].strip():
        raise ValueError(f"{given[0]} is empty")
    for name, value in (("--ref-text", options.ref_text is not None), ("--prepare", options.prepare)):
        if value and options.ref_audio is None:
            raise ValueError(f"{name} belongs to --ref-audio, which is not given")
    if options.output == "-":
        if options.json:
            raise ValueError("--json and --output - both write to stdout; give one")
    else:
        output_format(options.output)
        check_writable(options.output)
    if options.codes_output:
        check_npy(options.codes_output, "--codes-output")


def generate(options):
    check_options(options)
    from .synthesis.tokenizer import check_text

    text = check_text(read_text(options))
    from .model import Interrupted, Qwen3TTS
    from .voices.voice import Voice

    tts = Qwen3TTS.from_pretrained(options.model, options.dtype)
    if options.ref_audio:
        voice = tts.clone(options.ref_audio, options.ref_text, prepare=options.prepare)
    else:
        voice = Voice.load(options.embedding) if options.embedding else options.voice
    sampling = {name.lstrip("-").replace("-", "_") for name, *_ in SAMPLING}
    # One frame is 80 ms: the bar counts seconds of sound.
    with cli.bar("speaking", "s", form="{desc}: {n:.1f} s of sound [{elapsed}]") as advance:
        try:
            speech = tts.generate(
                text,
                voice,
                language=options.language,
                instruct=options.instruct,
                text_mode=options.text_mode,
                greedy=options.greedy,
                progress=lambda frames: advance(tts.codec.samples_per_frame / tts.sample_rate),
                **{name: getattr(options, name) for name in sampling},
            )
            interrupted = False
        except Interrupted as stopped:
            speech, interrupted = stopped.speech, True
    write(speech, options)
    report(speech, options)
    if interrupted:
        cli.note("interrupted: what was spoken so far is kept")
        sys.exit(130)


def write(speech, options):
    if options.output == "-":
        import numpy as np

        from .files.audio import audio_bytes

        sys.stdout.buffer.write(audio_bytes(np.array(speech.audio), speech.sample_rate))
        sys.stdout.buffer.flush()
    else:
        speech.save(options.output)
    if options.codes_output:
        from .files.output import write_npy

        write_npy(options.codes_output, speech.codes)


def report(speech, options):
    stats = speech.stats
    cli.note(
        f"{stats['seconds']:.2f} s of speech in {stats['elapsed']:.2f} s: RTF {stats['rtf']:.2f}, "
        f"{stats['frames_per_second']:.1f} frames/s, peak memory {stats['peak_memory'] / 1e9:.2f} GB, "
        f"seed {stats['seed']}"
    )
    if options.json:
        named = {"output": options.output, "codes_output": options.codes_output}
        cli.print_json({**named, "sample_rate": speech.sample_rate, "finish_reason": speech.finish_reason, **stats})


if __name__ == "__main__":
    main()
