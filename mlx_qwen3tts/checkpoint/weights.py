"""Weights in safetensors files: what a folder holds, whether it is whole, and loading it strictly.

A tensor file is in one of two layouts. The official one keeps PyTorch's axes: convolutions [out, in, kernel],
transposed ones [in, out, kernel]. The MLX one has [out, kernel, in] for both; this package's `convert` writes it and
the community's MLX copies have it in `model.safetensors`. Which one a file has is read from its config (`convert` says
so there) or, in folders by others, from one named tensor whose sizes the config fixes; no other tensor is guessed at.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..errors import CheckpointError, listed
from ..files.safetensors import Tensor, read_header
from ..networks.conv import Conv1d, ConvTranspose1d
from ..networks.process import check_fork
from .hub import lacking
from .quantization import dequantised, packed_dtype, quantised_layers

Network = TypeVar("Network", bound=nn.Module)
Shape = tuple[int, ...]
# Published name to (shape in the MLX layout, None or whether it is of a transposed convolution).
Expected = dict[str, tuple[Shape, bool | None]]

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
FLOATS = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}
STORED = {**FLOATS, "U32": mx.uint32, "U8": mx.uint8}
LAYOUT_KEY = "conv_layout"  # in config.json, written by convert: "mlx"

# Published name on the left. MLX takes names with a leading underscore for private ones, not parameters.
RENAMES = (("._codebook.", ".book."),)

# Buffers that the official networks compute from their configuration, and some fine-tunes save: they hold nothing.
BUFFERS = re.compile(
    r"(talker|decoder|encoder)\.(.+\.)?rotary_emb\.(original_)?inv_freq"
    r"|encoder\.(encoder\.layers\.\d+(\.block\.\d+)?|downsample)\.(stride|kernel_size|padding_total)"
)
BUFFER_DTYPES = (*FLOATS, "I64", "I32")
LARGEST_JSON = 32 << 20  # bytes; the largest that people have, a tokenizer.json, has 11 million

# A kernel of one and many input channels: [out, in, 1] is the official layout, [out, 1, in] is MLX's.
LAYOUT_TENSORS = ("speaker_encoder.fc.weight", "decoder.quantizer.rvq_first.output_proj.weight")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or an error that names the file."""
    data = None
    try:
        if path.is_file() or not path.exists():  # anything else, a pipe for one, may never end
            with path.open("rb") as file:
                data = file.read(LARGEST_JSON + 1)
    except FileNotFoundError:
        raise lacking(path.parent, path.name) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # of a name that no file can have
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from None
    if data is None:
        raise CheckpointError(f"{path} cannot be read: not a regular file")
    if len(data) > LARGEST_JSON:
        raise CheckpointError(f"{path} has more than {LARGEST_JSON >> 20} MiB, too much for a file of that name")
    try:
        values = json.loads(data.decode())
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, nested without end
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return values


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's `model.safetensors`, or of the shards its index names, but for BUFFERS."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        where = read_json(index).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
            raise CheckpointError(f"{index}: weight_map does not name a file for each tensor")
        tensors: dict[str, Tensor] = {}
        for file in sorted(set(where.values())):
            if not (folder / file).is_file():
                raise lacking(folder, file, named=True)
            tensors.update(read_header(folder / file))
        for name in where:
            if name not in tensors:
                raise CheckpointError(f"{folder}: tensor {name} is in the index but in no file")
    else:
        single = folder / "model.safetensors"
        if not single.is_file():
            raise lacking(folder, single.name)
        tensors = read_header(single)
    return {name: tensor for name, tensor in tensors.items() if not _is_buffer(tensor)}


def _is_buffer(tensor: Tensor) -> bool:
    return bool(BUFFERS.fullmatch(tensor.name)) and tensor.dtype in BUFFER_DTYPES


def convolutions(module: nn.Module) -> dict[str, bool]:
    """Weight names of the module's convolutions, each with whether it is transposed."""
    return {
        f"{path}.weight": isinstance(part, ConvTranspose1d)
        for path, part in module.named_modules()
        if isinstance(part, Conv1d | ConvTranspose1d)
    }


def official_shape(shape: Shape, transposed: bool) -> Shape:
    """[out, kernel, in] as PyTorch would store it."""
    out, kernel, inputs = shape
    return (inputs, out, kernel) if transposed else (out, inputs, kernel)


def to_mlx_axes(transposed: bool) -> Shape:
    """The permutation that takes an official convolution weight to [out, kernel, in]."""
    return (1, 2, 0) if transposed else (0, 2, 1)


def parameters(module: nn.Module) -> list[tuple[str, mx.array]]:
    """A module's parameters with their names."""
    return tree_flatten(module.parameters())  # pyright: ignore[reportReturnType]  # its type allows any tree


def published_name(name: str) -> str:
    """A parameter's name in the files."""
    for published, ours in RENAMES:
        name = name.replace(ours, published)
    return name


def expected_shapes(modules: Mapping[str, nn.Module]) -> Expected:
    """What files must hold for modules by prefix."""
    expected: Expected = {}
    for prefix, module in modules.items():
        convs = convolutions(module)
        for name, value in parameters(module):
            full = published_name(f"{prefix}.{name}" if prefix else name)
            expected[full] = (value.shape, convs.get(name))
    return expected


def find_layout(config: Mapping[str, Any], tensors: Mapping[str, Tensor], expected: Expected) -> str | None:
    """ "mlx" or "official" for a file's convolutions; None where it has none."""
    if LAYOUT_KEY in config:
        if config[LAYOUT_KEY] != "mlx":
            raise CheckpointError(f"config.json: {LAYOUT_KEY} {config[LAYOUT_KEY]!r} is not known; expected 'mlx'")
        return "mlx"
    for name in LAYOUT_TENSORS:
        if name in tensors and name in expected:
            shape, _ = expected[name]
            return "mlx" if tensors[name].shape == shape else "official"
    return None


def check(tensors: Mapping[str, Tensor], expected: Expected, layout: str | None, where: Path) -> None:
    """Every tensor of the file is one the model has, with its shape, and none is missing."""
    missing, unexpected = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing:
        raise CheckpointError(f"{where}: missing tensor {listed(missing, 5)}")
    if unexpected:
        raise CheckpointError(f"{where}: unexpected tensor {listed(unexpected, 5)}")
    for name, (shape, transposed) in expected.items():
        wanted = tuple(shape)
        if transposed is not None and layout == "official":
            wanted = official_shape(shape, transposed)
        tensor = tensors[name]
        if tensor.shape != wanted:
            raise CheckpointError(f"{where}: tensor {name} has shape {list(tensor.shape)}, expected {list(wanted)}")
        packed = packed_dtype(name, expected)
        if tensor.dtype != packed if packed else tensor.dtype not in FLOATS:
            raise CheckpointError(f"{where}: tensor {name} has dtype {tensor.dtype}, expected {packed or 'a float'}")
        size = math.prod(tensor.shape) * STORED[tensor.dtype].size
        if tensor.bytes != size:
            raise CheckpointError(f"{where}: tensor {name} has {tensor.bytes} bytes, expected {size}")


def load_module(
    module: Network, prefix: str, tensors: Mapping[str, Tensor], layout: str | None, dtype: mx.Dtype
) -> Network:
    """Fill a module from checked tensors: MLX layout, floats cast to dtype, strictly; then fuse what runs as one.

    CheckpointError where a tensor has values that are NaN or infinite.
    """
    check_fork()
    convs = convolutions(module)
    files, weights, sound = {}, [], {}
    for name, _ in parameters(module):
        tensor = tensors[_full_name(prefix, name)]
        if tensor.path not in files:
            files[tensor.path] = mx.load(str(tensor.path))
        value = files[tensor.path].pop(tensor.name)
        if name in convs and layout == "official":
            value = mx.contiguous(value.transpose(to_mlx_axes(convs[name])))
        if mx.issubdtype(value.dtype, mx.floating):
            value = value.astype(dtype)
            sound[name] = _finite_sums(value)
        weights.append((name, value))
    module.load_weights(weights, strict=True)
    for path, layer in quantised_layers({"": module}).items():
        if layer.mode != "affine":  # whose numbers are all within the packed bits
            sound[f"{path}.weight"] = _finite_sums(dequantised(layer))
    del weights, value, files  # nothing but the module may hold an array, or it is not freed when it is fused
    module.eval()
    for _, part in reversed(module.named_modules()):  # leaves first
        if hasattr(part, "fuse"):
            part.fuse()
    # Read now: an array that is still to be read belongs to this thread's stream and could not be used in another. Part
    # by part, so that what one was fused from is free again before the next is read.
    parts = module.named_modules()
    checks = _by_part(sound, {path for path, _ in parts})
    del sound
    for path, part in reversed(parts):
        if hasattr(part, "lay_out"):
            part.lay_out()
        own = checks.pop(path, {})
        mx.eval(part.parameters(), own)
        for name, finite in own.items():
            if not finite.item():
                _check_finite(tensors[_full_name(prefix, name)], dtype)
    return module


def _full_name(prefix: str, name: str) -> str:
    return published_name(f"{prefix}.{name}" if prefix else name)


def _finite_sums(value: mx.array) -> mx.array:
    """Whether sums over the first axis are finite, which proves it of the values, an eighth of the time that asking
    each takes on a CPU device."""
    return mx.isfinite(value.sum(axis=0)).all()


def _by_part(arrays: Mapping[str, mx.array], paths: set[str]) -> dict[str, dict[str, mx.array]]:
    """Arrays by parameter name as {path of the smallest part that holds it: {name: array}}; what is fused is gone."""
    grouped: dict[str, dict[str, mx.array]] = {}
    for name, array in arrays.items():
        path = name.rpartition(".")[0]
        while path not in paths:
            path = path.rpartition(".")[0]
        grouped.setdefault(path, {})[name] = array
    return grouped


def _check_finite(tensor: Tensor, dtype: mx.Dtype) -> None:
    """CheckpointError unless all values of a tensor whose sums are not finite are finite: then the sums overflowed."""
    loaded: Any = mx.load(str(tensor.path))
    value = loaded[tensor.name]
    is_float = mx.issubdtype(value.dtype, mx.floating)
    if not is_float or not mx.isfinite(value).all().item():
        raise CheckpointError(
            f"{tensor.path}: tensor {tensor.name} has values that are NaN or infinite; fetch or convert the model again"
        )
    if not mx.isfinite(value.astype(dtype)).all().item():
        raise CheckpointError(f"{tensor.path}: tensor {tensor.name} has values that float16 cannot hold; use bfloat16")
