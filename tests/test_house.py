"""The house rules: what may stand where, which room may import which, and that no private name is used next door.

Read from the source alone, by its syntax trees. CONTRIBUTING.md says the same in words.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "mlx_qwen3tts"

# A room imports from those before it, from itself, and from what is everybody's.
ROOMS = (
    "files",
    "networks",
    "audio",
    "checkpoint",
    "voices",
    "provenance",
    "diarization",
    "synthesis",
    "cluster",
    "scripts",
    "server",
    "desktop",
    "tuning",
)
# Rooms side by side: neither imports the other.
BESIDE = (("server", "desktop", "tuning"),)
EVERYBODYS = ("errors", "checks")
NOT_COMMANDS = ("__init__", "__main__", "cli", *EVERYBODYS)  # files at the top
# Commands that are too large for one file at the top, and that lie in a room.
COMMANDS_IN_ROOMS = re.compile(r"voices\.(__main__|commands(\..+|_\w+)?)")
LONGEST = 450  # lines of a file of the package
OUTSIDE = ("tests", "benchmarks", "convert", "examples", "docs", "training")


@dataclass(frozen=True)
class Source:
    """One file: its place below the root, its code, and the names of the module in it (without the package's)."""

    path: Path
    code: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.code, str(self.path))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def inside(self) -> bool:
        return self.path.parts[0] == PACKAGE and self.path.suffix == ".py"

    @property
    def module(self) -> str:
        """`voices.algebra` of mlx_qwen3tts/voices/algebra.py; `voices.__init__` of its __init__.py."""
        return ".".join(self.path.with_suffix("").parts[1:])

    @property
    def room(self) -> str:
        """The room of a file of the package; "commands" of a command, the module's own name of others at the top."""
        first, _, rest = self.module.partition(".")
        if COMMANDS_IN_ROOMS.fullmatch(self.module) or not (rest or first in NOT_COMMANDS):
            return "commands"
        return first

    def imports(self) -> Iterator[tuple[int, str]]:
        """(line, module or name below the package) of all that is imported from it, at whatever depth of the code."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found = [alias.name.split(".") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = [*self.path.parts[: -node.level]] if node.level else []
                found = [base + (node.module or "").split(".") * bool(node.module) + [a.name] for a in node.names]
            else:
                continue
            yield from ((node.lineno, ".".join(names[1:])) for names in found if names[0] == PACKAGE)

    def says(self, line: int, what: str) -> str:
        return f"{self.path}:{line}: {what}"


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(source: Source) -> set[str]:
    """The private names that a file makes: functions, classes, variables, attributes."""
    found = set()
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return set(filter(private, found))


def used(source: Source) -> Iterator[tuple[int, str]]:
    """(line, private name) of what is imported, taken as an attribute, or named in a string, as monkeypatch does."""
    for line, target in source.imports():
        yield from ((line, name) for name in target.split(".") if private(name))
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and private(node.attr):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            last = node.value.rpartition(".")[2]
            if private(last) and re.fullmatch(r"[\w.]+", node.value):
                yield node.lineno, last


def sources(root: Path) -> list[Source]:
    """The Python files of the repository, and of each document its Python blocks, at their lines."""
    found = [
        Source(path.relative_to(root), path.read_text(encoding="utf-8"))
        for folder in (PACKAGE, *OUTSIDE)
        for path in sorted((root / folder).rglob("*.py"))
    ]
    for path in sorted([*root.glob("*.md"), *(root / "docs").glob("*.md")]):
        code, copying = "", False
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("```"):
                copying = line == "```python"
                line = ""
            code += (line if copying else "") + "\n"
        found.append(Source(path.relative_to(root), code))
    return found


def top_files(files: list[Source]) -> Iterator[str]:
    """A file at the top of the package is a command, with main and build_parser."""
    for source in files:
        if source.inside and "." not in source.module and source.module not in NOT_COMMANDS:
            functions = {node.name for node in source.tree.body if isinstance(node, ast.FunctionDef)}
            if missing := sorted({"main", "build_parser"} - functions):
                yield source.says(1, f"a file at the top is a command, and this has no {' and no '.join(missing)}")


def short_files(files: list[Source]) -> Iterator[str]:
    """A file of the package holds one concept, which takes few lines."""
    for source in files:
        if source.inside and (lines := len(source.code.splitlines())) > LONGEST:
            yield source.says(lines, f"a file has at most {LONGEST} lines")


def one_way(files: list[Source]) -> Iterator[str]:
    """Rooms import from the rooms before them, cli from files, and nothing imports a command but its own door."""
    rooms = {source.module: source.room for source in files if source.inside}
    for source in files:
        room = source.room
        if not source.inside or source.module in ("__init__", "__main__"):  # the doors to everything
            continue
        if room not in (*ROOMS, "commands", "cli", *EVERYBODYS):
            yield source.says(1, f"the room {room} has no place in the order of rooms")
            continue
        for line, target in source.imports():
            names = target.split(".")
            modules = [".".join(names[:count]) for count in range(1, len(names) + 1)]
            known = [name for name in modules if name in rooms or f"{name}.__init__" in rooms]
            if target == "__version__" or not known:
                if target != "__version__" and room != "commands":
                    yield source.says(line, f"{room} imports {target} from the door, not from a room")
                continue
            where = rooms.get(known[-1]) or rooms[f"{known[-1]}.__init__"]
            if where == room or where in EVERYBODYS or room == "commands":
                continue
            if where == "commands" and source.path.name == "__init__.py" and target.startswith(f"{room}.__main__"):
                continue  # hands on main and build_parser of its own room
            if room == "cli" and where == "files":
                continue  # knows how JSON is written
            beside = any({where, room} <= set(pair) for pair in BESIDE)
            if where in ROOMS and room in ROOMS and ROOMS.index(where) < ROOMS.index(room) and not beside:
                continue
            yield source.says(line, f"{room} imports {target} of {where}")


def private_names(files: list[Source]) -> Iterator[str]:
    """What begins with an underscore is used in its own room alone; the world outside the package uses none."""
    makers: dict[str, set[str]] = {}
    for source in files:
        if source.inside:
            for name in defined(source):
                makers.setdefault(name, set()).add(source.room)
    for source in files:
        own = defined(source)
        for line, name in sorted(set(used(source))):
            rooms = makers.get(name, set())
            if rooms and name not in own and not (source.inside and source.room in rooms):
                yield source.says(line, f"{name} is private to {', '.join(sorted(rooms))}")


RULES = (top_files, short_files, one_way, private_names)


@pytest.fixture(scope="module")
def ours():
    """All of this repository, read and parsed once."""
    return sources(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule, ours):
    findings = list(rule(ours))
    assert not findings, "\n".join(findings)


def test_all_of_it_is_read(ours):
    read = {source.path.as_posix() for source in ours}
    assert {f"{PACKAGE}/voices/algebra.py", "tests/test_house.py", "docs/refresh.py", "README.md"} <= read
    assert {source.room for source in ours if source.inside} >= {*ROOMS, "commands", "cli", *EVERYBODYS}


COMMAND = "def build_parser(): ...\ndef main(): ...\n"
# A house in order, and what may be done to it.
HOUSE = {
    "mlx_qwen3tts/__init__.py": "from .voices.voice import Voice\n__version__ = '1'",
    "mlx_qwen3tts/__main__.py": "from .cli import dispatch",
    "mlx_qwen3tts/cli.py": "from .errors import Error",
    "mlx_qwen3tts/errors.py": "class Error(ValueError): ...",
    "mlx_qwen3tts/checks.py": "from .errors import Error",
    "mlx_qwen3tts/generate.py": f"from . import cli, __version__\nfrom .synthesis.tts import TTS\n{COMMAND}",
    "mlx_qwen3tts/files/output.py": "from .. import errors\n_open = 1\ndef write(): return _open",
    "mlx_qwen3tts/voices/__init__.py": "from .__main__ import main",
    "mlx_qwen3tts/voices/__main__.py": f"from .. import cli, synthesis\nfrom . import commands\n{COMMAND}",
    "mlx_qwen3tts/voices/commands.py": "from .. import cli\nfrom .voice import Voice",
    "mlx_qwen3tts/voices/voice.py": (
        "from __future__ import annotations\nimport json\nfrom ..files import output\nfrom ..checks import number\n"
        "class Voice:\n    def _norm(self): return self._cached\n    _cached = 1"
    ),
    "mlx_qwen3tts/voices/library/library.py": "from ..voice import Voice\nVoice._norm",
    "mlx_qwen3tts/scripts/script.py": "from ..synthesis.tts import TTS",
    "mlx_qwen3tts/server/app.py": "from ..synthesis.tts import TTS",
    "mlx_qwen3tts/synthesis/__init__.py": "",
    "mlx_qwen3tts/synthesis/tts.py": (
        "from ..voices import voice\nfrom .. import __version__\nclass TTS:\n    def _step(self): ..."
    ),
    "tests/test_tts.py": "import mlx_qwen3tts\nfrom mlx_qwen3tts.synthesis.tts import TTS\n_own = 1\nmodule._own",
    "README.md": "Text with _step and\n```python\nfrom mlx_qwen3tts import Voice\n```\n```\ntts._step()\n```\n",
}


def house(folder: Path, changes: dict[str, str]) -> list[str]:
    """What the rules find in a made-up house."""
    for name, code in {**HOUSE, **changes}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code)
    return [finding for rule in RULES for finding in rule(sources(folder))]


def test_a_house_in_order(tmp_path):
    assert house(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("file", "code", "finding"),
    [
        ("helpers.py", "def main(): ...", "1: a file at the top is a command, and this has no build_parser"),
        ("files/safe.py", "\n" * 451, "451: a file has at most 450 lines"),
        ("cellar/wine.py", "", "1: the room cellar has no place in the order of rooms"),
        ("files/safe.py", "\nfrom ..voices.voice import Voice", "2: files imports voices.voice.Voice of voices"),
        ("files/safe.py", "from .. import voices", "1: files imports voices of voices"),
        ("files/safe.py", "import mlx_qwen3tts.voices.voice as v", "1: files imports voices.voice of voices"),
        (
            "voices/voice.py",
            "def f():\n    from ..synthesis import tts",
            "2: voices imports synthesis.tts of synthesis",
        ),
        ("scripts/safe.py", "from ..server import app", "1: scripts imports server.app of server"),
        ("tuning/safe.py", "from ..server import app", "1: tuning imports server.app of server"),
        ("voices/voice.py", "from .. import cli", "1: voices imports cli of cli"),
        ("voices/voice.py", "from .commands import add", "1: voices imports voices.commands.add of commands"),
        ("voices/voice.py", "from ..generate import main", "1: voices imports generate.main of commands"),
        (
            "voices/voice.py",
            "from .. import Voice",
            "1: voices imports Voice from the door, not from a room",
        ),
        ("errors.py", "from .files import output", "1: errors imports files.output of files"),
        ("cli.py", "from .generate import main", "1: cli imports generate.main of commands"),
        ("checkpoint/weights.py", "from ..files.output import _open", "1: _open is private to files"),
        ("checkpoint/weights.py", "from ..files import output\noutput._open", "2: _open is private to files"),
        ("generate.py", f"from .synthesis.tts import TTS\n{COMMAND}TTS()._step()", "4: _step is private to synthesis"),
        ("voices/__main__.py", "from .voice import Voice\nVoice._norm", "2: _norm is private to voices"),
    ],
)
def test_a_broken_rule_is_found(tmp_path, file, code, finding):
    assert house(tmp_path, {f"mlx_qwen3tts/{file}": code}) == [f"mlx_qwen3tts/{file}:{finding}"]


@pytest.mark.parametrize(
    ("file", "code", "line"),
    [
        ("tests/test_tts.py", "from mlx_qwen3tts.files.output import _open", 1),
        ("benchmarks/bench.py", "from mlx_qwen3tts.files import output\n\noutput._open()", 3),
        ("convert/make.py", "import mlx_qwen3tts\nmlx_qwen3tts.files.output._open", 2),
        ("examples/speak.py", "monkeypatch.setattr(output, '_open', None)", 1),
        ("docs/refresh.py", "monkeypatch.setattr('mlx_qwen3tts.files.output._open', None)", 1),
        ("README.md", "Text.\n\n```python\nfrom mlx_qwen3tts.files.output import write\n\nwrite._open\n```\n", 6),
    ],
)
def test_a_private_name_outside_the_package_is_found(tmp_path, file, code, line):
    assert house(tmp_path, {file: code}) == [f"{file}:{line}: _open is private to files"]
