"""The tensors of one folder with the networks they belong to, checked against each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn

from ..checks import word
from ..files.safetensors import Tensor
from .quantization import quantize_like
from .weights import DTYPES, check, expected_shapes, find_layout, load_module, read_folder

Network = TypeVar("Network", bound=nn.Module)


class Part:
    """The tensors of one folder with the networks they belong to, checked."""

    def __init__(
        self,
        folder: Path,
        values: Mapping[str, Any],
        modules: Mapping[str, nn.Module],
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        """values: its config.json; modules: {prefix: network to fill}; tensors: the folder's, where they were read."""
        self.folder, self.values, self.modules = folder, values, modules
        self.tensors = read_folder(folder) if tensors is None else tensors
        for prefix, module in modules.items():
            quantize_like(module, prefix, self.tensors, values.get("quantization"))
        self.expected = expected_shapes(modules)
        self.layout = find_layout(values, self.tensors, self.expected)
        check(self.tensors, self.expected, self.layout, folder)

    def load(self, prefix: str, dtype: mx.Dtype, module: Network) -> Network:
        """Fill the network at `prefix`: one of the modules, or a part of one."""
        return load_module(module, prefix, self.tensors, self.layout, dtype)

    @property
    def bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors.values())

    @property
    def dtypes(self) -> list[str]:
        return sorted({tensor.dtype for tensor in self.tensors.values()})


def check_dtype(dtype: str | None) -> mx.Dtype | None:
    """A dtype's name as users write it, or None, to MLX's dtype."""
    return None if dtype is None else DTYPES[word(dtype, "dtype", tuple(DTYPES))]
