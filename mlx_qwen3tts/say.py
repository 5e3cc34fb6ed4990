"""`mlx_qwen3tts.say`: speak aloud, as say(1) does; through a running server, else with a model of its own."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import cli
from .errors import InvalidValue

if TYPE_CHECKING:
    import numpy as np

    from .desktop.client import Client

NORMAL = 175  # words a minute that count as the model's own pace: say(1)'s default
RATES = (88, 350)  # words a minute, half and twice that
EXAMPLES = """\
  mlx_qwen3tts.say "Dinner is ready."
  mlx_qwen3tts.say -v anna -r 200 -o dinner.wav "Dinner is ready."
  mlx_qwen3tts.say -v '?'
  tail -f log | mlx_qwen3tts.say
"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("say", __doc__, EXAMPLES)
    add = options.add_argument
    add("text", nargs="*", metavar="TEXT", help="what to say (default: stdin, as it comes)")
    add("-v", "--voice", metavar="VOICE", help="who speaks, or a blend; ? lists the voices")
    add("-r", "--rate", type=float, metavar="WPM", help=f"words a minute, {RATES[0]} to {RATES[1]} (default: {NORMAL})")
    add("-o", "--output-file", metavar="FILE", help="write .wav .flac .mp3 .ogg instead of playing")
    add("-f", "--input-file", metavar="FILE", help="read the text from a file; - is stdin")
    add("--progress", action="store_true", help="show how much has been spoken")
    add("-i", "--interactive", action="store_true", help="print each sentence when it begins to be heard")
    cli.configurable(
        add("--server", default="http://127.0.0.1:8880", metavar="URL", help="a running server, or `none`"), "server"
    )
    cli.add_model(options, dtype=True)
    cli.add_library(options)
    add("--seed", type=int, metavar="N", help="makes the speech reproducible")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(say, build_parser().parse_args(arguments))


def check_options(options: argparse.Namespace) -> None:
    if options.text and options.input_file is not None:
        raise InvalidValue("give the text once: as TEXT or with -f")
    if options.rate is not None and not RATES[0] <= options.rate <= RATES[1]:
        raise InvalidValue(f"-r {options.rate:g} is not within {RATES[0]} to {RATES[1]} words a minute", param="rate")
    if options.output_file is not None:
        from .audio.writing import output_format
        from .files.output import check_writable

        output_format(options.output_file)
        check_writable(options.output_file)
    if options.voice is not None and not options.voice.strip():
        raise InvalidValue("-v is empty")


def texts(options: argparse.Namespace) -> Iterator[str]:
    """What to say, in the parts in which it is asked for: sentences where they are shown or still come, else pieces."""
    from .files import text as files

    if options.text or options.input_file not in (None, "-"):
        text = " ".join(options.text) if options.text else files.read_text(options.input_file)
        if not text.strip():
            raise InvalidValue("text is empty")
        if len(text) < 100 and not options.interactive:  # a piece whatever it says, and nothing need be loaded for it
            yield text
            return
        from .synthesis.pieces import pieces, sentences

        yield from (one for one in (sentences if options.interactive else pieces)(text) if one.strip())
        return
    from .synthesis.pieces import sentences

    at_once, held, any_text = sys.stdin is not None and sys.stdin.isatty(), "", False
    for piece in files.read_stdin():
        *whole, held = [held + piece] if at_once else sentences(held + piece) or [""]
        if at_once:
            whole, held = [held], ""
        for sentence in whole:
            if sentence.strip():
                any_text = True
                yield sentence
    if held.strip():
        yield held
    elif not any_text:
        raise InvalidValue("text is empty")


class Own:
    """Speaks with a model of this process, loaded for the first text."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.tts = options, None

    def model(self) -> Any:
        if self.tts is None:
            from .synthesis.tts import Qwen3TTS

            self.tts = Qwen3TTS.from_pretrained(self.options.model, self.options.dtype, self.options.library)
        return self.tts

    def voices(self) -> list[dict[str, Any]]:
        from .voices.library.library import Library

        folders = [self.options.library, self.model().folder.folder / "voices"]  # the second came with the model
        kept = [
            (name, library.info(name)["metadata"])
            for library in map(Library, filter(os.path.isdir, folders))
            for name in library
        ]
        found = [{"name": name, **{key: told.get(key) for key in ("language", "consent")}} for name, told in kept]
        return found + [{"name": name} for name in self.model().speakers]

    @functools.cached_property
    def first(self) -> str | None:
        """Who speaks where nobody is named, as on a server: the first voice that has not refused."""
        if self.model().model_type == "voice_design":
            return None
        return next((one["name"] for one in self.voices() if one.get("consent") != "refused"), None)

    def usual(self) -> str | None:
        """The configured voice, where it is one of the model's."""
        return cli.usual_voice(self.options.model)

    def speak(self, text: str, voice: str | None, rate: float, seed: int | None) -> Iterator[np.ndarray]:
        import numpy as np

        from .synthesis.request import Request

        with self.model().stream(Request(text, voice or self.first, rate=rate, seed=seed)) as stream:
            for chunk in stream:
                yield np.array(chunk.audio)


class Served:
    """Speaks through a server."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def voices(self) -> list[dict[str, Any]]:
        return self.client.voices()

    def usual(self) -> str | None:
        """The configured voice, where the server has the configured model; else it decides."""
        return None if self.client.model is None else cli.usual_name(self.client.model)

    def speak(self, text: str, voice: str | None, rate: float, seed: int | None) -> Iterator[np.ndarray]:
        fields = {"voice": voice, "rate": None if rate == 1 else rate, "seed": seed}
        sound = self.client.speak(text, **{name: value for name, value in fields.items() if value is not None})
        for data in sound:
            import numpy as np  # the request is under way: this takes a tenth of a second

            yield np.frombuffer(data, "<i2").astype(np.float32) / 32768


def speaker(options: argparse.Namespace) -> Own | Served:
    """The running server, where there is one."""
    if options.server != "none":
        from .desktop.client import Client

        client = Client(options.server, os.environ.get("QWEN3TTS_API_KEY"))
        if client.healthy():
            return Served(client)
    return Own(options)


def list_voices(found: list[dict[str, Any]]) -> None:
    """A line each, as say(1) prints them."""
    for voice in found:
        alias = f"# as {voice['alias_of']}" if voice.get("alias_of") else ""
        print(f"{voice['name']:20} {voice.get('language') or '':12} {alias}".rstrip())


def say(options: argparse.Namespace) -> None:
    check_options(options)
    through = speaker(options)
    if options.voice == "?":
        list_voices(through.voices())
        return
    voice = options.voice or through.usual()
    rate = 1.0 if options.rate is None else max(0.5, min(2.0, options.rate / NORMAL))
    made: list[np.ndarray] = []
    with contextlib.ExitStack() as stack:
        player = None
        advance = stack.enter_context(_bar(options))
        try:
            for number, text in enumerate(texts(options)):
                seed = None if options.seed is None else (options.seed + number) % 2**32
                first = True
                for samples in through.speak(text, voice, rate, seed):
                    if options.output_file is None and player is None:
                        from .audio.player import Player

                        player = stack.enter_context(Player(24000, "say without -o"))
                    if first and options.interactive:
                        if player is not None:
                            player.wait()
                        print(" ".join(text.split()), flush=True)
                    first = False
                    if player is not None:
                        player.play(samples)
                    else:
                        made.append(samples)
                    advance(len(samples) / 24000)
        finally:  # Ctrl-C keeps what was made
            if options.output_file is not None and made:
                import numpy as np

                from .audio.writing import write_audio

                write_audio(options.output_file, np.concatenate(made), 24000)


def _bar(options: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    if not options.progress:
        return contextlib.nullcontext(lambda seconds: None)
    return cli.bar("speaking", "s", form="{desc}: {n:.1f} s of sound [{elapsed}]")


if __name__ == "__main__":
    main()
