"""What the tests of the studio find on its page and in its store, and how they wait for it."""

import os

import numpy as np

# Milliseconds after which nothing comes any more, on a machine that does ten other things as well. Tests wait for what
# is to happen, never for a time after which it should have.
PATIENCE = 90_000
# The takes that a page keeps, as a script for page.evaluate.
TAKES = """() => new Promise((resolve) => {
  const request = indexedDB.open("mlx_qwen3tts", 1);
  request.onsuccess = () => {
    const all = request.result.transaction("takes").objectStore("takes").getAll();
    all.onsuccess = () => resolve(all.result.map((take) => ({ ...take, samples: [...take.samples] })));
  };
})"""
# Whether so many samples that sound have been heard, and whether it has been silent since.
SOUNDS = "(least) => window.heard.filter((x) => x).length >= least"
SILENT = "() => window.heard.length >= 4800 && window.heard.slice(-4800).every((x) => x === 0)"


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def heard(page):
    """What has reached the loudspeaker."""
    return np.array(page.evaluate("window.heard"), np.float32)


def until(page, condition, argument=None):
    """Wait until a script finds something true."""
    page.wait_for_function(condition, arg=argument, timeout=PATIENCE)


def heard_out(page, least=2400):
    """What has been heard since it was emptied, of at least so many samples that sound, once it is over."""
    from playwright.sync_api import expect

    until(page, SOUNDS, least)
    expect(button(page, "Stop")).to_be_disabled()
    until(page, SILENT)  # what was heard last is still on its way to the page
    return heard(page)


def recorded(page, seconds):
    """Wait until a microphone has heard so many seconds."""
    until(page, "(least) => Number(document.querySelector('progress')?.value) >= least", seconds)


def is_busy():
    """Whether this machine has so much to do that it cannot be measured how long something takes."""
    return os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)
