"""The codec that was trained on open texts, as the official folder WORK/codec/speech_tokenizer.

    python -m training.open codec WORK

From there `resynthesis`, `corpus`, `export` and `evaluate` take it; without it they take the shipped one.
"""

import hashlib
import json
import shutil
from pathlib import Path

from .config import PACKAGE

FOLDER = "speech_tokenizer"


def folder(work):
    """The codec's folder: WORK/codec/speech_tokenizer, or the shipped one where that is not there."""
    own = Path(work) / "codec" / FOLDER
    return own if (own / "model.safetensors").is_file() else PACKAGE / FOLDER


def name(work):
    """The hash of the codec's weights, of which codes are made."""
    return hashlib.sha256((folder(work) / "model.safetensors").read_bytes()).hexdigest()


def add_options(options):
    del options  # it has none of its own


def main(options):
    import torch
    from safetensors.torch import save_file

    from .. import codec
    from ..decoder import Vocoder

    work = Path(options.work) / "codec"
    model = Vocoder()
    model.load_state_dict(torch.load(work / "decoder.pt", weights_only=False, map_location="cpu")["keep"]["model"])
    out = work / FOLDER
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    (out / "config.json").write_text(json.dumps(codec.config(), indent=1) + "\n")
    shutil.copy(PACKAGE / FOLDER / "preprocessor_config.json", out)
    tensors = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.codec.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
