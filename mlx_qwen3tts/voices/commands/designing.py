"""`voices design`: a voice from words."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ... import cli
from ...errors import InvalidValue, NameTaken
from .shared import Command, add_library, add_overwrite, add_rights, library_of, rights_of, tags_of


def design_options(command: ArgumentParser) -> None:
    add_library(command)
    command.add_argument("prompt", metavar="DESCRIPTION", help="of the voice, in words")
    command.add_argument("--model", required=True, metavar="M", help="a VoiceDesign model")
    command.add_argument(
        "--encoder",
        default=cli.MODEL,
        metavar="M",
        help="Base model or speaker encoder that hears it (default: mlx_model)",
    )
    command.add_argument("--name", required=True, metavar="NAME", help="under which the library keeps it")
    command.add_argument("--text", metavar="T", help="what the model says (default: a sentence in the language)")
    command.add_argument("--seed", type=int, metavar="N", help="another seed is another voice (default: drawn)")
    command.add_argument("--dtype", metavar="D", help="bfloat16, float16 or float32 (default: the checkpoint's own)")
    command.add_argument("--sample", metavar="F", help="also write what was said: .wav, .flac, .mp3 or .ogg")
    command.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="an attribute to find it by")
    add_overwrite(command)
    add_rights(command)


def design(options: Namespace) -> None:
    from ...audio.formats import output_format
    from ...checkpoint.speaker import SpeakerEncoder
    from ...files.output import check_writable
    from ...synthesis.design import design_voice
    from ...synthesis.tts import Qwen3TTS
    from ..library.names import check_name

    tags, rights = tags_of(options.tag), rights_of(options)
    library, name = library_of(options, exists=False), check_name(options.name)
    if not options.prompt.strip():
        raise InvalidValue("the description is empty", param="prompt")
    if name in library and not options.overwrite:  # said before a model speaks for it
        raise NameTaken(f"library {library.folder} has a voice {name!r} already; --overwrite replaces it", param="name")
    if options.sample:
        output_format(options.sample)
        check_writable(options.sample)
    encoder = SpeakerEncoder.from_pretrained(options.encoder)
    designer = Qwen3TTS.from_pretrained(options.model, options.dtype, options.library)
    with cli.bar("designing", "frames", form="{desc}: {n} frames [{elapsed}]") as advance:
        shown = 0

        def progress(frames: int) -> None:
            nonlocal shown
            advance(frames - shown)
            shown = frames

        language = rights.pop("language", "auto")
        made = design_voice(
            designer, encoder, options.prompt, language, text=options.text, seed=options.seed, progress=progress
        )
    voice = made.voice
    if options.sample:
        made.speech.save(options.sample)
    path = library.add(name, voice, overwrite=options.overwrite, **{**tags, **rights})
    cli.note(
        f"{name}: {voice.dimension} dimensions, norm {voice.norm:.2f}, heard in {made.speech.stats['seconds']:.2f} s "
        f"of speech, seed {voice.recipe['seed']}, kept in {path}"
    )
    if options.json:
        cli.print_json({"name": name, "output": str(path), "sample": options.sample, **library.info(name)})


COMMANDS = {
    "design": Command(
        "make a voice from words, with a VoiceDesign model",
        (
            'design "a warm, low voice" --model design --name warm --consent not-needed --seed 5',
            'design "eine junge, helle Stimme" --model design --language german --name hell --seed 5 --sample hell.wav',
        ),
        design_options,
        design,
    ),
}
