"""`mlx_qwen3tts.convert`: write a checkpoint as an MLX model folder, quantised if asked for."""

import argparse
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import cli
from .checks import whole
from .errors import InvalidValue, OutputError

Q_BITS = (4, 6, 8)
Q_GROUP_SIZES = (32, 64, 128)
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}

EXAMPLES = """\
  mlx_qwen3tts.convert --hf-path Qwen/Qwen3-TTS-12Hz-0.6B-Base
  mlx_qwen3tts.convert --hf-path Qwen/Qwen3-TTS-12Hz-1.7B-Base --mlx-path base-6bit -q --q-bits 6 --q-embedding-bits 8
"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("convert", __doc__, EXAMPLES)
    add = options.add_argument
    add("--hf-path", required=True, metavar="PATH|REPO", help="folder or hub id of a model or of the codec alone")
    add("--mlx-path", default="mlx_model", metavar="DIR", help="folder to write (default: mlx_model)")
    add("--dtype", metavar="D", help="bfloat16, float16 or float32, of talker and predictor (default: the source's)")
    add("-q", "--quantize", action="store_true", help="quantise the linear layers of talker and predictor")
    add("--q-bits", type=int, metavar="4|6|8", help="bits a weight (default: 8)")
    add("--q-group-size", type=int, metavar="32|64|128", help="weights that share a scale (default: 64)")
    add("--q-predictor-bits", type=int, metavar="N", help="4, 6 or 8 bits for the predictor (default: as --q-bits)")
    add("--q-embedding-bits", type=int, metavar="8", help="quantise the text embedding too (default: leave it)")
    add("--max-shard-size", default="5GB", metavar="SIZE", help="bytes of a file, or KB, MB, GB (default: 5GB)")
    add("--revision", metavar="REV", help="branch, tag or commit of the hub's repository")
    add("--overwrite", action="store_true", help="replace the model folder at --mlx-path")
    add("--upload-repo", metavar="REPO", help="upload the result to the hub as owner/name (untried on the real hub)")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(_convert, build_parser().parse_args(arguments))


def _convert(options: argparse.Namespace) -> None:
    made = convert(**vars(options))
    files = "1 file" if made.files == 1 else f"{made.files} files"
    cli.note(
        f"{made.bytes / 1e6:.1f} MB written, tensors in {files}; peak memory {made.peak_memory / 1e6:.1f} MB (MLX's)"
    )
    print(made.folder)


@dataclass(frozen=True)
class Converted:
    """What `convert` made: the folder, its bytes, the number of tensor files, the most bytes that MLX held at once."""

    folder: Path
    bytes: int
    files: int
    peak_memory: int


def convert(
    hf_path: str | Path,
    mlx_path: str | Path = "mlx_model",
    dtype: str | None = None,
    quantize: bool = False,
    q_bits: int | None = None,
    q_group_size: int | None = None,
    q_predictor_bits: int | None = None,
    q_embedding_bits: int | None = None,
    max_shard_size: int | str = "5GB",
    revision: str | None = None,
    overwrite: bool = False,
    upload_repo: str | None = None,
) -> Converted:
    """Write the checkpoint `hf_path`, a folder or hub id, as an MLX folder `mlx_path`. Returns Converted.

    dtype: of talker and predictor, None for the source's. With quantize: q_bits 4, 6 or 8 (8), q_group_size 32, 64 or
    128 (64), q_predictor_bits (as q_bits), q_embedding_bits 8 (None: not quantised). max_shard_size: bytes, or "500MB".
    Raises a QwenTTSError with the command line's message: OutputError where the result cannot be written.
    """
    import mlx.core as mx

    from .checkpoint import hub
    from .checkpoint.part import check_dtype
    from .checkpoint.plan import model_card, plan
    from .checkpoint.writer import check_apart, check_destination, write_model

    check_dtype(dtype)
    shard_size = parse_size(max_shard_size)
    settings = _quantization(quantize, q_bits, q_group_size, q_predictor_bits, q_embedding_bits)
    if upload_repo is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", upload_repo):
        raise InvalidValue(f"upload repository {upload_repo!r} is not of the form owner/name", param="upload_repo")
    destination = Path(mlx_path).expanduser().resolve()
    check_destination(destination, overwrite)
    if revision is not None and Path(hf_path).expanduser().is_dir():
        raise InvalidValue(f"revision {revision!r} is for hub ids; {hf_path} is a folder", param="revision")
    source = hub.resolve(hf_path, revision=revision)
    check_apart(source.resolve(), destination)

    mx.reset_peak_memory()
    # A GPU's allocator keeps freed buffers for reuse, without a limit that would matter here.
    cache_limit = mx.set_cache_limit(0)
    try:
        folders, small = plan(source, dtype, settings)
        if dtype == "float16":
            warnings.warn("float16 is known to make the talker collapse and never end; use bfloat16", stacklevel=2)
        small["README.md"] = model_card(hf_path, small["config.json"], dtype, settings)
        files, size = write_model(
            destination,
            folders,
            small,
            shard_size,
            overwrite,
            lambda name, total: cli.bar(name, "B", total, scale=True),
        )
        made = Converted(Path(mlx_path), size, files, mx.get_peak_memory())
    finally:
        mx.set_cache_limit(cache_limit)
    if upload_repo:
        _upload(destination, upload_repo)
    return made


def parse_size(size: int | str) -> int:
    """A number of bytes from itself or from text such as "5GB", "200 MB" or "1000000"."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?B)?", str(size).strip().upper())
    number = int(float(parts[1]) * UNITS[parts[2] or ""]) if parts else 0
    if number < 1:
        raise InvalidValue(
            f"max shard size {str(size)!r} is not a size; write bytes, KB, MB or GB, such as 5GB",
            param="max_shard_size",
        )
    return number


def _quantization(
    quantize: bool, bits: int | None, group_size: int | None, predictor_bits: int | None, embedding_bits: int | None
) -> dict[str, Any] | None:
    """None, or {bits, group_size, predictor_bits, embedding_bits} with the defaults filled in, checked."""
    given = {
        "q_bits": (bits, Q_BITS),
        "q_group_size": (group_size, Q_GROUP_SIZES),
        "q_predictor_bits": (predictor_bits, Q_BITS),
        "q_embedding_bits": (embedding_bits, (8,)),
    }
    for name, (value, allowed) in given.items():
        if value is not None and not quantize:
            raise InvalidValue(f"{name} {value!r} says how to quantise; add quantize (-q)", param=name)
        if value is not None and whole(value, name) not in allowed:
            raise InvalidValue(f"{name} {value!r} is not one of {', '.join(map(str, allowed))}", param=name)
    if not quantize:
        return None
    bits = bits or 8
    return {
        "bits": bits,
        "group_size": group_size or 64,
        "predictor_bits": predictor_bits or bits,
        "embedding_bits": embedding_bits,
    }


def _upload(folder: Path, repo: str) -> None:
    """Upload a converted folder to the hub. Tried against a stand-in only, never against the real hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]  # httpx's or httpx2's

    try:
        api = HfApi()
        api.create_repo(repo_id=repo, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=str(folder))
    except (HTTPError, OSError, ValueError) as error:  # its offline, token and name errors are of the last two kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OutputError(f"{folder} is converted, but could not be uploaded to {repo}: {reason}") from None


if __name__ == "__main__":
    main()
