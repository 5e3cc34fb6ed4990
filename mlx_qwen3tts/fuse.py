"""`mlx_qwen3tts.fuse`: merge an adapter into a model, or make a preset of a voice that was taught."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import cli
from .errors import InvalidValue, listed

if TYPE_CHECKING:
    from .voices.voice import Voice

EXAMPLES = """\
  mlx_qwen3tts.fuse --model base --adapter-path anna-lora --mlx-path anna-model
  mlx_qwen3tts.fuse --model base --adapter-path anna-lora --mlx-path anna-custom --as-preset anna
"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("fuse", __doc__, EXAMPLES)
    cli.add_model(options)
    add = options.add_argument
    add("--adapter-path", required=True, metavar="DIR", help="what `tune lora` made")
    add("--adapter-scale", type=float, default=1.0, metavar="X", help="how much of it (default: 1)")
    add("--mlx-path", "--save-path", required=True, metavar="DIR", help="folder to write")
    add("--dequantize", action="store_true", help="write floats where the model is quantised")
    add(
        "--as-preset",
        action="append",
        default=[],
        metavar="NAME",
        help="write an official custom_voice folder in which the voice of --adapter-path has this name; where it has "
        "several, NAME is that of its file, and the option is given for each",
    )
    add("--overwrite", action="store_true", help="replace the model folder at --mlx-path")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(fuse, build_parser().parse_args(arguments))


def voices_in(folder: Path) -> dict[str, Voice]:
    """The voices in an adapter's folder by the names of their files."""
    from .checkpoint.adapters import TENSORS
    from .voices.voice import Voice

    return {path.stem: Voice.load(path) for path in sorted(folder.glob("*.safetensors")) if path.name != TENSORS}


def presets_of(names: Sequence[str], folder: Path) -> dict[str, Voice]:
    """The voice that each preset is to be. Names become lower-case, as the official package asks for them so."""
    from .voices.library.names import check_name

    names = [check_name(name).lower() for name in names]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise InvalidValue(f"as_preset {sorted(repeated)[0]} is given twice", param="as_preset")
    there = voices_in(folder)
    if len(there) == len(names) == 1:
        return dict(zip(names, there.values(), strict=True))
    known = {name.lower(): voice for name, voice in there.items()}
    for name in names:
        if name not in known:
            has = f"only {listed(list(there), 5)}" if there else "no voice"
            raise InvalidValue(f"as_preset {name}: {folder} has {has}", param="as_preset")
    return {name: known[name] for name in names}


def fuse(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from .checkpoint import hub
    from .checkpoint.adapters import TENSORS, read_adapter, strength
    from .checkpoint.folder import ModelFolder
    from .checkpoint.fusing import fused_card, fusing
    from .checkpoint.writer import check_apart, check_destination, write_model
    from .voices.fit import check_fit

    scale = strength(options.adapter_scale)
    folder = Path(options.adapter_path).expanduser()
    destination = Path(options.mlx_path).expanduser().resolve()
    check_destination(destination, options.overwrite)
    adapter = None
    # Where no adapter spoke better than the x-vector, the folder has a voice alone, which can be a preset.
    if not options.as_preset or not folder.is_dir() or (folder / TENSORS).is_file():
        adapter = read_adapter(folder)
    presets = presets_of(options.as_preset, folder) if options.as_preset else None
    source = hub.resolve(options.model)
    check_apart(source.resolve(), destination)
    model = ModelFolder(source)
    if adapter is not None:
        adapter.check(model)
        adapter = replace(adapter, scale=adapter.scale * scale)
    for voice in (presets or {}).values():
        check_fit(voice, model.config.talker.hidden_size, model.config.model_type, None, cli.note)
    vectors = None if presets is None else {name: voice.embedding for name, voice in presets.items()}
    folders, small = fusing(model, adapter, options.dequantize, vectors)
    small["README.md"] = fused_card(source.resolve().name, adapter, list(presets or ()))
    files, size = write_model(
        destination,
        folders,
        small,
        5 * 10**9,
        options.overwrite,
        lambda name, total: cli.bar(name, "B", total, scale=True),
    )
    cli.note(f"{size / 1e6:.1f} MB written, tensors in {'1 file' if files == 1 else f'{files} files'}")
    if presets:
        cli.note(f"presets: {listed(list(presets), 10)}; generate --voice {next(iter(presets))} speaks with one")
    print(options.mlx_path)


if __name__ == "__main__":
    main()
