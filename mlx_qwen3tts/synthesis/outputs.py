"""Where the sound and the codes of `generate` go, checked before a model is loaded."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..audio.formats import output_format
from ..errors import InvalidValue
from ..files.output import check_folder, check_not_read, check_npy, check_writable
from ..voices.inputs import files_of


def check_single(options: argparse.Namespace) -> None:
    """Of one text."""
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
    """Of a text a line."""
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


def check_apart(options: argparse.Namespace, texts: int | None) -> None:
    """Refuse to write over a file that is read; texts: how many, in a batch."""
    voices = [file for text in (options.voice, options.morph_to) for file in files_of(text, options.library)]
    for folder, suffix in ((options.output, ".wav"), (options.codes_output, ".npy")):
        if folder not in (None, "-"):
            files = [folder] if texts is None else [numbered(folder, number, suffix) for number in range(texts)]
            for file in files:
                check_not_read(file, options.ref_audio, options.embedding, options.text_file, *voices)


def numbered(folder: str, number: int, suffix: str) -> Path:
    """Where the sound or the codes of one text of a batch go."""
    return Path(folder) / f"{number + 1:04d}{suffix}"
