"""/browser in a real browser: its vectors are ours, its files are voices, and no recording leaves it.

Needs onnxruntime-web in the package: `make browser`.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile
import soxr

pytest.importorskip("playwright")
from playwright.sync_api import expect

from convert import browser as packing
from mlx_qwen3tts import Library, SpeakerEncoder, Voice, VoiceSpace
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.networks.speaker.mel import log_mel
from mlx_qwen3tts.server import browser as served
from mlx_qwen3tts.voices import blend
from tests.studio.finding import recorded
from tests.studio.test_studio import picture

pytestmark = [
    pytest.mark.studio,
    pytest.mark.skipif(not served.has_runtime(), reason="onnxruntime-web is not packed: make browser"),
]

MINIATURE = hub.SHIPPED["miniature"]


@pytest.fixture(scope="module")
def encoder():
    return SpeakerEncoder.from_pretrained("miniature")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The address of the page as plain files, below a folder of its own, under Python's web server."""
    root = tmp_path_factory.mktemp("web")
    packing.main(["--output", str(root / "page")])
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = process.stdout.readline().split(" port ")[1].split()[0]
        yield f"http://127.0.0.1:{port}/page/"
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@contextlib.contextmanager
def opened(browser, url, **options):
    """The page, ready, and what it asked for. Afterwards the console must be empty."""
    context = browser.new_context(permissions=["microphone"], locale="en-GB", **options)
    page, requests, said = context.new_page(), [], []
    page.on("request", lambda request: requests.append(request))
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(url)
    expect(page.locator("p.status")).to_have_text("The encoder is ready.")
    try:
        yield page, requests
    finally:
        context.close()
    assert not said


@pytest.fixture
def page(browser, address):
    with opened(browser, f"{address}/browser") as (made, _):
        yield made


def drop(page, *files):
    """Give the page recordings, and wait for their vectors."""
    page.get_by_label("Or choose a file").set_input_files(list(files))
    expect(page.locator("p.status")).to_have_text(f"The vector of {files[-1].stem} is ready.")


def downloaded(page, name, tmp_path, suffix="safetensors"):
    """The file that the page makes of a voice."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name=f"Download {name} as .{suffix}", exact=True).click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert path.suffix == f".{suffix}"
    return path


def assert_same(theirs, ours, tolerance=1e-3):
    theirs, ours = np.array(theirs, np.float64), np.array(ours, np.float64)
    assert theirs @ ours >= 0.99999 * np.linalg.norm(theirs) * np.linalg.norm(ours)
    # The cosine alone would pass a vector of another voice: most of a vector is what all share.
    assert np.abs(theirs - ours).max() < tolerance * np.abs(ours).max()


CLIPS = [MINIATURE / "recordings" / f"{name}.flac" for name in ("low", "high")]


@pytest.mark.parametrize("where", ["address", "folder"])
def test_its_vectors_are_ours(browser, encoder, where, request, tmp_path):
    url = request.getfixturevalue(where)
    with opened(browser, f"{url}/browser" if where == "address" else url) as (page, requests):
        drop(page, *CLIPS)
        for clip in CLIPS:
            ours = np.array(encoder.encode(clip))
            for suffix in ("npy", "safetensors"):
                voice = Voice.load(downloaded(page, clip.stem, tmp_path, suffix))
                assert_same(voice.embedding, ours)
            assert voice.source_model == "miniature" and voice.consent is None
        # Nothing but reading, and at one place.
        sent = [r for r in requests if r.method != "GET" or r.post_data_buffer]
        away = [r.url for r in requests if not r.url.startswith((url, "blob:", "data:"))]
        assert requests and not sent and not away
        assert sum(len(r.url) for r in requests) < 3000, "nor does an address carry a recording"


def test_other_rates_are_resampled_as_ours(page, encoder, tmp_path):
    samples, rate = soundfile.read(CLIPS[1], dtype="float32")
    for other, kind in ((16000, "wav"), (22050, "flac"), (44100, "wav"), (48000, "flac")):
        path = tmp_path / f"at{other}.{kind}"
        both = np.stack([soxr.resample(samples, rate, other, "VHQ")] * 2, axis=1) * [1, 0.5]
        soundfile.write(path, both, other, subtype="PCM_16")
        drop(page, path)
        assert_same(Voice.load(downloaded(page, path.stem, tmp_path)).embedding, encoder.encode(path), 5e-3)


def test_what_the_browsers_own_resampler_costs(page, encoder, tmp_path):
    """Printed: why the page has one of its own."""
    samples, rate = soundfile.read(CLIPS[1], dtype="float32")
    centre = np.array(VoiceSpace.fit(list(shipped().values())).mean)
    for other in (16000, 44100, 48000):
        path = tmp_path / f"at{other}.wav"
        soundfile.write(path, soxr.resample(samples, rate, other, "VHQ"), other, subtype="FLOAT")
        made = page.evaluate(
            """async (data) => {
              const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer;
              return [...(await new OfflineAudioContext(1, 1, 24000).decodeAudioData(bytes)).getChannelData(0)];
            }""",
            base64.b64encode(path.read_bytes()).decode(),
        )
        theirs, ours = np.array(encoder.encode((np.float32(made), 24000))), np.array(encoder.encode(path))
        raw, centred = (float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
                        for a, b in ((theirs, ours), (theirs - centre, ours - centre)))  # fmt: skip
        print(f"{other} Hz by the browser's resampler: cosine {raw:.6f}, centred {centred:.6f}")
        assert 0.9 < raw < 0.9999


RATE_OF = """async (data) => {
  const { rateOf } = await import("/static/decode.js");
  return rateOf(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer);
}"""


def test_the_rate_of_a_file_is_read_from_its_head(page, tmp_path):
    sound, found = 0.1 * np.random.RandomState(0).standard_normal(48000), {}
    kinds = [("wav", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS"), ("mp3", "MPEG_LAYER_III")]
    for kind, subtype in kinds:
        for rate in (16000, 22050, 44100, 48000):
            soundfile.write(tmp_path / f"{rate}.{kind}", sound, rate, subtype=subtype)
    soundfile.write(tmp_path / "48000.opus", sound, 48000, format="OGG", subtype="OPUS")
    for path in tmp_path.iterdir():
        data = base64.b64encode(path.read_bytes()).decode()
        found[path.name] = page.evaluate(RATE_OF, data)
    assert len(found) == 17 and found == {name: int(name.split(".")[0]) for name in found}
    words = base64.b64encode(b"not a recording at all" * 20).decode()
    assert page.evaluate(RATE_OF, words) is None


def shipped():
    library = Library(MINIATURE / "voices")
    return {name: library[name] for name in library.names}


def test_spectrograms_are_ours_at_any_length(page):
    for samples in (1280, 1281, 1535, 1536, 24000):
        for scale in (0.0, 1e-4, 0.9):
            sound = (scale * np.sin(np.cumsum(np.random.RandomState(samples).uniform(0, 0.5, samples)))).astype(
                "float32"
            )
            theirs = page.evaluate(
                """async (sound) => {
                  const { logMel } = await import("/static/mel.js");
                  return [...logMel(Float32Array.from(sound), 128).mel];
                }""",
                [float(x) for x in sound],
            )
            ours = np.array(log_mel(mx.array(sound)))
            assert np.abs(np.reshape(theirs, ours.shape) - ours).max() < 2e-3


def test_likeness_is_that_of_the_space(page, encoder):
    drop(page, CLIPS[1])
    voices = shipped()
    space, vector = VoiceSpace.fit(list(voices.values())), encoder.encode(CLIPS[1])
    wanted = {name: float(space.similarity(vector, voice)) for name, voice in voices.items()}
    rows = page.get_by_role("table").get_by_role("row").all_inner_texts()[1:]
    found = {row.split()[0]: [float(x) for x in row.split()[1:]] for row in rows}
    assert list(found) == sorted(wanted, key=wanted.get, reverse=True)
    for name, (likeness, cosine) in found.items():
        assert likeness == pytest.approx(wanted[name], abs=2e-3)
        a, b = np.array(vector), np.array(voices[name].embedding)
        assert cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-3)


def test_a_blend_is_ours_with_its_rights_and_recipe(page, encoder, tmp_path):
    drop(page, CLIPS[0])
    page.get_by_label("Consent").select_option("given")
    page.get_by_label("Second voice").select_option("voice10")
    slider = page.get_by_role("slider", name="Blend")
    for _ in range(4):
        slider.press("ArrowLeft")
    made = Voice.load(downloaded(page, "low and voice10", tmp_path))
    other = shipped()["voice10"]
    assert_same(made.embedding, blend([encoder.encode(CLIPS[0]), other], weights=[0.7, 0.3]))
    assert made.recipe["expression"] == '0.7*"low" + 0.3*"voice10"' and made.consent == "given"
    assert made.source_model == "miniature" and made.license == "unknown"
    parents = {one["name"]: one for one in made.recipe["parents"]}
    assert parents["voice10"]["weight"] == 0.3 and parents["low"]["fingerprint"]
    library = Library(tmp_path / "library")
    library.add("mixed", made)
    assert library.info("mixed")["recipe"]["expression"] == made.recipe["expression"]


def test_a_recording_from_the_microphone(page, encoder, microphone, tmp_path):
    page.get_by_role("button", name="Record").click()
    recorded(page, 3.5)
    page.get_by_role("button", name="Finish recording").click()
    expect(page.locator("p.status")).to_have_text("The vector of recording 1 is ready.")
    space = VoiceSpace.fit(list(shipped().values()))
    heard = Voice.load(downloaded(page, "recording 1", tmp_path))
    assert float(space.similarity(heard, encoder.encode(microphone))) > 0.8


def test_what_is_no_voice_is_refused_in_words(page, tmp_path):
    status = page.locator("p.status")
    soundfile.write(tmp_path / "short.wav", np.ones(4800) * 0.1, 24000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(24000), 24000)
    (tmp_path / "words.wav").write_text("not a recording")
    for name, words in (
        ("short", "short is not 0.5 to 60 seconds long."),
        ("silent", "silent is silent."),
        ("words", "words.wav is not a recording that this browser can read."),
    ):
        page.get_by_label("Or choose a file").set_input_files(tmp_path / f"{name}.wav")
        expect(status).to_have_text(words)
    expect(page.get_by_role("list", name="Recordings").get_by_role("listitem")).to_have_count(0)


WAYS = [("runtime", "make browser"), ("onnx", "mlx-qwen3tts[onnx]"), ("encoder", "Base model")]


@pytest.mark.parametrize(("what", "way"), WAYS)
def test_what_is_missing_is_said_with_the_way_to_get_it(browser, address, what, way):
    page = browser.new_page(locale="en-GB")
    told = json.dumps({"model": "miniature", "missing": [what], "studio": True})
    page.route("**/browser/about.json", lambda route: route.fulfill(body=told, content_type="application/json"))
    page.goto(f"{address}/browser")
    expect(page.get_by_role("heading", name="Something is missing")).to_be_visible()
    expect(page.get_by_text(way)).to_be_visible()
    expect(page.get_by_role("button", name="Record")).to_have_count(0)
    page.close()


def test_it_fits_a_phone_and_speaks_chinese(page):
    drop(page, CLIPS[0])
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_role("combobox", name="Language of the page").select_option("zh")
    expect(page.locator("p.status")).to_have_text("编码器已就绪。")
    assert page.title() == "浏览器中的声音向量"


def test_picture(page, tmp_path):
    """The picture of docs/studio.md; STUDIO_PICTURES says where it is kept."""
    drop(page, *CLIPS)
    page.set_viewport_size({"width": 900, "height": 700})
    picture(page, Path(os.environ.get("STUDIO_PICTURES", tmp_path)), "browser")
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
