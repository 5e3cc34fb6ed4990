"""The studio's scripts: a script is pasted, cast, rendered line by line, heard, said again, and downloaded."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

pytest.importorskip("playwright")
from playwright.sync_api import expect

from tests.studio.finding import PATIENCE, button, heard_out

pytestmark = pytest.mark.studio

PLAY = """# One

The night is cold. [pause: 1s] The moon is white.

ANNA: Hello! Can you hear me?

BEN: [rate: 1.2] Yes. I hear you.

Today is Monday."""


def box(page):
    return page.get_by_role("textbox", name="Script", exact=True)


def role(page, name):
    return page.get_by_role("combobox", name=name, exact=True)


def lines(page):
    return page.get_by_role("list", name="Lines").get_by_role("listitem")


def cast_as(page, name, voice):
    role(page, name).fill(voice)
    role(page, name).press("Tab")


def cast(page, name, voice):
    cast_as(page, name, voice)
    expect(page.get_by_role("list", name="Cast").get_by_role("listitem").filter(has_text=name)).to_contain_text(
        "pieces"
    )


@pytest.fixture
def pasted(studio):
    """The studio with a script in it whose names have voices."""
    box(studio).fill(PLAY)
    cast(studio, "ANNA", "voice10")
    cast(studio, "BEN", "voice01*0.5 + voice02*0.5")
    return studio


def render(page):
    button(page, "Render").click()
    expect(button(page, "Script as WAV")).to_be_enabled()


def downloaded(page, name, folder):
    with page.expect_download(timeout=PATIENCE) as waiting:
        button(page, name).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_who_has_no_voice_is_shown_and_cast(studio):
    box(studio).fill(PLAY)
    cards = studio.get_by_role("list", name="Cast").get_by_role("listitem")
    expect(cards).to_have_count(3)
    expect(cards.nth(1)).to_contain_text("No voice is called ANNA yet: choose one.")
    expect(lines(studio)).to_have_count(5)
    expect(lines(studio).nth(2)).to_contain_text("No voice is called ANNA yet")
    cast_as(studio, "ANNA", "nobody")
    expect(cards.nth(1)).to_contain_text("voice 'nobody' is not a preset")
    cast(studio, "ANNA", "voice10")
    expect(lines(studio).nth(2)).to_contain_text("waiting")
    colours = {
        name: cards.nth(i).evaluate("(one) => getComputedStyle(one).borderLeftColor") for i, name in enumerate("nab")
    }
    assert len(set(colours.values())) == 3
    assert lines(studio).nth(2).evaluate("(one) => getComputedStyle(one).borderLeftColor") == colours["a"]


def test_a_mistake_is_told(studio):
    box(studio).fill("one\n\ntwo [pause: 1s")
    expect(studio.locator("#script-error")).to_have_text(re.compile("line 3: the tag .* is not closed"))
    box(studio).fill("One [laughs].")
    expect(lines(studio)).to_contain_text("'[laughs]' is read out")
    expect(studio.locator("#script-error")).to_be_empty()


def test_a_script_is_rendered_heard_and_downloaded(pasted, tmp_path):
    render(pasted)
    expect(pasted.get_by_role("progressbar", name="Lines rendered")).to_have_attribute("value", "5")
    expect(lines(pasted).nth(1)).to_contain_text(re.compile(r"\d\.\d s"))
    pasted.evaluate("window.heard.length = 0")
    button(pasted, "Hear line 5").click()
    heard = heard_out(pasted, 12_000)
    expect(button(pasted, "Hear line 5")).to_be_visible()

    whole, rate = soundfile.read(downloaded(pasted, "Script as WAV", tmp_path), dtype="float32")
    assert rate == 24000 and np.abs(whole).max() > 0.02
    text = " ".join(lines(pasted).all_inner_texts())
    spoken = sum(float(seconds) for seconds in re.findall(r"· (\d+\.\d) s", text))
    assert len(whole) / rate == pytest.approx(spoken + 1 + 3 * 0.6, abs=0.3)
    said, there = heard[heard != 0][3000:3500], whole[whole != 0]
    places = np.flatnonzero(np.isclose(there, said[0], atol=1e-6))
    assert any(np.allclose(there[place:][:500], said, atol=1e-6) for place in places if place + 500 <= len(there))
    mp3, _ = soundfile.read(downloaded(pasted, "Script as MP3", tmp_path), dtype="float32")
    assert abs(len(mp3) - len(whole)) < 5000


def test_a_line_is_said_again_alone(pasted, tmp_path):
    render(pasted)
    first, _ = soundfile.read(downloaded(pasted, "Script as WAV", tmp_path))
    asked = []
    pasted.on("request", lambda r: asked.append(r.post_data_json["input"]) if r.url.endswith("/speech") else None)
    button(pasted, "Line 9 again, another way").click()
    expect(button(pasted, "Script as WAV")).to_be_enabled()
    second, _ = soundfile.read(downloaded(pasted, "Script as WAV", tmp_path))
    assert asked == ["Today is Monday."]
    same = int(np.flatnonzero(first[: len(second)] != second[: len(first)])[0])
    assert same > 24000 * 6, "what precedes it stays as it was"


def test_what_was_spoken_is_kept_while_the_text_changes(pasted):
    render(pasted)
    asked = []
    pasted.on("request", lambda r: asked.append(r.post_data_json["input"]) if r.url.endswith("/speech") else None)
    box(pasted).fill(PLAY.replace("Monday", "Friday"))
    expect(lines(pasted).nth(4)).to_contain_text("waiting")
    render(pasted)
    assert asked == ["Today is Friday."]


def test_rendering_is_ended(studio):
    box(studio).fill("\n\n".join(["The red car is big and the bird is small."] * 30))
    button(studio, "Render").click()
    expect(lines(studio).nth(0)).to_contain_text(re.compile(r"· \d+\.\d s"))
    button(studio, "End rendering").click()
    expect(button(studio, "Render")).to_be_enabled()
    expect(studio.get_by_text("being rendered")).to_have_count(0)
    expect(button(studio, "Script as WAV")).to_be_disabled()
    expect(lines(studio).nth(29)).to_contain_text("waiting")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(pasted, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    pasted.emulate_media(color_scheme=scheme)
    found = axe.Axe().run(pasted, context="section.script")
    assert found.violations_count == 0, found.generate_report()
    pasted.set_viewport_size({"width": 360, "height": 740})
    assert pasted.evaluate("document.documentElement.scrollWidth") <= 360


def test_in_chinese(studio):
    studio.get_by_role("combobox", name="Language of the page").select_option("zh")
    studio.get_by_role("textbox", name="剧本").fill(PLAY)
    expect(studio.get_by_role("button", name="合成", exact=True)).to_be_enabled()


def test_a_picture(pasted, tmp_path):
    """The picture of docs/studio.md; STUDIO_PICTURES says where it is kept."""
    folder = Path(os.environ.get("STUDIO_PICTURES", tmp_path))
    pasted.set_viewport_size({"width": 820, "height": 1000})
    render(pasted)
    shot = Image.open(io.BytesIO(pasted.locator("section.script").screenshot()))
    shot.convert("RGB").quantize(64).save(folder / "studio-script.png", optimize=True)
    assert (folder / "studio-script.png").stat().st_size < 60_000
