"""Speaks a text in the voice of a recording, and writes speech.wav.

    python examples/speak.py [TEXT] [RECORDING] [MODEL]

Without arguments the miniature speaks, a small model that comes with the package, in the voice of a recording that
also comes with it.
"""

import sys
from pathlib import Path

import mlx_qwen3tts
from mlx_qwen3tts import Qwen3TTS

RECORDINGS = Path(mlx_qwen3tts.__file__).parent / "miniature" / "recordings"


def main(
    text: str = "Hello, this is my voice.", recording: str | Path = RECORDINGS / "low.flac", model: str = "miniature"
) -> None:
    tts = Qwen3TTS.from_pretrained(model, dtype="float32")  # leave dtype out on a GPU: the model's own is faster there
    voice = tts.clone(recording)
    speech = tts.generate(text, voice, language="English", seed=1)
    speech.save("speech.wav")
    print(f"speech.wav: {speech.stats['seconds']:.2f} s in {speech.stats['elapsed']:.2f} s, {speech.finish_reason}")


if __name__ == "__main__":
    main(*sys.argv[1:])
