"""How the layers of a file are quantised: what its config.json says, checked, and networks brought into that form.

A quantised layer has a packed `weight` (U32) and `scales`. In MLX's affine mode the scales are floats, and `biases` go
with them; the modes mxfp4, mxfp8 and nvfp4 have scales of eight bits (U8), each a floating-point number of its own
format, and no biases. Those are bits, not numbers: casting them to another dtype would make other scales of them.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import CheckpointError
from ..files.safetensors import Tensor

Quantised = nn.QuantizedLinear | nn.QuantizedEmbedding

# Of MLX's affine quantisation.
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
# Each of the other modes has one group size and one width.
MICROSCALED = {
    "mxfp4": {"group_size": 32, "bits": 4},
    "mxfp8": {"group_size": 32, "bits": 8},
    "nvfp4": {"group_size": 16, "bits": 4},
}
MODES = ("affine", *MICROSCALED)
KEYS = ("group_size", "bits", "mode")


def settings_of(block: object, inherited: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """{group_size, bits, mode} of a block of the configuration, as arguments of `mx.quantize`.

    inherited: settings to take what an affine block leaves out from; a block without a mode is affine. MLX takes some
    bad values down with the process, so all are checked.
    """
    settings = {key: block[key] for key in KEYS if isinstance(block, dict) and key in block}
    mode = settings.setdefault("mode", "affine")
    if mode not in MODES:
        raise CheckpointError(f"config.json: quantization mode {mode!r} is not one of {', '.join(MODES)}")
    if mode == "affine":
        same = inherited if inherited and inherited["mode"] == mode else {}
        settings = {"group_size": 64, **same, **settings}
        numbers = settings.get("bits"), settings["group_size"]
        sound = all(type(n) is int for n in numbers) and numbers[0] in BITS and numbers[1] in GROUP_SIZES
    else:
        settings = {**MICROSCALED[mode], **settings}
        sound = settings == {**MICROSCALED[mode], "mode": mode}
    if not sound:
        raise CheckpointError(f"config.json: quantization {settings} has no bits or group_size that MLX knows")
    return settings


def quantization_of(path: str, tensors: Mapping[str, Tensor], quantization: Any) -> dict[str, Any] | None:
    """How a file's layer is quantised, as arguments of `mx.quantize`: None where it is not.

    path: the layer's published name; quantization: the configuration's block, or None.
    """
    if not quantization or f"{path}.scales" not in tensors:
        return None
    defaults, own = settings_of(quantization), quantization.get(path)
    return settings_of(own, defaults) if isinstance(own, dict) else defaults


def quantize_like(module: nn.Module, prefix: str, tensors: Mapping[str, Tensor], quantization: Any) -> None:
    """Replace by quantised ones the layers that are quantised in the file, as the config's block describes them."""
    if not quantization:
        return

    def predicate(path: str, layer: nn.Module) -> dict[str, Any] | bool:
        how = quantization_of(f"{prefix}.{path}", tensors, quantization)
        if not how or not isinstance(layer, nn.Linear | nn.Embedding):
            return False
        width = layer.weight.shape[-1]
        # MLX 0.32 decodes the scales of nvfp4 four at a time, and fails on a remainder.
        step = how["group_size"] * (4 if how["mode"] == "nvfp4" else 1)
        if width % step:
            raise CheckpointError(
                f"{prefix}.{path} cannot be {how['mode']}: its width {width} is not divisible by {step}"
            )
        return how

    nn.quantize(module, **settings_of(quantization), class_predicate=predicate)


def quantised_layers(modules: Mapping[str, nn.Module]) -> dict[str, Quantised]:
    """The quantised layers of modules by prefix, under their published names."""
    return {
        f"{prefix}.{path}" if prefix else path: layer
        for prefix, module in modules.items()
        for path, layer in module.named_modules()
        if isinstance(layer, Quantised)
    }


def dequantised(layer: Quantised) -> mx.array:
    """A layer's weight as floats."""
    how = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
    return mx.dequantize(layer.weight, layer.scales, layer.get("biases"), **how)


def packed_dtype(name: str, known: Mapping[str, object]) -> str | None:
    """The dtype of what quantising made of a layer, as safetensors spells it: None for a tensor of floats.

    known: all names of tensors that belong to the networks.
    """
    path, _, leaf = name.rpartition(".")
    if f"{path}.scales" in known:
        if leaf == "weight":
            return "U32"
        if leaf == "scales" and f"{path}.biases" not in known:
            return "U8"
    return None
