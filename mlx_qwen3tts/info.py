"""`mlx_qwen3tts.info`: what a model folder holds, read from its headers alone; or the settings in force."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli
from .errors import InvalidValue

if TYPE_CHECKING:
    from .checkpoint.codec import Codec
    from .checkpoint.folder import ModelFolder

# What the names of tensors begin with, and the part of the model that they belong to; the first that fits counts.
QUANTISED = {"talker.code_predictor.": "talker.code_predictor", "talker.model.text_embedding": "text_embedding"}
QUANTISED |= {"talker.": "talker", "speaker_encoder.": "speaker_encoder"}

EXAMPLES = """\
  mlx_qwen3tts.info
  mlx_qwen3tts.info miniature
  mlx_qwen3tts.info --model Qwen/Qwen3-TTS-12Hz-0.6B-Base --json
  mlx_qwen3tts.info --config
"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("info", __doc__, EXAMPLES)
    options.add_argument("name", nargs="?", metavar="M", help="the same as --model M")
    cli.add_model(options)
    options.add_argument("--config", action="store_true", help="show the settings in force and where they come from")
    cli.add_json(options)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(info, build_parser().parse_args(arguments))


def describe(model: str | Path) -> dict[str, Any]:
    """Type, size, speakers, languages, dtypes, quantisation and bytes of a model folder or hub id, as a dict."""
    from .checkpoint import hub
    from .checkpoint.codec import Codec
    from .checkpoint.folder import ModelFolder
    from .checkpoint.presets import preset_names
    from .checkpoint.weights import read_json
    from .networks.config import CodecConfig

    folder = hub.resolve(model)
    if read_json(folder / "config.json").get("model_type") == CodecConfig.MODEL_TYPE:
        codec = Codec(folder)
        return {"model": str(model), "type": "codec", **_codec(codec), "memory": {"total": codec.part.bytes}}
    checkpoint = ModelFolder(folder)
    config, part = checkpoint.config, checkpoint.part
    prefixes = ("talker.code_predictor.", "talker.", "speaker_encoder.")
    sizes: dict[str, int] = dict.fromkeys(prefixes, 0)
    for name, tensor in part.tensors.items():
        sizes[next(prefix for prefix in prefixes if name.startswith(prefix))] += tensor.bytes
    return {
        "model": str(model),
        "type": config.model_type,
        "size": config.model_size,
        "embedding_dim": config.talker.hidden_size,
        "speakers": preset_names(config),
        "languages": config.languages,
        **({"words": list(config.vocabulary.words)} if config.vocabulary else {}),
        "dtypes": part.dtypes,
        "conv_layout": part.layout,
        "quantization": _quantization(checkpoint),
        "codec": _codec(checkpoint.codec),
        "memory": {
            **{prefix.strip("."): size for prefix, size in sizes.items()},
            "codec": checkpoint.codec.part.bytes,
            "total": part.bytes + checkpoint.codec.part.bytes,
        },
    }


def _quantization(checkpoint: "ModelFolder") -> dict[str, Any] | None:
    """The settings that config.json gives for all layers, and under `parts` those that each part of the model has."""
    from .checkpoint.quantization import quantised_layers, settings_of

    layers = quantised_layers(checkpoint.part.modules)
    if not layers:
        return None
    parts: dict[str, list[dict[str, Any]]] = {}
    for path, layer in layers.items():
        part = next(part for prefix, part in QUANTISED.items() if path.startswith(prefix))
        how = {"bits": layer.bits, "group_size": layer.group_size, "mode": layer.mode}
        known = next((own for own in parts.setdefault(part, []) if how.items() <= own.items()), None)
        if known:
            known["layers"] += 1
        else:
            parts[part].append({**how, "layers": 1})
    return {**settings_of(checkpoint.values["quantization"]), "parts": parts}


def _line(part: str, settings: list[dict[str, Any]]) -> str:
    """A part's quantisation for people."""
    several = len(settings) > 1
    return f"{part} " + " and ".join(
        f"{own['bits']} bits in groups of {own['group_size']}"
        + ("" if own["mode"] == "affine" else f", {own['mode']}")
        + (f" ({own['layers']} layers)" if several else "")
        for own in settings
    )


def _codec(codec: "Codec") -> dict[str, Any]:
    return {
        "sample_rate": codec.sample_rate,
        "samples_per_frame": codec.samples_per_frame,
        "codebooks": codec.num_codebooks,
        "dtypes": codec.part.dtypes,
    }


def _model(options: argparse.Namespace) -> str:
    if options.name is None:
        return options.model
    if options.model not in (options.name, cli.usual_model()):
        raise InvalidValue(f"{options.name!r} and --model {options.model!r}: info describes one model at a time")
    return options.name


def show_config(options: argparse.Namespace) -> None:
    """Every setting, its value and its source."""
    from .files import configuration

    found = configuration.settings()
    if options.json:
        cli.print_json({name: {"value": one.value, "source": one.source} for name, one in found.items()})
        return
    for name, one in found.items():
        print(f"{name:8} {'not set' if one.value is None else one.value}  ({one.source})")
    where = configuration.path()
    cli.note(f"configuration file: {where}{'' if where.is_file() else ', which does not exist'}")


def info(options: argparse.Namespace) -> None:
    if options.config:
        if options.name is not None:
            raise InvalidValue(f"--config describes the settings, not a model: leave out {options.name!r}")
        show_config(options)
        return
    found = describe(_model(options))
    if options.json:
        cli.print_json(found)
        return
    for key, value in found.items():
        if key == "memory":
            value = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in value.items() if size)
        elif key == "quantization" and value:
            value = "; ".join(_line(*part) for part in sorted(value["parts"].items()))
        elif isinstance(value, dict):
            value = ", ".join(
                f"{name} {' '.join(part) if isinstance(part, list) else part}" for name, part in value.items()
            )
        elif isinstance(value, list):
            value = ", ".join(value)
        print(f"{key:18} {'none' if value in (None, '') else value}")


if __name__ == "__main__":
    main()
