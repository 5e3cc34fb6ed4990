"""The speaker encoder alone, from recordings to vectors."""

import mlx.core as mx

from ..checkpoint import load_encoder_alone
from ..files import hub
from ..files.audio import read_reference


class Embedder:
    """Calls give the vector [D] of a recording. `source` is the model's name, for a voice's metadata."""

    def __init__(self, model):
        """model: a Base model or a standalone speaker encoder, a folder or hub id; nothing else of it is read."""
        folder = hub.resolve(model, hub.ALONE)
        self.encoder, self.sample_rate = load_encoder_alone(folder)
        self.source = folder.name

    def __call__(self, audio, prepare=False):
        """audio: a path, (samples, rate) or samples at `sample_rate`; prepare: trim silence and level it first."""
        return self.encoder.embed(mx.array(read_reference(audio, self.sample_rate, prepare)))
