"""`mlx_qwen3tts.info`: what a model folder holds, read from its headers alone."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli

if TYPE_CHECKING:
    from .checkpoint.codec import Codec

EXAMPLES = """\
  mlx_qwen3tts.info
  mlx_qwen3tts.info --model Qwen/Qwen3-TTS-12Hz-0.6B-Base --json
"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("info", __doc__, EXAMPLES)
    cli.add_model(options)
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
    quantization = checkpoint.values.get("quantization")
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
        "quantization": quantization and {key: v for key, v in quantization.items() if not isinstance(v, dict)},
        "codec": _codec(checkpoint.codec),
        "memory": {
            **{prefix.strip("."): size for prefix, size in sizes.items()},
            "codec": checkpoint.codec.part.bytes,
            "total": part.bytes + checkpoint.codec.part.bytes,
        },
    }


def _codec(codec: "Codec") -> dict[str, Any]:
    return {
        "sample_rate": codec.sample_rate,
        "samples_per_frame": codec.samples_per_frame,
        "codebooks": codec.num_codebooks,
        "dtypes": codec.part.dtypes,
    }


def info(options: argparse.Namespace) -> None:
    found = describe(options.model)
    if options.json:
        cli.print_json(found)
        return
    for key, value in found.items():
        if key == "memory":
            value = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in value.items() if size)
        elif isinstance(value, dict):
            value = ", ".join(
                f"{name} {' '.join(part) if isinstance(part, list) else part}" for name, part in value.items()
            )
        elif isinstance(value, list):
            value = ", ".join(value)
        print(f"{key:18} {'none' if value in (None, '') else value}")


if __name__ == "__main__":
    main()
