"""`mlx_qwen3tts.serve`: a local speech server that programs written for OpenAI's API can use."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import ipaddress
import logging
import logging.handlers
import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from . import cli
from .audio.formats import CONTENT_TYPES
from .errors import InvalidValue, MissingExtra, OutputError, install_hint
from .server.settings import Settings, check_speech

log = logging.getLogger(f"{__package__}.serve")  # also where it runs as __main__

NEEDED = ("starlette", "uvicorn", "h11", "websockets", "python_multipart")
EXAMPLES = """\
  mlx_qwen3tts.serve --model miniature
  mlx_qwen3tts.serve --library voices --voice anna --port 8880
  mlx_qwen3tts.serve --host 0.0.0.0 --api-key KEY
  mlx_qwen3tts.serve --model miniature --wyoming 10200"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("serve", __doc__, EXAMPLES)
    cli.add_model(options, dtype=True)
    cli.add_adapter(options)
    add = options.add_argument
    add(
        "--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1, this machine alone)"
    )
    add("--port", type=int, default=8880, metavar="N", help="0 takes one that is free (default: 8880)")
    add("--unix", type=Path, metavar="PATH", help="listen on a socket in the file system instead, for this user alone")
    add(
        "--ready-fd",
        type=int,
        metavar="N",
        help='write {"port", "url"} to this descriptor once it can speak, and '
        "stop when the program that started it ends",
    )
    add("--log", type=Path, metavar="FILE", help="write messages there too, and keep the last 4 MB")
    add("--design", metavar="M", help="a VoiceDesign model too, with which clients make voices from words")
    cli.add_library(options)
    add("--voice", metavar="V", help="who speaks where a request names nobody (default: the first voice)")
    add("--api-key", metavar="K", help="what clients must send; needed for other machines (also QWEN3TTS_API_KEY)")
    add("--api-key-file", type=Path, metavar="FILE", help="a file with the key as its only line")
    add("--allow-host", action="append", default=[], metavar="H", help="a further name of this server")
    add("--allow-origin", action="append", default=[], metavar="O", help="a web page's origin that may use it")
    add("--max-batch", type=int, default=8, metavar="N", help="speeches at once (default: 8)")
    add("--max-queue", type=int, default=16, metavar="N", help="speeches that may wait (default: 16)")
    add("--max-characters", type=int, default=100_000, metavar="N", help="of a text (default: 100000)")
    chosen = add("--default-format", choices=tuple(CONTENT_TYPES), default="mp3", help="(default: mp3)")
    cli.configurable(chosen, "format")
    add("--strict", action="store_true", help="refuse unknown fields instead of ignoring them")
    add("--guard", action="store_true", help="speak again what has gone wrong, unless a request says otherwise")
    cli.add_seal(options)
    add("--voices-as-strings", action="store_true", help="list voices by name alone, as old clients expect")
    add(
        "--wyoming",
        type=int,
        metavar="PORT",
        help="a port for Home Assistant too, at the same address; 0 takes a free one",
    )
    add("--wyoming-without-key", action="store_true", help="have that port beside --api-key, which it cannot ask for")
    add(
        "--mcp-output",
        type=Path,
        default=Settings.speech,
        metavar="DIR",
        help=f"where speech is kept that is made through /mcp (default: {Settings.speech})",
    )
    add("--open", action="store_true", help="show the studio in a browser")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(serve, build_parser().parse_args(arguments))


def settings(options: argparse.Namespace) -> Settings:
    """The options, checked before a model is loaded."""
    from .provenance.choosing import chosen

    key = options.api_key or read_key(options.api_key_file) or os.environ.get("QWEN3TTS_API_KEY") or None
    if not is_loopback(options.host) and key is None:
        raise InvalidValue(f"--host {options.host} lets other machines in; give --api-key too", param="api_key")
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise InvalidValue("--api-key may hold ASCII letters, digits and marks alone, no spaces", param="api_key")
    for name, least in (("max_batch", 1), ("max_queue", 0), ("max_characters", 1)):
        if getattr(options, name) < least:
            raise InvalidValue(
                f"--{name.replace('_', '-')} {getattr(options, name)} is not {least} or more", param=name
            )
    if not 0 <= options.port < 65536:
        raise InvalidValue(f"--port {options.port} is not within 0 to 65535", param="port")
    if options.wyoming is not None and not 0 <= options.wyoming < 65536:
        raise InvalidValue(f"--wyoming {options.wyoming} is not within 0 to 65535", param="wyoming")
    if options.wyoming is not None and key is not None and not options.wyoming_without_key:
        message = "--wyoming: that protocol knows no keys, so whoever reaches its port may speak without --api-key"
        raise InvalidValue(f"{message}; add --wyoming-without-key if that is meant", param="wyoming")
    check_speech(options.mcp_output, "mcp_output")
    for origin in options.allow_origin:
        if origin in ("*", "null"):
            raise InvalidValue(f"--allow-origin {origin} would let every page in; name one", param="allow_origin")
    if options.voice is not None and (reason := cli.nameless(options.voice)):
        raise InvalidValue(reason, param="voice")
    return Settings(
        library=Path(options.library),
        voice=cli.usual_name(options.model) if options.voice is None else options.voice,
        api_key=key,
        hosts=tuple(options.allow_host),
        origins=tuple(options.allow_origin),
        max_batch=options.max_batch,
        max_queue=options.max_queue,
        max_characters=options.max_characters,
        default_format=options.default_format,
        strict=options.strict,
        guard=options.guard,
        voices_as_strings=options.voices_as_strings,
        speech=options.mcp_output,
        seal=chosen(options),
    )


def read_key(file: Path | None) -> str | None:
    """The key in a file."""
    if file is None:
        return None
    try:
        key = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InvalidValue(f"cannot read the key in {file}: {reason}", param="api_key_file") from None
    if not key:
        raise InvalidValue(f"{file} is empty, and so no key", param="api_key_file")
    return key


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(options: argparse.Namespace) -> socket.socket:
    """The socket that the options ask for."""
    from .server.running import listening, listening_at

    return listening(options.host, options.port) if options.unix is None else listening_at(options.unix)


def listen_for_wyoming(options: argparse.Namespace, stack: contextlib.ExitStack) -> socket.socket | None:
    """The socket of --wyoming, which needs an extra."""
    from .server.running import listening

    if options.wyoming is None:
        return None
    if importlib.util.find_spec("wyoming") is None:
        raise MissingExtra(f"--wyoming needs wyoming: {install_hint('wyoming')}", param="wyoming")
    return stack.enter_context(listening(options.host, options.wyoming, "wyoming"))


def log_to(file: Path | None) -> None:
    """Have what is logged written to a file too, a few of them in turn."""
    if file is None:
        return
    try:
        handler = logging.handlers.RotatingFileHandler(file, maxBytes=1 << 20, backupCount=3, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write --log {file}: {error.strerror or error}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in (__package__, "uvicorn"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def telling(descriptor: int | None, stack: contextlib.ExitStack) -> Callable[[dict[str, object]], object]:
    """A function that writes an object as a line to a descriptor, once, and closes it."""
    if descriptor is None:
        return lambda values: None
    try:
        if descriptor < 3:
            raise InvalidValue(f"--ready-fd {descriptor} is stdin, stdout or stderr", param="ready_fd")
        file = stack.enter_context(os.fdopen(descriptor, "w", encoding="utf-8"))
    except OSError:
        raise InvalidValue(f"--ready-fd {descriptor} is not open for writing", param="ready_fd") from None

    def tell(values: dict[str, object]) -> None:
        from .files.json_text import json_text

        with contextlib.suppress(BrokenPipeError), file:  # who does not read it does not want to know
            file.write(json_text(values) + "\n")

    return tell


def serve(options: argparse.Namespace) -> None:
    chosen, adapter = settings(options), cli.adapter_of(options)
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(f"serve needs {name}: pip install 'mlx-qwen3tts[server]'")
    from .server.app import Server, build
    from .server.running import Parent, Running, address
    from .synthesis.tts import Qwen3TTS

    with contextlib.ExitStack() as stack:
        log_to(options.log)
        if options.ready_fd is not None:
            stack.enter_context(Parent(lambda: os.kill(os.getpid(), signal.SIGTERM)))
        tell = telling(options.ready_fd, stack)
        bound = stack.enter_context(listen(options))
        wyoming = listen_for_wyoming(options, stack)
        tts = Qwen3TTS.from_pretrained(options.model, options.dtype, chosen.library, **adapter)
        design = None
        if options.design is not None:
            design = Qwen3TTS.from_pretrained(options.design, options.dtype, chosen.library)
        server = Server(tts, chosen, options.model, design)
        if chosen.voice is not None:
            server.voices.usual()  # which refuses what is not there
        cli.note(f"loading: {address(bound)} answers, and speaks once everything is compiled")

        def ready() -> None:
            cli.note(server.greeting(address(bound)))
            log.info("ready: %s at %s", server.model, address(bound))
            if wyoming is not None:
                cli.note(f"wyoming: {address(wyoming, 'tcp')}")
            port = {} if wyoming is None else {"wyoming": wyoming.getsockname()[1]}
            tell({"port": None if options.unix else bound.getsockname()[1], "url": address(bound), **port})
            if options.open:
                token = f"/?token={quote(chosen.api_key, safe='')}" if chosen.api_key else ""
                webbrowser.open(address(bound) + token)

        server.engine.told = ready
        running = Running(build(server, not is_loopback(options.host), wyoming), server.engine)
        if options.unix is not None:
            stack.callback(options.unix.unlink, missing_ok=True)
        running.run(sockets=[bound])
    if server.engine.fault is not None:  # the log has its traceback
        cli.note("stopped by a fault of the server")
        sys.exit(1)
    cli.note("stopped")


if __name__ == "__main__":
    main()
