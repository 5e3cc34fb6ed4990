"""The path of somebody who has never seen the studio: hear a voice, record one, blend it, make it deeper, keep it,
download it. By the names of the controls alone.

    python -m tests.studio.stranger URL      of a running server, with the fake microphone of Chromium
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, expect

from mlx_qwen3tts import Voice

NAME, MADE = "stranger", "deeper stranger"


@dataclass(frozen=True)
class Step:
    """What was done, in how many clicks and fields, and how many seconds after the beginning it was done."""

    name: str
    clicks: int
    after: float


class Walk:
    """A page and what has been done on it."""

    def __init__(self, page: Page):
        self.page, self.steps, self.clicks, self.start = page, [], 0, time.monotonic()

    def press(self, role, name):
        self.page.get_by_role(role, name=name, exact=True).click()
        self.clicks += 1

    def done(self, name):
        self.steps.append(Step(name, self.clicks, time.monotonic() - self.start))
        self.clicks = 0

    def listen(self, count):
        """Press Speak, and hear it to the end."""
        self.press("button", "Speak")
        takes = self.page.get_by_role("list", name="Takes").get_by_role("listitem")
        expect(takes).to_have_count(count, timeout=30_000)
        expect(self.page.get_by_role("button", name="Stop", exact=True)).to_be_disabled(timeout=30_000)


def walk(page, folder):
    """The steps; files go to `folder`."""
    one = Walk(page)
    one.listen(1)
    one.done("hear a voice")
