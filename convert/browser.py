"""Pack what the page /browser computes with, and write the page as files for any web server; `make browser` calls it.

    python -m convert.browser                       puts onnxruntime-web from npm into the package
    python -m convert.browser --output DIR [--model M] [--library L]    and writes the page with M's encoder to DIR

DIR needs no server of ours: `python -m http.server --directory DIR` shows it. It holds vectors that anybody who sees
the page can take: those that came with the model and those of the library L, without voices whose owner refused or
whose consent is not known.
"""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from mlx_qwen3tts import cli
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.speaker import load_encoder_alone
from mlx_qwen3tts.checkpoint.speaker_onnx import build
from mlx_qwen3tts.errors import InvalidValue
from mlx_qwen3tts.files.json_text import json_text
from mlx_qwen3tts.files.output import check_folder, whole_file
from mlx_qwen3tts.server import browser, pages
from mlx_qwen3tts.voices.library.library import Library

EXAMPLES = """\
  python -m convert.browser
  python -m convert.browser --output page --model miniature
"""
PACKAGE = "onnxruntime-web@1.30.0"
SHA256 = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}  # of the files that are taken, and no others are
FREE = ("not-needed", "given")  # consents of voices that may be in a folder for everybody


def right(path):
    """Whether a file is there and is the one that was tried."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[path.name]


def pack():
    """Have npm fetch the runtime, and put its files into the package. Nothing is fetched where they are there."""
    to = browser.RUNTIME
    if all(right(to / name) for name in SHA256):
        return
    if shutil.which("npm") is None:
        raise InvalidValue(f"npm is not installed; it fetches {PACKAGE}, which the page computes with")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            said = done.stderr.strip().splitlines() or ["no reason was given"]
            raise InvalidValue(f"npm pack {PACKAGE} failed: {said[0]}")
        with tarfile.open(archives[0]) as archive:
            for name in SHA256:
                (Path(folder) / name).write_bytes(archive.extractfile(f"package/dist/{name}").read())
        wrong = [name for name in SHA256 if not right(Path(folder) / name)]
        if wrong:
            raise InvalidValue(f"{PACKAGE}: {wrong[0]} is not the file that was tried here; nothing is kept")
        to.mkdir(exist_ok=True)
        for name in SHA256:
            with whole_file(to / name) as temporary:
                shutil.copyfile(Path(folder) / name, temporary)
    cli.note(f"{to}: {PACKAGE}, {sum((to / name).stat().st_size for name in SHA256) / 1e6:.1f} MB")


def shared(folder, library):
    """The voices of a model's folder and of a library that may be shown to everybody, and how many may not."""
    libraries = [Library(path) for path in (library, folder / "voices") if path is not None and path.is_dir()]
    found = {}
    for one in libraries:
        for name in one.names:
            found.setdefault(name, one[name].replace(name=name))
    free = [voice for voice in found.values() if voice.consent in FREE]
    return free, len(found) - len(free)


def write(folder, target, library=None):
    """The page as files in `target`, which is made if need be."""
    encoder, _ = load_encoder_alone(folder)
    voices, kept_back = shared(folder, library)
    told = browser.about(folder.name, folder.name, encoder, voices)
    files = {
        f"browser/{browser.ABOUT}": json_text({**told, "missing": [], "studio": False}).encode(),
        f"browser/{browser.ENCODER}": build(encoder, folder.name, from_mel=True).SerializeToString(),
        **{f"browser/{name}": (browser.RUNTIME / name).read_bytes() for name in SHA256},
        **{f"static/{name}": (pages.STATIC / name).read_bytes() for name in pages.parts(browser.PAGE)},
        "static/htm-LICENSE.txt": (pages.STATIC / "htm-LICENSE.txt").read_bytes(),
    }
    files["index.html"] = files.pop(f"static/{browser.PAGE}")
    for name, data in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_bytes(data)
    size = sum(map(len, files.values())) / 1e6
    cli.note(f"{target}: the page with the encoder and {len(told['voices'])} voices of {folder.name}, {size:.1f} MB")
    if kept_back:
        cli.note(f"{kept_back} voices are left out: consent to them is refused or not known")
    cli.note(f"see it with: python -m http.server --directory {target}")


def build_parser():
    options = cli.Parser(
        prog="python -m convert.browser",
        description="Pack onnxruntime-web for the page /browser, and write the page as a folder for any web server.",
        epilog=f"examples:\n{EXAMPLES}",
    )
    options.add_argument("--output", type=Path, metavar="DIR", help="folder to write the page to, made if need be")
    options.add_argument(
        "--model", default="miniature", metavar="M", help="whose encoder the folder gets (default: miniature)"
    )
    options.add_argument("--library", type=Path, metavar="DIR", help="folder of voices that the folder gets too")
    return options


def run(options):
    if options.output is not None:
        check_folder(options.output, "--output")
    if options.library is not None and not options.library.is_dir():
        raise InvalidValue(f"--library {options.library} is not a folder")
    folder = None if options.output is None else hub.resolve(options.model, hub.ALONE)
    pack()
    if folder is not None:
        write(folder, options.output, options.library)


def main(arguments=None):
    cli.run(run, build_parser().parse_args(arguments))


if __name__ == "__main__":
    main()
