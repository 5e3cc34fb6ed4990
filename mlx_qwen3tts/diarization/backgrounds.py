"""The space of other voices that a recording's last two clusters are compared in."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from ..voices.space import FEWEST, VoiceSpace
from ..voices.voice import Voice

# Where the packaged spaces lie, by dimension. That of 1024 is the mean of 36 vectors of six synthetic voices by
# Qwen3-TTS-12Hz-0.6B-Base, published under MIT (gabriele-mastrapasqua/qwen3-tts); it holds none of them. For 2048, the
# published 1.7B, there are no vectors to fit one to.
PACKAGED = {1024: Path(__file__).parent / "background_1024.safetensors"}


def background(dimension: int, folder: Path | str | None = None) -> VoiceSpace | None:
    """A VoiceSpace of other voices of this dimension, or None: of the voices that a model's folder brings along where
    there are enough to fit one to, else the packaged one."""
    if folder is not None:
        files = sorted((Path(folder) / "voices").glob("*.safetensors"))
        vectors = [Voice.load(file).embedding for file in files]
        if len(vectors) >= FEWEST and all(vector.shape == (dimension,) for vector in vectors):
            return VoiceSpace.fit(mx.stack(vectors), source=f"{len(vectors)} voices of {Path(folder).name}")
    return VoiceSpace.load(PACKAGED[dimension]) if dimension in PACKAGED else None
