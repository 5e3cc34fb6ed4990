"""What this package hands out can be used in any thread, and a stream can be closed from another one."""

import asyncio
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from convert.parity import recording, vector
from mlx_qwen3tts import Codec, SpeakerEncoder
from mlx_qwen3tts.synthesis.loop import Generation

TEXT = "Hello there, the weather is fine; we'll walk to the old harbour, you and I."

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
