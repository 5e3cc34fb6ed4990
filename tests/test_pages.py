"""README.md and docs/streaming.md run from the top, block by block, in what a fresh clone has after `make demo`."""

import json
import multiprocessing
import re
import shlex
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from docs import refresh
from mlx_qwen3tts import demo
from mlx_qwen3tts.audio import measures
from mlx_qwen3tts.checkpoint import hub
from tests.test_docs import OURS, words

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("streaming", "voices", "metal"))]
ENOUGH, FEW = 7, 3  # frames of a speech: half a second, which can be embedded, and what runs a command


def commands(block):
    """The commands of a block, with their continuation lines."""
    if block.kind == "console":
        return refresh.commands(block.body)
    return [line for line in block.body.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def blocks(page):
    return refresh.read(page.read_text(encoding="utf-8"))


def stop_after(frames, miniature):
    """Make a copy of the miniature stop its speech after so many frames."""
    sampling = miniature / "generation_config.json"
    values = json.loads(sampling.read_text())
    sampling.unlink()
    sampling.write_text(json.dumps(values | {"max_new_tokens": frames + 1}))


@pytest.fixture
def clone(tmp_path, monkeypatch, command):
    """A folder like a clone after `make demo`, whose miniature stops its speech after FEW frames."""
    shipped, miniature = hub.SHIPPED["miniature"], tmp_path / "mlx_qwen3tts" / "miniature"
    miniature.mkdir(parents=True)
    for part in shipped.iterdir():
        (miniature / part.name).symlink_to(part)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setitem(hub.SHIPPED, "miniature", miniature)
    stop_after(ENOUGH, miniature)
    with monkeypatch.context() as without:
        without.setattr(demo.importlib.util, "find_spec", lambda name: None)  # no picture: it takes longest
        assert command("demo").status == 0
    stop_after(FEW, miniature)
    return tmp_path


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", PAGES[:2], ids=lambda path: path.name)
@pytest.mark.thorough
def test_every_block_runs_from_the_top(page, clone, command, monkeypatch):
    """Pitch is not measured and processes are threads here: both have tests of their own, and take seconds."""
    monkeypatch.setattr(measures, "f0_track", lambda samples: np.full(3, 100.0))
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: SimpleNamespace(Pool=ThreadPool))
    ran = 0
    for block in blocks(page):
        if block.needs is not None:
            continue
        if block.kind == "python":
            exec(compile(block.body, f"{page.name}: {block.body.splitlines()[0]}", "exec"), {"__name__": "__main__"})
            ran += 1
        for line in commands(block) if block.kind in ("bash", "console") else []:
            if match := OURS.match(line):
                done = command(match[1].removeprefix("mlx_qwen3tts."), *words(line[match.end() :]))
                assert (done.status == 0) != block.fails, f"{line}\n{done.err}"
            else:
                refresh.Runner(clone).command(line)
            ran += 1
    assert ran >= 9


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_begins_with_the_environment(page):
    """The first commands make and activate it, so that whatever comes below finds the package."""
    first = next(block for block in blocks(page) if block.kind in ("bash", "console"))
    assert [shlex.split(line, comments=True) for line in commands(first)[:2]] == [
        ["make", "demo"],
        [".", ".venv/bin/activate"],
    ]
    assert first.needs in ("a network", "a Mac")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_block_says_what_it_is(page):
    """A block without a kind would be skipped in silence, and so would a command in one."""
    for block in blocks(page):
        drawing = block.kind == "" and "──►" in block.body
        assert drawing or block.kind in ("bash", "console", "python", "text"), block.body
        assert block.kind != "text" or not re.search(r"^(\$ |python )", block.body, re.MULTILINE)


def test_what_is_skipped_is_what_the_page_says():
    """The network, checkpoints and devices: nothing else is left out of README."""
    skipped = {block.needs for block in blocks(PAGES[0])}
    assert skipped == {None, "a network", "a published checkpoint", "a sound device"}
    for block in blocks(PAGES[0]):
        online = re.search(r"\bmake demo|--hf-path [A-Z]|--model (custom|design)|--ref-text|--play", block.body)
        assert (block.needs is not None) == (online is not None and block.kind == "bash"), block.body
