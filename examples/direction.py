"""Learns from ten labelled voices what pitch is, makes a voice higher, and measures whether it worked.

    python examples/direction.py

Writes before.wav and after.wav. Measuring needs an extra: pip install '.[voices]'
"""

import importlib.util
from pathlib import Path

import numpy as np

import mlx_qwen3tts
from mlx_qwen3tts import Direction, Qwen3TTS, Voice
from mlx_qwen3tts.audio.measures import f0_track

MINIATURE = Path(mlx_qwen3tts.__file__).parent / "miniature"


def main() -> None:
    voices = [Voice.load(path) for path in sorted((MINIATURE / "voices").glob("*.safetensors"))]
    pitch = Direction.fit(voices, [float(voice.attributes["f0"]) for voice in voices], method="ridge")
    print(f"{len(voices)} voices; voices left out of the fit: correlation {pitch.report.correlation:.2f}")

    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    before = tts.embed(MINIATURE / "recordings" / "low.flac")
    for name, vector in (("before", before), ("after", pitch.apply(before, 0.6))):  # 0.6 radii of the voices
        speech = tts.generate("Hello, this is my voice.", vector, language="English", greedy=True)
        speech.save(f"{name}.wav")
        if importlib.util.find_spec("librosa"):
            print(f"{name}: {np.nanmedian(f0_track(np.array(speech.audio))):.0f} Hz")


if __name__ == "__main__":
    main()
