"""`mlx_qwen3tts.say`: speak aloud, as say(1) does; through a running server, else with a model of its own."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
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
    from .provenance.origin import Origin
    from .provenance.seal import Seal

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
    cli.add_seal(options)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(say, build_parser().parse_args(arguments))


def check_options(options: argparse.Namespace) -> None:
    if options.text and options.input_file is not None:
        raise InvalidValue("give the text once: as TEXT or with -f")
    if options.rate is not None and not RATES[0] <= options.rate <= RATES[1]:
        raise InvalidValue(f"-r {options.rate:g} is not within {RATES[0]} to {RATES[1]} words a minute", param="rate")
    if options.output_file is not None:
        from .audio.formats import output_format
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
    from .synthesis.pieces import overfull, pieces, sentences

    at_once, held, any_text = sys.stdin is not None and sys.stdin.isatty(), "", False
    for piece in files.read_stdin():
        *whole, held = [held + piece] if at_once else sentences(held + piece) or [""]
        if at_once:
            whole, held = [held], ""
        parts, held = overfull(held)  # of a text that never ends a sentence
        for part in [*(part for sentence in whole for part in pieces(sentence)), *parts]:
            if part.strip():
                any_text = True
                yield part
    if held.strip():
        yield from pieces(held)
    elif not any_text:
        raise InvalidValue("text is empty")


class Own:
    """Speaks with a model of this process, loaded for the first text."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.tts = options, None
        self.marks = False  # whether the sound has a mark already
        self._origins: list[Origin] = []  # of what was spoken

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
            for number, chunk in enumerate(stream):
                if not number:
                    self._origins.append(stream.origin)
                yield np.array(chunk.audio)

    def origin(self) -> Origin | None:
        """Where all that was spoken comes from."""
        from .provenance.origin import Origin

        return Origin.joined(self._origins, self.options.seed) if self._origins else None


class Served:
    """Speaks through a server."""

    def __init__(self, client: Client) -> None:
        self.client, self.marks = client, False
        self._told: list[tuple[str | None, str | None, int | None]] = []  # of each answer: origin, voice and seed asked

    def voices(self) -> list[dict[str, Any]]:
        return self.client.voices()

    def usual(self) -> str | None:
        """The configured voice, where the server has the configured model; else it decides."""
        return None if self.client.model is None else cli.usual_name(self.client.model)

    def speak(self, text: str, voice: str | None, rate: float, seed: int | None) -> Iterator[np.ndarray]:
        fields = {"voice": voice, "rate": None if rate == 1 else rate, "seed": seed}
        sound = self.client.speak(text, **{name: value for name, value in fields.items() if value is not None})
        told = False
        for data in sound:
            import numpy as np  # the request is under way: this takes a tenth of a second

            if not told:
                told, self.marks = True, "x-mark" in self.client.told
                self._told.append((self.client.told.get("x-origin"), voice, seed))
            yield np.frombuffer(data, "<i2").astype(np.float32) / 32768

    def origin(self) -> Origin | None:
        """Where all that was spoken comes from: as the server says it, else as far as it is known here."""
        from .provenance.origin import Credit, Origin

        def one(line: str | None, voice: str | None, seed: int | None) -> Origin:
            known = Origin(self.client.model or "unknown", (Credit(voice or "the server's usual one"),), seed)
            return Origin.from_header(line) or known

        return Origin.joined([one(*told) for told in self._told], self._told[0][2]) if self._told else None


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


def seal_of(options: argparse.Namespace) -> Seal | None:
    """What is put on the sound. None where nothing is asked for that is heard: then nothing is loaded for it."""
    if options.mark is None and not (options.sign or options.sign_certificate or options.sign_key):
        return None
    from .provenance.choosing import chosen

    if isinstance(options.mark, str) and options.mark != cli.usual_mark() and nothing_to_say(options):
        from .provenance.choosing import WAY_OUT

        raise InvalidValue(f"no text given; --mark took {options.mark!r} for its key: {WAY_OUT}", param="mark")
    if options.sign and options.output_file is None:
        raise InvalidValue("--sign signs a file: give -o too", param="sign")
    return chosen(options, options.output_file)


def nothing_to_say(options: argparse.Namespace) -> bool:
    """Whether the text is to be typed, which who has given one does not expect."""
    return not options.text and options.input_file is None and sys.stdin is not None and sys.stdin.isatty()


def say(options: argparse.Namespace) -> None:
    check_options(options)
    seal = seal_of(options)
    through = speaker(options)
    if options.voice == "?":
        list_voices(through.voices())
        return
    voice = options.voice or through.usual()
    rate = 1.0 if options.rate is None else max(0.5, min(2.0, options.rate / NORMAL))
    made: list[np.ndarray] = []
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        player, marking = None, None
        advance = stack.enter_context(_bar(options))
        try:
            for number, text in enumerate(texts(options)):
                seed = None if options.seed is None else (options.seed + number) % 2**32
                first = True
                said.append(text)
                for samples in through.speak(text, voice, rate, seed):
                    if options.output_file is None and player is None:
                        from .audio.player import Player

                        player = stack.enter_context(Player(24000, "say without -o"))
                        seal = unmarked(seal, through, options)
                        marking = None if seal is None else seal.marking(24000)
                    if first and options.interactive:
                        if player is not None:
                            player.wait()
                        print(" ".join(text.split()), flush=True)
                    first = False
                    if player is not None:
                        player.play(samples if marking is None else marking(samples))
                    else:
                        made.append(samples)
                    advance(len(samples) / 24000)
            if player is not None and marking is not None:
                player.play(marking(samples[:0], last=True))
        finally:  # Ctrl-C keeps what was made
            if options.output_file is not None and made:
                write(made, " ".join(said), unmarked(seal, through, options), through.origin(), options)


def unmarked(seal: Seal | None, through: Own | Served, options: argparse.Namespace) -> Seal | None:
    """The seal without its mark where the server puts one on all that it speaks, and no other one is asked for."""
    if seal is None or not through.marks or options.mark not in (True, cli.usual_mark()):
        return seal
    return dataclasses.replace(seal, mark=None)


def write(
    made: list[np.ndarray], said: str, seal: Seal | None, origin: Origin | None, options: argparse.Namespace
) -> None:
    """Write what was spoken, whole."""
    import numpy as np

    from .audio.writing import write_audio
    from .provenance.seal import Seal

    seal = Seal(text=options.tag_text) if seal is None else seal
    if origin is not None:
        origin = dataclasses.replace(origin, text=said)
    sound = seal.marked(np.concatenate(made), 24000)
    write_audio(options.output_file, sound, 24000, None, seal.tags(origin), seal.signing(origin))


def _bar(options: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    if not options.progress:
        return contextlib.nullcontext(lambda seconds: None)
    return cli.bar("speaking", "s", form="{desc}: {n:.1f} s of sound [{elapsed}]")


if __name__ == "__main__":
    main()
