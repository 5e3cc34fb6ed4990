"""`mlx_qwen3tts.codec`: recordings to codes and codes to sound."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import cli
from .errors import InvalidValue

if TYPE_CHECKING:
    import numpy as np

EXAMPLES = """\
  mlx_qwen3tts.codec encode speech.wav --output codes.npy
  mlx_qwen3tts.codec decode codes.npy --output speech.wav
"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("codec", __doc__, EXAMPLES)
    actions = options.add_subparsers(dest="action", required=True, metavar="encode|decode")
    encode = actions.add_parser("encode", help="a recording to codes, int32 [frames, codebooks]")
    encode.add_argument("audio", metavar="AUDIO")
    decode = actions.add_parser("decode", help="codes to a recording")
    decode.add_argument("codes", metavar="CODES.npy")
    for action, output in ((encode, "codes.npy"), (decode, "out.wav")):
        cli.add_model(action)
        action.add_argument("--output", default=output, help=f"(default: {output})")
        cli.add_json(action)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = build_parser().parse_args(arguments)
    cli.run({"encode": encode, "decode": decode}[options.action], options)


def load_codes(path: str | Path) -> "np.ndarray":
    """An integer array from a `.npy` file."""
    from .files.npy import ARCHIVE, read_npy

    if not Path(path).is_file():
        raise InvalidValue(f"codes {path}: {'not a regular file' if Path(path).exists() else 'no such file'}")
    try:
        codes = read_npy(Path(path))
    except InvalidValue as error:
        archive = str(error) == ARCHIVE
        said = "expected one array of integers" if archive else "not a plain NumPy array file"
        raise InvalidValue(f"codes {path}: {said}") from None
    except OSError as error:
        raise InvalidValue(f"codes {path}: cannot be read: {error.strerror or error}") from None
    if codes.dtype.kind not in "iu":
        raise InvalidValue(f"codes {path}: expected one array of integers")
    return codes.astype("int64")


def encode(options: argparse.Namespace) -> None:
    from .checkpoint.codec import Codec
    from .files.output import check_not_read, check_npy, write_npy

    check_npy(options.output, "output")
    check_not_read(options.output, options.audio)
    codec = Codec.from_pretrained(options.model)
    codes = codec.encode(options.audio)
    write_npy(options.output, codes)
    seconds = len(codes) * codec.samples_per_frame / codec.sample_rate
    cli.note(f"{len(codes)} frames ({seconds:.2f} s) written to {options.output}")
    if options.json:
        cli.print_json({"output": options.output, "frames": len(codes), "codebooks": codes.shape[1]})


def decode(options: argparse.Namespace) -> None:
    import numpy as np

    from .audio.formats import output_format
    from .audio.writing import write_audio
    from .checkpoint.codec import Codec
    from .files.output import check_not_read, check_writable

    output_format(options.output)
    check_writable(options.output)
    check_not_read(options.output, options.codes)
    codes = load_codes(options.codes)
    codec = Codec.from_pretrained(options.model)
    samples = np.array(codec.decode(codec.check_codes(codes, f"codes {options.codes}")))
    write_audio(options.output, samples, codec.sample_rate)
    seconds = samples.size / codec.sample_rate
    cli.note(f"{seconds:.2f} s written to {options.output}")
    if options.json:
        cli.print_json({"output": options.output, "seconds": seconds, "sample_rate": codec.sample_rate})


if __name__ == "__main__":
    main()
