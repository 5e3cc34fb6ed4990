"""What merging an adapter into a model makes: the same folder with other projections, or one in the official layout.

With presets the result is what the official fine-tuning leaves: a `custom_voice` folder without a speaker encoder, with
PyTorch's axes and each voice as a row of the codec embedding that the config names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from .. import __version__
from ..errors import CheckpointError, NameTaken, UnsupportedValue
from ..files.safetensors import Tensor
from ..networks.config import ModelConfig
from .adapters import FUSED, Adapter
from .folder import ENCODER, ModelFolder
from .part import Part
from .plan import NEEDED, TOKENIZER, copies
from .presets import TABLE, find_preset
from .quantization import Quantised, quantised_layers
from .weights import LAYOUT_KEY, STORED, official_shape, to_mlx_axes
from .writer import Job

FIRST = 3000  # the row that the official fine-tuning gives its speaker
QUANTIZATION = ("quantization", "quantization_config")


def fusing(
    folder: ModelFolder,
    adapter: Adapter | None,
    dequantize: bool = False,
    presets: Mapping[str, mx.array] | None = None,
) -> tuple[dict[str, list[Job]], dict[str, Any]]:
    """({folder within the output: jobs}, {small file: config or bytes}) of a model with an adapter merged into it.

    dequantize: write floats where the model is quantised; presets: {name: vector [D]}, which make it a model of the
    official layout.
    """
    values, layers = dict(folder.values), quantised_layers(folder.part.modules)
    if presets is not None:
        if folder.config.model_type == "voice_design":
            raise UnsupportedValue("a voice_design model has no speaker slot, and so no presets", param="as_preset")
        if layers and not dequantize:
            message = "the official package reads no quantised weights; add --dequantize"
            raise UnsupportedValue(message, param="dequantize")
    layout = "mlx" if presets is None else "official"
    rows = {} if presets is None else _rows(folder.config, presets)
    matrices = {} if adapter is None else adapter.matrices
    scale = 1.0 if adapter is None else adapter.scale
    small, codec = copies(folder.folder), folder.codec.part
    if TOKENIZER not in small and not all(name in small for name in NEEDED):
        raise CheckpointError(f"{folder.folder} has no {NEEDED[0]}")
    small |= {f"{codec.folder.name}/{name}": content for name, content in copies(codec.folder).items()}
    if dequantize:
        values = {key: value for key, value in values.items() if key not in QUANTIZATION}
    if adapter is not None:
        values[FUSED] = [*values.get(FUSED, []), adapter.digest]
    if presets is not None:
        values |= {"tts_model_type": "custom_voice", "talker_config": _talker(values["talker_config"], rows)}
    small |= {
        "config.json": _laid_out(values, layout),
        f"{codec.folder.name}/config.json": _laid_out(codec.values, layout),
    }
    jobs = [
        job
        for name in folder.part.expected
        if presets is None or not name.startswith(ENCODER)
        for job in _jobs(folder, layers, name, layout, dequantize, matrices, scale, rows, presets or {})
    ]
    return {"": jobs, codec.folder.name: [_plain(codec, name, layout) for name in codec.expected]}, small


def _laid_out(values: Mapping[str, Any], layout: str) -> dict[str, Any]:
    plain = {key: value for key, value in values.items() if key != LAYOUT_KEY}
    return {**plain, LAYOUT_KEY: "mlx"} if layout == "mlx" else plain


def _talker(values: Mapping[str, Any], rows: Mapping[str, int]) -> dict[str, Any]:
    """A talker's configuration with further presets."""
    known, dialects = values.get("spk_id") or {}, values.get("spk_is_dialect") or {}
    return {**values, "spk_id": {**known, **rows}, "spk_is_dialect": {**dialects, **dict.fromkeys(rows, False)}}


def _rows(config: ModelConfig, names: Sequence[str] | Mapping[str, object]) -> dict[str, int]:
    """A free row of the codec embedding for each name: the official one, or the next that is free."""
    talker = config.talker
    ids = [value for name, value in vars(talker).items() if name.startswith("codec_") and isinstance(value, int)]
    # Below are codes and control tokens; languages and presets lie among what is free.
    least = max(ids) + 1
    taken = {*talker.codec_language_id.values(), *talker.spk_id.values(), *ids}
    free = [row for row in range(least, talker.vocab_size) if row not in taken]
    free = [row for row in free if row >= FIRST] or free
    for name in names:
        if find_preset(config, name):
            raise NameTaken(f"the model has a preset {name} already; give another name", param="as_preset")
    if len(free) < len(names):
        raise UnsupportedValue(
            f"the codec embedding has {len(free)} free rows for {len(names)} presets", param="as_preset"
        )
    return dict(zip(names, free, strict=False))


def _jobs(
    folder: ModelFolder,
    layers: Mapping[str, Quantised],
    name: str,
    layout: str,
    dequantize: bool,
    matrices: Mapping[str, tuple[mx.array, mx.array]],
    scale: float,
    rows: Mapping[str, int],
    presets: Mapping[str, mx.array],
) -> list[Job]:
    """What to write in place of one tensor of a model."""
    part, (path, _, leaf) = folder.part, name.rpartition(".")
    layer, pair, source = layers.get(path), matrices.get(path), part.tensors[name]
    table = path == TABLE and bool(rows)
    if layer is not None and leaf != "weight" and leaf != "bias" and (dequantize or pair):
        return []  # written with the weight
    if leaf != "weight" or not (pair or table or (layer is not None and dequantize)):
        count = None if layer is None else _width(layer) * source.shape[0] if leaf == "weight" else 0
        return [_plain(part, name, layout, count)]
    dtype = folder.dtype if layer is not None else STORED[source.dtype]
    width = source.shape[1] if layer is None else _width(layer)
    shape = (source.shape[0], width)

    def whole() -> mx.array:
        weight = _stored(source).astype(mx.float32) if layer is None else _dequantised(part, path, layer)
        if pair:
            weight = weight + scale * (pair[0] @ pair[1]).T
        for preset, row in rows.items() if table else ():
            weight[row] = presets[preset].astype(mx.float32)
        return weight.astype(dtype)

    if layer is None or dequantize:
        return [Job(source, {name: (dtype, shape)}, dtype, made=lambda: [whole()], parameters=shape[0] * width)]
    names = [one for one in (f"{path}.{end}" for end in ("weight", "scales", "biases")) if one in part.tensors]
    outputs = {one: (STORED[part.tensors[one].dtype], part.tensors[one].shape) for one in names}
    how = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}

    def again() -> list[mx.array]:
        made = zip(mx.quantize(whole(), **how), outputs.values(), strict=True)
        return [array.astype(kind) for array, (kind, _) in made]

    return [Job(source, outputs, dtype, made=again, parameters=shape[0] * width)]


def _plain(part: Part, name: str, layout: str, parameters: int | None = None) -> Job:
    """A tensor as it is, with the axes of a layout."""
    source, (shape, transposed) = part.tensors[name], part.expected[name]
    dtype, axes = STORED[source.dtype], None
    if transposed is not None and part.layout != layout:
        to_mlx = to_mlx_axes(transposed)
        axes = to_mlx if layout == "mlx" else tuple(to_mlx.index(axis) for axis in range(3))
    if transposed is not None and layout == "official":
        shape = official_shape(shape, transposed)
    return Job(source, {name: (dtype, tuple(shape))}, dtype, axes, parameters=parameters)


def _stored(tensor: Tensor) -> mx.array:
    """A tensor of a file, in the dtype that it is stored in."""
    try:
        data = np.fromfile(tensor.path, np.uint8, tensor.bytes, offset=tensor.start)
    except OSError as error:
        raise CheckpointError(f"cannot read {tensor.path}: {error.strerror or error}") from None
    if data.size != tensor.bytes:
        raise CheckpointError(f"{tensor.path} is truncated")
    return mx.array(data).view(STORED[tensor.dtype]).reshape(tensor.shape)


def _width(layer: Quantised) -> int:
    """The inputs of a quantised layer."""
    return layer.weight.shape[1] * 32 // layer.bits


def _dequantised(part: Part, path: str, layer: Quantised) -> mx.array:
    """The weight of a quantised layer in a file, float32."""
    weight, scales = (_stored(part.tensors[f"{path}.{leaf}"]) for leaf in ("weight", "scales"))
    how = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
    if layer.mode != "affine":
        return mx.dequantize(weight, scales, **how, dtype=mx.float32)
    biases = _stored(part.tensors[f"{path}.biases"]).astype(mx.float32)
    return mx.dequantize(weight, scales.astype(mx.float32), biases, **how)


USE = """\
from mlx_qwen3tts import Qwen3TTS

tts = Qwen3TTS.from_pretrained("FOLDER OR ID")
tts.generate("Hello.", voice={}).save("out.wav")"""


def fused_card(model: str, adapter: Adapter | None, presets: Sequence[str]) -> bytes:
    """README.md of what `fusing` makes, as bytes; model: what it was made of."""
    head = ["---", "license: apache-2.0", "pipeline_tag: text-to-speech", "tags:", "- qwen3-tts", "---"]
    done = [] if adapter is None else [f"- an adapter of low rank is merged into it (digest {adapter.digest})"]
    done += [f"- preset: {name}" for name in presets]
    voice = repr(presets[0]) if presets else '"voice.safetensors"'
    text = [*head, f"# {model}, taught a voice", "", f"Made of {model} by mlx-qwen3tts {__version__}.", "", *done]
    return "\n".join([*text, "", "```python", USE.format(voice), "```", ""]).encode()
