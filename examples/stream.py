"""Speaks a text while it is still being written, and prints when each piece of sound is ready.

    python examples/stream.py

Writes streamed.wav.
"""

import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import mlx_qwen3tts
from mlx_qwen3tts import Qwen3TTS

RECORDING = Path(mlx_qwen3tts.__file__).parent / "miniature" / "recordings" / "high.flac"


def pieces() -> Iterator[str]:
    """A text that comes piece by piece, as a language model writes it."""
    for piece in ("Hello, ", "this ", "is ", "my ", "voice. ", "It is ", "a small ", "model."):
        time.sleep(0.05)
        yield piece


def main() -> None:
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    voice = tts.clone(RECORDING)
    with wave.open("streamed.wav", "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(tts.sample_rate)
        begun = time.perf_counter()
        for chunk in tts.stream(pieces(), voice, language="English", seed=1):
            after, seconds = time.perf_counter() - begun, chunk.audio.size / chunk.sample_rate
            print(f"after {after:.2f} s: {seconds:.2f} s of sound")
            file.writeframes((np.array(chunk.audio) * 32767).astype("<i2").tobytes())  # or play it


if __name__ == "__main__":
    main()
