"""Speaks several lines at once, each with its own voice, and reports the lines that cannot be spoken.

    python examples/batch.py

Writes lines/0.wav, lines/1.wav and so on.
"""

from pathlib import Path

import mlx_qwen3tts
from mlx_qwen3tts import Library, Qwen3TTS
from mlx_qwen3tts.errors import QwenTTSError

RECORDINGS = Path(mlx_qwen3tts.__file__).parent / "miniature" / "recordings"
LINES = [
    ("low", "Good morning."),
    ("high", "Hello, how are you?"),
    ("nobody", "I have no voice."),
    ("low*0.5 + high*0.5", "This is a blend of two voices."),
]


def main() -> None:
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32", library="cast")
    library = Library("cast")
    for name in ("low", "high"):
        if name not in library.names:
            library.add(name, tts.clone(RECORDINGS / f"{name}.flac"))

    voices = {}
    for number, (voice, _) in enumerate(LINES):
        try:
            voices[number] = tts.voice(voice)  # in the batch, a missing voice would stop every line
        except QwenTTSError as error:
            print(f"line {number}: {error.code}: {error}")
    texts = [LINES[number][1] for number in voices]
    speeches = tts.generate_batch(texts, voices=list(voices.values()), languages="English", seeds=1)
    Path("lines").mkdir(exist_ok=True)
    for number, speech in zip(voices, speeches, strict=True):
        speech.save(f"lines/{number}.wav")
        print(f"lines/{number}.wav: {speech.stats['seconds']:.2f} s")


if __name__ == "__main__":
    main()
