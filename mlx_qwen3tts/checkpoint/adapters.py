"""Adapters of low rank: their folder, what they fit, and how a loaded talker speaks with one.

A folder has `adapters.safetensors` and `adapter_config.json` in mlx-lm's form: for a linear layer of the published name
X the tensors `X.lora_a` [in, r] and `X.lora_b` [r, out], which add `scale · (x lora_a) lora_b` to its outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from ..checks import number
from ..checks import path as as_path
from ..errors import AdapterError, QwenTTSError, listed
from ..files.json_text import json_text
from ..files.output import whole_file
from ..files.tensors import read_all, read_tensor, write_tensors
from ..networks.linear import Adapted
from ..networks.talker import Talker
from ..networks.transformer import Place
from .folder import ModelFolder
from .weights import read_json

TENSORS, CONFIG = "adapters.safetensors", "adapter_config.json"
PARTS = ("self_attn", "mlp")  # of a layer, which have projections
IDENTITY = "model_identity"  # in adapter_config.json
MOST = 100.0  # times as strong as it was trained, beyond which weights of half precision overflow
FUSED = "fused_adapters"  # in the config.json of a model: digests of the adapters that it was fused with

Matrices = Mapping[str, tuple[mx.array, mx.array]]  # {published name of a linear layer: (lora_a, lora_b)}


class Site(NamedTuple):
    """A projection of a fused talker that can be adapted: the module that has it, and where."""

    owner: Any
    place: Place


def strength(scale: object) -> float:
    """How much of an adapter is asked for, 1 as it was trained. InvalidValue beyond ±MOST."""
    return number(scale, "adapter_scale", -MOST, MOST)


def sites(talker: Talker) -> dict[str, Site]:
    """The projections of talker and code predictor by their published names."""
    stacks = {"talker.model": talker.model, "talker.code_predictor.model": talker.code_predictor.model}
    return {
        f"{prefix}.layers.{number}.{part}.{name}": Site(layer[part], place)
        for prefix, stack in stacks.items()
        for number, layer in enumerate(stack.layers)
        for part in PARTS
        for name, place in layer[part].places.items()
    }


def put(talker: Talker, matrices: Matrices, scale: float, dtype: mx.Dtype | None = None) -> None:
    """Have a talker compute with these matrices, in place of any that it has.

    scale: what their products are multiplied by; dtype: what they are cast to, by default none: in training they have
    more precision than the talker. Whatever was compiled keeps what it was compiled with.
    """
    remove(talker)
    known = sites(talker)
    layers: dict[tuple[int, str], list[tuple[Site, tuple[mx.array, mx.array]]]] = {}
    for name, pair in matrices.items():
        site = known[name]
        layers.setdefault((id(site.owner), site.place.layer), []).append((site, pair))
    for parts in layers.values():
        owner, layer = parts[0][0].owner, parts[0][0].place.layer
        outputs = max(place.last for place in owner.places.values() if place.layer == layer)
        down, up = [], []
        for site, (a, b) in parts:
            down.append(a)
            up.append(mx.pad(b * scale, [(0, 0), (site.place.first, outputs - site.place.last)]))
        pair = mx.concatenate(down, axis=1), mx.concatenate(up)
        owner[layer] = Adapted(owner[layer], *(matrix.astype(dtype or matrix.dtype) for matrix in pair))


def remove(talker: Talker) -> None:
    """Have a talker compute as it was loaded."""
    for site in sites(talker).values():
        layer = site.owner[site.place.layer]
        if isinstance(layer, Adapted):
            site.owner[site.place.layer] = layer.base


# What an adapter belongs to


def identity(folder: ModelFolder) -> str:
    """A word for the model in a folder that converting and quantising it leave as it is.

    It is made of the norms of talker and predictor, which are never quantised, as bfloat16, and of what was fused into
    the model.
    """
    digest = hashlib.sha256(json_text(folder.values.get(FUSED, [])).encode())
    for name in sorted(folder.part.expected):
        if name.startswith("talker.") and name.endswith("norm.weight"):
            values = mx.array(read_tensor(folder.part.tensors[name])).astype(mx.bfloat16)
            digest.update(name.encode() + np.array(values.view(mx.uint16)).tobytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class Adapter:
    """matrices: of each adapted layer; scale: what their products are multiplied by; values: the rest of its
    adapter_config.json; name: what messages call it."""

    matrices: Matrices
    scale: float
    values: Mapping[str, Any] = field(default_factory=dict)
    name: str = "adapter"

    @property
    def digest(self) -> str:
        """A word for all that it adds."""
        made = hashlib.sha256(repr(self.scale).encode())
        for name, pair in sorted(self.matrices.items()):
            for matrix in pair:
                made.update(f"{name} {matrix.shape}".encode() + np.array(matrix.astype(mx.float32)).tobytes())
        return made.hexdigest()[:16]

    def check(self, folder: ModelFolder) -> None:
        """AdapterError unless it was made for the model in a folder, and fits it."""
        own, model = self.values.get(IDENTITY), folder.folder.name
        known = sites(folder.talker)
        if own is not None and own != identity(folder):
            made_for = self.values.get("model", "another model")
            raise AdapterError(f"adapter {self.name} was made for {made_for}, not for {model}", param="adapter_path")
        for name, (a, b) in self.matrices.items():
            if name not in known:
                raise AdapterError(f"adapter {self.name}: {model} has no layer {name}", param="adapter_path")
            place = known[name].place
            shapes = [(place.inputs, a.shape[-1]), (a.shape[-1], place.last - place.first)]
            if [a.shape, b.shape] != shapes:
                found = f"{list(a.shape)} and {list(b.shape)}"
                wanted = f"[{place.inputs}, r] and [r, {place.last - place.first}] of {model}"
                raise AdapterError(f"adapter {self.name}: {name} has {found}, not the {wanted}", param="adapter_path")

    def save(self, folder: str | Path) -> None:
        """Write its folder; each of the two files appears whole. OutputError where that cannot be."""
        folder = as_path(folder, "adapter_path")
        tensors = {
            f"{name}.lora_{letter}": matrix
            for name, pair in self.matrices.items()
            for letter, matrix in zip("ab", pair, strict=True)
        }
        ranks = {a.shape[1] for a, _ in self.matrices.values()}
        keys = sorted({".".join(name.split(".")[-2:]) for name in self.matrices})
        numbers = {int(name.split(".")[-3]) for name in self.matrices}
        own = {"rank": max(ranks, default=0), "scale": self.scale, "dropout": 0.0, "keys": keys}
        values = {**self.values, "fine_tune_type": "lora", "num_layers": len(numbers), "lora_parameters": own}
        write_tensors(folder / TENSORS, tensors, {"digest": self.digest})
        with whole_file(folder / CONFIG) as temporary:
            temporary.write_text(json_text(values, indent=4) + "\n", encoding="utf-8")


def read_adapter(folder: str | Path) -> Adapter:
    """The Adapter in a folder; AdapterError where there is none, or where it is damaged."""
    folder = as_path(folder, "adapter_path")
    if not folder.is_dir():
        raise AdapterError(f"adapter {folder}: no such folder; name one that `tune lora` made", param="adapter_path")
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise AdapterError(f"adapter {folder} has no {name}", param="adapter_path")
    try:
        values = read_json(folder / CONFIG)
        tensors, metadata = read_all(folder / TENSORS, "adapter")
    except QwenTTSError as error:
        raise AdapterError(str(error), param="adapter_path") from None
    kind, parameters = values.get("fine_tune_type", "lora"), values.get("lora_parameters")
    if kind != "lora":
        message = f"adapter {folder}: fine_tune_type {json_text(kind)[:40]} is not lora, the one kind that is known"
        raise AdapterError(message, param="adapter_path")
    scale = parameters.get("scale") if isinstance(parameters, dict) else None
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) < 1e6:
        raise AdapterError(f"adapter {folder}: {CONFIG} has no lora_parameters with a scale", param="adapter_path")
    names = sorted({tensor.rpartition(".")[0] for tensor in tensors})
    pairs = {name: (f"{name}.lora_a", f"{name}.lora_b") for name in names}
    odd = {*tensors} ^ {one for pair in pairs.values() for one in pair}
    odd |= {name for name, tensor in tensors.items() if tensor.ndim != 2}
    if odd or not names:
        found = f"no pair lora_a [in, r] and lora_b [r, out] for {listed(sorted(odd), 2)}" if odd else "no tensors"
        raise AdapterError(f"adapter {folder}: {TENSORS} has {found}", param="adapter_path")
    matrices = {name: (tensors[a], tensors[b]) for name, (a, b) in pairs.items()}
    made = Adapter(matrices, float(scale), values, str(folder))
    if metadata.get("digest", made.digest) != made.digest:
        message = f"adapter {folder}: {TENSORS} and {CONFIG} are of two adapters; one of them was replaced"
        raise AdapterError(message, param="adapter_path")
    return made
