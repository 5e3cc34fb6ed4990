"""The path of somebody who has never seen the studio: hear a voice, record one, blend it, make it deeper, keep it,
download it. By the names of the controls alone.

    python -m tests.studio.stranger URL      of a running server; the microphone is a recording of the miniature
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from mlx_qwen3tts import Voice
from mlx_qwen3tts.errors import VoiceError
from tests.studio.finding import PATIENCE, recorded

NAME, MADE = "stranger", "deeper stranger"


@dataclass(frozen=True)
class Step:
    """What was done, with how many clicks and filled fields, and how many seconds after the beginning it was done."""

    name: str
    clicks: int
    after: float


class Walk:
    """A page, and what has been done on it."""

    def __init__(self, page):
        self.page, self.steps, self.clicks, self.start = page, [], 0, time.monotonic()

    def control(self, role, name):
        return self.page.get_by_role(role, name=name, exact=True)

    def press(self, name, role="button"):
        self.control(role, name).click()
        self.clicks += 1

    def fill(self, name, text):
        self.control("textbox", name).fill(text)
        self.clicks += 1

    def done(self, name):
        self.steps.append(Step(name, self.clicks, time.monotonic() - self.start))
        self.clicks = 0

    def listen(self, count):
        """Press Speak, and hear it to the end."""
        self.press("Speak")
        takes = self.control("list", "Takes").get_by_role("listitem")
        expect(takes).to_have_count(count, timeout=PATIENCE)
        expect(self.control("button", "Stop")).to_be_disabled(timeout=PATIENCE)


def walk(page, folder):
    """The steps of the path; files go to `folder`. AssertionError, or the browser's, where it leads nowhere."""
    one = Walk(page)
    one.listen(1)
    one.done("hear a voice")

    one.press("Record")
    recorded(page, 4)
    one.press("Finish recording")
    one.fill("Name", NAME)
    page.get_by_label("This is my voice, or its owner has agreed to this use").check()
    one.clicks += 1
    one.press("Keep voice")
    expression = one.control("textbox", "Expression")
    expect(expression).to_have_value(NAME, timeout=PATIENCE)
    one.done("record one")

    one.control("combobox", "Blend with").select_option("voice01")
    one.clicks += 1
    expect(expression).to_have_value(f"0.5*{NAME} + 0.5*voice01")
    one.done("blend it with another")

    slider = one.control("slider", "@pitch")
    for _ in range(4):
        slider.press("ArrowLeft")
        one.clicks += 1
    one.listen(2)
    one.done("make it deeper")

    one.fill("Call this voice", MADE)
    one.press("Keep this voice")
    expect(expression).to_have_value(f'"{MADE}"', timeout=PATIENCE)
    expect(one.control("list", "Library").get_by_role("listitem").filter(has_text=MADE)).to_have_count(1)
    one.done("keep it")

    with page.expect_download() as waiting:
        one.press("Download this voice")
    path = Path(folder) / waiting.value.suggested_filename
    waiting.value.save_as(path)
    voice = Voice.load(path)
    if voice.consent != "given" or [parent["name"] for parent in voice.recipe["parents"]] != [NAME, "voice01"]:
        raise VoiceError(f"{path} does not say what it is made of")
    one.done("download it")
    return one.steps


def main():
    from tests.studio.conftest import CHROMIUM, flags, spoken_into

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    url = parser.parse_args().url
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags(spoken_into(Path(folder))))
        page = browser.new_page(base_url=url, permissions=["microphone"], locale="en-GB")
        page.goto("/")
        steps = walk(page, folder)
        browser.close()
    for step in steps:
        print(f"{step.after:6.1f} s  {step.name}: {step.clicks} clicks")


if __name__ == "__main__":
    main()
