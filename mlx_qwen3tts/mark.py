"""`mlx_qwen3tts.mark`: what a sound file says of where it comes from: by its mark, its tags and its signature."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import cli
from .errors import QwenTTSError

if TYPE_CHECKING:
    import numpy as np

    from .audio.watermark import Found

MOST = 3600  # seconds of a file that are searched
EXAMPLES = """\
  mlx_qwen3tts.mark detect out.wav
  mlx_qwen3tts.mark detect talk.flac --key my-key --json
  mlx_qwen3tts.mark show out.wav
"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("mark", __doc__, EXAMPLES)
    ways = options.add_subparsers(dest="way", metavar="WAY", required=True, parser_class=cli.Parser)
    detect = ways.add_parser(
        "detect", help="look for the mark; exit status 1 where a file has none, 2 where one is unreadable"
    )
    show = ways.add_parser("show", help="print tags, mark and signature")
    for way in (detect, show):
        way.add_argument("files", nargs="+", metavar="FILE", help="any sound that can be read")
        way.add_argument(
            "--key",
            action="append",
            default=[],
            metavar="K",
            help="to look for; may be repeated (default: the configured one, and mlx_qwen3tts)",
        )
        cli.add_json(way)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(mark, build_parser().parse_args(arguments))


def keys_of(options: argparse.Namespace) -> list[str]:
    """The keys to look for, each once."""
    from .audio.watermark import DEFAULT_KEY, pattern
    from .provenance.choosing import mark_key

    usual = [mark_key(cli.usual_mark()), DEFAULT_KEY]
    keys = list(dict.fromkeys(key for key in options.key or usual if key is not None))
    for key in keys:
        pattern(key)  # which says what is wrong with it
    return keys


def read(file: str) -> tuple[np.ndarray, int, float]:
    """(samples [n, channels] of the first MOST seconds of a file, their rate, the seconds of all of it)."""
    import soundfile

    from .audio.reading import open_recording, unreadable

    with open_recording(file) as recording:
        try:
            samples = recording.read(MOST * recording.samplerate, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise unreadable(file, error) from None
        return samples, recording.samplerate, recording.frames / recording.samplerate


def search(file: str, keys: Sequence[str]) -> tuple[list[Found], str]:
    """(what is found of each key, why nothing can be: "" where it can)."""
    from .audio.watermark import LEAST
    from .audio.watermark import detect as find

    samples, rate, _ = read(file)
    if len(samples) < LEAST * rate:
        return [], f"too short to tell: {len(samples) / rate:.2f} s, and {LEAST:g} s are needed"
    return find(samples, rate, keys), ""


def told(found: Sequence[Found], short: str) -> str:
    """What was found, for people."""
    present = [one for one in found if one.present]
    if present:
        return "; ".join(f"marked with the key {one.key!r} ({chance(one)})" for one in present)
    if short:
        return short
    best = max(found, key=lambda one: one.score)
    keys = repr(best.key) if len(found) == 1 else f"any of the {len(found)} keys"
    return f"no mark of {keys} found (best: {chance(best)})"


def chance(one: Found) -> str:
    """How sure it is."""
    return f"score {one.score:.1f}; other sound reaches that with a probability of at most {one.p_false:.1g}"


def row(file: str, found: Sequence[Found], short: str) -> dict[str, Any]:
    keys = [
        {"key": one.key, "present": one.present, "score": round(one.score, 3), "p_false": one.p_false} for one in found
    ]
    seconds = found[0].seconds if found else None
    present = any(one.present for one in found)
    return {"file": file, "present": present, "keys": keys, "seconds": seconds, "problem": short or None}


def detected(file: str, keys: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """(the mark of a file as JSON, the same for people)."""
    found, short = search(file, keys)
    return row(file, found, short), [f"{file}: {told(found, short)}"]


def shown(file: str, keys: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """(all that a file says as JSON, the same for people)."""
    from .audio.tag_reading import read_tags
    from .provenance.origin import read_comment
    from .provenance.signature import read_signature

    found, short = search(file, keys)
    tags, signature = read_tags(file), read_signature(file)
    origin = read_comment(tags.get("comment", ""))
    values = {"tags": tags, "origin": origin, "mark": row(file, found, short), "signature": signature, "problem": None}
    lines = [file, *tag_lines(tags, origin), f"  mark: {told(found, short)}", *signed_lines(signature)]
    return {"file": file, **values}, lines


def printable(line: str) -> str:
    """A line without what moves a terminal's cursor or begins another line: a file may say anything of itself."""
    return "".join(char if char.isprintable() else "?" for char in line)


def unread(file: str, problem: str, way: str) -> dict[str, Any]:
    """What there is to say of a file that cannot be read, as JSON."""
    mark = row(file, (), problem) | {"present": None}
    if way == "detect":
        return mark
    return {"file": file, "tags": {}, "origin": None, "mark": mark, "signature": None, "problem": problem}


def mark(options: argparse.Namespace) -> None:
    """Report on every file. Exit status 2 where one cannot be read, else 1 where one is looked for a mark and has
    none."""
    keys, rows, status = keys_of(options), [], 0
    for file in options.files:
        try:
            values, lines = (detected if options.way == "detect" else shown)(file, keys)
        except (QwenTTSError, OSError) as error:
            cli.tell(error)
            rows.append(unread(file, " ".join(str(error).split()), options.way))
            status = 2
            continue
        rows.append(values)
        if options.way == "detect" and not values["present"]:
            status = max(status, 1)
        if not options.json:
            print("\n".join(map(printable, lines)))
    if options.json:
        cli.print_json({"files": rows})
    if status:
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()
        sys.exit(status)


def tag_lines(tags: dict[str, str], origin: dict[str, Any] | None) -> list[str]:
    """The tags of a file, those of this program as they were written."""
    if not tags:
        return ["  tags: none"]
    lines = []
    for name, value in tags.items():
        if name == "comment" and origin is not None:
            lines += value.splitlines()
        elif origin is None or value not in tags["comment"]:
            lines.append(f"{name}: {' '.join(value.split())}")
    return ["  tags:", *(f"    {line}" for line in lines)]


def signed_lines(signature: dict[str, Any] | None) -> list[str]:
    if signature is None:
        return ["  signature: none"]
    return [f"  signature: {signature['summary']}", *(f"    {line}" for line in signature.get("lines", []))]


if __name__ == "__main__":
    main()
