"""Write the goldens that the parity tests read: outputs of the official package on the suite's random checkpoints.

    python -m convert.make_goldens --reference-python ENV/bin/python [--out tests/goldens] [--seed-offset N]

Run in the project's environment; the official package runs in its own, given by --reference-python. A seed offset gives
the same suite on other weights, for a live run. `manifest.json` keeps a digest of each checkpoint's weights.
"""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

from convert.random_checkpoint import write_checkpoint

from .parity import materialise, run_reference
from .suite import SUITE


def make_checkpoint(name, folder, seed_offset=0):
    """Write a suite checkpoint and return (folder, its speaker dimension)."""
    arguments = dict(SUITE[name][0])
    arguments["seed"] += seed_offset
    folder = write_checkpoint(Path(folder) / name, **arguments)
    return folder, json.loads((folder / "config.json").read_text())["talker_config"]["hidden_size"]


def digest(folder):
    """SHA-256 over both weight files."""
    total = hashlib.sha256()
    for file in ("model.safetensors", "speech_tokenizer/model.safetensors"):
        total.update((folder / file).read_bytes())
    return total.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests" / "goldens")
    parser.add_argument("--seed-offset", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    manifest = {}
    with tempfile.TemporaryDirectory() as work:
        for name, (_, cases) in SUITE.items():
            folder, dimension = make_checkpoint(name, work, options.seed_offset)
            made = materialise(cases, work, dimension)
            run_reference(folder, made, options.out / f"{name}.npz", options.reference_python)
            manifest[name] = {"seed_offset": options.seed_offset, "weights_sha256": digest(folder)}
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
