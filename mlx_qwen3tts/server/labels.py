"""What the server's sound says of itself: tags in its head, and for pcm, which has none, headers of the answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..provenance.origin import Origin
from ..voices.voice import Voice

if TYPE_CHECKING:
    from ..synthesis.request import Request
    from .app import Server


def origin_of(
    server: Server,
    requests: Sequence[Request],
    seed: int | None = None,
    more: Iterable[Voice] = (),
) -> Origin:
    """Where the sound of Requests comes from, whose voices are found; more: voices that are heard besides."""
    heard: list[tuple[Voice | None, str | None]] = []
    for one in requests:
        heard.append((one.voice if isinstance(one.voice, Voice) else None, one.instruct))
        if isinstance(one.morph, Voice):
            heard.append((one.morph, None))
    heard += [(voice, None) for voice in more]
    texts = [one.text for one in requests if isinstance(one.text, str)]  # one that is still written is not known yet
    text = " ".join(texts) if server.seal.text and texts else None
    return Origin.of(server.tts.title, heard, seed, text)


def headers(server: Server, origin: Origin) -> dict[str, str]:
    """x-origin, with what the tags say, and x-mark where all sound of this server is marked."""
    line = origin.header()
    told = {} if line is None else {"x-origin": line}
    return told if server.seal.mark is None else {**told, "x-mark": "on"}
