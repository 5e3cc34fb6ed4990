"""Speaks frame by frame, and shows what the model computed for each: logits, hidden states, codes.

    python examples/steps.py [TEXT]

Writes steps.wav. `steps` is the whole loop; the sound equals that of `generate` with the same seed.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np

import mlx_qwen3tts
from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.audio.writing import write_audio

RECORDING = Path(mlx_qwen3tts.__file__).parent / "miniature" / "recordings" / "low.flac"


def steps(tts: Qwen3TTS, text: str, voice: Voice, seed: int = 1) -> Iterator[tuple[mx.array, mx.array, mx.array]]:
    """(logits [V] of codebook 0, hidden state [E] of the talker, codes [codebooks]) of every frame."""
    prompt = tts.prompt(text, voice, "English")
    step, settings = tts.steps.of([tts.sampling])  # sampling, the code predictor, the sum of the codes' embeddings
    caches, seen = tts.talker.make_cache(), tts.steps.unseen(1)
    inputs = prompt.embeddings[None]  # [1, T, E]
    for frame in range(tts.sampling.max_tokens - 1):
        logits, hidden = tts.talker(inputs, caches)
        first, codes, embedding, seen = step(logits, hidden, seen, [seed], [frame], settings)
        if first.item() == tts.config.talker.codec_eos_token_id:
            return
        yield logits[0], hidden[0, 0], codes[0]
        inputs = embedding + prompt.text.at(frame)  # what was said, and the next piece of the text


def main(text: str = "Hello, this is my voice.") -> None:
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    spoken = []
    for frame, (logits, hidden, codes) in enumerate(steps(tts, text, tts.clone(RECORDING))):
        shares = mx.softmax(logits)
        entropy = -(shares * mx.log(shares + 1e-9)).sum().item()
        print(f"frame {frame}: entropy {entropy:.2f}, norm {mx.linalg.norm(hidden).item():.1f}, {codes.tolist()}")
        spoken.append(codes)
    write_audio("steps.wav", np.array(tts.codec.decode(mx.stack(spoken))), tts.sample_rate)


if __name__ == "__main__":
    main(*sys.argv[1:])
