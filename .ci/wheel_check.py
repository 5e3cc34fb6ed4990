"""Build sdist and wheel, install the wheel in a new environment, and use it from an empty folder, outside the checkout.

    python .ci/wheel_check.py [--out DIR]

The wheel is built from the unpacked sdist, so both are complete or this fails. Dependencies come from the package
index; what is tried needs neither network nor a checkpoint. Needs git, and a Python from 3.10 on; takes a minute.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import wave
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "mlx_qwen3tts"
LARGEST_FILE, LARGEST_SDIST = 4_500_000, 12_000_000  # bytes; the miniature's weights are what is large
IN_SDIST = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "docs/api.md", "examples/speak.py")
NOT_IN_SDIST = ("tests", "training", "benchmarks", "convert")


def call(*command, cwd, **options):
    """Run a command without this checkout's influence and return its stdout; what it says is shown where it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nfailed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def environment(folder):
    """A new virtual environment; its folder of programs."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts" if os.name == "nt" else "bin")


def tracked():
    """The files of the repository by their paths; no leftovers of builds and tests."""
    listed = call("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def build(work, programs):
    """sdist and wheel, built from a copy of the tracked files; their paths."""
    source, dist = work / "source", work / "dist"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    call(programs / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "build", cwd=work)
    call(programs / "python", "-m", "build", "--outdir", dist, source, cwd=work)
    [sdist], [wheel] = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return sdist, wheel


def check_contents(sdist, wheel):
    """Every tracked file of the package is in both, the sdist has what it is to have, and nothing large."""
    with tarfile.open(sdist) as archive:
        in_sdist = {m.name.partition("/")[2]: m.size for m in archive.getmembers() if m.isfile()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {member.filename for member in archive.infolist()}
    package = {name for name in tracked() if name.startswith(f"{PACKAGE}/")}
    expect(not package - in_wheel, f"the wheel lacks {sorted(package - in_wheel)}")
    expect(not package - in_sdist.keys(), f"the sdist lacks {sorted(package - in_sdist.keys())}")
    expect(not set(IN_SDIST) - in_sdist.keys(), f"the sdist lacks {sorted(set(IN_SDIST) - in_sdist.keys())}")
    strange = [name for name in in_sdist if name.split("/")[0] in NOT_IN_SDIST]
    strange += [name for name in in_wheel if not name.startswith((f"{PACKAGE}/", f"{PACKAGE}-"))]
    strange = [
        name for name in [*strange, *in_wheel - package] if ".dist-info/" not in name and ".egg-info/" not in name
    ]
    expect(not strange, f"not to be shipped: {strange}")
    large = {name: size for name, size in in_sdist.items() if size > LARGEST_FILE}
    expect(not large and sdist.stat().st_size <= LARGEST_SDIST, f"too large: {large or sdist.stat().st_size}")


def expect(holds, message):
    if not holds:
        sys.exit(f"wheel check: {message}")


def use(work, programs):
    """The commands from an empty folder, as a user of the wheel would type them."""
    python, command = programs / "python", programs / PACKAGE
    where = Path(call(python, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)", cwd=work).strip())
    expect(where.is_relative_to(programs.parent.resolve()), f"the package comes from {where}")

    made = call(command, "demo", cwd=work).split()
    expect({"demo/low.wav", "demo/blend.npy", "demo/pitch.safetensors"} <= {*made}, f"the demo made {made}")
    expect(all((work / name).stat().st_size for name in made), "the demo's files are empty")

    said = ("--model", "miniature", "--embedding", "demo/blend.npy", "--seed", "1", "--output", "hello.wav", "--json")
    spoken = call(programs / f"{PACKAGE}.generate", *said, "Hello, this is my voice.", cwd=work)
    stats = json.loads(spoken.splitlines()[-1])
    with wave.open(str(work / "hello.wav")) as sound:
        seconds = sound.getnframes() / sound.getframerate()
    expect(0.5 < seconds < 10 and stats["seed"] == 1, f"{seconds} s of speech, {stats}")

    recordings = where.parent / "miniature" / "recordings"
    for name in ("low", "high"):
        add = ("add", name, recordings / f"{name}.flac", "--model", "miniature", "--tag", f"pitch={name}")
        call(programs / f"{PACKAGE}.voices", *add, cwd=work)
    call(programs / f"{PACKAGE}.voices", "add", "blend", "low*0.5 + high*0.5", cwd=work)
    call(programs / f"{PACKAGE}.voices", "map", "--output", "map.html", "--color-by", "pitch", cwd=work)
    page = (work / "map.html").read_text(encoding="utf-8")
    expect(
        "<script" in page and all(name in page for name in ("low", "high", "blend")), "the map is not a page of voices"
    )
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep sdist and wheel here")
    options = parser.parse_args()
    begun = time.perf_counter()

    def done(what):
        print(f"{time.perf_counter() - begun:5.0f} s  {what}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        programs = environment(work / "venv")
        sdist, wheel = build(work, programs)
        done(f"built {sdist.name} ({sdist.stat().st_size / 1e6:.1f} MB) and {wheel.name}")
        check_contents(sdist, wheel)
        call(programs / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel, cwd=work)
        version = call(programs / PACKAGE, "--version", cwd=work).strip()
        expect(wheel.name.split("-")[1] == version, f"version {version} of {wheel.name}")
        done(f"installed {version}")
        (work / "empty").mkdir()
        seconds = use(work / "empty", programs)
        done(f"the demo, {seconds:.2f} s of speech and a map, from the wheel")
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            for file in (sdist, wheel):
                shutil.copy(file, options.out)
    print("wheel check passed")


if __name__ == "__main__":
    main()
