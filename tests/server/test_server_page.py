"""docs/server.md: what its commands and snippets print is what they print, and what it says of limits is so."""

import shutil
from pathlib import Path

import httpx
import pytest

from docs import refresh
from mlx_qwen3tts import Qwen3TTS, serve
from mlx_qwen3tts.server import exchange, guard, live, maps, shelf, speech, wyoming
from mlx_qwen3tts.server.app import COUNTED, Server
from mlx_qwen3tts.server.settings import Settings
from mlx_qwen3tts.server.voices import ALIASES, KEPT
from mlx_qwen3tts.voices.library import archive

PAGE = Path(__file__).parents[2] / "docs" / "server.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.thorough
def test_everything_it_shows_is_what_is_printed(tmp_path):
    with refresh.serving(tmp_path) as port:
        assert port != refresh.PORT
        differences = refresh.refresh(PAGE, tmp_path, check=True, port=port)
    assert not differences, "\n".join(differences)


def test_the_start_is_as_it_says(tmp_path):
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    greeting = Server(tts, Settings(library=tmp_path / "voices"), "miniature").greeting("http://127.0.0.1:8880")
    assert f"\n{greeting}\n```" in TEXT


def test_it_names_every_option_alias_and_limit():
    options = {word for action in serve.build_parser()._actions for word in action.option_strings if word[:2] == "--"}
    unsaid = {"--help", "--dtype", "--port", "--voice"}
    assert {option for option in options if option not in TEXT} <= unsaid
    assert all(f"`{alias}`" in TEXT for alias in ALIASES)
    assert all(f"qwen3tts_{name}" in TEXT for name in COUNTED)
    for limit in (
        f"up to {speech.MOST_ITEMS} requests",
        f"{shelf.MOST_VOICES:,} voices",
        f"{shelf.MOST_UPLOAD >> 20} MB at most",
        f"forms to {shelf.FIELDS} fields",
        f"headers to {guard.HEAD >> 10} kB",
        f"a body to {guard.SMALL >> 10} kB, or to {guard.LARGE >> 20} MB",
        f"{guard.HEAD_SECONDS:.0f} seconds for the headers, {guard.BODY_SECONDS:.0f} for the body",
        f"waits {live.IDLE:.0f} seconds for the next word, and {live.FIRST_CONFIG:.0f} for",
        f"last {KEPT} recordings",
        f"than {maps.MOST_MAPPED:,} voices",
        f"more than {exchange.LIMITS.files:,} files",
        f"a file over {exchange.LIMITS.one >> 20} MB",
        f"more than {exchange.LIMITS.total >> 20} MB in all or {archive.RATIO} times",
        f"{wyoming.CONNECTIONS} connections may be open",
        f"for {wyoming.PAUSE / 60:.0f} minutes within a text, or {wyoming.IDLE / 60:.0f} minutes between two",
        f"at most {wyoming.LINE >> 10} kB, its data {wyoming.DATA >> 20} MB",
        "comes every ten seconds" if speech.QUEUED_COMMENT == 10 else "?",
    ):
        assert limit in " ".join(TEXT.split()), limit


def test_pages_are_compressed_for_who_takes_that(url):
    plain = httpx.get(f"{url}/static/page.js", headers={"accept-encoding": "identity"})
    packed = httpx.get(f"{url}/static/page.js", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert plain.content == packed.content and packed.num_bytes_downloaded < plain.num_bytes_downloaded
    assert packed.headers["content-security-policy"] == plain.headers["content-security-policy"]
