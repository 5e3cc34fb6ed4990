"""`generate` streaming, playing, in batches and with text from a pipe, as users type it."""

import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert.parity import vector
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.audio.player import Player
from mlx_qwen3tts.audio.writing import audio_bytes, wav_head, wav_samples
from mlx_qwen3tts.errors import PlayError
from mlx_qwen3tts.networks.codec.codec import decode
from mlx_qwen3tts.synthesis import speech
from mlx_qwen3tts.synthesis.loop import Generation

ROOT = Path(__file__).parent.parent
SEED = ("--seed", "1")


@pytest.fixture
def base(checkpoint, tmp_path):
    """`generate` with a model that speaks on until it is cut, but for the text."""
    np.save(tmp_path / "voice.npy", vector(64, 1))
    return ("generate", "--model", checkpoint("base"), "--embedding", "voice.npy", "--max-tokens", "20", *SEED)


# --stream


def test_streaming_to_a_file_gives_the_same_sound_and_tells_when(command, base):
    assert command(*base, "Hello.", "--output", "whole.wav", "--codes-output", "whole.npy").status == 0
    ran = command(*base, "Hello.", "--stream", "--codes-output", "c.npy", "--json")
    assert ran.status == 0 and "first audio after" in ran.err and "largest gap" in ran.err
    told = json.loads(ran.out)
    assert 0 < told["first_audio"] <= told["elapsed"] and told["frames"] == 19 and told["output"] == "out.wav"
    whole, streamed = (soundfile.read(name, dtype="int16")[0].astype(int) for name in ("whole.wav", "out.wav"))
    assert np.abs(whole - streamed).max() <= 1
    assert np.array_equal(np.load("whole.npy"), np.load("c.npy"))


def test_samples_are_rounded_as_in_files():
    sound = np.concatenate([np.linspace(-1, 1, 1001), [0.5 / 32767, 1.5 / 32767]]).astype(np.float32)
    assert audio_bytes(sound, 24000).endswith(wav_samples(sound, 24000))
    heard, rate = soundfile.read(io.BytesIO(wav_head(24000) + wav_samples(sound, 24000)))
    assert rate == 24000 and heard.shape == sound.shape and np.abs(heard - sound).max() < 1e-4


def read_exactly(pipe, count, got, enough):
    while len(got) < count and (data := pipe.read1(count - len(got))):
        got.extend(data)
    enough.set()


def test_sound_leaves_the_pipe_while_text_still_comes(base, tmp_path):
    """The whole chain: a writer, this program, a listener, each a process."""
    run = [sys.executable, "-m", "mlx_qwen3tts.generate", *map(str, base[1:])]
    run += ["--text-file", "-", "--stream", "--output", "-", "--codes-output", "c.npy"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(run, cwd=tmp_path, env=environment, **pipes) as running:
        running.stdin.write("Hello there, the wéather is ".encode())
        running.stdin.flush()
        got, enough = bytearray(), threading.Event()
        first_words = 44 + 6 * 3840  # the head and a frame for each of some words
        threading.Thread(target=read_exactly, args=(running.stdout, first_words, got, enough)).start()
        assert enough.wait(60), running.stderr.read1()
        assert len(got) == first_words and running.poll() is None
        # A character cut in two between two writes.
        running.stdin.write("fine tö".encode()[:-1])
        running.stdin.flush()
        time.sleep(0.1)
        running.stdin.write("ö".encode()[1:] + b"day.")
        running.stdin.close()
        rest = running.stdout.read()
        assert running.wait(60) == 0, running.stderr.read()
    heard, rate = soundfile.read(io.BytesIO(bytes(got) + rest), dtype="int16")
    whole = [*run[: run.index("--text-file")], "--codes-output", "whole.npy", "Hello there, the wéather is fine töday."]
    assert subprocess.run(whole, cwd=tmp_path, env=environment, capture_output=True).returncode == 0
    assert np.array_equal(np.load(tmp_path / "c.npy"), np.load(tmp_path / "whole.npy"))
    kept = soundfile.read(tmp_path / "out.wav", dtype="int16")[0]
    assert rate == 24000 and np.abs(heard.astype(int) - kept).max() <= 1


def test_what_is_no_text_in_a_pipe(refused, base, monkeypatch):
    for data, message in (
        (b"", "text is empty"),
        (b" \n", "text is empty"),
        (b"Hello \xff", "stdin is not UTF-8 (byte 6); write UTF-8 to it"),
        (b"Hello \xc3", "stdin is not UTF-8 (byte 6); write UTF-8 to it"),
        (b"a\x00b", "text has the control character U+0000 at position 1; remove it"),
    ):
        for more in ((), ("--stream",)):
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
            assert refused(*base, *more, "--text-file", "-") == message


def spoken_by(base, tmp_path, *arguments, **options):
    """A real process."""
    run = [sys.executable, "-m", "mlx_qwen3tts.generate", *map(str, base[1:]), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(run, cwd=tmp_path, env=environment, timeout=60, **options)


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_stream_is_no_fault(base, tmp_path, closed):
    ran = spoken_by(base, tmp_path, "Hello.", preexec_fn=lambda: os.close(closed))
    assert ran.returncode == 0 and soundfile.info(tmp_path / "out.wav").frames == 19 * 1920
    if closed == 1:
        ran = spoken_by(base, tmp_path, "Hello.", "--output", "-", stderr=-1, preexec_fn=lambda: os.close(1))
        assert (ran.returncode, ran.stderr) == (2, b"error: --output - writes to stdout, which is closed\n")


def test_codes_are_kept_when_the_listener_leaves(base, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    ran = spoken_by(base, tmp_path, "Hello.", "--stream", "--output", "-", "--codes-output", "c.npy", stdout=writing)
    os.close(writing)
    assert ran.returncode == 0 and len(np.load(tmp_path / "c.npy")) >= 1


def test_a_disk_that_is_full_behind_stdout(base, tmp_path):
    with open("/dev/full", "wb") as full:
        ran = spoken_by(base, tmp_path, "Hello.", "--output", "-", stdout=full, stderr=-1)
    assert ran.returncode == 2 and ran.stderr.endswith(b"error: cannot write stdout: No space left on device\n")


def test_ctrl_c_in_a_stream_is_heard_to_the_end(command, base, monkeypatch):
    """What was made is what went out."""
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out, flush=lambda: None))
    enqueue = Generation.enqueue

    def interrupted(self):
        if self.rows and self.rows[0].tokens == 12:
            raise KeyboardInterrupt
        return enqueue(self)

    monkeypatch.setattr(Generation, "enqueue", interrupted)
    ran = command(*base, "Hello.", "--stream", "--output", "-", "--codes-output", "c.npy")
    assert ran.status == 130
    data = out.getvalue()
    assert len(data) == head_of(data) + len(np.load("c.npy")) * 1920 * 2 and len(np.load("c.npy")) == 11


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b"])
def test_a_stream_into_a_file_has_its_length_in_the_end(base, tmp_path, mode):
    """`> file` and `1<> file` can be mended; `>> file` takes everything at its end, and stays as a pipe gets it."""
    (tmp_path / "heard.wav").write_bytes(b"before")
    with open(tmp_path / "heard.wav", mode) as file:
        file.seek(0, os.SEEK_END)
        ran = spoken_by(base, tmp_path, "Hello.", "--stream", "--output", "-", stdout=file)
    assert ran.returncode == 0
    data = (tmp_path / "heard.wav").read_bytes().removeprefix(b"before")
    size = 19 * 3840
    head = head_of(data)
    assert len(data) == head + size and soundfile.info(io.BytesIO(data)).frames == 19 * 1920
    unknown = 0xFFFFFFFF
    lengths = (unknown, unknown) if mode == "ab" else (head - 8 + size, size)
    assert struct.unpack_from("<I", data, 4) + struct.unpack_from("<I", data, head - 4) == lengths


def head_of(data):
    """How many bytes of a WAV stand before its samples."""
    return data.index(b"data") + 8


def test_the_head_is_that_of_every_other_wav():
    sound = vector(2400, 1)
    assert audio_bytes(sound, 24000)[:44] == wav_head(24000, 4800)


# --strict


def test_a_cut_text_is_status_3_where_that_is_asked_for(command, base, checkpoint, tmp_path):
    (tmp_path / "lines.txt").write_text("One.\nTwo.")
    batch = ("--text-file", "lines.txt", "--batch-size", "2")
    for run in (("Hello.",), ("Hello.", "--stream"), batch):
        run = (*run, "--max-tokens", "4")
        assert command(*base, *run).status == 0
        ran = command(*base, *run, "--strict", "--json")
        assert ran.status == 3 and ran.out.count("length") == (2 if "--batch-size" in run else 1)
        assert "was cut" in ran.err and "error" not in ran.err
    assert len(list(Path("out").iterdir())) == 2 and Path("out.wav").is_file(), "all of it is written"
    ends = ("generate", "--model", checkpoint("base-ends"), "--embedding", "voice.npy", "--max-tokens", "80", *SEED)
    assert command(*ends, "Hello.", "--strict").status == 0


def test_a_long_text_that_was_cut_is_to_be_split(command, base, tmp_path, monkeypatch):
    """20 tokens are room for some six tokens of text; whether it comes whole, in pieces, or in sentences."""
    long = "Hello there. How are you today?"
    for run in ((long,), ("--morph-to", "voice.npy", "--morph-mode", "sentences", long), ("--text-file", "-")):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(long.encode())))
        told = command(*base, *run).err
        assert re.search(
            r"was cut; raise max_tokens or split the text, which should take some (2[1-9]|[3-9]\d)\n", told
        )
    assert "was cut; raise max_tokens or try another seed" in command(*base, "Hi.").err


# --keep


def test_what_a_blend_keeps(command, refused, checkpoint, tmp_path):
    from mlx_qwen3tts import Library, Voice
    from mlx_qwen3tts.synthesis.request import KEEPS
    from mlx_qwen3tts.voices.algebra import KEEP

    assert tuple(KEEP) == KEEPS
    for number in range(12):
        Library("voices").add(f"v{number}", Voice(vector(64, number)))
    run = ("generate", "--model", checkpoint("base"), "--max-tokens", "6", *SEED, "--codes-output", "c.npy", "Hi.")
    codes = {}
    for keep in KEEPS:
        ran = command(*run, "--voice", "v1*0.5 + v2*0.5", "--keep", keep)
        assert ran.status == 0, ran.err
        codes[keep] = np.load("c.npy")
        made = ("voices", "blend", "v1*0.5 + v2*0.5", "--keep", keep, "--output", "mix.npy")
        assert command(*made).status == 0
        assert command(*run, "--embedding", "mix.npy").status == 0
        assert np.array_equal(np.load("c.npy"), codes[keep])
    assert command(*run, "--voice", "v1*0.5 + v2*0.5").status == 0
    assert np.array_equal(np.load("c.npy"), codes["none"]) and not np.array_equal(codes["none"], codes["norm"])
    assert not np.array_equal(codes["radius"], codes["norm"])
    (tmp_path / "lines.txt").write_text("Hi.")
    batch = (*run[:-3], "--text-file", "lines.txt", "--batch-size", "1", "--codes-output", "codes", "--output", "o")
    assert command(*batch, "--voice", "v1*0.5 + v2*0.5", "--keep", "norm").status == 0
    assert np.array_equal(np.load("codes/0001.npy"), codes["norm"])
    few = refused(*run, "--library", "few", "--voice", "mix.npy*0.5 + mix.npy*0.5", "--keep", "radius")
    assert few.startswith("keep radius needs a voice space, which takes a library with more voices")


# --batch-size


@pytest.fixture
def lines(tmp_path):
    (tmp_path / "lines.txt").write_text("\ufeffOne.\n\n  \nHello, the\u2028weather.\r\nThe user.\n", encoding="utf-8")
    return ("--text-file", "lines.txt", "--batch-size", "2")


def test_a_line_a_text(command, base, lines):
    base = (*base, "--max-tokens", "9")
    ran = command(*base, *lines, "--output", "spoken", "--codes-output", "codes", "--json")
    assert ran.status == 0, ran.err
    names = ["0001", "0002", "0003"]
    assert sorted(path.name for path in Path("spoken").iterdir()) == [f"{name}.wav" for name in names]
    told = json.loads(ran.out)
    assert (
        float(ran.err.split(" s of speech in ")[1].split(" s:")[0]) < sum({r["elapsed"] for r in told["texts"]}) + 0.01
    )
    assert len({row["elapsed"] for row in told["texts"]}) == 1, "the texts share the time of all of them"
    assert [row["output"] for row in told["texts"]] == [str(Path("spoken") / f"{name}.wav") for name in names]
    for name, text in zip(names, ("One.", "Hello, the\u2028weather.", "The user."), strict=True):
        assert command(*base, text, "--codes-output", "c.npy").status == 0
        assert np.array_equal(np.load(f"codes/{name}.npy"), np.load("c.npy"))
        assert np.abs(soundfile.read(f"spoken/{name}.wav")[0] - soundfile.read("out.wav")[0]).max() < 1e-4
    assert command(*base, *lines).status == 0 and len(list(Path("out").iterdir())) == 3, "the default folder"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text-file", "-", "--batch-size", "2"), "--batch-size needs --text-file with a file, a text a line"),
        (("Hello.", "--batch-size", "2"), "--batch-size needs --text-file with a file, a text a line"),
        (("--text-file", "lines.txt", "--batch-size", "0"), "--batch-size 0 is not 1 or more"),
        (
            ("--text-file", "lines.txt", "--batch-size", "2", "--stream"),
            "--stream speaks one text; leave out --batch-s",
        ),
        (("--text-file", "lines.txt", "--batch-size", "2", "--play"), "--play speaks one text; leave out --batch-size"),
        (
            ("--text-file", "lines.txt", "--batch-size", "2", "--output", "-"),
            "--output - takes one text; in a batch it",
        ),
        (
            ("--text-file", "lines.txt", "--batch-size", "2", "--output", "x.wav"),
            "--output x.wav is the name of a file; in a batch",
        ),
        (
            ("--text-file", "lines.txt", "--batch-size", "2", "--output", "lines.txt"),
            "--output lines.txt is not a folder",
        ),
        (("--text-file", "lines.txt", "--batch-size", "2", "--output", "voice"), "--output voice is not a folder"),
        (("--text-file", "lines.txt", "--batch-size", "2", "--output", "no/where"), "output folder no does not exist"),
        (("--text-file", "lines.txt", "--batch-size", "2", "--output", ""), "--output is empty"),
        (("--text-file", "lines.txt", "--batch-size", "2", "--codes-output", ""), "--codes-output is empty"),
        (("--text-file", "empty.txt", "--batch-size", "2"), "text is empty"),
        (("--text-file", "bad.txt", "--batch-size", "2"), "text 2: text has the control character U+0007"),
    ],
)
def test_batches_that_cannot_be(refused, base, lines, tmp_path, options, message):
    (tmp_path / "voice").touch()
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bad.txt").write_text("One.\nTwo\x07.\n")
    assert message in refused(*base, *options)


# --play


class FakeDevice:
    """Stands in for sounddevice: a device that takes blocks of 480 samples whenever `tick` is called."""

    class CallbackStop(Exception):
        pass

    class PortAudioError(Exception):
        pass

    def __init__(self, broken=False):
        self.broken, self.heard, self.open = broken, [], False

    def OutputStream(self, samplerate, channels, dtype, callback, finished_callback):
        if self.broken:
            raise self.PortAudioError("no default output device")
        assert (samplerate, channels, dtype) == (24000, 1, "float32")
        self.callback, self.finished = callback, finished_callback
        return self

    def start(self):
        self.open = True
        threading.Thread(target=self.run, daemon=True).start()

    def tick(self):
        block = np.full((480, 1), np.nan, np.float32)
        try:
            self.callback(block, 480, None, None)
        finally:
            self.heard.append(block[:, 0])

    def run(self):
        while self.open:
            try:
                self.tick()
            except self.CallbackStop:
                break
            time.sleep(0.001)  # twenty times as fast as a real one, and the processor is for who speaks
        self.finished()

    def close(self):
        self.open = False


def test_playing_what_is_spoken(command, base, checkpoint, monkeypatch):
    device = FakeDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    ran = command(*base, "Hello.", "--play", "--json")
    assert ran.status == 0 and "underruns" in ran.err and json.loads(ran.out)["underruns"] >= 0
    heard, wanted = (
        np.concatenate(device.heard),
        np.array(
            Qwen3TTS.from_pretrained(checkpoint("base")).generate("Hello.", vector(64, 1), seed=1, max_tokens=20).audio
        ),
    )
    assert np.isfinite(heard).all()
    # What the device got, without the silence in which it waited.
    heard, wanted = heard[heard != 0], wanted[wanted != 0]
    assert heard.shape == wanted.shape and np.abs(heard - wanted).max() <= 1e-5


def test_underruns_are_counted_once_a_pause(monkeypatch):
    device = FakeDevice()
    device.start = lambda: None
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    player = Player(24000)
    device.tick()
    assert player.underruns == 0, "nothing has been spoken yet"
    player.play(np.ones(960, np.float32))
    for _ in range(2):
        device.tick()
    assert player.underruns == 0
    for _ in range(3):
        device.tick()
    assert player.underruns == 1
    player.play(np.ones(500, np.float32))
    for _ in range(2):
        device.tick()
    assert player.underruns == 2
    assert np.concatenate(device.heard).sum() == 1460
    player._over = True
    with pytest.raises(device.CallbackStop):
        device.tick()
    assert player.underruns == 2


def test_without_a_device_there_is_a_way_out(refused, base, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    message = refused(*base, "Hello.", "--play")
    assert message == f"--play needs sounddevice: pip install -e '{ROOT.resolve()}[play]'"
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevice(broken=True))
    assert refused(*base, "Hello.", "--play") == "--play: no sound can be played here: no default output device"
    with pytest.raises(PlayError):
        Player(24000)


# Memory


def test_long_sound_needs_no_more_memory_than_short(model):
    decoder, peaks = model("base").codec.decoder, []
    for frames in (100, 300):
        codes = mx.zeros((frames, 16), mx.int32)
        mx.eval(decode(decoder, codes[:25]))
        mx.synchronize()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        sound = decode(decoder, codes)
        mx.eval(sound)
        peaks.append(mx.get_peak_memory() - before - 2 * sound.nbytes)  # the samples, in pieces and joined
        del sound
    assert peaks[1] <= 1.05 * peaks[0] + 1e5


def test_the_wired_limit_is_raised_while_speaking_and_put_back(model, monkeypatch):
    limits = []
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 10**12})
    monkeypatch.setattr(mx, "set_wired_limit", lambda limit: limits.append(limit) or 5)
    tts = model("base")
    tts.generate("Hello.", vector(64, 1), max_tokens=3)
    assert limits == [10**12, 5]
    tts.generate_batch(["Hello."], vector(64, 1), max_tokens=3)
    assert limits == [10**12, 5] * 2
    stream = tts.stream("Hello.", vector(64, 1), max_tokens=30)
    next(stream)
    assert limits[4:] == [10**12]
    stream.close()
    assert limits[4:] == [10**12, 5]
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 1000})
    with pytest.warns(UserWarning, match="quantise it"), speech.wired_limit():
        pass
