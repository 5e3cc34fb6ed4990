"""How much of a library a search may hold in memory."""

from __future__ import annotations

import os

from ...errors import InvalidValue
from .snapshot import Snapshot

SETTING = "MLX_QWEN3TTS_SEARCH_GB"
SHARE = 4  # unless that is set, the part of the machine's memory: a quarter


def room() -> int:
    """Bytes that the vectors of a search may take: what the environment says, else a quarter of the memory."""
    given = os.environ.get(SETTING)
    if given is None:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // SHARE
    try:
        return int(float(given) * 1e9)
    except (ValueError, OverflowError):
        raise InvalidValue(f"{SETTING} {given!r} is not a number of GB") from None


def check_room(snapshot: Snapshot, dimension: int) -> bool:
    """Whether all voices of a dimension fit, as float32."""
    return 4 * dimension * snapshot.count(dimension) <= room()
