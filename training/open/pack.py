"""WORK/data and the modules that `talker` needs, as one archive for a machine with torch, NumPy and safetensors.

    python -m training.open pack WORK [--out open.tar]

There:

    tar xf open.tar
    python -m training.open talker open --minutes 12 --device cuda --precision bfloat16 --compile --workers 8

What comes back is open/talker.safetensors with its CSVs; put it into WORK and go on with `export`.
"""

import tarfile
from pathlib import Path

MOST = 60e6
MODULES = (
    "__init__.py",
    "__main__.py",
    *(
        f"open/{name}.py"
        for name in ("__init__", "__main__", "talker", "prompts", "packing", "model", "loop", "curve", "inventory")
    ),
    "open/curve.csv",
)


def add_options(options):
    options.add_argument("--out", type=Path, help="(default: WORK/open.tar)")


def main(options):
    work, here = Path(options.work), Path(__file__).parents[1]
    out = options.out or work / "open.tar"
    with tarfile.open(out, "w") as archive:
        for name in MODULES:
            if (here / name).is_file():
                archive.add(here / name, f"training/{name}")
        for path in sorted((work / "data").iterdir()):
            archive.add(path, f"open/data/{path.name}")
    size = out.stat().st_size
    print(f"{out}: {size / 1e6:.1f} MB")
    if size > MOST:
        raise SystemExit(f"pack: {size / 1e6:.1f} MB are above {MOST / 1e6:.0f}")
