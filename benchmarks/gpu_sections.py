"""The sections of `benchmarks.gpu`, each a function; `benchmarks.gpu` runs them in processes.

    python -m benchmarks.gpu_sections NAME --work DIR --output DIR [--size 0.6b]

Every figure is printed and recorded as soon as it is there, so that a section that is stopped keeps what it had found.
"""

import argparse
import warnings
from pathlib import Path

import mlx.core as mx

from benchmarks.gpu_common import BITS, Section, checkpoints
from benchmarks.gpu_fidelity import bfloat16, forms, miniature, parity
from benchmarks.gpu_kernels import graphs, kernels
from benchmarks.gpu_speed import host, loop, others, speed
from convert.random_checkpoint import SIZES

CUDA_ALONE = ("kernels", "graphs")
SECTIONS = {
    function.__name__: function
    for function in (checkpoints, forms, parity, bfloat16, speed, host, loop, kernels, graphs, miniature, others)
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("body", choices=SECTIONS, metavar="NAME", help=", ".join(SECTIONS))
    parser.add_argument("--section", metavar="NAME", help="what the records are called (default: NAME)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--size", choices=SIZES, default="0.6b")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[], help="for checkpoints")
    parser.add_argument("--bits", type=int, nargs="+", choices=BITS, default=BITS, help="for speed and kernels")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="for others")
    parser.add_argument("--official-python", default="", metavar="PYTHON", help="for others")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    for intended in (".* did not end within", "audio .* is short"):
        warnings.filterwarnings("ignore", message=intended, category=UserWarning)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.body in CUDA_ALONE and not mx.cuda.is_available():
        print("this needs MLX's CUDA backend, which is not here")
        return
    SECTIONS[options.body](Section(options.section or options.body, options))


if __name__ == "__main__":
    main()
