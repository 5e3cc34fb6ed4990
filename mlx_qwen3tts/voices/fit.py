"""Whether a voice fits a model."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidValue, UnsupportedValue
from .library.rights import REFUSED
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
    check_refused(voice)
    norm = voice.norm
    if usual and not usual / 2 <= norm <= usual * 2:
        warn(
            f"the voice's norm {norm:.2f} is far from {usual:.2f}, that of this model's voices; vectors go in raw, not "
            "normalised"
        )


def check_refused(voice: Voice, name: str | None = None) -> None:
    """Refuse a Voice to which consent is refused, or that is made of such a one: it is not spoken.

    name: what it was asked for as. The error names the parent that it is about.
    """
    if voice.consent != REFUSED:
        return
    asked = name or voice.name
    who = _refusing(voice.recipe) or asked
    called = f"voice {who!r}" if who else "the voice"
    made = "" if who == asked or asked is None else f", nor is what is made of it: {asked!r}"
    raise InvalidValue(f"{called} belongs to somebody who refused; it is not spoken{made}", param="voice")


def _refusing(recipe: Mapping[str, Any]) -> str | None:
    """The name of a recipe's first voice, at whatever depth, that has refused."""
    for parent in recipe.get("parents", ()):
        if parent.get("consent") == REFUSED:
            return _refusing(parent.get("recipe", {})) or parent.get("name")
    return None
