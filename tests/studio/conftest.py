"""A server with the miniature, and the studio in a Chromium whose microphone is a file."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from mlx_qwen3tts import Direction, Library
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.demo import labelled
from tests.studio.finding import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
# Lets the test read what reaches the loudspeaker: the page's own recorder listens to the last node. It is loaded before
# the page's own player, so that it misses nothing, however slow the machine is.
TAP = """
const connect = AudioNode.prototype.connect;
const addModule = AudioWorklet.prototype.addModule;
window.heard = [];
AudioWorklet.prototype.addModule = async function (...module) {
  await addModule.call(this, "/static/recorder.js");
  return addModule.apply(this, module);
};
AudioNode.prototype.connect = function (to, ...more) {
  if (to instanceof AudioDestinationNode) {
    const tap = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    tap.port.onmessage = ({ data }) => window.heard.push(...data);
    connect.call(this, tap);
  }
  return connect.call(this, to, ...more);
};
"""


def spoken_into(folder):
    """The WAV file, written to `folder`, that Chromium takes for a microphone: the miniature's high recording."""
    samples, rate = soundfile.read(hub.SHIPPED["miniature"] / "recordings" / "high.flac", dtype="float32")
    path = folder / "mic.wav"
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def flags(microphone):
    """Chromium's options; microphone: the file that it takes for one."""
    return [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
        "--autoplay-policy=no-user-gesture-required",
    ]


@pytest.fixture(scope="session")
def microphone(tmp_path_factory):
    return spoken_into(tmp_path_factory.mktemp("microphone"))


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """The address of `serve --model miniature` in a process of its own, whose library has one direction: of labels that
    say nothing."""
    library = tmp_path_factory.mktemp("studio") / "voices"
    voices, pitches = labelled(hub.SHIPPED["miniature"] / "voices")
    noise = Direction.fit(voices, list(np.random.default_rng(2).permutation(pitches)), method="correlation")
    assert noise.report.correlation < 0.3
    Library(library).add_direction("noise", noise)
    command = [sys.executable, "-m", "mlx_qwen3tts.serve", "--model", "miniature", "--dtype", "float32", "--port", "0"]
    process = subprocess.Popen([*command, "--library", str(library)], stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if line.startswith("ready: "):
                break
        else:
            raise RuntimeError("the server ended before it was ready")
        yield line.split(" speaks at ")[1].strip().removesuffix("/v1")
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


@pytest.fixture(scope="session")
def browser(microphone):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=flags(microphone))
        yield made
        made.close()


@pytest.fixture
def studio(browser, address):
    """A page of the studio, as somebody finds it. Afterwards nothing may have been asked of anybody else, and the
    console must be empty."""
    context = browser.new_context(base_url=address, permissions=["microphone"], locale="en-GB")
    context.add_init_script(TAP)
    page, foreign, said = context.new_page(), [], []
    page.on("request", lambda r: r.url.startswith((address, "blob:", "data:")) or foreign.append(r.url))
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto("/")
    page.get_by_role("button", name="Speak").wait_for()
    yield page
    context.close()
    assert not foreign and not said
