"""The tensors of one folder with the networks they belong to, checked against each other."""

from ..errors import InvalidValue
from .weights import (
    DTYPES,
    check,
    expected_shapes,
    find_layout,
    load_module,
    quantize_like,
    read_folder,
)


class Part:
    """The tensors of one folder with the networks they belong to, checked."""

    def __init__(self, folder, values, modules):
        """values: its config.json; modules: {prefix: network to fill}."""
        self.folder, self.values, self.modules = folder, values, modules
        self.tensors = read_folder(folder)
        for prefix, module in modules.items():
            quantize_like(module, prefix, self.tensors, values.get("quantization"))
        self.expected = expected_shapes(modules)
        self.layout = find_layout(values, self.tensors, self.expected)
        check(self.tensors, self.expected, self.layout, folder)

    def load(self, prefix, dtype, module=None):
        """Fill the network at `prefix`, or a part of it."""
        return load_module(module or self.modules[prefix], prefix, self.tensors, self.layout, dtype)

    @property
    def bytes(self):
        return sum(tensor.bytes for tensor in self.tensors.values())

    @property
    def dtypes(self):
        return sorted({tensor.dtype for tensor in self.tensors.values()})


def check_dtype(dtype):
    """A dtype's name as users write it, or None, to MLX's dtype."""
    if dtype is not None and dtype not in DTYPES:
        raise InvalidValue(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    return DTYPES.get(dtype)
