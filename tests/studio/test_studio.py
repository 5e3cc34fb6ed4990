"""The studio as somebody uses it, in a real browser, by the names of its controls; and what is heard, measured."""

import io
import os
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

pytest.importorskip("playwright")
from playwright.sync_api import expect

from tests.studio.finding import SILENT, SOUNDS, TAKES, button, heard, heard_out, recorded, until
from training.acoustics import f0

pytestmark = pytest.mark.studio

LINE = "Hello, this is my voice."
LONG = "The red car is big and the bird is small. " * 8


def takes(page):
    """What the browser keeps, newest first, samples as arrays."""
    kept = page.evaluate(TAKES)[::-1]
    return [{**take, "samples": np.array(take["samples"], np.float32)} for take in kept]


def sounding(samples):
    return samples[samples != 0]


def assert_all_heard(found, wanted):
    """All was heard, in order. Whatever is late leaves a pause."""
    there, said = sounding(found), sounding(wanted)
    assert len(there) == len(said) and np.allclose(there, said, atol=1e-6)


def speak(page, seed=1):
    """Press Speak and listen to the end; what was heard."""
    page.get_by_role("checkbox", name="Keep this seed").check()
    page.get_by_role("textbox", name="Seed").fill(str(seed))
    before = len(takes(page))
    page.evaluate("window.heard.length = 0")
    button(page, "Speak").click()
    expect(page.get_by_role("list", name="Takes").get_by_role("listitem")).to_have_count(before + 1)
    return heard_out(page)


def expression(page):
    return page.get_by_role("textbox", name="Expression")


def test_speak_and_hear(studio, address):
    found = speak(studio)
    body = {"input": LINE, "voice": "voice01", "seed": 1, "response_format": "pcm", "stream_format": "audio"}
    wanted = httpx.post(f"{address}/v1/audio/speech", json=body, timeout=60).content
    wanted = np.frombuffer(wanted, "<i2").astype(np.float32) / 32768
    [take] = takes(studio)
    assert np.array_equal(take["samples"], wanted) and take["whole"] and take["seed"] == 1
    assert_all_heard(found, wanted)
    assert abs(f0(sounding(found)) / f0(wanted) - 1) < 0.03


def test_a_take_is_repeated_varied_and_downloaded(studio, tmp_path):
    speak(studio, 5)
    listed = studio.get_by_role("list", name="Takes").get_by_role("listitem")
    for number, name in ((2, "Same seed again"), (3, "Vary")):
        listed.first.get_by_role("button", name=name).click()
        expect(listed).to_have_count(number)
    varied, again, first = takes(studio)
    assert np.array_equal(again["samples"], first["samples"]) and again["seed"] == 5
    assert varied["seed"] != 5 and not np.array_equal(varied["samples"], first["samples"])
    for kind in ("wav", "mp3"):
        with studio.expect_download() as waiting:
            listed.last.get_by_role("button", name=kind.upper()).click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        sound, rate = soundfile.read(path, dtype="float32")
        assert path.suffix == f".{kind}" and rate == 24000
        assert abs(len(sound) - len(first["samples"])) < (3000 if kind == "mp3" else 1)
        if kind == "wav":
            assert np.allclose(sound, first["samples"], atol=1e-4)


def test_takes_survive_a_reload_until_they_are_deleted(studio):
    speak(studio)
    studio.reload()
    listed = studio.get_by_role("list", name="Takes").get_by_role("listitem")
    expect(listed).to_have_count(1)
    expect(listed).to_contain_text(LINE)
    assert heard(studio).size == 0, "nothing plays by itself"
    listed.get_by_role("button", name="Play").click()
    found = heard_out(studio)
    [take] = takes(studio)
    assert_all_heard(found, take["samples"])
    listed.get_by_role("button", name="Delete").click()
    expect(listed).to_have_count(0)
    studio.reload()
    button(studio, "Speak").wait_for()
    expect(listed).to_have_count(0)


def test_stop_keeps_what_was_made(studio):
    studio.get_by_role("textbox", name="Text").fill(LONG)
    button(studio, "Speak").click()
    until(studio, SOUNDS, 12_000)
    button(studio, "Stop").click()
    listed = studio.get_by_role("list", name="Takes").get_by_role("listitem")
    expect(listed).to_contain_text("stopped early")
    [take] = takes(studio)
    assert not take["whole"] and 0.3 < len(take["samples"]) / 24000 < 20
    assert listed.get_by_role("button", name="MP3").count() == 0
    until(studio, SILENT)


KEEP = """(seconds) => new Promise((resolve) => {
  const request = indexedDB.open("mlx_qwen3tts", 1);
  request.onsuccess = () => {
    const samples = Float32Array.from({ length: 24000 * seconds }, (_, i) => 0.1 + 0.1 * Math.sin(i / 20));
    const take = { made: 0, settings: { input: "A tone.", voice: "voice01" }, seed: 1, whole: true, samples };
    request.result.transaction("takes", "readwrite").objectStore("takes").add(take).onsuccess = resolve;
  };
})"""


def test_stop_silences_what_is_played(studio):
    """A player that went on would be heard for half a minute."""
    studio.evaluate(KEEP, 30)
    studio.reload()
    studio.get_by_role("list", name="Takes").get_by_role("button", name="Play").click()
    until(studio, SOUNDS, 2400)
    button(studio, "Stop").click()
    until(studio, SILENT)
    assert np.count_nonzero(heard(studio)) < 15 * 24000


def test_a_slider_makes_the_voice_higher(studio):
    low = f0(speak(studio))
    slider = studio.get_by_role("slider", name="@pitch")
    assert re.search(r"r 0\.9\d on 120 voices left out", studio.locator("#direction-pitch-report").inner_text())
    slider.press("End")
    expect(expression(studio)).to_have_value(re.compile(r"voice01 \+ (0\.\d+|1\.\d+)\*@pitch"))
    high = f0(speak(studio))
    assert high > 1.5 * low
    expression(studio).fill("voice01 - 0.5*@pitch + 0.2*@size")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("-0.5"))
    expect(studio.get_by_role("slider", name="@size")).to_have_attribute("aria-valuetext", re.compile("0.2"))
    button(studio, "Reset the sliders").click()
    expect(expression(studio)).to_have_value("voice01")


def test_a_direction_that_guesses_is_greyed_and_says_so(studio):
    expect(studio.get_by_role("slider", name="@noise")).to_be_disabled()
    expect(studio.locator("#direction-noise-report")).to_contain_text("No better than guessing")


def test_two_voices_are_blended(studio):
    blend = studio.get_by_role("slider", name="Blend")
    expect(blend).to_be_disabled()
    studio.get_by_role("combobox", name="Blend with").select_option("voice10")
    expect(expression(studio)).to_have_value("0.5*voice01 + 0.5*voice10")
    for _ in range(4):
        blend.press("ArrowRight")
    expect(expression(studio)).to_have_value("0.3*voice01 + 0.7*voice10")
    expression(studio).fill("voice02 + 3*voice03 + 0.1*@pitch")
    expect(blend).to_have_value("0.75")
    studio.get_by_role("combobox", name="Voice", exact=True).select_option("voice04")
    expect(expression(studio)).to_have_value("voice04 + 0.1*@pitch")
    expression(studio).fill("voice01 + voice02 + voice03")
    expect(studio.get_by_role("slider", name="Three voices")).to_have_count(1)


def test_a_mistake_is_shown_under_its_place(studio):
    expression(studio).fill("voice01 + * voice02")
    expect(studio.locator("pre.wrong")).to_have_text("  voice01 + * voice02\n            ^")
    expect(button(studio, "Speak")).to_be_disabled()
    expression(studio).fill("voice01")
    expect(studio.locator("pre.wrong")).to_have_count(0)
    expect(button(studio, "Speak")).to_be_enabled()


def test_a_voice_is_recorded_kept_spoken_and_deleted(studio, address):
    button(studio, "Record").click()
    recorded(studio, 3.5)
    button(studio, "Finish recording").click()
    keep = button(studio, "Keep voice")
    expect(keep).to_be_disabled()
    studio.get_by_role("textbox", name="Name").fill("my own")
    expect(keep).to_be_disabled()
    studio.get_by_label("This is my voice, or its owner has agreed to this use").check()
    keep.click()
    expect(expression(studio)).to_have_value('"my own"')
    entry = studio.get_by_role("list", name="Library").get_by_role("listitem").filter(has_text="my own")
    expect(entry).to_contain_text("consent given")
    assert httpx.get(f"{address}/v1/audio/voices/my%20own").json()["consent"] == "given"
    own, low = f0(speak(studio)), 118  # voice01's F0 in Hz, and the microphone's is 198
    assert own > 1.25 * low
    studio.on("dialog", lambda dialog: dialog.accept())
    button(studio, "Delete my own").click()
    expect(entry).to_have_count(0)
    assert httpx.get(f"{address}/v1/audio/voices/my%20own").status_code == 404


def test_a_file_can_be_kept_instead_and_who_refused_is_not_spoken(studio, microphone):
    studio.get_by_label("Or choose a file").set_input_files(microphone)
    studio.get_by_role("textbox", name="Name").fill("refuser")
    studio.get_by_label("Its owner has refused").check()
    button(studio, "Keep voice").click()
    entry = studio.get_by_role("list", name="Library").get_by_role("listitem").filter(has_text="refuser")
    expect(entry).to_contain_text("refused: not spoken")
    expect(button(studio, "Use refuser")).to_be_disabled()
    expect(button(studio, "Speak")).to_be_disabled()
    studio.on("dialog", lambda dialog: dialog.accept())
    button(studio, "Delete refuser").click()
    expect(entry).to_have_count(0)


LATE = """async () => {
  const { play, RATE } = await import("/static/sound.js");
  let done;
  const over = new Promise((resolve) => { done = resolve; });
  const sound = await play(done);
  for (let i = 0; i < 50; i++) {
    await new Promise((resolve) => setTimeout(resolve, i === 3 ? 160 : 45));  // 80 ms of sound each; one in 50 is late
    sound.add(new Float32Array(0.08 * RATE).fill(0.01));
  }
  sound.finish();
  return over;
}"""


def test_a_part_that_comes_late_leaves_no_gap(studio):
    assert any(studio.evaluate(LATE) == 0 for _ in range(12)), "a busy machine may delay more than that one"


def test_it_is_a_page_for_the_keyboard_and_the_phone(studio):
    text = studio.get_by_role("textbox", name="Text")
    text.focus()
    visited = []
    for _ in range(12):
        studio.keyboard.press("Tab")
        visited.append(studio.evaluate("document.activeElement.textContent || document.activeElement.id"))
        if visited[-1] == "Speak":
            break
    assert visited[-1] == "Speak"
    studio.keyboard.press("Enter")
    expect(studio.get_by_role("list", name="Takes").get_by_role("listitem")).to_have_count(1)
    studio.set_viewport_size({"width": 360, "height": 740})
    assert studio.evaluate("document.documentElement.scrollWidth") <= 360


NAMES = [
    ("textbox", "Text"), ("textbox", "Expression"), ("textbox", "Seed"), ("button", "Speak"), ("button", "Stop"),
    ("button", "Record"), ("combobox", "Voice"), ("slider", "@pitch"), ("slider", "Blend"),
    ("checkbox", "Keep this seed"), ("list", "Library"), ("list", "Takes"),
]  # fmt: skip


def test_controls_are_found_by_their_names(studio):
    for role, name in NAMES:
        expect(studio.get_by_role(role, name=name, exact=True)).to_have_count(1)


def test_it_speaks_chinese_to_its_user(studio):
    studio.get_by_role("combobox", name="Language of the page").select_option("zh")
    expect(button(studio, "朗读")).to_be_visible()
    assert studio.evaluate("document.documentElement.lang") == "zh"


def picture(what, folder, name):
    """A screenshot of 64 colours."""
    shot = Image.open(io.BytesIO(what.screenshot()))
    shot.convert("RGB").quantize(64).save(folder / f"studio-{name}.png", optimize=True)


def test_pictures(studio, tmp_path):
    """The pictures of docs/studio.md; STUDIO_PICTURES says where they are kept."""
    folder = Path(os.environ.get("STUDIO_PICTURES", tmp_path))
    studio.set_viewport_size({"width": 520, "height": 800})
    section = studio.locator("section")
    speak(studio, 1)
    picture(section.filter(has=studio.get_by_role("textbox", name="Text")), folder, "speak")
    picture(section.filter(has=studio.get_by_role("heading", name="Takes")), folder, "takes")
    expression(studio).fill("0.7*voice01 + 0.3*voice10 + 0.4*@pitch - 0.3*@size")
    expect(studio.get_by_role("slider", name="Blend")).to_have_value("0.3")
    picture(section.filter(has=studio.get_by_role("heading", name="Shape")), folder, "shape")
    studio.emulate_media(color_scheme="dark")
    button(studio, "Record").click()
    recorded(studio, 3.1)
    button(studio, "Finish recording").click()
    studio.get_by_role("textbox", name="Name").fill("anna")
    studio.get_by_label("This is my voice").check()
    picture(section.filter(has=studio.get_by_role("heading", name="A voice of your own")), folder, "record")
    assert sum(path.stat().st_size for path in folder.glob("studio-*.png")) < 300_000
