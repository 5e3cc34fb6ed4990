"""The documents: their commands parse and name what is there by then; docs/refresh.py puts in what they print."""

import fnmatch
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest

from docs import material, refresh
from mlx_qwen3tts.audio.formats import FORMATS
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.voices.expression import Sum, parse
from mlx_qwen3tts.voices.voice import SUFFIXES

ROOT = Path(__file__).parents[1]
WALK = ROOT / "docs" / "voices.md"
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").glob("*.md")),
]
OURS = re.compile(r"(?:\$ )?(?:python -m )?(mlx_qwen3tts\.\w+|convert\.export_onnx)(?= |$)")


def words(command):
    """The arguments of the first command of a bash line, without pipes, redirections and comments."""
    lexer = shlex.shlex(re.sub(r"\d>&\d|\\\n", " ", command), posix=True, punctuation_chars="|<>&;")
    lexer.whitespace_split, found = True, []
    for word in lexer:
        if set(word) <= set("|<>&;"):
            break
        found.append(word)
    return found


def shown(document):
    """(module, its arguments, whether it is to fail) of all our commands in a document's blocks, in order."""
    for block in refresh.read(document.read_text(encoding="utf-8")):
        if block.kind in ("bash", "console"):
            for line in block.body.replace("\\\n", "").splitlines():
                if match := OURS.match(line):
                    yield match[1], words(line[match.end() :]), block.fails


ALL = [(document.name, *entry[:2]) for document in DOCUMENTS for entry in shown(document)]


@pytest.mark.parametrize(("name", "module", "arguments"), ALL, ids=[f"{n}: {m} {' '.join(a)}" for n, m, a in ALL])
def test_command_parses(name, module, arguments):
    import_module(module).build_parser().parse_args(arguments)


def test_the_walk_shows_most_of_voices():
    used = {arguments[0] for _, module, arguments in ALL if module == "mlx_qwen3tts.voices"}
    assert used >= {"add", "list", "show", "tag", "blend", "measure", "space", "direction", "search", "map", "export"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_refers_to_is_there(document):
    text = document.read_text(encoding="utf-8")
    outside = refresh.FENCE.sub("", text)
    for name in refresh.pictures(text):
        assert (document.parent / name).stat().st_size <= refresh.LARGEST
    for target in re.findall(r"\]\(([^)\s]+)\)", outside):
        if not target.startswith("https://"):
            file, _, heading = target.partition("#")
            path = document.parent / file if file else document
            assert path.exists(), target
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
            assert not heading or heading in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]


class World:
    """What there is by a command of the walk: files, and of every library its voices and directions."""

    def __init__(self):
        self.files, self.voices, self.directions = {*material.files(), *hub.SHIPPED}, {"real": set()}, {}

    def file(self, pattern):
        assert any(fnmatch.fnmatch(file, pattern) for file in self.files), f"nothing has made {pattern}"

    def voice(self, text, library):
        """An expression, a voice file or a recording."""
        if Path(text).suffix in (*FORMATS, *SUFFIXES):
            self.file(text)
            return
        terms = list(parse(text).terms)
        while terms:
            _, what = terms.pop()
            if isinstance(what, Sum):
                terms += what.terms
            elif what.direction:
                self.direction(what.name, library)
            else:
                assert what.name in self.voices[library], f"no voice {what.name}"

    def direction(self, name, library):
        name = name.removeprefix("@")
        assert name in self.directions.get(library, ()) or f"{name}.safetensors" in self.files, f"no direction {name}"

    def make(self, options, library):
        """What a command leaves behind."""
        if getattr(options, "output", None):
            self.files.add(options.output)
        if getattr(options, "add", None):
            self.voices.setdefault(library, set()).add(options.add)


def voices(world, options):
    """A command of mlx_qwen3tts.voices: what it needs, then what it makes."""
    library, command = getattr(options, "library", None), options.command
    if command == "direction":
        command += f" {options.action}"
    for place in ("csv", "model", "space"):
        if getattr(options, place, None):
            world.file(getattr(options, place))
    for field in {"add": ["source"], "blend": ["expression"], "apply": ["voice"], "interp": ["start", "end"],
                  "search": ["query"], "show": ["name"], "tag": ["name"]}.get(command, []):  # fmt: skip
        world.voice(getattr(options, field), library)
    for name in options.names if command == "direction show" else []:
        world.direction(name, library)
    for field in {"direction orthogonal": ["one", "other"], "map": ["x", "y"], "apply": ["direction"]}.get(command, []):
        if getattr(options, field):
            world.direction(getattr(options, field), library)
    for audio in options.audio if command == "measure" else []:
        world.file(audio)
    if command == "add":
        world.voices.setdefault(library, set()).add(options.name)
    if command.startswith("direction") and getattr(options, "name", None):
        world.directions.setdefault(library, set()).add(options.name)
    world.make(options, library)


def others(world, options):
    """Any other command."""
    world.file(options.model)
    given = getattr(options, "audio", [])
    for audio in [given] if isinstance(given, str) else given:
        world.file(audio.removeprefix("walk/"))  # from the folder above
        if options.output.endswith("/"):  # embed into a library
            stems = {Path(file).stem for file in world.files if fnmatch.fnmatch(file, audio)}
            world.voices.setdefault(options.output.rstrip("/"), set()).update(stems)
    for field in ("voice", "morph_to"):
        if getattr(options, field, None):
            world.voice(getattr(options, field), "voices")
    if getattr(options, "voices", None):  # diarize, of a meeting of so many
        world.files |= {f"{options.voices}/speaker_{i + 1}.safetensors" for i in range(len(set(material.MEETING)))}
    world.make(options, "voices")


def test_the_walk_names_only_what_is_there():
    world = World()
    first = [line for block in refresh.read(WALK.read_text(encoding="utf-8")) for line in block.body.splitlines()][:5]
    assert [line for line in first if line.startswith("$ ")] == ["$ python docs/material.py walk", "$ cd walk"]
    for module, arguments, fails in shown(WALK):
        if not fails:
            options = import_module(module).build_parser().parse_args(arguments)
            (voices if module == "mlx_qwen3tts.voices" else others)(world, options)
    assert {"both", "deeper", "anna", "leo-angry"} <= world.voices["voices"]
    assert {Path(name).name for name in refresh.pictures(WALK.read_text(encoding="utf-8"))} <= world.files


def test_the_walk_says_only_what_the_miniature_can_speak():
    """Its texts are of the words of the material, which its vocabulary has."""
    known = {word.lower() for text in (*material.LINES, material.PEOPLE_SAY) for word in re.findall(r"\w+", text)}
    for module, arguments, fails in shown(WALK):
        if module == "mlx_qwen3tts.generate" and not fails:
            text = import_module(module).build_parser().parse_args(arguments).text
            assert {word.lower() for word in re.findall(r"\w+", text)} <= known


# docs/refresh.py

DOCUMENT = """\
# A page

```console
$ echo old && python -c 'print(6 * 7)'
what it printed once
$ echo one \\
    two | tr a-z A-Z
```

```python
import sys

print("to stdout")
print("to stderr", file=sys.stderr)
```

```text
```

```python
silent = True
```

```
$ is run by nobody
```

```bash
cd below
echo and printed by nobody
```

```console
$ basename "$PWD"
```

Readers may lack this. **Needs a network:**

```console
$ false
```

```console fails
$ echo so far && exit 3
```

## Elsewhere

This section **needs 36 vectors**.

```console
$ echo these
```

In words.

```bash
echo the section goes on; false
```

## At the end

![A picture](pictures/dot.png) in words.
"""
REFRESHED = """\
# A page

```console
$ echo old && python -c 'print(6 * 7)'
old
42
$ echo one \\
    two | tr a-z A-Z
ONE TWO
```

```python
import sys

print("to stdout")
print("to stderr", file=sys.stderr)
```

```text
to stdout
to stderr
```

```python
silent = True
```

```
$ is run by nobody
```

```bash
cd below
echo and printed by nobody
```

```console
$ basename "$PWD"
below
```

Readers may lack this. **Needs a network:**

```console
$ false
```

```console fails
$ echo so far && exit 3
so far
```

## Elsewhere

This section **needs 36 vectors**.

```console
$ echo these
```

In words.

```bash
echo the section goes on; false
```

## At the end

![A picture](pictures/dot.png) in words.
"""


@pytest.fixture
def page(tmp_path):
    """A function that writes a document in a folder of its own, with a folder beside it to work in."""
    (tmp_path / "work").mkdir()
    (tmp_path / "docs").mkdir()

    def write(text):
        document = tmp_path / "docs" / "page.md"
        document.write_text(text)
        return document, tmp_path / "work"

    return write


def test_refresh(page):
    document, work = page(DOCUMENT)
    (work / "below").mkdir()  # where a command made it
    (work / "below" / "dot.png").write_bytes(b"dot")
    differences = refresh.refresh(document, work)
    assert document.read_text() == REFRESHED
    assert (document.parent / "pictures" / "dot.png").read_bytes() == b"dot"
    assert "-what it printed once" in differences and "+42" in differences
    assert refresh.refresh(document, work) == []
    with pytest.raises(refresh.RefreshError, match="the section goes on"):
        refresh.refresh(document, work, has=("36 vectors",))


def test_check_writes_nothing(page):
    document, work = page(DOCUMENT)
    (work / "below").mkdir()
    assert "+42" in refresh.refresh(document, work, check=True)
    assert document.read_text() == DOCUMENT
    assert not (document.parent / "pictures").exists()


@pytest.mark.parametrize(("text", "status"), [(DOCUMENT, 1), (REFRESHED, 0)])
def test_check_from_the_command_line(page, monkeypatch, capsys, text, status):
    document, work = page(text)
    (work / "below").mkdir()
    monkeypatch.setattr(refresh, "prepare", lambda *given: None)
    with pytest.raises(SystemExit) as stopped:
        refresh.main([str(document), "--work", str(work), "--check"])
    assert stopped.value.code == status
    assert ("+42" in capsys.readouterr().out) == (status == 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```console\n$ echo before && false\n```\n", "this failed with status 1:\necho before && false\nbefore"),
        ("```console\n$ false | cat\n```\n", "failed with status 1"),
        ("```console fails\n$ true\n```\n", "this did not fail"),
        ("```console\nprinted by nothing\n```\n", "begins with 'printed by nothing'"),
        ("```python\nprint(1)\n```\n\nA sentence.\n\n```text\n1\n```\n", "no text block follows"),
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
        ("```bash\nfalse\ntrue\n```\n", "this failed with status 1"),
        ("**Needs a miracle:**\n\n```bash\ntrue\n```\n", "**Needs a miracle:**' does not name one of a network"),
        ("![Nothing](pictures/nothing.png)\n", "no command made nothing.png"),
    ],
)
def test_refresh_fails_loudly(page, text, message):
    document, work = page(text)
    with pytest.raises(refresh.RefreshError, match=re.escape(message)):
        refresh.refresh(document, work)
    assert document.read_text() == text


def test_a_large_picture_is_refused(page, monkeypatch):
    document, work = page("![Large](pictures/large.png)\n")
    (work / "large.png").write_bytes(b"12345")
    monkeypatch.setattr(refresh, "LARGEST", 4)
    with pytest.raises(refresh.RefreshError, match=r"large\.png has 5 bytes"):
        refresh.refresh(document, work)


def test_timings_are_not_compared(page):
    told = "1.84 s of speech in {} s: RTF {}, {} frames/s, peak memory 0.06 GB, seed 1"
    text = f"```console\n$ echo '{told.format(9, 9, 9)}'\n{{}}\n```\n"
    before = text.format(told.format("1.27", "0.69", "18.1"))
    document, work = page(before)
    assert refresh.refresh(document, work) == []
    assert document.read_text() == before
    document, work = page(text.format(told.format("1.27", "0.69", "18.1").replace("1.84", "1.92")))
    assert len(refresh.refresh(document, work)) > 0


def test_a_folder_that_looks_like_a_clone(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "work").mkdir()
    refresh.link(tmp_path / "work", tmp_path / "real")
    assert (tmp_path / "work" / "docs" / "refresh.py").is_file() and (tmp_path / "work" / "vectors").is_dir()
    assert (tmp_path / "work" / "Makefile").is_file() and not (tmp_path / "work" / ".git").exists()


def test_python_is_this_one(page):
    document, work = page("```console\n$ python -c 'import sys; print(sys.executable)'\n```\n")
    refresh.refresh(document, work)
    assert sys.executable in document.read_text()
