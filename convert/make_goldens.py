"""Write the goldens that the parity tests read: outputs of the official package on the suite's random checkpoints.

    python -m convert.make_goldens --reference-python ENV/bin/python [--out DIR] [--only NAME …] [--seed-offset N]

Run in the project's environment; the official package runs in its own, given by --reference-python (`make goldens`
builds it with convert/reference_env.sh). A seed offset gives the same suite on other weights, for a live run.
`manifest.json` keeps a digest of each checkpoint's weights; with --only the entries of the others stay as they are.

Each file is compared with the committed one. PyTorch rounds differently on another processor: ids and codes must be
equal, floats lie within 1e-4. Where they do not and --out is another folder, the exit status is 1.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from convert.random_checkpoint import write_checkpoint

from .parity import materialise, run_reference
from .suite import SUITE

GOLDENS = Path(__file__).parent.parent / "tests" / "goldens"
ROUNDING = 1e-4


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


def difference(made, committed):
    """How two golden files differ, in words, and whether that is rounding at most."""
    ours, theirs = dict(np.load(made)), dict(np.load(committed))
    if strange := sorted(ours.keys() ^ theirs.keys()):
        return f"only one of them has {', '.join(strange)}", False
    largest, differing = 0.0, []
    for name, array in ours.items():
        if array.shape != theirs[name].shape or (array.dtype.kind != "f" and (array != theirs[name]).any()):
            differing.append(name)
        elif array.dtype.kind == "f" and array.size:
            largest = np.maximum(largest, np.abs(array - theirs[name]).max())  # NaN stays
    if differing:
        return f"differs in {', '.join(differing)}", False
    return f"ids and codes equal, floats within {largest:.1e}", largest <= ROUNDING


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", required=True)
    parser.add_argument("--out", type=Path, default=GOLDENS)
    parser.add_argument("--only", nargs="+", choices=SUITE, default=list(SUITE), metavar="NAME", help=", ".join(SUITE))
    parser.add_argument("--seed-offset", type=int, default=0)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    manifest_file = options.out / "manifest.json"
    manifest = json.loads(manifest_file.read_text()) if manifest_file.exists() else {}
    equal = True
    with tempfile.TemporaryDirectory() as work:
        for name in options.only:
            folder, dimension = make_checkpoint(name, work, options.seed_offset)
            made = materialise(SUITE[name][1], work, dimension)
            file = Path(work) / f"{name}.npz"
            run_reference(folder, made, file, options.reference_python)
            if not options.seed_offset and (GOLDENS / file.name).exists():
                words, rounding = difference(file, GOLDENS / file.name)
                print(f"{name}: {words}", flush=True)
                equal &= rounding
            shutil.copyfile(file, options.out / file.name)
            manifest[name] = {"seed_offset": options.seed_offset, "weights_sha256": digest(folder)}
    manifest = {name: manifest[name] for name in SUITE if name in manifest}
    manifest_file.write_text(json.dumps(manifest, indent=1) + "\n")
    sys.exit(not equal and options.out.resolve() != GOLDENS.resolve())


if __name__ == "__main__":
    main()
