"""Shaping a voice in a real browser: while it speaks, on a triangle and a pad, and with directions of one's own."""

import io
import os
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.studio.finding import PATIENCE, SILENT, SOUNDS, TAKES, button, heard, until
from training.acoustics import f0

pytestmark = pytest.mark.studio

LONG = "The red car is big and the bird is small. " * 4
FRAME = 1920  # samples


def slider(page, name):
    return page.get_by_role("slider", name=name, exact=True)


def expression(page):
    return page.get_by_role("textbox", name="Expression")


def listed(page):
    return page.get_by_role("list", name="Takes").get_by_role("listitem")


def newest(page, count):
    """The newest of so many takes, once it is there and has been heard."""
    expect(listed(page)).to_have_count(count)
    expect(button(page, "Stop")).to_be_disabled()
    take = page.evaluate(TAKES)[-1]
    return {**take, "samples": np.array(take["samples"], np.float32)}


def speak(page, count=1):
    button(page, "Speak").click()
    return newest(page, count)


def begin(page, seed=1):
    """Have a long text spoken, and wait until some of it has been heard."""
    page.get_by_role("textbox", name="Text").fill(LONG)
    page.get_by_role("checkbox", name="Keep this seed").check()
    page.get_by_role("textbox", name="Seed").fill(str(seed))
    button(page, "Speak").click()
    until(page, SOUNDS, 24_000)


@pytest.fixture
def loose(browser, address):
    """A page whose console may say that a request was refused."""
    context = browser.new_context(base_url=address, locale="en-GB")
    page = context.new_page()
    page.goto("/")
    expect(expression(page)).to_have_value("voice01")
    yield page
    context.close()


# While it speaks


def test_a_slider_is_heard_in_the_running_speech(studio):
    begin(studio)
    slider(studio, "@pitch").press("End")
    take = newest(studio, 1)
    assert take["settings"]["voice"] == "voice01"
    turns = take["settings"]["steering"]
    assert len(turns) == 1 and re.fullmatch(r"voice01 \+ [\d.]+\*@pitch", turns[0]["voice"])
    first, last = turns[0]["frame"] * FRAME, turns[-1]["frame"] * FRAME
    low, high = f0(take["samples"][:first]), f0(take["samples"][last + 24000 :])
    assert high > 1.3 * low, (low, high, turns, len(take["samples"]))
    expect(listed(studio)).to_contain_text("steered to voice01 + ")
    listed(studio).get_by_role("button", name="Same seed again").click()
    again = newest(studio, 2)
    assert np.array_equal(again["samples"], take["samples"]), "it is steered again at the same frames"
    expect(studio.get_by_text("changed, not heard yet")).to_be_visible()


def test_no_more_is_made_than_is_soon_heard(studio):
    """Or a slider would move a speech that is made already. A busy machine may hear late what was made in time."""
    for count in range(1, 5):
        studio.evaluate("window.heard.length = 0")
        begin(studio)
        button(studio, "Stop").click()
        take = newest(studio, count)
        until(studio, SILENT)
        ahead = len(take["samples"]) - np.count_nonzero(heard(studio))
        if ahead < 3 * 24000 and not take["whole"]:
            break
    assert ahead < 3 * 24000 and not take["whole"]


def test_a_voice_that_cannot_move_says_so(loose):
    refusal = {
        "error": {"message": "fixed", "type": "invalid_request_error", "param": "voice", "code": "unsupported_value"}
    }
    loose.route("**/steer", lambda route: route.fulfill(status=400, json=refusal))
    said = loose.get_by_text("The voice that speaks cannot move.")
    loose.get_by_role("textbox", name="Text").fill(LONG)
    with loose.expect_response("**/v1/audio/speech", timeout=PATIENCE):
        button(loose, "Speak").click()
    slider(loose, "@pitch").press("End")
    expect(said).to_be_visible()
    button(loose, "Stop").click()
    loose.get_by_role("textbox", name="Text").fill("Hello.")
    button(loose, "Speak").click()
    expect(said).to_have_count(0)


# Sliders


def test_a_moved_slider_is_marked_and_is_reset_by_itself(studio):
    slider(studio, "@pitch").press("End")
    slider(studio, "@size").press("ArrowRight")
    expect(studio.locator(".moved")).to_have_count(2)
    button(studio, "Reset @pitch").click()
    expect(expression(studio)).to_have_value(re.compile(r"voice01 \+ [\d.]+\*@size"))
    expect(studio.locator(".moved")).to_have_count(1)
    expect(button(studio, "Reset @pitch")).to_have_count(0)


# Triangle and pad


def test_three_voices_on_a_triangle(studio):
    expression(studio).fill("voice01*0.2 + voice02*0.3 + voice03*0.5 + 0.2*@pitch")
    three = slider(studio, "Three voices")
    expect(three).to_have_attribute("aria-valuetext", "20 % voice01, 30 % voice02, 50 % voice03")
    three.press("ArrowUp")
    expect(expression(studio)).to_have_value("0.26*voice01 + 0.27*voice02 + 0.47*voice03 + 0.2*@pitch")
    three.press("Home")
    expect(expression(studio)).to_have_value("0.34*voice01 + 0.33*voice02 + 0.33*voice03 + 0.2*@pitch")
    box = three.bounding_box()
    studio.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    studio.mouse.down()
    studio.mouse.move(box["x"] + 1, box["y"] + box["height"] - 1, steps=4)
    studio.mouse.up()
    expect(expression(studio)).to_have_value("0*voice01 + voice02 + 0*voice03 + 0.2*@pitch")
    studio.get_by_role("combobox", name="Voice of corner 2").select_option("voice07")
    expect(expression(studio)).to_have_value("0*voice01 + voice07 + 0*voice03 + 0.2*@pitch")
    studio.get_by_role("combobox", name="Voice of corner 1").select_option("take out")
    expect(expression(studio)).to_have_value("voice07 + 0*voice03 + 0.2*@pitch")
    expect(slider(studio, "Blend")).to_have_value("0")


def test_four_voices_on_a_pad_are_spoken(studio):
    studio.get_by_role("combobox", name="Blend with").select_option("voice02")
    for name in ("voice03", "voice04"):
        studio.get_by_role("combobox", name="add a voice").select_option(name)
    four = slider(studio, "Four voices")
    expect(expression(studio)).to_have_value("0.25*voice01 + 0.25*voice02 + 0.25*voice03 + 0.25*voice04")
    expect(studio.get_by_role("combobox", name="add a voice")).to_have_count(0)
    for _ in range(12):
        four.press("ArrowRight")
        four.press("ArrowDown")
    expect(expression(studio)).to_have_value("0*voice01 + 0*voice02 + 0*voice03 + voice04")
    expect(four).to_have_attribute("aria-valuetext", re.compile("100 % voice04"))
    studio.get_by_role("textbox", name="Text").fill("Hello, this is my voice.")
    studio.get_by_role("checkbox", name="Keep this seed").check()
    studio.get_by_role("textbox", name="Seed").fill("1")
    corner = speak(studio)
    studio.get_by_role("combobox", name="Voice", exact=True).select_option("voice04")
    alone = speak(studio, 2)
    assert np.array_equal(corner["samples"], alone["samples"])


def test_a_mistake_stands_above_a_pad_that_rests(studio):
    expression(studio).fill("voice01 + voice02 + voice03")
    three = slider(studio, "Three voices")
    expect(three).to_have_attribute("aria-disabled", "false")
    expression(studio).fill("voice01 + voice02 + ")
    expect(studio.locator("pre.wrong")).to_have_text("  voice01 + voice02 + \n                      ^")
    expect(three).to_have_attribute("aria-disabled", "true")
    three.dispatch_event("keydown", {"key": "ArrowUp"})
    expect(expression(studio)).to_have_value("voice01 + voice02 + ")
    expression(studio).fill("voice01 - voice02")
    expect(studio.get_by_text("Blending by hand takes two to four voices")).to_have_count(0)  # it is wrong: an offset
    expression(studio).fill("2*voice01 - voice02")
    expect(studio.get_by_text("Blending by hand takes two to four voices")).to_be_visible()


# Directions of one's own


def opened(page):
    page.get_by_text("A direction of your own").click()
    return page.locator("section").filter(has=page.get_by_role("heading", name="A direction of your own"))


def deleted(page, name):
    """Delete a direction that was kept."""
    page.on("dialog", lambda dialog: dialog.accept())
    button(page, f"Delete @{name}").click()
    expect(slider(page, f"@{name}")).to_have_count(0)


def test_a_direction_from_ten_voices(studio, address):
    section = opened(studio)
    fit = section.get_by_role("button", name="Fit", exact=True)
    expect(fit).to_be_disabled()
    section.get_by_role("combobox", name="Fill in from a tag").select_option("f0")
    expect(section.get_by_text("10 labelled")).to_be_visible()
    fit.click()
    report = section.locator(".report")
    expect(report).to_contain_text(re.compile(r"Learnt from 10 voices, from [\d.]+ to [\d.]+\."))
    expect(report).to_contain_text(re.compile(r"r 0\.\d\d on 10 voices left out of the fit"))
    expect(report).to_contain_text("It tells apart voices that it was not learnt from.")
    section.get_by_role("textbox", name="Name of the direction").fill("how high")
    button(studio, "Keep direction").click()
    mine = slider(studio, "@how high")
    expect(mine).to_be_enabled()
    studio.get_by_role("checkbox", name="Keep this seed").check()
    studio.get_by_role("textbox", name="Seed").fill("1")
    low = f0(speak(studio)["samples"])
    mine.press("End")
    expect(expression(studio)).to_have_value(re.compile(r'voice01 \+ [\d.]+\*@"how high"'))
    assert f0(speak(studio, 2)["samples"]) > 1.2 * low
    kept = httpx.get(f"{address}/v1/audio/directions").json()["data"]
    assert {"how high", "noise", "pitch"} <= {one["name"] for one in kept}
    mine.press("Home")
    button(studio, "Reset @how high").click()
    deleted(studio, "how high")


def test_two_classes_mistakes_and_a_name_that_is_taken(loose):
    section = opened(loose)
    section.get_by_role("textbox", name="First class").fill("dull")
    section.get_by_role("textbox", name="Second class, where the slider leads").fill("bright")
    fit = section.get_by_role("button", name="Fit", exact=True)
    for number in range(1, 5):
        expect(fit).to_be_disabled()
        section.get_by_role("combobox", name=f"Label of voice0{number}").select_option("bright")
    fit.click()
    expect(section.get_by_role("alert")).to_contain_text("all voices have the same label 'bright'")
    for number in range(5, 9):
        section.get_by_role("combobox", name=f"Label of voice0{number}").select_option("dull")
    expect(section.get_by_role("alert")).to_have_count(0)
    fit.click()
    report = section.locator(".report")
    expect(report).to_contain_text("Learnt from 8 voices: 4 dull, 4 bright.")
    expect(report).to_contain_text("So few voices are a hint, not a proof.")
    section.get_by_role("textbox", name="Name of the direction").fill("noise")
    button(loose, "Keep direction").click()
    expect(section.get_by_role("alert")).to_contain_text("'noise' is kept already")
    section.get_by_role("textbox", name="Name of the direction").fill("shine")
    button(loose, "Keep direction").click()
    expect(slider(loose, "@shine")).to_have_count(1)
    fit.click()
    section.get_by_role("textbox", name="Name of the direction").fill("shine")
    button(loose, "Keep direction").click()
    button(loose, "Replace the direction of this name").click()
    expect(loose.get_by_role("status").filter(has_text="@shine is kept")).to_have_count(1)
    deleted(loose, "shine")


# For everybody


def picture(what, folder, name):
    """A screenshot of 64 colours."""
    shot = Image.open(io.BytesIO(what.screenshot()))
    shot.convert("RGB").quantize(64).save(folder / f"studio-{name}.png", optimize=True)


def test_pictures_and_access(studio, tmp_path):
    """The pictures of docs/studio.md; STUDIO_PICTURES says where they are kept. axe-core finds nothing, light and dark
    and at a phone's width."""
    folder = Path(os.environ.get("STUDIO_PICTURES", tmp_path))
    studio.set_viewport_size({"width": 520, "height": 800})
    shape = studio.locator("section").filter(has=studio.get_by_role("heading", name="Shape"))
    expression(studio).fill("0.2*voice01 + 0.3*voice04 + 0.5*voice10")
    expect(slider(studio, "Three voices")).to_have_count(1)
    picture(shape.locator(".pad"), folder, "triangle")
    expression(studio).fill("0.1*voice01 + 0.3*voice02 + 0.15*voice04 + 0.45*voice10 + 0.3*@pitch")
    expect(slider(studio, "Four voices")).to_have_count(1)
    section = opened(studio)
    section.get_by_role("combobox", name="Fill in from a tag").select_option("f0")
    section.get_by_role("button", name="Fit", exact=True).click()
    expect(section.locator(".report")).to_be_visible()
    picture(section, folder, "fit")
    for scheme in ("light", "dark"):
        studio.emulate_media(color_scheme=scheme)
        found = Axe().run(studio)
        assert found.violations_count == 0, found.generate_report()
    picture(shape, folder, "pad")
    studio.set_viewport_size({"width": 360, "height": 740})
    assert studio.evaluate("document.documentElement.scrollWidth") <= 360
    found = Axe().run(studio)
    assert found.violations_count == 0, found.generate_report()
    studio.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert sum((folder / f"studio-{name}.png").stat().st_size for name in ("triangle", "pad", "fit")) < 90_000
