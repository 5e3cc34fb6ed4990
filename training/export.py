"""Stage 7: the official folder, WORK/official, from what the stages have trained, and the hash of each of its files.

python -m training.export WORK
"""

import hashlib
from pathlib import Path

import torch

from . import checkpoint, codec
from .decoder import Vocoder
from .stage import arguments, parser


def main():
    options = arguments(parser(minutes=0))
    work = Path(options.work)
    talker = _kept(work, "talker")
    tensors = {f"talker.{name}": value for name, value in talker.items()}
    encoder = torch.load(work / "speaker_encoder.pt", weights_only=False)["tensors"]
    tensors |= {f"speaker_encoder.{name}": value for name, value in encoder.items()}
    model = Vocoder()
    model.load_state_dict(_kept(work, "decoder"))
    folder = work / "official"
    checkpoint.write(folder, tensors, codec.config(), model.codec.state_dict())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            print(f"{digest}  {path.relative_to(folder)}  {path.stat().st_size}")


def _kept(work, name):
    return torch.load(work / f"{name}.pt", weights_only=False, map_location="cpu")["keep"]["model"]


if __name__ == "__main__":
    main()
