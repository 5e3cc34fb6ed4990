"""The official folder WORK/official, from the trained talker and the closed miniature's codec and speaker encoder, and
WORK/converted, quantised, as it would be shipped.

    python -m training.open export WORK

The speaker encoder's last layer is widened to the talker's width by `prompts.widening`, which keeps all angles between
vectors. Prints the SHA-256 sum of each official file and the bytes of the converted ones.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts.checkpoint.folder import ENCODER, ModelFolder
from mlx_qwen3tts.checkpoint.weights import to_mlx_axes

from . import likeness
from .codec import folder as codec_folder
from .config import BITS, GROUP, MOST, PACKAGE, PREDICTOR_BITS
from .corpus import SPEAKER
from .prompts import widening
from .tokens import FILES

LAST = f"{ENCODER}fc"


def official(part, tensors):
    """Tensors {name: array} of a converted folder with the axes of the published ones."""
    found = {}
    for name, tensor in tensors.items():
        transposed = part.expected[name][1]
        back = None if transposed is None else np.argsort(to_mlx_axes(transposed)).tolist()
        found[name] = tensor if back is None else mx.contiguous(tensor.transpose(back))
    return found


def widened(tensors, width, path):
    """The speaker encoder's tensors, its last layer as wide as the talker; published axes [out, in, 1].

    path: of the map of likeness, which comes before.
    """
    weight, bias = (tensors[f"{LAST}.{leaf}"].astype(mx.float32) for leaf in ("weight", "bias"))
    matrix = mx.array(widening(weight.shape[0], width))
    if path.is_file():
        found = mx.load(str(path))
        matrix, bias = matrix @ found["map"].T, bias - found["centre"]
    wide = (matrix @ weight[..., 0])[..., None]
    return tensors | {f"{LAST}.weight": wide, f"{LAST}.bias": matrix @ bias}


def write(work, dtype=mx.bfloat16):
    """WORK/official; dtype: of all but the codec, bfloat16 as published."""
    data, folder = work / "data", work / "official"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "speech_tokenizer").mkdir(parents=True)
    settings = json.loads((data / "config.json").read_text())
    shipped = ModelFolder(PACKAGE)
    own = mx.load(str(PACKAGE / "model.safetensors"))
    encoder = official(shipped.part, {name: value for name, value in own.items() if name.startswith(ENCODER)})
    if (work / "codec" / SPEAKER).is_file():
        encoder = mx.load(str(work / "codec" / SPEAKER))
    tensors = widened(encoder, settings["talker_config"]["hidden_size"], work / likeness.NAME)
    trained = mx.load(str(work / "talker.safetensors"))
    tensors = {name: value.astype(dtype) for name, value in (tensors | trained).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    inside = "speech_tokenizer/model.safetensors"
    trained = codec_folder(work)
    if trained.parent == PACKAGE:
        codec = official(shipped.codec.part, mx.load(str(PACKAGE / inside)))
        mx.save_safetensors(str(folder / inside), codec, metadata={"format": "pt"})
    else:
        shutil.copy(trained / "model.safetensors", folder / inside)
    (folder / "config.json").write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    for name in ("generation_config.json", "preprocessor_config.json", "speech_tokenizer/preprocessor_config.json"):
        shutil.copy(PACKAGE / name, folder / name)
    values = json.loads((trained / "config.json").read_text())
    values.pop("conv_layout", None)
    (folder / "speech_tokenizer" / "config.json").write_text(json.dumps(values, indent=1) + "\n")
    for name in FILES:
        shutil.copy(data / name, folder / name)
    return folder


def add_options(options):
    del options  # it has none of its own


def main(options):
    work = Path(options.work)
    folder = write(work)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}  {path.stat().st_size}")
    line = [sys.executable, "-m", "mlx_qwen3tts.convert", "--hf-path", folder, "--mlx-path", work / "converted"]
    line += [
        "--quantize",
        "--q-bits",
        BITS,
        "--q-predictor-bits",
        PREDICTOR_BITS,
        "--q-group-size",
        GROUP,
        "--overwrite",
    ]
    subprocess.run([str(part) for part in line], check=True)
    size = sum(path.stat().st_size for path in (work / "converted").rglob("*") if path.is_file())
    print(f"converted: {size / 1e6:.2f} MB")
    if size > MOST:
        sys.exit(f"export: {size / 1e6:.2f} MB are above {MOST / 1e6:.0f}")
