"""Writing a model folder: tensors stream from file to file in blocks of rows; the folder appears whole or not at all.

Names, shapes and places are known from the sources' headers before the first byte is written, so a file's header comes
first and its tensors are filled in place. No tensor is ever held whole, and nothing is memory-mapped: pages of a mapped
file count as resident.
"""

import contextlib
import fnmatch
import glob
import math
import os
import shutil
import stat
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError, InvalidValue, OutputError
from ..files.exchange import exchange, replaced, restore
from ..files.json_text import json_text
from ..files.output import LONGEST, claim, remove_abandoned
from ..files.safetensors import Tensor
from ..networks.config import CodecConfig, ModelConfig
from .weights import STORED, read_json

# What may lie in a folder that --overwrite removes; anything else is somebody's own and stops it.
REPLACEABLE = ("*config.json", "vocab.json", "merges.txt", "tokenizer.json", "*_tokens.json", "*_map.json")
REPLACEABLE += ("model*.safetensors", "model*.index.json", "configuration.json", "speech_tokenizer", "README.md")
REPLACEABLE += ("LICENSE*", ".gitattributes", ".cache", ".DS_Store")
BLOCK = 8 << 20  # bytes of a source tensor in memory at once
SPELLINGS = {dtype: spelling for spelling, dtype in STORED.items()}


@dataclass(frozen=True)
class Job:
    """A source tensor and what is written of it: itself, or the weight, scales and biases that quantising makes.

    outputs: {name: (dtype, shape)}; dtype: what its floats are cast to; axes: their new order or None;
    quantization: None, or what mx.quantize takes beside the weight; made: a function that gives the outputs whole,
    where they are not made of the source's rows; parameters: how many the source has, where its shape does not say so.
    """

    source: Tensor
    outputs: dict[str, tuple[mx.Dtype, tuple[int, ...]]]
    dtype: mx.Dtype
    axes: tuple[int, ...] | None = None
    quantization: dict[str, Any] | None = None
    made: Callable[[], Sequence[mx.array]] | None = None
    parameters: int | None = None

    @property
    def bytes(self) -> int:
        """The size of what is written."""
        return sum(_size(dtype, shape) for dtype, shape in self.outputs.values())

    @property
    def row_axis(self) -> int:
        """The source's axis that is the rows, the first axis, of what is written."""
        return self.axes[0] if self.axes else 0

    def convert(self, block: mx.array) -> Sequence[mx.array]:
        """Some rows of the source to the same rows of each output."""
        if self.axes:
            block = block.transpose(self.axes)
        block = block.astype(self.dtype)
        # The one cast that can overflow: bfloat16 and float32 reach further than float16.
        if self.dtype == mx.float16 and not mx.isfinite(block).all().item():
            raise CheckpointError(f"tensor {self.source.name} has values that float16 cannot hold; use bfloat16")
        return mx.quantize(block, **self.quantization) if self.quantization else (block,)


def write_tensors(folder: Path, jobs: Sequence[Job], max_shard_size: int, progress: Callable[[int], object]) -> int:
    """Write jobs to `model.safetensors`, or to shards of at most max_shard_size bytes, and their index.

    progress is called with every number of bytes written. Returns the number of files.
    """
    shards = split(jobs, max_shard_size)
    count = len(shards)
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)] if count > 1 else None
    weight_map = {}
    for name, shard in zip(names or ["model.safetensors"], shards, strict=True):
        _write_file(folder / name, shard, max_shard_size, progress)
        weight_map |= {output: name for job in shard for output in job.outputs}
    metadata = {
        "total_size": sum(job.bytes for job in jobs),
        "total_parameters": sum(
            math.prod(job.source.shape) if job.parameters is None else job.parameters for job in jobs
        ),
    }
    write_json(
        folder / "model.safetensors.index.json", {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
    )
    return count


def split(jobs: Sequence[Job], max_shard_size: int) -> list[list[Job]]:
    """Jobs in their order, in lists of at most max_shard_size bytes; a larger job has a list of its own."""
    shards: list[list[Job]] = []
    size = 0
    for job in jobs:
        if not shards or size + job.bytes > max_shard_size:
            shards.append([])
            size = 0
        shards[-1].append(job)
        size += job.bytes
    return shards


def write_json(path: Path, values: object) -> None:
    try:
        text = json_text(values, indent=4, ensure_ascii=False)
    except InvalidValue as error:
        raise CheckpointError(f"{path.name}: {error}") from None
    path.write_text(text + "\n", encoding="utf-8")


def _size(dtype: mx.Dtype, shape: Sequence[int]) -> int:
    return math.prod(shape) * dtype.size


def _header(jobs: Sequence[Job]) -> tuple[bytes, dict[str, int]]:
    """(the bytes before the tensors, {output: where in the file it starts})."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    starts, end = {}, 0
    for job in jobs:
        for name, (dtype, shape) in job.outputs.items():
            starts[name], end = end, end + _size(dtype, shape)
            header[name] = {"dtype": SPELLINGS[dtype], "shape": list(shape), "data_offsets": [starts[name], end]}
    text = json_text(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    base = 8 + len(text)
    return struct.pack("<Q", len(text)) + text, {name: base + start for name, start in starts.items()}


def _write_file(path: Path, jobs: Sequence[Job], max_shard_size: int, progress: Callable[[int], object]) -> None:
    # Far below a file's size even where that is small, as a block is there several times over: as read, cast,
    # transposed or quantised, and the one before it.
    limit = min(BLOCK, max_shard_size // 8, sum(job.bytes for job in jobs) // 8)
    header, starts = _header(jobs)
    with path.open("wb") as file:
        file.write(header)
        for job in jobs:
            for row, parts in _parts(job, limit):
                for (name, (dtype, shape)), part in zip(job.outputs.items(), parts, strict=True):
                    file.seek(starts[name] + row * _size(dtype, shape[1:]))
                    progress(file.write(_bytes_of(part)))


def _bytes_of(array: mx.array) -> memoryview:
    return memoryview(cast(Any, mx.contiguous(array).reshape(-1).view(mx.uint8)))  # its stub names no buffer protocol


def _parts(job: Job, limit: int) -> Iterator[tuple[int, Sequence[mx.array]]]:
    """(first row, rows of each output), some at a time."""
    if job.made is not None:
        yield 0, job.made()
        return
    for row, block in _blocks(job, limit):
        yield row, job.convert(block)


def _blocks(job: Job, limit: int) -> Iterator[tuple[int, mx.array]]:
    """(first row, rows of the source) in blocks of about `limit` bytes, at least a row."""
    tensor, axis = job.source, job.row_axis
    before, rows, after = math.prod(tensor.shape[:axis]), tensor.shape[axis], tensor.shape[axis + 1 :]
    row_bytes = _size(STORED[tensor.dtype], after)
    step = max(1, limit // (before * row_bytes))
    try:
        with tensor.path.open("rb", buffering=0) as file:
            for row in range(0, rows, step):
                count = min(step, rows - row)
                data = np.empty((before, count * row_bytes), np.uint8)
                for i, line in enumerate(data):
                    file.seek(tensor.start + (i * rows + row) * row_bytes)
                    if file.readinto(line.data) != line.nbytes:
                        raise CheckpointError(f"{tensor.path} is truncated")
                block = mx.array(data).view(STORED[tensor.dtype]).reshape(*tensor.shape[:axis], count, *after)
                del data
                yield row, block
    except OSError as error:
        raise CheckpointError(f"cannot read {tensor.path}: {error.strerror or error}") from error


def check_destination(path: Path, overwrite: bool) -> None:
    """Raise unless a folder can be made at `path`, or one of a model there may be replaced.

    What a run that was killed left there is put right first.
    """
    if not path.parent.is_dir():
        raise OutputError(f"output folder {path.parent} does not exist")
    restore(path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"output {path} is a file; name a folder")
    if os.path.ismount(path):
        raise OutputError(f"output {path} is a mount point, which no finished folder can replace; name a folder in it")
    entries = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if entries and not overwrite:
        raise OutputError(f"output {path} exists and is not empty; replace it with --overwrite or name another folder")
    if entries:
        config = path / "config.json"
        kind = read_json(config).get("model_type") if config.is_file() else None
        if kind not in (ModelConfig.MODEL_TYPE, CodecConfig.MODEL_TYPE):
            raise OutputError(
                f"output {path} is not a Qwen3-TTS model folder and is not overwritten; name another folder"
            )
        for name in entries:
            if not any(fnmatch.fnmatch(name, pattern) for pattern in REPLACEABLE):
                raise OutputError(f"output {path} is not overwritten, as it holds {name}; move that elsewhere first")
    for other in left_behind(path):
        if not remove_abandoned(other):
            warnings.warn(f"another run is writing the same folder: {other} is its work", stacklevel=3)


def check_apart(source: Path, destination: Path) -> None:
    """Raise where one folder lies within the other and the destination is not empty."""
    inside_one_another = destination in (source, *source.parents) or source in destination.parents
    if destination.is_dir() and any(destination.iterdir()) and inside_one_another:
        raise OutputError(f"output {destination} overlaps the source {source}; name another folder")


def check_space(destination: Path, needed: int) -> None:
    """Raise where the disk of the destination has less than `needed` bytes free."""
    free = shutil.disk_usage(destination.parent).free
    if needed > free:
        raise OutputError(
            f"output {destination} needs {needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free; make room or name "
            "another disk"
        )


def write_model(
    destination: Path,
    folders: Mapping[str, Sequence[Job]],
    small: Mapping[str, Any],
    max_shard_size: int,
    overwrite: bool,
    bar: Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], object]]],
) -> tuple[int, int]:
    """Write a model folder: {folder within it: jobs}, {small file: JSON or bytes}. Returns (files of tensors, bytes).

    bar: from a folder's name and its bytes to what shows the progress.
    """
    check_space(destination, sum(job.bytes for jobs in folders.values() for job in jobs))
    files = 0
    with whole_folder(destination, overwrite) as temporary:
        for inside, jobs in folders.items():
            folder = temporary / inside
            folder.mkdir(exist_ok=True)
            with bar(inside or "model", sum(job.bytes for job in jobs)) as progress:
                files += write_tensors(folder, jobs, max_shard_size, progress)
        # config.json is the last to be written: without it a folder does not pass for a model.
        for name, content in sorted(small.items(), key=lambda item: item[0] == "config.json"):
            if isinstance(content, dict):
                write_json(temporary / name, content)
            else:
                (temporary / name).write_bytes(content)
        size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
    return files, size


@contextlib.contextmanager
def whole_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary sibling folder to fill; it takes the name `path` when the block ends well, and vanishes otherwise.

    With overwrite a folder of that name gives way, but not before then, and the new one has its mode. Raises
    OutputError where the disk is full or nothing can be written.
    """
    path = Path(path)
    try:
        with claim(path, folder=True) as temporary:
            yield temporary
            take_name(temporary, path, overwrite)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def left_behind(path: Path) -> list[Path]:
    """Temporary folders for `path` of other runs: under way, or killed before they could clean up."""
    return sorted(path.parent.glob(f".{glob.escape(path.name[:LONGEST])}-partial-*"))


def take_name(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give a folder the name `path`. With overwrite a folder that has the name is removed, in exchange or after."""
    if not (overwrite and path.is_dir()):
        os.rename(temporary, path)  # succeeds over an empty folder, fails over any other
        return
    temporary.chmod(stat.S_IMODE(path.stat().st_mode))
    if exchange(temporary, path):
        shutil.rmtree(temporary, ignore_errors=True)  # now the old one
        return
    old = replaced(path)
    shutil.rmtree(old, ignore_errors=True)
    os.rename(path, old)
    try:
        os.rename(temporary, path)
    finally:
        restore(path)
