"""The codec that was trained on open texts, as the official folder WORK/codec/speech_tokenizer.

    python -m training.open codec WORK

From there `resynthesis`, `corpus`, `export` and `evaluate` take it; without it they take the shipped one. As long as
there is no decoder.pt the decoder is the shipped one, and of use for nothing: but the codes are those of encoder.pt, so
that `corpus` can run beside the stage `decoder`.
"""

import hashlib
import json
import shutil
from pathlib import Path

from safetensors import safe_open

from .config import PACKAGE

FOLDER = "speech_tokenizer"


def folder(work):
    """The codec's folder: WORK/codec/speech_tokenizer, or the shipped one where that is not there."""
    own = Path(work) / "codec" / FOLDER
    return own if (own / "model.safetensors").is_file() else PACKAGE / FOLDER


def name(work):
    """The hash of the encoder's weights, of which codes are made."""
    found = hashlib.sha256()
    with safe_open(folder(work) / "model.safetensors", "np") as file:
        for key in sorted(file.keys()):
            if key.startswith("encoder."):
                found.update(key.encode() + file.get_tensor(key).tobytes())
    return found.hexdigest()


def add_options(options):
    del options  # it has none of its own


def main(options):
    import torch
    from safetensors.torch import save_file

    from .. import codec
    from ..decoder import Vocoder
    from ..encoder import Quantised

    work = Path(options.work) / "codec"

    def kept(name):
        return torch.load(work / f"{name}.pt", weights_only=False, map_location="cpu")["keep"]["model"]

    if (work / "decoder.pt").is_file():
        model = Vocoder()
        model.load_state_dict(kept("decoder"))
    else:
        model, trained = Quantised(PACKAGE / FOLDER), kept("encoder")
        model.load_state_dict({k: v for k, v in trained.items() if not k.startswith("phones.")})
        model.quantiser.export(model.codec)
    out = work / FOLDER
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    (out / "config.json").write_text(json.dumps(codec.config(), indent=1) + "\n")
    shutil.copy(PACKAGE / FOLDER / "preprocessor_config.json", out)
    tensors = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.codec.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
