"""Codes of the official implementation for the shipped miniature, as a golden for the tests.

    python -m training.golden WORK --torch-python PYTHON [--package FOLDER --output FILE.npz]

The shipped weights are quantised. They are written out as the numbers they stand for, in the published layout and
float32; the official package loads that folder, and what it says greedily goes to tests/assets/miniature_codes.npz.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np

from .evaluate import LINES
from .ship import PACKAGE, ROOT

OFFICIAL = """
import sys
import numpy as np
import soundfile
import torch
import training.official
from qwen_tts import Qwen3TTSModel

folder, recordings, out, lines = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
model = Qwen3TTSModel.from_pretrained(folder, dtype=torch.float32)
kept, generate = {}, model.model.generate
def hooked(*args, **kwargs):
    result = generate(*args, **kwargs)
    kept["codes"] = result[0]
    return result
model.model.generate = hooked
found = {}
for name in ("low", "high"):
    prompt = model.create_voice_clone_prompt(ref_audio=f"{recordings}/{name}.flac", x_vector_only_mode=True)
    found[f"{name}_vector"] = prompt[0].ref_spk_embedding.float().numpy().reshape(-1)
    for number, text in enumerate(lines):
        for mode in ("streaming", "full"):
            model.generate_voice_clone(
                text=text, language="English", voice_clone_prompt=prompt, non_streaming_mode=mode == "full",
                do_sample=False, subtalker_dosample=False, max_new_tokens=200,
            )
            found[f"{name}_{mode}_{number}"] = kept["codes"][0].numpy().astype(np.int32)
np.savez_compressed(out, **found)
"""


def write_official(official, shipped, folder):
    """The official folder in float32, its talker holding the numbers that the shipped one's few bits stand for."""
    shutil.copytree(official, folder)
    settings = json.loads((shipped / "config.json").read_text())["quantization"]
    packed = mx.load(str(shipped / "model.safetensors"))
    tensors = {name: value.astype(mx.float32) for name, value in mx.load(str(folder / "model.safetensors")).items()}
    for name in tensors:
        stem = name.removesuffix(".weight")
        if f"{stem}.scales" in packed:
            own = settings[stem] if isinstance(settings.get(stem), dict) else settings
            # in float32: with bfloat16 scales the numbers would come out rounded
            scales, biases = (packed[f"{stem}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
            value = mx.dequantize(packed[name], scales, biases, group_size=own["group_size"], bits=own["bits"])
            if value.shape != tensors[name].shape:
                raise ValueError(f"{name} is {value.shape} in one folder and {tensors[name].shape} in the other")
            tensors[name] = value
        elif name.startswith("talker."):
            tensors[name] = packed[name].astype(mx.float32)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--package", type=Path, default=PACKAGE, help="the shipped folder (default: the package's)")
    parser.add_argument("--output", type=Path, default=ROOT / "tests" / "assets" / "miniature_codes.npz")
    options = parser.parse_args()
    package, out = options.package.resolve(), options.output.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "official"
        write_official(options.work / "official", package, folder)
        command = [options.torch_python, "-c", OFFICIAL, str(folder), str(package / "recordings"), str(out), *LINES]
        subprocess.run(command, check=True, cwd=ROOT)
        with np.load(out) as found:
            print({name: found[name].shape for name in found.files})


if __name__ == "__main__":
    main()
