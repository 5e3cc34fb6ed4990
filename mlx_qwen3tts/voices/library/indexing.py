"""An index of a pack, by which a search finds candidates without reading all of it: a LanceDB table.

https://lancedb.com. The table in `packs/NAME/index/` holds the unit vectors that `VoiceSpace.similarity` compares, as
float16, so that cosine there is similarity, and an IVF_RQ index of them: a bit for each dimension. Such distances are
rough, so many candidates are taken and compared again by the pack's own vectors.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from ...checkpoint.writer import whole_folder
from ...errors import InvalidValue, MissingExtra, install_hint
from ...files.json_text import json_text
from ..algebra import units
from ..lookup import fingerprint
from ..space import VoiceSpace
from .packs import Pack

ENGINES = ("lance",)
INDEX, RECORD, TABLE = "index", "record.json", "voices"
FORM = 1
REFINE, LEAST = 40, 400  # candidates for each voice that is asked for, and at least
PROBES = 0.4  # of the partitions that are looked into
PARTITION = 8192  # voices of a partition


def check_engine() -> None:
    """MissingExtra where LanceDB is not installed."""
    if importlib.util.find_spec("lancedb") is None:
        raise MissingExtra(f"an index needs lancedb: {install_hint('lance')}", param="engine")


def build_index(pack: Pack, space: VoiceSpace | None, advance: Callable[[int], object] = lambda _: None) -> int:
    """Make the index of a pack, in place of one that is there. Returns its bytes on disk.

    space: in which voices are compared; advance: called with numbers of voices that are taken in.
    """
    check_engine()
    import lancedb
    import pyarrow
    from lancedb.index import IvfRq

    digest = hashlib.sha256()
    kind = pyarrow.list_(pyarrow.float16(), pack.dimension)
    schema = pyarrow.schema([("row", pyarrow.int64()), ("vector", kind)])

    def batches() -> Iterator[Any]:
        start = 0
        for block in pack.blocks():
            digest.update(block.tobytes())
            rows = units(mx.array(block) if space is None else space.comparable(mx.array(block)))
            flat = pyarrow.array(np.array(rows.astype(mx.float16)).reshape(-1))
            columns = [
                np.arange(start, start + len(block)),
                pyarrow.FixedSizeListArray.from_arrays(flat, pack.dimension),
            ]
            yield pyarrow.record_batch(columns, schema=schema)
            start += len(block)
            advance(len(block))

    with whole_folder(pack.folder / INDEX, overwrite=True) as temporary:
        table = lancedb.connect(str(temporary)).create_table(TABLE, batches(), schema=schema)
        if pack.count >= 2 * PARTITION:
            how = IvfRq(distance_type="cosine", num_partitions=round(pack.count / PARTITION), num_bits=1)
            table.create_index("vector", config=how)
        record = {"form": FORM, "engine": "lance", "count": pack.count, "dimension": pack.dimension}
        record |= {"stamp": pack.stamp, "digest": digest.hexdigest(), "space": space_word(space)}
        (temporary / RECORD).write_text(json_text(record) + "\n", encoding="utf-8")
    return sum(file.stat().st_size for file in (pack.folder / INDEX).rglob("*") if file.is_file())


def space_word(space: VoiceSpace | None) -> str | None:
    """What changes with the space that voices are compared in."""
    if space is None or not space.enough:
        return None
    return fingerprint(space.mean) + ("" if space.nuisance is None else fingerprint(space.nuisance))


class PackIndex:
    """The table of a pack."""

    def __init__(self, pack: Pack, partitions: int) -> None:
        import lancedb

        self._table = lancedb.connect(str(pack.folder / INDEX)).open_table(TABLE)
        self._probes = max(1, math.ceil(PROBES * partitions))

    def near(self, one: np.ndarray, k: int) -> np.ndarray:
        """Rows that may be nearest to a unit vector [D]: more than k of them, where there are."""
        query: Any = self._table.search(one.astype(np.float32), vector_column_name="vector")
        found = query.metric("cosine").nprobes(self._probes).limit(max(REFINE * k, LEAST)).select(["row", "_distance"])
        return found.to_arrow()["row"].to_numpy()


def open_index(pack: Pack, space: VoiceSpace | None, room: int) -> PackIndex:
    """The index of a pack that does not fit into `room` bytes. InvalidValue, or MissingExtra, where there is none that
    fits; the message says how to get one."""
    reason = stale(pack, space)
    if reason is not None:
        size, most = 4 * pack.count * pack.dimension / 1e9, room / 1e9
        raise InvalidValue(
            f"pack {pack.name}: its {pack.count:,} voices take {size:.2f} GB, searches may take {most:.2f} GB, and "
            f"{reason}: `voices index --library {pack.folder.parent.parent}` makes one"
            + ("" if importlib.util.find_spec("lancedb") else f" and needs lancedb: {install_hint('lance')}")
        )
    check_engine()
    return PackIndex(pack, max(1, round(pack.count / PARTITION)))


def stale(pack: Pack, space: VoiceSpace | None) -> str | None:
    """Why a pack's index cannot be used, or None."""
    try:
        record = json.loads((pack.folder / INDEX / RECORD).read_text(encoding="utf-8"))
        if record["form"] != FORM or record["engine"] not in ENGINES:
            return "its index is of another form"
        if record["space"] != space_word(space):
            return "its index is of another voice space"
        if (record["count"], record["dimension"]) != (pack.count, pack.dimension):
            return "its index is of other vectors"
        if tuple(record["stamp"]) != pack.stamp and record["digest"] != _digest(pack):  # copied, or changed
            return "its index is of other vectors"
    except FileNotFoundError:
        return "it has no index"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "its index is damaged"
    return None


def _digest(pack: Pack) -> str:
    digest = hashlib.sha256()
    for block in pack.blocks():
        digest.update(block.tobytes())
    return digest.hexdigest()
