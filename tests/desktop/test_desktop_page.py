"""docs/desktop.md: what its commands and its program print is what they print, and it names every setting."""

import platform
from pathlib import Path

import pytest

from docs import refresh
from mlx_qwen3tts.desktop import launching
from mlx_qwen3tts.files import configuration
from mlx_qwen3tts.server import tools
from mlx_qwen3tts.server.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "desktop.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(platform.system() != "Linux", reason="it shows what is printed on Linux")
@pytest.mark.thorough
def test_everything_it_shows_is_what_is_printed(tmp_path, monkeypatch):
    for name in configuration.KNOWN:
        monkeypatch.delenv(configuration.variable(name), raising=False)
    differences = refresh.refresh(PAGE, tmp_path, check=True)
    assert not differences, "\n".join(differences)


def test_it_names_every_tool_and_its_limits():
    assert all(f"`{one.tool.name}`" in TEXT for one in tools.DESCRIBED)
    words = " ".join(TEXT.split())
    assert f"more than {tools.MOST_SOUND // 1000} kB" in words and f"{tools.MOST_TEXT:,} characters" in words
    assert f"`{Settings.speech}` if you name no folder" in words


@pytest.mark.thorough
def test_it_names_every_setting_and_file():
    for name, known in configuration.KNOWN.items():
        assert f"| `{name}` | `{configuration.variable(name)}` |" in TEXT
        assert known.default is None or f"`{known.default}` |" in TEXT
    for system in ("Darwin", "Linux"):
        made = launching.service(["serve"], Path("~"), system)
        assert f"`{made.file}`" in TEXT and f"`{made.log}`" in TEXT
