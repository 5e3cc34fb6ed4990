"""Weights in safetensors files: what a folder holds, whether it is whole, and loading it strictly.

A tensor file is in one of two layouts. The official one keeps PyTorch's axes: convolutions [out, in, kernel],
transposed ones [in, out, kernel]. The MLX one has [out, kernel, in] for both; this package's `convert` writes it and
the community's MLX copies have it in `model.safetensors`. Which one a file has is read from its config (`convert` says
so there) or, in folders by others, from one named tensor whose sizes the config fixes; no other tensor is guessed at.
"""

import json
import math
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

Network = TypeVar("Network", bound=nn.Module)
Shape = tuple[int, ...]
# Published name to (shape in the MLX layout, None or whether it is of a transposed convolution).
Expected = dict[str, tuple[Shape, bool | None]]

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
STORED = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16, "U32": mx.uint32}
LAYOUT_KEY = "conv_layout"  # in config.json, written by convert: "mlx"

# Published name on the left. MLX takes names with a leading underscore for private ones, not parameters.
RENAMES = (("._codebook.", ".book."),)

# Of MLX's affine quantisation.
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
DEFAULTS = {"group_size": 64, "mode": "affine"}

# A kernel of one and many input channels: [out, in, 1] is the official layout, [out, 1, in] is MLX's.
LAYOUT_TENSORS = ("speaker_encoder.fc.weight", "decoder.quantizer.rvq_first.output_proj.weight")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or an error that names the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, nested without end
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return values


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's `model.safetensors`, or of the shards its index names."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        where = read_json(index).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
            raise CheckpointError(f"{index}: weight_map does not name a file for each tensor")
        tensors: dict[str, Tensor] = {}
        for file in sorted(set(where.values())):
            if not (folder / file).is_file():
                raise CheckpointError(f"{folder} has no {file}, which its index names")
            tensors.update(read_header(folder / file))
        for name in where:
            if name not in tensors:
                raise CheckpointError(f"{folder}: tensor {name} is in the index but in no file")
        return tensors
    single = folder / "model.safetensors"
    if not single.is_file():
        raise CheckpointError(f"{folder} has no model.safetensors")
    return read_header(single)


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


def _settings(block: object, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """How to quantise, from a block of the configuration. MLX takes some bad values down with the process."""
    keys = ("group_size", "bits", "mode")
    settings = {**defaults, **{key: block[key] for key in keys if isinstance(block, dict) and key in block}}
    if settings["mode"] != "affine":
        raise CheckpointError(f"config.json: quantization mode {settings['mode']!r} is not supported; 'affine' is")
    numbers = settings.get("bits"), settings["group_size"]
    if not all(type(n) is int for n in numbers) or numbers[0] not in BITS or numbers[1] not in GROUP_SIZES:
        raise CheckpointError(f"config.json: quantization {settings} has no bits or group_size that MLX knows")
    return settings


def quantization_of(path: str, tensors: Mapping[str, Tensor], quantization: Any) -> dict[str, Any] | None:
    """How a file's layer is quantised, as arguments of `mx.quantize`: None where it is not.

    path: the layer's published name; quantization: the configuration's block, or None.
    """
    if not quantization or f"{path}.scales" not in tensors:
        return None
    defaults, own = _settings(quantization, DEFAULTS), quantization.get(path)
    return _settings(own, defaults) if isinstance(own, dict) else defaults


def quantize_like(module: nn.Module, prefix: str, tensors: Mapping[str, Tensor], quantization: Any) -> None:
    """Replace by quantised ones the layers that are quantised in the file, as the config's block describes them."""
    if not quantization:
        return

    def predicate(path: str, layer: nn.Module) -> dict[str, Any] | bool:
        how = quantization_of(f"{prefix}.{path}", tensors, quantization)
        return how if how and hasattr(layer, "to_quantized") else False

    nn.quantize(module, **_settings(quantization, DEFAULTS), class_predicate=predicate)


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
        packed = name.endswith(".weight") and f"{name.removesuffix('weight')}scales" in expected
        if tensor.dtype not in STORED or (tensor.dtype == "U32") != packed:
            wanted = "U32" if packed else "a float"
            raise CheckpointError(f"{where}: tensor {name} has dtype {tensor.dtype}, expected {wanted}")
        size = math.prod(tensor.shape) * STORED[tensor.dtype].size
        if tensor.bytes != size:
            raise CheckpointError(f"{where}: tensor {name} has {tensor.bytes} bytes, expected {size}")


def load_module(
    module: Network, prefix: str, tensors: Mapping[str, Tensor], layout: str | None, dtype: mx.Dtype
) -> Network:
    """Fill a module from checked tensors: MLX layout, floats cast to dtype, strictly; then fuse what runs as one."""
    check_fork()
    convs = convolutions(module)
    files, weights = {}, []
    for name, _ in parameters(module):
        full = published_name(f"{prefix}.{name}" if prefix else name)
        tensor = tensors[full]
        if tensor.path not in files:
            files[tensor.path] = mx.load(str(tensor.path))
        value = files[tensor.path].pop(tensor.name)
        if name in convs and layout == "official":
            value = mx.contiguous(value.transpose(to_mlx_axes(convs[name])))
        if value.dtype != mx.uint32:
            value = value.astype(dtype)
        weights.append((name, value))
    module.load_weights(weights, strict=True)
    del weights, value, files  # nothing but the module may hold an array, or it is not freed when it is fused
    module.eval()
    for _, part in reversed(module.named_modules()):  # leaves first
        if hasattr(part, "fuse"):
            part.fuse()
    # Read now: an array that is still to be read belongs to this thread's stream and could not be used in another. Part
    # by part, so that what one was fused from is free again before the next is read.
    for _, part in reversed(module.named_modules()):
        if hasattr(part, "lay_out"):
            part.lay_out()
        mx.eval(part.parameters())
    return module
