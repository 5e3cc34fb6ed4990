"""What runs on the workers of a cluster. A worker's process loads a model once and keeps it for later work.

Each function takes and returns plain values and NumPy arrays.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

from ..audio.reference import read_reference
from ..checkpoint import hub
from ..checkpoint.fingerprint import difference, fingerprint
from ..checkpoint.speaker import SpeakerEncoder
from ..errors import AudioError, ClusterError, QwenTTSError
from ..synthesis.tts import Qwen3TTS
from .parcels import pack_speech, unpack_request

_alone = threading.Lock()  # a model works for one thread at a time, however many a worker was given

Fingerprint = Mapping[str, str]
Model = TypeVar("Model", Qwen3TTS, SpeakerEncoder)


def speak(
    model: str,
    dtype: str | None,
    wanted: Fingerprint,
    requests: list[dict[str, Any]],
    numbers: list[int],
    options: dict[str, Any],
) -> list[tuple[int, dict[str, Any]]]:
    """(number, packed Speech) of packed Requests, which are spoken in one batch as `Qwen3TTS.generate_each` does.

    wanted: the fingerprint of the client's model; ClusterError where this machine has another one.
    """
    made: list[tuple[int, dict[str, Any]]] = []
    with _alone:
        tts = _loaded(_speaker, wanted, model, dtype)
        asked = map(unpack_request, requests)
        tts.generate_each(asked, lambda i, speech: made.append((i, pack_speech(speech))), numbers=numbers, **options)
    return made


def hear(
    model: str, wanted: Fingerprint, number: int, name: str, data: bytes, prepare: bool
) -> tuple[int, np.ndarray, list[str]]:
    """(number, vector [D], advice) of the bytes of a recording; messages call it by its name."""
    advice: list[str] = []
    with _alone:
        encoder = _loaded(_listener, wanted, model)
        try:
            samples = read_reference(data, encoder.sample_rate, prepare, advice.append)
        except AudioError as error:
            raise AudioError(_named(str(error), name)) from None
        vector = np.array(encoder.network.embed(mx.array(samples)))
    return number, vector, [_named(message, name) for message in advice]


def _named(message: str, name: str) -> str:
    """A message about bytes, which `read_audio` calls "audio", about a file."""
    return f"audio {name}{message.removeprefix('audio')}"


@functools.lru_cache(maxsize=1)
def _speaker(model: str, dtype: str | None) -> tuple[Qwen3TTS, Fingerprint]:
    folder = hub.resolve(model)
    return Qwen3TTS(folder, dtype), fingerprint(folder)


@functools.lru_cache(maxsize=1)
def _listener(model: str) -> tuple[SpeakerEncoder, Fingerprint]:
    folder = hub.resolve(model, hub.ALONE)
    return SpeakerEncoder(folder), fingerprint(folder, hub.ALONE)


def _loaded(load: Callable[..., tuple[Model, Fingerprint]], wanted: Fingerprint, model: str, *how: str | None) -> Model:
    """A model that this process has loaded, now or before. ClusterError, which names the worker, where it cannot be
    loaded or is not the one that is wanted."""
    try:
        found, own = load(model, *how)
    except QwenTTSError as error:
        raise ClusterError(f"worker {here()}: {error}", param="model") from None
    if file := difference(own, wanted):
        message = f"worker {here()} has another model {model!r}: its {file} differs; copy the folder there"
        raise ClusterError(message, param="model")
    return found


def here() -> str:
    """The address of the worker that this process is."""
    import distributed

    return distributed.get_worker().address
