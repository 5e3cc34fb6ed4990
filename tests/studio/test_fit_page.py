"""A direction from voices that were recorded on the page: recorded, labelled, given a person, fitted, read about, kept
and heard."""

import re

import httpx
import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from tests.studio.finding import button, recorded
from tests.studio.test_shaping_page import deleted, expression, opened, slider, speak
from training.acoustics import f0

pytestmark = pytest.mark.studio

MINE = ("my first", "my second")


@pytest.fixture
def tidy(address):
    """The library's own voices and directions go after the test."""
    yield
    for kind in ("voices", "directions"):
        for one in httpx.get(f"{address}/v1/audio/{kind}").json()["data"]:
            if one["name"] in (*MINE, "mine"):
                httpx.delete(f"{address}/v1/audio/{kind}/{one['name']}").raise_for_status()


def keep(page, name):
    """Record a voice, and keep it under a name."""
    button(page, "Record").click()
    recorded(page, 3.2)
    button(page, "Finish recording").click()
    page.get_by_role("textbox", name="Name", exact=True).fill(name)
    page.get_by_label("This is my voice, or its owner has agreed to this use").check()
    button(page, "Keep voice").click()
    expect(expression(page)).to_have_value(f'"{name}"')


def label(section, name, word):
    section.get_by_role("combobox", name=f"Label of {name}", exact=True).select_option(word)


def test_recorded_voices_are_labelled_and_a_direction_is_learnt_from_them(studio, address, tidy):
    cards = httpx.get(f"{address}/v1/audio/voices").json()["data"]
    by_pitch = sorted((one for one in cards if not one.get("alias_of")), key=lambda one: float(one["attributes"]["f0"]))
    low, high = [one["name"] for one in by_pitch[:3]], by_pitch[-1]["name"]
    section = opened(studio)
    for name in low:  # labelled before the recordings are made, which changes nothing
        label(section, name, "low")
    for name in MINE:
        keep(studio, name)
        label(section, name, "high")
    fit = section.get_by_role("button", name="Fit", exact=True)
    expect(section.get_by_text("5 labelled")).to_be_visible()
    fit.click()
    report = section.locator(".report")
    expect(report).to_contain_text("Learnt from 5 voices: 3 low, 2 high.")
    expect(report).to_contain_text("If one person has several of these voices, the figures flatter")

    # Both recordings are of one person.
    section.get_by_role("checkbox", name="Several voices belong to one person").check()
    expect(report).to_have_count(0)
    for name in MINE:
        section.get_by_label(f"Person of {name}", exact=True).fill("me")
    fit.click()
    expect(report).to_contain_text("The voices of one person were always left out together; there are 4 persons.")
    expect(report).to_contain_text("2 could not be tried: without that person a class has no voices.")
    expect(report).to_contain_text("So few voices are a hint, not a proof.")
    label(section, high, "high")
    fit.click()
    expect(report).to_contain_text("Learnt from 6 voices: 3 low, 3 high.")
    expect(report).to_contain_text("there are 5 persons")
    expect(report).to_contain_text(re.compile(r"Right for [456] of 6 voices left out of the fit"))
    expect(report).not_to_contain_text("could not be tried")
    expect(report).not_to_contain_text("the figures flatter")

    section.get_by_role("textbox", name="Name of the direction").fill("mine")
    button(studio, "Keep direction").click()
    mine = slider(studio, "@mine")
    expect(mine).to_be_enabled()
    [kept] = [one for one in httpx.get(f"{address}/v1/audio/directions").json()["data"] if one["name"] == "mine"]
    assert kept["groups"] == 5 and kept["labels"] == {"low": 3, "high": 3}
    studio.get_by_role("checkbox", name="Keep this seed").check()
    studio.get_by_role("textbox", name="Seed").fill("1")
    expression(studio).fill(low[0])
    expect(mine).to_have_value("0")
    before = f0(speak(studio)["samples"])
    mine.press("End")
    expect(expression(studio)).to_have_value(re.compile(rf"{low[0]} \+ [\d.]+\*@mine"))
    assert f0(speak(studio, 2)["samples"]) > 1.15 * before
    deleted(studio, "mine")


def test_persons_are_filled_in_from_a_tag(studio, address, tidy):
    for name in MINE:
        made = {"expression": "voice01*0.5 + voice10*0.5", "name": name}
        httpx.post(f"{address}/v1/audio/voices/combine", json=made).raise_for_status()
        tags = {"attributes": {"speaker": "me"}}
        httpx.patch(f"{address}/v1/audio/voices/{name}", json=tags).raise_for_status()
    studio.reload()
    section = opened(studio)
    assert section.get_by_label("Person of").count() == 0
    section.get_by_role("checkbox", name="Several voices belong to one person").check()
    section.get_by_role("combobox", name="Persons from a tag").select_option("speaker")
    for name, person in ((MINE[0], "me"), (MINE[1], "me"), ("voice01", "")):
        expect(section.get_by_label(f"Person of {name}", exact=True)).to_have_value(person)
    section.get_by_role("combobox", name="Fill in from a tag").select_option("f0")
    with studio.expect_request("**/v1/audio/directions") as asked:
        section.get_by_role("button", name="Fit", exact=True).click()
    assert "groups" not in asked.value.post_data_json, "nobody who has a label has a person"
