"""What converting makes of a checkpoint: which tensors in which form, the configurations, the model card.

All of it is worked out from headers and configurations. The tensors keep their published names. Quantising touches the
linear layers of talker and predictor and, if asked for, the text embedding; codec embeddings, speaker encoder and codec
lose quality by it and stay as they are stored.
"""

import contextlib
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .. import __version__
from ..errors import CheckpointError, InvalidValue, UnsupportedValue
from ..networks.config import CodecConfig, ModelConfig
from .codec import Codec
from .folder import ModelFolder
from .hub import SHIPPED, lacking
from .part import Part, check_dtype
from .quantization import quantised_layers
from .weights import LAYOUT_KEY, STORED, expected_shapes, read_folder, read_json, to_mlx_axes
from .writer import Job

Settings = dict[str, Any]  # how to quantise: bits, group_size, predictor_bits, embedding_bits

TEXT_EMBEDDING = "talker.model.text_embedding"
NEEDED = ("vocab.json", "merges.txt")
TOKENIZER = "tokenizer.json"  # has what NEEDED have; transformers 5 saves it alone
COPIED = (*NEEDED, TOKENIZER, "tokenizer_config.json", "generation_config.json", "preprocessor_config.json")


def plan(
    folder: Path, dtype: str | None = None, settings: Settings | None = None
) -> tuple[dict[str, list[Job]], dict[str, Any]]:
    """({folder within the output: jobs}, {small file: config or bytes}) for a source folder, all of it checked.

    dtype: name of the dtype of talker and predictor, None for the source's. settings: None, or {bits, group_size,
    predictor_bits, embedding_bits}.
    """
    values = read_json(folder / "config.json")
    kind, known = values.get("model_type"), (ModelConfig.MODEL_TYPE, CodecConfig.MODEL_TYPE)
    if kind not in known:
        hint = ""
        if "speaker_encoder_config" in values or "enc_dim" in values:
            hint = "; a speaker encoder alone needs no converting, embed reads it as it is"
        raise CheckpointError(f"{folder / 'config.json'}: model type {kind!r} is not one of {', '.join(known)}{hint}")
    block = values.get("quantization") or values.get("quantization_config")
    if block or any(name.endswith((".scales", ".biases")) for name in read_folder(folder)):
        name = next((name for name, shipped in SHIPPED.items() if shipped == folder), folder)
        raise CheckpointError(
            f"{name} is quantised already, and its rounding cannot be undone; use it as it is, as --model "
            f"{name}, or convert the checkpoint it was made from"
        )

    if kind == CodecConfig.MODEL_TYPE:
        if settings or dtype:
            raise UnsupportedValue(
                f"{folder} is a codec, which keeps its dtype and is never quantised; leave out the option"
            )
        return {"": _jobs(Codec(folder).part)}, {**copies(folder), "config.json": _config(values)}

    model = ModelFolder(folder)
    small, codec = copies(folder), model.codec.part
    for name in NEEDED:
        if name not in small and TOKENIZER not in small:
            raise lacking(folder, name)
    inside, talker_dtype = codec.folder.name, check_dtype(dtype)
    quantization = _quantize(model, talker_dtype, settings) if settings else {}
    small |= {f"{inside}/{name}": content for name, content in copies(codec.folder).items()}
    small |= {f"{inside}/config.json": _config(codec.values), "config.json": _config(values, dtype) | quantization}
    return {"": _jobs(model.part, talker_dtype), inside: _jobs(codec)}, small


def copies(folder: Path) -> dict[str, bytes]:
    """The small files of a folder that are taken over as they are."""
    return {name: (folder / name).read_bytes() for name in COPIED if (folder / name).is_file()}


def _config(values: Mapping[str, Any], dtype: str | None = None) -> dict[str, Any]:
    """A config.json's values with the layout, and with the new dtype where they name one."""
    values = {key: value for key, value in values.items() if key not in ("quantization", "quantization_config")}
    values |= {key: dtype for key in ("dtype", "torch_dtype") if dtype and key in values}
    return {**values, LAYOUT_KEY: "mlx"}


def _quantize(model: ModelFolder, dtype: mx.Dtype | None, settings: Settings) -> dict[str, Any]:
    """Quantise the model's talker as mlx-lm does, without its weights; returns the blocks for config.json.

    All is lazy: the layers' new names, shapes and settings come out, and not one array is computed.
    """
    from mlx_lm.utils import quantize_model  # takes over a second

    group_size, bits = settings["group_size"], settings["bits"]

    def predicate(path: str, layer: nn.Module) -> bool | dict[str, Any]:
        if isinstance(layer, nn.Embedding):
            own = settings["embedding_bits"] if path == TEXT_EMBEDDING else None
        else:
            own = settings["predictor_bits" if path.startswith("talker.code_predictor.") else "bits"]
        if own is None or own == bits:
            return own is not None
        return {"group_size": group_size, "bits": own, "mode": "affine"}

    whole = nn.Module()  # so that paths start with "talker.", as the published names do
    whole.talker = model.talker
    whole.set_dtype(dtype or model.dtype)
    with contextlib.redirect_stdout(sys.stderr):  # it prints the bits per weight
        _, values = quantize_model(whole, {}, group_size, bits, quant_predicate=predicate)
    layers = sorted(whole.named_modules())
    if not any(isinstance(layer, nn.QuantizedLinear) for _, layer in layers):
        raise InvalidValue(
            f"q_group_size {group_size} divides no layer's width, so nothing can be quantised; lower it",
            param="q_group_size",
        )
    # mlx-lm passes over a width that the group size does not divide, without asking the predicate.
    left = [path for path, layer in layers if isinstance(layer, nn.Linear | nn.Embedding) and predicate(path, layer)]
    if left:
        warnings.warn(
            f"left unquantised, as group size {group_size} does not divide the width: {', '.join(left)}", stacklevel=4
        )
    return values


def _jobs(part: Part, talker_dtype: mx.Dtype | None = None) -> list[Job]:
    """What to write of a part's tensors, in the order of its networks."""
    shapes = {name: shape for name, (shape, _) in expected_shapes(part.modules).items()}
    layers = quantised_layers(part.modules)
    jobs = []
    for name, (_, transposed) in part.expected.items():
        source = part.tensors[name]
        dtype = STORED[source.dtype]
        if talker_dtype and name.startswith("talker."):
            dtype = talker_dtype
        axes = to_mlx_axes(transposed) if transposed is not None and part.layout == "official" else None
        path, _, leaf = name.rpartition(".")
        if leaf == "weight" and path in layers:
            layer = layers[path]
            outputs = {name: (mx.uint32, shapes[name])}
            outputs |= {f"{path}.{extra}": (dtype, shapes[f"{path}.{extra}"]) for extra in ("scales", "biases")}
            how = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
            jobs.append(Job(source, outputs, dtype, quantization=how))
        else:
            jobs.append(Job(source, {name: (dtype, shapes[name])}, dtype, axes))
    return jobs


USE_MODEL = """\
from mlx_qwen3tts import Qwen3TTS

tts = Qwen3TTS.from_pretrained("FOLDER OR ID")
speech = tts.generate("Hello.", {})
speech.save("out.wav")"""
VOICES = {
    "base": 'voice=tts.clone("speaker.wav")',
    "custom_voice": "voice=tts.speakers[0]",
    "voice_design": 'instruct="A calm, low voice."',
}
USE_CODEC = """\
from mlx_qwen3tts import Codec

codec = Codec.from_pretrained("FOLDER OR ID")
audio = codec.decode(codec.encode("speaker.wav"))"""


def model_card(hf_path: str | Path, values: Mapping[str, Any], dtype: str | None, settings: Settings | None) -> bytes:
    """README.md of a converted model, as bytes. values: its config.json."""
    folder = Path(hf_path).expanduser()
    local = folder.is_dir()
    source = folder.resolve().name if local else str(hf_path)  # a folder's own name, not the way to it
    codec = values["model_type"] == CodecConfig.MODEL_TYPE
    head = ["license: apache-2.0", "library_name: mlx", "tags:", "- mlx", "- qwen3-tts"]
    head += [] if codec else ["pipeline_tag: text-to-speech"]
    head += [] if local else [f"base_model: {source}"]
    done = ["- convolution weights: [out, kernel, in]"]
    if not codec:
        done.append(f"- talker and code predictor: {dtype or 'dtype as in the source'}")
    done.append(f"- {'' if codec else 'speaker encoder and '}codec: dtype as in the source")
    if settings:
        group = f"in groups of {settings['group_size']}"
        done.append(f"- linear layers of the talker: {settings['bits']} bits {group}")
        done.append(f"- linear layers of the code predictor: {settings['predictor_bits']} bits {group}")
    if settings and settings["embedding_bits"]:
        done.append(f"- text embedding: {settings['embedding_bits']} bits {group}")
    use = USE_CODEC if codec else USE_MODEL.format(VOICES[values["tts_model_type"]])
    lines = ["---", *head, "---", f"# {source.rpartition('/')[2]} for MLX", ""]
    lines += [f"Converted from {source} by mlx-qwen3tts {__version__}. The tensors keep their published names."]
    lines += ["", *done, "", "```python", use, "```", "", "License: Apache 2.0, as the source's.", ""]
    return "\n".join(lines).encode()
