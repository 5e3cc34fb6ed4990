"""What the commands share: options, the error line, progress, exit statuses, the `mlx_qwen3tts NAME` dispatcher.

stdout carries results only. Messages and progress go to stderr. Exit status: 0 done, 2 bad usage or input (one line
`error: …`), 130 Ctrl-C, 143 SIGTERM, which keeps what Ctrl-C keeps, 1 a fault of ours (traceback). This module imports
nothing slow: `--help` must answer at once.
"""

import argparse
import contextlib
import difflib
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from .errors import AudioError, InvalidValue, QwenTTSError, VoiceError

F = TypeVar("F")
R = TypeVar("R")
MODEL = "mlx_model"  # what --model is where nobody says, and what convert writes
SPOKEN = ("--text", "--instruct", "--ref-text")  # options whose value is not a file
# What there is to type, and what it does in a few words.
COMMANDS = {
    "convert": "make an MLX model folder of a published checkpoint",
    "generate": "speak a text and write the sound",
    "say": "speak aloud at once, as say(1) does",
    "embed": "make a voice vector of recordings",
    "voices": "keep, blend, move, compare and search voices",
    "tune": "fit a voice's vector, or an adapter, to recordings",
    "fuse": "merge an adapter into a model, or make a voice its preset",
    "diarize": "find out who speaks when in a recording",
    "codec": "turn sound into codes and codes into sound",
    "info": "describe a model, or the settings in force",
    "demo": "the whole way in one run, offline",
    "serve": "a speech server and the studio in a browser",
    "service": "keep the server running, from login on",
    "mcp": "tools for language models, by the Model Context Protocol",
    "script": "speak scripts and books in many voices",
    "dub": "speak subtitles, each at its time, in the voices of a cast",
    "mark": "find the mark, the tags and the signature of a sound file",
    "completion": "let zsh, bash or fish complete all of this",
}
# What each extra brings, and a module that tells whether it is there.
EXTRAS = {
    "play": ("sounddevice", "hearing speech with --play"),
    "voices": ("librosa", "directions of pitch and maps of voices"),
    "server": ("starlette", "serve and the studio"),
    "mcp": ("mcp", "tools for language models"),
    "wyoming": ("wyoming", "serve --wyoming, for Home Assistant"),
    "subtitles": ("pysubs2", "dubbing .ass files"),
    "wetext": ("wetext", "numbers and dates as words"),
    "cluster": ("distributed", "speaking on several machines"),
    "lance": ("lancedb", "libraries beyond memory"),
    "av": ("av", "aac, m4b, low-delay opus"),
    "onnx": ("onnx", "the speaker encoder for browsers"),
    "c2pa": ("c2pa", "signing with --sign"),
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, like every other error's.

    What looks like an option and is none is refused first, with the nearest that there is: argparse would take the word
    behind it for something else and complain of that. `~/` at the start of an option's value is the home folder, which
    shells replace only where it begins a word.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        if "-h" not in words and "--help" not in words:
            self._configure()
        if self._subparsers is None:  # else what follows the name of one is for that one to read
            end = words.index("--") if "--" in words else len(words)
            words[:end] = map(self._checked, words[:end])
        return super().parse_known_args(words, namespace)

    def _configure(self) -> None:
        """Give the options that have a setting what is configured, where nothing is said."""
        options = [action for action in self._actions if hasattr(action, "setting")]
        if not options:
            return
        from .files.configuration import settings

        try:
            found = settings()
        except QwenTTSError as error:
            _fail(error)
        for action in options:
            setting = found[action.setting]  # pyright: ignore[reportAttributeAccessIssue]
            if setting.source != "default":
                action.default = setting.value

    def _checked(self, word: str) -> str:
        """A word of the command line as it is to be read."""
        name, equals, value = word.partition("=")
        known = self._option_string_actions
        if name in known:
            expand = equals and value.startswith("~/") and name not in SPOKEN
            return f"{name}={os.path.expanduser(value)}" if expand else word
        # As argparse tells options from the rest: by the dash, unless it is a number or has a space.
        if len(word) < 2 or word[0] != "-" or " " in word or self._negative_number_matcher.match(word):
            return word
        if word[1] != "-" and word[:2] in known:  # -k3
            return word
        begin = [option for option in known if option.startswith(name) and len(name) > 3]
        near = begin or difflib.get_close_matches(f"--{name.strip('-')}", known, n=1, cutoff=0.7)
        way_out = f"did you mean {near[0]}?" if near else "a value that begins with - is written --OPTION=VALUE"
        self.error(f"unknown option {name}: {way_out}")

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def parser(name: str, description: str | None, examples: str = "") -> Parser:
    """A command's parser. description: its module's docstring; `examples` are shown at the end of its help."""
    program = f"mlx_qwen3tts.{name}"
    text = (description or "").removeprefix(f"`{program}`: ")
    epilog = f"examples:\n{examples}" if examples else None
    return Parser(prog=program, description=text[:1].upper() + text[1:], epilog=epilog)


def configurable(option: argparse.Action, setting: str) -> None:
    """Let an option have what the configuration says, where it is not given (see files/configuration.py)."""
    option.setting = setting  # pyright: ignore[reportAttributeAccessIssue]


def add_model(options: argparse.ArgumentParser, dtype: bool = False) -> None:
    """The option --model, and with `dtype` --dtype."""
    option = options.add_argument(
        "--model",
        default=MODEL,
        metavar="M",
        help="folder, hub id, or `miniature`, the model in the package (default: mlx_model)",
    )
    configurable(option, "model")
    if dtype:
        options.add_argument(
            "--dtype", metavar="D", help="bfloat16, float16 or float32 (default: the checkpoint's own)"
        )


def add_adapter(options: argparse.ArgumentParser) -> None:
    """The options --adapter-path and --adapter-scale."""
    add = options.add_argument
    add("--adapter-path", metavar="DIR", help="speak with the adapter in this folder, which `tune lora` made")
    add("--adapter-scale", type=float, metavar="X", help="how much of it: 0 none, 1 as it was trained (default: 1)")


def adapter_of(options: argparse.Namespace) -> dict[str, Any]:
    """What these options say to `from_pretrained`."""
    if options.adapter_path is None:
        if options.adapter_scale is not None:
            message = "--adapter-scale belongs to --adapter-path, which is not given"
            raise InvalidValue(message, param="adapter_scale")
        return {}
    scale = 1.0 if options.adapter_scale is None else options.adapter_scale
    return {"adapter_path": options.adapter_path, "adapter_scale": scale}


def add_library(options: argparse.ArgumentParser) -> None:
    """The option --library."""
    help = "folder of the voices library (default: voices)"
    configurable(options.add_argument("--library", default="voices", metavar="DIR", help=help), "library")


def add_seal(options: argparse.ArgumentParser, text: bool = True) -> None:
    """The options of what is put on sound besides its tags (see provenance/choosing.py); text: --tag-text too."""
    add = options.add_argument
    help = "put an inaudible mark on the sound, which `mark detect` finds (KEY: no spaces; default: mlx_qwen3tts)"
    configurable(add("--mark", nargs="?", const=True, metavar="KEY", help=help), "mark")
    add(
        "--no-mark",
        dest="mark",
        action="store_const",
        const=None,
        default=argparse.SUPPRESS,
        help="where one is configured",
    )
    if text:
        add("--tag-text", action="store_true", help="write the text into the file's tags too")
    add("--sign", action="store_true", help="sign the file, that it is synthetic (C2PA; needs the extra 'c2pa')")
    add("--sign-certificate", metavar="FILE", help="PEM, its chain too (default: one of this program's own)")
    add("--sign-key", metavar="FILE", help="PEM, the private key of the certificate")


def usual_model() -> str:
    """The configured model, for options that have no default."""
    from .files.configuration import settings

    return settings()["model"].value


def usual_voice(model: str | None) -> str | None:
    """The configured voice, where the configured model is the one in use: others may not know it. model: None where
    nobody has named another."""
    from .files.configuration import settings

    found = settings()
    return found["voice"].value if model in (None, found["model"].value) else None


def usual_name(model: str | None) -> str | None:
    """The same for a server, which takes names alone: a voice that is a file is passed over, with a note."""
    from .files.configuration import settings

    voice = usual_voice(model)
    if voice is not None and (reason := nameless(voice)):
        note(f"{settings()['voice'].source}: {reason}")
        return None
    return voice


def nameless(voice: str) -> str | None:
    """Why a server cannot speak with what is a voice for other commands, or None: it is a file. A name without an
    extension is a name, whatever lies in this folder."""
    if not (os.path.splitext(voice)[1] and os.path.isfile(voice)):
        return None
    way_out = f"`voices add NAME {shlex.quote(voice)}` gives it one"
    return f"voice {voice!r} is a file, and a server takes names alone; {way_out}"


def usual_format() -> str | None:
    """The configured format of sound."""
    from .files.configuration import settings

    return settings()["format"].value


def usual_mark() -> str | bool | None:
    """The configured key of the mark; True for the usual one, None for no mark."""
    from .files.configuration import settings

    return settings()["mark"].value


def add_json(options: argparse.ArgumentParser) -> None:
    """The option --json."""
    options.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")


def print_json(values: object) -> None:
    """What --json asks for: one line of stdout, an undefined figure as null."""
    from .files.json_text import json_text

    print(json_text(values, null=True), flush=True)


def note(message: str) -> None:
    """A message to the user, on stderr."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def bar(
    description: str, unit: str, total: float | None = None, scale: bool = False, form: str | None = None
) -> Iterator[Callable[[float], object]]:
    """A progress bar on a terminal, nothing in a pipe. Yields a function that moves it on by an amount."""
    from tqdm import tqdm

    with tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=scale,
        bar_format=form,
        leave=False,
        disable=not sys.stderr.isatty(),
        file=sys.stderr,
    ) as shown:
        yield shown.update


class Stopped(KeyboardInterrupt):
    """A signal that ends the program in order, as Ctrl-C does."""


_stopped_by = signal.SIGINT


def stopped_status() -> int:
    """The exit status of a command that a signal stopped, as shells count it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + _stopped_by


def _stop(number: int, _: object) -> NoReturn:
    global _stopped_by
    _stopped_by = signal.Signals(number)
    raise Stopped


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C within the block. Only the main thread may set that; one that is ignored stays so."""
    global _stopped_by
    _stopped_by = signal.SIGINT
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run(body: Callable[[argparse.Namespace], object], arguments: argparse.Namespace) -> None:
    """Run a command's body with its parsed arguments and exit with the status that the interface fixes."""
    _open_closed()
    warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
    warnings.simplefilter("always", UserWarning)
    if not sys.stderr.isatty():  # the hub's client has bars of its own
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with _stopping():
            body(arguments)
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`| head`): nothing is left to say, and Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (QwenTTSError, OSError) as error:  # anything else is a bug of ours, and its traceback is wanted
        _fail(error)
    except KeyboardInterrupt:
        note("interrupted")
        sys.exit(stopped_status())


def _open_closed() -> None:
    """Put the null device where stdin, stdout or stderr is closed, or the next file opened would be taken for it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, for as long as the program runs


def tell(error: QwenTTSError | OSError) -> None:
    """What is wrong, on stderr, where a command goes on with something else; it exits with 2 at its end."""
    if os.environ.get("MLX_QWEN3TTS_TRACEBACK"):
        raise error
    note("error: " + " ".join(str(error).split()))
    if pointer := getattr(error, "pointer", None):  # a place in an expression, which needs its own lines
        note(pointer)


def each(files: Iterable[F], work: Callable[[F], R], advance: Callable[[float], object]) -> list[R]:
    """What work gives of every file. All that cannot be used are named, not the first alone, then the command exits
    with 2. advance: of a bar, called with 1 for each file that is done."""
    made, unusable = [], False
    for file in files:
        try:
            made.append(work(file))
            advance(1)
        except (AudioError, VoiceError, OSError) as error:
            tell(error)
            unusable = True
    if unusable:
        sys.exit(2)
    return made


def _fail(error: QwenTTSError | OSError) -> NoReturn:
    tell(error)
    sys.exit(2)


def overview() -> str:
    """What somebody who types nothing but the name wants to know, in eight lines."""
    from importlib.util import find_spec

    from . import __version__
    from .errors import install_hint
    from .files.configuration import settings

    there = [name for name, (module, _) in EXTRAS.items() if find_spec(module)]
    missing = [f"{name} ({use})" for name, (_, use) in EXTRAS.items() if name not in there]
    model = settings()["model"].value
    # A hub id is looked for when it is used; asking whether it is there would take the network.
    known = model == "miniature" or "/" in model or os.path.isdir(model)
    first = "mlx_qwen3tts demo   (a whole tour, offline, on the model in the package)"
    speak = "mlx_qwen3tts generate --voice NAME \"Hello.\"   (mlx_qwen3tts say -v '?' lists the names)"
    add = f"more by {install_hint('NAME')}" if missing else "nothing is missing"
    return "\n".join(
        [
            f"mlx_qwen3tts {__version__}: Qwen3-TTS on this machine, in voices that are vectors",
            f"  speech: {_those('demo generate say script dub')}; voices: {_those('voices embed tune diarize')}",
            f"  programs: {_those('serve service mcp')}; models: {_those('convert fuse info codec')}; "
            f"files: {_those('mark')}",
            f"extras installed: {', '.join(there) or 'none'}",
            f"extras missing: {', '.join(missing) or 'none'}; {add}",
            f"model: {model}{'' if known else ', which is not in this folder yet: mlx_qwen3tts convert makes one'}",
            f"next: {speak if known else first}",
            "all commands: mlx_qwen3tts --help; one of them: mlx_qwen3tts NAME --help; shells: mlx_qwen3tts completion",
        ]
    )


def _those(names: str) -> str:
    return ", ".join(name for name in names.split() if name in COMMANDS)


def dispatch(arguments: Sequence[str] | None = None) -> None:
    """`mlx_qwen3tts NAME …`: run the command of that name."""
    from importlib import import_module

    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        try:
            print(overview())
        except QwenTTSError as error:  # of the configuration
            _fail(error)
        return
    name = arguments[0]
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        listing = "\n".join(f"  {name:{width}}  {help}" for name, help in COMMANDS.items())
        print(f"usage: mlx_qwen3tts NAME [options]\n\ncommands:\n{listing}\n\n`NAME --help` describes each.")
        return
    if name == "--version":
        from . import __version__

        print(__version__)
        return
    if name not in COMMANDS:
        note(f"error: no command {name!r}; commands are {', '.join(COMMANDS)}")
        sys.exit(2)
    import_module(f".{name}", __package__).main(arguments[1:])
