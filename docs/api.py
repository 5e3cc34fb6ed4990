"""docs/api.md from the docstrings: the public names of the package, their signatures and what is said of them.

    python -m docs.api [--check]

Signatures are those of the source, so that every Python and every machine writes the same page.
"""

import argparse
import ast
import dataclasses
import inspect
import sys
import textwrap
from importlib import import_module
from pathlib import Path

from mlx_qwen3tts import errors

PAGE = Path(__file__).parent / "api.md"
PACKAGE = Path(errors.__file__).parent
OURS = "mlx_qwen3tts"  # what the modules are called whose classes are described
MODULES = ("mlx_qwen3tts", "mlx_qwen3tts.voices", "mlx_qwen3tts.scripts")
COMMANDS = ("main", "build_parser")  # voices is a command as well
DECORATORS = {"property": "@property", "cached_property": "@property", "functools.cached_property": "@property"}
DECORATORS |= {name: f"@{name}" for name in ("classmethod", "staticmethod", "contextlib.contextmanager")}
SPECIAL = ("__getitem__", "__contains__", "__iter__", "__len__", "__call__")  # shown where they have a docstring
WIDTH = 100
HEAD = """\
# API

Every public name of the package. This page is made from the docstrings (`make api`); [the README](../README.md) and the
other pages show how the names are used together. Shapes of arrays stand in brackets, as in [frames, codebooks].
"""


def parsed(thing):
    """The syntax tree of a class or function; each of its nodes knows the source that it is read from."""
    code = textwrap.dedent(inspect.getsource(thing))
    tree = ast.parse(code)
    for node in ast.walk(tree):
        node.code = code
    return tree.body[0]


def written(node):
    """A node as the source has it, on one line."""
    return " ".join(ast.get_source_segment(node.code, node).split())


def stub(node, indent=""):
    """A function's decorators of interest, name, parameters and result, one parameter a line where that is needed."""
    decorators = [DECORATORS[name] for name in map(written, node.decorator_list) if name in DECORATORS]
    result = f" -> {written(node.returns)}" if node.returns else ""
    given = parameters(node.args)
    line = f"def {node.name}({', '.join(given)}){result}: ..."
    if len(line) > WIDTH:
        line = f"def {node.name}(\n" + "".join(f"    {one},\n" for one in given) + f"){result}: ..."
    return textwrap.indent("\n".join([*decorators, line]), indent)


def parameters(arguments):
    """The parameters of a function, with the marks between those that may be named and those that must be."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    found = [parameter(*pair) for pair in zip(positional, defaults, strict=True)]
    if arguments.posonlyargs:
        found.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg or arguments.kwonlyargs:
        found.append("*" + (written(arguments.vararg) if arguments.vararg else ""))
    found += [parameter(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        found.append("**" + written(arguments.kwarg))
    return found


def parameter(argument, default):
    if default is None:
        return written(argument)
    space = " " if argument.annotation else ""
    return f"{written(argument)}{space}={space}{written(default)}"


def public(name):
    return not name.startswith("_")


def shown(node):
    """Whether a method has a place on the page: public, or special and explained; a property's setter has none."""
    setter = any(written(decorator).endswith((".setter", ".deleter")) for decorator in node.decorator_list)
    return not setter and (public(node.name) or (node.name in SPECIAL and ast.get_docstring(node)))


def members(cls):
    """{name: definitions} of a class's methods, those that it has from others of ours after its own.

    One with overloads has several definitions; the last is the one that runs.
    """
    found = {}
    for owner in cls.__mro__:
        if owner.__module__.startswith(OURS):
            own = {}
            for node in parsed(owner).body:
                if isinstance(node, ast.FunctionDef) and shown(node):
                    own.setdefault(node.name, []).append(node)
            found |= {name: nodes for name, nodes in own.items() if name not in found}
    return found


def attribute(cls, node):
    """A field of a class; what a dataclass computes a default from is shown as that default."""
    line = f"{node.target.id}: {written(node.annotation)}"
    if isinstance(node.value, ast.Call) and dataclasses.is_dataclass(cls):
        [field] = [field for field in dataclasses.fields(cls) if field.name == node.target.id]
        if field.default_factory is not dataclasses.MISSING:
            return f"{line} = {field.default_factory()!r}"
        if field.default is not dataclasses.MISSING:
            plain = dataclasses.is_dataclass(field.default) and field.default == type(field.default)()
            return f"{line} = {f'{type(field.default).__name__}()' if plain else repr(field.default)}"
        return line
    return f"{line} = {written(node.value)}" if node.value else line


def class_stub(cls):
    """A class with what it is made of: a dataclass's fields, or the parameters of __init__."""
    node = parsed(cls)
    body = [
        f"    {attribute(cls, part)}"
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and public(part.target.id)
    ]
    body += [stub(part, "    ") for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    bases = ", ".join(written(base) for base in node.bases)
    decorators = [f"@{name}" for name in map(written, node.decorator_list) if "dataclass" in name]
    head = f"class {node.name}({bases}):" if bases else f"class {node.name}:"
    return "\n".join([*decorators, head, *body] if body else [*decorators, f"{head} ..."])


def entry(heading, code, text):
    return "\n\n".join(part for part in (heading, f"```python\n{code}\n```", inspect.cleandoc(text or "")) if part)


def describe(name, thing):
    """The entries of one public name."""
    if inspect.isclass(thing):
        yield entry(f"### {name}", class_stub(thing), thing.__doc__)
        for member, nodes in members(thing).items():
            overloads = [node for node in nodes if "overload" in map(written, node.decorator_list)]
            code = "\n".join(map(stub, overloads or nodes[-1:]))
            yield entry(f"#### {name}.{member}", code, ast.get_docstring(nodes[-1]))
    elif inspect.isfunction(thing):
        yield entry(f"### {name}", stub(parsed(thing)), thing.__doc__)
    else:
        yield entry(f"### {name}", f"{name} = {thing!r}", None)


def kinds():
    """All classes of errors of the package, each after what it is made from, as the source has them."""
    found = {"QwenTTSError": errors.QwenTTSError}
    files = [PACKAGE / "errors.py", *sorted(PACKAGE.rglob("*.py"))]
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(getattr(base, "id", None) in found for base in node.bases):
                module = import_module(".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts))
                found.setdefault(node.name, getattr(module, node.name))
    return found.values()


def error_table():
    """Every kind of refusal, with its code."""
    rows = ["| error | code | raised for |", "|---|---|---|"]
    for kind in kinds():
        parents = ", ".join(base.__name__ for base in kind.__bases__)
        said = " ".join(inspect.cleandoc(kind.__doc__).split())
        rows.append(f"| `{kind.__name__}({parents})` | `{kind.code}` | {said} |")
    return "\n".join(rows)


def page():
    """The whole of docs/api.md."""
    told, parts = set(), [HEAD.rstrip()]
    for module in map(import_module, MODULES):
        parts.append(f"## {module.__name__}\n\n{inspect.cleandoc(module.__doc__)}")
        for name in sorted(set(module.__all__) - set(COMMANDS)):
            thing = getattr(module, name)
            if inspect.isclass(thing) and (thing in told or issubclass(thing, errors.QwenTTSError)):
                continue  # is described above, or in the table of errors
            told.add(name)
            if inspect.isclass(thing):
                told.add(thing)
            parts += describe(name, thing)
    parts.append(f"## mlx_qwen3tts.errors\n\n{inspect.cleandoc(errors.__doc__)}\n\n{error_table()}")
    return "\n\n".join(parts) + "\n"


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true", help="write nothing; exit status 1 where the page is old")
    chosen = options.parse_args(arguments)
    text = page()
    if chosen.check:
        sys.exit(text != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
