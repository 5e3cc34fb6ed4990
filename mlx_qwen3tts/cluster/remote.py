"""Speaking and listening on other machines: what a Qwen3TTS and a SpeakerEncoder do here, done by a cluster."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from .. import checks
from ..checkpoint import hub
from ..checkpoint.fingerprint import fingerprint
from ..checkpoint.folder import ModelFolder
from ..checkpoint.part import check_dtype
from ..errors import AudioError
from ..synthesis.casting import Casting
from ..synthesis.pieces import weight
from ..synthesis.planning import Notes
from ..synthesis.request import Request
from ..synthesis.speech import Speech
from ..voices import FOLDER
from ..voices.library.library import Library
from ..voices.voice import Voice
from . import work
from .parcels import pack_request, unpack_speech
from .scheduler import Cluster, check_address

LARGEST = 256 << 20  # bytes of a recording that is sent: a minute of anything has less


class Speakers:
    """As much of a Qwen3TTS as scripts use, spoken by a cluster. The model is looked into here and loaded there.

    sample_rate: of the speech; planner: has `resolve`, as a Qwen3TTS's; adapted: None, as no adapter travels.
    """

    adapted: str | None = None

    def __init__(
        self, address: str, model: str | Path = "mlx_model", dtype: str | None = None, library: str | Path = FOLDER
    ) -> None:
        """address: of the scheduler, which is not connected to before there is something to speak. model: as for
        `Qwen3TTS.from_pretrained`; workers look for it under the same name, and it must be the same."""
        self.address, self.model, self.dtype = check_address(address), str(model), dtype
        chosen, self._folder = check_dtype(dtype), ModelFolder(hub.resolve(model))
        self.sample_rate = self._folder.codec.sample_rate
        self._casting = Casting(self._folder, chosen or self._folder.dtype, Library(library))

    @property
    def planner(self) -> Casting:
        return self._casting

    @property
    def title(self) -> str:
        """As of Qwen3TTS."""
        return self._folder.title

    @property
    def languages(self) -> list[str]:
        """As of Qwen3TTS."""
        return self._folder.config.languages

    @property
    def takes_instruct(self) -> bool:
        """As of Qwen3TTS."""
        return self._folder.config.takes_instruct

    def voice(self, voice: Any) -> Voice | None:
        """As `Qwen3TTS.voice`."""
        return self._casting.resolve(voice, Notes())

    def generate_each(
        self,
        requests: Iterable[Request],
        done: Callable[[int, Speech], object],
        *,
        batch_size: int = 8,
        numbers: Iterable[int] | None = None,
        **options: Any,
    ) -> None:
        """As `Qwen3TTS.generate_each`, with a batch of `batch_size` on each worker. Those of like length are spoken
        together, the longest first, so that no worker is left with a long one at the end.

        ClusterError where the cluster cannot be used; what was spoken before has gone to `done`.
        """
        size = checks.whole(batch_size, "batch_size", 1)
        numbered = list(enumerate(requests) if numbers is None else zip(numbers, requests, strict=True))
        if not numbered:
            return
        asked = [(number, self._resolved(request)) for number, request in numbered]
        asked.sort(key=lambda one: -weight(str(one[1].text)))
        own = fingerprint(self._folder.folder)
        with Cluster(self.address) as cluster:
            size = min(size, -(-len(asked) // len(cluster.threads())))

            def parcels() -> Iterator[tuple[Any, ...]]:
                for start in range(0, len(asked), size):
                    group = asked[start : start + size]
                    packed, places = [pack_request(one) for _, one in group], [number for number, _ in group]
                    yield self.model, self.dtype, own, packed, places, {"batch_size": size, **options}

            def spoken(made: list[tuple[int, dict[str, Any]]]) -> None:
                for number, parcel in made:
                    speech = unpack_speech(parcel)
                    for message in speech.warnings:
                        warnings.warn(message, stacklevel=5)
                    done(number, speech)

            cluster.each(work.speak, parcels(), spoken)

    def _resolved(self, request: Request) -> Request:
        """A Request whose voice is a Voice or None, whatever it was called."""
        return dataclasses.replace(
            request, voice=self._casting.resolve(request.voice, Notes(), request.keep), keep="none"
        )


def listen(
    address: str,
    model: str | Path,
    recordings: Sequence[str | Path],
    prepare: bool = False,
    heard: Callable[[int], object] | None = None,
) -> tuple[list[mx.array], str]:
    """([D] of each recording, the model's name), as `SpeakerEncoder.encode` gives them, by a cluster.

    heard: called with 1 for each recording that is done. Recordings are read here and sent as they are. AudioError for
    one that cannot be used.
    """
    folder = hub.resolve(model, hub.ALONE)
    own, vectors = fingerprint(folder, hub.ALONE), {}

    def parcels() -> Iterator[tuple[Any, ...]]:
        for number, recording in enumerate(recordings):
            yield str(model), own, number, str(recording), _bytes(recording), prepare

    def done(result: tuple[int, np.ndarray, list[str]]) -> None:
        number, vector, advice = result
        for message in advice:
            warnings.warn(message, stacklevel=5)
        vectors[number] = mx.array(vector)
        if heard:
            heard(1)

    with Cluster(address) as cluster:
        cluster.each(work.hear, parcels(), done)
    return [vectors[number] for number in range(len(recordings))], folder.name


def _bytes(recording: str | Path) -> bytes:
    path = Path(recording)
    if not path.is_file():
        raise AudioError(f"audio {recording}: {'not a regular file' if path.exists() else 'no such file'}")
    try:
        if path.stat().st_size > LARGEST:
            message = f"audio {recording} has {path.stat().st_size} bytes, which a minute of sound never has; cut it"
            raise AudioError(message)
        return path.read_bytes()
    except OSError as error:
        raise AudioError(f"audio {recording} cannot be read: {error.strerror}") from None
