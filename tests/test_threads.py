"""What this package hands out can be used in any thread, and a stream can be closed from another one."""

import asyncio
import subprocess
import sys
import threading
import time

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import recording, vector
from mlx_qwen3tts import Codec, SpeakerEncoder
from mlx_qwen3tts.networks import cpu
from mlx_qwen3tts.synthesis import speech
from mlx_qwen3tts.synthesis.loop import Generation

TEXT = "Hello there, the weather is fine; we'll walk to the old harbour, you and I."

SPEAKING = """
import asyncio, sys
import numpy as np
from mlx_qwen3tts import Qwen3TTS

tts = Qwen3TTS.from_pretrained(sys.argv[1], dtype="float32")
vector = np.load(sys.argv[2])

async def main():
    asked = (asyncio.to_thread(tts.generate, "Hello.", vector, seed=1, max_tokens=8) for _ in range(4))
    return await asyncio.gather(*asked)

for _ in range(3):
    codes = [np.array(speech.codes) for speech in asyncio.run(main())]
    print(all((one == codes[0]).all() for one in codes), len(codes[0]))
"""

DAEMON = """
import sys, threading
import numpy as np
from mlx_qwen3tts import Qwen3TTS

tts = Qwen3TTS.from_pretrained(sys.argv[1], dtype="float32")
vector, speaking = np.load(sys.argv[2]), threading.Event()

def speak():
    try:
        while True:
            tts.generate("Hello.", vector, max_tokens=500, progress=lambda frames: frames > 3 and speaking.set())
    finally:
        print("stopped", flush=True)

threading.Thread(target=speak, daemon=True).start()
speaking.wait()
print("over", flush=True)
"""

PROGRAM = """
import asyncio, sys
import mlx.core as mx
import numpy as np
from mlx_qwen3tts import Library, Qwen3TTS, SpeakerEncoder

model, sound, folder = sys.argv[1:]
tts = Qwen3TTS.from_pretrained(model, dtype="float32", library=folder)
voice = tts.clone(sound, ref_text="one two")
tts.library.add("anna", voice)
speech = tts.generate("Hello.", voice, greedy=True, max_tokens=4)
chunks = list(tts.stream("Hello.", voice, greedy=True, max_tokens=4))
arrays = [voice.embedding, voice.ref_codes, tts.embed(sound), SpeakerEncoder.from_pretrained(model).encode(sound)]
arrays += [Library(folder).vectors(), speech.audio, speech.codes, tts.codec.decode(speech.codes)]
arrays += [array for chunk in chunks for array in (chunk.audio, chunk.codes)]

def use(array):
    return np.array(array).sum() + (array * 2).astype(mx.float32).sum().item()

async def main():
    return await asyncio.gather(*(asyncio.to_thread(use, array) for array in arrays))

print(len(asyncio.run(main())), "used")
"""


def test_arrays_are_used_in_threads_that_end_before_the_program_does(checkpoint, tmp_path):
    sound = recording(tmp_path / "a.wav", 1, 3.2)
    arguments = [sys.executable, "-W", "ignore", "-c", PROGRAM, checkpoint("base"), sound, tmp_path / "voices"]
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "12 used\n"), done.stderr


@pytest.mark.parametrize("_", range(2))
def test_threads_that_speak_at_once_say_the_same_and_the_program_ends_well(checkpoint, tmp_path, _):
    np.save(tmp_path / "v.npy", vector(64, 1))
    arguments = [sys.executable, "-W", "ignore", "-c", SPEAKING, checkpoint("base"), tmp_path / "v.npy"]
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "True 7\n" * 3), done.stderr


def test_a_daemon_thread_that_still_speaks_is_stopped_when_the_program_ends(checkpoint, tmp_path):
    np.save(tmp_path / "v.npy", vector(64, 1))
    arguments = [sys.executable, "-W", "ignore", "-c", DAEMON, checkpoint("base"), tmp_path / "v.npy"]
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("over\n") and done.stderr == "", done.stdout + done.stderr


def test_a_thread_gives_up_what_it_computed_with_before_it_ends(model, monkeypatch):
    """Afterwards it is too late: MLX's own cleaning asks for Python's lock, which may be gone."""
    tts, cleared = model("base"), []
    monkeypatch.setattr(mx, "clear_streams", lambda: cleared.append(threading.get_ident()))

    def speak():
        tts.generate("Hello.", vector(64, 1), max_tokens=3)
        assert not cleared
        here.append(threading.get_ident())

    here = []
    thread = threading.Thread(target=speak)
    thread.start()
    thread.join()
    assert cleared == here
    tts.generate("Hello.", vector(64, 1), max_tokens=3)  # the main thread's are MLX's to clear
    assert cleared == here


def test_a_table_that_several_threads_extend_is_whole(monkeypatch):
    table, array, inside, go = cpu.RopeTable(np.ones(4, np.float32)), mx.array, threading.Event(), threading.Event()
    made_there = []

    def slowly(values):
        made = array(values)
        made_there.extend([made] * (threading.current_thread() is other))
        if len(made_there) == 2 and not inside.is_set():
            inside.set()
            go.wait(10)
        return made

    monkeypatch.setattr(mx, "array", slowly)
    other = threading.Thread(target=lambda: table.rotation(3, 0, mx.float32))
    other.start()
    inside.wait(10)  # it has half of the table
    rotate = table.rotation(3, 0, mx.float32)
    turned = np.array(rotate(mx.ones((1, 1, 3, 8))))
    go.set()
    other.join()
    assert turned.shape == (1, 1, 3, 8)


@pytest.mark.parametrize("place", ["progress", "heard", "text"])
def test_the_next_chunk_asked_for_in_the_middle_of_one_is_refused(model, place):
    """It would wait for itself for ever."""
    streams = []

    def again(*_):
        next(streams[0])

    def pieces():
        yield "Hello there. "
        again()
        yield "More."

    text = pieces() if place == "text" else TEXT
    streams.append(model("base").stream(text, vector(64, 1), progress=again if place == "progress" else None, seed=3))
    with pytest.raises(RuntimeError, match="in the middle of a chunk: take the next one after its callback"):
        streams[0].speech(again if place == "heard" else None)


def test_the_wired_limit_is_put_back_by_the_last_thread_that_speaks(monkeypatch):
    limits = [0]
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 10**12})
    monkeypatch.setattr(mx, "set_wired_limit", lambda limit: (limits.append(limit), limits[-2])[1])
    with speech.wired_limit():
        first = speech.wired_limit()
        first.__enter__()
    assert limits == [0, 10**12]  # one speaks on
    first.__exit__(None, None, None)
    assert limits == [0, 10**12, 0]


def test_nothing_that_is_handed_out_is_still_to_be_computed(model, checkpoint, tmp_path):
    """An array that is still to be computed belongs to the stream of the thread that made it."""
    tts, sound = model("base"), recording(tmp_path / "a.wav", 1, 3.2)
    voice = tts.clone(sound, ref_text="one two")
    speech = tts.generate("Hello.", voice, greedy=True, max_tokens=4)
    encoder, codec = SpeakerEncoder(checkpoint("base")), Codec.from_pretrained(checkpoint("base"))
    made = [voice.embedding, voice.ref_codes, speech.audio, speech.codes, encoder.encode(sound)]
    made += [tts.embed(sound), codec.encode(sound), codec.decode(speech.codes)]
    problems = []

    def use():
        try:
            for array in made:
                np.array(array)
        except RuntimeError as error:
            problems.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not problems


@pytest.mark.parametrize("whole", [False, True])
def test_a_stream_is_closed_from_another_thread_and_keeps_what_was_made(model, monkeypatch, whole):
    tts, inside, step = model("base"), threading.Event(), Generation.step
    steps = []

    def slowly(self):
        steps.append(1)
        if len(steps) == 6:
            inside.set()
            time.sleep(0.2)
        return step(self)

    expected = tts.generate(TEXT, vector(64, 1), seed=3, max_tokens=60)
    monkeypatch.setattr(Generation, "step", slowly)
    stream = tts.stream(TEXT, vector(64, 1), chunks=(1, 50), seed=3, max_tokens=60)

    def close():
        inside.wait()
        stream.close()

    closing = threading.Thread(target=close)
    closing.start()
    if whole:
        speech = stream.speech()
        codes, audio = np.array(speech.codes), np.array(speech.audio)
        assert speech.finish_reason == "interrupted"
    else:
        chunks = list(stream)
        codes, audio = (np.concatenate([np.array(getattr(c, name)) for c in chunks]) for name in ("codes", "audio"))
    closing.join()
    assert len(codes) == 6 == stream.stats["frames"] and stream.finish_reason == "interrupted"
    assert (codes == np.array(expected.codes)[:6]).all()
    assert np.abs(audio - np.array(expected.audio)[: 6 * 1920]).max() <= 1e-5
    assert next(stream, None) is None


def test_a_stream_closed_before_its_first_frame_is_empty(model):
    stream = model("base").stream(TEXT, vector(64, 1), seed=3, max_tokens=60)
    stream.close()
    assert list(stream) == [] and stream.finish_reason == "interrupted"


def test_closing_in_the_middle_of_asyncio(model):
    tts = model("base")

    async def main():
        stream = tts.stream(TEXT, vector(64, 1), seed=3, max_tokens=400)
        heard = []
        for chunk in stream:
            heard.append(chunk)
            if len(heard) == 2:
                await asyncio.to_thread(stream.close)
        return heard, stream

    heard, stream = asyncio.run(main())
    assert [len(chunk.codes) for chunk in heard] == [1, 2] and stream.finish_reason == "interrupted"


@pytest.mark.parametrize("how", ["whole", "pieces", "live", "sentences"])
def test_every_chunk_may_be_asked_for_in_another_thread(model, tmp_path, how):
    """As `asyncio.to_thread(next, stream)` does; the stream itself is made here."""
    tts, voice = model("base-ends"), vector(64, 1)
    options = {"seed": 3, "max_tokens": 40}
    if how in ("live", "sentences"):
        options |= {"morph": vector(64, 2), "morph_mode": how}
    if how == "whole":
        voice = tts.clone(recording(tmp_path / "a.wav", 1, 3.2), ref_text="one two")
    expected = np.array(tts.generate(TEXT, voice, **options).codes)
    stream = tts.stream([TEXT[:20], TEXT[20:]] if how == "pieces" else TEXT, voice, **options)
    chunks, problems = [], []

    def take():
        try:
            chunks.append(next(stream, None))
        except RuntimeError as error:
            problems.append(error)

    while not problems and (not chunks or chunks[-1] is not None):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert not problems
    assert (np.concatenate([np.array(chunk.codes) for chunk in chunks[:-1]]) == expected).all()
