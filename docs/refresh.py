"""Run the commands of a document and put in what they print, so that it stays true.

    python docs/refresh.py docs/voices.md --real DIR [--work FOLDER] [--check]
    python docs/refresh.py docs/server.md --serve [--work FOLDER] [--check]

`docs/material.py` makes what the commands start from, out of DIR, in FOLDER (default: a temporary one), where
they run in the document's order. What is run:

- ```console blocks: lines that begin with `$ ` are commands for bash, continued by a backslash at a line's end; the
  rest is what they print, stdout and stderr together. A command that fails stops everything unless its block is marked
  ```console fails, and there one that does not fail stops everything.
- ```python blocks, each in a process of its own; what one prints is the ```text block after it.

With --serve there is a server of the miniature for them instead of the material. The document shows it at PORT; it runs
on a free one.

Then every picture that the document shows from `pictures/` is copied from FOLDER. With --check nothing is written: the
exit status is 1 where something differs, and pictures are not compared, as they depend on fonts.

What is timed (TIMED) is not compared, and stays as it is where nothing else has changed. Other numbers may differ in
their last digits, and sampled speech altogether, on another machine. The sentences around the blocks are written by
hand: read them again when a number changes.
"""

import argparse
import contextlib
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PORT = ":8880"  # of a server, as documents show it
LARGEST = 150_000  # bytes of a picture
TIMED = re.compile(r"(?<= s of speech in )\S+ s: RTF [\d.]+(, [\d.]+ frames/s, peak memory [\d.]+ GB)?")
FENCE = re.compile(r"^```(\w*)( fails)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\((pictures/([^)]+))\)")


class RefreshError(Exception):
    """A document that cannot be read, or a command that did not do what the document says."""


@dataclass
class Block:
    """kind: console, python, text or another language; body: the lines between the fences, which begin at `start` and
    end at `end` in the document; fails: whether its commands are to fail."""

    kind: str
    fails: bool
    body: str
    start: int
    end: int


def read(text):
    """The fenced blocks of a document, in order."""
    return [Block(m[1], bool(m[2]), m[3], m.start(3), m.end(3)) for m in FENCE.finditer(text)]


def commands(body):
    """The commands of a console block with their continuation lines, without `$ `; RefreshError where it begins
    otherwise."""
    found, going_on = [], False
    for line in body.splitlines():
        if going_on:
            found[-1] += f"\n{line}"
        elif line.startswith("$ "):
            found.append(line[2:])
        elif not found:
            raise RefreshError(f"a console block begins with {line!r}, not with a command")
        going_on = (going_on or line.startswith("$ ")) and line.endswith("\\")
    return found


class Runner:
    """Runs commands and snippets in a folder, with this Python as `python` and this repository's package."""

    def __init__(self, folder):
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"COLUMNS": "100", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, "PYTHON": sys.executable}
        self.folder, self.environment = folder, {**os.environ, **own}

    def command(self, command, fails=False):
        """What a bash command prints, on stdout and stderr."""
        script = f'set -o pipefail; python() {{ "$PYTHON" "$@"; }}\n{command}'
        return self._run(["bash", "-c", script], command, fails)

    def snippet(self, code):
        """What a piece of Python prints."""
        return self._run([sys.executable, "-"], code, False, code)

    def _run(self, arguments, shown, fails, given=""):
        print(shown.splitlines()[0], file=sys.stderr)
        done = subprocess.run(
            arguments,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )
        if (done.returncode != 0) != fails:
            how = "did not fail" if fails else f"failed with status {done.returncode}"
            raise RefreshError(f"this {how}:\n{shown}\n{done.stdout}")
        return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def run(text, runner):
    """The document with what its blocks print now."""
    blocks, changes = read(text), []
    for i, block in enumerate(blocks):
        if block.kind == "console":
            printed = (f"$ {command}\n{runner.command(command, block.fails)}" for command in commands(block.body))
            changes.append((block, "".join(printed)))
        elif block.kind == "python":
            after = blocks[i + 1] if i + 1 < len(blocks) else None
            shown = after is not None and re.fullmatch(r"```\s*```text\n", text[block.end : after.start]) is not None
            printed = runner.snippet(block.body)
            if printed and not shown:
                raise RefreshError(f"this prints something, and no text block follows it:\n{block.body}\n{printed}")
            if shown:
                changes.append((after, printed))
    for block, body in reversed(changes):
        if TIMED.sub("", body) != TIMED.sub("", block.body):
            text = text[: block.start] + body + text[block.end :]
    return text


def pictures(text):
    """The paths of the pictures that a document shows, from its own folder."""
    return [match[1] for match in PICTURE.finditer(text)]


def copy_pictures(text, work, folder):
    """Copy the pictures that the commands made to where the document shows them."""
    for name in pictures(text):
        source = work / Path(name).name
        if not source.is_file():
            raise RefreshError(f"the document shows {name}, and no command made {source.name}")
        if source.stat().st_size > LARGEST:
            raise RefreshError(f"{source.name} has {source.stat().st_size} bytes, more than {LARGEST}")
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / name)


@contextlib.contextmanager
def serving(work):
    """A server of the miniature, with the library `voices` in a folder. Yields its port, as `:12345`."""
    command = [sys.executable, "-m", "mlx_qwen3tts.serve", "--model", "miniature", "--port", "0", "--max-batch", "1"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=work, env=Runner(work).environment)
    try:
        told = next((line for line in server.stderr if line.startswith("ready: ")), None)
        if told is None:
            raise RefreshError("the server did not start")
        yield re.search(r":\d+(?=/)", told)[0]
    finally:
        server.terminate()
        server.communicate(timeout=30)


def refresh(document, work, check=False, port=PORT):
    """Run a document in a prepared folder. Returns the lines of a diff, none where it was true; with `check` nothing
    is written. port: of the server that it talks to."""
    old = document.read_text(encoding="utf-8")
    new = run(old.replace(PORT, port), Runner(work)).replace(port, PORT)
    if not check:
        copy_pictures(new, work, document.parent)
        document.write_text(new, encoding="utf-8")
    return list(difflib.unified_diff(old.splitlines(), new.splitlines(), "before", "now", n=1, lineterm=""))


def prepare(work, real):
    """Make the material of the walk in a new folder."""
    command = [sys.executable, ROOT / "docs" / "material.py", work, "--real", real]
    subprocess.run(command, check=True, env=Runner(work).environment)


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("document", type=Path)
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--real", help="folder of real x-vectors with labels.json")
    source.add_argument("--serve", action="store_true", help="a server of the miniature instead of the material")
    options.add_argument("--work", type=Path, help="folder to work in, new or empty (default: a temporary one)")
    options.add_argument("--check", action="store_true", help="write nothing; exit status 1 where something differs")
    given = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        try:
            if given.serve:
                with serving(work) as port:
                    differences = refresh(given.document, work, given.check, port)
            else:
                prepare(work, given.real)
                differences = refresh(given.document, work, given.check)
        except (RefreshError, subprocess.CalledProcessError) as error:
            sys.exit(f"{given.document}: {error}")
    print("\n".join(differences) or f"{given.document}: all as it was")
    sys.exit(1 if given.check and differences else 0)


if __name__ == "__main__":
    main()
