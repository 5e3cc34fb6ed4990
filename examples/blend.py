"""Mixes two voices: two recordings become vectors, the vectors become a third one, and this one speaks.

    python examples/blend.py [SHARE]

SHARE of the second voice, from 0 to 1 (default: 0.5). Writes blend.wav and blend.safetensors,
which every command accepts as a voice.
"""

import sys
from pathlib import Path

import mlx_qwen3tts
from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.voices import blend

RECORDINGS = Path(mlx_qwen3tts.__file__).parent / "miniature" / "recordings"


def main(share: str = "0.5") -> None:
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    low, high = (tts.embed(RECORDINGS / f"{name}.flac") for name in ("low", "high"))
    print(f"each recording is a vector of {low.size} numbers")
    mixed = blend([low, high], weights=[1 - float(share), float(share)])
    Voice(mixed).save("blend.safetensors")
    tts.generate("This is a blend of two voices.", mixed, language="English", seed=1).save("blend.wav")
    print("blend.safetensors\nblend.wav")


if __name__ == "__main__":
    main(*sys.argv[1:])
