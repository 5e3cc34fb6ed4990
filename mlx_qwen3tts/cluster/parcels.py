"""What travels between machines: Requests and Speeches as plain values and NumPy arrays.

Voices are sent as vectors and codes, never as names or paths, which mean nothing on another machine.
"""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import UnsupportedValue
from ..provenance.origin import Origin
from ..synthesis.request import PROCESSORS, Request, Sampling
from ..synthesis.speech import Speech
from ..synthesis.watch import Attempt
from ..voices.voice import Voice


def pack_request(request: Request) -> dict[str, Any]:
    """A Request whose voice is a Voice or None. UnsupportedValue for functions, a text in pieces and a morph."""
    sampling = {field.name: getattr(request.sampling, field.name) for field in fields(Sampling)}
    if request.live or request.morph is not None or any(sampling.pop(name) for name in PROCESSORS):
        raise UnsupportedValue("texts in pieces, morphs and logits processors cannot be sent to other machines")
    own = {field.name: getattr(request, field.name) for field in fields(Request)}
    return {**own, "sampling": sampling, "voice": _pack_voice(request.voice)}


def unpack_request(parcel: dict[str, Any]) -> Request:
    """What `pack_request` was given."""
    voice = parcel["voice"]
    return Request(
        **{**parcel, "sampling": Sampling(**parcel["sampling"]), "voice": None if voice is None else Voice(**voice)}
    )


def _pack_voice(voice: Any) -> dict[str, Any] | None:
    if voice is None:
        return None
    codes = None if voice.ref_codes is None else np.array(voice.ref_codes)
    values = {"embedding": np.array(voice.embedding), "ref_codes": codes, "ref_text": voice.ref_text}
    return {**values, "metadata": dict(voice.metadata), "name": voice.name, "notes": list(voice.notes)}


def pack_speech(speech: Speech) -> dict[str, Any]:
    """A Speech: audio [samples] float32, codes [frames, codebooks] int32, and the other fields as they are."""
    own = {field.name: getattr(speech, field.name) for field in fields(Speech)}
    own["attempts"] = [astuple(attempt) for attempt in speech.attempts]
    own["origin"] = None if speech.origin is None else speech.origin.as_dict()
    return {name: np.array(value) if isinstance(value, mx.array) else value for name, value in own.items()}


def unpack_speech(parcel: dict[str, Any]) -> Speech:
    """What `pack_speech` was given."""
    arrays = {name: mx.array(parcel[name]) for name in ("audio", "codes")}
    origin = parcel["origin"] and Origin.from_dict(parcel["origin"])
    attempts = tuple(Attempt(*attempt) for attempt in parcel["attempts"])
    return Speech(**{**parcel, **arrays, "attempts": attempts, "origin": origin})
