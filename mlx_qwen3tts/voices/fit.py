"""Whether a voice fits a model."""

import warnings
from collections.abc import Callable

from ..errors import UnsupportedValue
from .voice import Voice, differ

# Mean norm of real x-vectors by dimension (0.6B and 1.7B); tiny models have none to compare with.
KNOWN_NORMS = {1024: 10.25, 2048: 17.0}


def check_fit(
    voice: Voice,
    dimension: int,
    model_type: str,
    usual: float | None,
    warn: Callable[[str], object] = warnings.warn,
) -> None:
    """Refuse a Voice that a model cannot speak with, and warn where its user may not have meant it.

    dimension and model_type of the model; usual: norm of its voices, or None; warn: called with a message.
    """
    if voice.dimension != dimension:
        called = f"the voice {voice.name!r}" if voice.name else "the voice"
        source = voice.source_model
        called = f"{called} (of {source})" if source else called
        raise differ(called, voice.dimension, "this model takes", dimension, "voice")
    if voice.ref_codes is not None and model_type != "base":
        raise UnsupportedValue("cloning in context needs a Base model; leave out the reference text", param="ref_text")
    if voice.consent == "refused":
        warn(f"consent to the voice {voice.name or ''} is entered as refused")
    norm = voice.norm
    if usual and not usual / 2 <= norm <= usual * 2:
        warn(
            f"the voice's norm {norm:.2f} is far from {usual:.2f}, that of this model's voices; vectors go in raw, not "
            "normalised"
        )
