"""The page in Chinese: every view of it is translated, fits, and can be used by everybody."""

import io
import os
import re
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("playwright")
from playwright.sync_api import expect

from tests.studio.conftest import TAP
from tests.studio.finding import SOUNDS, button, recorded, until
from tests.studio.test_compare_page import audit

pytestmark = pytest.mark.studio

PLAY = "# Hello\n\nThe night is cold.\n\nANNA: Hello!"
# What stays as it is in every language: names, units, formats, a licence, and what is spoken.
KEPT = {
    "mlx_qwen3tts", "miniature", "English", "Apache", "formants", "WAV", "MP3", "zip", "A", "B", "X", "Esc", "dB", "p",
    "r", "s", "ANNA", "Hello", "this", "is", "my", "voice",
}  # fmt: skip
# Everything that is read on the page or read out, but what somebody has typed.
WORDS = """() => {
  const found = [];
  const walk = document.createTreeWalker(document.getElementById("page"), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const { data, parentElement } = walk.currentNode;
    if (!parentElement.closest(".said, .words, code, pre, option[value^=voice]")) found.push(data);
  }
  for (const name of ["aria-label", "placeholder", "aria-valuetext"])
    for (const one of document.querySelectorAll(`[${name}]`)) found.push(one.getAttribute(name));
  return found;
}"""
# Controls whose words do not fit into them, and whatever stands out of the page.
CLIPPED = """() => [...document.querySelectorAll("button, label, summary, legend, h2, p, li, output, select")]
  .filter((one) => one.offsetParent && getComputedStyle(one).overflowX === "visible")
  .filter((one) => {
    const out = one.clientWidth && one.scrollWidth > one.clientWidth + 1;
    return out || one.getBoundingClientRect().right > innerWidth + 1;
  })
  .map((one) => `${one.tagName} ${one.textContent.trim().slice(0, 40)}`)"""


def section(page, heading):
    return page.locator("section").filter(has=page.get_by_role("heading", name=heading, exact=True))


@pytest.fixture
def chinese(browser, address):
    """The page as a browser shows it that is Chinese, with something in every view."""
    context = browser.new_context(base_url=address, permissions=["microphone"], locale="zh-CN")
    context.add_init_script(TAP)
    page = context.new_page()
    page.goto("/")
    speak = button(page, "朗读")
    expect(speak).to_be_enabled()
    for number in (1, 2):
        speak.click()
        expect(page.get_by_role("list", name="朗读记录").get_by_role("listitem")).to_have_count(number)
        until(page, SOUNDS, 2400)
        expect(button(page, "停止")).to_be_disabled()
    page.get_by_role("textbox", name="表达式").fill("0.2*voice01 + 0.3*voice04 + 0.5*voice10 + 0.2*@pitch")
    expect(page.get_by_role("slider", name="三个声音")).to_have_count(1)
    fit = section(page, "自己的方向")
    fit.get_by_text("自己的方向").click()
    fit.get_by_role("combobox", name="用标签填写", exact=True).select_option("f0")
    fit.get_by_role("checkbox", name="有几个声音属于同一个人").check()
    fit.get_by_label("voice01 是谁的声音").fill("甲")
    button(fit, "拟合").click()
    expect(fit.locator(".report")).to_be_visible()
    page.get_by_role("textbox", name="剧本").fill(PLAY)
    expect(page.get_by_role("list", name="台词").get_by_role("listitem")).to_have_count(3)
    until(page, "() => document.querySelector('canvas').chart?.points.length > 2")
    page.get_by_role("combobox", name="颜色").select_option("@pitch")
    page.get_by_text("以列表显示声音").click()
    page.get_by_role("combobox", name="排序").select_option("@pitch 最高")
    expect(page.locator(".score").first).to_be_visible()
    yield page
    context.close()


def untranslated(page):
    names = re.compile(r"@?\b(voice\d\d|pitch|size|brightness|pace|noise|f0|tilt)\b")
    words = {word for said in page.evaluate(WORDS) for word in re.findall(r"[A-Za-z_]\w*", names.sub("", said))}
    return words - KEPT


def look(page, name):
    """Keeps pictures of every view at both widths, where STUDIO_LOOK names a folder."""
    if folder := os.environ.get("STUDIO_LOOK"):
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 900})
            shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            shot.save(Path(folder) / f"{name}-{width}.png")


def check(page, name):
    look(page, name)
    found = sorted(untranslated(page))
    assert not found, ", ".join(found)
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(CLIPPED) == [], width
    assert audit(page) == set()


def test_every_view_is_translated_fits_and_is_accessible(chinese):
    page = chinese
    assert page.get_by_role("combobox", name="语言", exact=True).locator("option").all_inner_texts() == ["自动", "英语"]
    check(page, "all")
    button(page, "开始盲测").click()
    button(page, "X 是 A").click()
    button(page, "录音").click()
    recorded(page, 3.1)
    check(page, "recording")
    button(page, "结束并显示结果").click()
    button(page, "结束录音").click()
    page.get_by_role("textbox", name="名称", exact=True).wait_for()
    page.get_by_role("textbox", name="表达式").fill("voice01 + ")
    expect(page.locator("pre.wrong")).to_be_visible()
    look(page, "recorded")
    assert audit(page) == set()
