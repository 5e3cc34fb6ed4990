"""Run the commands of a document and put in what they print, so that it stays true.

    python docs/refresh.py docs/voices.md --real DIR [--work FOLDER] [--check]
    python docs/refresh.py docs/server.md --serve [--work FOLDER] [--check]

The document's blocks run in its order in FOLDER (default: a temporary one), which looks like a clone after `make demo`:
the repository's files are linked there, `demo/` has been made and the environment is active. With --real, the folder
`vectors` is there as well. What is run:

- ```bash blocks: commands, as a reader would paste them; what they print is not shown.
- ```console blocks: lines that begin with `$ ` are commands for bash, continued by a backslash at a line's end; the
  rest is what they print, stdout and stderr together. A command that fails stops everything unless its block is marked
  ```console fails, and there one that does not fail stops everything. `cd` holds for the blocks below it.
- ```python blocks, each in a process of its own; what one prints is the ```text block after it.

A block is skipped where the document says that the reader may lack something (one of NEEDS): by "**Needs …**" in the
paragraph before the block, or by "This section **needs …**", which holds for the blocks up to the next heading.

With --serve there is a server of the miniature for them instead of the material. The document shows it at PORT; it runs
on a free one.

Then every picture that the document shows from `pictures/` is copied from where the commands made it. With --check
nothing is written: the exit status is 1 where something differs. Pictures are not compared, as they depend on fonts.

What is timed (TIMED) is not compared, and stays as it is where nothing else has changed. Other numbers may differ in
their last digits, and sampled speech altogether, on another machine. The sentences around the blocks are written by
hand: read them again when a number changes.
"""

import argparse
import contextlib
import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PORT = ":8880"  # of a server, as documents show it
LARGEST = 150_000  # bytes of a picture
TIMED = re.compile(
    r"(?<= s of speech in )\S+ s: RTF [\d.]+(, [\d.]+ frames/s, peak memory [\d.]+ GB)?|(?<= s in )[\d.]+(?= s, stop)"
    r"|(?<=to compute: )\S+ \S+(?= s for a second of sound)"
)
FENCE = re.compile(r"^```(\w*)( fails)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ .*$", re.MULTILINE)
NEEDED = re.compile(r"\*\*Needs ([^*:]+?):?\*\*")
SECTION = re.compile(r"This section \*\*needs ([^*:]+?)\*\*")
VECTORS = "36 vectors"
NEEDS = ("a network", "a published checkpoint", "a Mac", "a GPU", "a sound device", VECTORS)
PICTURE = re.compile(r"!\[[^\]]*\]\((pictures/([^)]+))\)")


class RefreshError(Exception):
    """A document that cannot be read, or a command that did not do what the document says."""


@dataclass
class Block:
    """kind: bash, console, python, text or another language; body: the lines between the fences, which begin at `start`
    and end at `end` in the document; fails: whether its commands are to fail; needs: what readers may lack."""

    kind: str
    fails: bool
    body: str
    start: int
    end: int
    needs: str | None = None


def read(text):
    """The fenced blocks of a document, in order."""
    blocks, after, section = [], 0, None
    for match in FENCE.finditer(text):
        *headings, prose = HEADING.split(text[after : match.start()])
        if headings:
            section = None
        section = _need(SECTION, prose) or section
        needs = section or _need(NEEDED, prose.strip().split("\n\n")[-1])
        blocks.append(Block(match[1], bool(match[2]), match[3], match.start(3), match.end(3), needs))
        after = match.end()
    return blocks


def _need(pattern, prose):
    """What a marker in the prose says is needed, or None; RefreshError where it is not one of NEEDS."""
    found = pattern.search(" ".join(prose.split()))
    if found and found[1] not in NEEDS:
        raise RefreshError(f"{found[0]!r} does not name one of {', '.join(NEEDS)}")
    return found[1] if found else None


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
        folder = Path(folder)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"COLUMNS": "100", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, "PYTHON": sys.executable}
        self.folder, self.environment = folder, {**os.environ, **own}

    def command(self, command, fails=False):
        """What a bash command prints, on stdout and stderr. The folder that it goes to is where the next one runs."""
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as place:
            ends = f"trap 'pwd > {shlex.quote(place.name)}' EXIT"
            script = f'set -eo pipefail; {ends}; python() {{ "$PYTHON" "$@"; }}\n{command}'
            printed = self._run(["bash", "-c", script], command, fails)
            self.folder = Path(place.read().strip())
        return printed

    def snippet(self, code):
        """What a piece of Python prints."""
        return self._run([sys.executable, "-c", code], code, False)

    def _run(self, arguments, shown, fails):
        print(shown.splitlines()[0], file=sys.stderr)
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
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


def run(text, runner, has=()):
    """The document with what its blocks print now; has: those of NEEDS that are there."""
    blocks, changes = read(text), []
    for i, block in enumerate(blocks):
        if block.needs is not None and block.needs not in has:
            continue
        if block.kind == "bash":
            runner.command(block.body)
        elif block.kind == "console":
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
    """Copy the pictures that the commands made, in `work` or a folder in it, to where the document shows them."""
    folders = [path for path in sorted(work.iterdir()) if path.is_dir() and not path.is_symlink()]
    for name in pictures(text):
        source = next((file for place in (work, *folders) if (file := place / Path(name).name).is_file()), None)
        if source is None:
            raise RefreshError(f"the document shows {name}, and no command made {Path(name).name}")
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


def refresh(document, work, check=False, has=(), port=PORT):
    """Run a document in a prepared folder. Returns the lines of a diff, none where it was true; with `check` nothing
    is written. port: of the server that it talks to."""
    old = document.read_text(encoding="utf-8")
    new = run(old.replace(PORT, port), Runner(work), has).replace(port, PORT)
    if not check:
        copy_pictures(new, work, document.parent)
        document.write_text(new, encoding="utf-8")
    return list(difflib.unified_diff(old.splitlines(), new.splitlines(), "before", "now", n=1, lineterm=""))


def link(work, real=None):
    """Make a folder look like a clone: links to what the repository has, and to the real vectors as `vectors`."""
    for part in ROOT.iterdir():
        if part.name == ".venv" or not part.name.startswith("."):
            (work / part.name).symlink_to(part)
    if real is not None:
        (work / "vectors").symlink_to(Path(real).resolve())


def prepare(work, real=None):
    """Make a folder look like a clone after `make demo`."""
    work.mkdir(exist_ok=True)
    link(work, real)
    Runner(work).command("python -m mlx_qwen3tts.demo")


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("document", type=Path)
    options.add_argument("--real", help="folder of real x-vectors with labels.json; without it some blocks are skipped")
    options.add_argument("--serve", action="store_true", help="a server of the miniature instead of the material")
    options.add_argument("--work", type=Path, help="folder to work in, new or empty (default: a temporary one)")
    options.add_argument("--check", action="store_true", help="write nothing; exit status 1 where something differs")
    given = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        try:
            if given.serve:
                with serving(work) as port:
                    differences = refresh(given.document, work, given.check, port=port)
            else:
                prepare(work, given.real)
                differences = refresh(given.document, work, given.check, (VECTORS,) if given.real else ())
        except (RefreshError, subprocess.CalledProcessError) as error:
            sys.exit(f"{given.document}: {error}")
    print("\n".join(differences) or f"{given.document}: all as it was")
    sys.exit(1 if given.check and differences else 0)


if __name__ == "__main__":
    main()
